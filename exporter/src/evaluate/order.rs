//! Elements in their order along an axis: running sums, extremes, the largest few, and the other way round.

use std::cmp::Ordering;

use anyhow::{Context, Result, ensure};
use ndarray::Axis;

use super::call::{Call, axis, size};
use super::indexing::around;
use super::value::{Array, Data, Dense, Value, array, elements, flat, map_data};

/// Sums of all elements up to each along an axis.
pub(super) fn cumulative_sum(call: &Call) -> Result<Dense> {
    fn summed<T: Copy + Default>(
        values: &Array<T>,
        along: usize,
        call: &Call,
        add: fn(T, T) -> T,
    ) -> Result<Array<T>> {
        let (exclusive, reverse) = (call.int("exclusive", 0) == 1, call.int("reverse", 0) == 1);
        let (outer, length, inner) = around(values.shape(), along);
        let mut sums = flat(values).into_owned();
        for start in (0..outer).flat_map(|block| (0..inner).map(move |at| block * length * inner + at)) {
            let mut sum = T::default();
            for step in 0..length {
                let at = start + if reverse { length - 1 - step } else { step } * inner;
                let next = add(sum, sums[at]);
                sums[at] = if exclusive { sum } else { next };
                sum = next;
            }
        }
        array(values.shape(), sums)
    }
    let input = call.input(0)?;
    let along = axis(call.integer(1)?, input.rank())?;
    let data = match &input.data {
        Data::Int(values) => Data::Int(summed(values, along, call, i64::wrapping_add)?),
        _ => Data::Float(summed(input.floats()?, along, call, |a, b| a + b)?),
    };
    Ok(Dense::new(input.declared, data))
}

/// The place of the greatest or least element along an axis.
#[allow(clippy::float_cmp)]
pub(super) fn extreme(call: &Call, better: fn(f64, f64) -> bool) -> Result<Dense> {
    let input = call.input(0)?;
    let along = call.axis(0, input.rank())?;
    let last = call.int("select_last_index", 0) == 1;
    let (outer, length, inner) = around(input.dims(), along);
    let mut dims = input.dims().to_vec();
    if call.int("keepdims", 1) == 0 {
        dims.remove(along);
    } else {
        dims[along] = 1;
    }
    let count = elements(&dims)?;
    ensure!(length > 0 || count == 0, "the axis is empty");
    let values = input.data.to_f64();
    let values = flat(&values);
    let mut places = Vec::with_capacity(count);
    for start in (0..outer).flat_map(|block| (0..inner).map(move |at| block * length * inner + at)) {
        let mut best = 0;
        for step in 1..length {
            let (old, new) = (values[start + best * inner], values[start + step * inner]);
            if better(old, new) || (last && old == new) {
                best = step;
            }
        }
        places.push(best as i64);
    }
    Ok(Dense::int(array(&dims, places)?))
}

