//! Elements brought to a common mean, norm or sum.

use anyhow::{Result, ensure};

use super::call::{Call, axes, axis, for_training};
use super::indexing::around;
use super::layout::permuted_array;
use super::value::{Array, Dense, Value, array, flat, reshaped};
use crate::tensor::ElementType;

/// Changes the elements along some axes, all other axes held, by a function of those elements.
fn by_rows(values: &Array<f64>, along: &[usize], f: impl Fn(&mut [f64])) -> Result<Array<f64>> {
    let kept = (0..values.ndim()).filter(|axis| !along.contains(axis));
    let order: Vec<usize> = kept.chain(along.iter().copied()).collect();
    let moved = permuted_array(values, &order)?;
    let inner: usize = along.iter().map(|&axis| values.shape()[axis]).product();
    let mut made = flat(&moved).into_owned();
    if inner > 0 {
        made.chunks_exact_mut(inner).for_each(f);
    }
    let mut back = vec![0; order.len()];
    order.iter().enumerate().for_each(|(to, &from)| back[from] = to);
    permuted_array(&array(moved.shape(), made)?, &back)
}

/// A function of the elements along `axis`; before operator set 13 of all from `axis` on.
pub(super) fn along(call: &Call, f: fn(&mut [f64])) -> Result<Dense> {
    let input = call.input(0)?;
    let rank = input.rank();
    let values = input.floats()?;
    let made = if call.opset < 13 {
        let given = call.int("axis", 1);
        let from = if given == rank as i64 { rank } else { axis(given, rank)? };
        by_rows(values, &(from..rank).collect::<Vec<_>>(), f)?
    } else if rank == 0 {
        by_rows(values, &[], f)?
    } else {
        by_rows(values, &[call.axis(-1, rank)?], f)?
    };
    Ok(Dense::float(input.declared, made))
}

/// exp(x) / Σ exp(x).
pub(super) fn softmax(row: &mut [f64]) {
    let largest = super::reduction::max(row);
    row.iter_mut().for_each(|value| *value = (*value - largest).exp());
    let sum: f64 = row.iter().sum();
    row.iter_mut().for_each(|value| *value /= sum);
}

/// x − ln Σ exp(x).
pub(super) fn log_softmax(row: &mut [f64]) {
    let sum = super::reduction::log_sum_exp(row);
    row.iter_mut().for_each(|value| *value -= sum);
}

/// Elements over their norm along an axis.
pub(super) fn lp(call: &Call) -> Result<Dense> {
    let input = call.input(0)?;
    let along = call.axis(-1, input.rank())?;
    let p = call.int("p", 2);
    ensure!(p == 1 || p == 2, "the norm of order {p} is not known");
    let made = by_rows(input.floats()?, &[along], |row| {
        let norm = if p == 1 { super::reduction::l1(row) } else { super::reduction::l2(row) };
        // The vector of zeros stays what it is.
        row.iter_mut().for_each(|value| *value = if norm == 0.0 { 0.0 } else { *value / norm });
    })?;
    Ok(Dense::float(input.declared, made))
}

/// Takes a row's mean off and divides by √(variance + ε). Returns the mean and the inverse of that root.
fn standardize(row: &mut [f64], epsilon: f64) -> (f64, f64) {
    let mean = super::reduction::mean(row);
    row.iter_mut().for_each(|value| *value -= mean);
    let scale = (super::reduction::sum_square(row) / row.len() as f64 + epsilon).sqrt().recip();
    row.iter_mut().for_each(|value| *value *= scale);
    (mean, scale)
}

/// Standardized along all axes from `axis` on; with the means and inverse deviations.
pub(super) fn layer(call: &Call) -> Result<Vec<Value>> {
    let (input, scale) = (call.input(0)?, call.input(1)?);
    let from = call.axis(-1, input.rank())?;
    let epsilon = call.float("epsilon", f64::from(1e-5_f32));
    let (outer, inner) = input.dims().split_at(from);
    let (outer_size, inner_size): (usize, usize) = (outer.iter().product(), inner.iter().product());
    let mut values = flat(input.floats()?).into_owned();
    let (mut means, mut deviations) = (Vec::with_capacity(outer_size), Vec::with_capacity(outer_size));
    if inner_size > 0 {
        for row in values.chunks_exact_mut(inner_size) {
            let (mean, deviation) = standardize(row, epsilon);
            means.push(mean);
            deviations.push(deviation);
        }
    }
    let mut made = Dense::float(input.declared, array(input.dims(), values)?);
    made = super::elementwise::binary(&made, scale, |a, b| a * b, |a, _| a)?;
    if let Some(bias) = call.optional(2)? {
        made = super::elementwise::binary(&made, bias, |a, b| a + b, |a, _| a)?;
    }
    ensure!(made.dims() == input.dims(), "scale or bias do not have the input's shape");
    let dims = [outer, &vec![1; inner.len()]].concat();
    let statistic = |values| Ok(Dense::float(ElementType::F32, array(&dims, values)?).into());
    if inner_size == 0 {
        return Ok(vec![made.into()]);
    }
    [Ok(made.into()), statistic(means), statistic(deviations)].into_iter().collect()
}

