//! Whether what was found is the same function at other sizes, and reads what it may on other numbers than those first seen.

use std::borrow::Cow;
use std::collections::HashSet;

use isqrt_cov_op::{Layer, OperatorKind};
use isqrt_cov_proto::onnx::TensorProto;

use super::Search;
use crate::budget;
use crate::evaluate::{Evaluator, Precision, multiplications};
use crate::found::Found;
use crate::graph::{Flow, Kind, NodeId, ValueId};
use crate::recognize::Miss;
use crate::recognize::identify::Resolution;
use crate::recognize::observe::subject::Subject;
use crate::recognize::observe::survey::{Seen, Survey, survey};
use crate::recognize::observe::trial::{
    Chosen, MORE_SIZES, Numbers, OTHER_SIZES, Sizes, Trial, leaves_sizes_open, samples_alone,
};
use crate::recognize::probe::DRAWN;
use crate::recognize::propose::region::decides_by_size;
use crate::recognize::tell::explain;
use crate::tensor::{ElementType, Tensor};

/// Multiplications that the tries of more sizes may take where these may decide what is computed, and elsewhere.
const TRIES: u64 = 1 << 34;
pub(super) const FEW_TRIES: u64 = 1 << 32;

/// A finding that is none.
pub struct Refused {
    /// The place and the value in it from which it follows.
    pub source: (usize, ValueId),
    /// What is said of it.
    pub miss: Miss,
}

/// A finding with where it is.
pub(super) struct Claim {
    found: Found,
    pub place: usize,
    pub input: ValueId,
    pub output: ValueId,
    /// The largest size of an open axis at which it was tried by itself.
    pub tried: usize,
    /// Why it is none.
    reason: Option<String>,
}

impl Claim {
    fn is_root(&self) -> bool {
        self.found.layer.operator == OperatorKind::MatrixSqrt
    }

    fn stands(&self) -> bool {
        self.reason.is_none()
    }
}

