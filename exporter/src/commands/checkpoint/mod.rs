//! Checkpoints: what `convert` and `inspect` do with a trained network's weights.

mod conversion;
mod decision;
mod description;
mod inspection;
mod misfit;
mod options;
mod trial;

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use isqrt_cov_models::{Candidate, Recognition, Settings, Weights, recognize_within};
use isqrt_cov_proto::Printable;
use isqrt_cov_proto::onnx::TensorProto;

pub use self::conversion::convert;
pub use self::description::Trained;
pub use self::inspection::inspect;
pub use self::options::CheckpointOptions;
use crate::checkpoint::{Checkpoint, Format, begins_as_model, is_checkpoint};
use crate::commands::answer::Refusal;

/// Endings of names that promise a checkpoint.
const ENDINGS: [&str; 6] = [".pth", ".pt", ".pt2", ".tar", ".safetensors", ".safetensors.index.json"];

/// Endings that checkpoints have as well as others, models among them.
const SHARED: [&str; 2] = [".ckpt", ".bin"];

/// Whether `path` is to be read as a checkpoint: by what is in it or, where that tells nothing, by its name.
pub fn is_meant(path: &Path) -> bool {
    is_checkpoint(path) || is_named(path) || ends_in(path, &SHARED) && !begins_as_model(path)
}

/// Whether the name of `path` promises a checkpoint.
pub fn is_named(path: &Path) -> bool {
    ends_in(path, &ENDINGS)
}

fn ends_in(path: &Path, endings: &[&str]) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    endings.iter().any(|ending| name.ends_with(ending))
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
    /// How the weights were found in it.
    pub notes: Vec<String>,
    /// The weights.
    pub weights: Weights,
    /// The architecture; nothing where none is near.
    pub candidate: Option<Candidate>,
    /// Why an architecture that fits may not be the one that is meant.
    doubt: Option<String>,
}

impl Read {
    /// Reads `path`, and tries every architecture under the settings that are given on all tensors but those `ignored`, by their
    /// names or those of modules around them.
    ///
    /// # Errors
    /// A file that cannot be read; ignoring what is not there.
    pub fn load(path: &Path, settings: &Settings, ignored: &[String]) -> Result<Self> {
        let Checkpoint { format, facts, mut notes, mut tensors, shards, .. } = Checkpoint::load(path)?;
        let belongs = |tensor: &str, name: &str| {
            tensor.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        for name in ignored {
            ensure!(
                tensors.iter().any(|tensor| belongs(tensor.name(), name)),
                "--ignore {name}: no tensor of {} is called so, nor is one in a module of that name",
                path.display()
            );
        }
        let is_ignored = |tensor: &mut TensorProto| ignored.iter().any(|name| belongs(tensor.name(), name));
        let told: Vec<_> =
            tensors.extract_if(.., is_ignored).map(|tensor| tensor.name().to_owned()).collect();
        notes.extend(left_out("left out as told", &told));
        let place = |error| anyhow::Error::from(error).context(format!("{}: cannot be used", path.display()));
        let all = Weights::new(tensors, facts.clone()).map_err(place)?;
        let kept = all.left().to_vec();
        let Recognition { weights, candidate, module, left, doubt } = recognize_within(&all, settings);
        // Where nobody knows which part is meant, all of them are told.
        let weights = if doubt.is_some() { all } else { weights };
        notes.extend(module.map(|module| format!("its module `{}` is read", Printable(&module))));
        notes.extend(left_out("left out", &left));
        notes.extend(left_out("left out, as training keeps it for itself", &kept));
        Ok(Self { format, shards, facts, notes, weights, candidate, doubt })
    }

    /// The architecture, where everything fits. A refusal where it is none that is known, which names everything that does not
    /// fit the nearest: the file `path` can be read, and there is nothing to convert.
    pub fn fitting(&self, path: &Path) -> Result<&Candidate, Refusal> {
        let candidate = self.candidate.as_ref().filter(|candidate| candidate.fits() && self.doubt.is_none());
        candidate.ok_or_else(|| Refusal {
            reason: "unknown-architecture",
            message: format!("{}: {}", path.display(), misfit::misfit(self, path)),
        })
    }
}

/// That these tensors were left out, and `why`; nothing where there are none.
fn left_out(why: &str, names: &[String]) -> Option<String> {
    const SHOWN: usize = 5;
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{}`", Printable(name))).collect();
    let more = names.len().saturating_sub(SHOWN);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    (!names.is_empty()).then(|| format!("{why}: {}{more}", shown.join(", ")))
}
