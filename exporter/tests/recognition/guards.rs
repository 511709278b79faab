//! Layers of the corpus with a guard: what ordinary inputs never show is no part of a layer, unless it keeps a divisor from 0.

use isqrt_cov::recognize::{Findings, Miss, recognize};
use isqrt_cov::rewrite;
use isqrt_cov::runtime::embedded::Embedded;
use isqrt_cov_op::OperatorKind;
use isqrt_cov_proto::onnx::tensor_proto::DataType;
use isqrt_cov_proto::onnx::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
};

use super::changed::{ending_in_the_root, read_instead, read_instead_of_input};
use super::common::{corpus, load};

/// Ordinary inputs never show what a guard does: it must stay in front of the layer.
#[test]
fn a_guard_in_front_of_a_layer_is_no_part_of_it() {
    let mut model = load(&corpus().join("layer/official_noDotData_d16_hw7_it5_dyn18_dynbatch.onnx"));
    let graph = model.graph.as_mut().unwrap();
    let input = read_instead_of_input(graph, "clipped");
    let limits = [("least", -1000.0), ("most", 1000.0)];
    graph
        .initializer
        .extend(limits.map(|(name, limit)| TensorProto::from_values(name, &[], &[limit as f32])));
    graph.node.insert(0, NodeProto::new("Clip", &[&input, "least", "most"], &["clipped"]));
    let findings = recognize(&model, &Embedded::new()).unwrap();
    assert_eq!(findings.layers.len(), 1);
    assert_eq!(findings.layers[0].input, "clipped");
}

/// What is chosen by data is no formula, even where every input tried comes to the same choice.
#[test]
fn what_data_decide_is_no_part_of_a_layer() {
    let model = load(&corpus().join("layer/official_noDotData_d16_hw7_it5_dyn18_dynbatch.onnx"));
    let input = model.graph.as_ref().unwrap().input[0].name().to_owned();
    let cast = |from: &str, to: &str, element: DataType| {
        NodeProto::new("Cast", &[from], &[to]).with(AttributeProto::int("to", element as i64))
    };
    // Only of what is not zero, say.
    let mask = vec![cast(&input, "is", DataType::Bool), cast("is", "mask", DataType::Float)];
    let sign =
        vec![NodeProto::new("Sign", &[&input], &["sign"]), NodeProto::new("Abs", &["sign"], &["mask"])];
    // 1 but for numbers below -500.
    let gate = AttributeProto::float("beta", 1.5);
    let gate = NodeProto::new("HardSigmoid", &[&input], &["mask"])
        .with(AttributeProto::float("alpha", 1e-3))
        .with(gate);
    // The share of numbers that are not zero.
    let share = vec![
        NodeProto::new("NonZero", &[&input], &["places"]),
        NodeProto::new("Shape", &["places"], &["sizes of places"]),
        NodeProto::new("Gather", &["sizes of places", "second"], &["count"]),
        cast("count", "counted", DataType::Float),
        NodeProto::new("Size", &[&input], &["size"]),
        cast("size", "all of them", DataType::Float),
        NodeProto::new("Div", &["counted", "all of them"], &["mask"]),
    ];
    // The same in nothing but sums, products and quotients.
    let ratio = vec![
        NodeProto::new("Mul", &[&input, &input], &["squares"]),
        NodeProto::new("Add", &["squares", "faint"], &["more than squares"]),
        NodeProto::new("Div", &["squares", "more than squares"], &["ones"]),
        NodeProto::new("ReduceMean", &["ones"], &["mask"]),
    ];
    for nodes in [mask, sign, vec![gate], share, ratio] {
        let mut model = model.clone();
        let graph = model.graph.as_mut().unwrap();
        read_instead(graph, &input, "masked");
        graph.initializer.push(TensorProto::from_values("second", &[], &[1_i64]));
        graph.initializer.push(TensorProto::from_values("faint", &[], &[1e-30_f32]));
        graph.node.extend(nodes);
        graph.node.push(NodeProto::new("Mul", &[&input, "mask"], &["masked"]));
        let findings = recognize(&model, &Embedded::new()).unwrap();
        let [found] = &findings.layers[..] else { panic!("{:?}", findings.misses) };
        assert_eq!((found.layer.operator, &*found.input), (OperatorKind::IsqrtCov, "masked"));
    }

    // The root where the trace is large, and the covariance elsewhere.
    let mut model = ending_in_the_root();
    let graph = model.graph.as_mut().unwrap();
    let named = |graph: &GraphProto, operator: &str, index: usize| {
        graph.node.iter().filter(|node| node.op_type() == operator).nth(index).unwrap().output[0].clone()
    };
    let (covariance, root_of_trace) = (named(graph, "MatMul", 1), named(graph, "Sqrt", 0));
    with_limits(graph);
    graph.initializer.push(TensorProto::from_values("all", &[3], &[-1_i64, 1, 1]));
    let last = graph.node.pop().unwrap();
    graph.node.extend([
        NodeProto::new("Greater", &[&root_of_trace, "tiny"], &["large"]),
        NodeProto::new("Reshape", &["large", "all"], &["chosen"]),
        NodeProto::new("Where", &["chosen", "root", &covariance], &[&last.output[0]]),
    ]);
    let findings = recognize(&model, &Embedded::new()).unwrap();
    let root = findings.layers.iter().find(|found| found.layer.operator == OperatorKind::IsqrtCov);
    assert_eq!(root.map(|found| &*found.output), Some("root"), "{findings:?}");
}

