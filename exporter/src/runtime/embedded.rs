//! The runtime that is built in: tract, and our own evaluator for what tract does not take.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Weak};

use anyhow::Result;
use isqrt_cov_proto::onnx::{GraphProto, ModelProto, TensorProto, ValueInfoProto};

use super::tract::Tract;
use super::{Runtime, Session, showing};
use crate::evaluate::{Evaluator, Precision, Sessions};
use crate::signature::Signature;
use crate::tensor::Tensor;

/// Nodes beyond which a model counts as large: the time that tract takes to prepare a graph grows with the square of
/// its nodes.
const MANY_NODES: usize = 512;

/// Bytes of weights beyond which a model counts as large: tract needs them three times over to prepare a graph.
const MANY_BYTES: usize = 128 << 20;

/// tract for whole models. Large ones, and those that tract cannot run, are evaluated node by node, with tract for the
/// larger convolutions and what else the evaluator leaves to a runtime: time and memory then grow no faster than the
/// model, and nothing needs to be installed.
#[derive(Default)]
pub struct Embedded {
    tract: Arc<Tract>,
    /// Whether the evaluator, which makes no more than it may, has run a model to its end on inputs of these shapes.
    bounded: RefCell<Vec<Bounded>>,
}

struct Bounded {
    model: Weak<ModelProto>,
    shapes: Vec<Vec<usize>>,
    ended: bool,
}

impl Embedded {
    /// The runtime, ready to load models.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn by_node(&self, model: &Arc<ModelProto>, shown: Option<Vec<String>>) -> ByNode {
        let (model, tract) = (Arc::clone(model), Arc::clone(&self.tract));
        ByNode { model, tract, sessions: Rc::default(), shown }
    }

    /// Whether a model may be given to tract, which makes tensors of any size, some of them while it reads the model.
    fn is_bounded(&self, model: &Arc<ModelProto>, by_node: &ByNode, shapes: &[Vec<usize>]) -> bool {
        let mut known = self.bounded.borrow_mut();
        known.retain(|known| known.model.strong_count() > 0);
        let is_same = |known: &&Bounded| known.model.as_ptr() == Arc::as_ptr(model) && known.shapes == shapes;
        if let Some(known) = known.iter().find(is_same) {
            return known.ended;
        }
        let inputs = Signature::of(model).ok().and_then(|signature| {
            let inputs = signature.inputs.iter().zip(shapes);
            inputs.map(|(port, dims)| Some(Tensor::zeros(port.element?, dims))).collect::<Option<Vec<_>>>()
        });
        let ended = inputs.is_some_and(|inputs| by_node.run(&inputs).is_ok());
        known.push(Bounded { model: Arc::downgrade(model), shapes: shapes.to_vec(), ended });
        ended
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
        let by_node = self.by_node(model, None);
        if is_large(model) || !self.is_bounded(model, &by_node, shapes) {
            return Ok(Box::new(by_node));
        }
        Ok(match self.tract.prepare(model, shapes) {
            Ok(whole) => Box::new(Whole { whole, by_node }),
            Err(_) => Box::new(by_node),
        })
    }

    fn prepare_showing(
        &self,
        model: &Arc<ModelProto>,
        values: &[ValueInfoProto],
        shapes: &[Vec<usize>],
    ) -> Result<Box<dyn Session>> {
        if !is_large(model) {
            return self.prepare(&Arc::new(showing(model, values)), shapes);
        }
        // Without a copy of the model.
        let names = values.iter().map(|value| value.name().to_owned()).collect();
        Ok(Box::new(self.by_node(model, Some(names))))
    }
}

/// Whether tract would take too long or too much memory to prepare a model.
fn is_large(model: &ModelProto) -> bool {
    let large = |graph: &GraphProto| graph.node.len() > MANY_NODES || weight_bytes(graph) > MANY_BYTES;
    model.graph.as_ref().is_some_and(large)
}

/// Bytes of weights, however they are stored.
fn weight_bytes(graph: &GraphProto) -> usize {
    let constants = graph.node.iter().filter(|node| node.is("Constant")).flat_map(|node| &node.attribute);
    let tensors = graph.initializer.iter().chain(constants.filter_map(|attribute| attribute.t.as_deref()));
    let bytes = |tensor: &TensorProto| {
        let fours = tensor.float_data.len() + tensor.int32_data.len();
        let eights = tensor.double_data.len() + tensor.int64_data.len() + tensor.uint64_data.len();
        tensor.raw_data().len() + 4 * fours + 8 * eights
    };
    tensors.map(bytes).sum()
}

/// A model that tract has taken. Some it takes and does not run.
struct Whole {
    whole: Box<dyn Session>,
    by_node: ByNode,
}

impl Session for Whole {
    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let whole = self.whole.run(inputs);
        whole.or_else(|error| self.by_node.run(inputs).map_err(|own| error.context(format!("{own:#}"))))
    }
}

/// A model that tract is spared, or has refused.
struct ByNode {
    model: Arc<ModelProto>,
    tract: Arc<Tract>,
    sessions: Rc<Sessions>,
    /// The values that are its outputs, where they are others than the model says.
    shown: Option<Vec<String>>,
}

impl Session for ByNode {
    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let runtime = Some(&*self.tract as &dyn Runtime);
        let evaluator = match &self.shown {
            None => Evaluator::new(&self.model, Precision::Declared, runtime)?,
            Some(names) => Evaluator::showing(&self.model, names, Precision::Declared, runtime)?,
        };
        evaluator.with_sessions(&self.sessions).run(inputs)
    }

    fn is_by_node(&self) -> bool {
        true
    }
}
