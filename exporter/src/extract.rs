//! Cuts a part out of a model, as a model of its own that a runtime can evaluate.

use std::collections::{BTreeSet, HashSet};

use isqrt_cov_proto::onnx::{GraphProto, ModelProto, OperatorSetIdProto, TensorProto, ValueInfoProto};

use crate::graph::{Flow, ValueId};
use crate::tensor::ElementType;

/// An input of the part, with the type it has there.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The value that is fed.
    pub value: ValueId,
    /// Its element type.
    pub element: ElementType,
    /// Its shape.
    pub dims: Vec<usize>,
}

/// The part of `model`, in one of its graphs, whose data flow is `flow` and whose operator sets are `opsets`, that computes
/// `outputs` from `entries`; `frozen` values are given as constants under their names.
#[must_use]
pub fn extract(
    model: &ModelProto,
    flow: &Flow,
    opsets: &[OperatorSetIdProto],
    entries: &[Entry],
    frozen: &[TensorProto],
    outputs: &[ValueId],
) -> ModelProto {
    let given: HashSet<ValueId> = entries
        .iter()
        .map(|entry| entry.value)
        .chain(frozen.iter().filter_map(|tensor| flow.id(tensor.name())))
        .collect();
    let mut nodes = BTreeSet::new();
    let mut used = HashSet::new();
    let mut pending: Vec<ValueId> = outputs.to_vec();
    while let Some(value) = pending.pop() {
        if !used.insert(value) || given.contains(&value) {
            continue;
        }
        if let Some(node) = flow.producer[value]
            && nodes.insert(node)
        {
            pending.extend(flow.reads(node));
        }
    }
    let is_used = |tensor: &&TensorProto| flow.id(tensor.name()).is_some_and(|id| used.contains(&id));
    let initializers = flow.graph.initializer.iter().filter(is_used);
    let graph = GraphProto {
        name: flow.graph.name.clone(),
        node: flow
            .order
            .iter()
            .filter(|node| nodes.contains(node))
            .map(|&node| flow.graph.node[node].clone())
            .collect(),
        initializer: initializers.chain(frozen.iter().filter(is_used)).cloned().collect(),
        input: entries
            .iter()
            .map(|entry| value_info(flow.names[entry.value], entry.element, &entry.dims))
            .collect(),
        output: outputs.iter().map(|&value| ValueInfoProto::named(flow.names[value])).collect(),
        ..GraphProto::default()
    };
    ModelProto {
        ir_version: model.ir_version,
        opset_import: opsets.to_vec(),
        functions: model.functions.clone(),
        graph: Some(graph),
        ..ModelProto::default()
    }
}

/// The description of a tensor of a fixed shape.
#[must_use]
pub fn value_info(name: &str, element: ElementType, dims: &[usize]) -> ValueInfoProto {
    ValueInfoProto::tensor(name, element.into(), dims.iter().map(|&dim| dim.into()))
}
