//! Every graph of the corpus: found, left or refused as it must be, and still the same function once rewritten.

mod common;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use common::{arrays, cases, corpus, error, for_each, inputs, load};
use isqrt_cov::graph::subgraphs;
use isqrt_cov::recognize::{Findings, Found, recognize};
use isqrt_cov::rewrite;
use isqrt_cov::runtime::Runtime;
use isqrt_cov::runtime::embedded::Embedded;
use isqrt_cov_op::layer::Value as Attribute;
use isqrt_cov_op::{DOMAIN, OperatorKind};
use isqrt_cov_proto::onnx::tensor_proto::DataType;
use isqrt_cov_proto::onnx::{AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto};
use ndarray::ArrayD;
use serde_json::Value;

/// max|Δ| / max|expected| of the model's first output, on the arrays named after its inputs.
fn distance(model: &ModelProto, arrays: &HashMap<String, ArrayD<f32>>, suffix: &str) -> f64 {
    let expected = &arrays[&format!("expected{suffix}")];
    let inputs = inputs(model, arrays, suffix);
    let shapes: Vec<Vec<usize>> = inputs.iter().map(|input| input.dims().to_vec()).collect();
    let output =
        Embedded::new().prepare(&Arc::new(model.clone()), &shapes).unwrap().run(&inputs).unwrap().remove(0);
    error(&output, expected)
}

/// What the replacement must not touch: every node that is left, every initializer that is left, and all the rest.
fn check_untouched(original: &ModelProto, rewritten: &ModelProto, name: &str) {
    let (before, after) = (original.graph.as_ref().unwrap(), rewritten.graph.as_ref().unwrap());
    let ours = |node: &&NodeProto| holds_operator(node) || node.name().ends_with("/reshape");
    let mut remaining = before.node.iter();
    for node in after.node.iter().filter(|node| !ours(node)) {
        assert!(remaining.any(|other| other == node), "{name}: node `{}` changed", node.name());
    }
    let mut remaining = before.initializer.iter();
    for tensor in after.initializer.iter().filter(|tensor| !tensor.name().ends_with("/shape")) {
        assert!(remaining.any(|other| other == tensor), "{name}: initializer `{}` changed", tensor.name());
    }
    let mut remaining = before.value_info.iter();
    let mut described = after.value_info.iter().filter(|info| before.value_info.contains(info));
    assert!(described.all(|info| remaining.any(|other| other == info)), "{name}: value infos moved");
    let is_kept = |function: &FunctionProto| {
        original.functions.contains(function) || function.node.iter().any(holds_operator)
    };
    let mut functions = rewritten.functions.iter().filter(|function| function.domain() != DOMAIN);
    assert!(functions.all(is_kept), "{name}: a function changed");
    assert_eq!(rest_of(original), rest_of(rewritten), "{name}");
    let imports: Vec<_> = rewritten.opset_import.iter().filter(|import| import.domain() != DOMAIN).collect();
    assert_eq!(imports, original.opset_import.iter().collect::<Vec<_>>(), "{name}");
}

/// Whether a node is one of the operators, or has one inside.
fn holds_operator(node: &NodeProto) -> bool {
    node.domain() == DOMAIN || subgraphs(node).any(|graph| graph.node.iter().any(holds_operator))
}

/// A model without the parts in which a replacement shows.
fn rest_of(model: &ModelProto) -> ModelProto {
    let mut rest = model.clone();
    rest.functions.clear();
    rest.opset_import.clear();
    rest.ir_version = None;
    if let Some(graph) = &mut rest.graph {
        graph.node.clear();
        graph.initializer.clear();
        graph.value_info.clear();
    }
    rest
}

fn rewritten(model: &ModelProto, findings: &Findings) -> ModelProto {
    let mut rewritten = model.clone();
    rewrite::apply(&mut rewritten, &findings.layers, true).unwrap();
    rewritten
}

