//! Whole graphs: subgraphs, functions, what is watched, and files that mean ill.

use anyhow::Result;
use isqrt_cov_proto::onnx::attribute_proto::AttributeType;
use isqrt_cov_proto::onnx::tensor_proto::DataType;
use isqrt_cov_proto::onnx::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    ValueInfoProto,
};
use ndarray::ArrayD;

use super::{Evaluator, Precision, Watcher};
use crate::runtime::tract::Tract;
use crate::scope::Scope;
use crate::tensor::{ElementType, Tensor};

/// A float32 tensor.
pub(super) fn floats(dims: &[usize], values: &[f64]) -> Tensor {
    Tensor::from_f64(ElementType::F32, dims, values)
}

/// An int64 vector.
pub(super) fn ints(values: &[i64]) -> Tensor {
    Tensor::I64(ArrayD::from_shape_vec(vec![values.len()], values.to_vec()).unwrap())
}

fn graph(nodes: Vec<NodeProto>, inputs: &[&str], outputs: &[&str]) -> GraphProto {
    GraphProto {
        node: nodes,
        input: inputs.iter().map(|&name| ValueInfoProto::named(name)).collect(),
        output: outputs.iter().map(|&name| ValueInfoProto::named(name)).collect(),
        ..GraphProto::default()
    }
}

fn run(model: &ModelProto, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
    Evaluator::new(model, Precision::Declared, None)?.run(inputs)
}

/// What a node alone makes of its inputs.
pub(super) fn all(node: NodeProto, opset: i64, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
    let mut graph = graph(Vec::new(), &[], &[]);
    for name in &node.input {
        if graph.input.iter().all(|input| input.name() != name) {
            graph.input.push(ValueInfoProto::named(name));
        }
    }
    graph.output = node.output.iter().map(ValueInfoProto::named).collect();
    graph.node.push(node);
    run(&ModelProto::new(graph, opset), inputs)
}

/// A node's one output.
pub(super) fn one(node: NodeProto, opset: i64, inputs: &[Tensor]) -> Result<Tensor> {
    Ok(all(node, opset, inputs)?.remove(0))
}

/// A node that makes a constant.
fn constant(name: &str, tensor: TensorProto) -> NodeProto {
    NodeProto::new("Constant", &[], &[name]).with(AttributeProto::tensor("value", tensor))
}

/// Everything that is seen, as scope, name and elements.
#[derive(Default)]
struct Everything(Vec<(Scope, String, Vec<f64>)>);

impl Watcher for Everything {
    fn wants(&self, _: &Scope, name: &str) -> bool {
        name != "unwanted"
    }

    fn saw(&mut self, scope: &Scope, name: &str, value: &Tensor, _: ElementType) {
        self.0.push((scope.clone(), name.to_owned(), value.to_f64()));
    }
}

impl Everything {
    fn of(&self, scope: &Scope, name: &str) -> Vec<&[f64]> {
        self.0
            .iter()
            .filter(|seen| &seen.0 == scope && seen.1 == name)
            .map(|seen| seen.2.as_slice())
            .collect()
    }
}

/// y = x doubled where the condition holds, else squared; both branches call their value the same.
fn branches() -> ModelProto {
    let branch = |operator| graph(vec![NodeProto::new(operator, &["x", "x"], &["same"])], &[], &["same"]);
    let node = NodeProto::new("If", &["condition"], &["y"])
        .with(AttributeProto::graph("then_branch", branch("Add")))
        .with(AttributeProto::graph("else_branch", branch("Mul")));
    ModelProto::new(graph(vec![node], &["x", "condition"], &["y"]), 17)
}

#[test]
fn both_branches_are_seen_and_one_is_taken() {
    let model = branches();
    let inputs = [floats(&[1], &[3.0]), Tensor::Bool(ArrayD::from_elem(vec![], true))];
    let mut seen = Everything::default();
    let evaluator = Evaluator::new(&model, Precision::Exact, None).unwrap();
    let made = evaluator.watch(&inputs, &mut seen).unwrap();
    assert_eq!(made[0].to_f64(), [6.0]);
    assert_eq!(made[0].element_type(), ElementType::F64);
    assert_eq!(seen.of(&Scope::default().inside(0, 0), "same"), [[6.0]]);
    assert_eq!(seen.of(&Scope::default().inside(0, 1), "same"), [[9.0]]);
    assert_eq!(seen.of(&Scope::default(), "x"), [[3.0]]);
}

