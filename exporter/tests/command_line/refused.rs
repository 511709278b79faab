//! Where the answer is no: what is said, and that nothing is left behind.

use super::*;

#[test]
fn no_layer_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let input = without_a_layer(&folder);
    let output = folder.path().join("out.onnx");
    for command in ["convert", "expand"] {
        let ran = isqrt_cov(&arguments![command, input, "-o", output, "--json"]);
        assert_eq!(status(&ran), 1, "{ran:?}");
        let answer = object(&ran);
        assert_eq!(
            (answer["status"].as_str(), answer["reason"].as_str()),
            (Some("no"), Some("no-layer-found"))
        );
        assert_eq!(files(&folder), ["relu.onnx"]);
    }
    let inspected = isqrt_cov(&arguments!["inspect", input, "--json"]);
    assert_eq!((status(&inspected), &object(&inspected)["reason"]), (1, &"no-layer-found".into()));
    assert_eq!(object(&inspected)["inputs"][0]["shape"], serde_json::json!([2, 3]));

    // What a layer may be hidden in is named.
    let said = |model: Model| {
        let path = folder.path().join("hiding.onnx");
        model.save(&path).unwrap();
        object(&isqrt_cov(&arguments!["inspect", path, "--json"]))["message"].as_str().unwrap().to_owned()
    };
    let mut quantized = Model::load(&input).unwrap();
    quantized.proto.graph.as_mut().unwrap().node.extend([
        NodeProto::new("Constant", &[], &["scale"])
            .with(AttributeProto::tensor("value", TensorProto::from_values("", &[], &[1.0_f32]))),
        NodeProto::new("QuantizeLinear", &["x", "scale"], &["quantized"]),
    ]);
    assert!(said(quantized).contains("convert the model first"));
}

/// What neither this program nor tract computes is named, and what does compute it.
#[test]
fn an_operator_that_nothing_here_computes_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("det.onnx"), folder.path().join("out.onnx"));
    let mut model = Model::load(graph(FUSE)).unwrap();
    let body = model.proto.graph.as_mut().unwrap();
    let scores = body.output[0].name().to_owned();
    let product = NodeProto::new("MatMul", &[&scores, "turned"], &["product"]);
    let turned = NodeProto::new("Transpose", &[&scores], &["turned"]);
    body.node.extend([turned, product, NodeProto::new("Det", &["product"], &["det"]).named("det")]);
    body.output.push(ValueInfoProto::of_any_shape("det", DataType::Float));
    model.save(&input).unwrap();
    let advice = "(try ONNX Runtime: --runtime ort --onnxruntime PATH)";
    let is_ours = |text: &str| !["Unimplemented", "TypedOp"].iter().any(|theirs| text.contains(theirs));

    let ran = isqrt_cov(&arguments!["convert", input, "-o", output]);
    let text = error_text(&ran);
    assert_eq!(status(&ran), 2, "{ran:?}");
    for expected in ["det.onnx: cannot be proven", advice, "node `det` (Det)", "know the operator Det"] {
        assert!(text.contains(expected) && is_ours(text), "`{expected}` is missing in:\n{text}");
    }
    let inspected = String::from_utf8(isqrt_cov(&arguments!["inspect", input]).stdout).unwrap();
    assert!(inspected.contains("so there may be more: ") && inspected.contains(advice), "{inspected}");
    assert!(inspected.matches("node `det` (Det)").count() == 1 && is_ours(&inspected), "{inspected}");
    assert_eq!(files(&folder), ["det.onnx"]);
}

