//! Checkpoints: what `convert` and `inspect` do with a trained network's weights.

mod conversion;
mod decision;
mod description;
mod inspection;
mod options;

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use isqrt_cov_models::{Candidate, Problem, Settings, Weights, recognize};

pub use self::conversion::convert;
pub use self::description::Trained;
pub use self::inspection::inspect;
pub use self::options::CheckpointOptions;
use crate::checkpoint::{Checkpoint, Format, is_checkpoint};
use crate::cli::Refusal;

/// Endings of names that promise a checkpoint.
const ENDINGS: [&str; 5] = [".pth", ".pt", ".tar", ".safetensors", ".safetensors.index.json"];

/// Whether `path` is to be read as a checkpoint: by what is in it or, where that tells nothing, by its name.
pub fn is_meant(path: &Path) -> bool {
    is_checkpoint(path) || is_named(path)
}

/// Whether the name of `path` promises a checkpoint.
pub fn is_named(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    ENDINGS.iter().any(|ending| name.ends_with(ending))
}

/// Refuses a checkpoint where a model is wanted.
///
/// # Errors
/// `path` is one.
pub fn refuse(path: &Path) -> Result<()> {
    let ending = path.extension().unwrap_or_default().to_ascii_lowercase();
    ensure!(
        ending != "npz" && ending != "npy",
        "{}: holds arrays, not a model; give them with --inputs",
        path.display()
    );
    ensure!(
        !is_meant(path),
        "{}: is a checkpoint, not a model; make one of it with: isqrt-cov convert {} -o model.onnx",
        path.display(),
        path.display()
    );
    Ok(())
}

/// A checkpoint, and the architecture that it is of or comes nearest to.
pub struct Read {
    /// How the file is stored.
    pub format: Format,
    /// The files that its index names.
    pub shards: Vec<PathBuf>,
    /// What stands in it beside the weights.
    pub facts: Vec<(String, String)>,
    /// The weights.
    pub weights: Weights,
    /// The architecture; nothing where none is near.
    pub candidate: Option<Candidate>,
}

impl Read {
    /// Reads `path`, and tries every architecture under the settings that are given.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn load(path: &Path, settings: &Settings) -> Result<Self> {
        let Checkpoint { format, facts, tensors, shards, .. } = Checkpoint::load(path)?;
        let place = |error| anyhow::Error::from(error).context(format!("{}: cannot be used", path.display()));
        let weights = Weights::new(tensors, facts.clone()).map_err(place)?;
        let mut candidate = recognize(&weights, settings);
        let fits = |candidate: &Option<Candidate>| candidate.as_ref().is_some_and(Candidate::fits);
        let (mut weights, mut inner) = (weights.clone(), weights.inner());
        while let Some(inside) = inner.filter(|_| !fits(&candidate)) {
            let found = recognize(&inside, settings);
            inner = inside.inner();
            if fits(&found) || candidate.is_none() {
                (weights, candidate) = (inside, found);
            }
        }
        Ok(Self { format, shards, facts, weights, candidate })
    }

    /// The architecture, where everything fits. A refusal where it is none that is known, which names everything that does not
    /// fit the nearest: the file `path` can be read, and there is nothing to convert.
    pub fn fitting(&self, path: &Path) -> Result<&Candidate, Refusal> {
        let candidate = self.candidate.as_ref();
        candidate.filter(|candidate| candidate.fits()).ok_or_else(|| Refusal {
            reason: "unknown-architecture",
            message: format!("{}: {}", path.display(), misfit(candidate, &self.weights)),
        })
    }
}

/// Why a checkpoint is of no architecture that is known.
fn misfit(candidate: Option<&Candidate>, weights: &Weights) -> String {
    let Some(candidate) = candidate else {
        let names: Vec<&str> = weights.names().map(|name| weights.original(name)).take(5).collect();
        let more = if weights.len() > names.len() { ", …" } else { "" };
        let known: Vec<&str> =
            isqrt_cov_models::architectures::ARCHITECTURES.iter().map(|known| known.name).collect();
        return format!(
            "the tensors (`{}`{more}) are those of no known architecture, which are {}; export the model with \
             torch.onnx.export(…, dynamo=True) and convert the graph",
            names.join("`, `"),
            known.join(", ")
        );
    };
    let problems: Vec<String> = candidate.built.problems.iter().map(Problem::to_string).collect();
    format!(
        "it is most like {} ({}), but {} not fit: {}",
        candidate.built.title,
        candidate.layout.name,
        if problems.len() == 1 {
            "one thing does".to_owned()
        } else {
            format!("{} things do", problems.len())
        },
        problems.join("; ")
    )
}