/// Functions are told apart by their overload as well: the one that is called decides by data, the other one does nothing.
#[test]
fn a_function_is_not_taken_for_another_of_its_name() {
    let number = |name: &str, value: f32| {
        let tensor = TensorProto::from_values("", &[], &[value]);
        NodeProto::new("Constant", &[], &[name]).with(AttributeProto::tensor("value", tensor))
    };
    let of_overload = |overload: &str, node: Vec<NodeProto>| FunctionProto {
        domain: Some("of.test".to_owned()),
        name: Some("Pass".to_owned()),
        overload: Some(overload.to_owned()),
        input: vec!["given".to_owned()],
        output: vec!["passed".to_owned()],
        node,
        opset_import: vec![OperatorSetIdProto::new("", 18)],
        ..FunctionProto::default()
    };
    let without_some = vec![
        number("most", 1000.0),
        number("nothing", 0.0),
        NodeProto::new("Greater", &["given", "most"], &["too much"]),
        NodeProto::new("Where", &["too much", "nothing", "given"], &["passed"]),
    ];
    let functions = [
        of_overload("without some", without_some),
        of_overload("", vec![NodeProto::new("Identity", &["given"], &["passed"])]),
    ];
    for (first, second) in [(0, 1), (1, 0)] {
        let mut model = load(&corpus().join("layer/official_d16_hw7_it5_dyn18_b2.onnx"));
        model.functions = vec![functions[first].clone(), functions[second].clone()];
        model.opset_import.push(OperatorSetIdProto::new("of.test", 1));
        let graph = model.graph.as_mut().unwrap();
        let input = read_instead_of_input(graph, "passed");
        let mut call = NodeProto::new("Pass", &[&input], &["passed"]).in_domain("of.test");
        call.overload = Some("without some".to_owned());
        graph.node.insert(0, call);
        let findings = recognize(&model, &Embedded::new()).unwrap();
        let [found] = &findings.layers[..] else { panic!("{findings:?}") };
        assert_eq!(found.input, "passed");
        let mut fused = model.clone();
        rewrite::apply(&mut fused, &findings.layers, false).unwrap();
        let kept: Vec<_> = fused.functions.iter().map(FunctionProto::overload).collect();
        let given: Vec<_> = model.functions.iter().map(FunctionProto::overload).collect();
        assert_eq!(kept, given, "what nothing called before stays, and so does what is still called");
    }
}

/// Adds the numbers that guards compare with.
fn with_limits(graph: &mut GraphProto) {
    let limits =
        [("tiny", 1e-6), ("small", 1e-4), ("half", 0.5), ("least", -1e4), ("most", 1e4), ("zero", 0.0)];
    graph
        .initializer
        .extend(limits.map(|(name, limit)| TensorProto::from_values(name, &[], &[limit as f32])));
}

