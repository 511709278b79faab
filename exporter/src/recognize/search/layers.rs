//! Which cuts of a region are layers, and which of those are kept.

use std::collections::HashSet;

use isqrt_cov_op::{Layer, OperatorKind};

use super::candidates::Candidate;
use super::{NEAR, Search};
use crate::found::AS_IS;
use crate::found::{Arrangement, Found, Origin, Recognition};
use crate::graph::{NodeId, ValueId};
use crate::recognize::confirm::limits::Limit;
use crate::recognize::findings::Miss;
use crate::recognize::identify::{Identification, identify};
use crate::recognize::observe::cuts::Cut;
use crate::recognize::observe::subject::{Observed, Subject};
use crate::recognize::propose::places::Place;
use crate::recognize::tell::explain;

impl Search<'_> {
    /// Looks for a cut that `operator` explains; the finding, if there is one, is kept. Of the regions `before` none was
    /// explained.
    pub(super) fn explain(
        &mut self,
        candidate: &Candidate,
        observed: &Observed,
        operator: OperatorKind,
        before: &[(&Candidate, Observed)],
    ) -> bool {
        let mut best: Option<(ValueId, Found, bool)> = None;
        let mut limited = None;
        for cut in observed.cuts.iter().chain(&observed.matrices) {
            let is_as_given = |found: &Found| found.arrangement == Arrangement::AsGiven;
            if best.as_ref().is_some_and(|(_, found, pays)| *pays && is_as_given(found)) {
                break;
            }
            let Some(mut found) = self.certain(candidate, observed, cut, operator) else { continue };
            // Downstream first, but rather what takes the place of most products, and rather a value of the operator's own
            // shape than the same numbers in another.
            let pays = self.takes_most_products(candidate, cut.value, &found);
            let is_better = best.as_ref().is_none_or(|(_, best, paid)| {
                pays && !paid
                    || pays == *paid && best.layer == found.layer && !is_as_given(best) && is_as_given(&found)
            });
            if !is_better {
                continue;
            }
            match self.settle(candidate, cut, &mut found) {
                Ok(()) => best = Some((cut.value, found, pays)),
                Err(limit) => limited = limited.or(Some((found, limit))),
            }
        }
        let Some((output, found, _)) = best else {
            if let Some((found, limit)) = limited {
                let flow = &self.places[candidate.place].flow;
                let way = flow.id(&found.output).map(|output| flow.between(candidate.input, output));
                self.told[candidate.place].extend(way.unwrap_or_default());
                let reason = explain::limited(&found, &limit);
                self.findings.misses.extend(Miss::of(found, reason));
            }
            return false;
        };
        let (candidate, found) = self.with_centering(output, &found, before).unwrap_or((candidate, found));
        self.keep(candidate, output, found);
        true
    }

    /// Whether most products on the way to a value give way to its operator, by itself.
    fn takes_most_products(&self, candidate: &Candidate, output: ValueId, found: &Found) -> bool {
        let way = self.places[candidate.place].flow.between(candidate.input, output);
        let products = candidate.products.iter().filter(|product| way.contains(product));
        let (own, all) = products.fold((0, 0), |(own, all), product| {
            (own + usize::from(found.nodes.binary_search(product).is_ok()), all + 1)
        });
        2 * own >= all
    }

    /// A layer that was found where its input is centered, from before that: there it is none of the values that all goes
    /// through, where what is centered is read beside it.
    fn with_centering<'c>(
        &self,
        output: ValueId,
        found: &Found,
        before: &[(&'c Candidate, Observed)],
    ) -> Option<(&'c Candidate, Found)> {
        if found.layer.centered || found.layer.operator == OperatorKind::MatrixSqrt {
            return None;
        }
        let centered = Layer { centered: true, ..found.layer };
        before.iter().rev().find_map(|(candidate, observed)| {
            let is_here = self.places[candidate.place].scope == found.scope;
            let cut = observed.factors.iter().find(|cut| is_here && cut.value == output)?;
            let mut whole = self.certain(candidate, observed, cut, found.layer.operator)?;
            let stands = whole.layer == centered && self.settle(candidate, cut, &mut whole).is_ok();
            stands.then_some((*candidate, whole))
        })
    }

    /// Keeps the layers among the matrices that are read on number by number, the last first: a root, say, of which something
    /// is subtracted, or two of which the mean is taken.
    pub(super) fn explain_within(&mut self, candidate: &Candidate, observed: &Observed) -> bool {
        self.explain_each(candidate, observed, observed.factors.iter(), OperatorKind::IsqrtCov)
    }

    /// Keeps the roots and the covariances that are wanted for themselves, beside the layers found.
    pub(super) fn explain_beside(&mut self, candidate: &Candidate, observed: &Observed) {
        self.explain_rest(candidate, observed, OperatorKind::IsqrtCov);
        self.explain_rest(candidate, observed, OperatorKind::CovariancePooling);
    }

    /// Keeps every value that is an end of its own, beside the layers found, and that `operator` explains.
    fn explain_rest(&mut self, candidate: &Candidate, observed: &Observed, operator: OperatorKind) {
        let flow = &self.places[candidate.place].flow;
        let pools = operator == OperatorKind::CovariancePooling;
        // A covariance also where it is no end but read, by a subtraction say: it would be found once the layer is gone.
        let stays = |cut: &&Cut| cut.leaves || pools && self.is_wanted(candidate, observed, cut);
        let mut ends: Vec<&Cut> = observed.cuts.iter().filter(stays).chain(&observed.matrices).collect();
        if pools {
            // Rather the covariance itself than what is made of it.
            ends.sort_by_key(|cut| flow.depth(cut.value));
        }
        self.explain_each(candidate, observed, ends.into_iter(), operator);
    }

    /// Keeps those of these cuts, in their order, that `operator` explains and that are not made of what is kept. Says whether
    /// there are any.
    fn explain_each<'c>(
        &mut self,
        candidate: &Candidate,
        observed: &Observed,
        cuts: impl Iterator<Item = &'c Cut>,
        operator: OperatorKind,
    ) -> bool {
        let Place { flow, scope, .. } = &self.places[candidate.place];
        let mut kept = false;
        for cut in cuts {
            let way = flow.between(candidate.input, cut.value);
            let behind = |found: &Found| {
                let output = flow.id(&found.output).filter(|_| found.scope == *scope);
                output.and_then(|output| flow.producer[output]).is_some_and(|node| way.contains(&node))
            };
            if self.findings.layers.iter().any(behind) {
                continue;
            }
            if let Some(mut found) = self.certain(candidate, observed, cut, operator)
                && self.settle(candidate, cut, &mut found).is_ok()
            {
                self.keep(candidate, cut.value, found);
                kept = true;
            }
        }
        kept
    }

    /// The finding that `operator` computes a cut, where nothing else does and its nodes can give way.
    fn certain(
        &self,
        candidate: &Candidate,
        observed: &Observed,
        cut: &Cut,
        operator: OperatorKind,
    ) -> Option<Found> {
        let resolution = observed.resolution;
        let identification = identify(operator, &observed.probed, &cut.outputs, resolution, NEAR)?;
        if !identification.is_certain(resolution) {
            return None;
        }
        let found = self.found(candidate, observed, cut, identification)?;
        if operator == OperatorKind::CovariancePooling && !self.is_wanted(candidate, observed, cut) {
            return None;
        }
        // The first step of many is none of one step.
        let flow = &self.places[candidate.place].flow;
        let is_step =
            operator != OperatorKind::CovariancePooling && found.layer.iterations == 1 && !cut.leaves;
        if is_step && flow.is_multiplied(cut.value) {
            return None;
        }
        // A node that makes something else that is needed cannot give way, and none gives way twice.
        let owned = &self.owned[candidate.place];
        (!found.nodes.is_empty() && !found.nodes.iter().any(|node| owned.contains(node))).then_some(found)
    }

    /// Whether more than numbers, as the trace is one, are made of a matrix by nodes that do not give way.
    fn is_wanted(&self, candidate: &Candidate, observed: &Observed, cut: &Cut) -> bool {
        let flow = &self.places[candidate.place].flow;
        flow.leads_out(cut.value, &self.owned[candidate.place], &observed.scalars)
    }

    /// Lets a finding stand for a cut, and notes in it down to which inputs, if that is not all.
    ///
    /// # Errors
    /// Why it may not.
    fn settle(&self, candidate: &Candidate, cut: &Cut, found: &mut Found) -> Result<(), Limit> {
        if let (Some(subject), Origin::Recognized(recognition)) = (self.subject(candidate), &mut found.origin)
        {
            let asks = |near: &HashSet<NodeId>| self.has_fallback(candidate.place, cut.value, near);
            recognition.evidence.down_to =
                subject.may_stand_for(&found.layer, cut.value, &asks, self.runtime)?;
        }
        Ok(())
    }

    fn keep(&mut self, candidate: &Candidate, output: ValueId, found: Found) {
        // Nodes that something else needs too are explained as well: no part of the layer is a layer of its own.
        let explained = self.places[candidate.place].flow.between(candidate.input, output);
        self.covered[candidate.place].extend(explained.into_iter().chain(found.nodes.iter().copied()));
        self.owned[candidate.place].extend(&found.nodes);
        self.findings.layers.push(found);
    }

    fn found(
        &self,
        candidate: &Candidate,
        observed: &Observed,
        cut: &Cut,
        identification: Identification,
    ) -> Option<Found> {
        let subject = Subject { view: &AS_IS, ..self.subject(candidate)? };
        let seen = subject.seen.tensor.dims();
        let Place { flow, scope, .. } = &self.places[candidate.place];
        let layer = identification.layer;
        let own = layer.output_dims(observed.probed.dims());
        let sample = cut.dims[1..].to_vec();
        Some(Found {
            layer,
            scope: scope.clone(),
            within: scope.describe(self.model),
            input: flow.names[candidate.input].to_owned(),
            output: flow.names[cut.value].to_owned(),
            element: observed.element,
            view: candidate.view.clone(),
            groups: candidate.view.groups(seen),
            arrangement: match own {
                _ if candidate.view.is_apart(seen, &cut.dims) => {
                    Arrangement::Apart(cut.dims[candidate.view.samples..].to_vec())
                }
                _ if cut.has_samples_last() => Arrangement::SamplesLast,
                Ok(own) if own[1..] == sample => Arrangement::AsGiven,
                _ => Arrangement::Reshaped(sample),
            },
            nodes: flow.needed_only_for(&[cut.value], &[candidate.input]),
            origin: Origin::Recognized(Box::new(Recognition {
                region: subject.part(&[cut.value]),
                seen: subject.seen.declared(),
                evaluator: observed.evaluator.clone(),
                evidence: identification.evidence,
            })),
        })
    }
}
