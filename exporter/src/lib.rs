//! Recognition, rewriting and proof of iSQRT-COV layers in ONNX models.

pub mod body;
pub mod checkpoint;
pub mod cli;
mod commands;
pub mod constants;
pub mod data;
pub mod decisions;
pub mod documentation;
pub mod evaluate;
pub mod expand;
pub mod extract;
pub mod functions;
pub mod fused;
pub mod graph;
pub mod held;
pub mod latency;
pub mod progress;
pub mod proof;
pub mod recognize;
mod report;
pub mod rewrite;
pub mod runtime;
pub mod scope;
pub mod signature;
mod table;
pub mod tensor;
mod zeros;
