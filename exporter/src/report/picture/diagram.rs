//! What a picture of a subgraph shows: all of it where it is small; else without the arithmetic on shapes, and with long
//! repeats folded.

use std::collections::{BTreeSet, HashMap};

use isqrt_cov_op::DOMAIN;
use isqrt_cov_proto::onnx::NodeProto;

use crate::graph::subgraphs;

/// Nodes that are drawn at most.
pub const WHOLE: usize = 60;
/// Nodes among which repeats are looked for: that takes time with the square of their number, for each repeat.
const SEARCHED: usize = 1500;

/// What a box stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The value that goes in or comes out.
    Port,
    /// A node.
    Node,
    /// A node that multiplies matrices: the steps of the iteration are counted by those.
    Product,
    /// A node of the operators' domain.
    Ours,
    /// Several nodes.
    Fold,
}

/// A box of the picture.
#[derive(Debug, Clone)]
pub struct Vertex {
    /// What is written on it.
    pub label: String,
    /// What else is to be known: the node's name.
    pub title: String,
    /// What it stands for.
    pub kind: Kind,
    /// How many nodes it stands for.
    nodes: usize,
    /// Whether it passes on elements of the input, not shapes or constants alone.
    data: bool,
}

/// Boxes and the edges between them.
#[derive(Debug, Clone)]
pub struct Diagram {
    /// In an order in which every edge leads forward: the input first, the output last.
    pub vertices: Vec<Vertex>,
    /// From one vertex to another, each once.
    pub edges: BTreeSet<(usize, usize)>,
    /// Nodes that have no box: they compute shapes and constants.
    pub hidden: usize,
    /// Nodes that share a box with others.
    pub folded: usize,
}

impl Diagram {
    /// The subgraph of `nodes` that computes `output` from `input`, with at most about [`WHOLE`] boxes.
    #[must_use]
    pub fn of(nodes: &[&NodeProto], input: &str, output: &str) -> Self {
        let mut diagram = Self::whole(nodes, input, output);
        if diagram.inner() > WHOLE {
            diagram.hide();
        }
        while diagram.inner() > WHOLE {
            diagram.fold();
        }
        diagram
    }

    /// Boxes between input and output.
    fn inner(&self) -> usize {
        self.vertices.len() - 2
    }

    fn whole(nodes: &[&NodeProto], input: &str, output: &str) -> Self {
        let order = sorted(nodes);
        let last = order.len() + 1;
        let mut vertices = vec![Vertex::port(input)];
        let mut makers: HashMap<&str, usize> = HashMap::from([(input, 0)]);
        let mut edges = BTreeSet::new();
        for (place, &node) in order.iter().enumerate() {
            let vertex = place + 1;
            let mut data = false;
            for name in reads(node) {
                if let Some(&maker) = makers.get(name) {
                    edges.insert((maker, vertex));
                    data |= vertices[maker].data && !matches!(node.op_type(), "Shape" | "Size");
                }
            }
            vertices.push(Vertex::of(node, data));
            for name in node.output.iter().filter(|name| !name.is_empty()) {
                makers.insert(name, vertex);
            }
        }
        edges.extend(makers.get(output).map(|&maker| (maker, last)));
        vertices.push(Vertex::port(output));
        Self { vertices, edges, hidden: 0, folded: 0 }
    }

    /// Leaves out what no element of the input goes through.
    fn hide(&mut self) {
        let last = self.vertices.len() - 1;
        let stays = |vertex: usize| vertex == 0 || vertex == last || self.vertices[vertex].data;
        let kept: Vec<usize> = (0..=last).filter(|&vertex| stays(vertex)).collect();
        let places: HashMap<usize, usize> =
            kept.iter().enumerate().map(|(place, &vertex)| (vertex, place)).collect();
        let edge = |(from, to): &(usize, usize)| Some((*places.get(from)?, *places.get(to)?));
        self.edges = self.edges.iter().filter_map(edge).collect();
        self.hidden += self.vertices.len() - kept.len();
        self.vertices = kept.into_iter().map(|vertex| self.vertices[vertex].clone()).collect();
    }

