//! What a model makes of a layer that gives no number: where a sample is blank, the layer divides 0 by 0 and its operator gives 0.

use std::collections::{HashMap, HashSet};

use isqrt_cov_proto::FunctionKey;
use isqrt_cov_proto::onnx::{ModelProto, NodeProto};

use super::Search;
use crate::graph::{Kind, NodeId, ValueId, any_inside, asks_for_nan, functions_with, is_decision};
use crate::recognize::observe::survey::source;
use crate::recognize::propose::places::Place;

/// What nodes have inside: graphs, and functions that they call.
pub struct Inside<'a> {
    graphs: HashMap<(usize, NodeId), Vec<usize>>,
    callers: HashMap<FunctionKey<'a>, Vec<(usize, NodeId)>>,
    /// The functions that ask for a NaN.
    asking: HashSet<FunctionKey<'a>>,
}

impl<'a> Inside<'a> {
    /// Those of `model`, whose graphs are `places`.
    pub fn of(model: &'a ModelProto, places: &'a [Place<'a>]) -> Self {
        let mut graphs: HashMap<_, Vec<usize>> = HashMap::new();
        let mut callers: HashMap<FunctionKey, Vec<(usize, NodeId)>> = HashMap::new();
        for (place, here) in places.iter().enumerate() {
            if let (Some(outer), Some(&(node, _))) = (here.outer, here.scope.path.last()) {
                graphs.entry((outer, node)).or_default().push(place);
            }
            for (node, proto) in here.flow.graph.node.iter().enumerate() {
                callers.entry(proto.called()).or_default().push((place, node));
            }
        }
        let asks = |nodes: &[NodeProto]| nodes.iter().any(|node| any_inside(node, &asks_for_nan));
        Self { graphs, callers, asking: functions_with(&model.functions, asks) }
    }
}

impl Search<'_> {
    /// Whether something behind a value asks for a NaN, where it cannot be told what that does: anywhere but among the nodes `near`
    /// it, in the graphs around its own and behind the calls of its function as well.
    pub(super) fn asks_for_nan(&self, place: usize, output: ValueId, near: &HashSet<NodeId>) -> bool {
        let is_near = |at: usize, node: NodeId| at == place && near.contains(&node);
        let mut reached: HashSet<(usize, ValueId)> = HashSet::new();
        let mut pending = vec![(place, output)];
        while let Some((place, value)) = pending.pop() {
            if !reached.insert((place, value)) {
                continue;
            }
            let flow = &self.places[place].flow;
            for &node in flow.consumers[value].iter().filter(|&&node| flow.useful[node]) {
                if !is_near(place, node) && (self.asks(place, node) || self.compares_with_huge(place, node)) {
                    return true;
                }
                let is_data = |output: &ValueId| flow.kind[*output] == Kind::Data;
                pending.extend(flow.outputs(node).filter(is_data).map(|output| (place, output)));
                let graphs = self.inside.graphs.get(&(place, node)).into_iter().flatten();
                pending.extend(
                    graphs.filter_map(|&inner| Some((inner, self.places[inner].flow.id(flow.names[value])?))),
                );
            }
            if flow.is_output[value] {
                pending.extend(self.around(place));
            }
        }
        false
    }

    /// Whether a node asks for a NaN, in a function that it calls or in a graph that it hands its inputs to as well.
    fn asks(&self, place: usize, node: NodeId) -> bool {
        let flow = &self.places[place].flow;
        let proto = &flow.graph.node[node];
        let hands_on = matches!(proto.op_type(), "Loop" | "Scan");
        // What was chosen of a few is always a number.
        let is_number = || {
            let makers = flow.data_reads(node).filter_map(|value| flow.producer[value]);
            makers.map(|maker| &flow.graph.node[maker]).any(is_decision)
        };
        self.inside.asking.contains(&proto.called())
            || asks_for_nan(proto) && !(proto.is("Equal") && is_number())
            || hands_on && any_inside(proto, &asks_for_nan)
    }

    /// Whether a node compares with what is larger than any number of a network, so that all that is true of is one.
    fn compares_with_huge(&self, place: usize, node: NodeId) -> bool {
        let flow = &self.places[place].flow;
        let proto = &flow.graph.node[node];
        let huge = |at: usize| {
            let (place, value) = source(self.places, place, flow.id(proto.input.get(at)?)?);
            self.places[place].flow.huge(value)
        };
        let is_between = |less: usize, more: usize| huge(less) == Some(-1.0) || huge(more) == Some(1.0);
        match proto.op_type() {
            "Less" | "LessOrEqual" => is_between(0, 1),
            "Greater" | "GreaterOrEqual" => is_between(1, 0),
            _ => false,
        }
    }

    /// The values around a place that its outputs may be: those that its node makes, or those that call its function.
    fn around(&self, place: usize) -> Vec<(usize, ValueId)> {
        let Place { scope, outer, .. } = &self.places[place];
        let function = || self.model.functions.get(scope.function?);
        let holders = match (outer, scope.path.last()) {
            (Some(outer), Some(&(node, _))) => vec![(*outer, node)],
            _ => function()
                .and_then(|function| self.inside.callers.get(&function.key()))
                .cloned()
                .unwrap_or_default(),
        };
        let made = |(place, node): (usize, NodeId)| {
            self.places[place].flow.outputs(node).map(move |output| (place, output))
        };
        holders.into_iter().flat_map(made).collect()
    }
}
