//! What stands behind a layer, and what of it may stay.

use isqrt_cov::recognize::recognize;
use isqrt_cov::runtime::embedded::Embedded;
use isqrt_cov_op::OperatorKind;
use isqrt_cov_proto::onnx::attribute_proto::AttributeType;
use isqrt_cov_proto::onnx::tensor_proto::DataType;
use isqrt_cov_proto::onnx::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    ValueInfoProto,
};

use super::changed::constant;
use super::guards::{parts, roots};

/// A layer that makes the value `layer`, of which more is to make the output of this name.
fn with_more_behind() -> (ModelProto, String) {
    let mut model = parts().model;
    let graph = model.graph.as_mut().unwrap();
    "layer".clone_into(&mut graph.node.last_mut().unwrap().output[0]);
    let output = graph.output[0].name().to_owned();
    (model, output)
}

/// One behind a layer stays behind it, also where it looks for nothing but NaN.
#[test]
fn a_guard_behind_a_layer_is_no_part_of_it() {
    let (model, output) = with_more_behind();
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

/// The operator gives 0 where the layer divides 0 by 0: it may not stand where a model puts another number in the place of a
/// NaN.
#[test]
fn a_layer_whose_nan_is_replaced_by_a_number_is_none() {
    for (behind_weights, number) in [(false, "half"), (true, "half"), (false, "zero")] {
        let (mut model, output) = with_more_behind();
        let graph = model.graph.as_mut().unwrap();
        let mut other = number;
        if behind_weights {
            let weights: Vec<f32> = (0..136).map(|index| (index as f32).sin()).collect();
            graph.initializer.push(TensorProto::from_values("weights", &[136], &weights));
            graph.node.push(NodeProto::new("Mul", &["weights", number], &["weighted"]));
            other = "weighted";
        }
        graph.node.push(NodeProto::new("IsNaN", &["layer"], &["absent"]));
        graph.node.push(NodeProto::new("Where", &["absent", other, "layer"], &[&output]));
        let findings = recognize(&model, &Embedded::new()).unwrap();
        let roots =
            findings.layers.iter().filter(|found| found.layer.operator != OperatorKind::CovariancePooling);
        assert_eq!(roots.count(), usize::from(number == "zero"), "{findings:?}");
        let says = findings.misses.iter().any(|miss| miss.reason.contains("0 everywhere"));
        assert_eq!(says, number != "zero", "{:?}", findings.misses);
    }
}

/// Behind trained weights it cannot be told what a model makes of a NaN.
#[test]
fn a_layer_whose_nan_is_asked_for_behind_weights_is_none() {
    let (mut model, output) = with_more_behind();
    let graph = model.graph.as_mut().unwrap();
    let weights: Vec<f32> = (0..136 * 3).map(|index| (index as f32).sin()).collect();
    graph.initializer.push(TensorProto::from_values("weights", &[136, 3], &weights));
    let flat = TensorProto::from_values("flat", &[2], &[-1_i64, 136]);
    graph.initializer.push(flat);
    graph.output = vec![ValueInfoProto::named(output.clone())];
    graph.node.extend([
        NodeProto::new("Reshape", &["layer", "flat"], &["rows"]),
        NodeProto::new("MatMul", &["rows", "weights"], &["scores"]),
    ]);
    let found = |model: &ModelProto| {
        let findings = recognize(model, &Embedded::new()).unwrap();
        findings.layers.iter().filter(|found| found.layer.operator == OperatorKind::IsqrtCov).count()
    };
    let mut without = model.clone();
    let graph = without.graph.as_mut().unwrap();
    // That a size is less than any is no number's.
    graph.initializer.push(TensorProto::from_values("any", &[1], &[i64::MAX]));
    graph.node.extend([
        NodeProto::new("Relu", &["scores"], &["kept"]),
        NodeProto::new("Shape", &["scores"], &["sizes of scores"]),
        NodeProto::new("Less", &["sizes of scores", "any"], &["is less"]),
        NodeProto::new("ReduceMin", &["whole"], &["all"]).with(AttributeProto::int("keepdims", 0)),
        NodeProto::new("Cast", &["is less"], &["whole"])
            .with(AttributeProto::int("to", DataType::Float as i64)),
        NodeProto::new("Mul", &["kept", "all"], &[&output]),
    ]);
    assert_eq!(found(&without), 1);
    let huge = TensorProto::from_values("huge", &[], &[1e30_f32]);
    model.graph.as_mut().unwrap().initializer.push(huge);
    let is_nan =
        [NodeProto::new("IsNaN", &["scores"], &["absent"]), NodeProto::new("Not", &["absent"], &["is"])];
    let is_itself = [NodeProto::new("Equal", &["scores", "scores"], &["is"])];
    let is_less =
        [NodeProto::new("Abs", &["scores"], &["sizes"]), NodeProto::new("Less", &["sizes", "huge"], &["is"])];
    for asks in [&is_nan[..], &is_itself, &is_less] {
        let mut model = model.clone();
        let nodes = &mut model.graph.as_mut().unwrap().node;
        nodes.extend(asks.iter().cloned());
        nodes.push(NodeProto::new("Where", &["is", "scores", "half"], &[&output]));
        assert_eq!(found(&model), 0, "{asks:?}");
        assert_eq!(found(&with_layer_in_function(model)), 0, "in a function, {asks:?}");
    }
    assert_eq!(found(&with_layer_in_function(without)), 1);
}

/// As PyTorch's exporters write attention with a mask, whose weights are NaN where a token may attend to none: what is put in their
/// place weighs tokens that are NaN as well. Not where the tokens are others, or anything else is made of the weights.
#[test]
fn attention_with_a_mask_may_stand_behind_a_layer() {
    let (mut model, output) = with_more_behind();
    let node = NodeProto::new;
    let graph = model.graph.as_mut().unwrap();
    let mask = TensorProto::from_values("mask", &[2, 2], &[0.0_f32, f32::NEG_INFINITY, 0.0, 0.0]);
    let tokens = TensorProto::from_values("other tokens", &[2, 68], &[0.5_f32; 136]);
    let split = TensorProto::from_values("split", &[3], &[-1_i64, 2, 68]);
    let indices = [0_i64, 1].map(|at| TensorProto::from_values(&format!("index {at}"), &[1], &[at]));
    // Behind weights what comes of a NaN is not computed.
    let trained: Vec<f32> = (0..136).map(|index| (index as f32).sin()).collect();
    let trained = TensorProto::from_values("trained", &[2, 68], &trained);
    graph.initializer.extend([mask, tokens, split, trained]);
    graph.initializer.extend(indices);
    graph.output = vec![ValueInfoProto::named(output.clone())];
    graph.node.extend([
        node("Reshape", &["layer", "split"], &["halves"]),
        node("Mul", &["halves", "trained"], &["tokens"]),
        node("Transpose", &["tokens"], &["keys"]).with(AttributeProto::ints("perm", &[0, 2, 1])),
        node("MatMul", &["tokens", "keys"], &["scores"]),
        node("Add", &["scores", "mask"], &["masked"]),
        node("Softmax", &["masked"], &["weights"]).with(AttributeProto::int("axis", -1)),
        node("IsNaN", &["weights"], &["absent"]),
        node("Where", &["absent", "zero", "weights"], &["filled"]),
    ]);
    let found = |behind: &[NodeProto]| {
        let mut model = model.clone();
        model.graph.as_mut().unwrap().node.extend_from_slice(behind);
        let findings = recognize(&model, &Embedded::new()).unwrap();
        findings.layers.iter().filter(|found| found.layer.operator == OperatorKind::IsqrtCov).count()
    };
    let attended = node("MatMul", &["filled", "tokens"], &[&output]);
    assert_eq!(found(std::slice::from_ref(&attended)), 1);
    // The weights themselves may be given as well.
    let mut given = model.clone();
    let graph = given.graph.as_mut().unwrap();
    graph.node.push(attended);
    graph.output.push(ValueInfoProto::named("filled"));
    let findings = recognize(&given, &Embedded::new()).unwrap();
    assert!(findings.layers.iter().all(|found| found.layer.operator == OperatorKind::CovariancePooling));
    let others = node("MatMul", &["filled", "other tokens"], &[&output]);
    assert_eq!(found(&[others]), 0);
    // Each sample attends to the tokens of the first alone, which may be numbers.
    let slice = node("Slice", &["tokens", "index 0", "index 1"], &["first"]);
    assert_eq!(found(&[slice, node("MatMul", &["filled", "first"], &[&output])]), 0);
    let scaled = node("Mul", &["tokens", "half"], &["scaled"]);
    assert_eq!(found(&[scaled, node("MatMul", &["filled", "scaled"], &[&output])]), 1);
    let used = |name: &str| {
        [
            node("MatMul", &["filled", "tokens"], &["attended"]),
            node("ReduceMean", &[name], &["also"]).with(AttributeProto::ints("axes", &[0, 1, 2])),
            node("Add", &["attended", "also"], &[&output]),
        ]
    };
    assert_eq!((found(&used("filled")), found(&used("weights"))), (0, 1));
    let flags = [
        node("Cast", &["absent"], &["flags"]).with(AttributeProto::int("to", DataType::Float as i64)),
        node("MatMul", &["filled", "tokens"], &["attended"]),
        node("ReduceMean", &["flags"], &["also"]).with(AttributeProto::ints("axes", &[0, 1, 2])),
        node("Add", &["attended", "also"], &[&output]),
    ];
    assert_eq!(found(&flags), 0);
}

/// The same with all that makes the value `layer` in a function, and what reads it in a graph of its own.
fn with_layer_in_function(mut model: ModelProto) -> ModelProto {
    let opset_import = model.opset_import.clone();
    let graph = model.graph.as_mut().unwrap();
    let last = graph.node.iter().position(|node| node.output[0] == "layer").unwrap();
    let behind = graph.node.split_off(last + 1);
    let is_read = |tensor: &&TensorProto| {
        graph.node.iter().any(|node| node.input.iter().any(|name| name == tensor.name()))
    };
    let mut node: Vec<NodeProto> = graph.initializer.iter().filter(is_read).cloned().map(constant).collect();
    node.append(&mut graph.node);
    let input = graph.input[0].name().to_owned();
    let branch = |node: Vec<NodeProto>, output: &str| GraphProto {
        node,
        output: vec![ValueInfoProto::named(output)],
        ..GraphProto::default()
    };
    let output = graph.output[0].name().to_owned();
    let branches = [
        ("then_branch", branch(behind, &output)),
        ("else_branch", branch(vec![NodeProto::new("Identity", &["layer"], &["other"])], "other")),
    ];
    let choice = NodeProto::new("If", &["yes"], &[&output]);
    graph.initializer.push(TensorProto::from_values("yes", &[], &[true]));
    graph.node = vec![
        NodeProto::new("Layer", &[&input], &["layer"]).in_domain("own"),
        branches
            .into_iter()
            .fold(choice, |choice, (name, graph)| choice.with(AttributeProto::graph(name, graph))),
    ];
    model.functions.push(FunctionProto {
        name: Some("Layer".to_owned()),
        domain: Some("own".to_owned()),
        input: vec![input],
        output: vec!["layer".to_owned()],
        node,
        opset_import,
        ..FunctionProto::default()
    });
    model.opset_import.push(OperatorSetIdProto::new("own", 1));
    model
}

/// What is compared behind a layer is no reason against it, nor is a number in the place of a NaN that is the operator's.
#[test]
fn what_is_chosen_behind_a_layer_stays_there() {
    let (model, output) = with_more_behind();
    let node = NodeProto::new;
    let to = |element: DataType| AttributeProto::int("to", element as i64);
    let mask = vec![
        node("GreaterOrEqual", &["layer", "zero"], &["is"]),
        node("Cast", &["is"], &[&output]).with(to(DataType::Float)),
    ];
    // As PyTorch's TorchScript exporter writes nan_to_num.
    let numbers = vec![
        node("IsNaN", &["layer"], &["absent"]),
        node("Where", &["absent", "zero", "layer"], &["numbers"]),
        node("IsInf", &["numbers"], &["infinite"]),
        node("Cast", &["infinite"], &["is infinite"]).with(to(DataType::Bool)),
        node("Greater", &["numbers", "zero"], &["more"]),
        node("Cast", &["more"], &["is more"]).with(to(DataType::Bool)),
        node("And", &["is infinite", "is more"], &["is too much"]),
        node("Where", &["is too much", "most", "numbers"], &[&output]),
    ];
    for nodes in [mask, numbers] {
        let mut model = model.clone();
        model.graph.as_mut().unwrap().node.extend(nodes.clone());
        let findings = recognize(&model, &Embedded::new()).unwrap();
        assert_eq!(roots(&findings), [("input", "layer", false)], "{nodes:?}: {:?}", findings.misses);
    }
}

/// A classifier of trees makes of a NaN one of its classes, as any comparison does.
#[test]
fn trees_behind_a_layer_stay_there() {
    let (mut model, output) = with_more_behind();
    let floats = |name: &str, floats: &[f32]| AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(AttributeType::Floats.into()),
        floats: floats.to_vec(),
        ..AttributeProto::default()
    };
    let ints = AttributeProto::ints;
    let features = NodeProto::new("Flatten", &["layer"], &["features"]);
    let trees = NodeProto::new("TreeEnsembleClassifier", &["features"], &[&output, "scores"])
        .in_domain("ai.onnx.ml")
        .with(ints("nodes_treeids", &[0, 0, 0]))
        .with(ints("nodes_nodeids", &[0, 1, 2]))
        .with(ints("nodes_featureids", &[1, 0, 0]))
        .with(floats("nodes_values", &[0.1, 0.0, 0.0]))
        .with(AttributeProto::strings("nodes_modes", &["BRANCH_LEQ", "LEAF", "LEAF"]))
        .with(ints("nodes_truenodeids", &[1, 0, 0]))
        .with(ints("nodes_falsenodeids", &[2, 0, 0]))
        .with(ints("class_treeids", &[0, 0]))
        .with(ints("class_nodeids", &[1, 2]))
        .with(ints("class_ids", &[0, 1]))
        .with(floats("class_weights", &[1.0, 1.0]))
        .with(ints("classlabels_int64s", &[0, 1]));
    model.opset_import.push(OperatorSetIdProto::new("ai.onnx.ml", 3));
    let graph = model.graph.as_mut().unwrap();
    graph.node.extend([features, trees]);
    graph.output = vec![
        ValueInfoProto::of_any_shape(&output, DataType::Int64),
        ValueInfoProto::of_any_shape("scores", DataType::Float),
    ];
    let findings = recognize(&model, &Embedded::new()).unwrap();
    assert_eq!(roots(&findings), [("input", "features", false)], "{:?}", findings.misses);
    assert_eq!(findings.not_evaluated, None);
}
