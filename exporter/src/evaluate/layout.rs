//! The same elements in another shape or order, and tensors made of shapes.

use anyhow::{Context, Result, bail, ensure};
use ndarray::{Axis, IxDyn, concatenate};

use super::call::{Call, axes, axis, for_training, size, truth};
use super::elementwise::common_shape;
use super::value::{Array, Data, Dense, Value, array, check_rank, elements, full, map_data, reshaped};
use crate::runtime::Mistake;
use crate::tensor::ElementType;

fn in_shape(input: &Dense, dims: &[usize]) -> Result<Dense> {
    let data = map_data!(&input.data, array => reshaped(array, dims)?);
    Ok(Dense::new(input.declared, data))
}

/// The input as it is, and a mask that lets everything through.
pub(super) fn dropout(call: &Call) -> Result<Vec<Value>> {
    let input = call.input(0)?;
    let training = call.optional(2)?.map(truth).transpose()?.unwrap_or(false);
    ensure!(!training, for_training());
    let mask = Dense::bool(full(input.dims(), true)?);
    Ok(vec![input.clone().into(), mask.into()])
}

/// Another shape: 0 keeps a size, −1 is what is left.
pub(super) fn reshape(call: &Call) -> Result<Dense> {
    let input = call.input(0)?;
    let target = call.ints_or_input("shape", 1)?.context("there is no shape")?;
    let keep_zero = call.int("allowzero", 0) != 0;
    let mut rest = None;
    let mut dims = Vec::with_capacity(target.len());
    for (place, &dim) in target.iter().enumerate() {
        dims.push(match dim {
            -1 => {
                ensure!(rest.replace(place).is_none(), "the shape {target:?} leaves two sizes open");
                1
            }
            0 if !keep_zero => {
                *input.dims().get(place).context("a size is kept that the input does not have")?
            }
            dim => size(dim)?,
        });
    }
    if let Some(place) = rest {
        let (all, known) = (input.dims().iter().product::<usize>(), elements(&dims)?);
        let mistake = || Mistake::Said(format!("{:?} cannot become {target:?}", input.dims()));
        ensure!(known != 0 && all.is_multiple_of(known), mistake());
        dims[place] = all / known;
    } else if keep_zero || !target.contains(&0) {
        let from = input.dims().to_vec();
        let fills = elements(&dims)? == from.iter().product::<usize>();
        ensure!(fills, Mistake::Shape { from, to: dims });
    }
    in_shape(input, &dims)
}

/// Axes in another order, the reverse one where none is given.
pub(super) fn transpose(call: &Call) -> Result<Dense> {
    let input = call.input(0)?;
    let order: Vec<usize> = match call.ints("perm") {
        Some(order) => order.iter().map(|&given| axis(given, input.rank())).collect::<Result<_>>()?,
        None => (0..input.rank()).rev().collect(),
    };
    permuted(input, &order)
}

/// Axes in another order.
pub(super) fn permuted(input: &Dense, order: &[usize]) -> Result<Dense> {
    Ok(Dense::new(input.declared, map_data!(&input.data, array => permuted_array(array, order)?)))
}

/// Axes in another order.
pub(super) fn permuted_array<T: Clone>(array: &Array<T>, order: &[usize]) -> Result<Array<T>> {
    let mut sorted = order.to_vec();
    sorted.sort_unstable();
    ensure!(sorted.into_iter().eq(0..array.ndim()), "{order:?} is no order of {} axes", array.ndim());
    Ok(array.clone().permuted_axes(IxDyn(order)))
}

/// Without axes of size 1.
pub(super) fn squeeze(call: &Call) -> Result<Dense> {
    let input = call.input(0)?;
    let dims = input.dims();
    let gone = match call.ints_or_input("axes", 1)? {
        Some(given) => axes(&given, dims.len())?,
        None => (0..dims.len()).filter(|&axis| dims[axis] == 1).collect(),
    };
    ensure!(gone.iter().all(|&axis| dims[axis] == 1), "an axis that goes is not of size 1 in {dims:?}");
    let left: Vec<usize> =
        (0..dims.len()).filter(|axis| !gone.contains(axis)).map(|axis| dims[axis]).collect();
    in_shape(input, &left)
}

