//! What shows only beyond the sizes that are tried: a `Slice` that leaves the first 16,000 positions, a size that is limited.

use super::Search;
use super::other_sizes::{Claim, deciding};
use crate::evaluate::{Evaluator, Precision};
use crate::graph::{NodeId, ValueId};
use crate::recognize::observe::survey::Survey;
use crate::tensor::{ElementType, Tensor};

/// Sizes from here on are no sizes: exporters write them for "all", that of TensorFlow's graphs the least.
const ALL: f64 = 1e9;

/// A value that stays as it is beside a size, in two surveys; none where they have no such thing.
type Seen = [Tensor; 2];

impl Search<'_> {
    /// The node on the way to a claim's output, and the size, that changes what is computed beyond all that was seen in the two
    /// surveys. None where there is none, or where it cannot be told.
    pub(super) fn limit_beyond(&self, claim: &Claim, other: &Survey) -> Option<(String, f64)> {
        let flow = &self.places[claim.place].flow;
        let limits = |node: &NodeId| {
            matches!(
                flow.graph.node[*node].op_type(),
                "Slice"
                    | "Min"
                    | "Max"
                    | "Clip"
                    | "Equal"
                    | "Less"
                    | "LessOrEqual"
                    | "Greater"
                    | "GreaterOrEqual"
            )
        };
        let (nodes, _) = deciding(flow, claim.input, claim.output);
        nodes.iter().filter(|node| limits(node)).find_map(|&node| {
            let proto = &flow.graph.node[node];
            let reads: Vec<ValueId> = proto.input.iter().filter_map(|name| flow.id(name)).collect();
            let seen = self.seen_in_both(claim, other, &reads)?;
            let size = if proto.op_type() == "Slice" { cut_beyond(&seen) } else { compared_beyond(&seen) };
            Some((format!("`{}` ({})", proto.output.first()?, proto.op_type()), size?))
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

/// Where a `Slice` of these inputs begins to cut off what it leaves in both: an axis of it is of two sizes, and neither is larger than
/// where it ends, or than what it leaves of the end.
fn cut_beyond(inputs: &[Seen]) -> Option<f64> {
    let [data, starts, ends, more @ ..] = inputs else { return None };
    let (starts, ends) = (fixed(starts), fixed(ends));
    let axes = more.first().map(fixed);
    let rank = data[0].dims().len();
    let axis = |at: usize| match &axes {
        Some(axes) => axes.get(at).map(|axis| (*axis as isize).rem_euclid(rank.max(1) as isize) as usize),
        None => Some(at),
    };
    let cut = (0..starts.len().max(ends.len())).filter_map(|at| {
        let axis = axis(at)?;
        let size = |of: usize| data[of].dims().get(axis).copied();
        let (one, other) = (size(0)?, size(1)?);
        let from_end = starts.get(at).filter(|start| **start < 0.0).map(|start| start.abs());
        let limits = from_end.into_iter().chain(ends.get(at).copied());
        let is_beyond = |limit: &f64| one != other && (one.max(other) as f64..ALL).contains(limit);
        limits.filter(is_beyond).reduce(f64::min)
    });
    cut.reduce(f64::min)
}

/// What is larger than every size that it is compared with.
fn compared_beyond(inputs: &[Seen]) -> Option<f64> {
    let sizes = inputs.iter().filter(|input| fixed(input).is_empty());
    let largest = sizes.flat_map(|sizes| sizes.iter().flat_map(Tensor::to_f64)).reduce(f64::max)?;
    let limits = inputs.iter().flat_map(fixed);
    limits.filter(|limit| *limit > largest && (2.0..ALL).contains(limit)).reduce(f64::min)
}

/// The numbers of what is the same in both surveys; none of what differs.
fn fixed([first, second]: &Seen) -> Vec<f64> {
    let numbers = first.to_f64();
    if numbers == second.to_f64() { numbers } else { Vec::new() }
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
            cut_beyond(&[data(sizes), same(&[starts]), same(&[ends]), same(&[2.0])])
        };
        assert_eq!(cut([63, 520], 0.0, 16_000.0), Some(16_000.0));
        assert_eq!(cut([63, 520], -600.0, ALL), Some(600.0));
        assert_eq!(cut([63, 520], 0.0, 520.0), Some(520.0));
        // It does so where it was seen, or never.
        assert_eq!(cut([63, 520], 0.0, 100.0), None);
        assert_eq!(cut([63, 520], 0.0, ALL), None);
        assert_eq!(cut([63, 63], 0.0, 16_000.0), None);
        // Only along its own axes.
        let along = |axes: &[f64]| {
            let axes = (!axes.is_empty()).then(|| same(axes));
            let inputs = [data([63, 520]), same(&[0.0]), same(&[16_000.0])].into_iter().chain(axes);
            cut_beyond(&inputs.collect::<Vec<_>>())
        };
        assert_eq!((along(&[-1.0]), along(&[1.0]), along(&[])), (Some(16_000.0), None, None));
        // What ends with the axis.
        assert_eq!(cut_beyond(&[data([63, 520]), same(&[0.0]), both(&[63.0], &[520.0])]), None);
    }

    #[test]
    fn a_limit_is_larger_than_what_it_is_compared_with() {
        let size = both(&[63.0], &[520.0]);
        assert_eq!(compared_beyond(&[size.clone(), same(&[196.0])]), None);
        assert_eq!(compared_beyond(&[same(&[600.0]), size.clone()]), Some(600.0));
        assert_eq!(compared_beyond(&[size.clone(), same(&[-1.0])]), None);
        assert_eq!(compared_beyond(&[size, same(&[ALL])]), None);
        // Nothing of it is open.
        assert_eq!(compared_beyond(&[same(&[5.0]), same(&[9.0])]), None);
    }
}
