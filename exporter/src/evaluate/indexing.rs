//! Elements found by their place, and places found by their elements.

use anyhow::{Context, Result, ensure};

use super::call::{Call, axis, size};
use super::value::{Array, Dense, array, elements, flat, map_data};

/// A place along an axis, counted from the end where negative.
pub(super) fn place(index: i64, length: usize) -> Result<usize> {
    let counted = if index < 0 { index.saturating_add(length as i64) } else { index };
    let inside = usize::try_from(counted).ok().filter(|&place| place < length);
    inside.with_context(|| format!("index {index} along an axis of {length}"))
}

/// The sizes before an axis, along it, and after it, each as one.
pub(super) fn around(dims: &[usize], along: usize) -> (usize, usize, usize) {
    (dims[..along].iter().product(), dims[along], dims[along + 1..].iter().product())
}

/// Slices along an axis by their places.
pub(super) fn gather(call: &Call) -> Result<Dense> {
    fn gathered<T: Clone>(
        values: &Array<T>,
        along: usize,
        places: &[usize],
        dims: &[usize],
    ) -> Result<Array<T>> {
        let (outer, length, inner) = around(values.shape(), along);
        let mut made = Vec::with_capacity(elements(dims)?);
        let values = flat(values);
        for block in 0..outer {
            for at in places {
                let from = (block * length + at) * inner;
                made.extend_from_slice(&values[from..from + inner]);
            }
        }
        array(dims, made)
    }
    let (input, indices) = (call.input(0)?, call.input(1)?);
    let along = call.axis(0, input.rank())?;
    let length = input.dims()[along];
    let places = indices.ints()?.iter().map(|&index| place(index, length)).collect::<Result<Vec<_>>>()?;
    let dims = [&input.dims()[..along], indices.dims(), &input.dims()[along + 1..]].concat();
    elements(&dims)?;
    let data = map_data!(&input.data, values => gathered(values, along, &places, &dims)?);
    Ok(Dense::new(input.declared, data))
}

/// Slices by tuples of places.
pub(super) fn gather_nd(call: &Call) -> Result<Dense> {
    fn gathered<T: Clone>(
        values: &Array<T>,
        offsets: &[usize],
        length: usize,
        dims: &[usize],
    ) -> Result<Array<T>> {
        let values = flat(values);
        let mut made = Vec::with_capacity(elements(dims)?);
        offsets.iter().for_each(|&offset| made.extend_from_slice(&values[offset..offset + length]));
        array(dims, made)
    }
    let (input, indices) = (call.input(0)?, call.input(1)?);
    let batch = size(call.int("batch_dims", 0))?;
    let (dims, index_dims) = (input.dims(), indices.dims());
    let (&width, index_outer) = index_dims.split_last().context("the indices have no axes")?;
    ensure!(
        batch <= index_outer.len() && batch + width <= dims.len() && dims[..batch] == index_outer[..batch],
        "indices of shape {index_dims:?} into {dims:?}, {batch} axes of batches"
    );
    let made = [index_outer, &dims[batch + width..]].concat();
    elements(&made)?;
    let tuples = index_outer.iter().product::<usize>();
    let per_batch: usize = index_outer[batch..].iter().product();
    let stride: usize = dims[batch..].iter().product();
    let length: usize = dims[batch + width..].iter().product();
    let flat_indices = flat(indices.ints()?);
    let mut offsets = Vec::with_capacity(tuples);
    for tuple in 0..tuples {
        let mut offset = 0;
        for (part, &dim) in dims[batch..batch + width].iter().enumerate() {
            offset = offset * dim + place(flat_indices[tuple * width + part], dim)?;
        }
        offsets.push(tuple / per_batch.max(1) * stride + offset * length);
    }
    let data = map_data!(&input.data, values => gathered(values, &offsets, length, &made)?);
    Ok(Dense::new(input.declared, data))
}

