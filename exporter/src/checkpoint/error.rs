//! Why a checkpoint cannot be read.

use std::path::{Path, PathBuf};

use isqrt_cov_proto::Printable;
use thiserror::Error;

use super::archive::ArchiveProblem;
use super::pickle::PickleProblem;
use super::storage::ViewProblem;

/// Why a checkpoint cannot be read.
#[derive(Debug, Error)]
pub enum Error {
    /// The file cannot be opened, is not a regular one, or cannot be read.
    #[error(transparent)]
    File(#[from] isqrt_cov_proto::Error),
    /// The file is of another kind than checkpoints are.
    #[error("{}: is not a checkpoint: {found}; expected a file of torch.save, or safetensors", path.display())]
    Kind {
        /// The file.
        path: PathBuf,
        /// What it seems to be.
        found: String,
    },
    /// A file of torch that holds more, or something else, than a state dict.
    #[error("{}: {found}; {advice}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// What it is.
        found: String,
        /// What to do.
        advice: &'static str,
    },
    /// The zip archive is damaged, or made as torch makes none.
    #[error("{}: {problem}", path.display())]
    Archive {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: Box<ArchiveProblem>,
    },
    /// A pickle is damaged, or asks for what no state dict needs.
    #[error("{}: {place}, byte {at}: {problem}", path.display())]
    Pickle {
        /// The file.
        path: PathBuf,
        /// Which pickle.
        place: String,
        /// The byte of that pickle's place (archive entry or file) where reading stopped.
        at: usize,
        /// What is wrong.
        problem: PickleProblem,
    },
    /// The parts of a legacy file do not fit each other.
    #[error("{}: byte {at}: {found}; expected {expected}", path.display())]
    Legacy {
        /// The file.
        path: PathBuf,
        /// Where in the file.
        at: usize,
        /// What is there.
        found: String,
        /// What should be.
        expected: &'static str,
    },
    /// The pickle holds no state dict.
    #[error("{}: holds no state dict: {found}; save `model.state_dict()`, alone or under `state_dict`", path.display())]
    StateDict {
        /// The file.
        path: PathBuf,
        /// What it holds.
        found: String,
    },
    /// A tensor that cannot be read.
    #[error("{}: tensor `{}`: {problem}", path.display(), Printable(tensor))]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name in the state dict.
        tensor: String,
        /// What is wrong.
        problem: Box<ViewProblem>,
    },
    /// The header of a safetensors file is wrong, or disagrees with the file.
    #[error("{}: safetensors header: {problem}", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what was expected.
        problem: String,
    },
    /// The index of sharded safetensors is wrong, or names a file that may not be read.
    #[error("{}: index: {problem}", path.display())]
    Index {
        /// The index.
        path: PathBuf,
        /// What is wrong, and what was expected.
        problem: String,
    },
}

impl Error {
    /// Of the tensor `name`.
    pub(super) fn tensor(path: &Path, name: &str, problem: ViewProblem) -> Self {
        Self::Tensor { path: path.to_owned(), tensor: name.to_owned(), problem: Box::new(problem) }
    }
}
