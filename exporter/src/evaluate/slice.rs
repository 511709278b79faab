//! Parts of tensors by bounds and steps, and tensors with a border.

use anyhow::{Context, Result, bail, ensure};
use ndarray::Slice;

use super::call::{Call, axis};
use super::value::{Array, Data, Dense, array, elements, flat, map_data};

/// The elements between bounds, every so many of them, backwards where the step is negative.
pub(super) fn slice(call: &Call) -> Result<Dense> {
    let input = call.input(0)?;
    let rank = input.rank();
    let starts = call.ints_or_input("starts", 1)?.context("there are no starts")?;
    let ends = call.ints_or_input("ends", 2)?.context("there are no ends")?;
    let axes = match call.ints_or_input("axes", 3)? {
        Some(axes) => axes,
        None => (0..starts.len() as i64).collect(),
    };
    let steps = call.optional_integers(4)?.unwrap_or_else(|| vec![1; starts.len()]);
    ensure!(
        starts.len() == ends.len() && starts.len() == axes.len() && starts.len() == steps.len(),
        "starts, ends, axes and steps are not equally many"
    );
    let mut slices = vec![Slice::from(..); rank];
    let mut seen = vec![false; rank];
    for (place, &given) in axes.iter().enumerate() {
        let along = axis(given, rank)?;
        ensure!(!std::mem::replace(&mut seen[along], true), "axis {given} is sliced twice");
        slices[along] = range(input.dims()[along] as i64, starts[place], ends[place], steps[place])?;
    }
    let data =
        map_data!(&input.data, array => array.slice_each_axis(|axis| slices[axis.axis.index()]).to_shared());
    Ok(Dense::new(input.declared, data))
}

/// One axis's bounds as ndarray has them: a negative step reads a range of ascending bounds from its end.
fn range(length: i64, start: i64, end: i64, step: i64) -> Result<Slice> {
    ensure!(step != 0, "the step is zero");
    let counted = |value: i64| if value < 0 { value.saturating_add(length) } else { value };
    let forward = step > 0;
    // ONNX Runtime reads the greatest end as none, also backwards.
    let open = !forward && (end == i64::MAX || end == i64::from(i32::MAX));
    let (start, end) = (counted(start), if open { -1 } else { counted(end) });
    let step = step.clamp(-length - 1, length + 1);
    let (from, to) = if forward {
        (start.clamp(0, length), end.clamp(0, length))
    } else if length == 0 {
        (0, 0)
    } else {
        (end.clamp(-1, length - 1) + 1, start.clamp(0, length - 1) + 1)
    };
    Ok(Slice::new(from as isize, Some(to.max(from) as isize), step as isize))
}

/// A border around a tensor: of one value, of what is nearest, mirrored, or from the other side.
pub(super) fn pad(call: &Call) -> Result<Dense> {
    let input = call.input(0)?;
    let rank = input.rank();
    let given = match call.optional_integers(1)? {
        Some(given) => given,
        None => call.ints("pads").or_else(|| call.ints("paddings")).context("there are no pads")?.to_vec(),
    };
    let axes = match call.optional_integers(3)? {
        Some(axes) => axes.into_iter().map(|given| axis(given, rank)).collect::<Result<Vec<_>>>()?,
        None => (0..rank).collect(),
    };
    ensure!(given.len() == 2 * axes.len(), "{} pads for {} axes", given.len(), axes.len());
    let mode = call.word("mode", "constant")?;
    let mut sources = Vec::with_capacity(rank);
    for (along, &length) in input.dims().iter().enumerate() {
        let place = axes.iter().position(|&axis| axis == along);
        let (before, after) = place.map_or((0, 0), |place| (given[place], given[axes.len() + place]));
        sources.push(source(length as i64, before, after, mode)?);
    }
    let data = match &input.data {
        Data::Float(values) => {
            let fill = call.optional_number(2)?.unwrap_or(call.float("value", 0.0));
            Data::Float(padded(values, &sources, fill)?)
        }
        Data::Int(values) => {
            let fill = if call.optional(2)?.is_some() { call.integer(2)? } else { 0 };
            Data::Int(padded(values, &sources, fill)?)
        }
        Data::Bool(values) => {
            let fill = call.optional(2)?.map(super::call::truth).transpose()?;
            Data::Bool(padded(values, &sources, fill.unwrap_or(false))?)
        }
    };
    Ok(Dense::new(input.declared, data))
}

