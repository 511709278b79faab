//! What a file does not say of its layers, and the user does.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::builder::PossibleValue;
use clap::{Args, ValueEnum, ValueHint};
use isqrt_cov_op::{STEPS, Vectorization};

use crate::data::Samples;

/// What the user says of layers that a file does not describe: those of a checkpoint, and those that are to be put back.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Checkpoints and repair")]
pub struct Told {
    /// Number of steps that the model was trained with [default for checkpoints: as published, 5, and 3 in GSoP-Net]
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(STEPS))]
    pub iterations: Option<u32>,
    /// Order in which the model that was trained reads the triangle [default for checkpoints: as the classifier's weights
    /// tell; for a repair: as the file's own indices tell, else upper]
    #[arg(long, value_enum)]
    pub triangle: Option<Triangle>,
    /// Data with the outputs that the model should give: a .npz archive as for --inputs, with an array `expected`
    ///
    /// The conversion fails where the model does not give them: exit status 1, and nothing is written. They may be as far apart
    /// as the proof allows, and by 1e-4 of the greatest in any case, or as --tolerance says. Without that, those of a repaired
    /// model must also be a hundred times nearer than the broken one's, as far as rounding allows. With --repair or a
    /// checkpoint, `expected` in --inputs does the same; of any other graph that is only reported. One of the two options is
    /// given, not both.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "inputs")]
    pub expected: Option<PathBuf>,
}

/// An order of the triangle, as a value of an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Triangle(pub Vectorization);

impl ValueEnum for Triangle {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self(Vectorization::Upper), Self(Vectorization::UpperColumnMajor)]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let help = match self.0 {
            Vectorization::Upper => "Row by row: (0,0), (0,1), (0,2), …",
            Vectorization::UpperColumnMajor => "Column by column: (0,0), (0,1), (1,1), …",
            Vectorization::None => return None,
        };
        Some(PossibleValue::new(self.0.word()).help(help))
    }
}

impl Told {
    /// Whether anything was said of what a file does not say.
    pub fn is_any(&self) -> bool {
        self.iterations.is_some() || self.triangle.is_some()
    }

    /// Checks that data which should have outputs have them.
    ///
    /// # Errors
    /// Data without `expected`.
    pub fn check(&self, samples: Option<&Samples>) -> Result<()> {
        if let (Some(path), Some(samples)) = (&self.expected, samples) {
            ensure!(
                samples.expected.is_some(),
                "{}: has no array `expected`, the outputs that the model should give; add it, or name the file with --inputs",
                path.display()
            );
        }
        Ok(())
    }
}
