//! What a region computes from probes.

use std::collections::HashSet;
use std::sync::Arc;

use isqrt_cov_op::{Layer, OperatorKind};

use super::cuts::{Cut, Cuts, evaluate_in, has_samples_last, in_order};
use super::survey::Seen;
use crate::budget::{is_spent, spend};
use crate::distance::{magnitude, same};
use crate::evaluate::{Evaluator, Precision};
use crate::extract::{Entry, extract, value_info};
use crate::found::View;
use crate::graph::{NodeId, ValueId, rearranges};
use crate::recognize::identify::probed::{Probed, first_input, inputs};
use crate::recognize::identify::{Resolution, judge};
use crate::recognize::propose::places::Place;
use crate::recognize::propose::region::Region;
use crate::runtime::Runtime;
use crate::tensor::{ElementType, Tensor};
use isqrt_cov_proto::onnx::{AttributeProto, ModelProto, NodeProto, TensorProto};

/// A region with what it computed from each probe.
pub struct Observed {
    /// The region.
    pub region: Region,
    /// The inputs that it was evaluated on.
    pub probed: Probed,
    /// Element type of the region's input.
    pub element: ElementType,
    /// The values that have the input's element type and could be an operator's output: first, downstream before upstream,
    /// those through which all goes that leaves the region on some way, then the other triangles.
    pub cuts: Vec<Cut>,
    /// How many of these all goes through.
    pub through: usize,
    /// Of the other matrices those that are ends: only moved, averaged or read by trained nodes from there on.
    pub matrices: Vec<Cut>,
    /// The matrices that are left. What an iteration comes to before it is done is not among them.
    pub factors: Vec<Cut>,
    /// Values of one number a sample, traces among them; none where the float64 evaluator did not make them.
    pub scalars: HashSet<ValueId>,
    /// What evaluated the region.
    pub evaluator: String,
    /// How well it did so.
    pub resolution: Resolution,
}

impl Observed {
    /// Every value that was kept.
    pub fn all(&self) -> impl Iterator<Item = &Cut> {
        self.cuts.iter().chain(&self.matrices).chain(&self.factors)
    }
}

impl Cut {
    /// Whether it has triangles in columns.
    pub fn has_samples_last(&self) -> bool {
        let [entries, samples] = self.dims[..] else { return false };
        entries != samples && self.outputs[0].dims() == [samples, entries]
    }
}

/// A region that is to be evaluated.
pub struct Subject<'a> {
    /// The model.
    pub model: &'a ModelProto,
    /// Where the region is.
    pub place: &'a Place<'a>,
    /// What it needs from outside.
    pub frozen: &'a [TensorProto],
    /// Its input as the survey saw it.
    pub seen: &'a Seen,
    /// The input.
    pub input: ValueId,
    /// The products that a region from there could explain.
    pub products: &'a [NodeId],
    /// How an operator reads the input.
    pub view: &'a View,
}

