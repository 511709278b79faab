//! Of which architecture a checkpoint is, by the names and shapes of its tensors.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use isqrt_cov_proto::Printable;

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
            let built = network.described();
            let wrong = |problem: &&Problem| matches!(problem, Problem::Shape { .. } | Problem::Type { .. });
            let wrong = built.problems.iter().filter(wrong).count();
            let fitting = built.read.len().saturating_sub(wrong);
            Candidate { architecture: *architecture, layout, built, fitting }
        })
    });
    // What fits best has most of the tensors, and least that does not fit.
    let rank = |candidate: &Candidate| {
        // Counted and not named, which would take long for each candidate of a large file.
        let surplus = weights.len() - candidate.built.read.len();
        let wrong = candidate.built.problems.len() + surplus;
        (wrong > 0, wrong as i64 - candidate.fitting as i64)
    };
    let best = candidates.min_by_key(rank)?;
    if best.fitting == 0 || 4 * best.fitting < weights.len() {
        return None;
    }
    Some(Candidate { built: best.built.with_surplus(weights), ..best })
}

/// How many modules there are around a network at most, one inside the other.
const NESTED: usize = 16;
/// How many modules are tried at most, larger ones first: each costs as much as all architectures take.
const TRIED: usize = 32;
/// Fewer tensors than any network has.
const FEWEST: usize = 8;
/// What the network among several modules is usually called.
const USUAL: [&str; 3] = ["model", "net", "network"];

/// What the tensors of a checkpoint are: a network, alone or as a module of something.
#[derive(Debug, Clone)]
pub struct Recognition {
    /// The tensors of the network, under the names that they have in it.
    pub weights: Weights,
    /// The architecture that they are of or come nearest to; nothing where none is near.
    pub candidate: Option<Candidate>,
    /// The module that they are in; nothing where they are all there is.
    pub module: Option<String>,
    /// The names in the checkpoint of tensors beside that module.
    pub left: Vec<String>,
    /// Why a network that fits may not be the one that is meant.
    pub doubt: Option<String>,
}

impl Recognition {
    /// The architecture, where everything fits and nothing is in doubt.
    #[must_use]
    pub fn fitting(&self) -> Option<&Candidate> {
        self.candidate.as_ref().filter(|candidate| candidate.fits() && self.doubt.is_none())
    }

    fn new(whole: &Weights, module: String, weights: Weights, candidate: Candidate) -> Self {
        let inside = format!("{module}.");
        let names = whole.names().filter(|name| !name.starts_with(&inside));
        let left: Vec<String> = names.map(|name| whole.original(name).to_owned()).collect();
        // What is named as a part of the network may be the part that was trained.
        let outer = |name: &str| name.split('.').next().map(str::to_owned);
        let own: BTreeSet<Option<String>> = candidate.built.read.iter().map(|name| outer(name)).collect();
        let names = whole.names().filter(|name| !name.starts_with(&inside));
        let doubt = names.into_iter().find(|name| own.contains(&outer(name))).map(|name| {
            format!(
                "module `{}` alone is {}, but `{}` stands beside it, and a part of that network is called so",
                Printable(&module),
                candidate.built.title,
                Printable(whole.original(name))
            )
        });
        let doubt = doubt.filter(|_| candidate.fits());
        Self { weights, candidate: Some(candidate), module: Some(module), left, doubt }
    }
}

/// The network that `weights` are of, or the module of them that is one, or what comes nearest.
#[must_use]
pub fn recognize_within(weights: &Weights, settings: &Settings) -> Recognition {
    let whole = recognize(weights, settings);
    let alone = |candidate| Recognition {
        weights: weights.clone(),
        candidate,
        module: None,
        left: Vec::new(),
        doubt: None,
    };
    if whole.as_ref().is_some_and(Candidate::fits) {
        return alone(whole);
    }
    let (mut fitting, nearest) = modules(weights, settings);
    if fitting.is_empty() {
        return match nearest {
            Some((module, inside, candidate)) if whole.is_none() => {
                Recognition::new(weights, module, inside, candidate)
            }
            _ => alone(whole),
        };
    }
    let usual =
        |(module, ..): &Part| USUAL.iter().position(|usual| Some(*usual) == module.rsplit('.').next());
    let names: Vec<String> = fitting.iter().map(|(module, ..)| format!("`{}`", Printable(module))).collect();
    fitting.sort_by_key(|part| usual(part).unwrap_or(USUAL.len()));
    let is_one =
        fitting.len() == 1 || usual(&fitting[0]).is_some() && usual(&fitting[0]) != usual(&fitting[1]);
    let (module, inside, candidate) = fitting.swap_remove(0);
    let mut found = Recognition::new(weights, module, inside, candidate);
    if !is_one {
        found.doubt = Some(format!("several of its modules are networks: {}", names.join(", ")));
    }
    found
}

/// A module, its tensors, and what they are.
type Part = (String, Weights, Candidate);

/// The modules that are networks, and the outermost that comes near one.
fn modules(weights: &Weights, settings: &Settings) -> (Vec<Part>, Option<Part>) {
    let (mut fitting, mut nearest) = (Vec::new(), None);
    let mut outer = vec![(String::new(), weights.clone())];
    let mut left = TRIED;
    for _ in 0..NESTED {
        let inside = |(path, weights): &(String, Weights)| {
            let path = if path.is_empty() { String::new() } else { format!("{path}.") };
            weights.modules(FEWEST).into_iter().map(move |(module, inner)| (format!("{path}{module}"), inner))
        };
        let mut inner: Vec<(String, Weights)> = outer.iter().flat_map(inside).collect();
        inner.sort_by_key(|(_, weights)| Reverse(weights.len()));
        inner.truncate(left);
        left -= inner.len();
        outer = Vec::new();
        for (module, weights) in inner {
            match recognize(&weights, settings) {
                Some(found) if found.fits() => fitting.push((module, weights, found)),
                found => {
                    if let (None, Some(found)) = (&nearest, found) {
                        nearest = Some((module.clone(), weights.clone(), found));
                    }
                    outer.push((module, weights));
                }
            }
        }
    }
    (fitting, nearest)
}
