//! Checkpoints in every form that people have them in. Hostile ones are in `hostile/`.

mod common;

use std::fs::File;
use std::path::{Path, PathBuf};

use isqrt_cov::checkpoint::{Checkpoint, is_checkpoint};
use isqrt_cov_proto::onnx::TensorProto;
use isqrt_cov_proto::onnx::tensor_proto::DataType;
use isqrt_cov_proto::{Model, TensorData};
use serde_json::{Map, Value};

fn folder(name: &str) -> PathBuf {
    common::corpus().join("checkpoints").join(name)
}

fn table(path: &Path) -> Map<String, Value> {
    serde_json::from_reader(File::open(path).unwrap()).unwrap()
}

/// The tensor's elements, whatever their type.
fn values(tensor: &TensorProto) -> Vec<f64> {
    let data = TensorData::inline(tensor).unwrap();
    data.to_i64().map_or_else(
        || data.to_f64().unwrap(),
        |values| values.into_iter().map(|value| value as f64).collect(),
    )
}

fn data_type(name: &str) -> DataType {
    match name {
        "float16" => DataType::Float16,
        "bfloat16" => DataType::Bfloat16,
        "float32" => DataType::Float,
        "float64" => DataType::Double,
        "int64" => DataType::Int64,
        "int32" => DataType::Int32,
        "int16" => DataType::Int16,
        "int8" => DataType::Int8,
        "uint8" => DataType::Uint8,
        "bool" => DataType::Bool,
        _ => panic!("{name}"),
    }
}

#[test]
fn every_form_gives_what_pytorch_saved() {
    let folder = folder("forms");
    let files = table(&folder.join("expected.json"));
    assert!(files.len() > 15);
    for (file, expected) in files {
        let path = folder.join(&file);
        assert!(is_checkpoint(&path), "{file}");
        let checkpoint = Checkpoint::load(&path).unwrap();
        assert_eq!(checkpoint.path, path);
        assert_eq!(checkpoint.format.to_string(), expected["format"].as_str().unwrap(), "{file}");
        let facts: Vec<(String, String)> = serde_json::from_value(expected["facts"].clone()).unwrap();
        assert_eq!(checkpoint.facts, facts, "{file}");
        let tensors = expected["tensors"].as_array().unwrap();
        assert_eq!(checkpoint.tensors.len(), tensors.len(), "{file}");
        for (tensor, expected) in checkpoint.tensors.iter().zip(tensors) {
            let place = format!("{file}: {}", tensor.name());
            assert_eq!(tensor.name(), expected["name"].as_str().unwrap(), "{place}");
            assert_eq!(tensor.data_type(), data_type(expected["type"].as_str().unwrap()) as i32, "{place}");
            let dims: Vec<i64> = serde_json::from_value(expected["dims"].clone()).unwrap();
            assert_eq!(tensor.dims, dims, "{place}");
            let expected: Vec<f64> = serde_json::from_value(expected["values"].clone()).unwrap();
            // serde_json may read a decimal as the number beside it, which no float32 is near.
            let expected: Vec<f64> = expected.into_iter().map(|value| f64::from(value as f32)).collect();
            assert_eq!(values(tensor), expected, "{place}");
        }
    }
}

#[test]
fn the_digits_in_every_form_are_the_same_network() {
    let load = |name: &str| Checkpoint::load(folder("digits").join(name)).unwrap();
    let plain = load("digits_isqrt_plain_state_dict.pth");
    let find = |checkpoint: &Checkpoint, name: &str| {
        checkpoint.tensors.iter().find(|tensor| tensor.name() == name).cloned()
    };
    let other = load("digits_isqrt.safetensors");
    assert_eq!(other.tensors.len(), plain.tensors.len());
    for tensor in &plain.tensors {
        assert_eq!(find(&other, tensor.name()).as_ref(), Some(tensor));
    }
    let parallel = load("digits_isqrt_dataparallel.pth.tar");
    assert_eq!(parallel.format.to_string(), "torch archive");
    assert!(parallel.facts.iter().any(|(name, _)| name == "epoch"), "{:?}", parallel.facts);
    for tensor in &plain.tensors {
        let mut found = find(&parallel, &format!("module.{}", tensor.name())).unwrap();
        found.name.clone_from(&tensor.name);
        assert_eq!(&found, tensor);
    }
    let half = load("digits_isqrt_fp16.safetensors");
    assert_eq!(half.tensors.len(), plain.tensors.len());
    assert!(half.tensors.iter().any(|tensor| tensor.data_type() == DataType::Float16 as i32));
}

#[test]
fn networks_are_read_whole() {
    for name in ["digits", "nets", "own"] {
        let mut count = 0;
        for entry in std::fs::read_dir(folder(name)).unwrap() {
            let path = entry.unwrap().path();
            // Archives of arrays are zip archives too.
            if !is_checkpoint(&path) || path.extension().is_some_and(|extension| extension == "npz") {
                continue;
            }
            let checkpoint = Checkpoint::load(&path).unwrap();
            assert!(!checkpoint.tensors.is_empty(), "{}", path.display());
            for tensor in &checkpoint.tensors {
                TensorData::inline(tensor).unwrap();
            }
            count += 1;
        }
        assert!(count > 2, "{name}: {count}");
    }
}

#[test]
fn models_and_other_files_are_no_checkpoints() {
    let corpus = common::corpus();
    let model = corpus.join("digits/digits_isqrt_stripped_ts17_b8.onnx");
    assert!(!is_checkpoint(&model) && Model::load(&model).is_ok());
    assert!(!is_checkpoint(&corpus.join("cases.json")));
    assert!(!is_checkpoint(&corpus.join("digits/test_logits.npy")));
    assert!(!is_checkpoint(&corpus) && !is_checkpoint(&corpus.join("missing")));
    let message = Checkpoint::load(&model).unwrap_err().to_string();
    assert!(message.contains("is not a checkpoint: it begins as an ONNX model does"), "{message}");
    assert!(Checkpoint::load(&corpus).unwrap_err().to_string().contains("is not a regular file"));
}
