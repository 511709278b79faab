//! What shows only beyond the sizes that are tried: a `Slice` that leaves the first 16,000 positions, a size that is limited.

use std::collections::HashMap;

use isqrt_cov_proto::TensorData;
use isqrt_cov_proto::onnx::NodeProto;

use super::Search;
use super::other_sizes::{Claim, FEW_TRIES, deciding};
use crate::budget;
use crate::evaluate::{Evaluator, Precision};
use crate::graph::{Flow, ValueId, compares};
use crate::recognize::observe::survey::Survey;
use crate::tensor::{ElementType, Tensor};

/// Sizes from here on are no sizes: exporters write them for "all".
const ALL: f64 = 1e7;

/// A value in two surveys.
type Seen = [Tensor; 2];

/// A size that is limited.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Limit {
    /// To what.
    to: f64,
    /// What it was in the two surveys.
    of: [f64; 2],
}

/// The lower of limits.
fn lowest(limits: impl Iterator<Item = Limit>) -> Option<Limit> {
    limits.min_by(|one, other| one.to.total_cmp(&other.to))
}

impl Search<'_> {
    /// The node on the way to a claim's output, and the size, that changes what is computed beyond all sizes at which the claim was
    /// tried, those of the two surveys among them. None where there is none, or where it cannot be told.
    pub(super) fn limit_beyond<'s>(&'s self, claim: &Claim, other: &'s Survey) -> Option<(String, f64)> {
        let flow = &self.places[claim.place].flow;
        let (nodes, _) = deciding(flow, claim.input, claim.output);
        let nodes = nodes.into_iter().map(|node| &flow.graph.node[node]).filter(|node| may_limit(flow, node));
        let read = |name: &String| flow.id(name).filter(|_| !name.is_empty());
        let nodes: Vec<(&NodeProto, Vec<Option<ValueId>>)> =
            nodes.map(|node| (node, node.input.iter().map(read).collect())).collect();
        let mut values: Vec<ValueId> = nodes.iter().flat_map(|(_, reads)| reads).copied().flatten().collect();
        values.sort_unstable();
        values.dedup();
        if values.is_empty() {
            return None;
        }
        let seen = budget::within_half(FEW_TRIES, || self.seen_in_both(claim, other, &values))?;
        let seen: HashMap<ValueId, Seen> = values.into_iter().zip(seen).collect();
        let dims =
            |survey: &'s Survey| Some(survey.get(self.places, claim.place, claim.input)?.tensor.dims());
        let own: Vec<[f64; 2]> = dims(&self.survey)?
            .iter()
            .zip(dims(other)?)
            .map(|(&one, &other)| [one as f64, other as f64])
            .collect();
        nodes.iter().find_map(|(node, reads)| {
            let inputs: Vec<Option<&Seen>> = reads.iter().map(|read| seen.get(read.as_ref()?)).collect();
            let limit = if node.is("Slice") { cut_beyond(&inputs) } else { compared_beyond(node, &inputs) }?;
            // A size of the input was tried beyond it.
            let is_tried = limit.to < claim.tried as f64 && own.contains(&limit.of);
            let place = format!("`{}` ({})", node.output.first()?, node.op_type());
            (!is_tried).then_some((place, limit.to))
        })
    }

    /// Values on the way to a claim's output, in the first survey and in another.
    fn seen_in_both(&self, claim: &Claim, other: &Survey, values: &[ValueId]) -> Option<Vec<Seen>> {
        let of = |survey: &Survey| -> Option<Vec<Tensor>> {
            let seen = survey.get(self.places, claim.place, claim.input)?;
            let frozen = survey.frozen(self.places, claim.place);
            let subject = self.claimed(claim, seen, frozen);
            let part = subject.part(values);
            let input = Tensor::zeros(ElementType::F64, &subject.dims());
            Evaluator::new(&part, Precision::Exact, Some(self.runtime)).ok()?.run(&[input]).ok()
        };
        let (first, second) = (of(&self.survey)?, of(other)?);
        Some(first.into_iter().zip(second).map(|(first, second)| [first, second]).collect())
    }
}