#[test]
fn a_branch_without_end_that_is_not_taken_takes_nothing_from_the_other() {
    let mut model = branches();
    let endless = counting("").graph.unwrap().node.remove(0);
    let graph = model.graph.as_mut().unwrap();
    let branch = graph.node[0].attribute[1].g.as_mut().unwrap();
    branch.output[0].name = Some(endless.output[0].clone());
    branch.node = vec![endless];
    let inputs = [floats(&[1], &[3.0]), Tensor::Bool(ArrayD::from_elem(vec![], true))];
    let evaluator = Evaluator::new(&model, Precision::Exact, None).unwrap();
    assert_eq!(evaluator.watch(&inputs, &mut Everything::default()).unwrap()[0].to_f64(), [6.0]);
}

/// Before operator set 11 the sizes of a Resize were its second input.
#[test]
fn a_runtime_is_given_the_operator_set_of_the_function() {
    let resize = NodeProto::new("Resize", &["x", "scales"], &["y"]);
    let scales = constant("scales", TensorProto::from_values("", &[4], &[1.0_f32, 1.0, 2.0, 2.0]));
    let nearest = FunctionProto {
        name: Some("Nearest".to_owned()),
        domain: Some("com.example".to_owned()),
        input: vec!["x".to_owned()],
        output: vec!["y".to_owned()],
        node: vec![scales, resize],
        opset_import: vec![OperatorSetIdProto::new("", 10)],
        ..FunctionProto::default()
    };
    let node = NodeProto::new("Nearest", &["a"], &["b"]).in_domain("com.example");
    let mut model = ModelProto::new(graph(vec![node], &["a"], &["b"]), 17);
    model.functions = vec![nearest];
    let tract = Tract::default();
    let evaluator = Evaluator::new(&model, Precision::Declared, Some(&tract)).unwrap();
    let made = evaluator.run(&[floats(&[1, 1, 1, 2], &[3.0, 5.0])]).unwrap().remove(0);
    assert_eq!((made.dims(), made.to_f64()), (&[1, 1, 2, 4][..], [3.0, 3.0, 5.0, 5.0].repeat(2)));
}

#[test]
fn an_error_in_the_branch_that_is_not_taken_is_nobodys() {
    let mut model = branches();
    let graph = model.graph.as_mut().unwrap();
    graph.node[0].attribute[1].g.as_mut().unwrap().node[0].op_type = Some("Mystery".to_owned());
    let inputs = |condition| [floats(&[1], &[3.0]), Tensor::Bool(ArrayD::from_elem(vec![], condition))];
    let evaluator = Evaluator::new(&model, Precision::Exact, None).unwrap();
    assert!(evaluator.watch(&inputs(true), &mut Everything::default()).is_ok());
    let error = format!("{:#}", evaluator.run(&inputs(false)).unwrap_err());
    assert!(error.contains("node `y` (If)") && error.contains("Mystery"), "{error}");
}

/// A loop that adds x to its state and puts out the state and the counter, while the state is below a limit.
fn counting(trips: &str) -> ModelProto {
    let body = graph(
        vec![
            NodeProto::new("Add", &["state", "x"], &["next"]),
            NodeProto::new("Less", &["next", "limit"], &["go"]),
            NodeProto::new("Identity", &["next"], &["scanned"]),
        ],
        &["trip", "was", "state"],
        &["go", "next", "scanned", "trip"],
    );
    let node = NodeProto::new("Loop", &[trips, "", "x"], &["last", "all", "trips"])
        .with(AttributeProto::graph("body", body));
    let mut graph = graph(vec![node], &["x"], &["last", "all", "trips"]);
    graph.initializer = vec![TensorProto::scalar("limit", 4.5_f32), TensorProto::scalar("three", 3_i64)];
    ModelProto::new(graph, 17)
}

#[test]
fn loops_carry_and_scan() {
    let x = || [floats(&[], &[1.0])];
    let made = run(&counting(""), &x()).unwrap();
    assert_eq!(made[0].to_f64(), [5.0]);
    assert_eq!((made[1].dims(), made[1].to_f64()), (&[4][..], vec![2.0, 3.0, 4.0, 5.0]));
    assert_eq!(made[2], ints(&[0, 1, 2, 3]));
    assert_eq!(run(&counting("three"), &x()).unwrap()[0].to_f64(), [4.0]);
}

