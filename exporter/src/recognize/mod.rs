//! Finds covariance layers in a graph by what its regions compute.
//!
//! Exports of one layer differ in everything but the function they compute, so no pattern of nodes is looked for.
//! A [`region`] takes one value in and holds no trained weight; it is evaluated on [`probe`]s; [`identify`] searches the
//! attributes for which an operator's float64 reference gives the same numbers, and demands that any other function is
//! far off. [`lost`] tells a layer that an exporter broke from one that merely differs.

mod identify;
mod lost;
pub mod probe;
mod region;
mod spectrum;
mod survey;

use std::collections::HashSet;

use anyhow::Result;
use isqrt_cov_op::{DOMAIN, Layer, OperatorKind};
use isqrt_cov_proto::onnx::ModelProto;

use self::identify::{Identification, Probed, identify};
use self::probe::{Generator, PROBES};
use self::region::Region;
use self::survey::{Survey, survey};
use crate::extract::{Entry, extract};
use crate::graph::{Flow, NodeId, ValueId};
use crate::runtime::Runtime;
use crate::tensor::{ElementType, Tensor};

pub use self::identify::tolerance;

/// What was found in a model.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    /// Regions that compute an operator, in graph order; they do not overlap.
    pub layers: Vec<Found>,
    /// Regions that look like a layer and are none, with what differs.
    pub misses: Vec<Miss>,
    /// Layers whose iteration the exporter dropped.
    pub lost: Vec<Lost>,
}

/// A region that computes an operator.
#[derive(Debug, Clone)]
pub struct Found {
    /// The operator and its attributes.
    pub layer: Layer,
    /// The value that the region reads.
    pub input: String,
    /// The value that it computes.
    pub output: String,
    /// Element type of both.
    pub element: ElementType,
    /// Shape of one sample of `output` where it differs from the operator's: a trailing axis of 1, or a flat matrix.
    pub reshape: Option<Vec<usize>>,
    /// Indices, in `graph.node`, of the nodes that only this region needs.
    pub nodes: Vec<usize>,
    /// Why it was recognized.
    pub evidence: Evidence,
}

/// How well the identified attributes explain the numbers.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// max|Δ| / max|reference| of the winner against the float64 reference, the worst over all probes.
    pub error: f64,
    /// The same of the best other attributes that compute another function.
    pub runner_up: f64,
    /// Those attributes.
    pub runner_up_layer: Option<Layer>,
    /// Probes evaluated.
    pub probes: usize,
}

/// A region that looks like a layer but computes something else.
#[derive(Debug, Clone)]
pub struct Miss {
    /// The value that the region reads.
    pub input: String,
    /// The value nearest to a layer's output.
    pub output: String,
    /// The closest operator, if any comes near.
    pub closest: Option<Layer>,
    /// max|Δ| / max|reference| of the closest.
    pub error: f64,
    /// What differs, for people.
    pub reason: String,
}

/// A layer whose iteration is gone.
#[derive(Debug, Clone)]
pub struct Lost {
    /// The feature map that the layer read.
    pub input: String,
    /// The constant value that stands where the layer's output was.
    pub output: String,
    /// The evidence, for people.
    pub reason: String,
}

/// A region with what it computed from each probe.
struct Observed {
    region: Region,
    probed: Probed,
    /// For each cut whose size could be an operator's output: the value, and what it was for each probe.
    cuts: Vec<(ValueId, Vec<Tensor>)>,
}

/// Attributes that are farther off than this explain nothing, not even a near miss.
const UNLIKE: f64 = 0.5;

/// Attributes that are farther off than this, relative to the largest value, are no candidates.
const NEAR: f64 = 0.05;

