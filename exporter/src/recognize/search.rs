//! The search for layers among the regions of a model's graphs.

mod other_sizes;

use std::collections::{BTreeMap, HashSet};

use isqrt_cov_op::{DOMAIN, Layer, OperatorKind};
use isqrt_cov_proto::onnx::{GraphProto, ModelProto};

use super::confirm::limits::Limit;
use super::findings::{Arrangement, Findings, Found, Lost, Miss, Origin, Recognition};
use super::identify::{Identification, identify};
use super::observe::cuts::{Cut, is_triangle};
use super::observe::subject::{Observed, Subject};
use super::observe::survey::{Survey, source};
use super::observe::trial::Trial;
use super::propose::places::Place;
use super::propose::region;
use super::tell::{explain, lost, relatives};
use crate::graph::{NodeId, ValueId};
use crate::runtime::Runtime;

/// Attributes that are farther off than this, relative to the largest value, are no candidates. A wrong ε alone may take
/// the right ones far off.
pub const NEAR: f64 = 0.5;

/// A value from which regions may follow.
pub struct Candidate {
    /// Its place, among the model's.
    pub place: usize,
    /// The value there.
    pub input: ValueId,
    /// Whether its second axis counts samples as well.
    grouped: bool,
    /// The products that a region from here could explain.
    products: Vec<NodeId>,
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
            .map(|(input, products)| Candidate { place, input, grouped: false, products })
            .collect();
        here.sort_by_key(|candidate| flow.depth(candidate.input));
        all.extend(here);
    }
    all
}

/// Nodes that are operators of ours already explain themselves.
fn fused_nodes(graph: &GraphProto) -> HashSet<NodeId> {
    (0..graph.node.len()).filter(|&node| graph.node[node].domain() == DOMAIN).collect()
}

/// What is searched, and what was found so far.
pub struct Search<'a> {
    /// The model.
    pub model: &'a ModelProto,
    /// Its graphs.
    pub places: &'a [Place<'a>],
    /// What evaluates what the evaluator of regions does not.
    pub runtime: &'a dyn Runtime,
    /// What the survey was made with.
    pub trial: Trial<'a>,
    /// The values of the whole model.
    pub survey: Survey,
    /// For each place the nodes that a finding explains.
    covered: Vec<HashSet<NodeId>>,
    /// For each place the nodes that give way to a finding.
    pub owned: Vec<HashSet<NodeId>>,
    /// For each place the nodes of what is no layer for a reason that was told.
    told: Vec<HashSet<NodeId>>,
    /// What was found.
    pub findings: Findings,
}