impl Search<'_> {
    /// Takes back what is another function at other sizes, as the number of steps may depend on the number of samples, and
    /// roots of matrices that need not be symmetric; adds them to what was `refused`.
    pub fn confirm(&mut self, wanted: &[(usize, ValueId)], refused: &mut Vec<Refused>) {
        let found = std::mem::take(&mut self.findings.layers);
        let mut claims: Vec<Claim> = Vec::new();
        for found in found {
            match self.place_and_values(&found) {
                Some((place, input, output)) => {
                    claims.push(Claim { found, place, input, output, tried: 0, reason: None });
                }
                None => self.findings.layers.push(found),
            }
        }
        self.confirm_symmetry(&mut claims, wanted);
        // A model that runs at no other sizes is what it is at the first.
        if leaves_sizes_open(self.places[0].flow.graph)
            && let Some(other) = self.at_other_sizes(wanted)
        {
            claims.iter_mut().for_each(|claim| self.compare(claim, &other));
            self.confirm_sizes(&mut claims, &other, wanted);
            for claim in claims.iter_mut().filter(|claim| claim.stands()) {
                if let Some((node, size)) = self.limit_beyond(claim, &other) {
                    claim.reason = Some(explain::limited_beyond(&claim.found, &node, size));
                }
            }
        }
        for Claim { found, place, input, reason, .. } in claims {
            match reason {
                None => self.findings.layers.push(found),
                Some(reason) => {
                    let miss = Miss::of(found, reason);
                    refused.extend(miss.map(|miss| Refused { source: (place, input), miss }));
                }
            }
        }
    }

    /// Where a finding is: its place, its input and its output.
    fn place_and_values(&self, found: &Found) -> Option<(usize, ValueId, ValueId)> {
        let place = self.place_of(found)?;
        let flow = &self.places[place].flow;
        Some((place, flow.id(&found.input)?, flow.id(&found.output)?))
    }

    /// The values of the model at other sizes than those of the survey: usual ones, or multiples of those at which it ran, as windows
    /// and patches ask for. Those up to where it fails, where it runs at neither.
    fn at_other_sizes(&self, wanted: &[(usize, ValueId)]) -> Option<Survey> {
        let usual = self.tried(&OTHER_SIZES, Numbers::Normal, wanted);
        let runs = |survey: &Survey| survey.chosen.is_some();
        let Some(Chosen { batch, extents: (first, others) }) = self.survey.chosen else { return usual };
        if usual.as_ref().is_some_and(runs) {
            return usual;
        }
        let multiples = [(2, 2), (3, 3), (1, 2), (2, 1)];
        let sizes = Sizes {
            batches: &[3, 1, 2 * batch, batch],
            extents: &multiples.map(|(one, other)| (one * first, other * others)),
            lengths: &[],
            most: OTHER_SIZES.most,
        };
        // What is open is twice as large as the user's data.
        let twice = |dims: &Vec<usize>| dims.iter().map(|size| 2 * size).collect::<Vec<_>>();
        let known = self.trial.known.map(|known| known.iter().map(twice).collect::<Vec<_>>());
        let trial = Trial { known: known.as_deref(), ..Trial::of(&sizes) };
        let multiple = survey(self.model, self.places, wanted, &trial, self.runtime).ok();
        multiple.filter(runs).or(usual)
    }

    /// The values of the model in another trial; none where it does not run.
    fn tried(&self, sizes: &Sizes, numbers: Numbers, wanted: &[(usize, ValueId)]) -> Option<Survey> {
        let known = if numbers == Numbers::Normal { None } else { self.trial.known };
        survey(self.model, self.places, wanted, &Trial { known, sizes, numbers }, self.runtime).ok()
    }

    /// Looks at what roots read on other numbers.
    fn confirm_symmetry(&self, claims: &mut [Claim], wanted: &[(usize, ValueId)]) {
        for numbers in [Numbers::Heavy, Numbers::Sparse, Numbers::Small] {
            if !claims.iter().any(|claim| claim.is_root() && claim.stands()) {
                return;
            }
            let Some(survey) = self.tried(self.trial.sizes, numbers, wanted) else { continue };
            for claim in claims.iter_mut().filter(|claim| claim.is_root() && claim.stands()) {
                let seen = survey.get(self.places, claim.place, claim.input);
                let frozen = survey.frozen(self.places, claim.place);
                if seen.is_some_and(|seen| !self.claimed(claim, seen, frozen).is_symmetric()) {
                    claim.reason = Some(explain::not_symmetric(&claim.found, numbers.words()));
                }
            }
        }
    }

    /// Holds a claim against what a model computes in another survey.
    fn compare(&self, claim: &mut Claim, survey: &Survey) {
        let Some(seen) = survey.get(self.places, claim.place, claim.input).filter(|_| claim.stands()) else {
            return;
        };
        let dims = seen.tensor.dims();
        let frozen = survey.frozen(self.places, claim.place);
        claim.reason = if !claim.found.view.takes(dims) {
            Some(explain::of_one_size(&claim.found, f64::INFINITY, dims))
        } else if !claim.found.is_as_large(dims) {
            Some(explain::of_open_size(&claim.found, dims))
        } else if claim.is_root() && !self.claimed(claim, seen, frozen).is_symmetric() {
            Some(explain::not_symmetric(&claim.found, "other sizes"))
        } else {
            self.departs(claim, seen, frozen)
        };
        // Their number is open.
        if claim.stands() && claim.found.view.groups(dims) != claim.found.groups {
            claim.found.groups = None;
        }
    }

    /// Tries more sizes: of the layer alone where it needs none from outside, and of the whole model elsewhere.
    fn confirm_sizes(&self, claims: &mut [Claim], other: &Survey, wanted: &[(usize, ValueId)]) {
        let mut whole = Vec::new();
        for (index, claim) in claims.iter_mut().enumerate().filter(|(_, claim)| claim.stands()) {
            let seen = [&self.survey, other].map(|survey| survey.get(self.places, claim.place, claim.input));
            let [Some(first), Some(other_seen)] = seen else { continue };
            let outside = other.frozen(self.places, claim.place);
            let Some(alone) = self.alone(claim, outside, other).filter(|_| !claim.is_root()) else {
                whole.push(index);
                continue;
            };
            let flow = &self.places[claim.place].flow;
            let (nodes, is_from_outside) = deciding(flow, claim.input, claim.output);
            let most = if nodes.is_empty() && !is_from_outside { FEW_TRIES } else { TRIES };
            let (of_first, of_other) = (first.tensor.dims(), other_seen.tensor.dims());
            let reason = budget::within_half(most, || {
                for dims in resized(claim, of_first, of_other, most / 2) {
                    let frozen = self.outside(claim, &alone, &dims)?;
                    let tensor = Tensor::zeros(first.element, &dims);
                    let reason = self.departs(claim, &Seen { tensor, element: first.element }, &frozen);
                    if reason.is_some() {
                        return Some(reason);
                    }
                    if !budget::is_spent() {
                        let open = (0..dims.len()).filter(|&axis| of_first[axis] != of_other[axis]);
                        claim.tried = open.map(|axis| dims[axis]).fold(claim.tried, usize::max);
                    }
                }
                Some(None)
            });
            match reason {
                Some(reason) => claim.reason = reason,
                None => whole.push(index),
            }
        }
        if whole.is_empty() {
            return;
        }
        budget::within_half(TRIES, || {
            for sizes in &MORE_SIZES {
                if !whole.iter().any(|&index| claims[index].stands()) || budget::is_spent() {
                    break;
                }
                if let Some(survey) = self.tried(sizes, Numbers::Normal, wanted) {
                    whole.iter().for_each(|&index| self.compare(&mut claims[index], &survey));
                }
            }
        });
    }

    /// What a claim is made of, where its input is like `seen`.
    pub(super) fn claimed<'s>(
        &'s self,
        claim: &'s Claim,
        seen: &'s Seen,
        frozen: &'s [TensorProto],
    ) -> Subject<'s> {
        let place = &self.places[claim.place];
        let view = &claim.found.view;
        Subject { model: self.model, place, frozen, seen, input: claim.input, products: &[], view }
    }

    /// How a layer departs from what was found, in words, where its input is like `seen`.
    fn departs(&self, claim: &Claim, seen: &Seen, frozen: &[TensorProto]) -> Option<String> {
        let subject = self.claimed(claim, seen, frozen);
        // Where all positions are taken off, the operator refuses, which is right where the model gives no number either.
        let takes = |correction| Layer { correction, ..claim.found.layer }.extent(&subject.dims()).is_ok();
        if takes(0) && !takes(claim.found.layer.correction) {
            let is_number = subject.gives_numbers(claim.found.layer.operator, claim.output, self.runtime)?;
            return is_number.then(|| explain::of_one_size(&claim.found, f64::INFINITY, seen.tensor.dims()));
        }
        let error = subject.distance(&claim.found.layer, claim.output, self.runtime)?;
        (error > Resolution::exact(seen.element).tolerance)
            .then(|| explain::of_one_size(&claim.found, error, seen.tensor.dims()))
    }

    /// What a layer needs from outside without the shapes of its own input and what is made of it, so that it can be evaluated
    /// at any size, or for any number of samples. None where other shapes go into it.
    fn alone(&self, claim: &Claim, frozen: &[TensorProto], other: &Survey) -> Option<Alone> {
        let seen = self.survey.get(self.places, claim.place, claim.input)?;
        let flow = &self.places[claim.place].flow;
        let follows = |value: ValueId| flow.comes_through(value, claim.input);
        let is_own = |tensor: &&TensorProto| {
            let node = flow.id(tensor.name()).and_then(|value| flow.producer[value]);
            node.is_some_and(|node| flow.data_reads(node).all(follows))
        };
        let frozen: Vec<TensorProto> = frozen.iter().filter(|tensor| !is_own(tensor)).cloned().collect();
        let part = self.claimed(claim, seen, &frozen).part(&[claim.output]);
        let is_shape = |tensor: &TensorProto| {
            flow.id(tensor.name()).is_some_and(|value| flow.kind[value] == Kind::Shape)
        };
        let shapes: Vec<TensorProto> = part.graph?.initializer.into_iter().filter(is_shape).collect();
        if shapes.is_empty() {
            return Some(Alone { fixed: frozen, shapes });
        }
        let is_given = |tensor: &TensorProto| shapes.iter().any(|shape| shape.name() == tensor.name());
        let fixed = frozen.into_iter().filter(|tensor| !is_given(tensor)).collect();
        // Those of the samples, whose number the layer has as well.
        let axis = claim.found.view.batch_axis()?;
        let has_all = |survey: &Survey| {
            let seen = survey.get(self.places, claim.place, claim.input)?;
            Some(seen.tensor.dims().get(axis) == Some(&survey.chosen?.batch))
        };
        let is_told = self.places[claim.place].scope.is_main()
            && samples_alone(self.places[0].flow.graph, self.trial.known, 1).is_some()
            && [&self.survey, other].into_iter().all(|survey| has_all(survey) == Some(true));
        is_told.then_some(Alone { fixed, shapes })
    }

    /// What a layer needs from outside where its input has this shape. None where that takes much, or cannot be told.
    fn outside<'a>(
        &self,
        claim: &Claim,
        Alone { fixed, shapes }: &'a Alone,
        dims: &[usize],
    ) -> Option<Cow<'a, [TensorProto]>> {
        if shapes.is_empty() {
            return Some(fixed.into());
        }
        let samples = dims[claim.found.view.batch_axis()?];
        let inputs = samples_alone(self.places[0].flow.graph, self.trial.known, samples)?;
        let names: Vec<String> = shapes.iter().map(|shape| shape.name().to_owned()).collect();
        let made = budget::within_half(FEW_TRIES, || {
            let runtime = Some(self.runtime);
            Evaluator::showing(self.model, &names, Precision::Exact, runtime)?.run(&inputs)
        });
        let made = made.ok()?.into_iter().zip(shapes).map(|(made, shape)| {
            let element = ElementType::from_onnx(shape.data_type())?;
            Some(Seen { tensor: made, element }.declared().to_proto(shape.name()))
        });
        Some(fixed.iter().cloned().map(Some).chain(made).collect::<Option<Vec<_>>>()?.into())
    }
}

