//! `isqrt-cov inspect` on models: the survey, the cut regions, tract and the evaluator, and what is said of them.

use std::ffi::OsStr;
use std::fs;
use std::sync::LazyLock;

use isqrt_cov::budget::within;
use isqrt_cov::cli;
use tempfile::TempDir;

use super::refused;

/// Where the model lies.
static FOLDER: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a temporary folder"));

/// Multiplications that an inspection may make here: some seconds, where a large layer may take minutes.
const MULTIPLICATIONS: u64 = 1 << 35;

/// Looks for layers in a model, as the command does.
pub fn run(input: &[u8]) {
    let path = FOLDER.path().join("model.onnx");
    fs::write(&path, input).expect("a file is written");
    let arguments = [OsStr::new("isqrt-cov"), OsStr::new("inspect"), path.as_os_str()];
    match within(MULTIPLICATIONS, || cli::attempt(arguments.map(OsStr::to_owned))) {
        Ok(answer) => assert!(answer["status"] == "done" || answer["status"] == "no"),
        Err(error) => refused(&format!("{error:#}")),
    }
}
