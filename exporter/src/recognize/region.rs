//! Where a layer may be: regions of the data flow without trained weights, around a product of data with itself.

use std::collections::HashSet;

use isqrt_cov_op::DOMAIN;
use isqrt_cov_proto::onnx::{FunctionProto, GraphProto, NodeProto};

use crate::graph::{Flow, Kind, NodeId, ValueId, is_matrix_product, multiplies, subgraphs};
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
pub fn products(flow: &Flow, multiplying: &HashSet<(&str, &str)>) -> Vec<NodeId> {
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
        if multiplying.contains(&(proto.domain(), proto.op_type())) || subgraphs(proto).any(multiplies) {
            return flow.outputs(**node).any(|output| flow.kind[output] == Kind::Data);
        }
        let is_of_data = proto.input.get(..2).is_some_and(|operands| operands.iter().all(is_data));
        is_matrix_product(proto) && is_of_data || is_spread_out(**node)
    };
    flow.order.iter().filter(is_product).copied().collect()
}

/// The functions, by domain and name, that have matrix products in their bodies, or call one that has.
#[must_use]
pub fn multiplying_functions(functions: &[FunctionProto]) -> HashSet<(&str, &str)> {
    let mut multiplying = HashSet::new();
    loop {
        let before = multiplying.len();
        for function in functions.iter().filter(|function| function.domain() != DOMAIN) {
            let is = |node: &NodeProto| {
                is_matrix_product(node)
                    || multiplying.contains(&(node.domain(), node.op_type()))
                    || subgraphs(node).any(multiplies)
            };
            if function.node.iter().any(is) {
                multiplying.insert((function.domain(), function.name()));
            }
        }
        if multiplying.len() == before {
            return multiplying;
        }
    }
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

/// Whether a node treats numbers differently by their size: ordinary inputs may never show what it does. One in front of
/// a layer is not part of it.
pub fn is_guard(node: &NodeProto) -> bool {
    let limits = matches!(
        node.op_type(),
        "Clip"
            | "Min"
            | "Max"
            | "Where"
            | "IsNaN"
            | "IsInf"
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

/// Whether a node makes of numbers which of a few cases they are.
fn is_decision(node: &NodeProto) -> bool {
    let decides = matches!(
        node.op_type(),
        "Sign"
            | "Round"
            | "Floor"
            | "Ceil"
            | "Mod"
            | "Greater"
            | "GreaterOrEqual"
            | "Less"
            | "LessOrEqual"
            | "Equal"
    );
    let to = node.find("to").and_then(|to| ElementType::from_onnx(i32::try_from(to.i()).ok()?));
    decides || node.op_type() == "Cast" && to.is_some_and(|element| !element.is_float())
}

/// Whether a node chooses by data, which no input tried may show: by comparing them, or the larger of two. Nothing behind it is
/// a formula. Limits that are constants show on extreme inputs instead.
fn chooses(flow: &Flow, node: NodeId) -> bool {
    let proto = &flow.graph.node[node];
    is_decision(proto) || matches!(proto.op_type(), "Min" | "Max") && flow.data_reads(node).count() > 1
}

/// Whether a graph, or a graph in it, treats numbers differently by their size.
pub fn has_guards(graph: &GraphProto) -> bool {
    graph.node.iter().any(|node| is_guard(node) || subgraphs(node).any(has_guards))
}

/// Whether neither a trained weight nor a guard goes in between a dominator and the value it dominates.
fn is_weightless_between(flow: &Flow, dominator: ValueId, value: ValueId) -> bool {
    let mut visited = HashSet::from([dominator]);
    let mut pending = vec![value];
    while let Some(value) = pending.pop() {
        if !visited.insert(value) {
            continue;
        }
        let Some(node) = flow.producer[value] else { return false };
        if flow.has_weights(node) || is_guard(&flow.graph.node[node]) {
            return false;
        }
        pending.extend(flow.data_reads(node));
    }
    true
}

impl Region {
    /// The region that follows from `input`.
    #[must_use]
    pub fn new(flow: &Flow, input: ValueId) -> Self {
        let mut inside = HashSet::from([input]);
        let mut nodes = HashSet::new();
        let mut order = Vec::new();
        for node in following(flow, input) {
            let is_formula = !flow.has_weights(node) && !chooses(flow, node);
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
