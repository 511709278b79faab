//! Whether what was found is the same function at other sizes, and on other numbers than those that were first seen.

use std::cell::OnceCell;
use std::collections::HashSet;

use isqrt_cov_op::OperatorKind;
use isqrt_cov_proto::onnx::TensorProto;

use super::observe::{Subject, is_symmetric};
use super::region::decides_by_size;
use super::search::Search;
use super::survey::{Seen, Survey, survey};
use super::trial::{LARGE_SIZES, OTHER_SIZES, Trial, leaves_sizes_open};
use super::{Found, Miss, explain, tolerance};
use crate::evaluate::budget;
use crate::evaluate::multiplications;
use crate::graph::{Flow, Kind, ValueId};
use crate::tensor::Tensor;

/// Sizes of the axes behind the first that a layer is tried with where sizes decide what it computes: some positions to
/// thousands.
const EXTENTS: [(usize, usize); 6] = [(3, 2), (5, 4), (12, 13), (22, 21), (34, 33), (64, 70)];

/// Samples that it is tried with.
const BATCHES: [usize; 4] = [5, 12, 40, 130];

/// Multiplications that the tries of a layer may take, and those of a single one of many samples.
const TRIES: u64 = 1 << 36;
const ONE_TRY: u64 = 1 << 33;

/// A finding that is none.
pub struct Refused {
    /// The place and the value in it from which it follows.
    pub source: (usize, ValueId),
    /// What is said of it.
    pub miss: Miss,
}

/// What the model was evaluated on to confirm findings, each when first asked for; nothing where it does not run so.
#[derive(Default)]
struct Surveys {
    other: OnceCell<Option<Survey>>,
    large: OnceCell<Option<Survey>>,
    heavy: OnceCell<Option<Survey>>,
}

impl Search<'_> {
    /// Takes back what is another function at other sizes, as the number of steps may depend on the number of samples, and
    /// roots of matrices that need not be symmetric; adds them to what was `refused`.
    pub fn confirm(&mut self, wanted: &[(usize, ValueId)], refused: &mut Vec<Refused>) {
        let mut kept = Vec::new();
        let surveys = Surveys::default();
        for found in std::mem::take(&mut self.findings.layers) {
            let source = self.input_of(&found);
            match source.and_then(|source| Some((source, self.refutation(&found, source, wanted, &surveys)?)))
            {
                None => kept.push(found),
                Some((source, reason)) => refused.push(Refused { source, miss: Miss::of(found, reason) }),
            }
        }
        self.findings.layers = kept;
    }

    fn input_of(&self, found: &Found) -> Option<(usize, ValueId)> {
        let place = self.places.iter().position(|place| place.scope == found.scope)?;
        Some((place, self.places[place].flow.id(&found.input)?))
    }

    /// The values of the model in another trial; none where it does not run.
    fn tried(&self, trial: &Trial<'_>, wanted: &[(usize, ValueId)]) -> Option<Survey> {
        survey(self.model, self.places, wanted, trial, self.runtime).ok()
    }

    /// Why a finding is none, in words.
    fn refutation(
        &self,
        found: &Found,
        (place, input): (usize, ValueId),
        wanted: &[(usize, ValueId)],
        surveys: &Surveys,
    ) -> Option<String> {
        if found.layer.operator == OperatorKind::MatrixSqrt {
            let heavy = surveys
                .heavy
                .get_or_init(|| self.tried(&Trial { heavy: true, ..self.trial }, wanted))
                .as_ref();
            let seen = heavy.and_then(|survey| survey.get(self.places, place, input));
            if seen.is_some_and(|seen| !is_symmetric(&seen.tensor)) {
                return Some(explain::not_symmetric(found));
            }
        }
        // A model that does not run with other sizes is what it is with the first.
        if !leaves_sizes_open(self.places[0].flow.graph) {
            return None;
        }
        let other = surveys.other.get_or_init(|| self.tried(&Trial::of(&OTHER_SIZES), wanted)).as_ref()?;
        let outside = |survey: &Survey| survey.frozen(self.places, place);
        let seen = other.get(self.places, place, input)?;
        if let Some(reason) = self.departs(found, place, input, seen, &outside(other)) {
            return Some(reason);
        }
        let flow = &self.places[place].flow;
        if !size_decides(flow, input, flow.id(&found.output)?) {
            return None;
        }
        match self.without_shapes(found, place, input, &outside(other)) {
            Some(frozen) => {
                let first = self.survey.get(self.places, place, input)?;
                budget::within_half(TRIES, || {
                    resized(found, first.tensor.dims(), seen.tensor.dims()).iter().find_map(|dims| {
                        let tensor = Tensor::zeros(seen.element, dims);
                        self.departs(found, place, input, &Seen { tensor, element: seen.element }, &frozen)
                    })
                })
            }
            None => budget::within_half(TRIES, || {
                let large = surveys.large.get_or_init(|| self.tried(&Trial::of(&LARGE_SIZES), wanted));
                let large = large.as_ref()?;
                let seen = large.get(self.places, place, input)?;
                self.departs(found, place, input, seen, &outside(large))
            }),
        }
    }

    /// How a layer departs from what was found, in words, where its input is like `seen`.
    fn departs(
        &self,
        found: &Found,
        place: usize,
        input: ValueId,
        seen: &Seen,
        frozen: &[TensorProto],
    ) -> Option<String> {
        let place = &self.places[place];
        let output = place.flow.id(&found.output)?;
        let subject = Subject { model: self.model, place, frozen, seen, input, products: &[] };
        let error = subject.distance(&found.layer, output, self.runtime)?;
        (error > tolerance(found.element)).then(|| explain::of_one_size(found, error, seen.tensor.dims()))
    }

    /// What a layer needs from outside without the shapes of its own input and what is made of it, so that it can be evaluated
    /// at any size. None where other shapes go into it.
    fn without_shapes(
        &self,
        found: &Found,
        place: usize,
        input: ValueId,
        frozen: &[TensorProto],
    ) -> Option<Vec<TensorProto>> {
        let (seen, place) = (self.survey.get(self.places, place, input)?, &self.places[place]);
        let flow = &place.flow;
        let follows = |value: ValueId| value == input || flow.dominators(value).any(|above| above == input);
        let is_own = |tensor: &&TensorProto| {
            let node = flow.id(tensor.name()).and_then(|value| flow.producer[value]);
            node.is_some_and(|node| flow.data_reads(node).all(follows))
        };
        let frozen: Vec<TensorProto> = frozen.iter().filter(|tensor| !is_own(tensor)).cloned().collect();
        let subject = Subject { model: self.model, place, frozen: &frozen, seen, input, products: &[] };
        let part = subject.part(&[flow.id(&found.output)?]);
        let is_shape = |tensor: &TensorProto| {
            flow.id(tensor.name()).is_some_and(|value| flow.kind[value] == Kind::Shape)
        };
        (!part.graph?.initializer.iter().any(is_shape)).then_some(frozen)
    }
}

