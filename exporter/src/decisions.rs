//! Nodes that decide by the elements of data what is computed, which no input tried may show.

use std::collections::HashMap;

use isqrt_cov_proto::onnx::{AttributeProto, FunctionProto, GraphProto, NodeProto, ValueInfoProto};

use crate::evaluate::budget::spend;
use crate::graph::{Kind, reads_shape_only, subgraphs};
use crate::tensor::ElementType;

/// Graphs and functions in each other that are looked into. What is deeper counts as deciding.
const DEEPEST: usize = 4;

/// Rounds of a loop until what it carries is taken for data.
const ROUNDS: usize = 3;

/// What a node of a function counts as.
const NODE: usize = 1 << 12;

/// The functions of a model, by domain and name.
pub type Functions<'a> = HashMap<(&'a str, &'a str), &'a FunctionProto>;

/// What is known of the names that a graph reads from outside.
type Outside<'o> = dyn Fn(&str) -> Kind + 'o;

/// Whether a node makes of numbers which of a few cases they are.
#[must_use]
pub fn is_decision(node: &NodeProto) -> bool {
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
            | "ArgMax"
            | "ArgMin"
            | "TopK"
            | "Hardmax"
            | "NonZero"
            | "Unique"
    );
    let to = node.find("to").and_then(|to| ElementType::from_onnx(i32::try_from(to.i()).ok()?));
    decides || node.op_type() == "Cast" && to.is_some_and(|element| !element.is_float())
}

/// Whether a node chooses by the data among its inputs, of which there are so many: by comparing them, or the larger of two.
/// Limits that are constants show on extreme inputs instead.
#[must_use]
pub fn chooses(node: &NodeProto, data: usize) -> bool {
    data > 0 && is_decision(node) || data > 1 && matches!(node.op_type(), "Min" | "Max")
}

/// Whether something inside of a node, in its graphs or in the function that it calls, chooses by data. Values that it reads are
/// of the kind that `kind` tells.
#[must_use]
pub fn decides_inside(node: &NodeProto, functions: &Functions, kind: &Outside) -> bool {
    holds_nodes(node, functions) && inside(node, functions, kind, 0).is_none()
}

fn holds_nodes(node: &NodeProto, functions: &Functions) -> bool {
    functions.contains_key(&(node.domain(), node.op_type())) || subgraphs(node).next().is_some()
}

/// The kinds of what a node makes; none where something in it chooses by data.
fn outputs(node: &NodeProto, functions: &Functions, kind: &Outside, depth: usize) -> Option<Vec<Kind>> {
    if holds_nodes(node, functions) {
        return inside(node, functions, kind, depth);
    }
    let read = |(index, name): (usize, &String)| match kind(name) {
        Kind::Data if reads_shape_only(node, index) => Kind::Shape,
        kind => kind,
    };
    let read: Vec<Kind> =
        node.input.iter().enumerate().filter(|(_, name)| !name.is_empty()).map(read).collect();
    let data = read.iter().filter(|kind| **kind == Kind::Data).count();
    let made = read.into_iter().max().unwrap_or(Kind::Constant);
    (!chooses(node, data)).then(|| vec![made; node.output.len()])
}

/// The same of a node that holds others.
fn inside(node: &NodeProto, functions: &Functions, kind: &Outside, depth: usize) -> Option<Vec<Kind>> {
    if depth == DEEPEST {
        return None;
    }
    let given = |from: usize| node.input.iter().skip(from).map(|name| kind(name)).collect::<Vec<_>>();
    if let Some(function) = functions.get(&(node.domain(), node.op_type())) {
        // Functions that call each other are far larger than their file.
        spend(&[function.node.len(), NODE]).ok()?;
        let known: HashMap<&str, Kind> = function.input.iter().map(String::as_str).zip(given(0)).collect();
        let names = function.output.iter().map(String::as_str);
        return body(&function.node, known, names, functions, &|_| Kind::Constant, depth + 1);
    }
    let of = |graph: &GraphProto, inputs: &[Kind]| {
        let mut known: HashMap<&str, Kind> =
            graph.initializer.iter().map(|tensor| (tensor.name(), Kind::Constant)).collect();
        known.extend(graph.input.iter().map(ValueInfoProto::name).zip(inputs.iter().copied()));
        let names = graph.output.iter().map(ValueInfoProto::name);
        body(&graph.node, known, names, functions, kind, depth + 1)
    };
    let mut made = Vec::new();
    for graph in subgraphs(node) {
        made = match node.op_type() {
            "Loop" => {
                let rounds = given(0).first().copied().unwrap_or(Kind::Constant);
                repeated(given(2), &[rounds, Kind::Constant], 1, |inputs| of(graph, inputs))?
            }
            "Scan" => {
                let scanned = node.find("num_scan_inputs").map_or(0, AttributeProto::i);
                let carried = node.input.len().saturating_sub(usize::try_from(scanned).unwrap_or(0));
                let (carried, scanned) = (given(0)[..carried].to_vec(), given(carried));
                repeated(carried, &[], 0, |inputs| of(graph, &[inputs, &scanned].concat()))?
            }
            _ => {
                let branch = of(graph, &given(0))?;
                (0..branch.len().max(made.len()))
                    .filter_map(|at| branch.get(at).copied().max(made.get(at).copied()))
                    .collect()
            }
        };
    }
    // What decides between branches goes into what they make.
    let deciding = if node.op_type() == "If" { given(0).first().copied() } else { None };
    (deciding != Some(Kind::Data)).then(|| {
        let kind = deciding.unwrap_or(Kind::Constant);
        made.into_iter().map(|made: Kind| made.max(kind)).collect()
    })
}

