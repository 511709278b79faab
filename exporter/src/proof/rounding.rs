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
        if !self.complete || allowed <= self.tolerance {
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