    /// Puts the longest repeat into one box, but for its first and its last turn; without one, all from the middle.
    fn fold(&mut self) {
        let labels: Vec<&str> = self.vertices[1..self.vertices.len() - 1]
            .iter()
            .map(|vertex| if vertex.kind == Kind::Fold { "" } else { vertex.label.as_str() })
            .collect();
        let repeat = if labels.len() <= SEARCHED { longest_repeat(&labels) } else { None };
        if let Some(repeat) = repeat {
            let start = 1 + repeat.start + repeat.period;
            let turns = repeat.turns - 2;
            let label = match repeat.period {
                1 => format!("⋮ {turns} × {}", labels[repeat.start]),
                period => format!("⋮ {turns} × the {period} above"),
            };
            self.merge(start, start + turns * repeat.period, label);
        } else {
            let kept = WHOLE / 2 - 1;
            let middle = (1 + kept, self.vertices.len() - 1 - kept);
            let nodes: usize = self.vertices[middle.0..middle.1].iter().map(|vertex| vertex.nodes).sum();
            self.merge(middle.0, middle.1, format!("⋮ {nodes} more nodes"));
        }
    }

    /// One box for the vertices from `start` up to `end`.
    fn merge(&mut self, start: usize, end: usize, label: String) {
        let merged = &self.vertices[start..end];
        let nodes: usize = merged.iter().map(|vertex| vertex.nodes).sum();
        self.folded += merged.iter().filter(|vertex| vertex.kind != Kind::Fold).count();
        let fold = Vertex { label, title: format!("{nodes} nodes"), kind: Kind::Fold, nodes, data: true };
        self.vertices.splice(start..end, [fold]);
        let place = |vertex: usize| match vertex {
            vertex if vertex < start => vertex,
            vertex if vertex < end => start,
            vertex => vertex - (end - start) + 1,
        };
        let edges = self.edges.iter().map(|&(from, to)| (place(from), place(to)));
        self.edges = edges.filter(|(from, to)| from != to).collect();
    }
}

impl Vertex {
    fn port(name: &str) -> Self {
        Self { label: shortened(name), title: name.to_owned(), kind: Kind::Port, nodes: 0, data: true }
    }

    fn of(node: &NodeProto, data: bool) -> Self {
        let kind = match node.op_type() {
            _ if node.domain() == DOMAIN => Kind::Ours,
            "MatMul" | "Gemm" | "Einsum" => Kind::Product,
            _ => Kind::Node,
        };
        Self { label: shortened(node.op_type()), title: node.name().to_owned(), kind, nodes: 1, data }
    }
}

/// The end of a name says more than its beginning.
fn shortened(name: &str) -> String {
    const MOST: usize = 28;
    let length = name.chars().count();
    if length <= MOST {
        return name.to_owned();
    }
    std::iter::once('…').chain(name.chars().skip(length - MOST + 1)).collect()
}

/// Every name that a node reads, in its subgraphs too.
fn reads(node: &NodeProto) -> Vec<&str> {
    let mut names: Vec<&str> = node.input.iter().map(String::as_str).collect();
    for graph in subgraphs(node) {
        names.extend(graph.node.iter().flat_map(reads));
        names.extend(graph.output.iter().map(isqrt_cov_proto::onnx::ValueInfoProto::name));
    }
    names.retain(|name| !name.is_empty());
    names
}

/// The nodes in an order in which values are made before they are read; what a cycle holds back is left out.
fn sorted<'a>(nodes: &[&'a NodeProto]) -> Vec<&'a NodeProto> {
    let makers: HashMap<&str, usize> = nodes
        .iter()
        .enumerate()
        .flat_map(|(index, node)| node.output.iter().map(move |name| (name.as_str(), index)))
        .collect();
    let needs: Vec<BTreeSet<usize>> = nodes
        .iter()
        .map(|node| reads(node).into_iter().filter_map(|name| makers.get(name).copied()).collect())
        .collect();
    let mut missing: Vec<usize> = needs.iter().map(BTreeSet::len).collect();
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    for (index, needs) in needs.iter().enumerate() {
        needs.iter().for_each(|&maker| readers[maker].push(index));
    }
    let mut ready: BTreeSet<usize> = (0..nodes.len()).filter(|&index| missing[index] == 0).collect();
    let mut order = Vec::with_capacity(nodes.len());
    while let Some(index) = ready.pop_first() {
        order.push(nodes[index]);
        for &reader in &readers[index] {
            missing[reader] -= 1;
            if missing[reader] == 0 {
                ready.insert(reader);
            }
        }
    }
    order
}

