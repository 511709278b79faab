//! What can be told of a node or a graph without the data flow around it.

use std::collections::{HashMap, HashSet};

use isqrt_cov_op::DOMAIN;
use isqrt_cov_proto::onnx::{GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};
use isqrt_cov_proto::{subgraphs, whole_graphs};

use crate::constants::looks_trained;

/// Whether a node, or one in a graph inside it, is such a one.
pub(crate) fn any_inside(node: &NodeProto, is: &dyn Fn(&NodeProto) -> bool) -> bool {
    is(node) || subgraphs(node).any(|graph| graph.node.iter().any(|node| any_inside(node, is)))
}

/// Whether a node asks which numbers are none: a number is itself, and nothing else is not.
#[must_use]
pub fn asks_for_nan(node: &NodeProto) -> bool {
    match node.op_type() {
        "IsNaN" => true,
        "Equal" => matches!(&node.input[..], [one, other] if one == other),
        _ => false,
    }
}

/// Whether a node is one of our operators, or has one in a graph inside.
#[must_use]
pub fn holds_operator(node: &NodeProto) -> bool {
    any_inside(node, &|node| node.domain() == DOMAIN)
}

/// Whether a node, or one inside it, depends on attributes that only the callers of its function know.
pub(super) fn asks_caller(node: &NodeProto) -> bool {
    any_inside(node, &|node| node.attribute.iter().any(|attribute| !attribute.ref_attr_name().is_empty()))
}

/// Whether a `Constant` among the nodes, or a constant of a graph inside them, looks trained.
pub(super) fn holds_weights(nodes: &[NodeProto]) -> bool {
    nodes.iter().any(|node| {
        let own = node.constant();
        own.is_some_and(|tensor| looks_trained(&tensor))
            || subgraphs(node)
                .any(|graph| graph.initializer.iter().any(looks_trained) || holds_weights(&graph.node))
    })
}

/// Whether a graph, or a graph inside it, multiplies matrices.
#[must_use]
pub fn multiplies(graph: &GraphProto) -> bool {
    graph.node.iter().any(|node| any_inside(node, &is_matrix_product))
}

/// Whether a node multiplies matrices.
#[must_use]
pub fn is_matrix_product(node: &NodeProto) -> bool {
    matches!(node.op_type(), "MatMul" | "Gemm" | "Einsum" | "FusedMatMul" | "TransposeMatMul" | "FusedGemm")
}

/// Whether a node gives all elements of its inputs, in another arrangement perhaps.
#[must_use]
pub fn rearranges(node: &NodeProto) -> bool {
    matches!(
        node.op_type(),
        "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" | "Transpose" | "Concat" | "Identity" | "Cast"
    )
}

/// Whether a node only moves the elements of its inputs, or some of them.
#[must_use]
pub fn moves(node: &NodeProto) -> bool {
    let operator = node.op_type();
    rearranges(node)
        || matches!(operator, "Slice" | "Split")
        || operator.starts_with("Gather")
        || operator.starts_with("Scatter")
}

/// Whether an operator uses the shape or the type of an input, not the elements.
#[must_use]
pub fn reads_shape_only(node: &NodeProto, input: usize) -> bool {
    matches!((node.op_type(), input), ("Shape" | "Size" | "EyeLike", 0) | ("CastLike", 1))
}

/// Calls `visit` for every name that `graph`'s nodes read and do not make themselves.
pub(crate) fn captured<'a>(graph: &'a GraphProto, visit: &mut dyn FnMut(&'a str)) {
    let mut local: HashSet<&str> = graph
        .input
        .iter()
        .map(ValueInfoProto::name)
        .chain(graph.initializer.iter().map(TensorProto::name))
        .collect();
    for node in &graph.node {
        local.extend(node.output.iter().map(String::as_str));
    }
    let mut from_outside = |name: &'a str| {
        if !name.is_empty() && !local.contains(name) {
            visit(name);
        }
    };
    for node in &graph.node {
        node.input.iter().for_each(|name| from_outside(name));
        for subgraph in subgraphs(node) {
            captured(subgraph, &mut from_outside);
        }
    }
    graph.output.iter().for_each(|value| from_outside(value.name()));
}

/// The graph's inputs that have to be given. Before IR version 4 initializers were inputs, too.
pub(crate) fn given(graph: &GraphProto) -> impl Iterator<Item = &ValueInfoProto> {
    let sparse = graph.sparse_initializer.iter().filter_map(|tensor| Some(tensor.values.as_ref()?.name()));
    let defaults: HashSet<&str> = graph.initializer.iter().map(TensorProto::name).chain(sparse).collect();
    graph.input.iter().filter(move |input| !defaults.contains(input.name()))
}

/// Every name that a model gives to a value or a node.
pub(crate) fn all_names(model: &ModelProto) -> HashSet<&str> {
    let mut all = HashSet::new();
    whole_graphs(model).for_each(|graph| names(graph, &mut all));
    for function in &model.functions {
        all.extend(function.input.iter().chain(&function.output).map(String::as_str));
        node_names(&function.node, &mut all);
    }
    all
}

/// Adds every name that a graph, or a graph inside it, gives to a value or a node.
fn names<'a>(graph: &'a GraphProto, names: &mut HashSet<&'a str>) {
    names.extend(graph.input.iter().chain(&graph.output).map(ValueInfoProto::name));
    names.extend(graph.initializer.iter().map(TensorProto::name));
    names.extend(graph.sparse_initializer.iter().filter_map(|tensor| Some(tensor.values.as_ref()?.name())));
    node_names(&graph.node, names);
}

/// Adds every name that nodes, or the graphs inside them, give to a value or a node.
fn node_names<'a>(nodes: &'a [NodeProto], all: &mut HashSet<&'a str>) {
    for node in nodes {
        all.extend(node.input.iter().chain(&node.output).map(String::as_str));
        all.insert(node.name());
        subgraphs(node).for_each(|graph| names(graph, all));
    }
}

/// The node that makes each value of a graph.
#[must_use]
pub fn producers(graph: &GraphProto) -> HashMap<&str, &NodeProto> {
    graph.node.iter().flat_map(|node| node.output.iter().map(move |name| (name.as_str(), node))).collect()
}
