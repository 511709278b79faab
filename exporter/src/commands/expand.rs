//! `isqrt-cov expand`.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::{Args, ValueHint};
use isqrt_cov_proto::Model;
use serde_json::{Map, Value, json};

use super::output::{self, Written};
use super::proving::not_proven;
use super::{ProofOptions, checkpoint, facts, layers, path_json, signature};
use crate::cli::{Answer, Refusal, RuntimeOptions};
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
    /// Where to write the expanded model
    #[arg(short, long, value_name = "OUTPUT", value_hint = ValueHint::FilePath)]
    output: PathBuf,
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
    let fused = layers::fused(&original);
    let mut fields = Map::new();
    fields.insert("input".to_owned(), path_json(&arguments.input));
    fields.insert("operators".to_owned(), layers::fused_json(&fused));
    fields.insert("nodes_before".to_owned(), nodes_before.into());
    // What is written takes their place.
    fields.extend(["output", "output_data"].map(|name| (name.to_owned(), Value::Null)));
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
    let written = Written::stage(&model, Some(&arguments.output))?;
    let mut proof = Pair::of(&original, &written.proto, &*runtime, &plan)
        .and_then(|pair| pair.compare(&plan, &Progress::on_terminal()))
        .with_context(|| place("proven"))?;
    proof.notes.extend(facts::newer_format(&original));
    let mut table = Table::pairs();
    table.row(["operators".to_owned(), layers::fused_text(&fused)]);
    table.row(["nodes".to_owned(), format!("{nodes_before} before, {nodes_after} after")]);
    proof.describe(&mut table, ["before", "after"]);
    fields.insert("nodes_after".to_owned(), nodes_after.into());
    fields.insert("proof".to_owned(), proof.to_json());
    let known = proof.samples_json().into_iter();
    fields.extend(known.filter_map(|(name, value)| Some((name.to_owned(), value?))));
    let refusal = not_proven(&proof, "expanded");
    let is_proven = refusal.is_none();
    if is_proven {
        table.row(["written".to_owned(), output::written(&arguments.output, written.data())]);
        fields.insert("output".to_owned(), path_json(&arguments.output));
        fields.insert("output_data".to_owned(), json!(written.data().map(path_json)));
    }
    let mut answer = Answer { fields, text: table.render(), refusal };
    if is_proven {
        written.tell(&mut answer);
        written.commit()?;
    }
    Ok(answer)
}
