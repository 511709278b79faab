//! Nodes of the project's own operators.

use anyhow::{Result, bail};
use half::{bf16, f16};
use isqrt_cov_op::cpu::{Element, Kernel, Serial};
use isqrt_cov_op::layer::Extent;
use isqrt_cov_op::{Layer, OperatorKind, reference};

use super::Precision;
use super::call::Call;
use super::value::{Dense, array, elements, flat};
use crate::budget::spend;
use crate::fused::{self, layer_of};
use crate::tensor::ElementType;

/// What such a node computes: by the float64 reference or, where numbers are rounded to the declared type, by the CPU
/// kernels, as in the plugin.
pub(super) fn apply(call: &Call, precision: Precision) -> Result<Dense> {
    let layer = layer_of(call.node).map_err(|error| match error {
        // Whoever evaluates a node names it.
        fused::Error::Layer { problem, .. } => problem.into(),
        other => anyhow::Error::from(other),
    })?;
    let input = call.input(0)?;
    let extent = layer.extent(input.dims())?;
    elements(&[extent.channels, extent.channels])?;
    let dims = layer.output_dims(input.dims())?;
    let count = elements(&dims)?;
    spend(&[extent.samples, multiplications(&layer, extent) as usize])?;
    let values = match (precision, input.declared) {
        (Precision::Exact, _) => reference::evaluate(&layer, &flat(input.floats()?), input.dims())?,
        (Precision::Declared, ElementType::F32) => by_kernel::<f32>(layer, input, count)?,
        (Precision::Declared, ElementType::F64) => by_kernel::<f64>(layer, input, count)?,
        (Precision::Declared, ElementType::F16) => by_kernel::<f16>(layer, input, count)?,
        (Precision::Declared, ElementType::BF16) => by_kernel::<bf16>(layer, input, count)?,
        (Precision::Declared, other) => bail!("{} takes no {}", layer.name(), other.name()),
    };
    Ok(Dense::float(input.declared, array(&dims, values)?))
}

/// Multiplications that the float64 reference makes of one sample.
pub(crate) fn multiplications(layer: &Layer, extent: Extent) -> f64 {
    let (channels, positions) = (extent.channels as f64, extent.positions as f64);
    let covariance = channels * channels * positions / 2.0;
    let root = 3.0 * f64::from(layer.iterations) * channels.powi(3);
    match layer.operator {
        OperatorKind::IsqrtCov => covariance + root,
        OperatorKind::CovariancePooling => covariance,
        OperatorKind::MatrixSqrt => root,
    }
}

fn by_kernel<T: Element>(layer: Layer, input: &Dense, count: usize) -> Result<Vec<f64>> {
    let values: Vec<T> = flat(input.floats()?).iter().map(|&value| T::from_f64(value)).collect();
    let mut made = vec![T::from_f64(0.0); count];
    Kernel::new(layer).run(&values, input.dims(), &mut made, &Serial)?;
    Ok(made.into_iter().map(T::to_f64).collect())
}
