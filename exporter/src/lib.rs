//! Recognition, rewriting and proof of iSQRT-COV layers in ONNX models.

pub(crate) mod body;
pub mod checkpoint;
pub mod cli;
mod commands;
pub(crate) mod constants;
pub mod data;
pub(crate) mod demands;
pub mod distance;
pub(crate) mod documentation;
pub mod evaluate;
pub mod expand;
pub(crate) mod extract;
pub(crate) mod functions;
pub mod fused;
pub mod graph;
pub(crate) mod held;
pub(crate) mod latency;
pub(crate) mod progress;
pub(crate) mod proof;
pub mod recognize;
mod report;
pub mod rewrite;
pub mod runtime;
pub(crate) mod scope;
pub mod signature;
mod table;
pub mod tensor;
