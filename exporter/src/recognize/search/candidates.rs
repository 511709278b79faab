//! The values from which regions may follow, and what is still to be found behind them.

use std::collections::{BTreeMap, HashSet};

use isqrt_cov_op::OperatorKind;

use super::Search;
use crate::found::Found;
use crate::found::{AS_IS, View, views};
use crate::graph::{NodeId, ValueId};
use crate::recognize::observe::subject::{Observed, Subject};
use crate::recognize::observe::survey::source;
use crate::recognize::propose::places::Place;
use crate::recognize::propose::region;

/// A value from which regions may follow.
pub struct Candidate {
    /// Its place, among the model's.
    pub place: usize,
    /// The value there.
    pub input: ValueId,
    /// How an operator reads it.
    pub(super) view: View,
    /// The products that a region from here could explain.
    pub(super) products: Vec<NodeId>,
}

/// The values to try, outer graphs before those in them, and upstream first: the first match is the largest region.
pub fn candidates(places: &[Place]) -> Vec<Candidate> {
    let mut all = Vec::new();
    for (place, Place { flow, products, .. }) in places.iter().enumerate() {
        let mut inputs: BTreeMap<ValueId, Vec<NodeId>> = BTreeMap::new();
        for &product in products {
            for input in region::inputs(flow, product) {
                inputs.entry(input).or_default().push(product);
            }
        }
        let mut here: Vec<Candidate> = inputs
            .into_iter()
            .map(|(input, products)| Candidate { place, input, view: AS_IS.clone(), products })
            .collect();
        here.sort_by_key(|candidate| flow.depth(candidate.input));
        all.extend(here);
    }
    all
}

impl Search<'_> {
    /// The candidates of which nothing is explained, with their second axis counting samples, where they have enough of them.
    pub(super) fn with_groups(&self, candidates: &[Candidate]) -> Vec<Candidate> {
        let grouped = |_: &Candidate, dims: &[usize]| Vec::from_iter((dims.len() >= 4).then(View::grouped));
        self.viewed(candidates, grouped)
    }

    /// The candidates of which nothing is explained, in the other views that the shapes of their products leave.
    pub(super) fn in_other_views(&self, candidates: &[Candidate]) -> Vec<Candidate> {
        self.viewed(candidates, |candidate, dims| {
            let mut all: Vec<View> = Vec::new();
            let mut shapes: Vec<&[usize]> = Vec::new();
            for &product in &candidate.products {
                let Some(shape) = self.survey.shape(&self.places[candidate.place], product) else { continue };
                if !shapes.contains(&shape) {
                    shapes.push(shape);
                    let new = views(dims, shape).into_iter().filter(|view| !all.contains(view));
                    all.extend(new.collect::<Vec<_>>());
                }
            }
            all
        })
    }

    /// The candidates of which nothing is explained, in each of these views of a value of some shape.
    fn viewed(
        &self,
        candidates: &[Candidate],
        views: impl Fn(&Candidate, &[usize]) -> Vec<View>,
    ) -> Vec<Candidate> {
        let mut all = Vec::new();
        for candidate in candidates.iter().filter(|candidate| !self.is_explained(candidate)) {
            let &Candidate { place, input, ref products, .. } = candidate;
            let Some(seen) = self.survey.get(self.places, place, input) else { continue };
            let views = views(candidate, seen.tensor.dims()).into_iter();
            all.extend(views.map(|view| Candidate { place, input, view, products: products.clone() }));
        }
        all
    }

    /// Whether findings explain all products that a region from here could.
    pub(super) fn is_explained(&self, candidate: &Candidate) -> bool {
        let covered = &self.covered[candidate.place];
        candidate.products.iter().all(|product| covered.contains(product))
            || self.is_inside(candidate.place, &self.covered)
    }

    /// Whether a candidate's value is one that only nodes of a layer know.
    fn gives_way(&self, candidate: &Candidate) -> bool {
        let (place, value) = source(self.places, candidate.place, candidate.input);
        let Place { scope, flow, .. } = &self.places[place];
        let is_output = |found: &Found| found.scope == *scope && found.output == flow.names[value];
        flow.producer[value].is_some_and(|node| self.owned[place].contains(&node))
            && !self.findings.layers.iter().any(is_output)
    }

    /// Whether the node that a graph is in, or every call of the function that it is in, is among these nodes of each place.
    pub fn is_inside(&self, place: usize, nodes: &[HashSet<NodeId>]) -> bool {
        let here = &self.places[place];
        if let (Some(outer), Some((node, _))) = (here.outer, here.scope.path.last()) {
            return nodes[outer].contains(node) || self.is_inside(outer, nodes);
        }
        let Some(function) = here.scope.function.and_then(|function| self.model.functions.get(function))
        else {
            return false;
        };
        let calls = |place: &Place| {
            let nodes = place.flow.graph.node.iter().enumerate();
            let calls = nodes.filter(|(_, node)| node.called() == function.key());
            calls.map(|(node, _)| node).collect::<Vec<_>>()
        };
        self.places
            .iter()
            .zip(nodes)
            .all(|(place, covered)| calls(place).iter().all(|call| covered.contains(call)))
    }

    /// Evaluates the region that follows from a candidate. None where it cannot hold `operator` or is explained already.
    pub(super) fn observe(&self, candidate: &Candidate, operator: OperatorKind) -> Option<Observed> {
        if self.is_explained(candidate) || self.gives_way(candidate) {
            return None;
        }
        let mut observed = self.subject(candidate)?.observe(operator, self.runtime)?;
        observed.probed.share(&self.unexplained);
        Some(observed)
    }

    pub(super) fn subject<'s>(&'s self, candidate: &'s Candidate) -> Option<Subject<'s>> {
        let place = &self.places[candidate.place];
        let seen = self.survey.get(self.places, candidate.place, candidate.input)?;
        let frozen = self.survey.frozen(self.places, candidate.place);
        let products = &candidate.products;
        let Candidate { input, view, .. } = candidate;
        Some(Subject { model: self.model, place, frozen, seen, input: *input, products, view })
    }
}