/// What a guard does shows on extreme inputs only. One inside a layer makes another function of it.
#[test]
fn a_guard_inside_of_a_layer_is_no_part_of_it() {
    let model = load(&corpus().join("layer/official_noDotData_d16_hw7_it5_dyn18_dynbatch.onnx"));
    let graph = model.graph.as_ref().unwrap();
    let trace = graph.node.iter().find(|node| node.op_type() == "Sqrt").unwrap().input[0].clone();
    let normalized = graph.node.iter().find(|node| node.op_type() == "Div").unwrap().output[0].clone();
    for (operator, inputs, said) in [
        ("Clip", [&*normalized, "", "half"], "one channel"),
        ("Clip", [&*trace, "small", ""], "of about 1e-3"),
        ("Max", [&trace, "small", "small"], "of about 1e-3"),
        ("Min", [&trace, "most", "most"], "of about 1e9"),
        ("Clip", [&trace, "", "most"], "of about 1e9"),
    ] {
        let mut model = model.clone();
        let graph = model.graph.as_mut().unwrap();
        with_limits(graph);
        read_instead(graph, inputs[0], "guarded");
        graph.node.push(NodeProto::new(operator, &inputs, &["guarded"]));
        let findings = recognize(&model, &Embedded::new()).unwrap();
        let whole = findings.layers.iter().find(|found| found.layer.operator == OperatorKind::IsqrtCov);
        assert!(whole.is_none(), "{operator} of {inputs:?}");
        assert!(findings.misses.iter().any(|miss| miss.reason.contains(said)), "{:?}", findings.misses);
    }
}

/// It may let nothing through but numbers.
#[test]
fn what_replaces_nan_inside_of_a_layer_is_no_part_of_it() {
    let mut model = load(&corpus().join("layer/official_noDotData_d16_hw7_it5_dyn18_dynbatch.onnx"));
    let graph = model.graph.as_mut().unwrap();
    with_limits(graph);
    let covariance =
        graph.node.iter().filter(|node| node.op_type() == "MatMul").nth(1).unwrap().output[0].clone();
    read_instead(graph, &covariance, "numbers");
    graph.node.push(NodeProto::new("IsNaN", &[&covariance], &["absent"]));
    graph.node.push(NodeProto::new("Where", &["absent", "zero", &covariance], &["numbers"]));
    let findings = recognize(&model, &Embedded::new()).unwrap();
    let whole = findings.layers.iter().find(|found| found.layer.operator == OperatorKind::IsqrtCov);
    assert!(whole.is_none());
    assert!(
        findings.misses.iter().any(|miss| miss.reason.contains("that hold a NaN")),
        "{:?}",
        findings.misses
    );
}

/// A layer of 16 channels, and the values in it that hold the covariance, its trace and the matrix that the steps begin with.
pub struct Parts {
    pub model: ModelProto,
    covariance: String,
    trace: String,
    normalized: String,
}

pub fn parts() -> Parts {
    let mut model = load(&corpus().join("layer/official_noDotData_d16_hw7_it5_dyn18_dynbatch.onnx"));
    let graph = model.graph.as_mut().unwrap();
    with_limits(graph);
    let of = |operator: &str, index: usize| {
        graph.node.iter().filter(|node| node.op_type() == operator).nth(index).unwrap()
    };
    let [covariance, normalized] = [of("MatMul", 1), of("Div", 0)].map(|node| node.output[0].clone());
    let trace = of("Sqrt", 0).input[0].clone();
    Parts { model, covariance, trace, normalized }
}

/// What `nodes` make of a value instead of it.
fn replaced(model: &ModelProto, value: &str, nodes: &[NodeProto]) -> ModelProto {
    let mut model = model.clone();
    let graph = model.graph.as_mut().unwrap();
    read_instead(graph, value, "guarded");
    graph.node.extend_from_slice(nodes);
    model
}

/// The roots among the layers of a model, by input and output, and whether each is guarded.
pub fn roots(findings: &Findings) -> Vec<(&str, &str, bool)> {
    let roots = findings.layers.iter().filter(|found| found.layer.operator == OperatorKind::IsqrtCov);
    roots
        .map(|found| (&*found.input, &*found.output, found.recognition().unwrap().evidence.down_to.is_some()))
        .collect()
}

