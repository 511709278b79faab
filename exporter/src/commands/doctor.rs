//! `isqrt-cov doctor`.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use clap::Args;
use isqrt_cov_op::cuda::Gpu;
use isqrt_cov_op::{DOMAIN, Layer, OperatorKind, VERSION, reference};
use isqrt_cov_proto::onnx::tensor_proto::DataType;
use isqrt_cov_proto::onnx::{GraphProto, ModelProto, NodeProto, ValueInfoProto};
use serde_json::{Value, json};

use super::path_json;
use crate::body;
use crate::commands::answer::{Answer, Refusal};
use crate::commands::runtime_options::Libraries;
use crate::distance::relative_distance;
use crate::recognize::probe::Generator;
use crate::runtime::ort::{self, Ort};
use crate::runtime::tract::Tract;
use crate::runtime::{Runtime, processor};
use crate::table::Table;
use crate::tensor::{ElementType, Tensor};

/// Check which runtime and which operator library there are, whether they load, and which kernel runs
///
/// A model of one node is run: in tract, in ONNX Runtime with the operator library (its profile tells whose kernel
/// ran) and without it (the function body runs), each compared with the float64 reference. An NVIDIA GPU that the CUDA
/// kernels run on has them loaded. Exit status 0: everything that was named, or found, works; 1: something does not.
/// Without an ONNX Runtime only tract and the GPU are checked.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  isqrt-cov doctor
  isqrt-cov doctor --onnxruntime $(python3 -c 'import onnxruntime; print(onnxruntime.__path__[0])')
  isqrt-cov doctor --onnxruntime libonnxruntime.so --op-library libisqrt_cov_op.so --json")]
pub struct Arguments {
    #[command(flatten)]
    libraries: Libraries,
}

/// The shape of the model's input: two samples of 6 channels with 5×7 positions.
const DIMS: [usize; 4] = [2, 6, 5, 7];
/// max|Δ| / max|reference| that float32 arithmetic may leave.
const TOLERANCE: f64 = 1e-5;
/// The model's operator set of the standard domain: one that every supported runtime knows.
const OPSET: i64 = 17;

/// What was checked.
struct Check {
    name: &'static str,
    outcome: Outcome,
}

impl Check {
    fn new(name: &'static str, outcome: impl Into<Outcome>) -> Self {
        Self { name, outcome: outcome.into() }
    }
}

/// What came of a check.
enum Outcome {
    /// It works: how.
    Works(String),
    /// Nothing was there to check, or to check it with: why.
    NotChecked(String),
    Fails(anyhow::Error),
}

impl From<Result<String>> for Outcome {
    fn from(result: Result<String>) -> Self {
        result.map_or_else(Self::Fails, Self::Works)
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<Answer> {
    let node = OneNode::new()?;
    let mut checks = Vec::new();
    let mut table = Table::pairs();
    table.row(["isqrt-cov".to_owned(), env!("CARGO_PKG_VERSION").to_owned()]);
    table.row(["operators".to_owned(), format!("{DOMAIN} version {VERSION}")]);

    checks.push(Check::new("tract", node.in_tract()));
    let gpu = Gpu::current();
    let operators = arguments.libraries.operators();
    let mut fields = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "domain_version": VERSION,
        "gpu": gpu.as_ref().ok().map(gpu_json),
        "op_library": operators.as_deref().map(path_json),
        "onnxruntime": null,
    });
    checks.push(Check::new("CUDA", gpu_outcome(gpu)));
    let is_named = arguments.libraries.names_runtime();
    let library = arguments.libraries.runtime();
    let mut note = None;
    match library {
        Ok(library) => check_ort(&node, &library, operators.as_deref(), &mut checks, &mut fields),
        Err(error) => {
            if is_named {
                checks.push(Check::new("ONNX Runtime", Err(error)));
            } else {
                note = Some(format!("{error:#}"));
            }
            checks.extend(operators.as_deref().map(unloaded));
        }
    }

    let mut failed = Vec::new();
    let mut results = json!({});
    for Check { name, outcome } in checks {
        let (works, text) = match outcome {
            Outcome::Works(text) => (Some(true), text),
            Outcome::NotChecked(text) => (None, text),
            Outcome::Fails(error) => {
                failed.push(format!("{name}: {error:#}"));
                (Some(false), format!("FAILS: {error:#}"))
            }
        };
        results[name] = json!({ "works": works, "result": text });
        table.row([name.to_owned(), text]);
    }
    fields["checks"] = results;
    if let Some(note) = note {
        table.row(["ONNX Runtime".to_owned(), format!("not checked: {note}")]);
        fields["note"] = note.into();
    }
    let refusal = (!failed.is_empty()).then(|| Refusal { reason: "not-working", message: failed.join("; ") });
    Ok(Answer { fields, text: table.render(), refusal })
}

