//! Where a layer may be: regions of the data flow without trained weights, around a product of data with itself.

use std::collections::HashSet;

use isqrt_cov_proto::onnx::NodeProto;

use crate::graph::{Flow, Kind, NodeId, ValueId};

/// Feature maps upstream of a product that are tried as a region's input.
const INPUTS_TRIED: usize = 8;

/// Everything that follows from one value without trained weights or other data.
#[derive(Debug)]
pub struct Region {
    /// The value.
    pub input: ValueId,
    /// Values through which all that leaves the region on some way goes, in graph order.
    pub cuts: Vec<ValueId>,
    /// The region's nodes.
    pub nodes: HashSet<NodeId>,
}

/// The nodes that multiply two matrices which both come from the data: where a covariance or an iteration may be.
#[must_use]
pub fn products(flow: &Flow) -> Vec<NodeId> {
    let is_data = |name: &String| flow.id(name).is_some_and(|id| flow.kind[id] == Kind::Data);
    let is_product = |node: &&NodeId| {
        let proto = &flow.graph.node[**node];
        is_matrix_product(proto) && proto.input.get(..2).is_some_and(|operands| operands.iter().all(is_data))
    };
    flow.order.iter().filter(is_product).copied().collect()
}

/// Whether a node multiplies matrices.
#[must_use]
pub fn is_matrix_product(node: &NodeProto) -> bool {
    matches!(node.op_type(), "MatMul" | "Gemm" | "Einsum" | "FusedMatMul")
}

/// The values from which everything up to a product follows without a trained weight.
#[must_use]
pub fn inputs(flow: &Flow, product: NodeId) -> Vec<ValueId> {
    let Some(value) = flow.outputs(product).next() else { return Vec::new() };
    let mut inputs = Vec::new();
    let mut reached = value;
    for dominator in flow.dominators(value).take(INPUTS_TRIED) {
        if !is_weightless_between(flow, dominator, reached) {
            break;
        }
        inputs.push(dominator);
        reached = dominator;
    }
    inputs
}

/// Whether no trained weight goes in between a dominator and the value it dominates.
fn is_weightless_between(flow: &Flow, dominator: ValueId, value: ValueId) -> bool {
    let mut visited = HashSet::from([dominator]);
    let mut pending = vec![value];
    while let Some(value) = pending.pop() {
        if !visited.insert(value) {
            continue;
        }
        let Some(node) = flow.producer[value] else { return false };
        if flow.has_weights(node) {
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
            if !flow.has_weights(node) && flow.data_reads(node).all(|value| inside.contains(&value)) {
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
        for exit in inside.iter().copied().filter(|&value| leaves(value)) {
            cuts.insert(exit);
            cuts.extend(flow.dominators(exit).take_while(|&value| value != input));
        }
        Self { input, cuts: order.into_iter().filter(|value| cuts.contains(value)).collect(), nodes }
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
