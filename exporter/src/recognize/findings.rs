//! What is found in a model: layers, what looks like one and is none, and layers that an exporter broke.

use std::collections::HashSet;

use isqrt_cov_op::{Layer, Normalization, Vectorization};

use crate::found::{Found, Origin};
use crate::scope::Scope;
use crate::tensor::ElementType;

/// What was found in a model.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    /// Regions that compute an operator, in graph order; they do not overlap.
    pub layers: Vec<Found>,
    /// Regions that look like a layer and are none, with what differs.
    pub misses: Vec<Miss>,
    /// Layers whose iteration the exporter dropped.
    pub lost: Vec<Lost>,
    /// Why not all of the model could be evaluated, so that there may be more than was found.
    pub not_evaluated: Option<String>,
}

impl Findings {
    /// Leaves one reason for each value that is no layer's: that of the region which begins first. A layer may have such a value as well, as
    /// the output of a smaller region.
    pub(super) fn say_once(&mut self) {
        let mut said = HashSet::new();
        self.misses.retain(|miss| said.insert((miss.scope.clone(), miss.output.clone())));
    }
}

/// A region that looks like a layer but computes something else.
#[derive(Debug, Clone)]
pub struct Miss {
    /// The graph that it is in.
    pub scope: Scope,
    /// The value that the region reads.
    pub input: String,
    /// The value nearest to a layer's output.
    pub output: String,
    /// The closest operator, if any comes near.
    pub closest: Option<Layer>,
    /// max|Δ| / max|reference| of the closest.
    pub error: f64,
    /// What evaluated the region.
    pub evaluator: String,
    /// What differs, for people.
    pub reason: String,
}

impl Miss {
    /// What was recognized as a layer and is none.
    pub(super) fn of(found: Found, reason: String) -> Option<Self> {
        let Origin::Recognized(recognition) = found.origin else { return None };
        Some(Self {
            scope: found.scope,
            input: found.input,
            output: found.output,
            closest: Some(found.layer),
            error: recognition.evidence.error,
            evaluator: recognition.evaluator,
            reason,
        })
    }
}

/// A layer whose iteration is gone.
#[derive(Debug, Clone)]
pub struct Lost {
    /// The graph that it was in.
    pub scope: Scope,
    /// The same for people; nothing for the main graph.
    pub within: String,
    /// The feature map that the layer read.
    pub input: String,
    /// The constant value that stands where the layer's output was.
    pub output: String,
    /// The evidence, for people.
    pub reason: String,
    /// Where the layer can be put back; none where nothing of it is left.
    pub hole: Option<Hole>,
}

/// What stands where a layer was: enough to put one back.
#[derive(Debug, Clone)]
pub struct Hole {
    /// The covariance that is left of the layer.
    pub covariance: Layer,
    /// Element type of input and output.
    pub element: ElementType,
    /// A shape of the input.
    pub input_dims: Vec<usize>,
    /// The output's shape then.
    pub output_dims: Vec<usize>,
    /// What the covariance was divided by, where the compensation tells it.
    pub normalization: Option<Normalization>,
    /// The order of the triangle, where constant indices tell it.
    pub order: Option<Vectorization>,
    /// Indices, among the nodes of its graph, of the nodes that only this region needs.
    pub nodes: Vec<usize>,
}
