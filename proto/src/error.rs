use std::path::PathBuf;

use thiserror::Error;

/// Why a model cannot be read or written.
#[derive(Debug, Error)]
pub enum Error {
    /// The file cannot be opened or read.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file cannot be created or written.
    #[error("{}: cannot be written: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file is not a well-formed message: truncated, damaged, nested too deeply, or of another kind.
    #[error("{}: is not an ONNX model, or is damaged: {source}", path.display())]
    Decode {
        /// The file.
        path: PathBuf,
        /// Where decoding stopped.
        source: prost::DecodeError,
    },
    /// The file decodes, but lacks what every ONNX model has.
    #[error("{}: is not an ONNX model: {reason}", path.display())]
    NotAModel {
        /// The file.
        path: PathBuf,
        /// What is missing.
        reason: &'static str,
    },
}