/// Labels that come again in the same order.
struct Repeat {
    start: usize,
    period: usize,
    turns: usize,
}

/// The repeat of three turns or more that folds away most; the shortest period of several. Empty labels repeat nothing.
fn longest_repeat(labels: &[&str]) -> Option<Repeat> {
    let mut best: Option<Repeat> = None;
    let saved = |repeat: &Repeat| (repeat.turns - 2) * repeat.period;
    for period in 1..=labels.len() / 3 {
        let mut run = 0;
        for index in 0..=labels.len() - period {
            let again = index + period < labels.len()
                && labels[index] == labels[index + period]
                && !labels[index].is_empty();
            if again {
                run += 1;
                continue;
            }
            let repeat = Repeat { start: index - run, period, turns: run / period + 1 };
            // A fold of one box into one is none.
            if repeat.turns >= 3
                && saved(&repeat) > 1
                && best.as_ref().is_none_or(|best| saved(&repeat) > saved(best))
            {
                best = Some(repeat);
            }
            run = 0;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(operators: &[&str]) -> Vec<NodeProto> {
        let node = |(index, operator): (usize, &&str)| {
            NodeProto::new(operator, &[&format!("v{index}"), "s"], &[&format!("v{}", index + 1)])
        };
        let shape = NodeProto::new("Shape", &["v0"], &["s"]);
        operators.iter().enumerate().map(node).chain([shape]).collect()
    }

    fn labels(diagram: &Diagram) -> Vec<&str> {
        diagram.vertices.iter().map(|vertex| vertex.label.as_str()).collect()
    }

    #[test]
    fn small_subgraphs_are_whole_and_in_order() {
        let nodes = chain(&["Mul", "Add"]);
        let nodes: Vec<&NodeProto> = nodes.iter().collect();
        let diagram = Diagram::of(&nodes, "v0", "v2");
        assert_eq!(labels(&diagram), ["v0", "Shape", "Mul", "Add", "v2"]);
        let edges: Vec<_> = diagram.edges.into_iter().collect();
        assert_eq!(edges, [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3), (3, 4)]);
        assert_eq!((diagram.hidden, diagram.folded), (0, 0));
    }

    #[test]
    fn long_repeats_are_folded_and_counted() {
        let operators = [["Mul", "Sub", "MatMul"]; 40].concat();
        let nodes = chain(&operators);
        let nodes: Vec<&NodeProto> = nodes.iter().collect();
        let diagram = Diagram::of(&nodes, "v0", "v120");
        let expected = ["v0", "Mul", "Sub", "MatMul", "⋮ 38 × the 3 above", "Mul", "Sub", "MatMul", "v120"];
        assert_eq!(labels(&diagram), expected);
        assert_eq!((diagram.hidden, diagram.folded), (1, 114));
        assert_eq!(diagram.edges.len(), 8);
    }

    #[test]
    fn what_repeats_nothing_is_cut_in_the_middle() {
        let names: Vec<String> = (0..200).map(|index| format!("Op{index}")).collect();
        let nodes = chain(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let nodes: Vec<&NodeProto> = nodes.iter().collect();
        let diagram = Diagram::of(&nodes, "v0", "v200");
        assert!(diagram.inner() <= WHOLE);
        assert_eq!((diagram.hidden, diagram.inner() + diagram.folded), (1, 201));
        assert!(diagram.edges.iter().all(|(from, to)| from < to));
    }

    #[test]
    fn cycles_and_empty_subgraphs_do_no_harm() {
        let nodes = [NodeProto::new("Mul", &["a", "b"], &["a"]), NodeProto::new("Add", &["x"], &["y"])];
        let nodes: Vec<&NodeProto> = nodes.iter().collect();
        assert_eq!(labels(&Diagram::of(&nodes, "x", "y")), ["x", "Add", "y"]);
        assert_eq!(labels(&Diagram::of(&[], "x", "y")), ["x", "y"]);
        let nodes = chain(&["Mul", "Mul", "Add", "Sub"].repeat(50_000));
        let nodes: Vec<&NodeProto> = nodes.iter().collect();
        assert!(Diagram::of(&nodes, "v0", "v200000").inner() <= WHOLE);
    }
}
