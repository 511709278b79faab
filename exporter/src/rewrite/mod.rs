//! Puts one node in the place of each region that was found; everything else stays as it was, byte for byte.

mod around;

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result, ensure};
use isqrt_cov_proto::onnx::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto,
};
use isqrt_cov_proto::{FunctionKey, each_node, whole_graphs};

use self::around::nodes_for;
use crate::found::Found;
use crate::functions;
use crate::fused::standard_opset;
use crate::graph::{self, Flow, ValueId, subgraphs};
use crate::scope::{Scope, body};

/// Replaces every region of `findings`; with `with_function`, the operators' bodies in standard operators are written
/// beside them, for runtimes without the operator library.
///
/// # Errors
/// A model whose operator set is too old for a body.
pub fn apply(model: &mut ModelProto, findings: &[Found], with_function: bool) -> Result<()> {
    ensure!(model.graph.is_some(), "the model has no graph");
    let mut names = Names::of(model);
    let called_before = called(model);
    let mut scopes: Vec<&Scope> = Vec::new();
    for found in findings {
        if !scopes.contains(&&found.scope) {
            scopes.push(&found.scope);
        }
    }
    // Ways go by the places of nodes, which a replacement moves: the innermost graphs come first.
    scopes.sort_by_key(|scope| std::cmp::Reverse(scope.path.len()));
    for scope in scopes {
        let here: Vec<&Found> = findings.iter().filter(|found| found.scope == *scope).collect();
        let around: Vec<(Scope, HashSet<String>)> = graphs_around(scope)
            .filter_map(|scope| {
                let read = read_in(scope.graph(model)?);
                Some((scope, read))
            })
            .collect();
        let removed = removed(model, scope, &here);
        let imports =
            scope.function.map_or(&model.opset_import, |index| &model.functions[index].opset_import);
        let opset = standard_opset(imports);
        let nodes = scope.nodes_mut(model).context("the place of a layer is in the model")?;
        let shapes = replace(nodes, &here, &removed, opset, &mut names);
        if let Some(graph) = scope.graph_mut(model) {
            graph.initializer.extend(shapes);
            describe_inputs(graph, &here);
        } else {
            // A function has no initializers.
            let nodes = scope.nodes_mut(model).context("the place of a layer is in the model")?;
            nodes.splice(0..0, shapes.into_iter().map(constant));
        }
        for (scope, read_before) in around {
            scope.graph_mut(model).into_iter().for_each(|graph| remove_unread(graph, &read_before));
        }
    }
    let called_now = called(model);
    let mut kept = called_before.into_iter().zip(called_now).map(|(before, now)| now || !before);
    model.functions.retain(|_| kept.next().unwrap_or(true));
    if with_function {
        functions::attach(model)?;
    } else {
        functions::import(model);
    }
    Ok(())
}

/// A graph and those around it: a region may be the only reader of what they hold. The main graph is around everything.
fn graphs_around(scope: &Scope) -> impl Iterator<Item = Scope> {
    let outer = std::iter::successors(Some(scope.clone()), Scope::outer);
    outer.chain(scope.function.map(|_| Scope::default()))
}

/// The nodes of a graph that give way to `findings`: each one's own, and those that several share.
fn removed(model: &ModelProto, scope: &Scope, findings: &[&Found]) -> HashSet<usize> {
    let mut removed: HashSet<usize> = findings.iter().flat_map(|found| found.nodes.iter().copied()).collect();
    let function =
        scope.function.filter(|_| scope.path.is_empty()).map(|index| body(&model.functions[index]));
    if let (Some(graph), true) = (function.as_ref().or_else(|| scope.graph(model)), findings.len() > 1) {
        let flow = Flow::new(graph);
        let values = |name: fn(&Found) -> &String| -> Vec<ValueId> {
            findings.iter().filter_map(|found| flow.id(name(found))).collect()
        };
        let (outputs, inputs) = (values(|found| &found.output), values(|found| &found.input));
        removed.extend(flow.needed_only_for(&outputs, &inputs));
    }
    removed
}

/// Puts the nodes of `findings` in the place of the nodes that are `removed`. The shapes that they refer to are returned.
fn replace(
    nodes: &mut Vec<NodeProto>,
    findings: &[&Found],
    removed: &HashSet<usize>,
    opset: i64,
    names: &mut Names,
) -> Vec<TensorProto> {
    let by_output: HashMap<&str, &Found> =
        findings.iter().map(|found| (found.output.as_str(), *found)).collect();
    let mut shapes = Vec::new();
    let mut kept = Vec::with_capacity(nodes.len() - removed.len() + findings.len());
    for (index, node) in std::mem::take(nodes).into_iter().enumerate() {
        for found in node.output.iter().filter_map(|name| by_output.get(name.as_str())) {
            kept.extend(nodes_for(found, opset, names, &mut shapes));
        }
        if !removed.contains(&index) {
            kept.push(node);
        }
    }
    *nodes = kept;
    shapes
}

