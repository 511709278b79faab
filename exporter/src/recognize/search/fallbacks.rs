//! What a model makes of a layer that gives no number: where a sample is blank, the layer divides 0 by 0 and its operator gives 0.

use std::collections::{HashMap, HashSet};

use isqrt_cov_proto::FunctionKey;
use isqrt_cov_proto::onnx::{ModelProto, NodeProto};

use super::Search;
use crate::graph::{Flow, Kind, NodeId, ValueId, any_inside, asks_for_nan, functions_with, is_decision};
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
    pub(super) fn has_fallback(&self, place: usize, output: ValueId, near: &HashSet<NodeId>) -> bool {
        let is_near = |at: usize, node: NodeId| at == place && near.contains(&node);
        let own = (place, output);
        let mut masked: Vec<(usize, NodeId)> = Vec::new();
        let mut reached: HashSet<(usize, ValueId)> = HashSet::new();
        let mut pending = vec![(place, output)];
        while let Some((place, value)) = pending.pop() {
            if !reached.insert((place, value)) {
                continue;
            }
            let flow = &self.places[place].flow;
            for &node in flow.consumers[value].iter().filter(|&&node| flow.useful[node]) {
                if !is_near(place, node) && (self.asks(place, node) || self.compares_with_huge(place, node)) {
                    if !flow.graph.node[node].is("IsNaN") {
                        return true;
                    }
                    masked.push((place, node));
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
        masked.into_iter().any(|at| at.0 != own.0 || !self.weighs_nan(at.0, at.1, own.1))
    }

    /// Whether what is put in the place of the NaN that a node asks for becomes one again: the weights of attention, where no token may be
    /// attended to, of tokens that are no numbers either, as PyTorch's exporters write attention with a mask.
    fn weighs_nan(&self, place: usize, node: NodeId, layer: ValueId) -> bool {
        let flow = &self.places[place].flow;
        let weights = flow.data_reads(node).next();
        let is_softmax = |maker: NodeId| flow.graph.node[maker].is("Softmax");
        if !weights.and_then(|weights| flow.producer[weights]).is_some_and(is_softmax) {
            return false;
        }
        let all_read = |made: ValueId, is: &dyn Fn(NodeId) -> bool| {
            let readers = &flow.consumers[made];
            !flow.is_output[made] && !readers.is_empty() && readers.iter().all(|&reader| is(reader))
        };
        let weighs = |mixed: ValueId| {
            all_read(mixed, &|product| {
                let mut operands = flow.data_reads(product);
                flow.graph.node[product].is("MatMul")
                    && operands.any(|operand| operand != mixed && is_none_where(flow, operand, layer))
            })
        };
        let fills = |choice: NodeId| {
            let reads = flow.graph.node[choice].input.last().and_then(|name| flow.id(name));
            flow.graph.node[choice].is("Where") && reads == weights && flow.outputs(choice).all(weighs)
        };
        flow.outputs(node).all(|is_nan| all_read(is_nan, &fills))
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

/// Whether a value has no number in a sample in which a layer's has none: it is made of all of it, by what keeps every element or sums
/// them up.
fn is_none_where(flow: &Flow, value: ValueId, layer: ValueId) -> bool {
    const KEEPING: [&str; 18] = [
        "Add",
        "Cast",
        "Div",
        "Expand",
        "Flatten",
        "Gemm",
        "Identity",
        "LayerNormalization",
        "MatMul",
        "Mul",
        "Neg",
        "Reshape",
        "Squeeze",
        "Sub",
        "Tanh",
        "Tile",
        "Transpose",
        "Unsqueeze",
    ];
    let mut seen = HashSet::new();
    let mut pending = vec![value];
    while let Some(value) = pending.pop() {
        if value == layer {
            return true;
        }
        let maker = flow.producer[value].filter(|_| seen.insert(value));
        let Some(maker) = maker.filter(|&maker| KEEPING.contains(&flow.graph.node[maker].op_type())) else {
            continue;
        };
        pending.extend(flow.data_reads(maker));
    }
    false
}
