//! Clients in other languages, and the exporter's own runtime.

use std::process::Command;

use isqrt_cov_tests::{
    Node, Python, converted, converted_without_body, corpus, exporter, library, raw_input, relative_error,
};

/// The digit classifier, batch size dynamic.
const DIGITS: &str = "digits/digits_isqrt_official_noDotData_dyn18_dynbatch";

/// float32 through a network of some layers.
const TOLERANCE: f32 = 1e-5;

/// The release whose shared library the Rust client loads.
const RELEASE: &str = "1.32.0";

#[test]
fn node_runs_the_body_without_the_library() {
    let fused = converted(&format!("{DIGITS}.onnx"));
    for batch in ["", "_b1", "_b3"] {
        let (input, _, shape) = raw_input(&format!("{DIGITS}.npz"), &format!("input{batch}"));
        let (_, expected, _) = raw_input(&format!("{DIGITS}.npz"), &format!("expected{batch}"));
        let error = relative_error(&Node.run(&fused, &input, &shape), &expected);
        assert!(error <= TOLERANCE, "input{batch}: {error:e} away from the network that was exported");
    }
}

#[test]
fn a_rust_program_runs_the_kernel() {
    let Some(python) = Python::installed(RELEASE) else { return };
    let fused = converted_without_body(&format!("{DIGITS}.onnx"));
    for batch in ["", "_b1", "_b3"] {
        let (input, _, shape) = raw_input(&format!("{DIGITS}.npz"), &format!("input{batch}"));
        let (_, expected, _) = raw_input(&format!("{DIGITS}.npz"), &format!("expected{batch}"));
        let run = Command::new(env!("CARGO_BIN_EXE_rust-client"))
            .args([&python.shared_library(), &library(), &fused, &input])
            .arg(format!("{shape:?}"))
            .output()
            .expect("the client starts");
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        let found: Vec<f32> = serde_json::from_slice(&run.stdout).expect("a JSON list");
        let error = relative_error(&found, &expected);
        assert!(error <= TOLERANCE, "input{batch}: {error:e} away from the network that was exported");
    }
}

#[test]
fn tract_runs_the_registered_operators() {
    let original = format!("{DIGITS}.onnx");
    let run = Command::new(exporter())
        .args(["validate", "--runtime", "tract", "--json"])
        .arg(corpus(&original))
        .arg(converted_without_body(&original))
        .output()
        .expect("the exporter starts");
    let (report, errors) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{report}{errors}");
    let _: serde_json::Value = serde_json::from_str(&report).expect("one JSON object");
}
