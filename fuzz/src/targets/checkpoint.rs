//! Checkpoints: the file's reader, the pickle machine, views and storages, and the recognition of the architecture.

use isqrt_cov::checkpoint::Checkpoint;
use isqrt_cov_models::{Settings, Weights, recognize_within};
use isqrt_cov_proto::TensorData;

use super::refused;
use crate::files::project;

/// Reads a checkpoint as it would be read from a folder that has the parts of a sharded one.
pub fn run(input: &[u8]) {
    let path = project("tests/corpus/checkpoints/forms/sharded/input");
    let checkpoint = match Checkpoint::decode(bytes::Bytes::copy_from_slice(input), &path) {
        Ok(checkpoint) => checkpoint,
        Err(error) => return refused(&error),
    };
    for tensor in &checkpoint.tensors {
        TensorData::inline(tensor).expect("a tensor that was read has the size that its shape says");
    }
    match Weights::new(checkpoint.tensors, checkpoint.facts) {
        Ok(weights) => drop(recognize_within(&weights, &Settings::default())),
        Err(error) => refused(&error),
    }
}
