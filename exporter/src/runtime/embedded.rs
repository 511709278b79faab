//! The runtime that is built in: tract, and our own evaluator for what tract does not take.

use std::rc::Rc;
use std::sync::Arc;

use anyhow::{Error, Result};
use isqrt_cov_proto::onnx::{GraphProto, ModelProto, TensorProto};

use super::tract::Tract;
use super::{Runtime, Session};
use crate::evaluate::{Evaluator, Precision, Sessions};
use crate::tensor::Tensor;

/// Nodes beyond which a model counts as large: the time that tract takes to prepare a graph grows with the square of
/// its nodes.
const MANY_NODES: usize = 512;

/// Bytes of weights beyond which a model counts as large: tract needs them three times over to prepare a graph.
const MANY_BYTES: usize = 128 << 20;

/// Nodes beyond which tract would take hours.
const TOO_MANY_NODES: usize = 4096;

/// tract for whole models. Large ones, and those that tract cannot run, are evaluated node by node, with tract for the
/// larger convolutions and what else the evaluator leaves to a runtime: time and memory then grow no faster than the
/// model, and nothing needs to be installed.
#[derive(Default)]
pub struct Embedded {
    tract: Arc<Tract>,
}

impl Embedded {
    /// The runtime, ready to load models.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Runtime for Embedded {
    fn name(&self) -> String {
        self.tract.name()
    }

    fn advice(&self) -> &'static str {
        " (try ONNX Runtime: --runtime ort --onnxruntime PATH)"
    }

    fn prepare(&self, model: &Arc<ModelProto>, shapes: &[Vec<usize>]) -> Result<Box<dyn Session>> {
        let by_node =
            ByNode { model: Arc::clone(model), tract: Arc::clone(&self.tract), sessions: Rc::default() };
        if is_large(model) {
            return Ok(Box::new(Large { by_node, shapes: shapes.to_vec() }));
        }
        match self.tract.prepare(model, shapes) {
            Ok(session) => Ok(Box::new(Whole { session, by_node })),
            Err(error) => Ok(Box::new(Parts { by_node, error })),
        }
    }
}

/// Whether tract would take too long or too much memory to prepare a model.
fn is_large(model: &ModelProto) -> bool {
    let nodes = node_count(model);
    nodes > MANY_NODES || model.graph.as_ref().is_some_and(|graph| weight_bytes(graph) > MANY_BYTES)
}

fn node_count(model: &ModelProto) -> usize {
    model.graph.as_ref().map_or(0, |graph| graph.node.len())
}

/// Bytes of weights, however they are stored.
fn weight_bytes(graph: &GraphProto) -> usize {
    let constants = graph.node.iter().filter(|node| node.is("Constant")).flat_map(|node| &node.attribute);
    let tensors = graph.initializer.iter().chain(constants.filter_map(|attribute| attribute.t.as_ref()));
    let bytes = |tensor: &TensorProto| {
        let fours = tensor.float_data.len() + tensor.int32_data.len();
        let eights = tensor.double_data.len() + tensor.int64_data.len() + tensor.uint64_data.len();
        tensor.raw_data().len() + 4 * fours + 8 * eights
    };
    tensors.map(bytes).sum()
}

/// A model that tract is spared.
struct Large {
    by_node: ByNode,
    shapes: Vec<Vec<usize>>,
}

impl Session for Large {
    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let ByNode { model, tract, .. } = &self.by_node;
        self.by_node.run(inputs).or_else(|own| {
            if node_count(model) > TOO_MANY_NODES {
                return Err(own);
            }
            let whole = tract.prepare(model, &self.shapes).and_then(|session| session.run(inputs));
            whole.map_err(|error| refused(own, &error))
        })
    }

    fn is_by_node(&self) -> bool {
        true
    }
}

/// A model that tract has taken. Some it takes and does not run.
struct Whole {
    session: Box<dyn Session>,
    by_node: ByNode,
}

impl Session for Whole {
    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let whole = self.session.run(inputs);
        whole.or_else(|error| self.by_node.run(inputs).map_err(|own| error.context(format!("{own:#}"))))
    }
}

/// A model that tract has refused.
struct Parts {
    by_node: ByNode,
    error: Error,
}

impl Session for Parts {
    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        self.by_node.run(inputs).map_err(|own| refused(own, &self.error))
    }

    fn is_by_node(&self) -> bool {
        true
    }
}

/// Why a model runs neither node by node nor in tract.
fn refused(own: Error, tract: &Error) -> Error {
    own.context(format!("tract does not run the model: {tract:#}"))
}

struct ByNode {
    model: Arc<ModelProto>,
    tract: Arc<Tract>,
    sessions: Rc<Sessions>,
}

impl ByNode {
    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let evaluator = Evaluator::new(&self.model, Precision::Declared, Some(&*self.tract))?;
        evaluator.with_sessions(&self.sessions).run(inputs)
    }
}
