//! `--repair`: layers whose iteration the exporter dropped.

use isqrt_cov_proto::TensorData;
use ndarray::{ArrayD, IxDyn};
use ndarray_npy::{NpzWriter, ReadNpyExt};

use super::*;

/// The digits' test images with what the model should say of them.
fn digits(folder: &TempDir) -> PathBuf {
    let array = |name: &str| std::fs::File::open(corpus(&format!("digits/test_{name}.npy"))).unwrap();
    let path = folder.path().join("digits.npz");
    let mut archive = NpzWriter::new(std::fs::File::create(&path).unwrap());
    archive.add_array("input", &ArrayD::<f32>::read_npy(array("images")).unwrap()).unwrap();
    archive.add_array("expected", &ArrayD::<f32>::read_npy(array("logits")).unwrap()).unwrap();
    archive.add_array("labels", &ArrayD::<i64>::read_npy(array("labels")).unwrap()).unwrap();
    archive.finish().unwrap();
    path
}

/// The same graph with what makes its lost layer, from `input` to `output`, as a function.
fn outlined(name: &str, input: &str, output: &str) -> Model {
    let mut model = Model::load(graph(name)).unwrap();
    let graph = model.proto.graph.as_mut().unwrap();
    let (mut wanted, mut inside) = (vec![output.to_owned()], Vec::new());
    while let Some(value) = wanted.pop() {
        let Some(at) = graph.node.iter().position(|node| node.output.contains(&value)) else { continue };
        if value != input && !inside.contains(&at) {
            inside.push(at);
            wanted.extend(graph.node[at].input.iter().cloned());
        }
    }
    let constants = graph.initializer.iter().map(|tensor| {
        NodeProto::new("Constant", &[], &[tensor.name()])
            .with(AttributeProto::tensor("value", TensorProto { name: None, ..tensor.clone() }))
    });
    let nodes = graph.node.iter().enumerate();
    let function = FunctionProto {
        name: Some("Pool".to_owned()),
        domain: Some("blocks".to_owned()),
        input: vec![input.to_owned()],
        output: vec![output.to_owned()],
        node: constants
            .chain(nodes.filter(|(at, _)| inside.contains(at)).map(|(_, node)| node.clone()))
            .collect(),
        opset_import: model.proto.opset_import.clone(),
        ..FunctionProto::default()
    };
    // What else reads a value of the layer makes it again.
    let maker = graph.node.iter().position(|node| node.output.iter().any(|made| made == output)).unwrap();
    graph.node[maker] = NodeProto::new("Pool", &[input], &[output]).in_domain("blocks");
    model.proto = ModelProto { functions: vec![function], ..model.proto.importing("blocks", 1) };
    model
}

#[test]
fn repaired_digits_are_all_read() {
    let folder = tempfile::tempdir().unwrap();
    let (data, output) = (digits(&folder), folder.path().join("repaired.onnx"));
    let inspected = object(&isqrt_cov(&arguments!["inspect", graph(LOST), "--json"]));
    let lost = |end: &str| inspected["lost_iterations"][0][end].as_str().unwrap().to_owned();
    let function = folder.path().join("function.onnx");
    outlined(LOST, &lost("input"), &lost("output")).save(&function).unwrap();
    for broken in [
        graph(LOST),
        graph("digits/digits_isqrt_official_ts11_b8"),
        graph("digits/digits_isqrt_official_ts17_b8"),
        function,
    ] {
        let run = isqrt_cov(&arguments![
            "convert",
            broken,
            "-o",
            output,
            "--json",
            "--repair",
            "--iterations",
            "5",
            "--expected",
            data
        ]);
        let answer = object(&run);
        assert_eq!(status(&run), 0, "{broken:?}: {answer}");
        assert_eq!(answer["accuracy"]["correct_after"], 360, "{broken:?}");
        assert!(answer["accuracy"]["correct_before"].as_u64().unwrap() < 60, "{broken:?}");
        assert!(answer["expected"]["error_after"].as_f64().unwrap() < 1e-5, "{broken:?}: {answer}");
        assert_eq!(answer["repaired"][0]["assumed"][0], "iterations");
        assert_eq!(answer["layers"][0]["operator"], "IsqrtCov");
        let layer = &answer["layers"][0];
        // What is in a function and not read there before cannot be measured.
        let error = layer["accuracy"]["after"]["max"].as_f64();
        assert!(error.map_or(!layer["within"].is_null(), |error| error < 1e-5), "{broken:?}: {answer}");
    }
}

#[test]
fn a_repair_that_the_data_contradict_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (data, output) = (digits(&folder), folder.path().join("repaired.onnx"));
    for wrong in [
        ["--iterations", "3", "--triangle", "upper"],
        ["--iterations", "5", "--triangle", "upper_column_major"],
    ] {
        let mut line =
            arguments!["convert", graph(LOST), "-o", output, "--json", "--repair", "--expected", data]
                .to_vec();
        line.extend(arguments![wrong[0], wrong[1], wrong[2], wrong[3]]);
        let run = isqrt_cov(&line);
        assert_eq!((status(&run), &object(&run)["reason"]), (1, &"expected-differs".into()), "{wrong:?}");
        assert!(!output.exists());
    }
}

