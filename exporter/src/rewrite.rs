//! Puts one node in the place of each region that was found; everything else stays as it was, byte for byte.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result};
use isqrt_cov_proto::onnx::{GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};

use crate::graph::{self, subgraphs};
use crate::recognize::Found;
use crate::{functions, fused};

/// Replaces every region of `findings`; with `with_function`, the operators' bodies in standard operators are written
/// beside them, for runtimes without the operator library.
///
/// # Errors
/// A model whose operator set is too old for a body.
pub fn apply(model: &mut ModelProto, findings: &[Found], with_function: bool) -> Result<()> {
    let graph = model.graph.as_mut().context("the model has no graph")?;
    let mut read_before = HashSet::new();
    collect_read(graph, &mut read_before);
    replace(graph, findings);
    remove_unread(graph, &read_before);
    describe_inputs(graph, findings);
    if with_function {
        functions::attach(model)?;
    } else {
        functions::import(model);
    }
    Ok(())
}

fn replace(graph: &mut GraphProto, findings: &[Found]) {
    let mut names = Names::of(graph);
    let removed: HashSet<usize> = findings.iter().flat_map(|found| found.nodes.iter().copied()).collect();
    let by_output: HashMap<&str, &Found> =
        findings.iter().map(|found| (found.output.as_str(), found)).collect();
    let mut shapes = Vec::new();
    let mut nodes = Vec::with_capacity(graph.node.len() - removed.len() + findings.len());
    for (index, node) in std::mem::take(&mut graph.node).into_iter().enumerate() {
        for found in node.output.iter().filter_map(|name| by_output.get(name.as_str())) {
            nodes.extend(fused(found, &mut names, &mut shapes));
        }
        if !removed.contains(&index) {
            nodes.push(node);
        }
    }
    graph.node = nodes;
    graph.initializer.extend(shapes);
}

/// The node that computes a layer, and the one that gives its output the shape that the graph expects.
fn fused(found: &Found, names: &mut Names, shapes: &mut Vec<TensorProto>) -> Vec<NodeProto> {
    let operator = found.layer.name();
    let node = |output: &str, name: &str| fused::node_of(&found.layer, &found.input, output).named(name);
    let name = names.fresh(&format!("{}/{operator}", found.output));
    let Some(sample) = &found.reshape else { return vec![node(&found.output, &name)] };
    let own = names.fresh(&format!("{name}/output"));
    let shape = names.fresh(&format!("{name}/shape"));
    // 0 copies the batch axis, whatever its size.
    let dims: Vec<i64> = std::iter::once(0).chain(sample.iter().map(|&dim| dim as i64)).collect();
    shapes.push(TensorProto::from_values(&shape, &[dims.len()], &dims));
    let reshape =
        NodeProto::new("Reshape", &[&own, &shape], &[&found.output]).named(&format!("{name}/reshape"));
    vec![node(&own, &name), reshape]
}

/// Drops the initializers that only the replaced regions used, and the descriptions of values that are gone.
///
/// What nothing used before stays as it was, and so does an initializer that is also a graph input: it is part of the
/// model's interface.
fn remove_unread(graph: &mut GraphProto, read_before: &HashSet<String>) {
    let mut read = HashSet::new();
    collect_read(graph, &mut read);
    let inputs: HashSet<String> = graph.input.iter().map(|input| input.name().to_owned()).collect();
    let stays = |name: &str| read.contains(name) || !read_before.contains(name);
    graph.initializer.retain(|tensor| stays(tensor.name()) || inputs.contains(tensor.name()));
    graph.value_info.retain(|info| stays(info.name()));
}

/// Says of which type the nodes' inputs are, where the graph did not: a function's body depends on it.
fn describe_inputs(graph: &mut GraphProto, findings: &[Found]) {
    for found in findings {
        let mut described = graph.input.iter().chain(&graph.value_info);
        if !described.any(|info| info.name() == found.input) {
            graph.value_info.push(ValueInfoProto::of_any_shape(&found.input, found.element.into()));
        }
    }
}

/// Every name that a graph's nodes and outputs read or make, those of subgraphs included.
fn collect_read(graph: &GraphProto, names: &mut HashSet<String>) {
    for node in &graph.node {
        names.extend(node.input.iter().chain(&node.output).cloned());
        subgraphs(node).for_each(|subgraph| collect_read(subgraph, names));
    }
    names.extend(graph.output.iter().map(|output| output.name().to_owned()));
}

/// The names that a graph uses already.
struct Names {
    used: HashSet<String>,
}

impl Names {
    fn of(graph: &GraphProto) -> Self {
        let mut used = HashSet::new();
        graph::names(graph, &mut used);
        Self { used: used.into_iter().map(str::to_owned).collect() }
    }

    fn fresh(&mut self, wish: &str) -> String {
        let numbered =
            (1..).map(|number| if number == 1 { wish.to_owned() } else { format!("{wish}_{number}") });
        let name = numbered.into_iter().find(|name| !self.used.contains(name)).unwrap_or_default();
        self.used.insert(name.clone());
        name
    }
}

#[cfg(test)]
mod tests {
    use isqrt_cov_op::{Layer, OperatorKind};

    use super::*;
    use crate::recognize::Evidence;
    use crate::tensor::ElementType;

    #[test]
    fn what_was_unused_before_stays_and_what_the_region_used_goes() {
        let tensor = |name: &str| TensorProto::from_values(name, &[1], &[1.0_f32]);
        let graph = GraphProto {
            node: vec![NodeProto::new("Mul", &["x", "of_region"], &["y"])],
            initializer: vec![tensor("of_region"), tensor("of_nobody")],
            ..GraphProto::default()
        };
        let mut model = ModelProto { graph: Some(graph), ..ModelProto::default() };
        let found = Found {
            layer: Layer::new(OperatorKind::IsqrtCov),
            input: "x".to_owned(),
            output: "y".to_owned(),
            element: ElementType::F32,
            reshape: None,
            nodes: vec![0],
            evidence: Evidence { error: 0.0, runner_up: 1.0, runner_up_layer: None, probes: 4 },
        };
        apply(&mut model, &[found], false).unwrap();
        let graph = model.graph.unwrap();
        assert_eq!(graph.initializer, [tensor("of_nobody")]);
        assert_eq!((graph.node.len(), graph.node[0].op_type()), (1, "IsqrtCov"));
    }
}
