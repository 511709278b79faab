//! How far a layer's outputs are from the truth, entry by entry.

use isqrt_cov_op::{Layer, Vectorization, reference};

use super::probed::{Probed, Spectra, samples};
use crate::budget::spend;
use crate::distance::{magnitude, scaled_distance};
use crate::evaluate::multiplications;
use crate::tensor::Tensor;

/// Channels up to which the plain iteration in float64 judges. Beyond, where it would take minutes, the function of the
/// eigenvalues does, which is the same to 1e-10.
const BY_ITERATION: usize = 320;

/// max|Δ| / max|reference| over every entry of every sample of the `outputs`; infinite where they have other sizes. None where
/// the reference is 0 throughout, as the covariance of a single position is: that tells nothing.
#[must_use]
pub fn error(layer: &Layer, probed: &Probed, outputs: &[Tensor]) -> Option<f64> {
    let dims = [&[1], &probed.dims()[1..]].concat();
    let all = || samples(&probed.inputs).map(|sample| expected(layer, sample, &dims)).collect();
    let Some(expected) = probed.expected(layer, all) else { return Some(f64::INFINITY) };
    let mut worst = None;
    for ((input, expected), found) in samples(&probed.inputs).zip(expected.iter()).zip(samples(outputs)) {
        if expected.len() != found.len() {
            return Some(f64::INFINITY);
        }
        let largest = magnitude(expected);
        let distance = if largest > 0.0 {
            scaled_distance(&found, expected, largest)
        } else if input.iter().all(|&value| value == 0.0)
            && found.iter().any(|value| value.is_finite() && *value != 0.0)
        {
            f64::INFINITY
        } else {
            // 0 over 0, or what is left of a mean that was rounded.
            continue;
        };
        worst = Some(distance.max(worst.unwrap_or(0.0)));
    }
    worst
}

/// What the layer gives for one sample.
fn expected(layer: &Layer, sample: Vec<f64>, dims: &[usize]) -> Option<Vec<f64>> {
    let extent = layer.extent(dims).ok()?;
    let channels = extent.channels;
    if channels <= BY_ITERATION {
        spend(&[multiplications(layer, extent) as usize]).ok()?;
        return reference::evaluate(layer, &sample, dims).ok();
    }
    Spectra::spend(channels, extent.positions).ok()?;
    spend(&[channels, channels, extent.positions.min(channels)]).ok()?;
    let entries: Vec<(usize, usize)> = Vectorization::Upper.entries(channels).collect();
    let spectra = Spectra::new(sample, channels, layer.operator, layer.layout);
    let values = spectra.of(layer).at(&entries).predict(layer, 0..entries.len());
    let mut output = vec![0.0; layer.output_elements(channels)];
    for (&(row, column), value) in entries.iter().zip(values) {
        output[layer.vectorization.position(channels, (row, column))] = value;
        if layer.vectorization == Vectorization::None {
            output[column * channels + row] = value;
        }
    }
    Some(output)
}

#[cfg(test)]
mod tests {
    use isqrt_cov_op::OperatorKind;

    use super::*;
    use crate::recognize::identify::probed::inputs;
    use crate::tensor::ElementType;

    #[test]
    fn large_layers_are_judged_by_their_eigenvalues() {
        let layer = Layer { iterations: 2, ..Layer::new(OperatorKind::IsqrtCov) };
        let dims = [2, BY_ITERATION + 1, 6];
        let probed = Probed::new(inputs(layer.operator, &dims).unwrap());
        let output = |input: &Tensor| {
            let values = reference::evaluate(&layer, &input.to_f64(), &dims).unwrap();
            Tensor::from_f64(ElementType::F64, &[2, values.len() / 2], &values)
        };
        let mut outputs: Vec<Tensor> = probed.inputs.iter().map(output).collect();
        assert!(error(&layer, &probed, &outputs).unwrap() < 1e-10);
        let Tensor::F64(last) = outputs.last_mut().unwrap() else { unreachable!() };
        *last.iter_mut().last().unwrap() *= 2.0;
        assert!(error(&layer, &probed, &outputs).unwrap() > 1e-10);
    }
}