/// The operator gives 0 where a sample is 0 everywhere. So does a model that asks for it.
#[test]
fn what_keeps_a_divisor_from_zero_is_part_of_a_layer() {
    let Parts { model, trace, normalized, .. } = &parts();
    let node = NodeProto::new;
    let compared = |operator: &str, with: &str| node(operator, &[trace, with], &["is"]);
    let to_float = AttributeProto::int("to", DataType::Float as i64);
    let cases = [
        (trace, vec![compared("Greater", "zero"), node("Where", &["is", trace, "half"], &["guarded"])]),
        (trace, vec![compared("Equal", "written"), node("Where", &["is", "half", trace], &["guarded"])]),
        (trace, vec![compared("Less", "least of all"), node("Where", &["is", "half", trace], &["guarded"])]),
        (
            trace,
            vec![
                compared("LessOrEqual", "zero"),
                node("Not", &["is"], &["is not"]),
                node("Where", &["is not", trace, "half"], &["guarded"]),
            ],
        ),
        (
            trace,
            vec![
                compared("Equal", "zero"),
                node("Cast", &["is"], &["one"]).with(to_float),
                node("Add", &[trace, "one"], &["guarded"]),
            ],
        ),
        (
            normalized,
            vec![
                node("IsNaN", &[normalized], &["is"]),
                node("Where", &["is", "zero", normalized], &["numbers"]),
                node("IsInf", &["numbers"], &["is infinite"]),
                node("Greater", &["numbers", "zero"], &["is more"]),
                node("And", &["is infinite", "is more"], &["is too much"]),
                node("Where", &["is too much", "most", "numbers"], &["guarded"]),
            ],
        ),
    ];
    for (value, nodes) in cases {
        let mut model = replaced(model, value, &nodes);
        let graph = model.graph.as_mut().unwrap();
        graph.node.push(node("Constant", &[], &["written"]).with(AttributeProto::float("value_float", 0.0)));
        graph.initializer.push(TensorProto::from_values("least of all", &[], &[1e-30_f32]));
        let findings = recognize(&model, &Embedded::new()).unwrap();
        assert_eq!(roots(&findings), [("input", "output", false)], "{nodes:?}: {:?}", findings.misses);
        assert!(findings.misses.is_empty(), "{:?}", findings.misses);
    }
}

/// What is compared with 0 must be the trace or the norm: what is 0 elsewhere chooses on inputs that nobody tried.
#[test]
fn what_else_is_compared_with_zero_is_no_part_of_a_layer() {
    let Parts { model, covariance, trace, normalized } = &parts();
    let node = NodeProto::new;
    let kept = |node: NodeProto| node.with(AttributeProto::int("keepdims", 1));
    let halved = |compared: &str| {
        vec![
            node("Squeeze", &[compared, "last axis"], &["of each"]),
            node("Greater", &["of each", "zero"], &["is"]),
            node("Where", &["is", "one", "half"], &["factor"]),
            node("Mul", &[covariance, "factor"], &["guarded"]),
        ]
    };
    let with = |first: Vec<NodeProto>, then: Vec<NodeProto>| [first, then].concat();
    let cases = [
        // Other numbers in the place of 0.
        (
            covariance,
            vec![
                node("Equal", &[covariance, "zero"], &["is"]),
                node("Where", &["is", "half", covariance], &["guarded"]),
            ],
        ),
        // Half of everything where nothing is above 0, where the third row is empty, or where two sums differ.
        (
            covariance,
            with(
                vec![kept(node("ReduceMax", &["input", "beside samples"], &["largest"]))],
                halved("largest"),
            ),
        ),
        (
            covariance,
            with(
                vec![
                    node("Gather", &["input", "row two"], &["row"]).with(AttributeProto::int("axis", 2)),
                    kept(node("ReduceSumSquare", &["row", "beside samples"], &["of row"])),
                ],
                halved("of row"),
            ),
        ),
        (
            covariance,
            with(
                vec![
                    kept(node("ReduceSumSquare", &["input", "beside samples"], &["power"])),
                    node("Sub", &["many", "power"], &["less"]),
                ],
                halved("less"),
            ),
        ),
        // One sample of 0 decides for all.
        (
            trace,
            vec![
                kept(node("ReduceMin", &[trace], &["least trace"])),
                node("Equal", &["least trace", "zero"], &["is"]),
                node("Where", &["is", "half", trace], &["guarded"]),
            ],
        ),
        // The last does.
        (
            normalized,
            vec![
                node("Equal", &[trace, "zero"], &["is"]),
                node("Gather", &["is", "last"], &["is last"]),
                node("Where", &["is last", "half", "one"], &["factor"]),
                node("Mul", &[normalized, "factor"], &["guarded"]),
            ],
        ),
    ];
    for (value, nodes) in cases {
        let mut model = replaced(model, value, &nodes);
        let graph = model.graph.as_mut().unwrap();
        graph.initializer.extend(
            [("one", 1_f32), ("many", 1e5)]
                .map(|(name, number)| TensorProto::from_values(name, &[], &[number])),
        );
        graph.initializer.push(TensorProto::from_values("beside samples", &[3], &[1_i64, 2, 3]));
        graph.initializer.push(TensorProto::from_values("last axis", &[1], &[3_i64]));
        graph.initializer.push(TensorProto::from_values("last", &[1], &[-1_i64]));
        graph.initializer.push(TensorProto::from_values("row two", &[1], &[2_i64]));
        let findings = recognize(&model, &Embedded::new()).unwrap();
        assert_eq!(roots(&findings), [], "{nodes:?}");
        let says = |miss: &Miss| miss.reason.contains("compared with 0") || miss.reason.contains("on inputs");
        assert!(findings.misses.iter().any(says), "{nodes:?}: {:?}", findings.misses);
    }
}