/// A node that gives a constant.
fn constant(tensor: TensorProto) -> NodeProto {
    let name = tensor.name().to_owned();
    NodeProto::new("Constant", &[], &[&name]).with(AttributeProto::tensor("value", tensor))
}

/// Whether the model's graphs call each of its functions, directly or through others.
fn called(model: &ModelProto) -> Vec<bool> {
    let graphs = whole_graphs(model).map(|graph| &graph.node[..]);
    let called = graph::called(&graph::by_key(&model.functions), graphs);
    let called: HashSet<FunctionKey> = called.into_iter().map(FunctionProto::key).collect();
    model.functions.iter().map(|function| called.contains(&function.key())).collect()
}

/// The nodes that stand in the place of a region, under names that no other is in the way of.
#[must_use]
pub fn nodes_of(found: &Found) -> Vec<NodeProto> {
    nodes_for(found, 0, &mut Names { used: HashSet::new() }, &mut Vec::new())
}

/// Drops the initializers that only the replaced regions used, and the descriptions of values that are gone.
///
/// What nothing used before stays as it was, and so does an initializer that is also a graph input: it is part of the
/// model's interface.
fn remove_unread(graph: &mut GraphProto, read_before: &HashSet<String>) {
    let read = read_in(graph);
    let inputs: HashSet<String> = graph.input.iter().map(|input| input.name().to_owned()).collect();
    let stays = |name: &str| read.contains(name) || !read_before.contains(name);
    graph.initializer.retain(|tensor| stays(tensor.name()) || inputs.contains(tensor.name()));
    graph.value_info.retain(|info| stays(info.name()));
}

/// Says of which type the nodes' inputs are, where the graph did not: a function's body depends on it.
fn describe_inputs(graph: &mut GraphProto, findings: &[&Found]) {
    for found in findings {
        let mut described = graph.input.iter().chain(&graph.value_info);
        if !described.any(|info| info.name() == found.input) {
            graph.value_info.push(ValueInfoProto::of_any_shape(&found.input, found.element.into()));
        }
    }
}

/// Every name that a graph's nodes and outputs read or make, those of subgraphs included.
fn read_in(graph: &GraphProto) -> HashSet<String> {
    let mut names: HashSet<String> = outputs_of(graph).collect();
    each_node(&graph.node, &mut |node| {
        names.extend(node.input.iter().chain(&node.output).cloned());
        names.extend(subgraphs(node).flat_map(outputs_of));
    });
    names
}

fn outputs_of(graph: &GraphProto) -> impl Iterator<Item = String> {
    graph.output.iter().map(|output| output.name().to_owned())
}

/// The names that a model uses already.
struct Names {
    used: HashSet<String>,
}

