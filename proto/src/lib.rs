//! ONNX messages, and reading and writing models safely.
