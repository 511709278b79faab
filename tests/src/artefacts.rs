//! The built artefacts and the committed data.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use crate::{RUN_FIRST, folder};

/// The variable that names another folder with the library and the binary, absolutely, than the build's own: what
/// `release/build` made.
const ARTEFACTS: &str = "ISQRT_COV_ARTEFACTS";

/// The operators' shared library.
///
/// # Panics
/// If it has not been built.
#[must_use]
pub fn library() -> PathBuf {
    let (prefix, suffix) = (std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    built(&format!("{prefix}isqrt_cov_op{suffix}"))
}

/// The exporter's binary.
///
/// # Panics
/// If it has not been built.
#[must_use]
pub fn exporter() -> PathBuf {
    built(&format!("isqrt-cov{}", std::env::consts::EXE_SUFFIX))
}

/// A file of the corpus.
#[must_use]
pub fn corpus(name: &str) -> PathBuf {
    folder().join("corpus").join(name)
}

/// The graphs of a folder of the corpus that `cases.json` marks with `expect`.
///
/// # Panics
/// If the list cannot be read, or marks none.
#[must_use]
pub fn cases(folder: &str, expect: &str) -> Vec<String> {
    let list = std::fs::read(corpus("cases.json")).expect("the list is in the corpus");
    let list: Vec<serde_json::Value> = serde_json::from_slice(&list).expect("the list is JSON");
    let marked = list.iter().filter(|case| case["expect"] == expect);
    let models = marked.filter_map(|case| case["model"].as_str());
    let found: Vec<_> = models.filter(|model| model.starts_with(folder)).map(str::to_owned).collect();
    assert!(!found.is_empty(), "no graph of {folder} is marked {expect}");
    found
}

/// A graph with an operator and no body, from `models/make.py`.
#[must_use]
pub fn model(name: &str) -> PathBuf {
    folder().join("models").join(name).with_extension("onnx")
}

/// A graph of the corpus, converted by the exporter with its defaults: the node's body is in the file, and runs where the
/// library is not loaded.
///
/// # Panics
/// If the exporter does not convert it.
#[must_use]
pub fn converted(name: &str) -> PathBuf {
    convert(name, &[])
}

/// A graph of the corpus, converted without the body: only a runtime that has the operators can run it.
///
/// # Panics
/// If the exporter does not convert it.
#[must_use]
pub fn converted_without_body(name: &str) -> PathBuf {
    convert(name, &["--no-function"])
}

/// A graph of the corpus, converted to this version of the format.
///
/// # Panics
/// If the exporter does not convert it.
#[must_use]
pub fn converted_to_ir(name: &str, version: &str) -> PathBuf {
    convert(name, &["--ir-version", version])
}

/// Each conversion is made once in a test's process.
fn convert(name: &str, options: &[&str]) -> PathBuf {
    static CONVERTED: Mutex<Option<HashMap<String, PathBuf>>> = Mutex::new(None);
    let mut converted = CONVERTED.lock().unwrap_or_else(PoisonError::into_inner);
    let known = converted.get_or_insert_default();
    let key = format!("{}{}", options.concat(), name.replace('/', "-"));
    if let Some(path) = known.get(&key) {
        return path.clone();
    }
    let output = scratch(&key);
    let run = Command::new(exporter())
        .arg("convert")
        .args(options)
        .arg(corpus(name))
        .arg("-o")
        .arg(&output)
        .output()
        .expect("the exporter starts");
    let done = run.status.success() && output.exists();
    assert!(done, "isqrt-cov convert {name}: {}: {}", run.status, String::from_utf8_lossy(&run.stderr));
    known.insert(key, output.clone());
    output
}

/// One array of an `.npz` file of the corpus as a file of raw float32 numbers, with the numbers and their shape.
///
/// # Panics
/// If there is no such array of float32.
#[must_use]
pub fn raw_input(archive: &str, array: &str) -> (PathBuf, Vec<f32>, Vec<usize>) {
    let file = std::fs::File::open(corpus(archive)).expect("the archive is in the corpus");
    let mut reader = ndarray_npy::NpzReader::new(file).expect("the archive is an .npz");
    let found: ndarray::ArrayD<f32> = reader.by_name(array).expect("the archive has the array");
    let (numbers, shape): (Vec<f32>, _) = (found.iter().copied().collect(), found.shape().to_vec());
    let path = scratch(&format!("{}-{array}.f32", archive.replace('/', "-")));
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    std::fs::write(&path, bytes).expect("the scratch folder can be written to");
    (path, numbers, shape)
}

/// A path for a file of this test's process alone, in the build folder. An older file there is removed.
///
/// # Panics
/// If the build folder cannot be written to.
#[must_use]
pub fn scratch(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a running test has a path");
    let stem = test.file_stem().expect("a path to a file").to_owned();
    let folder = profile_folder().join("end-to-end").join(stem);
    std::fs::create_dir_all(&folder).expect("the build folder can be written to");
    let path = folder.join(name);
    let _ = std::fs::remove_file(&path);
    path
}

fn built(name: &str) -> PathBuf {
    let folder = std::env::var_os(ARTEFACTS).map_or_else(profile_folder, PathBuf::from);
    let path = folder.join(name);
    assert!(path.exists(), "{} is missing; {RUN_FIRST}", path.display());
    path
}

/// The folder of the profile that this test was built with: tests lie in its `deps`.
fn profile_folder() -> PathBuf {
    let test = std::env::current_exe().expect("a running test has a path");
    test.ancestors().nth(2).map(Path::to_owned).expect("tests lie two folders deep")
}
