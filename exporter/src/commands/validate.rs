//! `isqrt-cov validate`.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueHint};
use isqrt_cov_proto::Model;
use serde_json::json;

use super::expected::{Apart, Limit};
use super::{ProofOptions, checkpoint, facts, layers, path_json, signature};
use crate::commands::answer::{Answer, Refusal};
use crate::commands::runtime_options::RuntimeOptions;
use crate::functions::faults;
use crate::progress::Progress;
use crate::proof::Pair;
use crate::table::Table;

/// Say whether two models compute the same function, on what, and how far apart they are
///
/// Both are run on the same inputs, random ones and your own. Inputs and outputs correspond by name, or by position
/// where the names differ. Exit status 0: the same; 1: they differ, or one of them computes something else where the operator
/// library is not loaded; 2: one of them cannot be run.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  isqrt-cov validate model.onnx fused.onnx
  isqrt-cov validate model.onnx fused.onnx --inputs test.npz --tolerance 1e-5
  isqrt-cov validate model.onnx fused.onnx --onnxruntime libonnxruntime.so --op-library libisqrt_cov_op.so")]
pub struct Arguments {
    /// The model to compare with: an .onnx file
    #[arg(value_hint = ValueHint::FilePath)]
    reference: PathBuf,
    /// The model to judge: an .onnx file
    #[arg(value_hint = ValueHint::FilePath)]
    candidate: PathBuf,
    #[command(flatten)]
    proof: ProofOptions,
    #[command(flatten)]
    runtime: RuntimeOptions,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Answer> {
    checkpoint::refuse(&arguments.reference)?;
    checkpoint::refuse(&arguments.candidate)?;
    let runtime = arguments.runtime.open()?;
    let reference = Arc::new(Model::load(&arguments.reference)?.into_inlined()?);
    let candidate = Arc::new(Model::load(&arguments.candidate)?.into_inlined()?);
    let plan = arguments.proof.plan(&signature(&reference, &arguments.reference)?, None)?;
    signature(&candidate, &arguments.candidate)?;
    let mut proof = Pair::of(&reference, &candidate, &*runtime, &plan)
        .and_then(|pair| pair.compare(&plan, &Progress::on_terminal()))
        .with_context(|| format!("{}: cannot be compared", arguments.reference.display()))?;

    ensure!(
        !proof.not_run,
        "{}: cannot be compared: {}",
        arguments.candidate.display(),
        proof.failure.unwrap_or_default()
    );
    for (path, model) in [(&arguments.reference, &reference), (&arguments.candidate, &candidate)] {
        for fault in faults(model, &layers::fused(model)) {
            let said = format!("{}: {fault}", path.display());
            if fault.is_of_meaning() {
                proof.failure = proof.failure.take().or(Some(said));
            } else {
                proof.notes.push(said);
            }
        }
    }
    // No layer is held against float64 here: the outputs are all that tells.
    proof.demand_variation();
    proof.notes.extend([&reference, &candidate].into_iter().filter_map(|model| facts::newer_format(model)));
    let apart = Apart::of(&proof, Limit::usual(&proof, arguments.proof.tolerance)).filter(Apart::is_too_far);
    proof.notes.extend(apart.map(|apart| format!("{apart}: only the models are compared with each other")));
    let mut table = Table::pairs();
    table.row(["reference".to_owned(), arguments.reference.display().to_string()]);
    table.row(["candidate".to_owned(), arguments.candidate.display().to_string()]);
    proof.describe(&mut table, ["reference", "candidate"]);
    let mut fields = json!({
        "reference": path_json(&arguments.reference),
        "candidate": path_json(&arguments.candidate),
    });
    proof.tell(&mut fields);
    let refusal = proof.failure.map(|message| Refusal { reason: "different", message });
    Ok(Answer { fields, text: table.render(), refusal })
}
