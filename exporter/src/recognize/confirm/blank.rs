//! What a graph makes of a layer whose input is 0 everywhere. The layer divides 0 by 0 there, and its operator gives 0: the two
//! differ where the graph asks for a NaN and puts a number in its place.

use std::collections::HashSet;

use isqrt_cov_op::{Layer, Layout, OperatorKind};
use isqrt_cov_proto::onnx::NodeProto;

use crate::distance::magnitude;
use crate::evaluate::{Evaluator, Precision};
use crate::extract::{Entry, extract};
use crate::graph::{NodeId, ValueId, is_decision};
use crate::recognize::identify::probed::extreme;
use crate::recognize::observe::subject::Subject;
use crate::recognize::probe::PROBES;
use crate::recognize::propose::region::Region;
use crate::runtime::Runtime;
use crate::tensor::{ElementType, Tensor};

/// What numbers may differ by, relative to the largest: both are computed in float64.
pub const SAME: f64 = 1e-6;

impl Subject<'_> {
    /// Whether the graph has other numbers than with the operator in the place of `output` where a sample is blank. What is no
    /// number may become any. False where it cannot be told. Behind trained weights it cannot: there `has_fallback` decides, which is
    /// given the nodes behind `output` that are looked at here.
    pub fn fills_blank(
        &self,
        layer: &Layer,
        output: ValueId,
        has_fallback: &dyn Fn(&HashSet<NodeId>) -> bool,
        runtime: &dyn Runtime,
    ) -> bool {
        if layer.operator == OperatorKind::CovariancePooling || layer.epsilon > 0.0 {
            return false;
        }
        let (exits, behind) = self.behind(output);
        if has_fallback(&behind) {
            return true;
        }
        let flow = &self.place.flow;
        let mut nodes = behind.into_iter().chain(flow.between(self.input, output));
        nodes.any(|node| flow.bends(node))
            && Nothing::of(layer)
                .iter()
                .any(|&nothing| self.differs_on_blank(layer, nothing, output, &exits, runtime) == Some(true))
    }

    /// What the region gives of what is made of `output`, and by which nodes.
    fn behind(&self, output: ValueId) -> (Vec<ValueId>, HashSet<NodeId>) {
        let flow = &self.place.flow;
        let region = Region::new(flow, self.input, self.seen.element);
        let mut nodes = HashSet::new();
        let mut exits = Vec::new();
        let mut pending = vec![output];
        // A comparison with a NaN comes to one of the two that any may, and an integer is made of it as the runtime likes: that is no
        // number in its place.
        let is_integer = |node: &NodeProto| node.op_type().ends_with("QuantizeLinear");
        let ends = |node: &NodeProto| is_decision(node) || is_integer(node);
        let follows = |node: &&NodeId| region.nodes.contains(node) && !ends(&flow.graph.node[**node]);
        while let Some(value) = pending.pop() {
            for &node in flow.consumers[value].iter().filter(follows) {
                if nodes.insert(node) {
                    exits.extend(flow.outputs(node).filter(|output| region.exits.contains(output)));
                    pending.extend(flow.outputs(node));
                }
            }
        }
        (exits, nodes)
    }

    fn differs_on_blank(
        &self,
        layer: &Layer,
        nothing: Nothing,
        output: ValueId,
        exits: &[ValueId],
        runtime: &dyn Runtime,
    ) -> Option<bool> {
        let input = with_nothing(layer, &self.dims(), nothing, |sample| sample == 0);
        let dims = input.dims();
        let part = self.part(&[&[output], exits].concat());
        let before = Evaluator::new(&part, Precision::Exact, Some(runtime))
            .ok()?
            .run(std::slice::from_ref(&input))
            .ok()?;
        let (given, before) = before.split_first()?;
        let mut numbers = given.to_f64();
        let blank = numbers.len() / dims[0];
        let mut of_blank = self.own_output(given.clone()).to_f64().into_iter().take(blank);
        if of_blank.any(|number| number.is_finite() && number != 0.0) {
            // Constants that are rounded leave something of a mean.
            return matches!(nothing, Nothing::Zero).then_some(true);
        }
        numbers.iter_mut().filter(|number| !number.is_finite()).for_each(|number| *number = 0.0);
        let entry = |value, dims: &[usize]| Entry { value, element: self.seen.element, dims: dims.to_vec() };
        let seen = self.seen.tensor.dims();
        let entries = [entry(self.input, seen), entry(output, given.dims())];
        let part = extract(self.model, &self.place.flow, self.place.opsets, &entries, self.frozen, exits);
        let given = Tensor::from_f64(ElementType::F64, given.dims(), &numbers);
        let after = Evaluator::new(&part, Precision::Exact, Some(runtime))
            .ok()?
            .run(&[self.view.given(&input, seen), given])
            .ok()?;
        Some(before.iter().zip(&after).any(|(before, after)| has_others(before, after)))
    }
}

/// A sample that has no matrix to take a root of.
#[derive(Debug, Clone, Copy)]
pub enum Nothing {
    /// 0 everywhere.
    Zero,
    /// Channels that are the same everywhere.
    Constant,
}

impl Nothing {
    /// Those of a layer.
    pub fn of(layer: &Layer) -> &'static [Self] {
        let subtracts = layer.operator != OperatorKind::MatrixSqrt && layer.centered;
        if subtracts { &[Self::Zero, Self::Constant] } else { &[Self::Zero] }
    }
}

/// Ordinary inputs of a layer, but for some samples, which are nothing.
pub fn with_nothing(
    layer: &Layer,
    dims: &[usize],
    nothing: Nothing,
    is_nothing: impl Fn(usize) -> bool,
) -> Tensor {
    let mut values = extreme(layer.operator, dims, &PROBES[0]).to_f64();
    let elements: usize = dims[1..].iter().product();
    let channel = |element: usize| match layer.layout {
        Layout::ChannelsFirst => element / (elements / dims[1]),
        Layout::ChannelsLast => element % dims[dims.len() - 1],
    };
    for (at, value) in values.iter_mut().enumerate().filter(|(at, _)| is_nothing(at / elements)) {
        *value = match nothing {
            Nothing::Zero => 0.0,
            // Numbers whose mean is not rounded.
            Nothing::Constant => (1 + channel(at % elements) % 4) as f64,
        };
    }
    Tensor::from_f64(ElementType::F64, dims, &values)
}

/// Whether a tensor has numbers that another one has not.
fn has_others(before: &Tensor, after: &Tensor) -> bool {
    let (before, after) = (before.to_f64(), after.to_f64());
    let largest = magnitude(before.iter().filter(|number| number.is_finite()));
    // No `scaled_distance`: what was no number may be anything, and all may be 0.
    let is_same =
        |(before, after): (&f64, &f64)| !before.is_finite() || (before - after).abs() <= SAME * largest;
    before.len() != after.len() || !before.iter().zip(&after).all(is_same)
}