/// Whether the sizes of an input decide which of a few cases is computed on the way to `output`, as far as this graph shows.
fn size_decides(flow: &Flow, input: ValueId, output: ValueId) -> bool {
    let mut reached = HashSet::from([input, output]);
    let mut pending = vec![output];
    while let Some(value) = pending.pop() {
        let Some(node) = flow.producer[value] else {
            if flow.kind[value] == Kind::Shape {
                return true;
            }
            continue;
        };
        if decides_by_size(flow, node) {
            return true;
        }
        // The elements that a shape is the shape of do not go into it.
        let follows = |read: &ValueId| flow.kind[value] == Kind::Data || flow.kind[*read] != Kind::Data;
        pending
            .extend(flow.reads(node).iter().copied().filter(|read| follows(read) && reached.insert(*read)));
    }
    false
}

/// Shapes of a layer's input where it was of the shapes `first` and `other` in two surveys: axes that differ are open.
fn resized(found: &Found, first: &[usize], other: &[usize]) -> Vec<Vec<usize>> {
    if first.len() != other.len() {
        return Vec::new();
    }
    let is_open = |axis: usize| first[axis] != other[axis];
    let open = (1..first.len()).filter(|&axis| is_open(axis)).count();
    let shape = |samples: usize, (one, rest): (usize, usize)| -> Vec<usize> {
        let mut sides = if open == 1 { [one * rest, 1] } else { [one, rest] }.into_iter().cycle();
        let size = |axis: usize| match axis {
            _ if !is_open(axis) => first[axis],
            0 => samples,
            _ => sides.next().unwrap_or(rest),
        };
        (0..first.len()).map(size).collect()
    };
    let mut shapes = Vec::new();
    if open > 0 {
        shapes.extend(EXTENTS.map(|extents| shape(1, extents)));
    }
    if is_open(0) {
        let is_short = |dims: &Vec<usize>| {
            let one = found.layer.extent(dims).map(|extent| multiplications(&found.layer, extent));
            one.is_ok_and(|one| (one as u64).saturating_mul(dims[0] as u64) <= ONE_TRY)
        };
        shapes.extend(BATCHES.map(|samples| shape(samples, (9, 7))).into_iter().filter(is_short));
    }
    shapes
}