impl Subject<'_> {
    /// The part of the region that computes `outputs`, as a model of its own.
    pub fn part(&self, outputs: &[ValueId]) -> ModelProto {
        let entry =
            Entry { value: self.input, element: self.seen.element, dims: self.seen.tensor.dims().to_vec() };
        let part = extract(self.model, &self.place.flow, self.place.opsets, &[entry], self.frozen, outputs);
        if self.view.is_as_is() { part } else { self.taking_own(part) }
    }

    /// A part that takes what an operator reads in its input's place.
    fn taking_own(&self, mut part: ModelProto) -> ModelProto {
        let name = self.place.flow.names[self.input];
        let [own, shape, ordered] = ["own", "shape", "ordered"].map(|what| format!("{name}/{what}"));
        let ints = |sizes: &[usize]| sizes.iter().map(|&size| size as i64).collect::<Vec<_>>();
        let dims = ints(&self.view.ordered(self.seen.tensor.dims()));
        let back = self.view.order_back();
        if let Some(graph) = &mut part.graph {
            graph.initializer.push(TensorProto::from_values(&shape, &[dims.len()], &dims));
            let reshaped = if back.is_some() { &ordered } else { name };
            let mut nodes = vec![NodeProto::new("Reshape", &[&own, &shape], &[reshaped])];
            nodes.extend(back.map(|order| {
                NodeProto::new("Transpose", &[&ordered], &[name])
                    .with(AttributeProto::ints("perm", &ints(&order)))
            }));
            graph.node.splice(0..0, nodes);
            graph.input = vec![value_info(&own, self.seen.element, &self.dims())];
        }
        part
    }

    /// The shape of what the operator reads.
    pub fn dims(&self) -> Vec<usize> {
        self.view.own_dims(self.seen.tensor.dims())
    }

    /// The shape of what the operator gives where the graph has a value of this one: the samples first, groups among them.
    pub fn own_dims(&self, dims: &[usize]) -> Vec<usize> {
        if self.is_apart(dims) {
            self.view.merged(dims)
        } else if has_samples_last(&self.dims(), dims) {
            vec![dims[1], dims[0]]
        } else {
            dims.to_vec()
        }
    }

    /// What the operator gives where the graph has `output`.
    pub fn own_output(&self, output: Tensor) -> Tensor {
        let dims = self.own_dims(output.dims());
        if self.is_apart(output.dims()) {
            output.reshaped(&dims)
        } else if dims == output.dims() {
            output
        } else {
            output.transposed()
        }
    }

    /// Whether a value of this shape has the axes apart that count samples.
    fn is_apart(&self, dims: &[usize]) -> bool {
        self.view.is_apart(self.seen.tensor.dims(), dims)
    }

    /// Whether what an operator reads are symmetric matrices.
    pub fn is_symmetric(&self) -> bool {
        let seen = &self.seen.tensor;
        match &self.view.order {
            _ if !self.view.takes(seen.dims()) => false,
            Some(order) => is_symmetric(&seen.permuted(order)),
            None => is_symmetric(seen),
        }
    }

    /// Evaluates the region on every probe. None where it cannot hold `operator`.
    ///
    /// The float64 evaluator comes first: it rounds nothing, so that what is computed shows apart from how. Where it
    /// lacks an operator, `runtime` evaluates the region.
    pub fn observe(&self, operator: OperatorKind, runtime: &dyn Runtime) -> Option<Observed> {
        let (element, dims) = (self.seen.element, &self.dims()[..]);
        if !element.is_float() {
            return None;
        }
        let possible = match operator {
            // The operator reads one triangle: it stands for the iteration only where the matrices are symmetric.
            OperatorKind::MatrixSqrt => dims.len() == 3 && dims[1] == dims[2] && self.is_symmetric(),
            _ => dims.len() >= 3,
        };
        if !possible || dims.contains(&0) {
            return None;
        }
        if is_spent() {
            return None;
        }
        let region = Region::new(&self.place.flow, self.input, element);
        if region.cuts.is_empty() {
            return None;
        }
        let probes = inputs(operator, dims)?;
        let part = Arc::new(self.part(&region.cuts));
        let (evaluator, resolution, inputs, seen, shapes, scalars);
        if let Some(exact) = self.evaluate(&part, &region, &probes, runtime) {
            (evaluator, resolution) = ("float64 evaluator".to_owned(), Resolution::exact(element));
            (inputs, seen) = (probes, exact.seen);
            (shapes, scalars) = (exact.shapes, exact.scalars);
        } else if !self.view.is_as_is()
            || region.nodes.iter().any(|&node| self.place.flow.graph.node[node].op_type() == "Loop")
        {
            // What did not end within the evaluator's bounds may not end in a runtime at all.
            return None;
        } else {
            if is_spent() {
                return None;
            }
            (evaluator, resolution) = (runtime.name(), Resolution::of(element));
            let rounded = |probe: &Tensor| Tensor::from_f64(element, dims, &probe.to_f64());
            inputs = probes.iter().map(rounded).collect::<Vec<_>>();
            seen = evaluate_in(runtime, &part, &region.cuts, element, &inputs)?;
            (shapes, scalars) = Default::default();
        }
        let (cuts, through, others) = in_order(&region, dims, seen, shapes, inputs.len());
        let (matrices, factors) = others.into_iter().partition(|cut| self.is_end(cut.value));
        Some(Observed {
            region,
            probed: Probed::new(inputs),
            element,
            cuts,
            through,
            matrices,
            factors,
            evaluator,
            scalars,
            resolution,
        })
    }

    /// Whether most of the products on the way to a value are there for it alone, as all but the covariance's are. What an
    /// iteration has come to before it is done is made of the same as what follows.
    pub fn is_done(&self, value: ValueId) -> bool {
        let flow = &self.place.flow;
        let way = flow.between(self.input, value);
        let own = flow.needed_only_for(&[value], &[self.input]);
        // What that takes.
        if spend(&[way.len() + own.len(), 512]).is_err() {
            return false;
        }
        let products = self.products.iter().filter(|product| way.contains(product)).count();
        let alone = self.products.iter().filter(|product| own.contains(product)).count();
        2 * alone > products
    }

    /// Whether a value is an end: only moved, averaged or read by trained nodes from there on.
    fn is_end(&self, value: ValueId) -> bool {
        let flow = &self.place.flow;
        flow.consumers[value].iter().all(|&node| {
            let reader = &flow.graph.node[node];
            let summed = reader.op_type() == "Shape" || reader.op_type().starts_with("Reduce");
            rearranges(reader) || summed || flow.has_weights(node)
        })
    }

    /// How far `output` is from what `layer` gives, on one batch of probes of the shape that was seen. None where it cannot be
    /// told.
    pub fn distance(&self, layer: &Layer, output: ValueId, runtime: &dyn Runtime) -> Option<f64> {
        let seen = self.seen.tensor.dims();
        if seen.contains(&0) {
            return None;
        }
        if !self.view.takes(seen) || self.dims().len() < 3 {
            return Some(f64::INFINITY);
        }
        let probe = first_input(layer.operator, &self.dims())?;
        self.distance_on(&self.part(&[output]), vec![probe], layer, runtime)
    }

    /// Whether anything of `output` is a number, on a probe of the shape that was seen. None where it cannot be told.
    pub fn gives_numbers(
        &self,
        operator: OperatorKind,
        output: ValueId,
        runtime: &dyn Runtime,
    ) -> Option<bool> {
        let probe = first_input(operator, &self.dims())?;
        let part = self.part(&[output]);
        let made = Evaluator::new(&part, Precision::Exact, Some(runtime)).ok()?.run(&[probe]).ok()?.pop()?;
        Some(made.to_f64().iter().any(|number| number.is_finite()))
    }

    /// How far what `part` computes is from what `layer` gives. None where it cannot be told.
    pub fn distance_on(
        &self,
        part: &ModelProto,
        probes: Vec<Tensor>,
        layer: &Layer,
        runtime: &dyn Runtime,
    ) -> Option<f64> {
        let evaluator = Evaluator::new(part, Precision::Exact, Some(runtime)).ok()?;
        let output = |probe: &Tensor| evaluator.run(std::slice::from_ref(probe)).ok()?.pop();
        let outputs: Vec<Tensor> =
            probes.iter().map(|probe| Some(self.own_output(output(probe)?))).collect::<Option<_>>()?;
        let dims = probes[0].dims();
        if outputs.iter().any(|output| output.dims().first() != dims.first()) {
            return Some(f64::INFINITY);
        }
        let error = judge::error(layer, &Probed::new(probes), &outputs);
        // What was not worked out to the end tells nothing.
        error.filter(|_| !is_spent())
    }

    /// What the values of the region were that could be an operator's output, for each batch of probes, in float64;
    /// nothing for those that could not be reached; and the values of one number a sample. None where no value could.
    fn evaluate(
        &self,
        part: &ModelProto,
        region: &Region,
        probes: &[Tensor],
        runtime: &dyn Runtime,
    ) -> Option<Cuts<'_>> {
        let mut watch = Cuts::new(self, region);
        let evaluator = Evaluator::new(part, Precision::Exact, Some(runtime)).ok()?;
        for probe in probes {
            let outcome = evaluator.watch(std::slice::from_ref(probe), &mut watch);
            if outcome.is_err() && watch.seen.is_empty() {
                return None;
            }
        }
        Some(watch)
    }
}

