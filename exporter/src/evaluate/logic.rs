//! Comparisons, and what is done with their results.

use anyhow::{Context, Result};
use ndarray::{IxDyn, Zip};

use super::call::Call;
use super::elementwise::{combine, common_shape};
use super::value::{Array, Data, Dense, map_both};

/// A comparison of numbers.
pub(super) fn compare(call: &Call, float: fn(f64, f64) -> bool, int: fn(i64, i64) -> bool) -> Result<Dense> {
    let (left, right) = (call.input(0)?, call.input(1)?);
    Ok(Dense::bool(match (&left.data, &right.data) {
        (Data::Int(a), Data::Int(b)) => combine(a, b, |&a, &b| int(a, b))?,
        _ => combine(left.floats()?, right.floats()?, |&a, &b| float(a, b))?,
    }))
}

/// Whether elements are equal, which booleans can be, too.
#[allow(clippy::float_cmp)]
pub(super) fn equal(call: &Call) -> Result<Dense> {
    match (&call.input(0)?.data, &call.input(1)?.data) {
        (Data::Bool(a), Data::Bool(b)) => Ok(Dense::bool(combine(a, b, |a, b| a == b)?)),
        _ => compare(call, |a, b| a == b, |a, b| a == b),
    }
}

/// A connective.
pub(super) fn connect(call: &Call, f: fn(bool, bool) -> bool) -> Result<Dense> {
    Ok(Dense::bool(combine(call.input(0)?.bools()?, call.input(1)?.bools()?, |&a, &b| f(a, b))?))
}

/// Negation.
pub(super) fn not(call: &Call) -> Result<Dense> {
    Ok(Dense::bool(call.input(0)?.bools()?.mapv(|value| !value).into_shared()))
}

/// Whether elements are no numbers.
pub(super) fn is_nan(call: &Call) -> Result<Dense> {
    Ok(Dense::bool(call.input(0)?.floats()?.mapv(f64::is_nan).into_shared()))
}

/// Whether elements are infinite, on the side or sides that the attributes say.
pub(super) fn is_infinite(call: &Call) -> Result<Dense> {
    let (below, above) = (call.int("detect_negative", 1) != 0, call.int("detect_positive", 1) != 0);
    let infinite = |value: f64| value.is_infinite() && if value < 0.0 { below } else { above };
    Ok(Dense::bool(call.input(0)?.floats()?.mapv(infinite).into_shared()))
}

/// Elements of one tensor or the other.
pub(super) fn choose(call: &Call) -> Result<Dense> {
    fn chosen<T: Clone>(condition: &Array<bool>, a: &Array<T>, b: &Array<T>) -> Result<Array<T>> {
        let dims = common_shape([condition.shape(), a.shape(), b.shape()])?;
        let dims = IxDyn(&dims);
        let condition = condition.broadcast(dims.clone()).context("shapes do not broadcast")?;
        let a = a.broadcast(dims.clone()).context("shapes do not broadcast")?;
        let b = b.broadcast(dims).context("shapes do not broadcast")?;
        let pick = |&condition: &bool, a: &T, b: &T| if condition { a.clone() } else { b.clone() };
        Ok(Zip::from(condition).and(a).and(b).map_collect(pick).into_shared())
    }
    let (condition, a, b) = (call.input(0)?.bools()?, call.input(1)?, call.input(2)?);
    let data = map_both!(&a.data, &b.data, (a, b) => chosen(condition, a, b)?)?;
    Ok(Dense::new(a.declared, data))
}
