//! Evaluates ONNX graphs, to know what a part of one computes.
//!
//! A runtime is made to be fast and refuses what it does not know; this is made to take a covariance layer in whatever
//! operators, subgraphs and functions an exporter wrote it, and to compute in float64 throughout. Operators that no
//! such layer holds (poolings, resizing) are left to a [`Runtime`], one node at a time.

mod call;
mod control;
mod convolution;
mod einsum;
mod elementwise;
mod fallback;
mod indexing;
mod layer;
mod layout;
mod logic;
mod matrix;
mod normalization;
mod order;
mod plan;
mod reduction;
mod run;
mod scatter;
mod sequence;
mod slice;
mod table;
#[cfg(test)]
mod tests;
mod unary;
mod unique;
mod value;
mod weights;

use std::collections::HashMap;
use std::rc::Rc;

use anyhow::{Context, Result};
use isqrt_cov_proto::FunctionKey;
use isqrt_cov_proto::onnx::{ModelProto, TensorProto};

use crate::fused::standard_opset;
use crate::runtime::Runtime;
use crate::scope::Scope;
use crate::tensor::{ElementType, Tensor};
use fallback::Fallback;
use plan::{Decoded, Plan};
use run::Run;

pub use fallback::Sessions;
pub(crate) use layer::multiplications;

/// How numbers are rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// Everything floating-point in float64; casts between floating-point types round nothing. For recognition: what
    /// function is computed. Only what is left to a runtime, the largest convolutions among it, is rounded there.
    Exact,
    /// Each node's result is rounded to its declared element type. For proofs. Convolutions and products with large weights
    /// are computed in float32 unless float64 is declared, the project's own operators by the plugin's CPU kernels,
    /// everything else in float64.
    Declared,
}

/// Sees values as they are made.
pub trait Watcher {
    /// Whether this value is worth making a tensor of.
    fn wants(&self, scope: &Scope, name: &str) -> bool;

    /// A value has been made: an input or a node's output, in any graph or function body, each time that it is made.
    fn saw(&mut self, scope: &Scope, name: &str, value: &Tensor, declared: ElementType);
}

/// A model, ready to be evaluated.
pub struct Evaluator<'a> {
    precision: Precision,
    fallback: Option<Fallback<'a>>,
    decoded: Decoded,
    main: Plan<'a>,
    opset: i64,
    functions: Vec<Function<'a>>,
    /// By domain, name and overload.
    by_key: HashMap<FunctionKey<'a>, usize>,
    model: &'a ModelProto,
    /// Elements of the main graph's initializers.
    weights: usize,
}

struct Function<'a> {
    body: Plan<'a>,
    opset: i64,
}

impl<'a> Evaluator<'a> {
    /// Reads the data flow of `model`, whose tensors are all inline. Operators that are not known here go to `fallback`.
    ///
    /// # Errors
    /// A model without a graph, graphs that are nested too deep, two values of one name.
    pub fn new(
        model: &'a ModelProto,
        precision: Precision,
        fallback: Option<&'a dyn Runtime>,
    ) -> Result<Self> {
        let graph = model.graph.as_ref().context("the model has no graph")?;
        Self::of(model, Plan::of_graph(graph)?, precision, fallback)
    }

    /// The same, with values of the main graph as its only outputs: what is not needed for them is not evaluated.
    ///
    /// # Errors
    /// As for [`Evaluator::new`].
    pub fn showing(
        model: &'a ModelProto,
        values: &'a [String],
        precision: Precision,
        fallback: Option<&'a dyn Runtime>,
    ) -> Result<Self> {
        let graph = model.graph.as_ref().context("the model has no graph")?;
        Self::of(model, Plan::showing(graph, values)?, precision, fallback)
    }

    fn of(
        model: &'a ModelProto,
        main: Plan<'a>,
        precision: Precision,
        fallback: Option<&'a dyn Runtime>,
    ) -> Result<Self> {
        let opset = standard_opset(&model.opset_import);
        let mut functions = Vec::with_capacity(model.functions.len());
        let mut by_key = HashMap::new();
        for (index, function) in model.functions.iter().enumerate() {
            let body = Plan::of_function(function, index)
                .with_context(|| format!("function {}:{}", function.domain(), function.name()))?;
            let own = standard_opset(&function.opset_import);
            functions.push(Function { body, opset: if own == 0 { opset } else { own } });
            by_key.insert(function.key(), index);
        }
        let fallback = fallback.map(Fallback::new);
        let decoded = Decoded::default();
        let count = |tensor: &TensorProto| {
            let dims = tensor.dims.iter().map(|&dim| usize::try_from(dim).unwrap_or(0));
            dims.fold(1, usize::saturating_mul)
        };
        let weights =
            model.graph.iter().flat_map(|graph| &graph.initializer).map(count).fold(0, usize::saturating_add);
        Ok(Self { precision, fallback, decoded, main, opset, functions, by_key, model, weights })
    }

    /// Uses what earlier evaluators of this very model, at this very place in memory, have made ready, and keeps there
    /// what it makes ready itself.
    #[must_use]
    pub fn with_sessions(mut self, sessions: &Rc<Sessions>) -> Self {
        if let Some(fallback) = &mut self.fallback {
            fallback.sessions = Rc::clone(sessions);
        }
        self
    }

    /// Evaluates the model: `inputs` are in the order of `graph.input`, initializers left out, the results in that of
    /// `graph.output`. With [`Precision::Exact`] floating-point numbers of any type go in, and float64 comes out.
    ///
    /// # Errors
    /// A node that cannot be evaluated.
    pub fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        Run::new(self, None).main(inputs)
    }

    /// Evaluates the model and shows `watcher` every value that is made on the way. Both branches of an `If` are
    /// evaluated; errors in the one that is not taken are ignored.
    ///
    /// # Errors
    /// A node that cannot be evaluated.
    pub fn watch(&self, inputs: &[Tensor], watcher: &mut dyn Watcher) -> Result<Vec<Tensor>> {
        Run::new(self, Some(watcher)).main(inputs)
    }
}
