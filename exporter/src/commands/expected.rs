//! Outputs that the user knows to be right, and a model that does not give them.

use anyhow::Result;

use crate::commands::answer::Refusal;
use crate::proof::{MARGIN, Proof};

/// The greatest share of max|expected| that counts as what the data expect, where the proof allows no more: outputs are known
/// in float32 at best, also those of a model in float64.
pub const TOLERANCE: f64 = 1e-4;

/// How many times nearer to what is expected than the broken original's the outputs of a repaired model must be. Where they hardly
/// depend on the layer, they are near with any layer in its place, and even without one.
const NEARER: f64 = 100.0;

/// The share of a tolerance that reordered sums take in any model: tolerances are two orders of magnitude above what they do.
const REORDERED: f64 = 1e-2;

/// The greatest share of max|expected| that counts as what the data expect, and why it is no other.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    most: f64,
    reason: Reason,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    /// The user's, or what holds for all models.
    Usual,
    /// The broken original is so near itself.
    Original,
    /// The same, but that would be less than rounding does.
    Rounding,
}

impl Limit {
    /// Of any model. `given` is the tolerance that the user gives.
    pub fn usual(proof: &Proof, given: Option<f64>) -> Self {
        Self { most: given.unwrap_or(proof.tolerance.max(TOLERANCE)), reason: Reason::Usual }
    }

    /// Of a repaired model, where `proof` tells how near the broken original comes to what is expected. `rounding` measures how far
    /// the repaired one is from itself in float64, which is asked for only where it decides.
    pub fn of_repair(proof: &Proof, given: Option<f64>, rounding: impl FnOnce() -> Result<f64>) -> Self {
        let usual = Self::usual(proof, given);
        let distance = proof.samples.as_ref().and_then(|samples| samples.distance);
        match distance.filter(|_| given.is_none()) {
            Some(distance) => usual.for_what_was_lost(distance, rounding),
            None => usual,
        }
    }

    /// This limit, or a lower one where the broken original is so near itself.
    fn for_what_was_lost(self, [before, after]: [f64; 2], rounding: impl FnOnce() -> Result<f64>) -> Self {
        let nearer = before / NEARER;
        if nearer >= self.most {
            return self;
        }
        let original = Self { most: nearer, reason: Reason::Original };
        // Not where both are 0.
        if after < nearer {
            return original;
        }
        // Where it cannot be measured, the other layers are taken to amplify nothing.
        let measured = rounding().map_or(0.0, |own| MARGIN * own);
        let rounding = measured.max(REORDERED * self.most).min(self.most);
        if rounding > nearer { Self { most: rounding, reason: Reason::Rounding } } else { original }
    }
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let most = self.most;
        match self.reason {
            Reason::Usual => write!(f, "at most {most:.0e} counts as equal"),
            Reason::Original => write!(
                f,
                "at most {most:.1e} counts as equal, a hundredth of the original's, as the outputs depend little on the layer"
            ),
            Reason::Rounding => write!(
                f,
                "at most {most:.1e} counts as equal, which is what rounding may do, as the outputs depend so little on the layer \
                 that it hides a hundredth of the original's"
            ),
        }
    }
}

/// What to do where rounding does as much to the outputs as the layer.
const INSTEAD: &str = "give data on which the layer shows more, such as the outputs of a model that ends behind it, or \
                       --tolerance";
/// What to do where outputs were rounded more than is known here.
const ROUNDED: &str = "outputs rounded otherwise than float32 need --tolerance";

/// How far the outputs of two models are from those that the user's data expect.
#[derive(Debug, Clone, Copy)]
pub struct Apart {
    before: f64,
    after: f64,
    limit: Limit,
}

impl Apart {
    /// What `proof` found; none where nothing was expected.
    pub fn of(proof: &Proof, limit: Limit) -> Option<Self> {
        let [before, after] = proof.samples.as_ref()?.distance?;
        Some(Self { before, after, limit })
    }

    /// Whether the converted model's are farther than may be.
    pub fn is_too_far(&self) -> bool {
        self.after.is_nan() || self.after > self.limit.most
    }

    /// The refusal where `expected` decides, with the likely `cause`.
    pub fn refusal(&self, cause: &str) -> Refusal {
        let advice = match self.limit.reason {
            Reason::Usual => String::new(),
            Reason::Original => format!("; {ROUNDED}"),
            Reason::Rounding => format!("; {INSTEAD}"),
        };
        Refusal {
            reason: "expected-differs",
            message: format!("{self}, and nothing was written: {cause}{advice}"),
        }
    }

    /// What is to be known where `expected` does not decide, or decides little.
    pub fn note(&self) -> Option<String> {
        if self.is_too_far() {
            return Some(format!(
                "{self}: the model was converted as it is; --expected in place of --inputs refuses that"
            ));
        }
        (self.limit.reason == Reason::Rounding)
            .then(|| format!("the data hardly tell what was lost, as {self}: {INSTEAD}"))
    }
}

impl std::fmt::Display for Apart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { before, after, limit } = self;
        write!(
            f,
            "the outputs are {after:.1e} away from those expected, the original's {before:.1e} ({limit})"
        )
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    const USUAL: Limit = Limit { most: 1e-4, reason: Reason::Usual };

    fn limit(distance: [f64; 2], rounding: impl FnOnce() -> Result<f64>) -> (f64, Reason) {
        let limit = USUAL.for_what_was_lost(distance, rounding);
        (limit.most, limit.reason)
    }

    #[test]
    fn what_rounding_does_is_measured_where_it_decides() {
        let never = || panic!("it decides nothing");
        assert_eq!(limit([0.5, 0.4], never), (1e-4, Reason::Usual));
        assert_eq!(limit([5e-4, 4e-6], never), (5e-4 / NEARER, Reason::Original));
        for (distance, rounding, expected) in [
            ([5e-4, 5e-5], 1e-7, (5e-4 / NEARER, Reason::Original)),
            ([5e-4, 5e-5], 1e-5, (4e-5, Reason::Rounding)),
            ([5e-4, 5e-5], 1e-3, (1e-4, Reason::Rounding)),
            ([5e-6, 5e-6], 0.0, (1e-6, Reason::Rounding)),
            ([0.0, 0.0], 0.0, (1e-6, Reason::Rounding)),
        ] {
            let (most, reason) = limit(distance, || Ok(rounding));
            assert!((most / expected.0 - 1.0).abs() < 1e-9 && reason == expected.1, "{distance:?}: {most}");
        }
        assert_eq!(limit([5e-4, 5e-5], || bail!("it does not run")), (5e-4 / NEARER, Reason::Original));
    }
}
