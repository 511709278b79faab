//! The proof of a converted model: that it computes the same function, with the operators and with their bodies.

use std::sync::Arc;

use anyhow::Result;
use isqrt_cov_proto::onnx::ModelProto;

use super::layers::fused;
use crate::expand;
use crate::functions::{Fault, faults};
use crate::progress::Progress;
use crate::proof::{Accuracy, Plan, Proof, Remembered, compare, parting, truth};
use crate::recognize::Found;
use crate::runtime::Runtime;

/// A converted model, and what it is to be proven with.
pub struct Proving<'a> {
    /// What it should compute.
    pub reference: &'a Arc<ModelProto>,
    /// The model as the file holds it.
    pub written: &'a Arc<ModelProto>,
    /// Its layers.
    pub layers: &'a [Found],
    /// Where both run.
    pub runtime: &'a dyn Runtime,
    /// Whether the runtime knows the operators.
    pub runs_operators: bool,
    /// Whether the file has the operators' bodies.
    pub with_function: bool,
    /// How far the proof has come.
    pub progress: &'a Progress,
}

impl Proving<'_> {
    /// Proves the model, and measures its layers against float64. The plan's tolerance is settled.
    ///
    /// # Errors
    /// A reference that does not run.
    pub fn run(&self, plan: &mut Plan) -> Result<(Proof, Vec<Result<Accuracy, String>>)> {
        let Self { reference, written, layers, progress, .. } = *self;
        let runtime = &Remembered::new(self.runtime, reference);
        let mut proof = compare(reference, written, runtime, plan, progress)?;
        progress.spin("measuring against float64");
        let accuracies = truth(reference, written, layers, runtime, plan, &proof);
        progress.end();
        if plan.tolerance.is_none() {
            proof.allow_rounding(layers, &accuracies);
            plan.tolerance = Some(proof.tolerance);
        }
        if let Some(failure) = &mut proof.failure {
            let place = parting(reference, written, layers, runtime, plan);
            failure.extend(place.into_iter().flat_map(|place| ["; ".to_owned(), place]));
        } else if !self.runs_operators {
            let note = "the function bodies ran, not the operators: no operator library was found".to_owned();
            proof.notes.push(note);
        } else if self.with_function && !layers.is_empty() {
            // Only the operators have run so far; where the library is absent, their bodies will.
            let expanded = Arc::new(expand::inline(written)?);
            let once = Plan { seeds: 1, samples: None, ..plan.clone() };
            proof.join_body(&compare(reference, &expanded, runtime, &once, progress)?);
        }
        if self.with_function && proof.failure.is_none() {
            // The functions as the file has them, of which the last comparison had the arithmetic only.
            let fault = faults(written, &fused(written)).into_iter().find(Fault::is_of_function);
            proof.failure = fault.map(|fault| fault.to_string());
        }
        Ok((proof, accuracies))
    }
}
