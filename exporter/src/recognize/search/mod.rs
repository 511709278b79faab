//! The search for layers among the regions of a model's graphs.

mod beyond;
pub mod candidates;
mod fallbacks;
mod layers;
mod other_sizes;
mod remains;

use std::collections::HashSet;

use isqrt_cov_op::{DOMAIN, OperatorKind};
use isqrt_cov_proto::onnx::{GraphProto, ModelProto};

use self::candidates::Candidate;
use self::fallbacks::Inside;
use super::findings::Findings;
use super::identify::probed::Unexplained;
use super::observe::subject::Observed;
use super::observe::survey::Survey;
use super::observe::trial::Trial;
use super::propose::places::Place;
use crate::found::Found;
use crate::graph::NodeId;
use crate::runtime::Runtime;

/// Attributes that are farther off than this, relative to the largest value, are no candidates. A wrong ε alone may take
/// the right ones far off.
pub const NEAR: f64 = 0.5;

/// Nodes that are operators of ours already explain themselves.
fn fused_nodes(graph: &GraphProto) -> HashSet<NodeId> {
    (0..graph.node.len()).filter(|&node| graph.node[node].domain() == DOMAIN).collect()
}

/// What is searched, and what was found so far.
pub struct Search<'a> {
    /// The model.
    pub model: &'a ModelProto,
    /// Its graphs.
    pub places: &'a [Place<'a>],
    /// What evaluates what the evaluator of regions does not.
    pub runtime: &'a dyn Runtime,
    /// What the survey was made with.
    pub trial: Trial<'a>,
    /// The values of the whole model.
    pub survey: Survey,
    /// For each place the nodes that a finding explains.
    covered: Vec<HashSet<NodeId>>,
    /// For each place the nodes that give way to a finding.
    pub owned: Vec<HashSet<NodeId>>,
    /// For each place the nodes of what is no layer for a reason that was told.
    told: Vec<HashSet<NodeId>>,
    /// What no attributes explain, which stays so however often the search goes back to the beginning.
    unexplained: Unexplained,
    /// What nodes have inside.
    inside: Inside<'a>,
    /// What was found.
    pub findings: Findings,
}

impl<'a> Search<'a> {
    /// Nothing found yet in these places of a model.
    pub fn new(
        model: &'a ModelProto,
        places: &'a [Place<'a>],
        runtime: &'a dyn Runtime,
        trial: Trial<'a>,
    ) -> Self {
        let mut search = Self {
            model,
            places,
            runtime,
            trial,
            survey: Survey::default(),
            covered: Vec::new(),
            owned: Vec::new(),
            told: Vec::new(),
            unexplained: Unexplained::default(),
            inside: Inside::of(model, places),
            findings: Findings::default(),
        };
        search.forget();
        search
    }

    /// Goes back to the beginning.
    pub fn forget(&mut self) {
        let fused = || self.places.iter().map(|place| fused_nodes(place.flow.graph)).collect();
        (self.covered, self.owned) = (fused(), fused());
        self.told = vec![HashSet::new(); self.places.len()];
        self.findings = Findings::default();
    }

    /// Searches the regions that follow from these values.
    pub fn run(&mut self, candidates: &[Candidate]) {
        let unexplained = self.explain_features(candidates);
        let grouped = self.with_groups(candidates);
        self.explain_features(&grouped);
        let others = self.in_other_views(candidates);
        self.explain_features(&others);
        self.explain_matrices(candidates);
        self.explain_matrices(&grouped);
        self.explain_matrices(&others);
        for (candidate, observed) in &unexplained {
            if !self.is_explained(candidate) {
                self.miss(candidate, observed);
            }
        }
    }

    /// Keeps the roots of what these values are as matrices.
    fn explain_matrices(&mut self, candidates: &[Candidate]) {
        for candidate in candidates {
            if let Some(observed) = self.observe(candidate, OperatorKind::MatrixSqrt) {
                self.explain(candidate, &observed, OperatorKind::MatrixSqrt, &[]);
            }
        }
    }

    /// Keeps the layers among the regions that follow from these values as feature maps. Returns the regions that hold none.
    fn explain_features<'c>(&mut self, candidates: &'c [Candidate]) -> Vec<(&'c Candidate, Observed)> {
        let mut unexplained: Vec<(&Candidate, Observed)> = Vec::new();
        for candidate in candidates {
            let Some(observed) = self.observe(candidate, OperatorKind::IsqrtCov) else { continue };
            // Several layers may read one value.
            let mut layers = 0;
            while !self.is_explained(candidate)
                && self.explain(candidate, &observed, OperatorKind::IsqrtCov, &unexplained)
            {
                layers += 1;
            }
            if layers == 0 && self.lost(candidate, &observed) {
                continue;
            }
            if layers > 0 {
                self.explain_beside(candidate, &observed);
            } else {
                unexplained.push((candidate, observed));
            }
        }
        // A whole layer may follow from what is only scaled in front of it.
        unexplained.retain(|(candidate, observed)| {
            let explained = !self.is_explained(candidate) && self.explain_within(candidate, observed);
            if explained {
                self.explain_beside(candidate, observed);
            }
            !explained
        });
        for (candidate, observed) in &unexplained {
            if !self.is_explained(candidate) {
                self.explain(candidate, observed, OperatorKind::CovariancePooling, &unexplained);
            }
        }
        unexplained
    }

    /// The place that a finding is in.
    pub fn place_of(&self, found: &Found) -> Option<usize> {
        self.places.iter().position(|place| place.scope == found.scope)
    }
}
