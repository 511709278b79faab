//! Outputs that the user knows to be right, and a model that does not give them.

use crate::cli::Refusal;
use crate::proof::Proof;

/// The greatest share of max|expected| that counts as what the data expect, where the proof allows no more: outputs are known
/// in float32 at best, also those of a model in float64.
pub const TOLERANCE: f64 = 1e-4;

/// What the user's data contradict.
#[derive(Debug, Clone, Copy)]
pub struct Apart {
    before: f64,
    after: f64,
    tolerance: f64,
}

/// How far the outputs of both models are from those that the user's data expect, where the converted model's are farther
/// than may be. `given` is the tolerance that the user gives.
pub fn apart(proof: &Proof, given: Option<f64>) -> Option<Apart> {
    let [before, after] = proof.samples.as_ref()?.distance?;
    let tolerance = given.unwrap_or(proof.tolerance.max(TOLERANCE));
    (after.is_nan() || after > tolerance).then_some(Apart { before, after, tolerance })
}

impl Apart {
    /// The refusal where `expected` decides, with the likely `cause`.
    pub fn refusal(&self, cause: &str) -> Refusal {
        Refusal { reason: "expected-differs", message: format!("{self}, and nothing was written: {cause}") }
    }

    /// What is said where `expected` does not decide.
    pub fn note(&self) -> String {
        format!("{self}: the model was converted as it is; --expected in place of --inputs refuses that")
    }
}

impl std::fmt::Display for Apart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { before, after, tolerance } = self;
        write!(
            f,
            "the outputs are {after:.1e} away from those expected, the original's {before:.1e} (at most {tolerance:.0e} counts as \
             equal)"
        )
    }
}
