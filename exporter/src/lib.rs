//! Recognition, rewriting and proof of iSQRT-COV layers in ONNX models.

pub mod body;