/// For each element of `indices` where along an axis of `dims` it points, as an offset.
pub(super) fn offsets(dims: &[usize], indices: &Array<i64>, along: usize) -> Result<Vec<usize>> {
    let shape = indices.shape();
    ensure!(shape.len() == dims.len(), "indices of shape {shape:?} into {dims:?}");
    let fits = (0..dims.len()).all(|axis| axis == along || shape[axis] <= dims[axis]);
    ensure!(fits || shape.contains(&0), "indices of shape {shape:?} into {dims:?}");
    let mut offsets = Vec::with_capacity(indices.len());
    for (index, &to) in indices.indexed_iter() {
        let mut offset = 0;
        for (axis, &at) in ndarray::Dimension::slice(&index).iter().enumerate() {
            offset = offset * dims[axis] + if axis == along { place(to, dims[axis])? } else { at };
        }
        offsets.push(offset);
    }
    Ok(offsets)
}

/// Elements by their place along an axis.
pub(super) fn gather_elements(call: &Call) -> Result<Dense> {
    let (input, indices) = (call.input(0)?, call.input(1)?);
    let along = call.axis(0, input.rank())?;
    let offsets = offsets(input.dims(), indices.ints()?, along)?;
    let data = map_data!(&input.data, values => {
        let values = flat(values);
        array(indices.dims(), offsets.iter().map(|&offset| values[offset]).collect())?
    });
    Ok(Dense::new(input.declared, data))
}

/// The slices along an axis whose condition holds; of the elements where no axis is given.
pub(super) fn compress(call: &Call) -> Result<Dense> {
    let (input, condition) = (call.input(0)?, call.input(1)?.bools()?);
    let kept: Vec<usize> =
        condition.iter().enumerate().filter_map(|(place, &keep)| keep.then_some(place)).collect();
    let (data, along) = if call.attribute("axis").is_some() {
        (input.data.clone(), call.axis(0, input.rank())?)
    } else {
        let count = input.dims().iter().product();
        (map_data!(&input.data, values => super::value::reshaped(values, &[count])?), 0)
    };
    let length = data.dims()[along];
    ensure!(kept.last().is_none_or(|&last| last < length), "the condition is longer than the axis");
    let data = map_data!(&data, values => values.select(ndarray::Axis(along), &kept).into_shared());
    Ok(Dense::new(input.declared, data))
}

/// The places of the elements that are not zero, one column each.
pub(super) fn non_zero(call: &Call) -> Result<Dense> {
    let input = call.input(0)?;
    let found = input.data.to_bool();
    let (rank, count) = (input.rank(), found.iter().filter(|&&set| set).count());
    let mut values = vec![0; elements(&[rank, count])?];
    for (column, (index, _)) in found.indexed_iter().filter(|&(_, &set)| set).enumerate() {
        for (axis, &at) in ndarray::Dimension::slice(&index).iter().enumerate() {
            values[axis * count + column] = at as i64;
        }
    }
    Ok(Dense::int(array(&[rank, count], values)?))
}

/// Vectors with one value at the places given and another elsewhere.
pub(super) fn one_hot(call: &Call) -> Result<Dense> {
    let (indices, values) = (call.input(0)?, call.input(2)?);
    let depth = call.input(1)?.data.to_i64();
    ensure!(depth.len() == 1, "one depth is expected");
    let depth = size(depth.first().copied().unwrap_or(0))?;
    let along = axis(call.int("axis", -1), indices.rank() + 1)?;
    let mut dims = indices.dims().to_vec();
    dims.insert(along, depth);
    let count = elements(&dims)?;
    let (_, _, inner) = around(&dims, along);
    let indices = flat(&indices.data.to_i64()).into_owned();
    let data = map_data!(&values.data, values => {
        let values = flat(values);
        ensure!(values.len() == 2, "two values are expected");
        let mut made = vec![values[0]; count];
        for (at, &index) in indices.iter().enumerate() {
            if let Ok(index) = place(index, depth) {
                made[(at / inner * depth + index) * inner + at % inner] = values[1];
            }
        }
        array(&dims, made)?
    });
    Ok(Dense::new(values.declared, data))
}