/// Whether a node may limit a size, as far as its constants tell.
fn may_limit(flow: &Flow, node: &NodeProto) -> bool {
    if !node.is("Slice") {
        let limits = ["Clip", "Max", "Min", "Mod", "ReduceMax", "ReduceMin", "Relu"];
        return compares(node) || limits.contains(&node.op_type());
    }
    let constant = |at: usize| {
        let tensor = flow.small_constant(flow.id(node.input.get(at)?)?)?;
        TensorData::inline(&tensor).ok()?.to_i64()
    };
    let is_whole = |at: usize, is: fn(&i64) -> bool| constant(at).is_some_and(|sizes| sizes.iter().all(is));
    !(is_whole(1, |start| *start >= 0) && is_whole(2, |end| *end as f64 >= ALL))
}

/// Where a `Slice` of these inputs begins to cut off what it leaves in both: an axis of it is of two sizes, and neither is larger than
/// where it ends, or than what it leaves of the end.
fn cut_beyond(inputs: &[Option<&Seen>]) -> Option<Limit> {
    let [Some(data), Some(starts), Some(ends), more @ ..] = inputs else { return None };
    let (starts, ends) = (fixed(starts), fixed(ends));
    let axes = more.first().copied().flatten().map(fixed);
    let rank = data[0].dims().len();
    let axis = |at: usize| match &axes {
        Some(axes) => axes
            .get(at)
            .copied()
            .flatten()
            .map(|axis| (axis as isize).rem_euclid(rank.max(1) as isize) as usize),
        None => Some(at),
    };
    let cut = (0..starts.len().max(ends.len())).filter_map(|at| {
        let axis = axis(at)?;
        let size = |of: usize| data[of].dims().get(axis).copied();
        let (one, other) = (size(0)?, size(1)?);
        let [start, end] = [&starts, &ends].map(|limits| limits.get(at).copied().flatten());
        let from_end = start.filter(|start| *start < 0.0).map(f64::abs);
        let limits = from_end.into_iter().chain(end);
        let is_beyond = |limit: &f64| one != other && (one.max(other) as f64..ALL).contains(limit);
        let of = [one as f64, other as f64];
        lowest(limits.filter(is_beyond).map(|to| Limit { to, of }))
    });
    lowest(cut)
}

/// What is larger than every size that a node compares it with, number by number; what is made of one list is compared in itself, or
/// with 0.
fn compared_beyond(node: &NodeProto, inputs: &[Option<&Seen>]) -> Option<Limit> {
    let numbers = |seen: &Seen| seen.each_ref().map(Tensor::to_f64);
    let mut sides: Vec<[Vec<f64>; 2]> = inputs.iter().copied().flatten().map(numbers).collect();
    if node.op_type().starts_with("Reduce") {
        let [[first, second], ..] = &sides[..] else { return None };
        sides = first.iter().zip(second).map(|(&one, &other)| [vec![one], vec![other]]).collect();
    } else if node.is("Relu") {
        sides.push([vec![0.0], vec![0.0]]);
    }
    let length = sides.iter().flatten().map(Vec::len).max()?;
    let limit = (0..length).filter_map(|at| {
        // One number stands beside all.
        let number = |side: &Vec<f64>| if side.len() == 1 { side.first() } else { side.get(at) }.copied();
        let pairs = sides.iter().filter_map(|[first, second]| Some([number(first)?, number(second)?]));
        let (limits, sizes): (Vec<_>, Vec<_>) = pairs.partition(|[one, other]| one.total_cmp(other).is_eq());
        let of = sizes.into_iter().reduce(|one, other| [one[0].max(other[0]), one[1].max(other[1])])?;
        let is_beyond = |limit: &f64| *limit > of[0].max(of[1]) && *limit < ALL;
        lowest(limits.into_iter().map(|[to, _]| to).filter(is_beyond).map(|to| Limit { to, of }))
    });
    lowest(limit)
}