/// A root of matrices is tried on odd ones, too.
#[test]
fn what_a_root_chooses_by_is_no_part_of_it() {
    let mut model = ending_in_the_root();
    let graph = model.graph.as_mut().unwrap();
    with_limits(graph);
    let covariance = graph.node.iter().filter(|node| node.op_type() == "MatMul").nth(1).unwrap();
    let covariance = covariance.output[0].clone();
    // A trained matrix makes it none of ours.
    let trained =
        |at: usize| f32::from(u8::from(at.is_multiple_of(17))) + 0.01 * ((at / 16 + at % 16) as f32).cos();
    let trained: Vec<f32> = (0..256).map(trained).collect();
    graph.initializer.push(TensorProto::from_values("trained", &[16, 16], &trained));
    read_instead(graph, &covariance, "matrix");
    graph.node.insert(0, NodeProto::new("Add", &[&covariance, "trained"], &["matrix"]));
    let root = |model: &ModelProto| {
        let findings = recognize(model, &Embedded::new()).unwrap();
        let roots = findings.layers.iter().filter(|found| found.layer.operator == OperatorKind::MatrixSqrt);
        roots.map(|found| found.output.clone()).collect::<Vec<_>>()
    };
    assert_eq!(root(&model).len(), 1);
    // Less of a root of a matrix with a row that is next to 0 beside another.
    let end = model.graph.as_mut().unwrap();
    let last = end.node.pop().unwrap();
    end.initializer.push(TensorProto::from_values("columns", &[1], &[2_i64]));
    end.initializer.push(TensorProto::from_values("least share", &[], &[1e-30_f32]));
    end.node.extend([
        NodeProto::new("Abs", &["matrix"], &["sizes"]),
        NodeProto::new("ReduceMax", &["sizes", "columns"], &["of rows"]),
        NodeProto::new("ReduceMin", &["of rows", "columns of rows"], &["least row"]),
        NodeProto::new("ReduceMax", &["of rows", "columns of rows"], &["largest row"]),
        NodeProto::new("Div", &["least row", "largest row"], &["share"]),
        NodeProto::new("Clip", &["share", "", "least share"], &["limited"]),
        NodeProto::new("Div", &["limited", "least share"], &["factor"]),
        NodeProto::new("Mul", &["root", "factor"], &[&last.output[0]]),
    ]);
    end.initializer.push(TensorProto::from_values("columns of rows", &[1], &[1_i64]));
    let whole = &model.graph.as_ref().unwrap().output[0];
    assert!(!root(&model).iter().any(|output| output == whole.name()));
}

/// A number that is nothing beside the traces of ordinary inputs, and of inputs a thousand times smaller, is left out, and it is
/// said so.
#[test]
fn a_faint_guard_is_left_out() {
    let Parts { model, trace, .. } = &parts();
    for (number, operator) in
        [(1e-12_f32, "Add"), (1e-12, "Max"), (1e-20, "Add"), (1e-4, "Max"), (1e-8, "Add")]
    {
        let mut model = replaced(model, trace, &[NodeProto::new(operator, &[trace, "faint"], &["guarded"])]);
        let graph = model.graph.as_mut().unwrap();
        graph.initializer.push(TensorProto::from_values("faint", &[], &[number]));
        let findings = recognize(&model, &Embedded::new()).unwrap();
        let expected = if number > 1e-9 { vec![] } else { vec![("input", "output", true)] };
        assert_eq!(roots(&findings), expected, "{operator} {number}: {:?}", findings.misses);

        // Without the root of the trace, samples next to 0 come out as large as others.
        let graph = model.graph.as_mut().unwrap();
        let compensation = graph.node.iter_mut().find(|node| node.op_type() == "Sqrt").unwrap();
        *compensation = NodeProto::new("Identity", &["one"], &[&compensation.output[0]]);
        graph.initializer.push(TensorProto::from_values("one", &[1, 1, 1], &[1_f32]));
        let findings = recognize(&model, &Embedded::new()).unwrap();
        assert_eq!(roots(&findings), expected, "{operator} {number}");
    }
}
