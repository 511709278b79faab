//! Nodes that decide by the elements of data what is computed, which no input tried may show.

use std::collections::HashMap;

use isqrt_cov_proto::onnx::{AttributeProto, GraphProto, NodeProto, ValueInfoProto};

use super::calls::Functions;
use super::nodes::reads_shape_only;
use super::zeros::compares;
use super::{Kind, subgraphs};
use crate::budget::spend;
use crate::tensor::ElementType;

/// Graphs and functions in each other that are looked into. What is deeper counts as deciding.
const LOOKED_INTO: usize = 4;

/// Rounds of a loop until what it carries is taken for data.
const ROUNDS: usize = 3;

/// What a node that is looked at inside of another counts as.
const NODE: usize = 1 << 12;

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
            | "ArgMax"
            | "ArgMin"
            | "TopK"
            | "Hardmax"
            | "NonZero"
            | "Unique"
            | "Binarizer"
            | "LinearClassifier"
            | "SVMClassifier"
            | "TreeEnsemble"
            | "TreeEnsembleClassifier"
            | "TreeEnsembleRegressor"
    );
    let to = node.find("to").and_then(|to| ElementType::from_onnx(i32::try_from(to.i()).ok()?));
    decides || compares(node) || node.op_type() == "Cast" && to.is_some_and(|element| !element.is_float())
}

/// A property of a node that reads data: what it reads is of the kinds that are told.
type Property = fn(&NodeProto, &Outside) -> bool;

/// Whether a node chooses by data: by comparing them, or the larger of two. Limits that are constants show on extreme inputs
/// instead.
#[must_use]
pub fn chooses(node: &NodeProto, kind: &Outside) -> bool {
    let needed = match node.op_type() {
        "Min" | "Max" => 2,
        _ if is_decision(node) => 1,
        _ => return false,
    };
    node.input.iter().filter(|name| is_data(name, kind)).count() >= needed
}

/// Whether a node is more than sums, products, quotients, powers and moves of the data that it reads. Functions made of these are
/// the same everywhere if they are so on a few inputs; others may differ where no input tried has come.
#[must_use]
pub fn bends(node: &NodeProto, kind: &Outside) -> bool {
    let reads = |index: usize| node.input.get(index).is_some_and(|name| is_data(name, kind));
    if !(0..node.input.len()).any(reads) || reads_shape_only(node, 0) {
        return false;
    }
    let is_formula = match node.op_type() {
        "Add"
        | "Sub"
        | "Mul"
        | "Div"
        | "Neg"
        | "Reciprocal"
        | "Sqrt"
        | "Sum"
        | "Mean"
        | "MatMul"
        | "Gemm"
        | "Einsum"
        | "FusedMatMul"
        | "TransposeMatMul"
        | "ReduceMean"
        | "ReduceSum"
        | "ReduceSumSquare"
        | "ReduceL2"
        | "ReduceProd"
        | "Identity"
        | "Expand"
        | "Tile"
        | "Reshape"
        | "Flatten"
        | "Squeeze"
        | "Unsqueeze"
        | "Transpose"
        | "Concat"
        | "Split"
        | "Slice"
        | "Trilu"
        | "CumSum"
        | "Dropout"
        | "Pad"
        | "DepthToSpace"
        | "SpaceToDepth"
        | "Conv"
        | "ConvTranspose"
        | "AveragePool"
        | "GlobalAveragePool"
        | "LayerNormalization"
        | "InstanceNormalization"
        | "GroupNormalization"
        | "BatchNormalization"
        | "MeanVarianceNormalization"
        | "LpNormalization"
        | "Resize"
        | "SequenceConstruct"
        | "SequenceAt"
        | "SequenceInsert"
        | "SequenceEmpty"
        | "SplitToSequence"
        | "ConcatFromSequence"
        | "Optional"
        | "OptionalGetElement" => true,
        "Cast" => !is_decision(node),
        // A constant may be an integer. So may data, but it takes an integer input to make such a mask.
        "CastLike" => reads(1),
        "Where" => !reads(0),
        "Pow" | "Gather" | "GatherElements" | "GatherND" | "ReverseSequence" => !reads(1),
        "ScatterElements" | "ScatterND" | "Scatter" => {
            !reads(1)
                && !node.find("reduction").is_some_and(|reduction| matches!(reduction.s(), b"min" | b"max"))
        }
        _ => false,
    };
    !is_formula || sizing_inputs(node).any(reads)
}

fn is_data(name: &str, kind: &Outside) -> bool {
    !name.is_empty() && kind(name) == Kind::Data
}

/// The inputs of a node whose elements decide how large its outputs are.
#[must_use]
pub fn sizing_inputs(node: &NodeProto) -> std::ops::Range<usize> {
    let all = node.input.len();
    match node.op_type() {
        "Reshape" | "Expand" | "Tile" | "OneHot" | "TopK" | "Upsample" | "CenterCropPad" | "Split"
        | "SplitToSequence" => 1..2,
        "Slice" | "Pad" | "Resize" => 1..all,
        "ConstantOfShape" | "Range" | "NonZero" | "Compress" | "Unique" | "NonMaxSuppression"
        | "StringSplit" => 0..all,
        _ => 0..0,
    }
}

