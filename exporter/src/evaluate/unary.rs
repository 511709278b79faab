//! Functions of one number, and conversions between element types.

use anyhow::{Context, Result};

use super::call::Call;
use super::value::{Data, Dense};

/// A function of floating-point numbers.
pub(super) fn float(call: &Call, f: impl Fn(f64) -> f64) -> Result<Dense> {
    let input = call.input(0)?;
    Ok(Dense::float(input.declared, input.floats()?.mapv(f).into_shared()))
}

/// A function of numbers with a sign.
pub(super) fn signed(call: &Call, f: fn(f64) -> f64, g: fn(i64) -> i64) -> Result<Dense> {
    let input = call.input(0)?;
    match &input.data {
        Data::Int(values) => Ok(Dense::new(input.declared, Data::Int(values.mapv(g).into_shared()))),
        _ => float(call, f),
    }
}

/// −1, 0 or 1.
pub(super) fn sign(x: f64) -> f64 {
    if x > 0.0 {
        1.0
    } else if x < 0.0 {
        -1.0
    } else {
        x * 0.0
    }
}

/// A negative integer times a slope.
pub(super) fn slope(x: i64, slope: i64) -> i64 {
    if x < 0 { x.wrapping_mul(slope) } else { x }
}

/// Like [`f64::clamp`], for bounds that a file gives in any order.
pub(super) fn clamp(x: f64, low: f64, high: f64) -> f64 {
    let raised = if x < low { low } else { x };
    if raised > high { high } else { raised }
}

/// 1 / (1 + exp(−x)), without overflow.
pub(super) fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 { 1.0 / (1.0 + (-x).exp()) } else { x.exp() / (1.0 + x.exp()) }
}

/// ln(1 + exp(x)), without overflow.
pub(super) fn softplus(x: f64) -> f64 {
    (-x.abs()).exp().ln_1p() + x.max(0.0)
}

/// The error function: by its series where that converges fast, by its continued fraction elsewhere.
pub(super) fn erf(x: f64) -> f64 {
    let z = x.abs();
    if x.is_nan() {
        return x;
    }
    if z > 6.0 {
        return x.signum();
    }
    let factor = std::f64::consts::FRAC_2_SQRT_PI * (-z * z).exp();
    let value = if z < 2.5 {
        let mut term = z;
        let mut sum = z;
        for n in 1..100 {
            term *= 2.0 * z * z / f64::from(2 * n + 1);
            sum += term;
        }
        factor * sum
    } else {
        let fraction = (1..100).rev().fold(0.0, |rest, n| f64::from(n) / 2.0 / (z + rest));
        1.0 - factor / 2.0 / (z + fraction)
    };
    value.copysign(x)
}

/// Negative numbers times `alpha`.
pub(super) fn leaky_relu(call: &Call) -> Result<Dense> {
    let alpha = call.float("alpha", 0.01);
    float(call, |x| if x < 0.0 { alpha * x } else { x })
}

/// α·x + β between 0 and 1.
pub(super) fn hard_sigmoid(call: &Call) -> Result<Dense> {
    let (alpha, beta) = (call.float("alpha", 0.2), call.float("beta", 0.5));
    float(call, |x| clamp(alpha * x + beta, 0.0, 1.0))
}

/// α·(exp(x) − 1) below zero.
pub(super) fn elu(call: &Call) -> Result<Dense> {
    let alpha = call.float("alpha", 1.0);
    float(call, |x| if x < 0.0 { alpha * x.exp_m1() } else { x })
}

/// x times the normal distribution's share below x.
pub(super) fn gelu(call: &Call) -> Result<Dense> {
    if call.word("approximate", "none")? == "tanh" {
        let scale = (2.0 / std::f64::consts::PI).sqrt();
        return float(call, |x| 0.5 * x * (1.0 + (scale * (x + 0.044_715 * x * x * x)).tanh()));
    }
    float(call, |x| 0.5 * x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2)))
}

/// A conversion to the type that `to` names.
pub(super) fn cast(call: &Call) -> Result<Dense> {
    let to = call.element("to")?.context("attribute `to` is missing")?;
    Ok(Dense::new(to, call.input(0)?.data.cast(to)))
}

/// A conversion to the type of another tensor.
pub(super) fn cast_like(call: &Call) -> Result<Dense> {
    let to = call.input(1)?.declared;
    Ok(Dense::new(to, call.input(0)?.data.cast(to)))
}

#[cfg(test)]
mod tests {
    use isqrt_cov_proto::onnx::{AttributeProto, NodeProto};

    use super::erf;
    use crate::evaluate::tests::{floats, one};
    use crate::tensor::{ElementType, Tensor};

    #[test]
    fn halves_are_rounded_to_even() {
        let rounded = one(
            NodeProto::new("Round", &["x"], &["y"]),
            11,
            &[floats(&[6], &[0.5, 1.5, 2.5, -0.5, -1.5, 2.4])],
        );
        assert_eq!(rounded.unwrap().to_f64(), [0.0, 2.0, 2.0, 0.0, -2.0, 2.0]);
    }

    #[test]
    fn narrow_integers_wrap() {
        let cast = NodeProto::new("Cast", &["x"], &["y"])
            .with(AttributeProto::int("to", ElementType::I8.onnx().into()));
        assert_eq!(
            one(cast, 13, &[super::super::tests::ints(&[127, 128, -129, 256])]).unwrap().to_f64(),
            [127.0, -128.0, 127.0, 0.0]
        );
        let cast = NodeProto::new("Cast", &["x"], &["y"])
            .with(AttributeProto::int("to", ElementType::U16.onnx().into()));
        let wide = [Tensor::U32(ndarray::arr1(&[65_535, 65_537]).into_dyn())];
        let narrow = one(cast, 13, &wide).unwrap();
        assert_eq!((narrow.element_type(), narrow.to_f64()), (ElementType::U16, vec![65_535.0, 1.0]));
        let sum = NodeProto::new("Add", &["x", "x"], &["y"]);
        let wrapped = one(sum, 14, &[Tensor::U8(ndarray::arr1(&[200]).into_dyn())]);
        assert_eq!(wrapped.unwrap().to_f64(), [144.0]);
    }

    #[test]
    fn the_error_function_is_exact_to_rounding() {
        // Abramowitz and Stegun, table 7.1.
        for (x, value) in
            [(0.5, 0.520_499_877_813_046_5), (1.0, 0.842_700_792_949_714_9), (2.0, 0.995_322_265_018_952_7)]
        {
            assert!((erf(x) - value).abs() < 1e-15 && (erf(-x) + value).abs() < 1e-15);
        }
        assert!((erf(3.0) - 0.999_977_909_503_001_4).abs() < 1e-15);
        assert!((erf(2.499_999_999) - erf(2.500_000_001)).abs() < 1e-11);
    }
}
