//! Where a layer may be: regions of the data flow without trained weights, around a product of data with itself.

use std::collections::HashSet;

use isqrt_cov_proto::onnx::{FunctionProto, NodeProto};
use isqrt_cov_proto::{FunctionKey, domain_of};

use crate::graph::{
    Flow, Kind, NodeId, ValueId, any_inside, functions_with, is_decision, is_matrix_product, moves,
    multiplies, subgraphs,
};
use crate::tensor::ElementType;

/// Feature maps upstream of a product that are tried as a region's input.
const INPUTS_TRIED: usize = 8;

/// Everything that follows from one value without trained weights or other data.
#[derive(Debug)]
pub struct Region {
    /// The value.
    pub input: ValueId,
    /// Values through which all that leaves the region on some way goes, in graph order.
    pub cuts: Vec<ValueId>,
    /// Those of the cuts that something outside of the region reads.
    pub exits: HashSet<ValueId>,
    /// The region's other values, in graph order.
    pub others: Vec<ValueId>,
    /// The region's nodes.
    pub nodes: HashSet<NodeId>,
}

/// The nodes that multiply two matrices which both come from the data, and those that have such a product inside: where a
/// covariance or an iteration may be. `multiplying` functions have products in their bodies.
#[must_use]
pub fn products(flow: &Flow, multiplying: &HashSet<FunctionKey>) -> Vec<NodeId> {
    let is_data = |name: &String| flow.id(name).is_some_and(|id| flow.kind[id] == Kind::Data);
    let producer = |name: &String| Some(&flow.graph.node[flow.producer[flow.id(name)?]?]);
    let is_spread = |name: &String| {
        producer(name).is_some_and(|node| matches!(node.op_type(), "Unsqueeze" | "Reshape" | "Expand"))
    };
    // A product as a sum over elements that stand in rows and columns: of the columns of one matrix by the rows of the other.
    let is_spread_out = |node: NodeId| {
        let proto = &flow.graph.node[node];
        let sums = |node: &NodeId| flow.graph.node[*node].op_type().starts_with("Reduce");
        proto.op_type() == "Mul"
            && proto.input.iter().all(|operand| is_data(operand) && is_spread(operand))
            && flow.outputs(node).any(|output| flow.consumers[output].iter().any(sums))
    };
    let is_product = |node: &&NodeId| {
        let proto = &flow.graph.node[**node];
        if multiplying.contains(&proto.called()) || subgraphs(proto).any(multiplies) {
            return flow.outputs(**node).any(|output| flow.kind[output] == Kind::Data);
        }
        let is_of_data = proto.input.get(..2).is_some_and(|operands| operands.iter().all(is_data));
        is_matrix_product(proto) && is_of_data || is_spread_out(**node)
    };
    flow.order.iter().filter(is_product).copied().collect()
}

/// The functions that have matrix products in their bodies, or call one that has.
#[must_use]
pub fn multiplying_functions(functions: &[FunctionProto]) -> HashSet<FunctionKey<'_>> {
    functions_with(functions, |nodes| nodes.iter().any(|node| any_inside(node, &is_matrix_product)))
}

/// The values from which everything up to a product follows without a trained weight.
#[must_use]
pub fn inputs(flow: &Flow, product: NodeId) -> Vec<ValueId> {
    let mut inputs = Vec::new();
    for value in flow.outputs(product) {
        let mut reached = value;
        for dominator in flow.dominators(value).take(INPUTS_TRIED) {
            if !is_weightless_between(flow, dominator, reached) {
                break;
            }
            if !inputs.contains(&dominator) {
                inputs.push(dominator);
            }
            reached = dominator;
        }
    }
    inputs
}

/// Whether a node treats numbers differently by their size.
fn is_guard(node: &NodeProto) -> bool {
    let limits = matches!(
        node.op_type(),
        "Clip"
            | "Min"
            | "Max"
            | "Where"
            | "IsNaN"
            | "IsInf"
            | "ReduceMax"
            | "ReduceMin"
            | "Relu"
            | "LeakyRelu"
            | "ThresholdedRelu"
            | "Shrink"
            | "HardSigmoid"
            | "QuantizeLinear"
            | "DequantizeLinear"
    );
    limits || is_decision(node)
}