#[test]
fn every_case_is_found_left_or_refused() {
    let corpus = corpus();
    let cases = cases(&corpus);
    assert_eq!(cases.len(), 90);
    for_each(&cases, |case| {
        let name = case["model"].as_str().unwrap();
        let model = load(&corpus.join(name));
        let findings = recognize(&model, &Embedded::new()).unwrap();
        let operators: Vec<OperatorKind> = findings.layers.iter().map(|found| found.layer.operator).collect();
        match case["expect"].as_str().unwrap() {
            "fuse" => {
                let layers = case["layers"].as_u64().unwrap() as usize;
                assert_eq!(operators, vec![OperatorKind::IsqrtCov; layers], "{name}: {findings:?}");
                assert!(findings.lost.is_empty(), "{name}");
                if let Some(iterations) = case["parameters"]["iterN"].as_u64() {
                    assert_eq!(u64::from(findings.layers[0].layer.iterations), iterations, "{name}");
                }
            }
            "leave" => {
                assert!(!operators.contains(&OperatorKind::IsqrtCov), "{name}: {findings:?}");
                assert!(findings.lost.is_empty(), "{name}");
                assert_eq!(findings.misses.len(), 1, "{name}: the near miss is explained");
            }
            "lost-iteration" => {
                assert!(operators.is_empty() && !findings.lost.is_empty(), "{name}: {findings:?}");
                return;
            }
            other => panic!("{name}: {other}"),
        }
        let rewritten = rewritten(&model, &findings);
        check_untouched(&model, &rewritten, name);
        let again = recognize(&rewritten, &Embedded::new()).unwrap();
        assert!(again.layers.is_empty(), "{name}: a converted model has nothing left to convert: {again:?}");
        let arrays = arrays(&corpus.join(case["tensors"].as_str().unwrap()));
        let tolerance = f64::max(1e-5, 4.0 * case["export_max_rel_error"].as_f64().unwrap());
        let distance = distance(&rewritten, &arrays, "");
        assert!(distance <= tolerance, "{name}: {distance:.1e} off, {tolerance:.1e} allowed");
    });
}

/// Graphs that ONNX Runtime's optimizer has laid out for one processor: no other runtime reads their weights.
const OF_ONE_PROCESSOR: [&str; 4] = [
    "depths_dyn18_b1_ortall.onnx",
    "depths_ts17_n_ortall.onnx",
    "position_attention_ts17_n_ortall.onnx",
    "residual_ts17_b1_ortall.onnx",
];

/// Whether what was found is what the case says: the operators, in any order, with their attributes. Where the case names
/// alternatives, each is as right.
fn as_said(findings: &Findings, case: &Value) -> bool {
    let is = |found: &Found, said: &Value| {
        let attributes = said["attributes"].as_object().unwrap();
        found.layer.name() == said["operator"]
            && attributes.iter().all(|(name, value)| {
                found.layer.attributes().iter().any(|(own, found)| {
                    own == name
                        && match found {
                            Attribute::Integer(found) => value.as_i64() == Some(*found),
                            Attribute::Float(found) => {
                                (value.as_f64().unwrap() - f64::from(*found)).abs() < 1e-6
                            }
                            Attribute::Word(found) => value == found,
                        }
                })
            })
    };
    let alternatives = case["alternatives"].as_array().into_iter().flatten();
    std::iter::once(&case["operators"]).chain(alternatives).any(|said| {
        let said = said.as_array().unwrap();
        findings.layers.len() == said.len()
            && said.iter().all(|said| findings.layers.iter().any(|found| is(found, said)))
    })
}

/// Two thirds of the graphs that `models/exports` makes; the rest is held out of development.
#[test]
fn own_graphs_are_found_for_what_they_are() {
    let folder = corpus().join("own");
    let mut cases = cases(&folder);
    cases.retain(|case| case["held_out"] == false);
    assert!(cases.len() > 100, "{} cases", cases.len());
    let surprises = Mutex::new(Vec::new());
    let surprise = |text| surprises.lock().unwrap().push(text);
    for_each(&cases, |case| {
        let name = case["model"].as_str().unwrap();
        let model = load(&folder.join(name));
        let findings = recognize(&model, &Embedded::new()).unwrap_or_default();
        match case["expect"].as_str().unwrap() {
            "fuse" => {
                if as_said(&findings, case) == OF_ONE_PROCESSOR.contains(&name) {
                    let found: Vec<_> = findings.layers.iter().map(|found| found.layer).collect();
                    surprise(format!("{name}: {} said, {found:?} found", case["operators"]));
                }
                assert!(findings.lost.is_empty(), "{name}: {findings:?}");
            }
            "leave" => assert!(findings.lost.is_empty(), "{name}: {findings:?}"),
            "lost-iteration" => {
                assert!(findings.layers.is_empty() && !findings.lost.is_empty(), "{name}: {findings:?}");
            }
            other => panic!("{name}: {other}"),
        }
        if !findings.layers.is_empty() {
            let rewritten = rewritten(&model, &findings);
            check_untouched(&model, &rewritten, name);
            let arrays = arrays(&folder.join(case["tensors"].as_str().unwrap()));
            let suffix = if name.contains("_n") { "_b3" } else { "" };
            let suffix = if arrays.contains_key(&format!("expected{suffix}")) { suffix } else { "" };
            let tolerance = f64::max(1e-5, 4.0 * case["export_max_rel_error"].as_f64().unwrap());
            let distance = distance(&rewritten, &arrays, suffix);
            if distance > tolerance {
                surprise(format!("{name}: {distance:.1e} off, {tolerance:.1e} allowed"));
            }
        }
    });
    let surprises = surprises.into_inner().unwrap();
    assert!(surprises.is_empty(), "{}", surprises.join("\n"));
}

