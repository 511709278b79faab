//! Many elements to one, along axes.

use anyhow::{Result, ensure};

use super::call::{Call, axes};
use super::layout::permuted_array;
use super::value::{Array, Data, Dense, array, elements, flat};

/// The elements along the axes `along` as rows, one for each place along the others.
fn rows<T: Clone>(values: &Array<T>, along: &[usize]) -> Result<(Vec<T>, usize, usize)> {
    let kept = (0..values.ndim()).filter(|axis| !along.contains(axis));
    let order: Vec<usize> = kept.chain(along.iter().copied()).collect();
    let (outer, inner) = order.split_at(values.ndim() - along.len());
    let size = |axes: &[usize]| axes.iter().map(|&axis| values.shape()[axis]).product::<usize>();
    let (outer, inner) = (size(outer), size(inner));
    Ok((flat(&permuted_array(values, &order)?).into_owned(), outer, inner))
}

fn reduced<T: Clone, R: Clone>(
    values: &Array<T>,
    along: &[usize],
    keep: bool,
    f: impl Fn(&[T]) -> R,
) -> Result<Array<R>> {
    let dims: Vec<usize> = (0..values.ndim())
        .filter(|axis| keep || !along.contains(axis))
        .map(|axis| if along.contains(&axis) { 1 } else { values.shape()[axis] })
        .collect();
    elements(&dims)?;
    let (rows, outer, inner) = rows(values, along)?;
    let made = (0..outer).map(|row| f(&rows[row * inner..(row + 1) * inner]));
    array(&dims, made.collect())
}

/// What makes one integer of many.
pub(super) type IntReduction = fn(&[i64]) -> i64;

/// A reduction; of integers by `int`, or in floating-point numbers where there is none.
pub(super) fn reduce(call: &Call, float: fn(&[f64]) -> f64, int: Option<IntReduction>) -> Result<Dense> {
    let input = call.input(0)?;
    let given = call.ints_or_input("axes", 1)?.filter(|axes| !axes.is_empty());
    if given.is_none() && call.int("noop_with_empty_axes", 0) == 1 {
        // Each element is reduced by itself, which is more than nothing for squares and logarithms.
        return over(input, &[], true, float, int);
    }
    let along = given.map_or_else(|| Ok((0..input.rank()).collect()), |given| axes(&given, input.rank()))?;
    over(input, &along, call.int("keepdims", 1) != 0, float, int)
}

fn over(
    input: &Dense,
    along: &[usize],
    keep: bool,
    float: fn(&[f64]) -> f64,
    int: Option<IntReduction>,
) -> Result<Dense> {
    let data = match (&input.data, int) {
        (Data::Int(values), Some(int)) => Data::Int(reduced(values, along, keep, int)?),
        (Data::Float(values), _) => Data::Float(reduced(values, along, keep, float)?),
        // The greatest of no booleans is false, the least true.
        (Data::Bool(_), _) => {
            let numbers = reduced(&input.data.to_f64(), along, keep, float)?;
            Data::Bool(numbers.mapv(|value| value > 0.0).into_shared())
        }
        (data, _) => Data::Float(reduced(&data.to_f64(), along, keep, float)?).cast(input.declared),
    };
    Ok(Dense::new(input.declared, data))
}

/// A reduction of all axes after the first two.
pub(super) fn pool(call: &Call, float: fn(&[f64]) -> f64) -> Result<Dense> {
    let input = call.input(0)?;
    ensure!(input.rank() >= 2, "an input with 2 axes or more is expected");
    over(input, &(2..input.rank()).collect::<Vec<_>>(), true, float, None)
}

pub(super) fn sum(row: &[f64]) -> f64 {
    row.iter().sum::<f64>() + 0.0
}

pub(super) fn mean(row: &[f64]) -> f64 {
    sum(row) / row.len() as f64
}

pub(super) fn max(row: &[f64]) -> f64 {
    row.iter().copied().fold(f64::NEG_INFINITY, super::elementwise::max)
}

pub(super) fn min(row: &[f64]) -> f64 {
    row.iter().copied().fold(f64::INFINITY, super::elementwise::min)
}

pub(super) fn product(row: &[f64]) -> f64 {
    row.iter().product()
}

pub(super) fn sum_square(row: &[f64]) -> f64 {
    row.iter().map(|value| value * value).sum::<f64>() + 0.0
}

pub(super) fn l1(row: &[f64]) -> f64 {
    row.iter().map(|value| value.abs()).sum::<f64>() + 0.0
}

pub(super) fn l2(row: &[f64]) -> f64 {
    sum_square(row).sqrt()
}

pub(super) fn log_sum_exp(row: &[f64]) -> f64 {
    let largest = max(row);
    if !largest.is_finite() {
        return largest;
    }
    row.iter().map(|value| (value - largest).exp()).sum::<f64>().ln() + largest
}

pub(super) fn int_sum(row: &[i64]) -> i64 {
    row.iter().fold(0, |sum, &value| sum.wrapping_add(value))
}

pub(super) fn int_mean(row: &[i64]) -> i64 {
    // Of no integers there is no mean.
    int_sum(row).checked_div(row.len() as i64).unwrap_or(0)
}

pub(super) fn int_product(row: &[i64]) -> i64 {
    row.iter().fold(1, |product: i64, &value| product.wrapping_mul(value))
}

pub(super) fn int_max(row: &[i64]) -> i64 {
    row.iter().copied().max().unwrap_or(i64::MIN)
}

pub(super) fn int_min(row: &[i64]) -> i64 {
    row.iter().copied().min().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use isqrt_cov_proto::onnx::{AttributeProto, NodeProto};

    use crate::evaluate::tests::{floats, ints, one};

    #[test]
    fn no_axes_are_all_or_none() {
        let x = || floats(&[2, 2], &[1.0, 2.0, 3.0, 4.0]);
        let sum = |noop| {
            let node = NodeProto::new("ReduceSumSquare", &["x", "axes"], &["y"])
                .with(AttributeProto::int("noop_with_empty_axes", noop));
            one(node, 18, &[x(), ints(&[])]).unwrap()
        };
        assert_eq!(sum(0).to_f64(), [30.0]);
        assert_eq!(sum(0).dims(), [1, 1]);
        assert_eq!(sum(1).to_f64(), [1.0, 4.0, 9.0, 16.0]);
    }

    #[test]
    fn axes_are_an_attribute_or_an_input() {
        let x = || floats(&[2, 2], &[1.0, 2.0, 3.0, 4.0]);
        let old = NodeProto::new("ReduceMean", &["x"], &["y"])
            .with(AttributeProto::ints("axes", &[-1]))
            .with(AttributeProto::int("keepdims", 0));
        let old = one(old, 13, &[x()]).unwrap();
        assert_eq!((old.dims(), old.to_f64()), (&[2][..], vec![1.5, 3.5]));
        let new = one(NodeProto::new("ReduceMean", &["x", "axes"], &["y"]), 18, &[x(), ints(&[0])]).unwrap();
        assert_eq!((new.dims(), new.to_f64()), (&[1, 2][..], vec![2.0, 3.0]));
        let twice = NodeProto::new("ReduceMean", &["x", "axes"], &["y"]);
        assert!(one(twice, 18, &[x(), ints(&[0, -2])]).is_err());
    }
}