/// x·scale + shift with one scale and shift a channel, from the channel's parameters.
fn channelwise(input: &Dense, factors: &[(f64, f64)]) -> Result<Dense> {
    let (outer, channels, inner) = around(input.dims(), 1);
    let mut values = flat(input.floats()?).into_owned();
    for block in 0..outer * channels {
        let (scale, shift) = factors[block % channels];
        values[block * inner..(block + 1) * inner]
            .iter_mut()
            .for_each(|value| *value = *value * scale + shift);
    }
    Ok(Dense::float(input.declared, array(input.dims(), values)?))
}

/// The parameter at an input, one number a channel.
fn parameter(call: &Call, index: usize, channels: usize) -> Result<Vec<f64>> {
    let values = flat(call.input(index)?.floats()?).into_owned();
    ensure!(values.len() == channels, "input {index} has {} elements for {channels} channels", values.len());
    Ok(values)
}

/// Standardized along the positions of each channel of each sample.
pub(super) fn instance(call: &Call) -> Result<Dense> {
    let input = call.input(0)?;
    ensure!(input.rank() >= 3, "an input with 3 axes or more is expected");
    let epsilon = call.float("epsilon", f64::from(1e-5_f32));
    let channels = input.dims()[1];
    let (scale, shift) = (parameter(call, 1, channels)?, parameter(call, 2, channels)?);
    let positions: Vec<usize> = (2..input.rank()).collect();
    let made = by_rows(input.floats()?, &positions, |row| {
        standardize(row, epsilon);
    })?;
    let factors: Vec<(f64, f64)> = scale.into_iter().zip(shift).collect();
    channelwise(&Dense::float(input.declared, made), &factors)
}

/// Channels brought to mean and variance by the statistics of training.
pub(super) fn batch(call: &Call) -> Result<Vec<Value>> {
    let input = call.input(0)?;
    ensure!(call.int("training_mode", 0) == 0, for_training());
    let lone = input.rank() == 1;
    let input = if lone {
        Dense::float(input.declared, reshaped(input.floats()?, &[input.dims()[0], 1])?)
    } else {
        input.clone()
    };
    ensure!(input.rank() >= 2, "an input with channels is expected");
    let channels = input.dims()[1];
    let epsilon = call.float("epsilon", f64::from(1e-5_f32));
    let [scale, shift, mean, variance] = [1, 2, 3, 4].map(|index| parameter(call, index, channels));
    let (scale, shift, mean, variance) = (scale?, shift?, mean?, variance?);
    let factors: Vec<(f64, f64)> = (0..channels)
        .map(|channel| {
            let factor = scale[channel] / (variance[channel] + epsilon).sqrt();
            (factor, shift[channel] - mean[channel] * factor)
        })
        .collect();
    let mut made = channelwise(&input, &factors)?;
    if lone {
        made = Dense::float(made.declared, reshaped(made.floats()?, &[made.dims()[0]])?);
    }
    // Before operator set 14 the statistics are outputs, too.
    let mut outputs = vec![made.into()];
    for index in [3, 4, 3, 4] {
        outputs.push(call.input(index)?.clone().into());
    }
    Ok(outputs)
}

/// Standardized along axes, the variance as it is.
pub(super) fn mean_variance(call: &Call) -> Result<Dense> {
    let input = call.input(0)?;
    let along = axes(call.ints("axes").unwrap_or(&[0, 2, 3]), input.rank())?;
    let made = by_rows(input.floats()?, &along, |row| {
        let mean = super::reduction::mean(row);
        row.iter_mut().for_each(|value| *value -= mean);
        let deviation = (super::reduction::sum_square(row) / row.len() as f64).sqrt() + 1e-9;
        row.iter_mut().for_each(|value| *value /= deviation);
    })?;
    Ok(Dense::float(input.declared, made))
}
