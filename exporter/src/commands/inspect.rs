//! `isqrt-cov inspect`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueHint};
use isqrt_cov_proto::Model;
use serde_json::{Value, json};

use super::{checkpoint, facts, layers, path_json, signature};
use crate::commands::answer::Answer;
use crate::commands::runtime_options::RuntimeOptions;
use crate::data::{Data, Samples};
use crate::functions::{Fault, faults};
use crate::progress::Progress;
use crate::recognize::recognize_with;
use crate::signature::Port;
use crate::table::{Table, one_line};

/// Show what is in a model: the layers found with their parameters, and why near misses are none
///
/// Regions of the graph are evaluated, not compared with patterns of nodes: what is reported is what they compute.
/// Of a checkpoint, its architecture, tensors and parameters are shown, what is assumed, and what does not fit. Nothing is written. The exit status is 0 if the model holds a layer, fused already or not, and 1 if it holds none
/// or lost one.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  isqrt-cov inspect model.onnx
  isqrt-cov inspect model.onnx --inputs test.npz     Sizes that the model leaves open, as in your data
  isqrt-cov inspect model_best.pth.tar
  isqrt-cov inspect model.onnx --json | jq .layers")]
pub struct Arguments {
    /// The model: an .onnx file, or a checkpoint
    #[arg(value_hint = ValueHint::FilePath)]
    input: PathBuf,
    /// Data that show which sizes the model takes, where it leaves them open
    ///
    /// A .npz archive or .npy file as convert takes it. Only the shapes are used; an .onnx file's only.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    inputs: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) runtime: RuntimeOptions,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Answer> {
    if checkpoint::is_meant(&arguments.input) {
        ensure!(
            arguments.inputs.is_none(),
            "--inputs shows the sizes that an .onnx file leaves open, and inspect runs no checkpoint; what data say of one is told \
             by: isqrt-cov convert {} --dry-run --inputs {}",
            arguments.input.display(),
            arguments.inputs.as_deref().unwrap_or(Path::new("FILE")).display()
        );
        return checkpoint::inspect(&arguments.input);
    }
    let runtime = arguments.runtime.open()?;
    let proto = &Model::load(&arguments.input)?.into_inlined()?;
    let signature = signature(proto, &arguments.input)?;
    let samples = arguments.inputs.as_ref().map(|path| Data::read(path)?.fit(&signature)).transpose()?;
    let known = samples.as_ref().map(Samples::shapes);
    let progress = Progress::on_terminal();
    progress.spin("looking for layers");
    let findings = recognize_with(proto, &*runtime, known.as_deref())
        .with_context(|| format!("{}: cannot be evaluated", arguments.input.display()))?;
    progress.end();
    let fused = layers::fused(proto);
    let faults = faults(proto, &fused);

    let mut table = Table::pairs();
    table.row(["model".to_owned(), arguments.input.display().to_string()]);
    facts::describe(proto, &signature, &mut table);
    table.row(["nodes".to_owned(), layers::node_count(proto).to_string()]);
    let notes: Vec<String> = facts::newer_format(proto).into_iter().chain(facts::not_finite(proto)).collect();
    notes.iter().for_each(|note| table.row(["note".to_owned(), note.clone()]));
    if !fused.is_empty() {
        table.row(["fused".to_owned(), layers::fused_text(&fused)]);
    }
    let mut text = table.render();
    text.extend(faults.iter().map(|fault| format!("\nfault: {}\n", one_line(&fault.to_string()))));
    if !findings.layers.is_empty() {
        text.push('\n');
        text.push_str(&layers::layer_table(&findings.layers));
    }
    if let Some(problem) = findings.not_evaluated.as_ref().filter(|_| !findings.layers.is_empty()) {
        let problem = one_line(problem);
        let _ = writeln!(text, "\nnot all of it could be evaluated, so there may be more: {problem}");
    }
    let obstacle = layers::obstacle(&findings, proto);
    if let Some(obstacle) = &obstacle {
        let _ = writeln!(text, "\n{obstacle}");
    }
    let others = layers::others_text(&findings);
    if !others.is_empty() {
        text.push('\n');
        text.push_str(&others);
    }

    let fields = json!({
        "model": path_json(&arguments.input),
        "ir_version": proto.ir_version(),
        "opsets": facts::opsets(proto).collect::<Value>(),
        "producer": proto.producer_name(),
        "inputs": signature.inputs.iter().map(port_json).collect::<Vec<_>>(),
        "outputs": signature.outputs.iter().map(port_json).collect::<Vec<_>>(),
        "nodes": layers::node_count(proto),
        "fused": layers::fused_json(&fused),
        "faults": faults.iter().map(Fault::to_string).collect::<Vec<_>>(),
        "layers": findings.layers.iter().map(layers::layer_json).collect::<Vec<_>>(),
        "near_misses": findings.misses.iter().map(layers::miss_json).collect::<Vec<_>>(),
        "obstacle": obstacle,
        "not_evaluated": findings.not_evaluated,
        "notes": notes,
        "lost_iterations": findings.lost.iter().map(layers::lost_json).collect::<Vec<_>>(),
        "runtime": runtime.name(),
    });
    let refusal = layers::refusal(&findings, proto, &faults, &*runtime);
    let refusal = refusal.filter(|refusal| !layers::is_converted_already(refusal));
    Ok(Answer { fields, text, refusal })
}

fn port_json(port: &Port) -> Value {
    use crate::signature::Dim;
    let dim = |dim: &Dim| match dim {
        Dim::Fixed(size) => json!(size),
        Dim::Named(name) => json!(name),
        Dim::Unknown => Value::Null,
    };
    json!({
        "name": port.name,
        "element_type": port.element.map(crate::tensor::ElementType::name),
        "shape": port.dims.as_ref().map(|dims| dims.iter().map(dim).collect::<Vec<_>>()),
    })
}