#[test]
fn a_loop_that_never_ends_is_ended() {
    let error = format!("{:#}", run(&counting(""), &[floats(&[], &[0.0])]).unwrap_err());
    assert!(error.contains("more than 1000000 nodes"), "{error}");
}

/// com.example:Scaled(x) = x·factor, the factor 10 where nobody says.
fn calling() -> ModelProto {
    let factor = NodeProto::new("Constant", &[], &["factor"]).with(AttributeProto::reference(
        "value_float",
        "factor",
        AttributeType::Float,
    ));
    let scaled = FunctionProto {
        name: Some("Scaled".to_owned()),
        domain: Some("com.example".to_owned()),
        input: vec!["x".to_owned()],
        output: vec!["y".to_owned()],
        attribute_proto: vec![AttributeProto::float("factor", 10.0)],
        node: vec![NodeProto::new("Mul", &["x", "factor"], &["y"]), factor],
        opset_import: vec![OperatorSetIdProto::new("", 18)],
        ..FunctionProto::default()
    };
    let twice = FunctionProto {
        name: Some("Twice".to_owned()),
        attribute: vec!["by".to_owned()],
        node: vec![
            NodeProto::new("Scaled", &["x"], &["once"])
                .in_domain("com.example")
                .with(AttributeProto::reference("factor", "by", AttributeType::Float)),
            NodeProto::new("Scaled", &["once"], &["y"]).in_domain("com.example"),
        ],
        attribute_proto: Vec::new(),
        ..scaled.clone()
    };
    let node = NodeProto::new("Twice", &["a"], &["b"])
        .in_domain("com.example")
        .with(AttributeProto::float("by", 2.0));
    let mut model = ModelProto::new(graph(vec![node], &["a"], &["b"]), 17);
    model.functions = vec![scaled, twice];
    model
}

#[test]
fn functions_are_called_with_their_attributes() {
    let model = calling();
    let mut seen = Everything::default();
    let evaluator = Evaluator::new(&model, Precision::Declared, None).unwrap();
    assert_eq!(evaluator.watch(&[floats(&[1], &[3.0])], &mut seen).unwrap()[0].to_f64(), [60.0]);
    assert_eq!(seen.of(&Scope::of_function(0), "factor"), [[2.0], [10.0]]);
    assert_eq!(seen.of(&Scope::of_function(1), "once"), [[6.0]]);
}

#[test]
fn a_function_that_calls_itself_is_refused() {
    let mut model = calling();
    model.functions[0].node[0] = NodeProto::new("Twice", &["x"], &["y"]).in_domain("com.example");
    let error = format!("{:#}", run(&model, &[floats(&[1], &[3.0])]).unwrap_err());
    assert!(error.contains("nested more than"), "{error}");
}

#[test]
fn what_is_rounded_depends_on_the_precision() {
    let cast = |from: &str, to: &str, element: ElementType| {
        NodeProto::new("Cast", &[from], &[to]).with(AttributeProto::int("to", element.onnx().into()))
    };
    let nodes = vec![cast("x", "half", ElementType::F16), cast("half", "y", ElementType::F32)];
    let mut graph = graph(nodes, &[], &["y"]);
    graph.input = vec![ValueInfoProto::of_any_shape("x", DataType::Float)];
    let model = ModelProto::new(graph, 17);
    let x = Tensor::F64(ArrayD::from_elem(vec![], 1.0 / 3.0));
    let made =
        |precision| Evaluator::new(&model, precision, None).unwrap().run(std::slice::from_ref(&x)).unwrap();
    assert_eq!(made(Precision::Exact)[0], x);
    let half: f32 = half::f16::from_f64(f64::from(1.0_f32 / 3.0)).into();
    assert_eq!(made(Precision::Declared)[0], Tensor::F32(ArrayD::from_elem(vec![], half)));
}

#[test]
fn nodes_need_not_be_sorted_but_must_not_be_circular() {
    let nodes = vec![NodeProto::new("Neg", &["a"], &["b"]), NodeProto::new("Abs", &["x"], &["a"])];
    assert_eq!(
        run(&ModelProto::new(graph(nodes, &["x"], &["b"]), 17), &[floats(&[1], &[2.0])]).unwrap()[0].to_f64(),
        [-2.0]
    );
    let nodes = vec![NodeProto::new("Neg", &["a"], &["b"]), NodeProto::new("Abs", &["b"], &["a"])];
    let error = format!("{:#}", run(&ModelProto::new(graph(nodes, &[], &["b"]), 17), &[]).unwrap_err());
    assert!(error.contains("node `b` (Neg): nothing makes `a`"), "{error}");
    let twice = vec![NodeProto::new("Neg", &["x"], &["b"]), NodeProto::new("Abs", &["x"], &["b"])];
    assert!(run(&ModelProto::new(graph(twice, &["x"], &["b"]), 17), &[floats(&[1], &[2.0])]).is_err());
}

