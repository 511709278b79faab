//! The commands, one a file, and what several of them share.

pub mod answer;
pub mod bench;
mod checkpoint;
pub mod completions;
mod conversion;
pub mod convert;
pub mod doctor;
pub mod expand;
mod expected;
mod facts;
mod form;
pub mod inspect;
pub mod layers;
pub mod operators;
pub mod output;
mod page;
mod proving;
pub mod repair;
mod runtime_options;
pub mod selection;
mod told;
pub mod validate;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueHint};
use isqrt_cov_proto::onnx::ModelProto;
use serde_json::Value;

use crate::data::{Data, Samples};
use crate::proof::Plan;
use crate::signature::Signature;

/// How two models are compared.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Proof")]
pub struct ProofOptions {
    /// Data of your own to compare on, beside random inputs
    ///
    /// A .npz archive with an array for each input of the model, named like it (`input` will do where there is only
    /// one), samples along the first axis. An array `expected` (what you know to be right of the first output) and an array
    /// `labels` (the class of each sample, from 0) are reported on, before and after. A .npy file is the only input's array.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub inputs: Option<PathBuf>,
    /// Number of random seeds: all of them at the first batch size, two at the others
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub seeds: u32,
    /// The greatest difference that counts as equal, as a share of the output's greatest value
    ///
    /// [default: 1e-4 for float32 models, 1e-9 for float64, 1e-2 for float16, 5e-2 for bfloat16. If the original layer's own
    /// error against float64 exceeds a quarter of this default, convert uses four times that error instead, at most the
    /// default of the least precise type in the layer, and says so.]
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub tolerance: Option<f64>,
}

impl ProofOptions {
    /// The plan for comparing with a model of this signature, on the data in --inputs or in `other`.
    pub fn plan(&self, signature: &Signature, other: Option<&PathBuf>) -> Result<Plan> {
        let path = self.inputs.as_ref().or(other);
        let samples = path.map(|path| Data::read(path)?.fit(signature)).transpose()?;
        let shapes = samples.as_ref().map(Samples::shapes);
        Ok(Plan { seeds: self.seeds as usize, tolerance: self.tolerance, samples, shapes })
    }

    /// The files that a command with these options reads, `input` among them.
    pub fn read_with<'a>(&'a self, input: &'a Path) -> impl Iterator<Item = &'a Path> {
        std::iter::once(input).chain(self.inputs.as_deref())
    }
}

/// The signature of the model of the file `path`.
///
/// # Errors
/// As [`Signature::of`].
pub fn signature(model: &ModelProto, path: &Path) -> Result<Signature> {
    Signature::of(model).with_context(|| format!("{}: cannot be used", path.display()))
}

/// A path as JSON, which holds Unicode only: what is none in it stands as U+FFFD.
pub fn path_json(path: &Path) -> Value {
    path.to_string_lossy().into()
}

/// A tolerance: a number above 0 and below 1, where nothing would be left to prove.
fn share(text: &str) -> Result<f64> {
    let value: f64 = text.parse()?;
    ensure!(value > 0.0 && value < 1.0, "expected a number above 0 and below 1");
    Ok(value)
}