impl Names {
    fn of(model: &ModelProto) -> Self {
        Self { used: graph::all_names(model).into_iter().map(str::to_owned).collect() }
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
    use isqrt_cov_proto::onnx::TrainingInfoProto;

    use super::*;
    use crate::found::{Arrangement, View};

    fn tensor(name: &str) -> TensorProto {
        TensorProto::from_values(name, &[1], &[1.0_f32])
    }

    fn found(output: &str, nodes: Vec<usize>) -> Found {
        Found::example(Layer::new(OperatorKind::IsqrtCov), "x", output, nodes)
    }

    #[test]
    fn what_was_unused_before_stays_and_what_the_region_used_goes() {
        let inside = GraphProto {
            node: vec![NodeProto::new("Neg", &["read_inside"], &["n"])],
            ..GraphProto::default()
        };
        let all = ["of_region", "of_nobody", "given", "read_inside", "put_out"];
        let graph = GraphProto {
            node: vec![
                NodeProto::new("Sum", &["x", "of_region", "given", "read_inside", "put_out"], &["sum"]),
                NodeProto::new("Neg", &["sum"], &["y"]),
                NodeProto::new("If", &["y"], &["z"]).with(AttributeProto::graph("then_branch", inside)),
            ],
            initializer: all.map(tensor).to_vec(),
            input: vec![ValueInfoProto::named("given")],
            output: vec![ValueInfoProto::named("put_out")],
            value_info: ["sum", "y"].map(ValueInfoProto::named).to_vec(),
            ..GraphProto::default()
        };
        let model = ModelProto { graph: Some(graph), ..ModelProto::default() };
        let rewritten = |mut model: ModelProto| {
            apply(&mut model, &[found("y", vec![0, 1])], false).unwrap();
            model.graph.unwrap()
        };
        let graph = rewritten(model.clone());
        assert_eq!(graph.initializer, ["of_nobody", "given", "read_inside", "put_out"].map(tensor));
        let operators: Vec<&str> = graph.node.iter().map(NodeProto::op_type).collect();
        assert_eq!(operators, ["IsqrtCov", "If"]);
        // The body depends on the type of what it reads: that is said, once.
        let described = |graph: &GraphProto| -> Vec<String> {
            graph.value_info.iter().map(|info| info.name().to_owned()).collect()
        };
        assert_eq!(described(&graph), ["y", "x"]);
        let mut with_input = model;
        with_input.graph.as_mut().unwrap().input.push(ValueInfoProto::named("x"));
        assert_eq!(described(&rewritten(with_input)), ["y"]);
    }

    #[test]
    fn functions_that_only_the_region_called_go() {
        let call = |name: &str| NodeProto::new(name, &["x"], &["y"]).in_domain("own");
        let function = |name: &str, node: Vec<NodeProto>| FunctionProto {
            name: Some(name.to_owned()),
            domain: Some("own".to_owned()),
            node,
            ..FunctionProto::default()
        };
        let neg = || vec![NodeProto::new("Neg", &["a"], &["b"])];
        let graph = |node: NodeProto| GraphProto { node: vec![node], ..GraphProto::default() };
        let branch = NodeProto::new("If", &["c"], &["d"])
            .with(AttributeProto::graph("then_branch", graph(call("Branch"))));
        let mut main = graph(call("Region"));
        main.node.extend([branch, call("Outer")]);
        let mut model = ModelProto {
            graph: Some(main),
            training_info: vec![TrainingInfoProto {
                algorithm: Some(graph(call("Trained"))),
                ..TrainingInfoProto::default()
            }],
            functions: vec![
                function("Region", ["InRegion", "Branch", "Trained"].map(call).to_vec()),
                function("InRegion", neg()),
                function("Outer", vec![call("Inner")]),
                function("Inner", neg()),
                function("Branch", neg()),
                function("Trained", neg()),
                function("Nobody", neg()),
            ],
            ..ModelProto::default()
        };
        apply(&mut model, &[found("y", vec![0])], false).unwrap();
        let left: Vec<&str> = model.functions.iter().map(FunctionProto::name).collect();
        assert_eq!(left, ["Outer", "Inner", "Branch", "Trained", "Nobody"]);
        // The operator's domain is known from now on.
        assert_eq!(model.opset_import.len(), 1);
    }

    #[test]
    fn nodes_that_layers_share_go_with_the_last_of_them() {
        let graph = GraphProto {
            node: vec![
                NodeProto::new("Neg", &["x"], &["shared"]),
                NodeProto::new("Abs", &["shared"], &["y"]),
                NodeProto::new("Sqrt", &["shared"], &["y/IsqrtCov"]),
            ],
            input: vec![ValueInfoProto::named("x")],
            output: ["y", "y/IsqrtCov"].map(ValueInfoProto::named).to_vec(),
            ..GraphProto::default()
        };
        let left = |findings: &[Found]| {
            let mut model = ModelProto { graph: Some(graph.clone()), ..ModelProto::default() };
            apply(&mut model, findings, false).unwrap();
            model.graph.unwrap()
        };
        let first = Found {
            view: View::grouped(),
            arrangement: Arrangement::Reshaped(vec![6]),
            ..found("y", vec![1])
        };
        let one = left(std::slice::from_ref(&first));
        let node = |operator: &str| one.node.iter().find(|node| node.op_type() == operator);
        assert!(node("Neg").is_some(), "something else needs it");
        // No name is given twice, and a sample of groups is several.
        assert_eq!(node("IsqrtCov").unwrap().name(), "y/IsqrtCov_2");
        let shape = one.initializer.iter().find(|tensor| tensor.name().ends_with("/shape")).unwrap();
        assert_eq!(isqrt_cov_proto::TensorData::inline(shape).unwrap().to_i64().unwrap(), [-1, 6]);
        let both = left(&[first, found("y/IsqrtCov", vec![2])]);
        assert!(!both.node.iter().any(|node| node.op_type() == "Neg"));
        assert_eq!(both.node.iter().filter(|node| node.op_type() == "IsqrtCov").count(), 2);
    }
}