/// Looks for layers in `model`, whose tensors are all inline, evaluating regions in `runtime`.
///
/// # Errors
/// A model without a graph, or one that the runtime cannot evaluate at all.
pub fn recognize(model: &ModelProto, runtime: &dyn Runtime) -> Result<Findings> {
    let graph = model.graph.as_ref().ok_or_else(|| anyhow::anyhow!("the model has no graph"))?;
    let flow = Flow::new(graph);
    let products = region::products(&flow);
    let mut inputs: Vec<(ValueId, Vec<NodeId>)> = Vec::new();
    for &product in &products {
        for input in region::inputs(&flow, product) {
            match inputs.iter_mut().find(|(other, _)| *other == input) {
                Some((_, products)) => products.push(product),
                None => inputs.push((input, vec![product])),
            }
        }
    }
    // Upstream first: the first match is the largest region.
    inputs.sort_by_key(|&(input, _)| flow.dominators(input).count());
    let wanted: Vec<ValueId> = inputs.iter().map(|&(input, _)| input).collect();
    // A node that is an operator of ours already explains itself.
    let covered = (0..graph.node.len()).filter(|&node| graph.node[node].domain() == DOMAIN).collect();
    let mut search = Search { model, flow: &flow, runtime, covered, findings: Findings::default() };
    let survey = if wanted.is_empty() { None } else { Some(survey(model, &flow, &wanted, runtime)?) };
    let mut unexplained = Vec::new();
    for (input, products) in &inputs {
        let Some(survey) = &survey else { break };
        if products.iter().all(|product| search.covered.contains(product)) {
            continue;
        }
        let Some(observed) = search.observe(survey, *input, OperatorKind::IsqrtCov) else { continue };
        if !search.explain(&observed, OperatorKind::IsqrtCov) && !search.lost(&observed) {
            unexplained.push((observed, products));
        }
    }
    for (observed, products) in &unexplained {
        if !products.iter().all(|product| search.covered.contains(product)) {
            search.explain(observed, OperatorKind::CovariancePooling);
        }
    }
    for (input, products) in &inputs {
        let Some(survey) = &survey else { break };
        if products.iter().all(|product| search.covered.contains(product)) {
            continue;
        }
        if let Some(observed) = search.observe(survey, *input, OperatorKind::MatrixSqrt) {
            search.explain(&observed, OperatorKind::MatrixSqrt);
        }
    }
    for (observed, products) in &unexplained {
        if !products.iter().all(|product| search.covered.contains(product)) {
            search.miss(observed);
        }
    }
    let mut findings = search.findings;
    if findings.layers.is_empty() && findings.lost.is_empty() {
        findings.lost.extend(lost::constant_outputs(&flow));
    }
    Ok(findings)
}

struct Search<'a> {
    model: &'a ModelProto,
    flow: &'a Flow<'a>,
    runtime: &'a dyn Runtime,
    /// Nodes that a finding explains.
    covered: HashSet<NodeId>,
    findings: Findings,
}