/// What a layer needs from outside to be evaluated at other sizes.
struct Alone {
    /// Whatever the sizes are.
    fixed: Vec<TensorProto>,
    /// As the number of samples says, with what was seen of them.
    shapes: Vec<TensorProto>,
}

/// The nodes on the way to `output` that may compute something else where an input is of other sizes, as far as this graph shows; and
/// whether shapes go into it that come from outside.
pub(super) fn deciding(flow: &Flow, input: ValueId, output: ValueId) -> (Vec<NodeId>, bool) {
    let mut nodes = Vec::new();
    let mut is_from_outside = false;
    let mut reached = HashSet::from([input, output]);
    let mut pending = vec![output];
    while let Some(value) = pending.pop() {
        let Some(node) = flow.producer[value] else {
            is_from_outside |= flow.kind[value] == Kind::Shape;
            continue;
        };
        if decides_by_size(flow, node) && !nodes.contains(&node) {
            nodes.push(node);
        }
        // The elements that a shape is the shape of do not go into it.
        let follows = |read: &ValueId| flow.kind[value] == Kind::Data || flow.kind[*read] != Kind::Data;
        pending
            .extend(flow.reads(node).iter().copied().filter(|read| follows(read) && reached.insert(*read)));
    }
    (nodes, is_from_outside)
}

