//! `isqrt-cov convert`.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, ensure};
use clap::{Args, ValueHint};
use isqrt_cov_proto::Model;
use isqrt_cov_proto::onnx::ModelProto;

use super::conversion::{Conversion, Converted};
use super::output::{self, Written};
use super::page::page;
use super::repair::{self, Repair};
use super::selection::Selection;
use super::{ProofOptions, layers};
use crate::cli::{Answer, Refusal, RuntimeOptions};
use crate::expand;
use crate::progress::Progress;
use crate::proof::{Plan, compare, latency, parting, truth};
use crate::recognize::{Found, recognize};
use crate::report;
use crate::rewrite;
use crate::runtime::ort::OPERATORS_VARIABLE;
use crate::signature::Signature;

/// Replace each covariance layer by a single operator, and prove that the model computes the same function
///
/// Layers are found by what they compute. Each becomes one node of the domain `ai.isqrtcov`; beside it stands an ONNX
/// function with the same meaning in standard operators, so that runtimes without the operator library run the file
/// too. Everything else in the model stays as it was. The original and the file written are then run on the same
/// inputs, and OUTPUT appears only if they agree: for a model that cannot be converted, or whose proof
/// fails, nothing is written, an older OUTPUT stays as it was, and the exit status is 1. The input is never replaced.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  isqrt-cov convert model.onnx -o fused.onnx
  isqrt-cov convert model.onnx -o fused.onnx --inputs test.npz     Accuracy before and after on your own data
  isqrt-cov convert model.onnx -o fused.onnx --report report.html  What was done, and why it may be trusted
  isqrt-cov convert model.onnx -o fused.onnx --only /head/pool/Gather_output_0     One layer of several
  isqrt-cov convert model.onnx -o fused.onnx --onnxruntime /usr/lib/libonnxruntime.so
  isqrt-cov convert model.onnx --dry-run --json | jq .proof
  isqrt-cov convert broken.onnx -o fused.onnx --repair --iterations 5 --expected outputs.npz")]
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
    /// Convert and prove, but write no model
    #[arg(long)]
    dry_run: bool,
    /// Write a report: a page to read where FILE ends in .html, what --json prints where it ends in .json
    ///
    /// It has the proof, and for each layer what it is, how that is known, its graph before and after, and its errors
    /// against float64; and the latency of both models, which takes about two seconds to measure. It is written also
    /// where the answer is no, and with --dry-run.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    report: Option<PathBuf>,
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    repair: Repair,
    #[command(flatten)]
    proof: ProofOptions,
    #[command(flatten)]
    runtime: RuntimeOptions,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Answer> {
    output::refuse_checkpoint(&arguments.input)?;
    let destination = arguments.check()?;
    let runs_operators = arguments.runtime.has_operators();
    ensure!(
        runs_operators || !arguments.no_function,
        "without function bodies the converted model runs only with the operator library; name it with --op-library \
         or {OPERATORS_VARIABLE}"
    );
    let runtime = arguments.runtime.open()?;
    let mut model = Model::load(&arguments.input)?;
    let original = Arc::new(model.inlined()?);
    let mut plan = arguments.proof.plan(&Signature::of(&original)?, arguments.repair.expected())?;

    let progress = Progress::on_terminal();
    progress.spin("looking for layers");
    let mut findings = recognize(&original, &*runtime)?;
    progress.end();
    let put_back = arguments.repair.take(&mut findings)?;
    findings.layers.extend(put_back);
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
    let mut conversion = Conversion { findings, skipped, nodes_before, converted: None, refusal };
    if conversion.refusal.is_some() {
        return arguments.finish(&conversion, &original, None);
    }

    let layers = &conversion.findings.layers;
    let repaired: Vec<Found> = layers.iter().filter(|found| found.is_repaired()).cloned().collect();
    // What an exporter broke is compared with what it should have written.
    let whole =
        (!repaired.is_empty()).then(|| repair::reference(&original, &repaired).map(Arc::new)).transpose()?;
    let reference = whole.as_ref().unwrap_or(&original);
    rewrite::apply(&mut model.proto, layers, !arguments.no_function)?;
    let written = Written::stage(&model, destination)?;
    drop(model);
    let mut proof = compare(reference, &written.proto, &*runtime, &plan, &progress)?;
    if !repaired.is_empty() {
        proof.notes.push(repair::note(&repaired));
        // What the user's data say of the original is of the broken one.
        let plan = Plan { seeds: 0, ..plan.clone() };
        proof.samples = compare(&original, &written.proto, &*runtime, &plan, &progress)?.samples;
    }
    progress.spin("measuring against float64");
    let accuracies = truth(reference, &written.proto, layers, &*runtime, &plan, &proof);
    progress.end();
    if plan.tolerance.is_none() {
        proof.allow_rounding(layers, &accuracies);
        plan.tolerance = Some(proof.tolerance);
    }
    if let Some(failure) = &mut proof.failure {
        let place = parting(reference, &written.proto, layers, &*runtime, &plan);
        failure.extend(place.into_iter().flat_map(|place| ["; ".to_owned(), place]));
    } else if !runs_operators {
        let note = "the function bodies ran, not the operators: no operator library was found".to_owned();
        proof.notes.push(note);
    } else if !arguments.no_function {
        // Only the operators have run so far; where the library is absent, their bodies will.
        let expanded = Arc::new(expand::inline(&written.proto)?);
        let body = compare(
            reference,
            &expanded,
            &*runtime,
            &Plan { seeds: 1, samples: None, ..plan.clone() },
            &progress,
        )?;
        proof.join_body(&body);
    }
    conversion.refusal = proof.failure.as_ref().map(|failure| Refusal {
        reason: "proof-failed",
        message: format!(
            "the converted model is not proven to compute the same function, and was not written: {failure}"
        ),
    });
    if repaired.is_empty() {
        proof.notes.extend(arguments.repair.was_idle());
    } else if conversion.refusal.is_none() {
        conversion.refusal = arguments.repair.judge(&proof)?;
    }
    let latency = arguments.report.as_ref().map(|_| {
        progress.spin("measuring the latency");
        let latency = latency(reference, &written.proto, &*runtime, &plan, &proof);
        progress.end();
        latency.map_err(|error| format!("{error:#}"))
    });
    let nodes_after = layers::node_count(&written.proto);
    conversion.converted = Some(Converted { nodes_after, proof, accuracies, latency });
    arguments.finish(&conversion, &original, Some(written))
}

