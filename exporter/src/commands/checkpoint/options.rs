//! What is said of checkpoints on the command line.

use anyhow::{Result, bail, ensure};
use clap::{Args, ValueHint};
use isqrt_cov_models::{Built, Options, Settings, Source, Storage};

use crate::commands::told::{Told, Triangle};

/// How a checkpoint becomes a model.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Checkpoints")]
pub struct CheckpointOptions {
    /// Settle what the weights do not tell, such as last-stride=2; may be given several times
    ///
    /// `isqrt-cov inspect` lists the settings of a checkpoint with the values that are assumed.
    #[arg(long, value_name = "NAME=VALUE", value_hint = ValueHint::Other)]
    assume: Vec<String>,
    /// Leave out a tensor that is no part of the network, or a module with all of its own; may be given several times
    ///
    /// A tensor that belongs to nothing keeps a checkpoint from being converted, since the network may be another one than that
    /// which is known. A number that training keeps for itself, such as ema_decay, is left out without being told.
    #[arg(long, value_name = "NAME", value_hint = ValueHint::Other)]
    pub(super) ignore: Vec<String>,
    /// The version of the standard operators that the model is written in, 13 to 23 [default: 17]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(13..=23))]
    opset: Option<i64>,
    /// Store weights in float16: half the size; they are computed with in float32
    #[arg(long)]
    half: bool,
    /// Keep batch normalizations as nodes of their own instead of folding them into convolutions
    #[arg(long)]
    keep_batch_norm: bool,
}

impl CheckpointOptions {
    /// One of the options that were given, if any was.
    pub fn given(&self) -> Option<&'static str> {
        [
            (!self.assume.is_empty(), "--assume"),
            (!self.ignore.is_empty(), "--ignore"),
            (self.opset.is_some(), "--opset"),
            (self.half, "--half"),
            (self.keep_batch_norm, "--keep-batch-norm"),
        ]
        .into_iter()
        .find_map(|(given, name)| given.then_some(name))
    }

    /// How the graph is written.
    pub fn graph(&self) -> Options {
        let storage = if self.half { Storage::Float16 } else { Storage::Float32 };
        Options { opset: self.opset.unwrap_or(17), fold: !self.keep_batch_norm, storage }
    }

    /// What the user says of the network.
    ///
    /// # Errors
    /// A setting that is no NAME=VALUE.
    pub fn settings(&self, told: &Told) -> Result<Settings> {
        let mut settings = Settings::default();
        for text in &self.assume {
            let Some((name, value)) = text.split_once('=') else {
                bail!("--assume {text:?}: expected NAME=VALUE, such as last-stride=2");
            };
            let twice = settings.get(name.trim()).is_some()
                || (name.trim() == "iterations" && told.iterations.is_some())
                || (name.trim() == "triangle" && told.triangle.is_some());
            ensure!(!twice, "--assume {name}: is given twice");
            settings.set(name.trim(), value.trim(), Source::User);
        }
        if let Some(iterations) = told.iterations {
            settings.set("iterations", &iterations.to_string(), Source::User);
        }
        if let Some(Triangle(triangle)) = told.triangle {
            settings.set("triangle", triangle.word(), Source::User);
        }
        Ok(settings)
    }
}

/// Checks that the network has the settings that were given, and that they may be as they are.
///
/// # Errors
/// One that it has not; a value that it cannot have.
pub fn check(settings: &Settings, built: &Built) -> Result<()> {
    for name in settings.names() {
        let Some(choice) = built.choices.iter().find(|choice| choice.name == name) else {
            let known: Vec<&str> = built.choices.iter().map(|choice| choice.name).collect();
            bail!(
                "--assume {name}: no such setting in {}; expected one of {}",
                built.title,
                known.join(", ")
            );
        };
        if let Some(expected) = choice.expected() {
            bail!("--assume {name}={}: expected {expected}", choice.value);
        }
    }
    Ok(())
}
