//! Where models are run, on the command line.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum, ValueHint};

use crate::runtime::Runtime;
use crate::runtime::embedded::Embedded;
use crate::runtime::ort::{self, Ort};

/// Where models are run.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Runtime")]
pub(crate) struct RuntimeOptions {
    /// The runtime that evaluates models [default: tract; ort where one of the options below is given]
    #[arg(long, value_enum)]
    pub runtime: Option<RuntimeKind>,
    #[command(flatten)]
    pub libraries: Libraries,
}

/// The libraries that run models where the program does not do so itself.
#[derive(Debug, Clone, Args)]
pub(crate) struct Libraries {
    /// ONNX Runtime's shared library, or a folder that holds it such as the `capi` folder of the Python package from 1.19 on
    /// (packages before that have no such library; the release archives do) [default: $ORT_DYLIB_PATH]
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub onnxruntime: Option<PathBuf>,
    /// The operator library to register with ONNX Runtime [default: $ISQRT_COV_OP_LIBRARY, or `libisqrt_cov_op.so` beside
    /// this program]
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub op_library: Option<PathBuf>,
}

/// A runtime that models can be evaluated in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RuntimeKind {
    /// tract, built into this program
    Tract,
    /// ONNX Runtime, loaded from where you have it
    Ort,
}

impl Libraries {
    /// Where ONNX Runtime is.
    ///
    /// # Errors
    /// None was named; what was named is not there.
    pub fn runtime(&self) -> Result<PathBuf> {
        ort::find_runtime(self.onnxruntime.as_deref())
    }

    /// Whether an ONNX Runtime was named, here or in the environment.
    pub fn names_runtime(&self) -> bool {
        ort::named_runtime(self.onnxruntime.as_deref()).is_some()
    }

    /// Where the operator library is, if there is one.
    pub fn operators(&self) -> Option<PathBuf> {
        ort::find_operators(self.op_library.as_deref())
    }

    /// Whether one of the options was given.
    fn is_given(&self) -> bool {
        self.onnxruntime.is_some() || self.op_library.is_some()
    }
}

impl RuntimeOptions {
    /// The runtime meant: where only paths are given, the one that they are for.
    pub fn kind(&self) -> RuntimeKind {
        let usual = if self.libraries.is_given() { RuntimeKind::Ort } else { RuntimeKind::Tract };
        self.runtime.unwrap_or(usual)
    }

    /// Whether the runtime knows the operators, and does not run their function bodies instead.
    pub fn has_operators(&self) -> bool {
        self.kind() == RuntimeKind::Tract || self.libraries.operators().is_some()
    }

    /// The libraries that these options and the environment name, whichever runtime is meant: no output may replace one.
    pub fn libraries(&self) -> Vec<PathBuf> {
        self.libraries.runtime().into_iter().chain(self.libraries.operators()).collect()
    }

    /// Loads the runtime.
    pub fn open(&self) -> Result<Box<dyn Runtime>> {
        self.open_with(None)
    }

    /// Loads the runtime to run on `threads` threads.
    pub fn open_with(&self, threads: Option<usize>) -> Result<Box<dyn Runtime>> {
        match self.kind() {
            RuntimeKind::Tract if self.libraries.is_given() => {
                bail!("--onnxruntime and --op-library are for `--runtime ort`; tract needs neither")
            }
            RuntimeKind::Tract if threads.is_some() => {
                bail!("--threads is for `--runtime ort`; tract runs on one thread")
            }
            RuntimeKind::Tract => Ok(Box::new(Embedded::new())),
            RuntimeKind::Ort => {
                let (library, operators) = (self.libraries.runtime()?, self.libraries.operators());
                Ok(Box::new(Ort::load(&library, operators.as_deref(), threads)?))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches;

    use super::*;

    #[test]
    fn paths_choose_the_runtime() {
        let command = || RuntimeOptions::augment_args(clap::Command::new("x").no_binary_name(true));
        let kind = |line: &[&str]| {
            RuntimeOptions::from_arg_matches(&command().try_get_matches_from(line).unwrap()).unwrap().kind()
        };
        assert_eq!(kind(&[]), RuntimeKind::Tract);
        assert_eq!(kind(&["--onnxruntime", "x.so"]), RuntimeKind::Ort);
        assert_eq!(kind(&["--runtime", "ort"]), RuntimeKind::Ort);
        assert_eq!(kind(&["--op-library", "x.so", "--runtime", "tract"]), RuntimeKind::Tract);
    }
}