/// Whether a node may compute something else for other shapes: it makes cases of them, takes a part of what it reads, or has
/// graphs or a function inside.
pub fn decides_by_size(flow: &Flow, node: NodeId) -> bool {
    let proto = &flow.graph.node[node];
    let makers = || {
        let producers = proto.input.iter().filter_map(|name| flow.producer[flow.id(name)?]);
        producers.map(|producer| &flow.graph.node[producer])
    };
    let of_shapes = flow.outputs(node).all(|value| flow.kind[value] == Kind::Shape);
    match proto.op_type() {
        "Slice" => !of_shapes,
        // Sizes are whole numbers unless they are made other ones.
        "Div" => of_shapes && !makers().any(|maker| maker.op_type() == "Cast" && !is_decision(maker)),
        "Cast" => {
            of_shapes
                && is_decision(proto)
                && !makers().any(|maker| maker.op_type() == "Shape" || moves(maker))
        }
        _ if subgraphs(proto).next().is_some() => true,
        _ if !matches!(domain_of(proto.domain()), "" | "com.microsoft") => true,
        _ => of_shapes && is_guard(proto),
    }
}

/// Whether neither a trained weight nor a node that bends goes in between a dominator and the value it dominates.
fn is_weightless_between(flow: &Flow, dominator: ValueId, value: ValueId) -> bool {
    let mut visited = HashSet::from([dominator]);
    let mut pending = vec![value];
    while let Some(value) = pending.pop() {
        if !visited.insert(value) {
            continue;
        }
        let Some(node) = flow.producer[value] else { return false };
        if flow.has_weights(node) || flow.bends(node) {
            return false;
        }
        pending.extend(flow.data_reads(node));
    }
    true
}

impl Region {
    /// The region that follows from `input`, which is of type `element`. Numbers that are rounded to less than it are others.
    #[must_use]
    pub fn new(flow: &Flow, input: ValueId, element: ElementType) -> Self {
        let mut inside = HashSet::from([input]);
        let mut nodes = HashSet::new();
        let mut order = Vec::new();
        for node in following(flow, input) {
            let proto = &flow.graph.node[node];
            let is_formula = !flow.has_weights(node) && !flow.chooses(node) && !narrows(proto, element);
            if is_formula && flow.data_reads(node).all(|value| inside.contains(&value)) {
                nodes.insert(node);
                inside.extend(flow.outputs(node));
                order.extend(flow.outputs(node));
            }
        }
        inside.remove(&input);
        let leaves = |value: ValueId| {
            flow.is_output[value] || flow.consumers[value].iter().any(|reader| !nodes.contains(reader))
        };
        let mut cuts = HashSet::new();
        let exits: HashSet<ValueId> = inside.iter().copied().filter(|&value| leaves(value)).collect();
        for &exit in &exits {
            // Beyond one that is there already, all are.
            let way = std::iter::once(exit).chain(flow.dominators(exit));
            let new: Vec<ValueId> =
                way.take_while(|value| *value != input && !cuts.contains(value)).collect();
            cuts.extend(new);
        }
        let (cuts, others) = order.into_iter().partition(|value| cuts.contains(value));
        Self { input, cuts, exits, others, nodes }
    }
}

/// Whether a node rounds numbers to fewer bits than those of type `element` have.
fn narrows(node: &NodeProto, element: ElementType) -> bool {
    let bits = |element: ElementType| match element {
        ElementType::F64 => 53,
        ElementType::F32 => 24,
        ElementType::F16 => 11,
        ElementType::BF16 => 8,
        _ => u32::MAX,
    };
    let to = node.find("to").and_then(|to| ElementType::from_onnx(i32::try_from(to.i()).ok()?));
    node.op_type() == "Cast" && to.is_some_and(|to| bits(to) < bits(element))
}

/// The nodes downstream of a value, in graph order.
fn following(flow: &Flow, value: ValueId) -> Vec<NodeId> {
    let mut reached: HashSet<NodeId> = HashSet::new();
    let mut pending = vec![value];
    while let Some(value) = pending.pop() {
        for &node in &flow.consumers[value] {
            if reached.insert(node) && !flow.has_weights(node) {
                pending.extend(flow.outputs(node).filter(|&output| flow.kind[output] == Kind::Data));
            }
        }
    }
    flow.order.iter().copied().filter(|node| reached.contains(node)).collect()
}
