//! `isqrt-cov convert`.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::{Args, ValueHint};
use isqrt_cov_proto::Model;
use serde_json::{Map, Value, json};

use super::output::{self, Written};
use super::selection::Selection;
use super::{ProofOptions, layers};
use crate::cli::{Answer, Refusal, RuntimeOptions};
use crate::expand;
use crate::progress::Progress;
use crate::proof::{Plan, Proof, compare, parting, tolerance};
use crate::recognize::{Findings, Found, recognize};
use crate::rewrite;
use crate::runtime::ort::OPERATORS_VARIABLE;
use crate::signature::Signature;
use crate::table::Table;

/// Replace each covariance layer by a single operator, and prove that the model computes the same function
///
/// Layers are found by what they compute. Each becomes one node of the domain `ai.isqrtcov`; beside it stands an ONNX
/// function with the same meaning in standard operators, so that runtimes without the operator library run the file
/// too. Everything else in the model stays as it was. The original and the file written are then run on the same
/// inputs, and OUTPUT appears only if they agree: a model that cannot be converted, or whose proof fails, leaves no
/// file and exit status 1. An existing OUTPUT is replaced; the input never is.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  isqrt-cov convert model.onnx -o fused.onnx
  isqrt-cov convert model.onnx -o fused.onnx --inputs test.npz     Accuracy before and after on your own data
  isqrt-cov convert model.onnx -o fused.onnx --only /head/pool/Gather_output_0     One layer of several
  isqrt-cov convert model.onnx -o fused.onnx --onnxruntime /usr/lib/libonnxruntime.so
  isqrt-cov convert model.onnx --dry-run --json | jq .proof")]
pub struct Arguments {
    /// The model to convert: an .onnx file
    #[arg(value_hint = ValueHint::FilePath)]
    input: PathBuf,
    /// Where to write the converted model
    #[arg(short, long, value_name = "OUTPUT", value_hint = ValueHint::FilePath, required_unless_present = "dry_run")]
    output: Option<PathBuf>,
    /// Leave out the function body: the file is smaller, but runs only where the operator library is loaded
    #[arg(long)]
    no_function: bool,
    /// Convert and prove, but write nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    proof: ProofOptions,
    #[command(flatten)]
    runtime: RuntimeOptions,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Answer> {
    output::refuse_checkpoint(&arguments.input)?;
    let destination = arguments.output.as_ref().filter(|_| !arguments.dry_run);
    if let Some(destination) = destination {
        output::check(arguments.proof.read_with(&arguments.input), destination)?;
    }
    let runs_operators = arguments.runtime.has_operators();
    ensure!(
        runs_operators || !arguments.no_function,
        "without function bodies the converted model runs only with the operator library; name it with --op-library \
         or {OPERATORS_VARIABLE}"
    );
    let runtime = arguments.runtime.open()?;
    let mut model = Model::load(&arguments.input)?;
    let original = model.inlined()?;
    let mut plan = arguments.proof.plan(&Signature::of(&original)?)?;

    let progress = Progress::on_terminal();
    progress.spin("looking for layers");
    let mut findings = recognize(&original, &*runtime)?;
    progress.end();
    let nodes_before = layers::node_count(&original);
    let mut refusal = layers::refusal(&findings, &original, &runtime.name());
    let mut skipped = Vec::new();
    if refusal.is_none() {
        (findings.layers, skipped) = arguments.selection.divide(findings.layers, &original)?;
        refusal = findings.layers.is_empty().then(|| Refusal {
            reason: "all-skipped",
            message: format!(
                "every layer of the model is left as it is, as --skip says: {}",
                layers::listed(&skipped)
            ),
        });
    }
    if let Some(refusal) = refusal {
        let mut answer = describe(arguments, &findings, &skipped, nodes_before, None);
        answer.refusal = Some(refusal);
        return Ok(answer);
    }

    rewrite::apply(&mut model.proto, &findings.layers, !arguments.no_function)?;
    let nodes_after = layers::node_count(&model.proto);
    if plan.tolerance.is_none() {
        // The original cannot be nearer to the truth, nor the converted model nearer to the original, than its layers
        // are to the float64 reference.
        let strayed = findings.layers.iter().map(|found| 4.0 * found.evidence.error).fold(0.0, f64::max);
        plan.tolerance = Some(tolerance([&original, &model.proto]).max(strayed));
    }
    let written = Written::stage(&model, destination)?;
    let mut proof = compare(&original, &written.proto, &*runtime, &plan, &progress)?;
    if let Some(failure) = &mut proof.failure {
        let place = parting(&original, &written.proto, &findings.layers, &*runtime, &plan);
        failure.extend(place.into_iter().flat_map(|place| ["; ".to_owned(), place]));
    } else if !runs_operators {
        let note = "the function bodies ran, not the operators: no operator library was found".to_owned();
        proof.notes.push(note);
    } else if !arguments.no_function {
        // Only the operators have run so far; where the library is absent, their bodies will.
        let expanded = expand::inline(&written.proto)?;
        let body =
            compare(&original, &expanded, &*runtime, &Plan { seeds: 1, samples: None, ..plan }, &progress)?;
        proof.join_body(&body);
    }
    if proof.failure.is_none() {
        written.commit()?;
    }
    let mut answer = describe(arguments, &findings, &skipped, nodes_before, Some((nodes_after, &proof)));
    answer.refusal = proof.failure.map(|failure| Refusal {
        reason: "proof-failed",
        message: format!(
            "the converted model is not proven to compute the same function, and was not written: {failure}"
        ),
    });
    Ok(answer)
}

fn describe(
    arguments: &Arguments,
    findings: &Findings,
    skipped: &[Found],
    nodes_before: usize,
    converted: Option<(usize, &Proof)>,
) -> Answer {
    let proven = converted.filter(|(_, proof)| proof.failure.is_none());
    let written = arguments.output.as_ref().filter(|_| proven.is_some() && !arguments.dry_run);
    let mut fields = Map::new();
    let mut field = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    field("input", json!(arguments.input));
    field("output", json!(written));
    field("layers", findings.layers.iter().map(layers::layer_json).collect());
    field("skipped", skipped.iter().map(layers::layer_json).collect());
    field("near_misses", findings.misses.iter().map(layers::miss_json).collect());
    field("lost_iterations", findings.lost.iter().map(layers::lost_json).collect());
    field("nodes_before", nodes_before.into());
    field("nodes_after", converted.map_or(nodes_before, |(after, _)| after).into());
    field("function", (converted.is_some() && !arguments.no_function).into());
    field("proof", converted.map_or(Value::Null, |(_, proof)| proof.to_json()));
    for (name, value) in converted.iter().flat_map(|(_, proof)| proof.samples_json()) {
        if let Some(value) = value {
            field(name, value);
        }
    }

    let mut text = String::new();
    if !findings.layers.is_empty() {
        text.push_str(&layers::layer_table(&findings.layers));
        text.push('\n');
    }
    if !skipped.is_empty() {
        text.extend(["left as they are: ", &layers::listed(skipped), "\n"]);
    }
    text.push_str(&layers::others_text(findings));
    if let Some((nodes_after, proof)) = converted {
        let mut table = Table::pairs();
        table.row(["nodes".to_owned(), format!("{nodes_before} before, {nodes_after} after")]);
        proof.describe(&mut table, ["before", "after"]);
        if let Some(written) = written {
            table.row(["written".to_owned(), written.display().to_string()]);
        }
        text.push_str(&table.render());
    }
    Answer { fields, text, refusal: None }
}