/// The check of the operator library where nothing loads it: all that can be told is what the file is.
fn unloaded(operators: &Path) -> Check {
    let found = || {
        ensure!(operators.is_file(), "{}: there is no such file", operators.display());
        processor::check(operators)
    };
    let said = format!("{}: not checked: there is no ONNX Runtime to load it", operators.display());
    Check::new("operator library", found().map_or_else(Outcome::Fails, |()| Outcome::NotChecked(said)))
}

/// What there is to say of the GPU. One that is not there, or that the kernels are not made for, is no failure.
fn gpu_outcome(gpu: Result<Gpu, isqrt_cov_op::Error>) -> Outcome {
    use isqrt_cov_op::Error::{Device, Driver};
    match gpu {
        Ok(Gpu { name, capability: (major, minor), driver, kernels, .. }) => Outcome::Works(format!(
            "{name} of compute capability {major}.{minor}, driver of CUDA {driver}: the kernels for {kernels} load"
        )),
        Err(Driver { found }) => {
            Outcome::NotChecked(format!("not used: there is no NVIDIA driver to use: {found}"))
        }
        Err(error @ Device { .. }) => Outcome::NotChecked(format!("not used: {error}")),
        Err(error) => Outcome::Fails(error.into()),
    }
}

fn gpu_json(gpu: &Gpu) -> Value {
    let (major, minor) = gpu.capability;
    json!({
        "name": gpu.name,
        "compute_capability": format!("{major}.{minor}"),
        "driver_cuda": gpu.driver,
        "kernels": gpu.kernels,
        "clusters": gpu.clusters,
        "reading_clusters": gpu.reading_clusters,
    })
}

fn check_ort(
    node: &OneNode,
    library: &Path,
    operators: Option<&Path>,
    checks: &mut Vec<Check>,
    fields: &mut Value,
) {
    let plain = match Ort::load(library, None, None) {
        Ok(plain) => plain,
        Err(error) => {
            checks.push(Check::new("ONNX Runtime", Err(error)));
            checks.extend(operators.map(unloaded));
            return;
        }
    };
    let found = format!("{} at {}", plain.version(), plain.library().display());
    fields["onnxruntime"] =
        json!({ "version": plain.version(), "path": path_json(plain.library()), "build": ::ort::info() });
    checks.push(Check::new("ONNX Runtime", Ok(found)));
    checks.push(Check::new("function body", node.in_ort(&plain, None).map(|ran| ran.text())));
    let Some(operators) = operators else {
        let outcome = "not checked: none given; name it with --op-library or ISQRT_COV_OP_LIBRARY";
        checks.push(Check::new("operator library", Outcome::NotChecked(outcome.to_owned())));
        return;
    };
    let outcome = Ort::load(library, Some(operators), None)
        .and_then(|runtime| node.in_ort(&runtime, Some("IsqrtCov")))
        .map(|ran| {
            fields["kernel_provider"] = json!(ran.provider);
            format!("{}: {}", operators.display(), ran.text())
        });
    checks.push(Check::new("operator library", outcome));
}

/// A model of one node with an input and what the float64 reference makes of it.
struct OneNode {
    model: ModelProto,
    input: Tensor,
    expected: Vec<f64>,
}

/// What ran in ONNX Runtime.
struct Ran {
    error: f64,
    kernels: Vec<String>,
    provider: Option<String>,
}

impl Ran {
    fn text(&self) -> String {
        let error = format!("max error {:.0e} from the float64 reference", self.error);
        match &self.provider {
            Some(provider) => format!("{error}; the profile shows IsqrtCov's kernel on {provider}"),
            None => format!("{error}; {} standard operators ran", self.kernels.len()),
        }
    }
}

impl OneNode {
    fn new() -> Result<Self> {
        let layer = Layer::new(OperatorKind::IsqrtCov);
        let mut random = Generator::new(1);
        let values: Vec<f64> =
            (0..DIMS.iter().product::<usize>()).map(|_| f64::from(random.normal() as f32)).collect();
        let expected = reference::evaluate(&layer, &values, &DIMS)?;
        let width = expected.len() / DIMS[0];
        let mut node = NodeProto::new(layer.name(), &["x"], &["y"]).in_domain(DOMAIN).named("layer");
        node.attribute = isqrt_cov_models::node::attributes_of(&layer);
        let graph = GraphProto {
            name: Some("doctor".to_owned()),
            node: vec![node],
            input: vec![ValueInfoProto::tensor("x", DataType::Float, DIMS.map(Into::into))],
            output: vec![ValueInfoProto::tensor("y", DataType::Float, [DIMS[0].into(), width.into()])],
            ..GraphProto::default()
        };
        let model = ModelProto {
            functions: vec![body::function_for(&[layer], Some(DataType::Float), OPSET)?],
            ..ModelProto::new(graph, OPSET).importing(DOMAIN, VERSION)
        };
        Ok(Self { model, input: Tensor::from_f64(ElementType::F32, &DIMS, &values), expected })
    }

