//! The runtime that is built in: tract, and our own evaluator for what tract does not take.

use std::sync::Arc;

use anyhow::Result;
use isqrt_cov_proto::onnx::ModelProto;

use super::tract::Tract;
use super::{Runtime, Session};
use crate::evaluate::{Evaluator, Precision};
use crate::tensor::Tensor;

/// tract for whole models. One that it cannot run is evaluated node by node, with tract for the convolutions and what
/// else the evaluator leaves to a runtime: slower, but nothing needs to be installed.
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

    fn prepare(&self, model: &ModelProto, shapes: &[Vec<usize>]) -> Result<Box<dyn Session>> {
        let by_node = || ByNode { model: model.clone(), tract: Arc::clone(&self.tract) };
        match self.tract.prepare(model, shapes) {
            Ok(session) => Ok(Box::new(Whole { session, by_node: by_node() })),
            Err(error) => Ok(Box::new(Parts { by_node: by_node(), error })),
        }
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
    error: anyhow::Error,
}

impl Session for Parts {
    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        self.by_node
            .run(inputs)
            .map_err(|own| own.context(format!("tract does not run the model: {:#}", self.error)))
    }

    fn is_by_node(&self) -> bool {
        true
    }
}

struct ByNode {
    model: ModelProto,
    tract: Arc<Tract>,
}

impl ByNode {
    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        Evaluator::new(&self.model, Precision::Declared, Some(&*self.tract))?.run(inputs)
    }
}
