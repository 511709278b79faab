//! How long original and converted model run, on inputs of the proof.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Pair, Proof};
use crate::latency::{Timed, in_turns};

/// Seconds that measuring may take, beside one round to warm up.
const BUDGET: f64 = 2.0;
/// Rounds that are enough for a median.
const ROUNDS: usize = 31;

/// Medians of the two models, run in turns.
#[derive(Debug, Clone)]
pub struct Latency {
    /// The runtime's name and version.
    pub runtime: String,
    /// Shapes of the inputs.
    pub inputs: Vec<Vec<usize>>,
    /// Rounds measured of each model.
    pub rounds: usize,
    /// Median time of a run of the original, in milliseconds.
    pub before: f64,
    /// The same of the converted model.
    pub after: f64,
}

impl Latency {
    /// The times as a JSON object.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "runtime": self.runtime,
            "inputs": self.inputs,
            "rounds": self.rounds,
            "before_ms": self.before,
            "after_ms": self.after,
        })
    }
}

impl Pair<'_> {
    /// Measures both models in the first shape of `proof`, for about two seconds.
    ///
    /// # Errors
    /// What the runtime reports.
    pub fn latency(&self, proof: &Proof) -> Result<Latency> {
        let case = proof.cases.first().context("the proof ran nothing")?;
        let common = self.common()?;
        let inputs = common.shapes.random(&case.shapes, 1);
        let fed = common.fed(&inputs);
        let mut timed = [
            Timed::new(self.runtime.prepare(self.reference, &case.shapes)?, inputs)?,
            Timed::new(self.runtime.prepare(self.candidate, &common.fed(&case.shapes))?, fed)?,
        ];
        let affordable = |seconds: f64| ((BUDGET / seconds.max(1e-9)) as usize).clamp(1, ROUNDS);
        let rounds = in_turns(&mut timed, 1, affordable, || ())?;
        let [before, after] = timed.each_ref().map(|model| 1e3 * model.quantile(0.5));
        Ok(Latency { runtime: self.runtime.name(), inputs: case.shapes.clone(), rounds, before, after })
    }
}
