//! How far a model is from itself in float64: what rounding alone does to its outputs, before anything is converted.

use anyhow::{Result, ensure};
use isqrt_cov_proto::onnx::ModelProto;

use super::report::number;
use super::tolerance::{MARGIN, of};
use super::{Accuracy, Difference, Pair, Proof};
use crate::evaluate::{Evaluator, Precision};
use crate::tensor::{ElementType, Tensor};

/// Seeds of the inputs that models are compared on in float64.
const SEEDS: u64 = 2;
/// The greatest difference in float64 that counts as equal: what folding loses at 2⁻⁵³, amplified as much as what moves the
/// outputs by rounding to float32 at 2⁻²⁴. Another function would be amplified as well.
const EQUAL: f64 = 1e-4;

impl Pair<'_> {
    /// max|Δ| / max|output| between the reference in the runtime and the same evaluated in float64, on random inputs.
    ///
    /// # Errors
    /// A model that does not run.
    pub fn rounding(&self) -> Result<f64> {
        self.distance(|inputs, shapes| self.runtime.prepare(self.reference, shapes)?.run(inputs))
    }

    /// The same between the reference and the candidate, both evaluated in float64.
    ///
    /// # Errors
    /// A model that cannot be evaluated.
    pub fn distance_in_float64(&self) -> Result<f64> {
        self.distance(|inputs, _| self.in_float64(self.candidate, inputs))
    }

    /// How far what `other` gives is from the reference in float64.
    fn distance(&self, other: impl Fn(&[Tensor], &[Vec<usize>]) -> Result<Vec<Tensor>>) -> Result<f64> {
        let shapes = &self.common()?.shapes;
        let extent = self.extents(shapes)?[0];
        let batch = if shapes.open_batch() { 2 } else { shapes.fixed_batch() };
        let sized = shapes.sized(batch, extent);
        let mut most: f64 = 0.0;
        for seed in 1..=SEEDS {
            let inputs = shapes.random(&sized, seed);
            let exact = self.in_float64(self.reference, &inputs)?;
            let found = other(&inputs, &sized)?;
            ensure!(found.len() == exact.len(), "the models have different numbers of outputs");
            for (found, exact) in found.iter().zip(&exact) {
                let wide =
                    |tensor: &Tensor| Tensor::from_f64(ElementType::F64, tensor.dims(), &tensor.to_f64());
                let mut difference = Difference::new();
                difference.add(&wide(exact), &wide(found), "float64");
                most = most.max(difference.max);
            }
        }
        Ok(most)
    }

    fn in_float64(&self, model: &ModelProto, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        Evaluator::new(model, Precision::Exact, Some(self.runtime))?.run(inputs)
    }
}

