//! Sequences of tensors.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};

use super::call::{Call, axis, size};
use super::layout::{joined, pieces};
use super::value::{Data, Dense, TENSOR, Value, elements, map_data};

fn made(tensors: Vec<Dense>) -> Vec<Value> {
    vec![Value::Sequence(Arc::new(tensors))]
}

/// The place of an element, or one past the last where `end` is allowed.
fn place(call: &Call, input: usize, length: usize, end: bool) -> Result<usize> {
    let index = call.integer(input)?;
    let counted = if index < 0 { index.saturating_add(length as i64) } else { index };
    let inside = usize::try_from(counted).ok().filter(|&place| place < length || (end && place == length));
    inside.with_context(|| format!("element {index} of a sequence of {length}"))
}

/// No tensors.
#[allow(clippy::unnecessary_wraps)]
pub(super) fn empty(_: &Call) -> Result<Vec<Value>> {
    Ok(made(Vec::new()))
}

/// The inputs.
pub(super) fn construct(call: &Call) -> Result<Vec<Value>> {
    let tensors = (0..call.inputs.len()).map(|index| Ok(call.input(index)?.clone()));
    Ok(made(tensors.collect::<Result<_>>()?))
}

/// One tensor more, at a place or at the end.
pub(super) fn insert(call: &Call) -> Result<Vec<Value>> {
    let mut tensors = call.sequence(0)?.to_vec();
    let place =
        if call.optional(2)?.is_some() { place(call, 2, tensors.len(), true)? } else { tensors.len() };
    tensors.insert(place, call.input(1)?.clone());
    Ok(made(tensors))
}

/// One tensor less, that at a place or the last.
pub(super) fn erase(call: &Call) -> Result<Vec<Value>> {
    let mut tensors = call.sequence(0)?.to_vec();
    let last = tensors.len().checked_sub(1).context("the sequence is empty")?;
    let place = if call.optional(1)?.is_some() { place(call, 1, tensors.len(), false)? } else { last };
    tensors.remove(place);
    Ok(made(tensors))
}

/// The tensor at a place.
pub(super) fn at(call: &Call) -> Result<Dense> {
    let tensors = call.sequence(0)?;
    Ok(tensors[place(call, 1, tensors.len(), false)?].clone())
}

/// The number of tensors.
pub(super) fn length(call: &Call) -> Result<Dense> {
    Ok(Dense::int(super::value::full(&[], call.sequence(0)?.len() as i64)?))
}

/// The tensors put together along an axis, or along a new one.
pub(super) fn concat(call: &Call) -> Result<Dense> {
    let tensors = call.sequence(0)?;
    let first = tensors.first().context("the sequence is empty")?;
    let new = call.int("new_axis", 0) == 1;
    let given = call.attribute("axis").context("there is no axis")?.i();
    let along = axis(given, first.rank() + usize::from(new))?;
    let part = |tensor: &Dense| -> Result<Data> {
        ensure!(tensor.rank() == first.rank(), "the tensors have different ranks");
        Ok(if new {
            map_data!(&tensor.data, array => array.clone().insert_axis(ndarray::Axis(along)))
        } else {
            tensor.data.clone()
        })
    };
    let parts = tensors.iter().map(part).collect::<Result<Vec<_>>>()?;
    Ok(Dense::new(first.declared, joined(&parts.iter().collect::<Vec<_>>(), along)?))
}

/// The parts of a tensor along an axis.
pub(super) fn split(call: &Call) -> Result<Vec<Value>> {
    let input = call.input(0)?;
    let along = call.axis(0, input.rank())?;
    let whole = input.dims()[along];
    let each = |length: usize| -> Result<Vec<usize>> {
        ensure!(length > 0, "parts of no length");
        Ok((0..whole.div_ceil(length)).map(|index| length.min(whole - index * length)).collect())
    };
    let (lengths, squeezed) = match call.optional(1)? {
        None => (each(1)?, call.int("keepdims", 1) == 0),
        Some(given) if given.rank() == 0 => (each(size(call.integer(1)?)?)?, false),
        Some(_) => (call.integers(1)?.into_iter().map(size).collect::<Result<_>>()?, false),
    };
    elements(&[lengths.len(), TENSOR])?;
    let mut parts = pieces(input, along, &lengths)?;
    if squeezed {
        for part in &mut parts {
            part.data = map_data!(&part.data, array => array.index_axis(ndarray::Axis(along), 0).to_shared());
        }
    }
    Ok(made(parts))
}
