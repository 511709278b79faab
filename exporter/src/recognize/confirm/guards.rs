//! Comparisons with 0 inside of a region. They keep a divisor from 0 where what is compared is the trace of a layer's matrices, or
//! their norm: that is 0 only where there is nothing to take a root of, and there the operator gives 0.

use isqrt_cov_op::{Layer, OperatorKind, Vectorization, reference};

use super::blank::{Nothing, SAME, with_nothing};
use super::odd::Odd;
use crate::budget::spend;
use crate::evaluate::{Evaluator, Precision, multiplications};
use crate::graph::ValueId;
use crate::recognize::identify::Resolution;
use crate::recognize::identify::probed::extreme;
use crate::recognize::observe::subject::Subject;
use crate::recognize::probe::PROBES;
use crate::runtime::Runtime;
use crate::tensor::{ElementType, Tensor};

/// Powers of a trace that guards are made of.
const POWERS: [f64; 3] = [1.0, 0.5, 2.0];

/// Which of N samples are nothing.
type Pattern = fn(usize, usize) -> bool;

/// The first, the last, all but the first, and the first two.
const PATTERNS: [Pattern; 4] = [
    |sample, _| sample == 0,
    |sample, samples| sample + 1 == samples,
    |sample, samples| sample > 0 || samples == 1,
    |sample, _| sample < 2,
];

impl Subject<'_> {
    /// What is compared with 0 on the way to `output` though it is neither the trace nor the norm of what `layer` takes roots of,
    /// or not to the end that nothing comes of nothing. None where all that is compared keeps a divisor from 0.
    pub fn no_guard(&self, layer: &Layer, output: ValueId, runtime: &dyn Runtime) -> Option<ValueId> {
        let flow = &self.place.flow;
        let way = flow.between(self.input, output);
        let compared: Vec<ValueId> = flow
            .order
            .iter()
            .filter(|node| way.contains(node) && flow.compares_with_zero(**node))
            .flat_map(|&node| flow.data_reads(node))
            .collect();
        let first = *compared.first()?;
        if layer.operator == OperatorKind::CovariancePooling {
            return Some(first);
        }
        let no_size = compared.iter().find(|&&value| self.is_size(layer, value, runtime) != Some(true));
        let makes_something =
            || self.makes_something_of_nothing(layer, first, output, runtime) != Some(false);
        no_size.copied().or_else(|| makes_something().then_some(first))
    }

    /// Whether a value is a power of the trace or of the norm, one number a sample. None where it cannot be told.
    fn is_size(&self, layer: &Layer, value: ValueId, runtime: &dyn Runtime) -> Option<bool> {
        let dims = &self.dims()[..];
        let part = self.part(&[value]);
        let evaluator = Evaluator::new(&part, Precision::Exact, Some(runtime)).ok()?;
        let (mut values, mut all) = (Vec::new(), Vec::new());
        let ordinary = PROBES.iter().map(|probe| extreme(layer.operator, dims, probe));
        for input in ordinary.chain([Odd::Heavy, Odd::Dependent].map(|odd| odd.inputs(layer, dims))) {
            let output = evaluator.run(std::slice::from_ref(&input)).ok()?.pop()?;
            if output.dims().iter().product::<usize>() != dims[0] {
                return Some(false);
            }
            values.extend(output.to_f64());
            all.extend(sizes(layer, &input)?);
        }
        let tolerance = Resolution::exact(ElementType::F32).tolerance;
        let is_power = |size: usize, power: f64| {
            let ratio = |at: usize| values[at] / all[at][size].powf(power);
            let first = ratio(0);
            first != 0.0 && (0..values.len()).all(|at| (ratio(at) / first - 1.0).abs() <= tolerance)
        };
        Some(POWERS.iter().any(|&power| (0..2).any(|size| is_power(size, power))))
    }

    /// Whether numbers come of samples that have no matrix to take a root of, whose `size` is 0, or others of those beside them.
    /// None where it cannot be told.
    fn makes_something_of_nothing(
        &self,
        layer: &Layer,
        size: ValueId,
        output: ValueId,
        runtime: &dyn Runtime,
    ) -> Option<bool> {
        let dims = &self.dims()[..];
        let tolerance = Resolution::exact(self.seen.element).tolerance;
        // What is compared first: both come of one run.
        let part = self.part(&[size, output]);
        let evaluator = Evaluator::new(&part, Precision::Exact, Some(runtime)).ok()?;
        let alone = self.part(&[output]);
        for nothing in Nothing::of(layer) {
            for is_nothing in PATTERNS {
                let is_nothing = |sample: usize| is_nothing(sample, dims[0]);
                let input = with_nothing(layer, dims, *nothing, is_nothing);
                let outputs = evaluator.run(std::slice::from_ref(&input)).ok()?;
                let [size, output] = &outputs[..] else { return None };
                let numbers = self.own_output(output.clone()).to_f64();
                let each = (numbers.len() / dims[0]).max(1);
                let mut samples = size.to_f64().into_iter().zip(numbers.chunks_exact(each)).enumerate();
                let makes = samples.any(|(sample, (size, numbers))| {
                    // Constants that are rounded leave something of a mean.
                    let is_number = |number: &f64| number.is_finite() && number.abs() > SAME;
                    is_nothing(sample) && size == 0.0 && numbers.iter().any(is_number)
                });
                let others = self.distance_on(&alone, vec![input], layer, runtime);
                if makes || others.is_some_and(|distance| distance > tolerance) {
                    return Some(true);
                }
            }
        }
        Some(false)
    }
}

/// The trace and the norm of what a layer takes the root of, for each sample.
pub fn sizes(layer: &Layer, input: &Tensor) -> Option<Vec<[f64; 2]>> {
    let covariance = Layer {
        operator: OperatorKind::CovariancePooling,
        vectorization: Vectorization::None,
        off_diagonal_scale: 1.0,
        ..*layer
    };
    let dims = input.dims();
    let matrices = if layer.operator == OperatorKind::MatrixSqrt {
        input.to_f64()
    } else {
        let extent = covariance.extent(dims).ok()?;
        spend(&[extent.samples, multiplications(&covariance, extent) as usize]).ok()?;
        reference::evaluate(&covariance, &input.to_f64(), dims).ok()?
    };
    let elements = matrices.len() / dims[0];
    let side = elements.isqrt();
    let size = |matrix: &[f64]| {
        let trace: f64 = matrix.iter().step_by(side + 1).sum();
        [trace, matrix.iter().map(|entry| entry * entry).sum::<f64>().sqrt()]
    };
    Some(matrices.chunks_exact(elements).map(size).collect())
}