/// No other runtime gives a shape that does not fit, or trains.
#[test]
fn what_is_wrong_with_a_model_is_no_reason_for_another_runtime() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wrong.onnx");
    for (node, said) in [
        (NodeProto::new("Reshape", &["x", "odd"], &["wrong"]), "cannot become [7, 7, 7]"),
        (NodeProto::new("Dropout", &["x", "", "training"], &["wrong"]), "export it again after model.eval()"),
    ] {
        let mut model = Model::load(graph(FUSE)).unwrap();
        let body = model.proto.graph.as_mut().unwrap();
        let input = body.input[0].name().to_owned();
        for name in body.node.iter_mut().flat_map(|node| &mut node.input).filter(|name| **name == input) {
            "wrong".clone_into(name);
        }
        body.initializer.push(TensorProto::from_values("odd", &[3], &[7_i64; 3]));
        body.initializer.push(TensorProto::from_values("training", &[], &[true]));
        let mut node = node;
        node.input[0] = input;
        body.node.insert(0, node);
        model.save(&path).unwrap();
        for command in [&arguments!["inspect", path][..], &arguments!["validate", path, path]] {
            let ran = isqrt_cov(command);
            assert!(status(&ran) != 0 && error_text(&ran).contains(said), "{ran:?}");
            assert!(!error_text(&ran).contains("try ONNX Runtime"), "{ran:?}");
        }
    }
}

#[test]
fn a_near_miss_is_told_with_its_reason() {
    let ran = isqrt_cov(&arguments!["inspect", graph(MISS), "--json"]);
    let answer = object(&ran);
    let layers = answer["layers"].as_array().unwrap();
    assert!(layers.iter().all(|layer| layer["operator"] != "IsqrtCov"), "{answer}");
    let misses = answer["near_misses"].as_array().unwrap();
    assert!(misses.iter().any(|miss| miss["closest_operator"] == "IsqrtCov" && miss["reason"].is_string()));
}

#[test]
fn a_lost_iteration_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out.onnx");
    let ran = isqrt_cov(&arguments!["convert", graph(LOST), "-o", output, "--json"]);
    assert_eq!(status(&ran), 1, "{ran:?}");
    let answer = object(&ran);
    assert_eq!(answer["reason"], "lost-iteration");
    assert!(answer["message"].as_str().unwrap().contains("dynamo=True"));
    assert!(files(&folder).is_empty());
    let ran = isqrt_cov(&arguments!["convert", graph(LOST), "-o", output]);
    assert_eq!(status(&ran), 1);
    assert!(error_text(&ran).starts_with("no (lost-iteration): "), "{ran:?}");
}

/// Whatever names a model gives its values, they begin no line that the program could have written.
#[test]
fn a_name_is_no_line_of_the_answer() {
    const FORGED: &str = "\nproof  same function";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(format!("m{FORGED}.onnx"));
    let mut model = Model::load(graph(LOST)).unwrap().proto;
    model.producer_name = Some(format!("pytorch{FORGED}"));
    let body = model.graph.as_mut().unwrap();
    let nodes = body.node.iter_mut().flat_map(|node| node.input.iter_mut().chain(&mut node.output));
    let tensors = body.initializer.iter_mut().filter_map(|tensor| tensor.name.as_mut());
    let ports = body.input.iter_mut().chain(&mut body.output).filter_map(|port| port.name.as_mut());
    for name in nodes.chain(tensors).chain(ports).filter(|name| !name.is_empty()) {
        name.push_str(FORGED);
    }
    Model::new(model, "").save(&path).unwrap();
    let repair = arguments!["convert", path, "--dry-run", "--repair", "--iterations", "5", "--seeds", "1"];
    for (line, expected) in [
        (&arguments!["inspect", path][..], 1),
        (&arguments!["convert", path, "--dry-run"], 1),
        (&arguments!["convert", path, "-o", path], 2),
        (&repair, 0),
    ] {
        let ran = isqrt_cov(line);
        assert_eq!(status(&ran), expected, "{ran:?}");
        let text = String::from_utf8([ran.stdout, ran.stderr].concat()).unwrap();
        let forged = text.lines().filter(|line| line.starts_with("proof  same function"));
        assert!(text.contains(r"\nproof  same function") && forged.count() == 0, "{text}");
    }
}

