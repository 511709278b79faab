//! Each of the elements once.

use anyhow::Result;

use super::call::Call;
use super::order::ascending;
use super::value::{Dense, Value, map_data, reshaped};

/// The distinct slices along an axis, or elements: sorted, or in the order of their first appearance; where each first
/// is, which of them each is, and how often each is there.
pub(super) fn unique(call: &Call) -> Result<Vec<Value>> {
    let input = call.input(0)?;
    let (data, along) = if call.attribute("axis").is_some() {
        (input.data.clone(), call.axis(0, input.rank())?)
    } else {
        let count = input.dims().iter().product();
        (map_data!(&input.data, values => reshaped(values, &[count])?), 0)
    };
    let numbers = data.to_f64();
    let slices: Vec<Vec<f64>> =
        numbers.axis_iter(ndarray::Axis(along)).map(|slice| slice.iter().copied().collect()).collect();
    let differ = |a: usize, b: usize| {
        slices[a].iter().zip(&slices[b]).map(|(&a, &b)| ascending(a, b)).find(|order| order.is_ne())
    };
    let compare = |&a: &usize, &b: &usize| differ(a, b).unwrap_or_else(|| a.cmp(&b));
    let mut order: Vec<usize> = (0..slices.len()).collect();
    order.sort_by(compare);
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for place in order {
        match groups.last_mut() {
            Some(group) if slices[group[0]] == slices[place] => group.push(place),
            _ => groups.push(vec![place]),
        }
    }
    if call.int("sorted", 1) == 0 {
        groups.sort_by_key(|group| group[0]);
    }
    let firsts: Vec<usize> = groups.iter().map(|group| group[0]).collect();
    let mut inverse = vec![0; slices.len()];
    for (index, group) in groups.iter().enumerate() {
        group.iter().for_each(|&place| inverse[place] = index as i64);
    }
    let distinct = map_data!(&data, values => values.select(ndarray::Axis(along), &firsts).into_shared());
    let counts = groups.iter().map(|group| group.len() as i64).collect();
    Ok(vec![
        Dense::new(input.declared, distinct).into(),
        Dense::vector(firsts.iter().map(|&place| place as i64).collect())?.into(),
        Dense::vector(inverse)?.into(),
        Dense::vector(counts)?.into(),
    ])
}