/// Whether every matrix of a tensor [N, …, d, d] is symmetric, up to rounding. What is no number is so where it is on both sides.
fn is_symmetric(tensor: &Tensor) -> bool {
    let side = tensor.dims().last().copied().unwrap_or(1).max(1);
    let values = tensor.to_f64();
    values.chunks_exact(side * side).all(|matrix| {
        let finite = magnitude(matrix.iter().filter(|value| value.is_finite()));
        let limit = crate::recognize::tolerance(tensor.element_type()) * finite;
        let are_near = |one: f64, other: f64| same(one, other) || (one - other).abs() <= limit;
        (0..side).all(|i| (0..i).all(|j| are_near(matrix[i * side + j], matrix[j * side + i])))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_overflows_on_both_sides_is_symmetric() {
        let is_symmetric = |one: f64, other: f64| {
            is_symmetric(&Tensor::from_f64(ElementType::F32, &[1, 2, 2], &[f64::INFINITY, one, other, 1.0]))
        };
        let (inf, nan) = (f64::INFINITY, f64::NAN);
        assert!(is_symmetric(2.0, 2.0) && is_symmetric(inf, inf) && is_symmetric(nan, nan));
        assert!(!is_symmetric(2.0, 2.1) && !is_symmetric(inf, 2.0) && !is_symmetric(-inf, inf));
        assert!(!is_symmetric(nan, 2.0));
    }
}
