use std::path::PathBuf;

use thiserror::Error;

use crate::onnx::tensor_proto::DataType;
use crate::printable::{Printable, Shape};
use crate::structure::StructureProblem;

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
    /// A folder, a pipe or a device.
    #[error("{}: is not a regular file", path.display())]
    NotAFile {
        /// What was named.
        path: PathBuf,
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
    #[error("{}: is not an ONNX model, or is truncated or damaged: {source}", path.display())]
    Decode {
        /// The file.
        path: PathBuf,
        /// Where decoding stopped.
        source: prost::DecodeError,
    },
    /// A name or a documentation string is in another encoding.
    #[error("{}: has text that is not UTF-8, as all of ONNX's is: {source}; write it again with that text changed", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// Which field of which message it is.
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
    /// The message is larger than protobuf allows.
    #[error("{}: the message has {found} bytes; expected at most {limit}, protobuf's limit", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The message's size in bytes.
        found: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// A tensor cannot be read.
    #[error("{}: {source}", path.display())]
    Tensor {
        /// The model's file.
        path: PathBuf,
        /// Which tensor, and why.
        source: Box<TensorError>,
    },
    /// The message is none that can be worked with.
    #[error("{}: {problem}", path.display())]
    Structure {
        /// The model's file.
        path: PathBuf,
        /// What is wrong.
        problem: StructureProblem,
    },
    /// Writing would replace a file from which the model was read.
    #[error(
        "{}: is the input model or holds its tensors; write to another name, and rename when you are content",
        path.display()
    )]
    OverInput {
        /// The file that would be replaced.
        path: PathBuf,
    },
}

/// Why the data of a tensor cannot be read.
#[derive(Debug, Error)]
#[error("tensor `{}`: {problem}", Printable(tensor))]
pub struct TensorError {
    /// The tensor's name; empty where it has none.
    pub tensor: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a tensor.
#[derive(Debug, Error)]
pub enum Problem {
    /// A data type that `onnx-ml.proto` does not know, or that has no fixed size.
    #[error("data_type is {0}; expected a type of numbers of onnx-ml.proto (IR 14)")]
    DataType(i32),
    /// Another type than the caller asked for.
    #[error("data_type is {}; expected {expected}", found.as_str_name())]
    OtherType {
        /// The tensor's type.
        found: DataType,
        /// What the caller takes.
        expected: &'static str,
    },
    /// A negative dimension, or more elements than memory can hold.
    #[error("dims are {}; expected sizes of 0 or more whose product fits in memory", Shape(.0))]
    Dims(Vec<i64>),
    /// The data does not have the size that the shape and the type imply.
    #[error("{field} holds {found} {unit}; expected {expected} for {} {}", data_type.as_str_name(), Shape(dims))]
    Length {
        /// Where the data is.
        field: &'static str,
        /// What is counted: bytes or entries.
        unit: &'static str,
        /// How many there are.
        found: u64,
        /// How many there should be.
        expected: u64,
        /// The tensor's type.
        data_type: DataType,
        /// The tensor's shape.
        dims: Vec<i64>,
    },
    /// An entry of `int32_data` or `uint64_data` that the type cannot represent.
    #[error("{field} holds {found}; expected values of {}", data_type.as_str_name())]
    Range {
        /// Where the data is.
        field: &'static str,
        /// The value found.
        found: i128,
        /// The tensor's type.
        data_type: DataType,
    },
    /// The data is in another file, and was asked for without the model that knows where.
    #[error("its data is in another file; expected data inside the message")]
    NotInline,
    /// The entries that say where the data lies are incomplete or malformed.
    #[error("external_data: {key} is {}; expected {expected}", Printable(found))]
    Entry {
        /// The entry's key.
        key: &'static str,
        /// Its value.
        found: String,
        /// What it should be.
        expected: &'static str,
    },
    /// A location that must not be followed.
    #[error("external data `{}` {reason}", Printable(location))]
    Location {
        /// The location as the file gives it.
        location: String,
        /// Why it is refused.
        reason: &'static str,
    },
    /// A file with external data that cannot be opened.
    #[error("external data `{}` cannot be read: {source}", Printable(location))]
    File {
        /// The location as the file gives it.
        location: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// Ranges that overlap without being the same, as no writer of models makes them.
    #[error("external data overlaps that of another tensor; expected ranges that are the same or apart")]
    Overlap,
    /// A range outside the file.
    #[error(
        "external data `{}`: offset {offset} and length {length} end outside the file; it has {size} bytes",
        Printable(location)
    )]
    Bounds {
        /// The location as the file gives it.
        location: String,
        /// The first byte.
        offset: u64,
        /// The number of bytes.
        length: u64,
        /// The file's size.
        size: u64,
    },
}
