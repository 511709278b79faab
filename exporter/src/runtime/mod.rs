//! Runtimes that evaluate models: one that is built in, around tract; ONNX Runtime, loaded where the user has one.

pub mod embedded;
pub mod ort;
pub mod processor;
pub mod tract;
mod version;

use std::sync::Arc;

use anyhow::Result;
use isqrt_cov_proto::onnx::{ModelProto, ValueInfoProto};

use crate::tensor::Tensor;

/// What is wrong with a model or with what it is given, whatever evaluates it.
#[derive(Debug, thiserror::Error)]
pub enum Mistake {
    /// What is wrong, for people.
    #[error("{0}")]
    Said(String),
    /// A value that does not fill the shape that it is to have, all of whose sizes are given.
    #[error("{from:?} cannot become {to:?}")]
    Shape {
        /// Its own shape.
        from: Vec<usize>,
        /// The other one.
        to: Vec<usize>,
    },
}

/// What else to try where `runtime` came to `error`; nothing where that is none of the runtime's.
#[must_use]
pub fn advice(runtime: &dyn Runtime, error: &anyhow::Error) -> &'static str {
    if error.is::<Mistake>() { "" } else { runtime.advice() }
}

/// Something that evaluates ONNX models.
pub trait Runtime {
    /// The runtime's name and version, for reports.
    fn name(&self) -> String;

    /// What else to try where this runtime does not run a model, as the end of a sentence: see [`advice`].
    fn advice(&self) -> &'static str {
        ""
    }

    /// Prepares `model`, whose tensors are all inline, for inputs of exactly these shapes (in the order of
    /// `graph.input`, initializers left out). The session may share it.
    ///
    /// # Errors
    /// A model that the runtime cannot load.
    fn prepare(&self, model: &Arc<ModelProto>, shapes: &[Vec<usize>]) -> Result<Box<dyn Session>>;

    /// The same, with `values` of the main graph as its only outputs.
    ///
    /// # Errors
    /// A model that the runtime cannot load.
    fn prepare_showing(
        &self,
        model: &Arc<ModelProto>,
        values: &[ValueInfoProto],
        shapes: &[Vec<usize>],
    ) -> Result<Box<dyn Session>> {
        self.prepare(&Arc::new(showing(model, values)), shapes)
    }
}

/// The model with other outputs.
fn showing(model: &ModelProto, values: &[ValueInfoProto]) -> ModelProto {
    let mut model = model.clone();
    if let Some(graph) = &mut model.graph {
        graph.output = values.to_vec();
    }
    model
}

/// A model that is ready to run.
pub trait Session {
    /// Evaluates the model: one tensor for each input in, one for each `graph.output` out, in the graph's order.
    ///
    /// # Errors
    /// What the runtime reports.
    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>>;

    /// Elements of the largest tensor that a run makes, so far as it is known before one.
    fn largest(&self) -> usize {
        0
    }

    /// Whether the model is evaluated node by node, since the runtime cannot run it whole.
    fn is_by_node(&self) -> bool {
        false
    }
}
