use thiserror::Error;

/// Why an operator cannot be built from its attributes, or run on its input.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum Error {
    /// The domain has no such operator.
    #[error(
        "operator `{0}` does not exist in domain `ai.isqrtcov`; expected IsqrtCov, CovariancePooling or MatrixSqrt"
    )]
    UnknownOperator(String),
    /// An attribute that the operator does not declare.
    #[error("{operator}: attribute `{attribute}` does not exist; expected one of {expected}")]
    UnknownAttribute {
        /// The operator's name.
        operator: &'static str,
        /// The attribute as it was given.
        attribute: String,
        /// The declared attributes, separated by commas.
        expected: String,
    },
    /// An attribute whose value is outside what the declaration allows.
    #[error("{operator}: attribute `{attribute}` is {found}; expected {expected}")]
    Attribute {
        /// The operator's name.
        operator: &'static str,
        /// The attribute's name.
        attribute: &'static str,
        /// The value found.
        found: String,
        /// What the declaration allows.
        expected: String,
    },
    /// An input whose shape the operator does not take.
    #[error("{operator}: input `{input}` has shape {found}; expected {expected}")]
    Shape {
        /// The operator's name.
        operator: &'static str,
        /// The input's name.
        input: &'static str,
        /// The shape found.
        found: String,
        /// What the operator takes.
        expected: String,
    },
    /// No memory for what the kernel needs beside input and output.
    #[error(
        "{operator}: no memory for the workspace of a sample with {channels} channels and {positions} positions; expected \
         room for some matrices of that size for each thread: run fewer threads, or reduce the channels before the layer"
    )]
    Memory {
        /// The operator's name.
        operator: &'static str,
        /// C.
        channels: usize,
        /// M.
        positions: usize,
    },
}
