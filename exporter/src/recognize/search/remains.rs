//! What is said of regions that hold no layer: a layer was lost there, or this is how close they come to one.

use isqrt_cov_op::{Layer, OperatorKind, Vectorization};

use super::candidates::Candidate;
use super::{NEAR, Search};
use crate::found::Found;
use crate::graph::{Flow, ValueId};
use crate::recognize::findings::{Lost, Miss};
use crate::recognize::identify::identify;
use crate::recognize::observe::cuts::{Cut, is_triangle};
use crate::recognize::observe::subject::Observed;
use crate::recognize::tell::divisor::{Divisor, divisor};
use crate::recognize::tell::{explain, lost, relatives};

impl Search<'_> {
    /// Looks for a cut that does not depend on the input though the graph says so; the finding is kept.
    ///
    /// The covariance in front of it is still there, and tells where exactly the layer began: what comes first may be more
    /// than the layer, an activation say.
    pub(super) fn lost(&mut self, candidate: &Candidate, observed: &Observed) -> bool {
        let flow = &self.places[candidate.place].flow;
        let is_lost = |cut: &&Cut| {
            !cut.has_samples_last()
                && lost::is_constant(&cut.outputs)
                && !lost::is_meant(flow, &observed.scalars, cut.value)
        };
        // A single position has no covariance.
        let dims = observed.probed.dims();
        let positions = |axes: &[usize]| axes.iter().product::<usize>();
        if !candidate.view.is_as_is()
            || positions(&dims[2..]) == 1
            || positions(&dims[1..dims.len() - 1]) == 1
        {
            return false;
        }
        let (through, beside) = observed.cuts.split_at(observed.through);
        let constant: Vec<&Cut> = through.iter().filter(is_lost).collect();
        let mut beside = beside.iter().filter(is_lost).peekable();
        if constant.is_empty() && beside.peek().is_none() {
            return false;
        }
        let covariance = covariance(observed);
        // The first triangle: what comes behind it, a norm say, is not the layer's.
        let triangle = constant.iter().rev().find(|cut| is_triangle(dims, cut.outputs[0].dims()));
        // Other features may come out beside the layer's, which then are known by what they are made of.
        let is_made_of_it = |cut: &&Cut| {
            covariance.as_ref().is_some_and(|(_, made)| flow.comes_through(cut.value, made.value))
        };
        let cut = triangle.or(constant.first()).copied();
        let Some(cut) = cut.or_else(|| first_on_the_way(flow, beside.filter(is_made_of_it).collect())) else {
            return false;
        };
        let (cut, order) = self.hole(candidate, observed, cut, is_lost);
        let covariance = covariance.map(|(layer, _)| {
            let subject = self.subject(candidate);
            let divisor = subject.map(|subject| divisor(&subject, observed, cut.value, &layer));
            (layer, divisor.unwrap_or(Divisor::Untold))
        });
        let place = &self.places[candidate.place];
        let within = place.scope.describe(self.model);
        let lost = lost::describe(place, within, observed, cut, covariance, order);
        let same = |other: &Lost| other.scope == lost.scope && other.output == lost.output;
        if lost.hole.is_some() {
            self.findings.lost.retain(|other| !same(other));
            self.covered[candidate.place].extend(&observed.region.nodes);
        } else if self.findings.lost.iter().any(same) {
            return true;
        }
        self.findings.lost.push(lost);
        true
    }

    /// Where a layer is to be put back of which this value, or what it is made of, is left, and the order of its triangle there. What the
    /// file itself makes of the root stays, unless that is a triangle in an order of ours.
    fn hole<'o>(
        &self,
        candidate: &Candidate,
        observed: &'o Observed,
        cut: &'o Cut,
        is_lost: impl Fn(&&'o Cut) -> bool,
    ) -> (&'o Cut, Option<Vectorization>) {
        let place = &self.places[candidate.place];
        let constant = |value: ValueId| observed.all().find(|cut| cut.value == value).filter(&is_lost);
        let root = lost::sources(&place.flow, cut.value).filter_map(constant).last().unwrap_or(cut);
        let frozen = self.survey.frozen(self.places, candidate.place);
        let order = lost::order_of(self.model, place, frozen, (cut.value, cut.outputs[0].dims()));
        let order = order.filter(|_| lost::is_moved(&place.flow, root.value, cut.value));
        let has_root = !is_triangle(observed.probed.dims(), root.outputs[0].dims());
        (if has_root && order.is_none() { root } else { cut }, order)
    }

    /// Notes the closest that a region comes to the whole layer.
    pub(super) fn miss(&mut self, candidate: &Candidate, observed: &Observed) {
        let place = &self.places[candidate.place];
        let flow = &place.flow;
        // Part of what was told of a larger region.
        if flow.producer[candidate.input].is_some_and(|node| self.told[candidate.place].contains(&node)) {
            return;
        }
        let (probed, resolution) = (&observed.probed, observed.resolution);
        let cuts = &observed.cuts[..observed.through];
        let closest = cuts.iter().filter_map(|cut| {
            let kind = OperatorKind::IsqrtCov;
            Some((cut, identify(kind, probed, &cut.outputs, resolution, f64::INFINITY)?))
        });
        let closest =
            closest.min_by(|(_, left), (_, right)| left.evidence.error.total_cmp(&right.evidence.error));
        let Some((closest, identification)) = closest else { return };
        let relative = cuts
            .iter()
            .rev()
            .find_map(|cut| Some((cut, relatives::name_of(probed, &cut.outputs, resolution)?)));
        let (cut, reason) =
            relative.unwrap_or_else(|| (closest, explain::distance(&identification, resolution)));
        // A region begins where data have chosen.
        let before = flow.dominators(candidate.input).next();
        let way = before.map(|before| flow.between(before, candidate.input)).unwrap_or_default();
        let choice = flow.order.iter().find(|node| way.contains(node) && flow.chooses(**node));
        let reason = match choice {
            Some(&node) => explain::behind_choice(&reason, &flow.graph.node[node]),
            None => reason,
        };
        let output = place.flow.names[cut.value];
        let is_beside = |found: &Found| found.scope == place.scope;
        let is_its_output = |found: &Found| is_beside(found) && found.output == output;
        let layers = &self.findings.layers;
        // A layer that begins elsewhere, or what is made of one without another product, is none.
        let is_explained = layers.iter().any(is_its_output)
            || identification.is_certain(resolution) && layers.iter().any(is_beside);
        if !is_explained {
            self.findings.misses.push(Miss {
                scope: place.scope.clone(),
                input: place.flow.names[candidate.input].to_owned(),
                output: output.to_owned(),
                closest: Some(identification.layer),
                error: identification.evidence.error,
                evaluator: observed.evaluator.clone(),
                reason,
            });
        }
        self.covered[candidate.place].extend(&observed.region.nodes);
    }
}

/// Of these cuts, downstream ones first, the farthest upstream that all goes through which the first is made of: what is made of another
/// beside something else, a root that is multiplied by the trace's say, is more than that.
fn first_on_the_way<'o>(flow: &Flow, cuts: Vec<&'o Cut>) -> Option<&'o Cut> {
    let last = cuts.first()?.value;
    cuts.into_iter().rev().find(|cut| flow.comes_through(last, cut.value))
}

/// The covariance of a region, and the value that it is.
fn covariance(observed: &Observed) -> Option<(Layer, &Cut)> {
    let Observed { probed, resolution, .. } = observed;
    observed.all().find_map(|cut| {
        let found = identify(OperatorKind::CovariancePooling, probed, &cut.outputs, *resolution, NEAR)?;
        found.is_certain(*resolution).then_some((found.layer, cut))
    })
}
