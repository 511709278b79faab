//! How a lost layer was normalized, which its compensation tells: the zeros that are left are still multiplied by it.

use isqrt_cov_op::{Layer, Normalization, reference};

use super::lost::sources;
use crate::budget::spend;
use crate::distance::magnitude;
use crate::evaluate::{Evaluator, Precision, multiplications};
use crate::graph::ValueId;
use crate::recognize::identify::probed::samples;
use crate::recognize::observe::subject::{Observed, Subject};
use crate::tensor::Tensor;

/// The powers of a norm that a compensation may be seen as: itself, its root, and what is divided by one of them.
const POWERS: [f64; 4] = [1.0, 0.5, -0.5, -1.0];

/// How far factors may be apart that are the same.
const SAME_FACTOR: f64 = 1e-3;

/// Norms below this share of the greatest tell nothing: what is added to keep a divisor from 0 shows on them.
const LEAST_NORM: f64 = 1e-4;

/// What a lost layer divided its covariance by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Divisor {
    /// Nothing is left that tells.
    Untold,
    /// The norm of which a power is left.
    Norm(Normalization),
    /// What is left is no power of a norm of the covariance.
    Another,
}

impl Divisor {
    /// The norm, where it is known.
    #[must_use]
    pub fn norm(self) -> Option<Normalization> {
        match self {
            Self::Norm(normalization) => Some(normalization),
            Self::Untold | Self::Another => None,
        }
    }
}

/// What the lost layer of this value divided its `covariance` by: its compensation still multiplies the zeros by a number a sample.
#[must_use]
pub fn divisor(subject: &Subject, observed: &Observed, value: ValueId, covariance: &Layer) -> Divisor {
    let flow = &subject.place.flow;
    let Some(factor) = sources(flow, value).find(|value| observed.scalars.contains(value)) else {
        return Divisor::Untold;
    };
    let factors = || {
        let part = subject.part(&[factor]);
        let evaluator = Evaluator::new(&part, Precision::Exact, None).ok()?;
        let one = |probe: &Tensor| Some(evaluator.run(std::slice::from_ref(probe)).ok()?.pop()?.to_f64());
        let factors: Option<Vec<Vec<f64>>> = observed.probed.inputs.iter().map(one).collect();
        Some(factors?.concat())
    };
    let (Some(factors), Ok(extent)) = (factors(), covariance.extent(observed.probed.dims())) else {
        return Divisor::Untold;
    };
    if spend(&[factors.len(), multiplications(covariance, extent) as usize]).is_err() {
        return Divisor::Untold;
    }
    let covariances: Vec<_> = samples(&observed.probed.inputs)
        .map(|sample| reference::covariance(covariance, &sample, extent.channels))
        .collect();
    if covariances.len() != factors.len() || factors.iter().any(|factor| !factor.is_finite()) {
        return Divisor::Untold;
    }
    let norms = [Normalization::Trace, Normalization::Frobenius];
    let spreads = norms.map(|normalization| {
        let norms: Vec<f64> =
            covariances.iter().map(|matrix| reference::norm(normalization, matrix)).collect();
        POWERS.map(|power| spread(&factors, &norms, power)).into_iter().fold(f64::INFINITY, f64::min)
    });
    match spreads {
        [trace, frobenius] if trace.min(frobenius) > SAME_FACTOR => Divisor::Another,
        [trace, frobenius] => Divisor::Norm(norms[usize::from(frobenius < trace)]),
    }
}

/// How far `factors` are from being one multiple of this power of the `norms`, the small ones apart.
fn spread(factors: &[f64], norms: &[f64], power: f64) -> f64 {
    let least = LEAST_NORM * magnitude(norms);
    let ratios = factors.iter().zip(norms).filter(|(_, norm)| **norm > least);
    let ratios = ratios.map(|(factor, norm)| factor / norm.powf(power));
    let (least, most) = ratios
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), ratio| (least.min(ratio), most.max(ratio)));
    if most > least { (most - least) / most.abs().max(least.abs()) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_are_a_power_of_a_norm_or_none() {
        let norms = [4.0, 9.0, 1e-4, 16.0];
        assert!(spread(&[4.0, 6.0, 1.0, 8.0], &norms, 0.5) < 1e-15);
        assert!(spread(&[4.0, 6.0, 1.0, 8.0], &norms, 1.0) > 0.4);
        assert!(spread(&[0.25, 1.0 / 9.0, 7.0, 0.0625], &norms, -1.0) < 1e-15);
        assert!(POWERS.iter().all(|&power| spread(&[3.0, 3.0, 0.0, 3.0], &norms, power) > SAME_FACTOR));
    }
}