/// With more axes of size 1.
pub(super) fn unsqueeze(call: &Call) -> Result<Dense> {
    let input = call.input(0)?;
    let given = call.ints_or_input("axes", 1)?.context("there are no axes")?;
    // Before any time is spent on them.
    let rank = check_rank(input.rank() + given.len())?;
    let new = axes(&given, rank)?;
    let mut old = input.dims().iter();
    let dims: Vec<usize> = (0..rank)
        .map(|axis| if new.contains(&axis) { 1 } else { old.next().copied().unwrap_or(1) })
        .collect();
    in_shape(input, &dims)
}

/// Two axes: the product of those before `axis`, and of the rest.
pub(super) fn flatten(call: &Call) -> Result<Dense> {
    let input = call.input(0)?;
    let rank = input.rank();
    let given = call.int("axis", 1);
    let at = if given == rank as i64 { rank } else { call.axis(1, rank)? };
    let (before, after) = input.dims().split_at(at);
    in_shape(input, &[before.iter().product(), after.iter().product()])
}

/// Repeated along axes of size 1.
pub(super) fn expand(call: &Call) -> Result<Dense> {
    let input = call.input(0)?;
    let target = call.integers(1)?.into_iter().map(size).collect::<Result<Vec<_>>>()?;
    let dims = common_shape([input.dims(), &target])?;
    if dims == input.dims() {
        return Ok(input.clone());
    }
    let data = map_data!(&input.data, array => {
        array.broadcast(IxDyn(&dims)).context("shapes do not broadcast")?.to_owned().into_shared()
    });
    Ok(Dense::new(input.declared, data))
}

fn all_of_one<T: Clone>(parts: &[Option<&Array<T>>], along: usize) -> Result<Array<T>> {
    let views = parts.iter().map(|part| Some(part.as_ref()?.view())).collect::<Option<Vec<_>>>();
    let views = views.context("the parts are not of one element type")?;
    let first = views.first().context("there are no parts")?;
    ensure!(along < first.ndim(), "axis {along} of a tensor with {} axes", first.ndim());
    ensure!(views.iter().all(|view| view.ndim() == first.ndim()), "the parts have different ranks");
    let mut dims = first.shape().to_vec();
    dims[along] = views.iter().map(|view| view.shape()[along]).sum();
    elements(&dims)?;
    Ok(concatenate(Axis(along), &views).context("the parts do not fit together")?.into_shared())
}

/// Parts put together along an axis.
pub(super) fn joined(parts: &[&Data], along: usize) -> Result<Data> {
    Ok(match parts.first().context("there are no parts")? {
        Data::Float(_) => {
            let parts =
                parts.iter().map(|part| if let Data::Float(array) = part { Some(array) } else { None });
            Data::Float(all_of_one(&parts.collect::<Vec<_>>(), along)?)
        }
        Data::Int(_) => {
            let parts = parts.iter().map(|part| if let Data::Int(array) = part { Some(array) } else { None });
            Data::Int(all_of_one(&parts.collect::<Vec<_>>(), along)?)
        }
        Data::Bool(_) => {
            let parts =
                parts.iter().map(|part| if let Data::Bool(array) = part { Some(array) } else { None });
            Data::Bool(all_of_one(&parts.collect::<Vec<_>>(), along)?)
        }
    })
}

/// The inputs put together along an axis.
pub(super) fn concat(call: &Call) -> Result<Dense> {
    let parts = (0..call.inputs.len()).map(|index| call.input(index)).collect::<Result<Vec<_>>>()?;
    let first = *parts.first().context("there are no parts")?;
    let along = call.axis(1, first.rank())?;
    Ok(Dense::new(first.declared, joined(&parts.iter().map(|part| &part.data).collect::<Vec<_>>(), along)?))
}

/// Repeated along every axis.
pub(super) fn tile(call: &Call) -> Result<Dense> {
    let input = call.input(0)?;
    let repeats = call.integers(1)?.into_iter().map(size).collect::<Result<Vec<_>>>()?;
    let rank = input.rank();
    ensure!(repeats.len() == rank, "{} repeats for {rank} axes", repeats.len());
    let mut dims = Vec::with_capacity(rank);
    for (&dim, &count) in input.dims().iter().zip(&repeats) {
        dims.push(dim.checked_mul(count).context("too many repeats")?);
    }
    elements(&dims)?;
    // Each axis becomes two: how often, and what.
    let split: Vec<usize> = input.dims().iter().flat_map(|&dim| [1, dim]).collect();
    let wide: Vec<usize> =
        input.dims().iter().zip(&repeats).flat_map(|(&dim, &count)| [count, dim]).collect();
    elements(&wide)?;
    let data = map_data!(&input.data, array => {
        let split = reshaped(array, &split)?;
        let wide = split.broadcast(IxDyn(&wide)).context("too many repeats")?.to_owned().into_shared();
        reshaped(&wide, &dims)?
    });
    Ok(Dense::new(input.declared, data))
}

