//! Arithmetic on several tensors whose shapes are broadcast.

use anyhow::{Context, Result, ensure};
use ndarray::{IxDyn, Zip};

use super::call::Call;
use super::value::{Array, Data, Dense, elements, full, weight};
use crate::budget::spend_node;

/// The shape that several shapes broadcast to.
pub(super) fn common_shape<'d>(shapes: impl IntoIterator<Item = &'d [usize]>) -> Result<Vec<usize>> {
    let mut common: Vec<usize> = Vec::new();
    for shape in shapes {
        if shape.len() > common.len() {
            common.splice(0..0, std::iter::repeat_n(1, shape.len() - common.len()));
        }
        let offset = common.len() - shape.len();
        for (own, &dim) in common[offset..].iter_mut().zip(shape) {
            ensure!(
                *own == dim || *own == 1 || dim == 1,
                "{shape:?} does not broadcast with the other shapes"
            );
            if *own == 1 {
                *own = dim;
            }
        }
    }
    elements(&common)?;
    Ok(common)
}

/// Combines two arrays element by element.
pub(super) fn combine<A, B, C: Clone>(
    left: &Array<A>,
    right: &Array<B>,
    f: impl Fn(&A, &B) -> C,
) -> Result<Array<C>> {
    let dims = common_shape([left.shape(), right.shape()])?;
    let left = left.broadcast(IxDyn(&dims)).context("shapes do not broadcast")?;
    let right = right.broadcast(IxDyn(&dims)).context("shapes do not broadcast")?;
    Ok(Zip::from(left).and(right).map_collect(f).into_shared())
}

/// A binary operator on numbers.
pub(super) fn binary(
    left: &Dense,
    right: &Dense,
    float: impl Fn(f64, f64) -> f64,
    int: impl Fn(i64, i64) -> i64,
) -> Result<Dense> {
    let data = match (&left.data, &right.data) {
        (Data::Int(a), Data::Int(b)) => Data::Int(combine(a, b, |&a, &b| int(a, b))?),
        _ => Data::Float(combine(left.floats()?, right.floats()?, |&a, &b| float(a, b))?),
    };
    Ok(Dense::new(left.declared, data))
}

/// An operator on two inputs.
pub(super) fn arithmetic(call: &Call, float: fn(f64, f64) -> f64, int: fn(i64, i64) -> i64) -> Result<Dense> {
    binary(call.input(0)?, call.input(1)?, float, int)
}

/// Quotients; those of integers are truncated.
pub(super) fn div(call: &Call) -> Result<Dense> {
    if let Data::Int(divisors) = &call.input(1)?.data {
        ensure!(divisors.iter().all(|&divisor| divisor != 0), "an integer is divided by zero");
    }
    arithmetic(call, |a, b| a / b, i64::wrapping_div)
}

/// Remainders: with the divisor's sign, or with the dividend's where `fmod` is set.
pub(super) fn modulo(call: &Call) -> Result<Dense> {
    if let Data::Int(divisors) = &call.input(1)?.data {
        ensure!(divisors.iter().all(|&divisor| divisor != 0), "an integer is divided by zero");
    }
    if call.int("fmod", 0) == 1 {
        return arithmetic(call, |a, b| a % b, i64::wrapping_rem);
    }
    let float = |a: f64, b: f64| {
        let rest = a % b;
        if rest != 0.0 && (rest < 0.0) != (b < 0.0) { rest + b } else { rest }
    };
    let int = |a: i64, b: i64| {
        let rest = a.wrapping_rem(b);
        if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest }
    };
    arithmetic(call, float, int)
}

/// Powers, of the base's type whatever the exponent's.
pub(super) fn pow(call: &Call) -> Result<Dense> {
    let (base, exponent) = (call.input(0)?, call.input(1)?);
    let data = match (&base.data, &exponent.data) {
        (Data::Int(base), Data::Int(exponent)) => Data::Int(combine(base, exponent, |&a, &b| int_pow(a, b))?),
        (Data::Int(base), Data::Float(exponent)) => {
            Data::Int(combine(base, exponent, |&a, &b| (a as f64).powf(b) as i64)?)
        }
        _ => Data::Float(combine(base.floats()?, &exponent.data.to_f64(), |&a, &b| float_pow(a, b))?),
    };
    Ok(Dense::new(base.declared, data))
}

fn float_pow(base: f64, exponent: f64) -> f64 {
    // The exponents of formulas, without the rounding of a logarithm.
    match exponent {
        2.0 => base * base,
        -1.0 => base.recip(),
        _ => base.powf(exponent),
    }
}

fn int_pow(base: i64, exponent: i64) -> i64 {
    match u32::try_from(exponent) {
        Ok(exponent) => base.wrapping_pow(exponent),
        Err(_) => (base as f64).powf(exponent as f64) as i64,
    }
}