/// A graph with all that is float32 in it as float64.
fn in_float64(name: &str) -> Model {
    let (float, double) = (i32::from(DataType::Float), i32::from(DataType::Double));
    let widen = |tensor: &mut TensorProto| {
        if tensor.data_type == Some(float) {
            let dims: Vec<usize> = tensor.dims.iter().map(|&dim| dim as usize).collect();
            let values = TensorData::inline(tensor).unwrap().to_f64().unwrap();
            *tensor = TensorProto::from_values(tensor.name(), &dims, &values);
        }
    };
    let mut model = Model::load(graph(name)).unwrap();
    let graph = model.proto.graph.as_mut().unwrap();
    graph.initializer.iter_mut().for_each(widen);
    for attribute in graph.node.iter_mut().flat_map(|node| &mut node.attribute) {
        attribute.t.as_deref_mut().into_iter().for_each(widen);
        if attribute.name() == "to" && attribute.i == Some(float.into()) {
            attribute.i = Some(double.into());
        }
    }
    for value in graph.input.iter_mut().chain(&mut graph.output).chain(&mut graph.value_info) {
        let kind = value.r#type.as_mut().and_then(|kind| kind.value.as_mut());
        if let Some(type_proto::Value::TensorType(tensor)) = kind
            && tensor.elem_type == Some(float)
        {
            tensor.elem_type = Some(double);
        }
    }
    model
}

/// Outputs are known in float32, also those of a model in float64.
#[test]
fn a_repair_in_float64_gives_what_is_expected_in_float32() {
    let folder = tempfile::tempdir().unwrap();
    let (data, output) = (digits(&folder), folder.path().join("repaired.onnx"));
    let broken = folder.path().join("float64.onnx");
    in_float64(LOST).save(&broken).unwrap();
    let repair = |options: &[&str]| {
        let line =
            arguments!["convert", broken, "-o", output, "--json", "--repair", "--expected", data].to_vec();
        let run = isqrt_cov(&line.into_iter().chain(options.iter().map(Into::into)).collect::<Vec<_>>());
        (status(&run), object(&run))
    };
    let (refused, answer) = repair(&["--iterations", "3"]);
    assert_eq!((refused, &answer["reason"]), (1, &"expected-differs".into()), "{answer}");
    let message = answer["message"].as_str().unwrap();
    assert!(message.contains("(at most 1e-4 counts as equal)"), "{message}");
    assert!(message.contains("trained with others than K = 3 and the triangle row-major"), "{message}");
    let (done, answer) = repair(&["--iterations", "5"]);
    assert_eq!((done, &answer["layers"][0]["element_type"]), (0, &"double".into()), "{answer}");
    let error = answer["expected"]["error_after"].as_f64().unwrap();
    assert!(error > 1e-9 && error < 1e-5, "{answer}");
    let (refused, answer) = repair(&["--iterations", "5", "--tolerance", "1e-8"]);
    assert_eq!((refused, &answer["reason"]), (1, &"expected-differs".into()), "{answer}");
}

/// Both graphs side by side, the values of the second under names of their own.
fn beside(one: &str, other: &str) -> Model {
    let mut model = Model::load(graph(one)).unwrap();
    let mut second = Model::load(graph(other)).unwrap().proto.graph.unwrap();
    let rename = |name: &mut String| {
        if !name.is_empty() {
            name.insert_str(0, "b/");
        }
    };
    for node in &mut second.node {
        node.input.iter_mut().chain(&mut node.output).chain(&mut node.name).for_each(rename);
    }
    second.initializer.iter_mut().filter_map(|tensor| tensor.name.as_mut()).for_each(rename);
    second
        .input
        .iter_mut()
        .chain(&mut second.output)
        .filter_map(|value| value.name.as_mut())
        .for_each(rename);
    let first = model.proto.graph.as_mut().unwrap();
    first.node.append(&mut second.node);
    first.initializer.append(&mut second.initializer);
    first.input.append(&mut second.input);
    first.output.append(&mut second.output);
    model
}