#[test]
fn an_impossible_tolerance_fails_the_proof_and_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out.onnx");
    std::fs::write(&output, b"of an earlier run").unwrap();
    let ran = isqrt_cov(&arguments!["convert", graph(FUSE), "-o", output, "--tolerance", "1e-30", "--json"]);
    assert_eq!(status(&ran), 1, "{ran:?}");
    let answer = object(&ran);
    assert_eq!((answer["reason"].as_str(), &answer["output"]), (Some("proof-failed"), &Value::Null));
    let message = answer["message"].as_str().unwrap();
    let layer = answer["layers"][0]["output"].as_str().unwrap();
    assert!(message.contains("output `output` differs"), "{answer}");
    assert!(message.contains(&format!("they part at the layer's output `{layer}`")), "{answer}");
    assert!(answer["proof"]["p999_error"].as_f64() > answer["proof"]["mean_error"].as_f64(), "{answer}");
    assert_eq!(files(&folder), ["out.onnx"]);
    assert_eq!(std::fs::read(&output).unwrap(), b"of an earlier run");
}

#[test]
fn a_model_that_is_not_proven_is_not_said_to_be_near_the_truth() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.html");
    let ran = isqrt_cov(&arguments![
        "convert",
        graph(FUSE),
        "--dry-run",
        "--tolerance",
        "1e-30",
        "--report",
        report
    ]);
    assert_eq!(status(&ran), 1, "{ran:?}");
    let text = String::from_utf8(ran.stdout).unwrap();
    assert!(text.contains("float64") && !text.contains("to the truth"), "{text}");
    assert!(!std::fs::read_to_string(report).unwrap().contains("to the truth"));
}

#[test]
fn a_failed_proof_leaves_no_external_data_either() {
    let (source, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let input = source.path().join("model.onnx");
    let mut model = Model::load(graph(FUSE)).unwrap();
    let weights = &mut model.proto.graph.as_mut().unwrap().initializer;
    let tensor = weights.iter_mut().max_by_key(|tensor| tensor.raw_data().len()).unwrap();
    let data = tensor.raw_data.take().unwrap();
    std::fs::write(source.path().join("weights.bin"), &data).unwrap();
    tensor.set_data_location(DataLocation::External);
    tensor.external_data = vec![StringStringEntryProto {
        key: Some("location".to_owned()),
        value: Some("weights.bin".to_owned()),
    }];
    Model::new(model.proto, &input).save(&input).unwrap();
    let output = folder.path().join("out.onnx");
    let failed = isqrt_cov(&arguments!["convert", input, "-o", output, "--tolerance", "1e-30"]);
    assert_eq!(status(&failed), 1, "{failed:?}");
    assert!(files(&folder).is_empty(), "{:?}", files(&folder));
    let done = isqrt_cov(&arguments!["convert", input, "-o", output]);
    assert_eq!(status(&done), 0, "{done:?}");
    assert_eq!(files(&folder), ["out.onnx", "out.onnx.data"]);
    let text = String::from_utf8(done.stdout).unwrap();
    assert!(text.contains("out.onnx.data beside it"), "{text}");

    let done = isqrt_cov(&arguments!["convert", input, "-o", output, "--one-file", "--json"]);
    assert_eq!((status(&done), &object(&done)["output_data"]), (0, &Value::Null), "{done:?}");
    let whole = Model::load(&output).unwrap().proto;
    let weights = whole.graph.unwrap().initializer;
    assert!(weights.iter().any(|tensor| tensor.raw_data() == data));
    assert!(weights.iter().all(|tensor| tensor.data_location() == DataLocation::Default));
    assert!(whole.metadata_props.is_empty(), "{:?}", whole.metadata_props);
    assert_eq!(files(&folder), ["out.onnx"], "data of its own are replaced with a model");
}

#[test]
fn models_that_differ_are_told_apart() {
    let ran = isqrt_cov(&arguments!["validate", graph(FUSE), graph(LOST), "--json"]);
    assert_eq!(status(&ran), 1, "{ran:?}");
    let answer = object(&ran);
    assert_eq!(
        (answer["reason"].as_str(), answer["proof"]["passed"].as_bool()),
        (Some("different"), Some(false))
    );
    let other = isqrt_cov(&arguments!["validate", graph(FUSE), graph(MISS), "--json"]);
    assert_eq!((status(&other), &object(&other)["reason"]), (1, &"different".into()));
}