#[test]
fn values_are_shown_without_what_they_do_not_need() {
    let nodes = vec![
        NodeProto::new("Mystery", &["c"], &["d"]),
        NodeProto::new("Neg", &["x"], &["a"]),
        NodeProto::new("Abs", &["a"], &["b"]),
        NodeProto::new("Exp", &["b"], &["c"]),
    ];
    let model = ModelProto::new(graph(nodes, &["x"], &["d"]), 17);
    let x = [floats(&[1], &[-2.0])];
    let show = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let shown = Evaluator::showing(&model, &names, Precision::Declared, None)?.run(&x)?;
        Ok::<_, anyhow::Error>(shown.iter().flat_map(Tensor::to_f64).collect::<Vec<_>>())
    };
    assert_eq!(show(&["b", "x", "a"]).unwrap(), [2.0, -2.0, 2.0]);
    assert!(show(&["d"]).is_err());
    assert!(show(&["nothing"]).is_err());
}

#[test]
fn huge_tensors_are_refused_before_they_are_made() {
    let huge = [1 << 40, 1 << 40];
    let x = floats(&[1, 1], &[1.0]);
    for (operator, opset) in [("Expand", 13), ("Tile", 13)] {
        let node = NodeProto::new(operator, &["x", "shape"], &["y"]);
        assert!(one(node.clone(), opset, &[x.clone(), ints(&huge)]).is_err());
        assert!(one(node, opset, &[x.clone(), ints(&[1 << 20, 1 << 20])]).is_err());
    }
    assert!(one(NodeProto::new("ConstantOfShape", &["shape"], &["y"]), 13, &[ints(&huge)]).is_err());
    assert!(
        one(NodeProto::new("ConstantOfShape", &["shape"], &["y"]), 13, &[ints(&[0, i64::MAX, 3])]).is_err()
    );
    assert!(one(NodeProto::new("ConstantOfShape", &["shape"], &["y"]), 13, &[ints(&[-1])]).is_err());
    let range = NodeProto::new("Range", &["a", "b", "c"], &["y"]);
    assert!(one(range.clone(), 13, &[ints(&[i64::MIN]), ints(&[i64::MAX]), ints(&[1])]).is_err());
    assert!(
        one(range.clone(), 13, &[floats(&[], &[0.0]), floats(&[], &[1.0]), floats(&[], &[0.0])]).is_err()
    );
    assert!(one(range, 13, &[floats(&[], &[0.0]), floats(&[], &[1e30]), floats(&[], &[1e-30])]).is_err());
}

/// A hundred tensors, each of which is allowed, one after another or all of them at once.
#[test]
fn tensors_that_are_large_together_are_refused() {
    let summed = |at_once: bool| {
        let (mut nodes, mut sums) = (Vec::new(), Vec::new());
        for index in 0..100 {
            let [large, most] = ["large", "most"].map(|name| format!("{name}_{index}"));
            nodes.push(NodeProto::new("Expand", &["x", "shape"], &[&large]));
            sums.push(
                NodeProto::new("ReduceMax", &[&large], &[&most]).with(AttributeProto::int("keepdims", 0)),
            );
            if !at_once {
                nodes.append(&mut sums);
            }
        }
        let names: Vec<String> = (0..100).map(|index| format!("most_{index}")).collect();
        sums.push(NodeProto::new("Sum", &names.iter().map(String::as_str).collect::<Vec<_>>(), &["y"]));
        let shape = constant("shape", TensorProto::from_values("", &[1], &[1_i64 << 20]));
        let nodes = [vec![shape], nodes, sums].concat();
        run(&ModelProto::new(graph(nodes, &["x"], &["y"]), 17), &[floats(&[1], &[1.0])])
    };
    assert_eq!(summed(false).unwrap()[0].to_f64(), [100.0]);
    let error = format!("{:#}", summed(true).unwrap_err());
    assert!(error.contains("needed here have more than"), "{error}");
}