/// Repairing one layer makes nothing right where another stays broken.
#[test]
fn a_lost_layer_is_not_left_beside_others() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("both.onnx"), folder.path().join("repaired.onnx"));
    let model = beside("digits/digits_isqrt_stripped_noDotData_ts17_dynbatch", LOST);
    std::fs::write(&input, prost::Message::encode_to_vec(&model.proto)).unwrap();
    let line = arguments!["convert", input, "-o", output, "--json", "--repair", "--iterations", "5"];
    let layers = object(&isqrt_cov(&line))["layers"].clone();
    let (sound, lost): (Vec<_>, Vec<_>) = layers
        .as_array()
        .unwrap()
        .iter()
        .partition(|layer| !layer["output"].as_str().unwrap().starts_with("b/"));
    assert_eq!((sound.len(), lost.len()), (1, 1), "{layers}");
    std::fs::remove_file(&output).unwrap();
    for (option, layer) in [("--only", sound[0]), ("--skip", lost[0])] {
        let mut line = line.to_vec();
        line.extend(arguments![option, layer["output"].as_str().unwrap()]);
        let answer = object(&isqrt_cov(&line));
        assert_eq!(answer["reason"], "lost-iteration", "{answer}");
        assert!(!output.exists());
    }
}

/// Every broken graph of the corpus gives what its PyTorch model gave once it is told the number of steps and the order.
#[test]
fn every_broken_graph_is_repaired() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("repaired.onnx");
    let mut repaired = 0;
    for folder in ["", "own"] {
        let base = corpus(folder);
        let cases = std::fs::read_to_string(base.join("cases.json")).unwrap();
        let cases: Vec<Value> = serde_json::from_str(&cases).unwrap();
        let is_broken = |case: &&Value| case["held_out"] != true && case["expect"] == "lost-iteration";
        for case in cases.iter().filter(is_broken) {
            let name = case["model"].as_str().unwrap();
            if name.contains("gsop") {
                // No input reaches anything in this one: nothing is left to repair.
                continue;
            }
            let attributes = &case["operators"][0]["attributes"];
            let steps =
                if folder.is_empty() { &case["parameters"]["iterN"] } else { &attributes["iterations"] };
            let column_major =
                name.contains("colmajor") || attributes["vectorization"] == "upper_column_major";
            let order = if column_major { "upper_column_major" } else { "upper" };
            let data = base.join(case["tensors"].as_str().unwrap());
            let run = isqrt_cov(&arguments![
                "convert",
                base.join(name),
                "-o",
                output,
                "--json",
                "--repair",
                "--iterations",
                steps.to_string(),
                "--triangle",
                order,
                "--expected",
                data
            ]);
            let answer = object(&run);
            assert_eq!(status(&run), 0, "{name}: {answer}");
            repaired += 1;
        }
    }
    assert!(repaired >= 17, "{repaired}");
}

#[test]
fn the_options_of_a_repair_belong_together() {
    for line in [&["--repair"][..], &["--iterations", "5"], &["--triangle", "upper"]] {
        let mut arguments = arguments!["convert", graph(LOST), "--dry-run"].to_vec();
        arguments.extend(line.iter().map(|argument| (*argument).into()));
        assert_eq!(status(&isqrt_cov(&arguments)), 2, "{line:?}");
    }
    let array = ArrayD::<f32>::zeros(IxDyn(&[1, 1, 8, 8]));
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("no_outputs.npz");
    let mut archive = NpzWriter::new(std::fs::File::create(&data).unwrap());
    archive.add_array("input", &array).unwrap();
    archive.finish().unwrap();
    let run = isqrt_cov(&arguments![
        "convert",
        graph(LOST),
        "--dry-run",
        "--repair",
        "--iterations",
        "5",
        "--expected",
        data
    ]);
    assert_eq!(status(&run), 2);
    assert!(error_text(&run).contains("has no array `expected`"), "{}", error_text(&run));
}

/// A norm behind the triangle has nothing to do with the layer, though it makes of a constant another one.
#[test]
fn what_stands_behind_a_lost_layer_stays() {
    let folder = tempfile::tempdir().unwrap();
    let [broken, output] = ["broken.onnx", "repaired.onnx"].map(|name| folder.path().join(name));
    let mut model = Model::load(graph(LOST)).unwrap();
    let graph = model.proto.graph.as_mut().unwrap();
    let head = graph.node.len() - 1;
    let given = std::mem::replace(&mut graph.node[head].input[0], "halved".to_owned());
    let half = TensorProto::from_values("half", &[], &[0.5_f32]);
    graph.initializer.push(half);
    graph.node.insert(head, NodeProto::new("Mul", &[&given, "half"], &["halved"]));
    model.save(&broken).unwrap();
    let line = arguments!["convert", broken, "-o", output, "--json", "--repair", "--iterations", "5"];
    let ran = isqrt_cov(&line);
    let answer = object(&ran);
    assert_eq!(status(&ran), 0, "{answer}");
    let repaired = Model::load(&output).unwrap();
    let nodes = &repaired.proto.graph.as_ref().unwrap().node;
    let halving: Vec<&NodeProto> = nodes.iter().filter(|node| node.is("Mul")).collect();
    assert!(matches!(halving[..], [node] if node.output[0] == "halved"), "{nodes:#?}");
    assert_eq!(nodes.iter().filter(|node| node.domain() == "ai.isqrtcov").count(), 1);
}
