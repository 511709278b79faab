//! The functions of a model: which of them nodes call, and which have something inside.

use std::collections::{HashMap, HashSet};

use isqrt_cov_op::DOMAIN;
use isqrt_cov_proto::onnx::{FunctionProto, NodeProto};
use isqrt_cov_proto::{FunctionKey, each_node};

use super::nodes::{holds_operator, holds_weights};

/// The functions of a model, by what their calls say.
pub type Functions<'a> = HashMap<FunctionKey<'a>, &'a FunctionProto>;

/// These functions by what their calls say.
#[must_use]
pub fn by_key(functions: &[FunctionProto]) -> Functions<'_> {
    functions.iter().map(|function| (function.key(), function)).collect()
}

/// The functions that nodes call, directly or through others, each once.
#[must_use]
pub fn called<'a>(
    functions: &Functions<'a>,
    nodes: impl IntoIterator<Item = &'a [NodeProto]>,
) -> Vec<&'a FunctionProto> {
    let (mut found, mut seen) = (Vec::new(), HashSet::new());
    let mut pending: Vec<&[NodeProto]> = nodes.into_iter().collect();
    while let Some(nodes) = pending.pop() {
        each_node(nodes, &mut |node| {
            if let Some(&function) = functions.get(&node.called())
                && seen.insert(function.key())
            {
                found.push(function);
                pending.push(&function.node);
            }
        });
    }
    found
}

/// The functions whose bodies hold trained weights or a layer that is an operator already.
#[must_use]
pub fn closed_functions(functions: &[FunctionProto]) -> HashSet<FunctionKey<'_>> {
    functions_with(functions, |nodes| holds_weights(nodes) || nodes.iter().any(holds_operator))
}

/// The functions of whose nodes this is true, and those that call one of them. The operators' own are none.
#[must_use]
pub fn functions_with(
    functions: &[FunctionProto],
    is: impl Fn(&[NodeProto]) -> bool,
) -> HashSet<FunctionKey<'_>> {
    let mut callers: HashMap<FunctionKey<'_>, Vec<FunctionKey<'_>>> = HashMap::new();
    let (mut found, mut pending) = (HashSet::new(), Vec::new());
    for function in functions.iter().filter(|function| function.domain() != DOMAIN) {
        each_node(&function.node, &mut |node| callers.entry(node.called()).or_default().push(function.key()));
        if is(&function.node) {
            pending.push(function.key());
        }
    }
    while let Some(key) = pending.pop() {
        if found.insert(key) {
            pending.extend(callers.remove(&key).into_iter().flatten());
        }
    }
    found
}