/// Whether something inside of a node, in its graphs or in the function that it calls, has a property. Values that it reads are
/// of the kind that `kind` tells.
#[must_use]
pub fn holds(node: &NodeProto, functions: &Functions, kind: &Outside, property: Property) -> bool {
    holds_nodes(node, functions) && Looking { functions, property }.inside(node, kind, 0).is_none()
}

/// Whether a node has graphs inside, or calls a function.
#[must_use]
pub fn holds_nodes(node: &NodeProto, functions: &Functions) -> bool {
    functions.contains_key(&node.called()) || subgraphs(node).next().is_some()
}

/// A look at what nodes hold.
struct Looking<'l> {
    functions: &'l Functions<'l>,
    property: Property,
}

impl Looking<'_> {
    /// The kinds of what a node makes; none where something in it has the property.
    fn outputs(&self, node: &NodeProto, kind: &Outside, depth: usize) -> Option<Vec<Kind>> {
        if holds_nodes(node, self.functions) {
            return self.inside(node, kind, depth);
        }
        let read = |(index, name): (usize, &String)| match kind(name) {
            Kind::Data if reads_shape_only(node, index) => Kind::Shape,
            kind => kind,
        };
        let read: Vec<Kind> =
            node.input.iter().enumerate().filter(|(_, name)| !name.is_empty()).map(read).collect();
        let made = read.into_iter().max().unwrap_or(Kind::Constant);
        (!(self.property)(node, kind)).then(|| vec![made; node.output.len()])
    }

    /// The same of a node that holds others.
    fn inside(&self, node: &NodeProto, kind: &Outside, depth: usize) -> Option<Vec<Kind>> {
        if depth == LOOKED_INTO {
            return None;
        }
        let given = |from: usize| node.input.iter().skip(from).map(|name| kind(name)).collect::<Vec<_>>();
        if let Some(function) = self.functions.get(&node.called()) {
            let known: HashMap<&str, Kind> =
                function.input.iter().map(String::as_str).zip(given(0)).collect();
            let names = function.output.iter().map(String::as_str);
            return self.body(&function.node, known, names, &|_| Kind::Constant, depth + 1);
        }
        let of = |graph: &GraphProto, inputs: &[Kind]| {
            let mut known: HashMap<&str, Kind> =
                graph.initializer.iter().map(|tensor| (tensor.name(), Kind::Constant)).collect();
            known.extend(graph.input.iter().map(ValueInfoProto::name).zip(inputs.iter().copied()));
            let names = graph.output.iter().map(ValueInfoProto::name);
            self.body(&graph.node, known, names, kind, depth + 1)
        };
        let mut made = Vec::new();
        for graph in subgraphs(node) {
            made = match node.op_type() {
                "Loop" => {
                    let rounds = given(0).first().copied().unwrap_or(Kind::Constant);
                    // Data that decide how often.
                    if given(0).iter().take(2).any(|&kind| kind == Kind::Data) {
                        return None;
                    }
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

    /// The kinds of the values called `names` that nodes make of the `known` ones; none where one has the property.
    fn body<'b>(
        &self,
        nodes: &'b [NodeProto],
        mut known: HashMap<&'b str, Kind>,
        names: impl Iterator<Item = &'b str>,
        outside: &Outside,
        depth: usize,
    ) -> Option<Vec<Kind>> {
        // Functions that call each other, and loops in each other, are far larger than their file.
        spend(&[nodes.len(), NODE]).ok()?;
        for node in nodes {
            let kind = |name: &str| known.get(name).copied().unwrap_or_else(|| outside(name));
            let made = self.outputs(node, &kind, depth)?;
            known.extend(node.output.iter().map(String::as_str).zip(made));
        }
        Some(names.map(|name| known.get(name).copied().unwrap_or_else(|| outside(name))).collect())
    }
}

/// The kinds of what a loop makes that carries values of the kinds `carried`, `before` which its body is given others, and that
/// makes `first` values before those it carries on; none where something in it has the property, or data end it.
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

#[cfg(test)]
mod tests {
    use isqrt_cov_proto::onnx::FunctionProto;

    use super::*;

    fn loop_over(nodes: Vec<NodeProto>, inputs: &[&str], outputs: &[&str]) -> NodeProto {
        let named = |name: &&str| ValueInfoProto::named(*name);
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
        holds(node, &Functions::new(), &kind, chooses)
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
    fn a_cast_like_a_constant_may_round() {
        let kind = |name: &str| if name == "constant" { Kind::Constant } else { Kind::Data };
        let bends = |inputs: [&str; 2]| bends(&NodeProto::new("CastLike", &inputs, &["y"]), &kind);
        assert!(bends(["x", "constant"]));
        assert!(!bends(["x", "other"]));
        assert!(!bends(["constant", "x"]));
    }

    #[test]
    fn what_is_no_formula_bends() {
        let kind = |name: &str| if name == "c" { Kind::Constant } else { Kind::Data };
        let cast = |to: i64| NodeProto::new("Cast", &["x"], &["y"]).with(AttributeProto::int("to", to));
        assert!(bends(&cast(7), &kind) && !bends(&cast(10), &kind));
        let scatter = |reduction: &str| {
            let reduction = AttributeProto {
                s: Some(reduction.to_owned().into_bytes().into()),
                ..AttributeProto::int("reduction", 0)
            };
            NodeProto::new("ScatterND", &["x", "c", "x"], &["y"]).with(reduction)
        };
        assert!(bends(&scatter("max"), &kind) && !bends(&scatter("add"), &kind));
        for (operator, inputs, expected) in [
            ("Exp", &["x"][..], true),
            ("Exp", &["c"], false),
            ("Shape", &["x"], false),
            ("Where", &["x", "c", "c"], true),
            ("Where", &["c", "x", "x"], false),
            ("Pow", &["x", "c"], false),
            ("Pow", &["c", "x"], true),
            ("Gather", &["x", "c"], false),
            ("Gather", &["c", "x"], true),
            ("ScatterND", &["x", "c", "x"], false),
            ("ScatterND", &["x", "x", "x"], true),
            ("Reshape", &["x", "c"], false),
            ("Reshape", &["c", "x"], true),
            // An input that is left out is none.
            ("Slice", &["x", "c", "c", ""], false),
            ("Slice", &["c", "c", "x"], true),
        ] {
            assert_eq!(
                bends(&NodeProto::new(operator, inputs, &["y"]), &kind),
                expected,
                "{operator} {inputs:?}"
            );
        }
        let sizing = |operator: &str| sizing_inputs(&NodeProto::new(operator, &["a", "b", "c"], &["y"]));
        assert_eq!(["Tile", "Pad", "Range", "Add"].map(sizing), [1..2, 1..3, 0..3, 0..0]);
    }

    #[test]
    fn shapes_are_no_data_and_what_data_reach_is() {
        let sizes = |other: NodeProto| {
            let nodes = vec![
                NodeProto::new("Shape", &["x_in"], &["size"]),
                NodeProto::new("Add", &["count_in", "size"], &["count_out"]),
                NodeProto::new("Less", &["count_out", "most"], &["go_out"]),
                other,
            ];
            loop_over(nodes, &["round", "go_in", "count_in", "x_in"], &["go_out", "count_out", "x_out"])
        };
        assert!(!decides(&sizes(NodeProto::new("Neg", &["x_in"], &["x_out"]))));
        // A number of rounds that data say, and an end that they do.
        let mut rounds = sizes(NodeProto::new("Neg", &["x_in"], &["x_out"]));
        rounds.input[0] = "x".to_owned();
        assert!(decides(&rounds));
        let ended = vec![
            NodeProto::new("Identity", &["x_in"], &["go_out"]),
            NodeProto::new("Neg", &["x_in"], &["x_out"]),
        ];
        assert!(decides(&loop_over(
            ended,
            &["round", "go_in", "count_in", "x_in"],
            &["go_out", "count_in", "x_out"]
        )));
        // One branch of two gives data, which are compared behind them.
        let either = crate::fused::tests::branches(
            NodeProto::new("Neg", &["x"], &["then"]),
            NodeProto::new("Neg", &["most"], &["else"]),
        );
        let compared = NodeProto::new("Greater", &["chosen", "most"], &["y"]);
        assert!(decides(&loop_over(vec![either.clone(), compared], &[], &["go_in", "y"])));
        let mut by_data = either;
        by_data.input[0] = "x".to_owned();
        assert!(decides(&by_data));
    }

    #[test]
    fn data_are_followed_into_scans_and_functions() {
        let greater = |from: &str| NodeProto::new("Greater", &[from, "most"], &["y"]);
        let mut scan = loop_over(vec![greater("slice")], &["state", "slice"], &["state", "y"]);
        scan.op_type = Some("Scan".to_owned());
        scan.input = vec!["start".to_owned(), "x".to_owned()];
        let scan = scan.with(AttributeProto::int("num_scan_inputs", 1));
        assert!(decides(&scan));
        let function = FunctionProto {
            name: Some("F".to_owned()),
            domain: Some("own".to_owned()),
            input: vec!["a".to_owned()],
            output: vec!["y".to_owned()],
            node: vec![greater("a")],
            ..FunctionProto::default()
        };
        let functions = Functions::from([(function.key(), &function)]);
        let call = |input: &str| NodeProto::new("F", &[input], &["y"]).in_domain("own");
        let kind = |name: &str| if name == "x" { Kind::Data } else { Kind::Constant };
        assert!(
            holds(&call("x"), &functions, &kind, chooses) && !holds(&call("c"), &functions, &kind, chooses)
        );
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