/// The numbers that are the same in both surveys; none for those that differ.
fn fixed([first, second]: &Seen) -> Vec<Option<f64>> {
    let pairs = first.to_f64().into_iter().zip(second.to_f64());
    pairs.map(|(one, other)| (one.total_cmp(&other).is_eq()).then_some(one)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(first: &[f64], second: &[f64]) -> Seen {
        [first, second].map(|values| Tensor::from_f64(ElementType::F64, &[values.len()], values))
    }

    fn same(values: &[f64]) -> Seen {
        both(values, values)
    }

    #[test]
    fn a_slice_cuts_off_where_an_open_axis_grows_beyond_its_end() {
        let data = |sizes: [usize; 2]| sizes.map(|size| Tensor::zeros(ElementType::F64, &[2, 8, size]));
        let cut = |sizes, starts: f64, ends: f64| {
            let seen = [data(sizes), same(&[starts]), same(&[ends]), same(&[2.0])];
            cut_beyond(&seen.each_ref().map(Some)).map(|limit| limit.to)
        };
        assert_eq!(cut([63, 520], 0.0, 16_000.0), Some(16_000.0));
        assert_eq!(cut([63, 520], -600.0, ALL), Some(600.0));
        assert_eq!(cut([63, 520], 0.0, 520.0), Some(520.0));
        // It does so where it was seen, or never.
        assert_eq!(cut([63, 520], 0.0, 100.0), None);
        assert_eq!(cut([63, 520], 0.0, ALL), None);
        assert_eq!(cut([63, 63], 0.0, 16_000.0), None);
        // Only along its own axes, which are the first where none are given, whatever its steps.
        let along = |axes: Option<&[f64]>, ends: &[f64]| {
            let starts = vec![0.0; ends.len()];
            let seen = [data([63, 520]), same(&starts), same(ends), same(&[1.0])];
            let axes = axes.map(same);
            cut_beyond(&[Some(&seen[0]), Some(&seen[1]), Some(&seen[2]), axes.as_ref(), Some(&seen[3])])
                .map(|limit| limit.to)
        };
        assert_eq!(along(Some(&[-1.0]), &[16_000.0]), Some(16_000.0));
        assert_eq!(along(Some(&[1.0]), &[16_000.0]), None);
        assert_eq!((along(None, &[16_000.0]), along(None, &[ALL, ALL, 16_000.0])), (None, Some(16_000.0)));
        // Beside an end that a shape says.
        let seen =
            [data([63, 520]), same(&[0.0, 0.0]), both(&[2.0, 16_000.0], &[3.0, 16_000.0]), same(&[0.0, 2.0])];
        let limit = cut_beyond(&seen.each_ref().map(Some));
        assert_eq!(limit.map(|limit| limit.to), Some(16_000.0));
    }

    #[test]
    fn a_limit_is_larger_than_what_it_is_compared_with() {
        let beyond = |operator: &str, seen: &[Seen]| {
            let node = NodeProto::new(operator, &["x"], &["y"]);
            compared_beyond(&node, &seen.iter().map(Some).collect::<Vec<_>>()).map(|limit| limit.to)
        };
        let size = both(&[63.0], &[520.0]);
        assert_eq!(beyond("Min", &[size.clone(), same(&[196.0])]), None);
        assert_eq!(beyond("Less", &[same(&[600.0]), size.clone()]), Some(600.0));
        assert_eq!(beyond("Equal", &[size.clone(), same(&[-1.0])]), None);
        assert_eq!(beyond("Clip", &[size, same(&[1.0]), same(&[ALL])]), None);
        // Nothing of it is open, or not there.
        assert_eq!(beyond("Max", &[same(&[5.0]), same(&[9.0])]), None);
        let shape = both(&[2.0, 1.0, 1.0], &[3.0, 1.0, 1.0]);
        assert_eq!(beyond("Max", &[shape, same(&[1.0, 8.0, 8.0])]), None);
        // What a list is of, and what is left of a size.
        let list = both(&[63.0, 16_000.0], &[520.0, 16_000.0]);
        assert_eq!(beyond("ReduceMin", &[list]), Some(16_000.0));
        let left = both(&[63.0 - 16_000.0], &[520.0 - 16_000.0]);
        assert_eq!(
            (beyond("Relu", std::slice::from_ref(&left)), beyond("Max", &[left, same(&[0.0])])),
            (Some(0.0), Some(0.0))
        );
    }
}