#[test]
fn graphs_that_are_nested_too_deep_are_refused() {
    let mut inner = graph(vec![NodeProto::new("Identity", &["x"], &["y"])], &[], &["y"]);
    for _ in 0..60 {
        let node = NodeProto::new("If", &["c"], &["y"])
            .with(AttributeProto::graph("then_branch", inner.clone()))
            .with(AttributeProto::graph("else_branch", graph(Vec::new(), &[], &["x"])));
        inner = graph(vec![node], &[], &["y"]);
    }
    inner.input = vec![ValueInfoProto::named("x"), ValueInfoProto::named("c")];
    let error = Evaluator::new(&ModelProto::new(inner, 17), Precision::Exact, None).err().unwrap();
    assert!(format!("{error:#}").contains("nested more than"));
}

/// Every operator with wrong inputs: too few, too many, of the wrong rank, type or sign. None may panic.
#[test]
fn no_operator_panics_at_any_input() {
    let tensors = || {
        vec![
            floats(&[], &[1.5]),
            floats(&[0], &[]),
            floats(&[2, 3], &[0.5; 6]),
            floats(&[1, 2, 2, 2], &[f64::NAN; 8]),
            floats(&[0, 3], &[]),
            ints(&[]),
            ints(&[-1]),
            ints(&[i64::MIN, i64::MAX]),
            ints(&[2, 0, -3]),
            Tensor::I64(ArrayD::from_elem(vec![2, 0], 1)),
            Tensor::I64(ArrayD::from_elem(vec![], i64::MAX)),
            Tensor::Bool(ArrayD::from_elem(vec![3], true)),
        ]
    };
    let attributes = [
        vec![],
        vec![AttributeProto::int("axis", i64::MIN), AttributeProto::ints("perm", &[0, 0])],
        vec![AttributeProto::int("axis", 1), AttributeProto::ints("axes", &[1, -1])],
        vec![
            AttributeProto::int("axis", -1),
            AttributeProto::int("batch_dims", 1),
            AttributeProto::int("blocksize", i64::MAX),
            AttributeProto::int("k", i64::MAX),
            AttributeProto::int("num_outputs", 0),
            AttributeProto::ints("pads", &[i64::MAX, 1]),
            AttributeProto::string("equation", "...i,i...->i"),
            AttributeProto::int("to", 77),
        ],
        vec![
            AttributeProto::int("blocksize", 0),
            AttributeProto::int("transA", 1),
            AttributeProto::int("to", 7),
        ],
    ];
    // The names are the patterns of the table.
    let lines = include_str!("table.rs").lines().filter(|line| line.trim().starts_with('"'));
    let operators: Vec<&str> =
        lines.flat_map(|line| line.split("=>").next().unwrap().split('"').skip(1).step_by(2)).collect();
    assert!(operators.len() > 120, "{operators:?}");
    for (&operator, attributes) in
        operators.iter().flat_map(|name| attributes.iter().map(move |list| (name, list)))
    {
        for first in tensors() {
            for second in tensors() {
                for opset in [9, 18] {
                    for inputs in [1, 3, 5] {
                        let names = ["a", "b", "c", "d", "e"];
                        let mut node = NodeProto::new(operator, &names[..inputs], &["y", "z"]);
                        node.attribute.clone_from(attributes);
                        let given = [&first, &second, &second, &first, &first];
                        let given: Vec<Tensor> =
                            given[..inputs].iter().map(|&tensor| tensor.clone()).collect();
                        drop(all(node, opset, &given));
                    }
                }
            }
        }
    }
}

#[test]
fn constants_are_made_in_every_form() {
    let node = |attribute| NodeProto::new("Constant", &[], &["y"]).with(attribute);
    assert_eq!(one(node(AttributeProto::int("value_int", 3)), 13, &[]).unwrap().to_f64(), [3.0]);
    assert_eq!(one(node(AttributeProto::ints("value_ints", &[3, 4])), 13, &[]).unwrap(), ints(&[3, 4]));
    assert_eq!(one(node(AttributeProto::float("value_float", 0.5)), 13, &[]).unwrap().to_f64(), [0.5]);
    assert!(one(node(AttributeProto::string("value_string", "word")), 13, &[]).is_err());
    let nodes = vec![
        constant("c", TensorProto::from_values("", &[1], &[2.0_f32])),
        NodeProto::new("Neg", &["c"], &["y"]),
    ];
    assert_eq!(run(&ModelProto::new(graph(nodes, &[], &["y"]), 13), &[]).unwrap()[0].to_f64(), [-2.0]);
}
