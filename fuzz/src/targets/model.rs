//! ONNX models: the message, the data of every tensor, and the files in which it may lie.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::LazyLock;

use fastrand::Rng;
use isqrt_cov::signature::Signature;
use isqrt_cov_proto::Model;
use isqrt_cov_proto::onnx::tensor_proto::DataLocation;
use isqrt_cov_proto::onnx::{ModelProto, StringStringEntryProto, TensorProto};
use prost::Message as _;
use tempfile::TempDir;

use super::refused;
use crate::mutation::Bytes;

/// What a model's folder holds as `weights`.
static WEIGHTS: LazyLock<Vec<u8>> = LazyLock::new(|| (0..2048_u16).flat_map(u16::to_le_bytes).collect());

/// A folder `models` with files that a model may read, and ways out of it to one that none may.
static FOLDER: LazyLock<TempDir> = LazyLock::new(|| folder().expect("a temporary folder"));

/// What a model may say of the place of its data.
const ENTRIES: [(&str, &[&str]); 3] = [
    (
        "location",
        &[
            "weights",
            "sub/weights",
            "alias",
            "../secret",
            "/etc/passwd",
            "out",
            "up/secret",
            "hard",
            "pipe",
            "",
        ],
    ),
    ("offset", &["0", "8", "4088", "4096", "18446744073709551615", "18446744073709551616", "-1"]),
    ("length", &["0", "8", "4", "4096", "9223372036854775807"]),
];

fn folder() -> std::io::Result<TempDir> {
    let outside = tempfile::tempdir()?;
    let folder = outside.path().join("models");
    fs::create_dir_all(folder.join("sub"))?;
    for name in ["weights", "sub/weights"] {
        fs::write(folder.join(name), &*WEIGHTS)?;
    }
    fs::write(outside.path().join("secret"), [0xa5; 8192])?;
    fs::hard_link(outside.path().join("secret"), folder.join("hard"))?;
    symlink("weights", folder.join("alias"))?;
    symlink("../secret", folder.join("out"))?;
    symlink("..", folder.join("up"))?;
    std::process::Command::new("mkfifo").arg(folder.join("pipe")).status()?;
    Ok(outside)
}

/// Reads a model as if it lay in a folder with data files, and all of its tensors.
pub fn run(input: &[u8]) {
    let path = FOLDER.path().join("models/model.onnx");
    let model = match Model::decode(bytes::Bytes::copy_from_slice(input), path) {
        Ok(model) => model,
        Err(error) => return refused(&error),
    };
    let graphs = model.proto.graph.iter();
    let attributes = graphs.clone().flat_map(|graph| &graph.node).flat_map(|node| &node.attribute);
    let tensors =
        attributes.flat_map(|attribute| attribute.t.as_deref().into_iter().chain(&attribute.tensors));
    for tensor in tensors.chain(graphs.flat_map(|graph| &graph.initializer)) {
        read(&model, tensor);
    }
    if let Err(error) = Signature::of(&model.proto) {
        refused(&error);
    }
    let written = model.proto.encode_to_vec();
    let again = ModelProto::decode(written.as_slice()).expect("what was written is read");
    assert!(again.encode_to_vec() == written, "a model is read as it was written");
    if let Err(error) = model.into_inlined() {
        refused(&error);
    }
}

/// Reads a tensor's data, which must be of the size that its shape says and, if it lies elsewhere, where it may.
fn read(model: &Model, tensor: &TensorProto) {
    let data = match model.tensor(tensor) {
        Ok(data) => data,
        Err(error) => return refused(&error),
    };
    let elements: usize = data.dims().iter().product();
    let bits = isqrt_cov_proto::bits(data.data_type()).expect("a type of a size");
    assert_eq!(data.bytes().len() as u64, (elements as u64 * bits).div_ceil(8));
    if tensor.data_location() == DataLocation::External {
        let entry = |key| tensor.external_data.iter().find(|entry| entry.key() == key);
        let offset = entry("offset").map_or(0, |entry| entry.value().parse().expect("a number"));
        assert_eq!(data.bytes(), &WEIGHTS[offset..offset + data.bytes().len()], "from where none may read");
        let location = entry("location").map(StringStringEntryProto::value);
        assert!(location.is_some_and(|location| Path::new(location).is_relative()));
    }
    drop((data.to_f64(), data.to_i64()));
}

/// Changes bytes, or moves the data of a tensor into a file.
pub fn mutate(input: &mut Vec<u8>, random: &mut Rng, bytes: Bytes<'_>) {
    if random.u8(..4) > 0 {
        return bytes(input, random);
    }
    let Ok(mut model) = ModelProto::decode(input.as_slice()) else { return };
    let graph = model.graph.get_or_insert_default();
    if graph.initializer.is_empty() {
        graph.initializer.push(TensorProto::default());
    }
    let at = random.usize(..graph.initializer.len());
    let tensor = &mut graph.initializer[at];
    tensor.data_location = Some(DataLocation::External.into());
    tensor.external_data = Vec::new();
    for _ in 0..random.usize(1..4) {
        let (key, values) = ENTRIES[random.usize(..ENTRIES.len())];
        let value = values[random.usize(..values.len())];
        let entry = StringStringEntryProto { key: Some(key.to_owned()), value: Some(value.to_owned()) };
        tensor.external_data.push(entry);
    }
    *input = model.encode_to_vec();
}
