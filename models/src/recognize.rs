//! Of which architecture a checkpoint is, by the names and shapes of its tensors.

use crate::architectures::ARCHITECTURES;
use crate::built::Built;
use crate::layout::Layout;
use crate::network::Network;
use crate::problem::Problem;
use crate::setting::Settings;
use crate::weights::Weights;

/// An architecture: what it is called, how checkpoints name its weights, and what it computes.
#[derive(Debug, Clone, Copy)]
pub struct Architecture {
    /// What people call it.
    pub name: &'static str,
    /// The ways in which its weights are named.
    pub layouts: &'static [Layout],
    /// Describes it.
    pub describe: fn(&mut Network<'_>),
}

/// An architecture that a checkpoint may be of.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The architecture.
    pub architecture: Architecture,
    /// How the checkpoint would name its weights.
    pub layout: Layout,
    /// Its description, with the checkpoint's sizes.
    pub built: Built,
    /// Tensors of the checkpoint that it has.
    fitting: usize,
}

impl Candidate {
    /// Whether everything fits.
    #[must_use]
    pub fn fits(&self) -> bool {
        self.built.problems.is_empty()
    }

    /// The same with other settings or with batch normalizations kept.
    #[must_use]
    pub fn rebuilt(&self, weights: &Weights, settings: &Settings, fold: bool) -> Built {
        let mut network = Network::new(weights, self.layout, settings, fold);
        (self.architecture.describe)(&mut network);
        network.end()
    }
}

/// The architecture that `weights` are of, or the one that comes nearest; nothing where none has a quarter of the tensors.
#[must_use]
pub fn recognize(weights: &Weights, settings: &Settings) -> Option<Candidate> {
    let candidates = ARCHITECTURES.iter().flat_map(|architecture| {
        architecture.layouts.iter().map(|&layout| {
            let mut network = Network::new(weights, layout, settings, true);
            (architecture.describe)(&mut network);
            let built = network.end();
            let wrong = |problem: &&Problem| matches!(problem, Problem::Shape { .. } | Problem::Type { .. });
            let wrong = built.problems.iter().filter(wrong).count();
            let fitting = built.read.len().saturating_sub(wrong);
            Candidate { architecture: *architecture, layout, built, fitting }
        })
    });
    // What fits best has most of the tensors, and least that does not fit.
    let rank = |candidate: &Candidate| {
        (!candidate.fits(), candidate.built.problems.len() as i64 - candidate.fitting as i64)
    };
    let best = candidates.min_by_key(rank)?;
    (4 * best.fitting >= weights.len() && best.fitting > 0).then_some(best)
}
