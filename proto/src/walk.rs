//! Visiting every tensor of a model.

use crate::onnx::{AttributeProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto};

/// Where a tensor stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Among the initializers of a graph or subgraph.
    Initializer,
    /// In an attribute, or part of a sparse tensor.
    Elsewhere,
}

type Visit<'a, E> = dyn FnMut(&mut TensorProto, Place) -> Result<(), E> + 'a;

/// Calls `visit` for every tensor of the model: of its graph, subgraphs, functions and training graphs.
pub(crate) fn tensors<E>(model: &mut ModelProto, visit: &mut Visit<'_, E>) -> Result<(), E> {
    if let Some(graph) = &mut model.graph {
        in_graph(graph, visit)?;
    }
    for training in &mut model.training_info {
        for graph in training.initialization.iter_mut().chain(&mut training.algorithm) {
            in_graph(graph, visit)?;
        }
    }
    for function in &mut model.functions {
        for attribute in &mut function.attribute_proto {
            in_attribute(attribute, visit)?;
        }
        in_nodes(&mut function.node, visit)?;
    }
    Ok(())
}

fn in_graph<E>(graph: &mut GraphProto, visit: &mut Visit<'_, E>) -> Result<(), E> {
    for tensor in &mut graph.initializer {
        visit(tensor, Place::Initializer)?;
    }
    for tensor in &mut graph.sparse_initializer {
        in_sparse(tensor, visit)?;
    }
    in_nodes(&mut graph.node, visit)
}

fn in_nodes<E>(nodes: &mut [NodeProto], visit: &mut Visit<'_, E>) -> Result<(), E> {
    for attribute in nodes.iter_mut().flat_map(|node| &mut node.attribute) {
        in_attribute(attribute, visit)?;
    }
    Ok(())
}

fn in_attribute<E>(attribute: &mut AttributeProto, visit: &mut Visit<'_, E>) -> Result<(), E> {
    for tensor in attribute.t.as_deref_mut().into_iter().chain(&mut attribute.tensors) {
        visit(tensor, Place::Elsewhere)?;
    }
    for tensor in attribute.sparse_tensor.as_deref_mut().into_iter().chain(&mut attribute.sparse_tensors) {
        in_sparse(tensor, visit)?;
    }
    for graph in attribute.g.as_deref_mut().into_iter().chain(&mut attribute.graphs) {
        in_graph(graph, visit)?;
    }
    Ok(())
}

fn in_sparse<E>(tensor: &mut SparseTensorProto, visit: &mut Visit<'_, E>) -> Result<(), E> {
    for tensor in tensor.values.iter_mut().chain(&mut tensor.indices) {
        visit(tensor, Place::Elsewhere)?;
    }
    Ok(())
}
