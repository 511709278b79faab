//! The proof of a converted model: that it computes the same function, with the operators and with their bodies; and what
//! comes of it.

use std::sync::Arc;

use anyhow::Result;
use isqrt_cov_proto::onnx::ModelProto;

use super::conversion::Converted;
use super::convert::Arguments;
use super::expected::{Apart, Limit};
use super::layers::{fused, node_count};
use crate::commands::answer::Refusal;
use crate::expand;
use crate::found::Found;
use crate::functions::{Fault, faults};
use crate::progress::Progress;
use crate::proof::{Accuracy, Pair, Plan, Proof, Remembered};
use crate::runtime::Runtime;

/// A converted model, and what it is to be proven with.
pub struct Proving<'a> {
    /// What the user asks for.
    pub arguments: &'a Arguments,
    /// What it should compute.
    pub reference: &'a Arc<ModelProto>,
    /// The model as the file holds it.
    pub written: &'a Arc<ModelProto>,
    /// Its layers.
    pub layers: &'a [Found],
    /// Where both run.
    pub runtime: &'a dyn Runtime,
    /// How far the proof has come.
    pub progress: &'a Progress,
}

impl Proving<'_> {
    /// Proves the model, and measures its layers against float64. The plan's tolerance is settled.
    ///
    /// # Errors
    /// A reference that does not run.
    pub fn run(&self, plan: &mut Plan) -> Result<(Proof, Vec<Result<Accuracy, String>>)> {
        let Self { arguments, reference, written, layers, progress, .. } = *self;
        let with_function = !arguments.no_function;
        let runtime = &Remembered::new(self.runtime, reference);
        let pair = Pair::of(reference, written, runtime, plan)?;
        let mut proof = pair.compare(plan, progress)?;
        progress.spin("measuring against float64");
        let accuracies = pair.truth(layers, plan, &proof);
        progress.end();
        if plan.tolerance.is_none() {
            proof.allow_rounding(layers, &accuracies);
            plan.tolerance = Some(proof.tolerance);
        }
        if let Some(failure) = &mut proof.failure {
            let place = pair.parting(layers, plan);
            failure.extend(place.into_iter().flat_map(|place| ["; ".to_owned(), place]));
        } else if !arguments.runtime.has_operators() {
            let note = "the function bodies ran, not the operators: no operator library was found".to_owned();
            proof.notes.push(note);
        } else if with_function && !layers.is_empty() {
            // Only the operators have run so far; where the library is absent, their bodies will.
            let expanded = Arc::new(expand::inline(written)?);
            let once = plan.in_short();
            let body = Pair::of(reference, &expanded, runtime, &once)?;
            proof.join_body(&body.compare(&once, progress)?);
        }
        if with_function && proof.failure.is_none() {
            // The functions as the file has them, of which the last comparison had the arithmetic only.
            let fault = faults(written, &fused(written)).into_iter().find(Fault::is_of_function);
            proof.failure = fault.map(|fault| fault.to_string());
        }
        Ok((proof, accuracies))
    }

    /// What is known of the model by its `proof`, and whether it is refused: its proof failed, or its outputs are not those that
    /// the user's data expect, with the likely `cause`. Without one that is only noted.
    pub fn conclude(
        &self,
        plan: &Plan,
        mut proof: Proof,
        accuracies: Vec<Result<Accuracy, String>>,
        cause: Option<&str>,
    ) -> (Converted, Option<Refusal>) {
        let Self { arguments, reference, written, runtime, progress, .. } = *self;
        let mut refusal = not_proven(&proof, "converted");
        if refusal.is_none()
            && let Some(apart) = Apart::of(&proof, self.limit(plan, &proof))
        {
            match cause.filter(|_| apart.is_too_far()) {
                Some(cause) => refusal = Some(apart.refusal(cause)),
                None => proof.notes.extend(apart.note()),
            }
        }
        let latency = arguments.report.as_ref().map(|_| {
            progress.spin("measuring the latency");
            let pair = Pair::of(reference, written, runtime, plan);
            let latency = pair.and_then(|pair| pair.latency(&proof));
            progress.end();
            latency.map_err(|error| format!("{error:#}"))
        });
        (Converted { nodes_after: node_count(written), proof, accuracies, latency }, refusal)
    }

    /// How far the outputs may be from those that the user's data expect.
    fn limit(&self, plan: &Plan, proof: &Proof) -> Limit {
        let Self { arguments, reference, written, layers, runtime, progress } = *self;
        let given = arguments.proof.tolerance;
        if !layers.iter().any(Found::is_put_back) {
            return Limit::usual(proof, given);
        }
        Limit::of_repair(proof, given, || {
            progress.spin("measuring what rounding does");
            let rounding = Pair::of(reference, written, runtime, plan).and_then(|pair| pair.rounding());
            progress.end();
            rounding
        })
    }
}

/// Why a model that was `made` of another, whose proof failed, is not written; nothing where it passed.
pub fn not_proven(proof: &Proof, made: &str) -> Option<Refusal> {
    proof.failure.as_ref().map(|failure| Refusal {
        reason: "proof-failed",
        message: format!(
            "the {made} model is not proven to compute the same function, and was not written: {failure}"
        ),
    })
}