/// The lesser; nothing is less than what is no number.
pub(super) fn min(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.min(b) }
}

/// The greater; nothing is greater than what is no number.
pub(super) fn max(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

/// An operator on any number of inputs.
pub(super) fn variadic(call: &Call, float: fn(f64, f64) -> f64, int: fn(i64, i64) -> i64) -> Result<Dense> {
    let mut result = call.input(0)?.clone();
    for index in 1..call.inputs.len() {
        spend_node(weight(result.dims()))?;
        result = binary(&result, call.input(index)?, float, int)?;
    }
    Ok(result)
}

/// The mean of any number of inputs.
pub(super) fn mean(call: &Call) -> Result<Dense> {
    let sum = variadic(call, |a, b| a + b, i64::wrapping_add)?;
    let count = Dense::float(sum.declared, full(&[], call.inputs.len() as f64)?);
    binary(&sum, &count, |a, b| a / b, i64::wrapping_div)
}

/// Numbers held between bounds, which are inputs, or attributes before operator set 11.
pub(super) fn clip(call: &Call) -> Result<Dense> {
    let input = call.input(0)?;
    let data = if let Data::Int(values) = &input.data {
        let bound =
            |index| -> Result<Option<i64>> { call.optional(index)?.map(|_| call.integer(index)).transpose() };
        let (low, high) = (bound(1)?.unwrap_or(i64::MIN), bound(2)?.unwrap_or(i64::MAX));
        Data::Int(values.mapv(|value| value.max(low).min(high)).into_shared())
    } else {
        let low = call.optional_number(1)?.unwrap_or(call.float("min", f64::NEG_INFINITY));
        let high = call.optional_number(2)?.unwrap_or(call.float("max", f64::INFINITY));
        Data::Float(input.floats()?.mapv(|value| super::unary::clamp(value, low, high)).into_shared())
    };
    Ok(Dense::new(input.declared, data))
}

/// Bits moved left or right; those that signed integers are short of on the left are their sign's.
pub(super) fn shift(call: &Call) -> Result<Dense> {
    let left = call.word("direction", "")? == "LEFT";
    let shifted = |value: i64, by: i64| match (left, u32::try_from(by).ok().filter(|&by| by < 64)) {
        (true, Some(by)) => value.wrapping_shl(by),
        (true, None) => 0,
        (false, by) => value >> by.unwrap_or(63),
    };
    let (value, by) = (call.input(0)?, call.input(1)?);
    Ok(Dense::new(value.declared, Data::Int(combine(value.ints()?, by.ints()?, |&a, &b| shifted(a, b))?)))
}

#[cfg(test)]
mod tests {
    use isqrt_cov_proto::onnx::NodeProto;

    use crate::evaluate::tests::{floats, ints, one};

    #[test]
    fn integers_are_divided_towards_zero() {
        let divided =
            |a: &[i64], b: &[i64]| one(NodeProto::new("Div", &["a", "b"], &["y"]), 14, &[ints(a), ints(b)]);
        assert_eq!(divided(&[7, -7, 7, -7], &[2, 2, -2, -2]).unwrap().to_f64(), [3.0, -3.0, -3.0, 3.0]);
        assert!(divided(&[1], &[0]).is_err());
        assert!(divided(&[i64::MIN], &[-1]).is_ok());
        let rest = one(NodeProto::new("Mod", &["a", "b"], &["y"]), 13, &[ints(&[7, -7]), ints(&[-3, 3])]);
        assert_eq!(rest.unwrap().to_f64(), [-2.0, 2.0]);
    }

    #[test]
    fn powers_are_of_the_type_of_the_base() {
        let power = NodeProto::new("Pow", &["a", "b"], &["y"]);
        let int = one(power.clone(), 15, &[ints(&[3, -2]), floats(&[2], &[2.0, 3.0])]).unwrap();
        assert_eq!(int, ints(&[9, -8]));
        let float = one(power, 15, &[floats(&[2], &[4.0, -2.0]), ints(&[-1, 3])]).unwrap();
        assert_eq!(float.to_f64(), [0.25, -8.0]);
    }

    #[test]
    fn shapes_that_do_not_broadcast_are_refused() {
        let sum = NodeProto::new("Add", &["a", "b"], &["y"]);
        let made =
            one(sum.clone(), 14, &[floats(&[2, 1], &[1.0, 2.0]), floats(&[1, 2], &[10.0, 20.0])]).unwrap();
        assert_eq!(made.to_f64(), [11.0, 21.0, 12.0, 22.0]);
        let wrong = one(sum, 14, &[floats(&[2], &[1.0, 2.0]), floats(&[3], &[0.0; 3])]);
        assert!(format!("{:#}", wrong.unwrap_err()).contains("node `y` (Add)"));
    }
}
