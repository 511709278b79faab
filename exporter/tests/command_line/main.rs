//! The command line from outside: exit statuses, what stands on standard output, what is left behind.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use isqrt_cov_proto::Model;
use isqrt_cov_proto::onnx::tensor_proto::{DataLocation, DataType};
use isqrt_cov_proto::onnx::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, StringStringEntryProto, TensorProto,
    ValueInfoProto, type_proto,
};
use serde_json::Value;
use tempfile::TempDir;

macro_rules! arguments {
    ($($argument:expr),+ $(,)?) => {
        [$(AsRef::<std::ffi::OsStr>::as_ref(&$argument).to_owned()),+]
    };
}

// Below the macro, which they use.
mod bench;
mod clips;
mod convert;
mod data;
mod decided;
mod errors;
mod faults;
mod help;
mod inspect;
mod json;
mod lost;
mod open_axes;
mod outputs;
mod refused;
mod repair;
mod report;
mod rounding;
mod selection;
mod stray;
mod trained;

/// A graph whose layer can be replaced, with a dynamic batch, and one whose exporter dropped the iteration.
const FUSE: &str = "digits/digits_isqrt_official_noDotData_dyn18_dynbatch";
const LOST: &str = "digits/digits_isqrt_official_noDotData_ts17_dynbatch";
/// A graph that computes something else than the layer, from a covariance.
const MISS: &str = "variants/near_R21_ts17_dynbatch";

/// The layer alone.
const SMALL: &str = "layer/stripped_noDotData_d16_hw7_it1_ts17_dynbatch";

fn corpus(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/corpus").join(name)
}

fn graph(name: &str) -> PathBuf {
    corpus(&format!("{name}.onnx"))
}

/// Runs the program with none of the caller's settings.
fn isqrt_cov<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_isqrt-cov"))
        .args(arguments)
        .env_remove("ORT_DYLIB_PATH")
        .env_remove("ISQRT_COV_OP_LIBRARY")
        .output()
        .unwrap()
}

fn status(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("killed: {output:?}"))
}

/// The one JSON object on standard output.
fn object(output: &Output) -> Value {
    let text = std::str::from_utf8(&output.stdout).unwrap();
    assert_eq!(text.lines().count(), 1, "{output:?}");
    let value: Value = serde_json::from_str(text).unwrap();
    assert!(value.is_object());
    value
}

fn error_text(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// Runs `script` in bash, whose `$1` is the program.
fn bash(script: &str, arguments: &[&std::ffi::OsStr]) -> Output {
    let mut command = Command::new("bash");
    command.args(["-c", script, "bash", env!("CARGO_BIN_EXE_isqrt-cov")]).args(arguments);
    command.stdin(Stdio::null()).output().unwrap()
}

fn files(folder: &TempDir) -> Vec<String> {
    let names =
        folder.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

/// A model that holds no covariance: y = max(x, 0).
fn without_a_layer(folder: &TempDir) -> PathBuf {
    let port = |name| ValueInfoProto::tensor(name, DataType::Float, [2.into(), 3.into()]);
    let graph = GraphProto {
        name: Some("relu".to_owned()),
        node: vec![NodeProto::new("Relu", &["x"], &["y"])],
        input: vec![port("x")],
        output: vec![port("y")],
        ..GraphProto::default()
    };
    let model = ModelProto::new(graph, 17);
    let path = folder.path().join("relu.onnx");
    Model::new(model, &path).save(&path).unwrap();
    path
}