/// Ordinary inputs never show what a guard does: it must stay in front of the layer.
#[test]
fn a_guard_in_front_of_a_layer_is_no_part_of_it() {
    let mut model = load(&corpus().join("layer/official_noDotData_d16_hw7_it5_dyn18_dynbatch.onnx"));
    let graph = model.graph.as_mut().unwrap();
    let input = graph.input[0].name().to_owned();
    for name in graph.node.iter_mut().flat_map(|node| &mut node.input).filter(|name| **name == input) {
        "clipped".clone_into(name);
    }
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
    let mask = [cast(&input, "is", DataType::Bool), cast("is", "mask", DataType::Float)];
    let sign = [NodeProto::new("Sign", &[&input], &["sign"]), NodeProto::new("Abs", &["sign"], &["mask"])];
    for nodes in [mask, sign] {
        let mut model = model.clone();
        let graph = model.graph.as_mut().unwrap();
        for name in graph.node.iter_mut().flat_map(|node| &mut node.input).filter(|name| **name == input) {
            "masked".clone_into(name);
        }
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

/// Adds the numbers that guards compare with.
fn with_limits(graph: &mut GraphProto) {
    let limits = [("tiny", 1e-6), ("half", 0.5), ("least", -1e4), ("most", 1e4), ("zero", 0.0)];
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
        ("Clip", [&*trace, "tiny", ""], "of about 1e-9"),
        ("Max", [&trace, "tiny", "tiny"], "of about 1e-9"),
        ("Min", [&trace, "most", "most"], "of about 1e9"),
        ("Clip", [&trace, "", "most"], "of about 1e9"),
    ] {
        let mut model = model.clone();
        let graph = model.graph.as_mut().unwrap();
        with_limits(graph);
        for name in graph.node.iter_mut().flat_map(|node| &mut node.input).filter(|name| *name == inputs[0]) {
            "guarded".clone_into(name);
        }
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
    for name in graph.node.iter_mut().flat_map(|node| &mut node.input).filter(|name| **name == covariance) {
        "numbers".clone_into(name);
    }
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

/// One behind a layer stays behind it, also where it looks for nothing but NaN.
#[test]
fn a_guard_behind_a_layer_is_no_part_of_it() {
    let mut model = load(&corpus().join("layer/official_noDotData_d16_hw7_it5_dyn18_dynbatch.onnx"));
    let graph = model.graph.as_mut().unwrap();
    with_limits(graph);
    let output = graph.output[0].name().to_owned();
    for name in graph.node.iter_mut().flat_map(|node| &mut node.output).filter(|name| **name == output) {
        "layer".clone_into(name);
    }
    let clip = NodeProto::new("Clip", &["layer", "least", "most"], &[&output]);
    let absent = NodeProto::new("IsNaN", &["layer"], &["absent"]);
    let filled = NodeProto::new("Where", &["absent", "zero", "layer"], &[&output]);
    for nodes in [vec![clip], vec![absent, filled]] {
        let mut model = model.clone();
        model.graph.as_mut().unwrap().node.extend(nodes);
        let findings = recognize(&model, &Embedded::new()).unwrap();
        let [found] = &findings.layers[..] else { panic!("{:?}", findings.misses) };
        assert_eq!((found.layer.operator, &*found.output), (OperatorKind::IsqrtCov, "layer"));
    }
}

/// Two layers of which the number of samples chooses are two, whatever it is.
#[test]
fn what_the_shape_chooses_is_no_formula() {
    let branch = |name: &str| {
        let mut graph = load(&corpus().join(name)).graph.unwrap();
        graph.input.clear();
        graph
    };
    let mut model = load(&corpus().join("layer/official_noDotData_d16_hw7_it5_dyn18_dynbatch.onnx"));
    let graph = model.graph.as_mut().unwrap();
    let input = graph.input[0].name().to_owned();
    let choice = NodeProto::new("If", &["many"], &["chosen"])
        .with(AttributeProto::graph(
            "then_branch",
            branch("layer/official_noDotData_d16_hw7_it5_dyn18_dynbatch.onnx"),
        ))
        .with(AttributeProto::graph(
            "else_branch",
            branch("layer/stripped_noDotData_d16_hw7_it1_ts17_dynbatch.onnx"),
        ));
    graph.node = vec![
        NodeProto::new("Shape", &[&input], &["shape"]),
        NodeProto::new("Gather", &["shape", "first"], &["samples"]),
        NodeProto::new("Greater", &["samples", "limit"], &["many"]),
        choice,
    ];
    graph.initializer = vec![
        TensorProto::from_values("first", &[], &[0_i64]),
        TensorProto::from_values("limit", &[], &[16_i64]),
    ];
    graph.value_info.clear();
    graph.output[0].name = Some("chosen".to_owned());
    let findings = recognize(&model, &Embedded::new()).unwrap();
    let mut iterations: Vec<u32> = findings.layers.iter().map(|found| found.layer.iterations).collect();
    iterations.sort_unstable();
    assert_eq!(iterations, [1, 5]);
    assert!(findings.layers.iter().all(|found| !found.scope.is_main()));
}

/// A layer that ends in the matrix, which is made by the value `root`.
fn ending_in_the_root() -> ModelProto {
    let mut model = load(&corpus().join("layer/official_sqrt1_vec0_d16_hw7_it5_dyn18_b2.onnx"));
    let graph = model.graph.as_mut().unwrap();
    "root".clone_into(&mut graph.node.last_mut().unwrap().output[0]);
    graph.node.push(NodeProto::new("Identity", &["root"], &[graph.output[0].name()]));
    model
}

/// A root stays one where a sum or a difference hides it from what leaves the region.
#[test]
fn a_root_is_found_where_something_is_subtracted_of_it() {
    let mut model = ending_in_the_root();
    let graph = model.graph.as_mut().unwrap();
    let covariance = graph.node.iter().filter(|node| node.op_type() == "MatMul").nth(1).unwrap();
    let covariance = covariance.output[0].clone();
    let last = graph.node.last_mut().unwrap();
    last.op_type = Some("Sub".to_owned());
    last.input.push(covariance.clone());
    let findings = recognize(&model, &Embedded::new()).unwrap();
    let mut found: Vec<_> =
        findings.layers.iter().map(|found| (found.layer.name(), &*found.output)).collect();
    found.sort_unstable();
    assert_eq!(found, [("CovariancePooling", &*covariance), ("IsqrtCov", "root")]);
    let again = recognize(&rewritten(&model, &findings), &Embedded::new()).unwrap();
    assert!(again.layers.is_empty(), "{again:?}");
}

/// Matrices may be multiplied without a product of matrices.
#[test]
fn products_that_are_written_as_sums_are_products() {
    let mut model = ending_in_the_root();
    let graph = model.graph.as_mut().unwrap();
    let axis = |name: &str, axis: i64| TensorProto::from_values(name, &[1], &[axis]);
    graph.initializer.extend([axis("last", -1), axis("rows", 1), axis("summed", 2)]);
    let mut products = 0;
    for node in std::mem::take(&mut graph.node) {
        if node.op_type() != "MatMul" {
            graph.node.push(node);
            continue;
        }
        products += 1;
        let name = |what: &str| format!("{}/{what}", node.output[0]);
        let (left, right, terms) = (name("left"), name("right"), name("terms"));
        let no_axis = AttributeProto::int("keepdims", 0);
        graph.node.extend([
            NodeProto::new("Unsqueeze", &[&node.input[0], "last"], &[&left]),
            NodeProto::new("Unsqueeze", &[&node.input[1], "rows"], &[&right]),
            NodeProto::new("Mul", &[&left, &right], &[&terms]),
            NodeProto::new("ReduceSum", &[&terms, "summed"], &[&node.output[0]]).with(no_axis),
        ]);
    }
    assert_eq!(products, 14);
    let findings = recognize(&model, &Embedded::new()).unwrap();
    let [found] = &findings.layers[..] else { panic!("{:?}", findings.misses) };
    assert_eq!((found.layer.operator, found.layer.iterations), (OperatorKind::IsqrtCov, 5));
}