/// The kinds of what a loop makes that carries values of the kinds `carried`, `before` which its body is given others, and that
/// makes `first` values before those it carries on; none where something in it chooses by data, or data end it.
fn repeated(
    mut carried: Vec<Kind>,
    before: &[Kind],
    first: usize,
    body: impl Fn(&[Kind]) -> Option<Vec<Kind>>,
) -> Option<Vec<Kind>> {
    for round in 0.. {
        let made = body(&[before, &carried].concat())?;
        let (control, made) = made.split_at_checked(first)?;
        if control.contains(&Kind::Data) {
            return None;
        }
        let next: Vec<Kind> = carried
            .iter()
            .enumerate()
            .map(|(at, &kind)| made.get(at).map_or(kind, |&made| made.max(kind)))
            .collect();
        if next == carried {
            return Some(made.to_vec());
        }
        carried = if round < ROUNDS { next } else { vec![Kind::Data; carried.len()] };
    }
    None
}

/// The kinds of the values called `names` that nodes make of the `known` ones; none where one chooses by data.
fn body<'b>(
    nodes: &'b [NodeProto],
    mut known: HashMap<&'b str, Kind>,
    names: impl Iterator<Item = &'b str>,
    functions: &Functions,
    outside: &Outside,
    depth: usize,
) -> Option<Vec<Kind>> {
    for node in nodes {
        let kind = |name: &str| known.get(name).copied().unwrap_or_else(|| outside(name));
        let made = outputs(node, functions, &kind, depth)?;
        known.extend(node.output.iter().map(String::as_str).zip(made));
    }
    Some(names.map(|name| known.get(name).copied().unwrap_or_else(|| outside(name))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loop_over(nodes: Vec<NodeProto>, inputs: &[&str], outputs: &[&str]) -> NodeProto {
        let named =
            |name: &&str| ValueInfoProto { name: Some((*name).to_owned()), ..ValueInfoProto::default() };
        let graph = GraphProto {
            node: nodes,
            input: inputs.iter().map(named).collect(),
            output: outputs.iter().map(named).collect(),
            ..GraphProto::default()
        };
        let mut node = NodeProto::new("Loop", &["rounds", "go", "count", "x"], &["last", "y"]);
        let body = AttributeProto {
            name: Some("body".to_owned()),
            g: Some(Box::new(graph)),
            ..AttributeProto::default()
        };
        node.attribute.push(body);
        node
    }

    fn decides(node: &NodeProto) -> bool {
        let kind = |name: &str| if name == "x" { Kind::Data } else { Kind::Constant };
        decides_inside(node, &Functions::new(), &kind)
    }

    /// A loop with a counter of its own, which ends it.
    fn counting(more: NodeProto) -> NodeProto {
        let nodes = vec![
            NodeProto::new("Add", &["count_in", "one"], &["count_out"]),
            NodeProto::new("Less", &["count_out", "most"], &["go_out"]),
            more,
        ];
        loop_over(nodes, &["round", "go_in", "count_in", "x_in"], &["go_out", "count_out", "x_out"])
    }

    #[test]
    fn a_count_of_rounds_is_no_data() {
        assert!(!decides(&counting(NodeProto::new("MatMul", &["x_in", "x_in"], &["x_out"]))));
        assert!(!decides(&counting(NodeProto::new("Max", &["x_in", "most"], &["x_out"]))));
    }

    #[test]
    fn data_decide_in_a_loop_where_they_are_compared() {
        assert!(decides(&counting(NodeProto::new("Greater", &["x_in", "most"], &["x_out"]))));
        // The counter becomes data in the second round.
        let nodes = vec![
            NodeProto::new("ReduceSum", &["x_in"], &["count_out"]),
            NodeProto::new("Less", &["count_in", "most"], &["go_out"]),
            NodeProto::new("Neg", &["x_in"], &["x_out"]),
        ];
        let body =
            loop_over(nodes, &["round", "go_in", "count_in", "x_in"], &["go_out", "count_out", "x_out"]);
        assert!(decides(&body));
    }

    #[test]
    fn loops_in_each_other_end() {
        let mut node = counting(NodeProto::new("Neg", &["x_in"], &["x_out"]));
        for _ in 0..10 {
            let inner = NodeProto { input: ["r", "g", "c", "x_in"].map(str::to_owned).to_vec(), ..node };
            let inner = NodeProto { output: ["l", "x_out"].map(str::to_owned).to_vec(), ..inner };
            node = counting(inner);
        }
        assert!(decides(&node), "too deep to tell");
    }
}