impl<'a> Search<'a> {
    /// Nothing found yet in these places of a model.
    pub fn new(
        model: &'a ModelProto,
        places: &'a [Place<'a>],
        runtime: &'a dyn Runtime,
        trial: Trial<'a>,
    ) -> Self {
        let mut search = Self {
            model,
            places,
            runtime,
            trial,
            survey: Survey::default(),
            covered: Vec::new(),
            owned: Vec::new(),
            told: Vec::new(),
            findings: Findings::default(),
        };
        search.forget();
        search
    }

    /// Goes back to the beginning.
    pub fn forget(&mut self) {
        let fused = || self.places.iter().map(|place| fused_nodes(place.flow.graph)).collect();
        (self.covered, self.owned) = (fused(), fused());
        self.told = vec![HashSet::new(); self.places.len()];
        self.findings = Findings::default();
    }

    /// Searches the regions that follow from these values.
    pub fn run(&mut self, candidates: &[Candidate]) {
        let unexplained = self.explain_features(candidates);
        let grouped: Vec<Candidate> =
            candidates.iter().filter_map(|candidate| self.with_groups(candidate)).collect();
        self.explain_features(&grouped);
        self.explain_matrices(candidates);
        self.explain_matrices(&grouped);
        for (candidate, observed) in &unexplained {
            if !self.is_explained(candidate) {
                self.miss(candidate, observed);
            }
        }
    }

    /// A candidate of which nothing is explained, with its second axis counting samples; none where it has too few axes.
    fn with_groups(&self, candidate: &Candidate) -> Option<Candidate> {
        let &Candidate { place, input, ref products, .. } = candidate;
        let is_possible = self.survey.get(self.places, place, input)?.tensor.dims().len() >= 4;
        let products = products.clone();
        (is_possible && !self.is_explained(candidate)).then_some(Candidate {
            place,
            input,
            grouped: true,
            products,
        })
    }

    /// Keeps the roots of what these values are as matrices.
    fn explain_matrices(&mut self, candidates: &[Candidate]) {
        for candidate in candidates {
            if let Some(observed) = self.observe(candidate, OperatorKind::MatrixSqrt) {
                self.explain(candidate, &observed, OperatorKind::MatrixSqrt, &[]);
            }
        }
    }

    /// Keeps the layers among the regions that follow from these values as feature maps. Returns the regions that hold none.
    fn explain_features<'c>(&mut self, candidates: &'c [Candidate]) -> Vec<(&'c Candidate, Observed)> {
        let mut unexplained: Vec<(&Candidate, Observed)> = Vec::new();
        for candidate in candidates {
            let Some(observed) = self.observe(candidate, OperatorKind::IsqrtCov) else { continue };
            // Several layers may read one value.
            let mut layers = 0;
            while !self.is_explained(candidate)
                && self.explain(candidate, &observed, OperatorKind::IsqrtCov, &unexplained)
            {
                layers += 1;
            }
            if layers == 0 && self.lost(candidate, &observed) {
                continue;
            }
            if layers > 0 {
                self.explain_beside(candidate, &observed);
            } else {
                unexplained.push((candidate, observed));
            }
        }
        // A whole layer may follow from what is only scaled in front of it.
        unexplained.retain(|(candidate, observed)| {
            let explained = !self.is_explained(candidate) && self.explain_within(candidate, observed);
            if explained {
                self.explain_beside(candidate, observed);
            }
            !explained
        });
        for (candidate, observed) in &unexplained {
            if !self.is_explained(candidate) {
                self.explain(candidate, observed, OperatorKind::CovariancePooling, &unexplained);
            }
        }
        unexplained
    }

    /// The place that a finding is in.
    pub fn place_of(&self, found: &Found) -> Option<usize> {
        self.places.iter().position(|place| place.scope == found.scope)
    }

    /// Whether findings explain all products that a region from here could.
    fn is_explained(&self, candidate: &Candidate) -> bool {
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
    fn observe(&self, candidate: &Candidate, operator: OperatorKind) -> Option<Observed> {
        if self.is_explained(candidate) || self.gives_way(candidate) {
            return None;
        }
        self.subject(candidate)?.observe(operator, self.runtime)
    }

    fn subject<'s>(&'s self, candidate: &'s Candidate) -> Option<Subject<'s>> {
        let place = &self.places[candidate.place];
        let seen = self.survey.get(self.places, candidate.place, candidate.input)?;
        let frozen = self.survey.frozen(self.places, candidate.place);
        let products = &candidate.products;
        let (input, grouped) = (candidate.input, candidate.grouped);
        Some(Subject { model: self.model, place, frozen, seen, input, products, grouped })
    }

    /// Looks for a cut that `operator` explains; the finding, if there is one, is kept. Of the regions `before` none was
    /// explained.
    fn explain(
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
    fn explain_within(&mut self, candidate: &Candidate, observed: &Observed) -> bool {
        self.explain_each(candidate, observed, observed.factors.iter(), OperatorKind::IsqrtCov)
    }

    /// Keeps the roots and the covariances that are wanted for themselves, beside the layers found.
    fn explain_beside(&mut self, candidate: &Candidate, observed: &Observed) {
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
            recognition.evidence.down_to = subject.may_stand_for(&found.layer, cut.value, self.runtime)?;
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
        let subject = Subject { grouped: false, ..self.subject(candidate)? };
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
            groups: candidate.grouped.then(|| subject.seen.tensor.dims()[1]),
            arrangement: match own {
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

    /// Looks for a cut that does not depend on the input though the graph says so; the finding is kept.
    ///
    /// The covariance in front of it is still there, and tells where exactly the layer began: what comes first may be more
    /// than the layer, an activation say.
    fn lost(&mut self, candidate: &Candidate, observed: &Observed) -> bool {
        let flow = &self.places[candidate.place].flow;
        let is_lost = |cut: &&Cut| {
            !cut.has_samples_last()
                && lost::is_constant(&cut.outputs)
                && !lost::is_meant(flow, &observed.scalars, cut.value)
        };
        // A single position has no covariance.
        let dims = observed.probed.dims();
        let positions = |axes: &[usize]| axes.iter().product::<usize>();
        if candidate.grouped || positions(&dims[2..]) == 1 || positions(&dims[1..dims.len() - 1]) == 1 {
            return false;
        }
        let constant: Vec<&Cut> = observed.cuts[..observed.through].iter().filter(is_lost).collect();
        // The first triangle: what comes behind it, a norm say, is not the layer's.
        let triangle = constant.iter().rev().find(|cut| is_triangle(dims, cut.outputs[0].dims()));
        let Some(cut) = triangle.or(constant.first()) else { return false };
        let resolution = observed.resolution;
        let covariance =
            observed.cuts.iter().chain(&observed.matrices).chain(&observed.factors).find_map(|cut| {
                let kind = OperatorKind::CovariancePooling;
                let found = identify(kind, &observed.probed, &cut.outputs, resolution, NEAR)?;
                found.is_certain(resolution).then_some(found.layer)
            });
        let place = &self.places[candidate.place];
        let within = place.scope.describe(self.model);
        let frozen = self.survey.frozen(self.places, candidate.place);
        let order = lost::order_of(self.model, place, frozen, (cut.value, cut.outputs[0].dims()));
        let lost = lost::describe(place, within, observed, cut, covariance, order);
        let same = |other: &Lost| other.scope == lost.scope && other.output == lost.output;
        if covariance.is_some() {
            self.findings.lost.retain(|other| !same(other));
            self.covered[candidate.place].extend(&observed.region.nodes);
        } else if self.findings.lost.iter().any(same) {
            return true;
        }
        self.findings.lost.push(lost);
        true
    }

    /// Notes the closest that a region comes to the whole layer.
    fn miss(&mut self, candidate: &Candidate, observed: &Observed) {
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