/// The part of a tensor from one place on along an axis.
pub(super) fn part(input: &Dense, along: usize, from: usize, length: usize) -> Dense {
    let range = ndarray::Slice::from(from..from + length);
    Dense::new(
        input.declared,
        map_data!(&input.data, array => array.slice_axis(Axis(along), range).to_shared()),
    )
}

/// Parts along an axis.
pub(super) fn split(call: &Call) -> Result<Vec<Value>> {
    let input = call.input(0)?;
    let along = call.axis(0, input.rank())?;
    let whole = input.dims()[along];
    let lengths = if let Some(lengths) = call.ints_or_input("split", 1)? {
        lengths.into_iter().map(size).collect::<Result<Vec<_>>>()?
    } else {
        let named = call.node.output.len();
        let parts = usize::try_from(call.int("num_outputs", named as i64)).ok();
        let parts =
            parts.filter(|parts| (1..=named).contains(parts)).context("there is no number of parts")?;
        // The last part is the smaller one where they cannot be equal.
        let each = whole.div_ceil(parts);
        (0..parts).map(|index| each.min(whole.saturating_sub(index * each))).collect()
    };
    let (parts, named) = (lengths.len(), call.node.output.len());
    ensure!(parts == named, "{parts} parts are asked for, {named} are named");
    pieces(input, along, &lengths).map(|parts| parts.into_iter().map(Value::from).collect())
}

/// Parts of these lengths.
pub(super) fn pieces(input: &Dense, along: usize, lengths: &[usize]) -> Result<Vec<Dense>> {
    let whole = input.dims()[along];
    let sum = lengths.iter().try_fold(0_usize, |sum, &length| sum.checked_add(length));
    ensure!(sum == Some(whole), "parts of {lengths:?} do not make up {whole}");
    let mut from = 0;
    let mut parts = Vec::with_capacity(lengths.len());
    for &length in lengths {
        parts.push(part(input, along, from, length));
        from += length;
    }
    Ok(parts)
}

/// The blocks of channels as blocks of positions.
pub(super) fn depth_to_space(call: &Call) -> Result<Dense> {
    let input = call.input(0)?;
    let block = size(call.int("blocksize", 0))?;
    let &[n, c, h, w] = input.dims() else { bail!("an input with 4 axes is expected") };
    let area = block.checked_mul(block).filter(|&area| area > 0 && c.is_multiple_of(area));
    let depth = c / area.with_context(|| format!("{c} channels are no blocks of {block}²"))?;
    let (split, order) = if call.word("mode", "DCR")? == "CRD" {
        ([n, depth, block, block, h, w], [0, 1, 4, 2, 5, 3])
    } else {
        ([n, block, block, depth, h, w], [0, 3, 4, 1, 5, 2])
    };
    in_shape(&permuted(&in_shape(input, &split)?, &order)?, &[n, depth, h * block, w * block])
}

/// The blocks of positions as blocks of channels.
pub(super) fn space_to_depth(call: &Call) -> Result<Dense> {
    let input = call.input(0)?;
    let block = size(call.int("blocksize", 0))?;
    let &[n, c, h, w] = input.dims() else { bail!("an input with 4 axes is expected") };
    let whole = block > 0 && h.is_multiple_of(block) && w.is_multiple_of(block);
    let depth = block.checked_mul(block).and_then(|area| area.checked_mul(c)).filter(|_| whole);
    let depth = depth.with_context(|| format!("{h} × {w} positions are no blocks of {block}²"))?;
    let split = [n, c, h / block, block, w / block, block];
    let order = if call.word("mode", "DCR")? == "CRD" { [0, 1, 3, 5, 2, 4] } else { [0, 3, 5, 1, 2, 4] };
    in_shape(&permuted(&in_shape(input, &split)?, &order)?, &[n, depth, h / block, w / block])
}

