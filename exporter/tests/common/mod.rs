//! What tests of several files need of the corpus.

// Not every one of them needs all of it.
#![allow(dead_code)]

use std::collections::HashMap;
use std::fs::File;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use isqrt_cov::distance::relative_distance;
use isqrt_cov::tensor::{ElementType, Tensor};
use isqrt_cov_proto::Model;
use isqrt_cov_proto::onnx::{ModelProto, ValueInfoProto};
use ndarray::ArrayD;
use ndarray_npy::NpzReader;
use serde_json::Value;

/// The folder.
pub fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/corpus")
}

/// The cases that a folder lists.
pub fn cases(folder: &Path) -> Vec<Value> {
    serde_json::from_reader(File::open(folder.join("cases.json")).unwrap()).unwrap()
}

/// Does something with each case, in any order, on as many threads as the machine runs at once.
pub fn for_each(cases: &[Value], work: impl Fn(&Value) + Sync) {
    let next = AtomicUsize::new(0);
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    work(case);
                }
            });
        }
    });
}

/// A model with all of its tensors inline.
pub fn load(path: &Path) -> ModelProto {
    Model::load(path).unwrap().inlined().unwrap()
}

/// The arrays of an archive, float32 all of them.
pub fn arrays(path: &Path) -> HashMap<String, ArrayD<f32>> {
    let mut archive = NpzReader::new(File::open(path).unwrap()).unwrap();
    let names = archive.names().unwrap();
    names.into_iter().filter_map(|name| Some((name.clone(), archive.by_name(&name).ok()?))).collect()
}

/// The array of an input: under its name, or as `input`, where a rewrite gave the input another name.
pub fn array_of<'a>(
    input: &ValueInfoProto,
    arrays: &'a HashMap<String, ArrayD<f32>>,
    suffix: &str,
) -> Option<&'a ArrayD<f32>> {
    arrays.get(&format!("{}{suffix}", input.name())).or_else(|| arrays.get(&format!("input{suffix}")))
}

/// The arrays named after the model's inputs, of the types that it declares.
pub fn inputs(model: &ModelProto, arrays: &HashMap<String, ArrayD<f32>>, suffix: &str) -> Vec<Tensor> {
    let graph = model.graph.as_ref().unwrap();
    let tensor = |input: &ValueInfoProto| {
        let array = array_of(input, arrays, suffix).unwrap();
        let values: Vec<f64> = array.iter().map(|&value| value.into()).collect();
        let element = ElementType::from_onnx(input.tensor_type().unwrap().elem_type()).unwrap();
        Tensor::from_f64(element, array.shape(), &values)
    };
    graph.input.iter().map(tensor).collect()
}

/// max|Δ| / max|expected|.
pub fn error(output: &Tensor, expected: &ArrayD<f32>) -> f64 {
    assert_eq!(output.dims(), expected.shape());
    let expected: Vec<f64> = expected.iter().map(|&value| value.into()).collect();
    relative_distance(&output.to_f64(), &expected)
}