impl Search<'_> {
    /// Evaluates the region that follows from `input` on every probe. None where it cannot hold `operator`.
    fn observe(&self, survey: &Survey, input: ValueId, operator: OperatorKind) -> Option<Observed> {
        let seen = survey.values.get(&input)?;
        let (element, dims) = (seen.element_type(), seen.dims());
        let possible = match operator {
            // The operator reads one triangle: it stands for the iteration only where the matrices are symmetric.
            OperatorKind::MatrixSqrt => dims.len() == 3 && dims[1] == dims[2] && is_symmetric(seen),
            _ => dims.len() >= 3,
        };
        if !element.is_float() || !possible || dims.contains(&0) {
            return None;
        }
        let region = Region::new(self.flow, input);
        if region.cuts.is_empty() {
            return None;
        }
        let entry = Entry { value: input, element, dims: dims.to_vec() };
        let part = extract(self.model, self.flow, &[entry], &survey.frozen, &region.cuts);
        let session = self.runtime.prepare(&part, &[dims.to_vec()]).ok()?;
        let mut cuts: Vec<(ValueId, Vec<Tensor>)> =
            region.cuts.iter().map(|&cut| (cut, Vec::new())).collect();
        let mut generator = Generator::new(7);
        let mut inputs = Vec::with_capacity(PROBES.len());
        for probe in PROBES {
            let values = match operator {
                OperatorKind::MatrixSqrt => probe.matrices(&mut generator, dims),
                _ => probe.features(&mut generator, dims),
            };
            inputs.push(Tensor::from_f64(element, dims, &values));
            let results = session.run(&inputs[inputs.len() - 1..]).ok()?;
            for ((_, outputs), output) in cuts.iter_mut().zip(results) {
                if could_be_output(dims, output.dims()) && output.element_type() == element {
                    outputs.push(output);
                }
            }
        }
        cuts.retain(|(_, outputs)| outputs.len() == PROBES.len());
        Some(Observed { region, probed: Probed::new(inputs), cuts })
    }

    /// Looks for a cut that `operator` explains; the finding, if there is one, is kept.
    fn explain(&mut self, observed: &Observed, operator: OperatorKind) -> bool {
        let mut best: Option<Found> = None;
        for (cut, outputs) in observed.cuts.iter().rev() {
            let Some(identification) = identify(operator, &observed.probed, outputs, NEAR) else { continue };
            if !identification.is_certain(outputs[0].element_type()) {
                continue;
            }
            let found = self.found(observed, *cut, &outputs[0], identification);
            // A node that makes something else that is needed cannot give way, and none that is explained is explained again.
            if found.nodes.is_empty() || found.nodes.iter().any(|node| self.covered.contains(node)) {
                continue;
            }
            // Downstream first, but rather a value of the operator's own shape than the same numbers reshaped.
            best = match best {
                None => Some(found),
                Some(best) if best.reshape.is_some() && best.layer == found.layer => Some(found),
                best => best,
            };
        }
        let Some(found) = best else { return false };
        self.covered.extend(&found.nodes);
        self.findings.layers.push(found);
        true
    }

    fn found(
        &self,
        observed: &Observed,
        output: ValueId,
        seen: &Tensor,
        identification: Identification,
    ) -> Found {
        let input = observed.region.input;
        let layer = identification.layer;
        let known: Vec<Option<usize>> = observed.probed.dims().iter().copied().map(Some).collect();
        let own: Option<Vec<usize>> =
            layer.output_tail(&known).ok().and_then(|tail| tail.into_iter().collect());
        let sample = seen.dims()[1..].to_vec();
        Found {
            layer,
            input: self.flow.names[input].to_owned(),
            output: self.flow.names[output].to_owned(),
            element: seen.element_type(),
            reshape: (own.as_ref() != Some(&sample)).then_some(sample),
            nodes: self.flow.needed_only_for(output, input),
            evidence: identification.evidence,
        }
    }

    /// Looks for a cut that does not depend on the input though the graph says so; the finding is kept.
    fn lost(&mut self, observed: &Observed) -> bool {
        let constant = observed.cuts.iter().rev().find(|(_, outputs)| lost::is_constant(outputs));
        let Some((cut, outputs)) = constant else { return false };
        self.findings.lost.push(lost::describe(self.flow, &observed.region, *cut, outputs));
        self.covered.extend(&observed.region.nodes);
        true
    }

    /// Notes the closest that a region comes to the whole layer.
    fn miss(&mut self, observed: &Observed) {
        let closest = observed
            .cuts
            .iter()
            .rev()
            .filter_map(|(cut, outputs)| {
                let closest = identify(OperatorKind::IsqrtCov, &observed.probed, outputs, f64::INFINITY)?;
                Some((*cut, closest))
            })
            .min_by(|(_, left), (_, right)| left.evidence.error.total_cmp(&right.evidence.error));
        let Some((cut, identification)) = closest else { return };
        let error = identification.evidence.error;
        self.covered.extend(&observed.region.nodes);
        self.findings.misses.push(Miss {
            input: self.flow.names[observed.region.input].to_owned(),
            output: self.flow.names[cut].to_owned(),
            closest: Some(identification.layer),
            error,
            reason: if error > UNLIKE {
                "it resembles no setting of the operators".to_owned()
            } else {
                let layer = identification.layer;
                format!("the closest operator is {layer}, and the numbers differ by {error:.1e} of the largest value")
            },
        });
    }
}

/// Whether every matrix of a tensor [N, d, d] is symmetric, up to rounding.
fn is_symmetric(tensor: &Tensor) -> bool {
    let side = tensor.dims()[1];
    let values = tensor.to_f64();
    values.chunks_exact(side * side).all(|matrix| {
        let largest = matrix.iter().fold(0.0, |largest: f64, entry| largest.max(entry.abs()));
        let limit = tolerance(tensor.element_type()) * largest;
        (0..side).all(|i| (0..i).all(|j| (matrix[i * side + j] - matrix[j * side + i]).abs() <= limit))
    })
}

/// Whether an output of shape `output` has as many numbers a sample as a matrix or a triangle over some axis of `input`.
fn could_be_output(input: &[usize], output: &[usize]) -> bool {
    let per_sample: usize = output.iter().skip(1).product();
    output.first() == input.first()
        && [input[1], input[input.len() - 1]]
            .into_iter()
            .any(|side| per_sample == side * side || per_sample == side * (side + 1) / 2)
}