impl Proof {
    /// Judges again where the original rounds more than its types say, since its layers amplify it: by `own` it is from
    /// float64, and a converted model, which rounds otherwise, cannot be nearer to it than that.
    ///
    /// Up to what counts as equal in float16 the tolerance is raised. Beyond that the outputs decide nothing, and what does
    /// are the models in float64, which are `apart`, and each layer's errors where it stands (`accuracies`).
    pub fn allow_amplification(&mut self, own: f64, apart: f64, accuracies: &[Result<Accuracy, String>]) {
        let allowed = MARGIN * own;
        // No rounding makes a number of a NaN, and what is no number proves nothing.
        let lone = self.outputs.iter().any(|(_, difference)| difference.lone > 0);
        let any = self.outputs.iter().any(|(_, difference)| difference.finite > 0);
        if !self.complete || allowed <= self.tolerance || !own.is_finite() || lone || !any {
            return;
        }
        self.float64_error = Some(apart);
        self.notes.push(format!(
            "the network amplifies rounding: in standard operators, as trained, it is itself {} from float64 on these inputs",
            number(own)
        ));
        let layers_are_true = accuracies.iter().all(|accuracy| {
            accuracy.as_ref().is_ok_and(|accuracy| accuracy.after.max <= of(ElementType::F32))
        });
        if apart > EQUAL || !layers_are_true {
            return;
        }
        if allowed <= of(ElementType::F16) {
            self.tolerance = allowed;
            self.judge();
        } else {
            self.failure = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tolerance and whether a proof passes, of float32 models whose outputs differ by `max`: the original is `own` from float64,
    /// both are `apart` there, and the converted layer is `after` from the truth.
    fn judged(max: f64, own: f64, apart: f64, after: f64) -> (f64, bool) {
        let mut proof = Proof::example(vec![("y".to_owned(), Difference::example(max))]);
        proof.judge();
        // That the original's layer is far off is no fault of the converted one's.
        let accuracy = Accuracy {
            before: Difference::example(0.1),
            after: Difference::example(after),
            ..Accuracy::default()
        };
        proof.allow_amplification(own, apart, &[Ok(accuracy)]);
        assert_eq!(proof.float64_error.is_some(), !proof.notes.is_empty());
        (proof.tolerance, proof.failure.is_none())
    }

    #[test]
    fn what_the_original_rounds_counts_as_equal_where_float64_shows_the_same_function() {
        let (tolerance, passes) = judged(3e-3, 1e-3, 1e-6, 1e-6);
        assert!((tolerance / 4e-3 - 1.0).abs() < 1e-12 && passes);
        assert_eq!(judged(3e-3, 1e-5, 1e-6, 1e-6), (1e-4, false), "no rounding explains that");
        assert_eq!(judged(3e-3, 1e-3, 2e-4, 1e-6), (1e-4, false), "another function");
        assert_eq!(judged(3e-3, 1e-3, 1e-6, 2e-4), (1e-4, false), "a layer that is not true");
        let (tolerance, passes) = judged(6e-3, 1e-3, 1e-6, 1e-6);
        assert!((tolerance / 4e-3 - 1.0).abs() < 1e-12 && !passes, "more than rounding explains");
        // Where the outputs are rounding alone, float64 and the layers decide, and no tolerance grows.
        assert_eq!(judged(0.5, 1.0, 1e-6, 1e-6), (1e-4, true));
        assert_eq!(judged(0.5, 1.0, 2e-4, 1e-6), (1e-4, false));
        assert_eq!(judged(0.5, 1.0, 1e-6, 2e-4), (1e-4, false));
    }

    #[test]
    fn what_did_not_run_is_not_excused() {
        let failure = Some("it broke".to_owned());
        let example = Proof::example(vec![("y".to_owned(), Difference::example(0.0))]);
        let mut proof = Proof { failure: failure.clone(), complete: false, ..example };
        proof.allow_amplification(1.0, 0.0, &[]);
        assert_eq!((proof.failure, proof.notes.len()), (failure, 0));
        // Nor is a NaN on one side alone, or on both throughout.
        for (expected, found) in [(1.0, f64::NAN), (f64::NAN, 1.0), (f64::NAN, f64::NAN)] {
            let mut difference = Difference::new();
            let [expected, found] =
                [expected, found].map(|value| Tensor::from_f64(ElementType::F32, &[1], &[value]));
            difference.add(&expected, &found, "a run");
            let mut proof = Proof::example(vec![("y".to_owned(), difference)]);
            proof.judge();
            proof.allow_amplification(1.0, 0.0, &[]);
            assert!(proof.failure.is_some() && proof.notes.is_empty());
        }
        let mut proof = Proof::example(vec![("y".to_owned(), Difference::example(3e-3))]);
        proof.judge();
        proof.allow_amplification(f64::INFINITY, 0.0, &[]);
        assert!(proof.failure.is_some());
        // Nor is a layer that could not be measured a true one.
        let mut proof = Proof::example(vec![("y".to_owned(), Difference::example(3e-3))]);
        proof.judge();
        proof.allow_amplification(1e-3, 0.0, &[Err("too large".to_owned())]);
        assert!(proof.failure.is_some());
    }
}
