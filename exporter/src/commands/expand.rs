//! `isqrt-cov expand`.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::{Args, ValueHint};
use isqrt_cov_proto::Model;
use serde_json::json;

use super::form::Form;
use super::output::{self, Written};
use super::proving::not_proven;
use super::{ProofOptions, checkpoint, facts, layers, path_json, signature};
use crate::commands::answer::{Answer, Refusal};
use crate::commands::runtime_options::RuntimeOptions;
use crate::expand;
use crate::progress::Progress;
use crate::proof::Pair;
use crate::table::Table;

/// Replace the operators of `ai.isqrtcov` by standard ones, for runtimes that know neither them nor model functions
///
/// The reverse of convert, proven and written the same way.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  isqrt-cov expand fused.onnx -o plain.onnx")]
pub struct Arguments {
    /// The model to expand: an .onnx file
    #[arg(value_hint = ValueHint::FilePath)]
    input: PathBuf,
    /// Where to write the expanded model; one that is there is replaced, unless it is read-only
    #[arg(short, long, value_name = "OUTPUT", value_hint = ValueHint::FilePath)]
    output: PathBuf,
    #[command(flatten)]
    form: Form,
    #[command(flatten)]
    proof: ProofOptions,
    #[command(flatten)]
    runtime: RuntimeOptions,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Answer> {
    checkpoint::refuse(&arguments.input)?;
    let libraries = arguments.runtime.libraries();
    let read = arguments.proof.read_with(&arguments.input).chain(libraries.iter().map(PathBuf::as_path));
    output::check_model(read, &arguments.output)?;
    let runtime = arguments.runtime.open()?;
    let mut model = Model::load(&arguments.input)?;
    let original = Arc::new(model.inlined()?);
    let plan = arguments.proof.plan(&signature(&original, &arguments.input)?, None)?;
    let nodes_before = layers::node_count(&original);
    layers::ensure_known(&original, &arguments.input)?;
    let fused = layers::fused(&original);
    let mut fields = json!({
        "input": path_json(&arguments.input),
        "operators": layers::fused_json(&fused),
        "nodes_before": nodes_before,
        // What is written takes their place.
        "output": null,
        "output_data": null,
    });
    if fused.is_empty() {
        let refusal = Refusal {
            reason: "no-layer-found",
            message: "the model holds no operator of ai.isqrtcov; there is nothing to expand".to_owned(),
        };
        return Ok(Answer { fields, text: String::new(), refusal: Some(refusal) });
    }
    let place = |what: &str| format!("{}: cannot be {what}", arguments.input.display());
    model.proto = expand::inline(&model.proto).with_context(|| place("expanded"))?;
    let nodes_after = layers::node_count(&model.proto);
    let written = Written::stage(model, &arguments.form, Some(&arguments.output))?;
    let mut proof = Pair::of(&original, &written.proto, &*runtime, &plan)
        .and_then(|pair| pair.compare(&plan, &Progress::on_terminal()))
        .with_context(|| place("proven"))?;
    proof.notes.extend(facts::newer_format(&original));
    let mut table = Table::pairs();
    table.row(["operators".to_owned(), layers::fused_text(&fused)]);
    table.row(["nodes".to_owned(), format!("{nodes_before} before, {nodes_after} after")]);
    proof.describe(&mut table, ["before", "after"]);
    fields["nodes_after"] = nodes_after.into();
    proof.tell(&mut fields);
    let refusal = not_proven(&proof, "expanded");
    let is_proven = refusal.is_none();
    if is_proven {
        table.row(["written".to_owned(), output::written(&arguments.output, written.data())]);
        fields["output"] = path_json(&arguments.output);
        fields["output_data"] = written.data().map(path_json).into();
    }
    let mut answer = Answer { fields, text: table.render(), refusal };
    if is_proven {
        written.tell(&mut answer);
        written.commit()?;
    }
    Ok(answer)
}