/// Shapes of a layer's input where it was of the shapes `first` and `other` in two surveys: axes that differ are open.
/// Each takes no more than so many multiplications, drawing its numbers among them.
fn resized(claim: &Claim, first: &[usize], other: &[usize], most: u64) -> Vec<Vec<usize>> {
    if first.len() != other.len() || !claim.found.view.takes(first) {
        return Vec::new();
    }
    let is_open = |axis: usize| first[axis] != other[axis];
    let batch = claim.found.view.batch_axis();
    let open = (0..first.len()).filter(|&axis| Some(axis) != batch && is_open(axis)).count();
    let shape = |samples: usize, (one, rest): (usize, usize)| -> Vec<usize> {
        let mut sides = if open == 1 { [one * rest, 1] } else { [one, rest] }.into_iter().cycle();
        let size = |axis: usize| match axis {
            _ if !is_open(axis) => first[axis],
            _ if Some(axis) == batch => samples,
            _ => sides.next().unwrap_or(rest),
        };
        (0..first.len()).map(size).collect()
    };
    let is_short = |dims: &Vec<usize>| {
        let own = claim.found.view.own_dims(dims);
        let one = claim.found.layer.extent(&own).map(|extent| multiplications(&claim.found.layer, extent));
        let drawn = own[1..].iter().product::<usize>() as f64 * DRAWN as f64;
        one.is_ok_and(|one| (one + drawn) * own[0] as f64 <= most as f64)
    };
    let mut shapes: Vec<Vec<usize>> = Vec::new();
    for sizes in &MORE_SIZES {
        let next = shape(sizes.batches[0], sizes.extents[0]);
        if next != first && next != other && !shapes.contains(&next) && is_short(&next) {
            shapes.push(next);
        }
    }
    shapes
}