/// Equally spaced numbers from a start to a limit.
pub(super) fn range(call: &Call) -> Result<Dense> {
    let start = call.input(0)?;
    if let Data::Int(_) = start.data {
        let (from, to, step) = (call.integer(0)?, call.integer(1)?, call.integer(2)?);
        ensure!(step != 0, "the step is zero");
        let span =
            if step > 0 { i128::from(to) - i128::from(from) } else { i128::from(from) - i128::from(to) };
        let step_size = i128::from(step.unsigned_abs());
        let count = if span > 0 { (span + step_size - 1) / step_size } else { 0 };
        let count = elements(&[usize::try_from(count)?])?;
        let values = (0..count).map(|index| from.wrapping_add(step.wrapping_mul(index as i64))).collect();
        return Ok(Dense::new(start.declared, Data::Int(array(&[count], values)?)));
    }
    let number = |index| call.optional_number(index)?.context("an input is missing");
    let (from, to, step) = (number(0)?, number(1)?, number(2)?);
    let count = ((to - from) / step).ceil().max(0.0);
    ensure!(count.is_finite() && step != 0.0, "no numbers from {from} to {to} in steps of {step}");
    let count = elements(&[count as usize])?;
    let values = (0..count).map(|index| from + step * index as f64).collect();
    Ok(Dense::float(start.declared, array(&[count], values)?))
}

/// A tensor of a given shape full of one value.
pub(super) fn constant_of_shape(call: &Call) -> Result<Dense> {
    let dims = call.integers(0)?.into_iter().map(size).collect::<Result<Vec<_>>>()?;
    let Some(value) = call.attribute("value").and_then(|value| value.t.as_deref()) else {
        return Ok(Dense::float(ElementType::F32, full(&dims, 0.0)?));
    };
    let value = Dense::decode(value)?;
    let data = map_data!(&value.data, array => {
        full(&dims, array.first().context("the value is empty")?.to_owned())?
    });
    Ok(Dense::new(value.declared, data))
}

/// The sizes along the axes from `start` to `end`.
pub(super) fn shape(call: &Call) -> Result<Dense> {
    let dims = call.input(0)?.dims();
    let rank = dims.len() as i64;
    let bound = |name: &str, default: i64| {
        let given = call.int(name, default);
        (if given < 0 { given.saturating_add(rank) } else { given }).clamp(0, rank) as usize
    };
    let (start, end) = (bound("start", 0), bound("end", rank));
    Dense::vector(dims.get(start..end).unwrap_or_default().iter().map(|&dim| dim as i64).collect())
}

/// The number of elements.
pub(super) fn size_of(call: &Call) -> Result<Dense> {
    Ok(Dense::int(full(&[], call.input(0)?.dims().iter().product::<usize>() as i64)?))
}

#[cfg(test)]
mod tests {
    use isqrt_cov_proto::onnx::{AttributeProto, NodeProto};

    use crate::evaluate::tests::{all, floats, ints, one};

    #[test]
    fn the_last_part_is_what_is_left() {
        let x = floats(&[5], &[0.0, 1.0, 2.0, 3.0, 4.0]);
        let node =
            NodeProto::new("Split", &["x"], &["a", "b", "c"]).with(AttributeProto::int("num_outputs", 3));
        let parts = all(node, 18, &[x]).unwrap();
        assert_eq!(parts.iter().map(|part| part.dims()[0]).collect::<Vec<_>>(), [2, 2, 1]);
        assert_eq!(parts[2].to_f64(), [4.0]);
    }

    #[test]
    fn shapes_keep_sizes_and_leave_one_open() {
        let reshaped = |shape: &[i64], zero: i64| {
            let node = NodeProto::new("Reshape", &["x", "shape"], &["y"])
                .with(AttributeProto::int("allowzero", zero));
            one(node, 14, &[floats(&[2, 3], &[0.0; 6]), ints(shape)]).map(|tensor| tensor.dims().to_vec())
        };
        assert_eq!(reshaped(&[0, -1], 0).unwrap(), [2, 3]);
        assert_eq!(reshaped(&[-1, 2], 0).unwrap(), [3, 2]);
        for wrong in [&[-1, -1][..], &[4, -1], &[-2], &[1, 2, 0], &[i64::MAX, i64::MAX]] {
            assert!(reshaped(wrong, 0).is_err(), "{wrong:?}");
        }
        assert!(reshaped(&[0, -1], 1).is_err());
    }

    #[test]
    fn shapes_are_read_in_part() {
        let node = NodeProto::new("Shape", &["x"], &["y"])
            .with(AttributeProto::int("start", -2))
            .with(AttributeProto::int("end", 100));
        assert_eq!(one(node, 15, &[floats(&[1, 2, 3], &[0.0; 6])]).unwrap(), ints(&[2, 3]));
    }
}