/// Numbers in order, zeros of either sign the same and NaN behind all others.
pub(super) fn ascending(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

/// The greatest, or least, few elements along an axis, and their places.
pub(super) fn top_k(call: &Call) -> Result<Vec<Value>> {
    let input = call.input(0)?;
    let count = match call.ints_or_input("k", 1)? {
        Some(count) if call.opset >= 10 => count.first().copied(),
        _ => call.attribute("k").map(isqrt_cov_proto::onnx::AttributeProto::i),
    };
    let along = call.axis(-1, input.rank())?;
    let (outer, length, inner) = around(input.dims(), along);
    let count = size(count.context("the number k is missing")?)?;
    ensure!(count <= length, "the first {count} of {length} are asked for");
    let largest = call.int("largest", 1) == 1;
    let mut dims = input.dims().to_vec();
    dims[along] = count;
    let mut places = vec![0; elements(&dims)?];
    let numbers = flat(&input.data.to_f64()).into_owned();
    for (block, at) in (0..outer).flat_map(|block| (0..inner).map(move |at| (block, at))) {
        let value = |place: usize| numbers[(block * length + place) * inner + at];
        let mut order: Vec<usize> = (0..length).collect();
        // A stable sort: of equal elements the first comes first.
        order.sort_by(|&a, &b| {
            let order = ascending(value(a), value(b));
            if largest { order.reverse() } else { order }
        });
        for (rank, &place) in order.iter().take(count).enumerate() {
            places[(block * count + rank) * inner + at] = place;
        }
    }
    let source = |index: usize| {
        let (block, at) = (index / (count * inner), index % inner);
        (block * length + places[index]) * inner + at
    };
    let values = if let Data::Int(values) = &input.data {
        let values = flat(values);
        Data::Int(array(&dims, (0..places.len()).map(|index| values[source(index)]).collect())?)
    } else {
        input.floats()?;
        Data::Float(array(&dims, (0..places.len()).map(|index| numbers[source(index)]).collect())?)
    };
    let places = Dense::int(array(&dims, places.iter().map(|&place| place as i64).collect())?);
    Ok(vec![Dense::new(input.declared, values).into(), places.into()])
}

/// The first elements along an axis the other way round, of each sample as many as are told.
pub(super) fn reverse_sequence(call: &Call) -> Result<Dense> {
    let (input, lengths) = (call.input(0)?, call.input(1)?.ints()?);
    let [batch, time] = [("batch_axis", 1), ("time_axis", 0)]
        .map(|(name, default)| axis(call.int(name, default), input.rank()));
    let (batch, time) = (batch?, time?);
    ensure!(batch != time, "both axes are {batch}");
    let dims = input.dims();
    ensure!(lengths.len() == dims[batch], "{} lengths of {} samples", lengths.len(), dims[batch]);
    let lengths = lengths.iter().map(|&length| {
        let known = usize::try_from(length).ok().filter(|&length| length <= dims[time]);
        known.with_context(|| format!("a length of {length} along an axis of {}", dims[time]))
    });
    let lengths = lengths.collect::<Result<Vec<_>>>()?;
    let data = map_data!(&input.data, values => {
        let mut turned = values.to_owned();
        for (sample, &length) in lengths.iter().enumerate() {
            let from = values.index_axis(Axis(batch), sample);
            let mut to = turned.index_axis_mut(Axis(batch), sample);
            let along = Axis(time - usize::from(time > batch));
            for step in 0..length {
                to.index_axis_mut(along, step).assign(&from.index_axis(along, length - 1 - step));
            }
        }
        turned.into_shared()
    });
    Ok(Dense::new(input.declared, data))
}

#[cfg(test)]
mod tests {
    use isqrt_cov_proto::onnx::{AttributeProto, NodeProto};

    use crate::evaluate::tests::{all, floats, ints, one};

    /// As many as take another way of sorting than a few do, of which every third is none.
    #[test]
    fn what_is_no_number_has_a_place_in_every_order() {
        let numbers: Vec<f64> =
            (0..90_i32).map(|at| if at % 3 == 0 { f64::NAN } else { f64::from(at * 37 % 89) }).collect();
        let x = [floats(&[90], &numbers)];
        let node = NodeProto::new("TopK", &["x"], &["y", "places"]).with(AttributeProto::int("k", 32));
        let made = all(node, 9, &x).unwrap()[0].to_f64();
        assert!(made[..30].iter().all(|number| number.is_nan()) && made[30] > made[31], "{made:?}");
        let node = NodeProto::new("Unique", &["x"], &["y", "firsts", "inverse", "counts"]);
        let made = all(node, 11, &x).unwrap()[0].to_f64();
        let count = made.iter().position(|number| number.is_nan()).unwrap();
        assert!(made[..count].is_sorted() && made.len() == count + 30, "{made:?}");
    }

    #[test]
    fn running_sums_leave_themselves_out_and_run_backwards() {
        let sums = |exclusive, reverse| {
            let node = NodeProto::new("CumSum", &["x", "axis"], &["y"])
                .with(AttributeProto::int("exclusive", exclusive))
                .with(AttributeProto::int("reverse", reverse));
            one(node, 14, &[floats(&[3], &[1.0, 2.0, 3.0]), ints(&[0])]).unwrap().to_f64()
        };
        assert_eq!(sums(0, 0), [1.0, 3.0, 6.0]);
        assert_eq!(sums(1, 0), [0.0, 1.0, 3.0]);
        assert_eq!(sums(0, 1), [6.0, 5.0, 3.0]);
        assert_eq!(sums(1, 1), [5.0, 3.0, 0.0]);
    }

    /// The example of the operator's documentation, in both orders of the axes.
    #[test]
    fn each_sequence_is_reversed_as_far_as_it_goes() {
        let of = |batch, time, values: &[f64], lengths: &[i64]| {
            let node = NodeProto::new("ReverseSequence", &["x", "lengths"], &["y"])
                .with(AttributeProto::int("batch_axis", batch))
                .with(AttributeProto::int("time_axis", time));
            one(node, 10, &[floats(&[4, 4], values), ints(lengths)]).map(|made| made.to_f64())
        };
        let count: Vec<f64> = (0..16).map(f64::from).collect();
        let by_rows = [0.0, 1.0, 2.0, 3.0, 5.0, 4.0, 6.0, 7.0, 10.0, 9.0, 8.0, 11.0, 15.0, 14.0, 13.0, 12.0];
        assert_eq!(of(0, 1, &count, &[1, 2, 3, 4]).unwrap(), by_rows);
        let across: Vec<f64> = (0..16).map(|at| f64::from(at % 4 * 4 + at / 4)).collect();
        let by_columns: Vec<f64> = (0..16).map(|at| by_rows[at % 4 * 4 + at / 4]).collect();
        assert_eq!(of(1, 0, &across, &[1, 2, 3, 4]).unwrap(), by_columns);
        for lengths in [&[1, 2, 3][..], &[1, 2, 3, 5], &[-1, 2, 3, 4]] {
            assert!(of(0, 1, &count, lengths).is_err(), "{lengths:?}");
        }
        assert!(of(1, 1, &count, &[1, 2, 3, 4]).is_err());
    }

    #[test]
    fn of_equal_elements_the_first_or_the_last_is_found() {
        let found = |last| {
            let node =
                NodeProto::new("ArgMax", &["x"], &["y"]).with(AttributeProto::int("select_last_index", last));
            one(node, 13, &[floats(&[4], &[1.0, 7.0, 7.0, 0.0])]).unwrap().to_f64()
        };
        assert_eq!((found(0), found(1)), (vec![1.0], vec![2.0]));
    }
}