    fn in_tract(&self) -> Result<String> {
        let tract = Tract::new();
        let outputs = tract
            .prepare(&Arc::new(self.model.clone()), &[DIMS.to_vec()])?
            .run(std::slice::from_ref(&self.input))?;
        let error = self.judge(&outputs)?;
        Ok(format!("{}: max error {error:.0e} from the float64 reference", Tract::VERSION))
    }

    /// Runs the model; with `kernel`, the profile must show it.
    fn in_ort(&self, runtime: &Ort, kernel: Option<&str>) -> Result<Ran> {
        let folder = tempfile::tempdir()?;
        let mut builder = runtime.builder()?;
        builder = builder.with_profiling(folder.path().join("profile")).map_err(::ort::Error::<()>::from)?;
        let mut session = runtime.session(&mut builder, &self.model)?;
        let outputs = ort::run(&mut session, std::slice::from_ref(&self.input))?;
        let profile =
            std::fs::read_to_string(session.end_profiling()?).context("ONNX Runtime left no profile")?;
        let error = self.judge(&outputs)?;
        let kernels = kernels(&profile)?;
        let Some(kernel) = kernel else {
            let kernels = kernels.into_iter().map(|(name, _)| name).collect();
            return Ok(Ran { error, kernels, provider: None });
        };
        let provider = kernels.iter().find(|(name, _)| name == kernel).map(|(_, provider)| provider.clone());
        let kernels: Vec<_> = kernels.into_iter().map(|(name, _)| name).collect();
        ensure!(
            provider.is_some(),
            "the profile shows no {kernel} kernel, but {}; the function body ran instead",
            kernels.join(", ")
        );
        Ok(Ran { error, kernels, provider })
    }

    /// max|Δ| / max|reference| of the model's output.
    fn judge(&self, outputs: &[Tensor]) -> Result<f64> {
        let output = outputs.first().context("the model gave no output")?.to_f64();
        ensure!(
            output.len() == self.expected.len(),
            "the output has {} elements; expected {}",
            output.len(),
            self.expected.len()
        );
        let error = relative_distance(&output, &self.expected);
        ensure!(
            error <= TOLERANCE,
            "the output is {error:.1e} away from the float64 reference; expected at most {TOLERANCE:.0e}"
        );
        Ok(error)
    }
}

/// The operators whose kernels a profile shows, each with its execution provider.
fn kernels(profile: &str) -> Result<Vec<(String, String)>> {
    let events: Vec<Value> = serde_json::from_str(profile).context("the profile is not JSON")?;
    let kernel = |event: &Value| {
        let name = event["name"].as_str()?;
        let (operator, provider) = (event["args"]["op_name"].as_str()?, event["args"]["provider"].as_str()?);
        name.ends_with("_kernel_time").then(|| (operator.to_owned(), provider.to_owned()))
    };
    Ok(events.iter().filter_map(kernel).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_read_from_the_profile() {
        let profile = r#"[
            {"cat":"Session","name":"model_loading","args":{}},
            {"cat":"Node","name":"layer_fence_before","args":{"op_name":"IsqrtCov"}},
            {"cat":"Node","name":"layer_kernel_time","args":{"op_name":"IsqrtCov","provider":"CPUExecutionProvider"}}
        ]"#;
        let expected = [("IsqrtCov".to_owned(), "CPUExecutionProvider".to_owned())];
        assert_eq!(kernels(profile).unwrap(), expected);
        assert!(kernels("[{").is_err());
    }

    #[test]
    fn a_wrong_output_is_not_passed() {
        let node = OneNode::new().unwrap();
        let right = Tensor::from_f64(ElementType::F32, &[2, 21], &node.expected);
        assert!(node.judge(&[right]).unwrap() < 1e-6);
        let mut wrong = node.expected.clone();
        wrong[3] *= 1.01;
        assert!(node.judge(&[Tensor::from_f64(ElementType::F32, &[2, 21], &wrong)]).is_err());
        wrong[3] = f64::NAN;
        assert!(node.judge(&[Tensor::from_f64(ElementType::F32, &[2, 21], &wrong)]).is_err());
        assert!(node.judge(&[]).is_err());
    }
}