impl Arguments {
    /// Checks, before any long work, that what is to be written may be.
    fn check(&self) -> Result<Option<&PathBuf>> {
        let destination = self.output.as_ref().filter(|_| !self.dry_run);
        let read = || self.proof.read_with(&self.input).chain(self.repair.expected().map(PathBuf::as_path));
        if let Some(destination) = destination {
            output::check(read(), destination, "-o")?;
        }
        if let Some(report) = &self.report {
            report::Format::of(report)?;
            output::check(read(), report, "--report")?;
            if let Some(destination) = destination {
                let data = destination.with_added_extension("data");
                let clash = output::same_file(report, destination) || output::same_file(report, &data);
                ensure!(
                    !clash,
                    "{}: is where the model goes; name another file with --report",
                    report.display()
                );
            }
        }
        Ok(destination)
    }

    /// Writes the report, where one is asked for, and then the model, where it is proven.
    fn finish(
        &self,
        conversion: &Conversion,
        original: &ModelProto,
        model: Option<Written>,
    ) -> Result<Answer> {
        let proven = conversion.refusal.is_none();
        let written = self.output.as_deref().filter(|_| proven && !self.dry_run);
        let answer = conversion.answer(&self.input, written, !self.no_function);
        if let Some(path) = &self.report {
            let content = match report::Format::of(path)? {
                report::Format::Json => answer.to_json().to_string() + "\n",
                report::Format::Page => page(conversion, original, &self.input, written),
            };
            report::write(path, &content)?;
        }
        if let Some(model) = model.filter(|_| proven) {
            model.commit()?;
        }
        Ok(answer)
    }
}