/// For each place along a padded axis the place that its elements come from.
fn source(length: i64, before: i64, after: i64, mode: &str) -> Result<Vec<Option<usize>>> {
    let padded = before.checked_add(length).and_then(|sum| sum.checked_add(after));
    let padded = usize::try_from(padded.context("the pads are too large")?)
        .context("the pads take more than is there")?;
    elements(&[padded])?;
    let from = |place: usize| {
        let at = place as i64 - before;
        let inside = match mode {
            "constant" => at,
            _ if length == 0 => -1,
            "edge" => at.clamp(0, length - 1),
            "wrap" => at.rem_euclid(length),
            "reflect" => {
                let period = (2 * (length - 1)).max(1);
                let at = at.rem_euclid(period);
                if at < length { at } else { period - at }
            }
            _ => bail!("the mode `{mode}` is not known"),
        };
        Ok((0..length).contains(&inside).then_some(inside as usize))
    };
    (0..padded).map(from).collect()
}

fn padded<T: Clone>(values: &Array<T>, sources: &[Vec<Option<usize>>], fill: T) -> Result<Array<T>> {
    let dims: Vec<usize> = sources.iter().map(Vec::len).collect();
    let count = elements(&dims)?;
    let values_dims = values.shape();
    let values = flat(values);
    let mut padded = Vec::with_capacity(count);
    for index in ndarray::indices(ndarray::IxDyn(&dims)) {
        let index = ndarray::Dimension::slice(&index);
        let mut offset = Some(0);
        for (along, &at) in index.iter().enumerate() {
            offset = offset.zip(sources[along][at]).map(|(offset, at)| offset * values_dims[along] + at);
        }
        padded.push(offset.map_or_else(|| fill.clone(), |offset| values[offset].clone()));
    }
    array(&dims, padded)
}

#[cfg(test)]
mod tests {
    use isqrt_cov_proto::onnx::{AttributeProto, NodeProto};

    use crate::evaluate::tests::{floats, ints, one};

    fn sliced(start: i64, end: i64, step: i64) -> Vec<f64> {
        let node = NodeProto::new("Slice", &["x", "starts", "ends", "axes", "steps"], &["y"]);
        let x = floats(&[5], &[0.0, 1.0, 2.0, 3.0, 4.0]);
        one(node, 17, &[x, ints(&[start]), ints(&[end]), ints(&[0]), ints(&[step])]).unwrap().to_f64()
    }

    #[test]
    fn steps_go_forwards_and_backwards() {
        assert_eq!(sliced(1, i64::MAX, 2), [1.0, 3.0]);
        assert_eq!(sliced(-1, i64::MIN, -1), [4.0, 3.0, 2.0, 1.0, 0.0]);
        assert_eq!(sliced(-2, 0, -2), [3.0, 1.0]);
        assert_eq!(sliced(i64::MAX, -100, -3), [4.0, 1.0]);
        assert_eq!(sliced(0, 5, i64::MAX), [0.0]);
        assert_eq!(sliced(3, 1, 1), [0.0; 0]);
        assert_eq!(sliced(i64::MIN, i64::MAX, i64::MIN), [0.0]);
    }

    #[test]
    fn borders_are_mirrored_repeated_and_cut() {
        let padded = |mode: &str, pads: &[i64]| {
            let node =
                NodeProto::new("Pad", &["x", "pads"], &["y"]).with(AttributeProto::string("mode", mode));
            one(node, 13, &[floats(&[3], &[1.0, 2.0, 3.0]), ints(pads)]).map(|tensor| tensor.to_f64())
        };
        assert_eq!(padded("reflect", &[2, 1]).unwrap(), [3.0, 2.0, 1.0, 2.0, 3.0, 2.0]);
        assert_eq!(padded("edge", &[1, 2]).unwrap(), [1.0, 1.0, 2.0, 3.0, 3.0, 3.0]);
        assert_eq!(padded("constant", &[-1, 1]).unwrap(), [2.0, 3.0, 0.0]);
        assert!(padded("constant", &[i64::MAX, i64::MAX]).is_err());
        assert!(padded("constant", &[-2, -2]).is_err());
        assert!(padded("sideways", &[1, 1]).is_err());
    }
}
