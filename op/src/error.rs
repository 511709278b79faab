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
    /// The NVIDIA driver cannot be used.
    #[error(
        "the operators of CUDAExecutionProvider cannot use the NVIDIA driver: {found}; expected that of CUDA 11.2 or later. \
         Install or update the driver, or make the session with CPUExecutionProvider alone"
    )]
    Driver {
        /// What is wrong with it.
        found: String,
    },
    /// A device that the CUDA kernels do not run on.
    #[error(
        "device \"{device}\" has {found}; expected {expected}. Choose another device, or make the session with \
         CPUExecutionProvider alone"
    )]
    Device {
        /// The device's name.
        device: String,
        /// What it has, or lacks.
        found: String,
        /// What the kernels need.
        expected: &'static str,
    },
    /// The driver does not take the CUDA kernels.
    #[error(
        "the CUDA kernels do not load on device \"{device}\": {found}; expected the driver to take one of these \
         (it is that of CUDA {version}). Update the driver, or make the session with CPUExecutionProvider alone"
    )]
    Kernels {
        /// The device's name.
        device: String,
        /// The CUDA version that the driver supports.
        version: String,
        /// What it said of each compilation of the kernels that was tried.
        found: String,
    },
    /// No memory on the device for what the kernels need beside input and output.
    #[error(
        "{operator}: no memory on the device for {bytes} bytes of workspace, which {samples} samples with {channels} channels and \
         {positions} positions take; expected room for them beside the session's own memory: run smaller batches, or \
         lower gpu_mem_limit of CUDAExecutionProvider"
    )]
    DeviceMemory {
        /// The operator's name.
        operator: &'static str,
        /// What was asked for.
        bytes: usize,
        /// N.
        samples: usize,
        /// C.
        channels: usize,
        /// M.
        positions: usize,
    },
    /// A call into the driver failed.
    #[error(
        "the NVIDIA driver's {function} failed: {found}; expected success. The failure may be one of earlier work on the device: \
         run with CUDA_LAUNCH_BLOCKING=1 to see which"
    )]
    Cuda {
        /// The driver's function.
        function: &'static str,
        /// What it returned.
        found: String,
    },
}
