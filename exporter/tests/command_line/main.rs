//! The command line from outside: exit statuses, what stands on standard output, what is left behind.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use isqrt_cov_proto::Model;
use isqrt_cov_proto::onnx::tensor_proto::{DataLocation, DataType};
use isqrt_cov_proto::onnx::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, StringStringEntryProto, TensorProto,
    ValueInfoProto, type_proto,
};
use serde_json::Value;
use tempfile::TempDir;

macro_rules! arguments {
    ($($argument:expr),+ $(,)?) => {
        [$(AsRef::<std::ffi::OsStr>::as_ref(&$argument).to_owned()),+]
    };
}

// Below the macro, which they use.
mod bench;
mod data;
mod faults;
mod inspect;
mod json;
mod lost;
mod open_axes;
mod repair;
mod report;
mod rounding;
mod selection;
mod trained;

/// A graph whose layer can be replaced, with a dynamic batch, and one whose exporter dropped the iteration.
const FUSE: &str = "digits/digits_isqrt_official_noDotData_dyn18_dynbatch";
const LOST: &str = "digits/digits_isqrt_official_noDotData_ts17_dynbatch";
/// A graph that computes something else than the layer, from a covariance.
const MISS: &str = "variants/near_R21_ts17_dynbatch";

fn corpus(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/corpus").join(name)
}

fn graph(name: &str) -> PathBuf {
    corpus(&format!("{name}.onnx"))
}

/// Runs the program with none of the caller's settings.
fn isqrt_cov<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_isqrt-cov"))
        .args(arguments)
        .env_remove("ORT_DYLIB_PATH")
        .env_remove("ISQRT_COV_OP_LIBRARY")
        .output()
        .unwrap()
}

fn status(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("killed: {output:?}"))
}

/// The one JSON object on standard output.
fn object(output: &Output) -> Value {
    let text = std::str::from_utf8(&output.stdout).unwrap();
    assert_eq!(text.lines().count(), 1, "{output:?}");
    let value: Value = serde_json::from_str(text).unwrap();
    assert!(value.is_object());
    value
}

fn error_text(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

fn files(folder: &TempDir) -> Vec<String> {
    let names =
        folder.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

/// A model that holds no covariance: y = max(x, 0).
fn without_a_layer(folder: &TempDir) -> PathBuf {
    let port = |name| ValueInfoProto::tensor(name, DataType::Float, [2.into(), 3.into()]);
    let graph = GraphProto {
        name: Some("relu".to_owned()),
        node: vec![NodeProto::new("Relu", &["x"], &["y"])],
        input: vec![port("x")],
        output: vec![port("y")],
        ..GraphProto::default()
    };
    let model = ModelProto::new(graph, 17);
    let path = folder.path().join("relu.onnx");
    Model::new(model, &path).save(&path).unwrap();
    path
}

#[test]
fn a_model_is_converted_and_proven() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("fused.onnx");
    let data = corpus(&format!("{FUSE}.npz"));
    let ran = isqrt_cov(&arguments!["convert", graph(FUSE), "-o", output, "--inputs", data, "--json"]);
    assert_eq!(status(&ran), 0, "{ran:?}");
    let answer = object(&ran);
    assert_eq!(answer["status"], "done");
    let layers = answer["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 1);
    assert_eq!(layers[0]["operator"], "IsqrtCov");
    assert_eq!(layers[0]["attributes"]["iterations"], 5);
    assert_eq!(layers[0]["attributes"]["vectorization"], "upper");
    let replaced = layers[0]["nodes_replaced"].as_u64().unwrap();
    let nodes = |name: &str| answer[name].as_u64().unwrap();
    assert_eq!(nodes("nodes_before"), 103);
    assert!(replaced > 40 && nodes("nodes_after") <= 103 - replaced + 2, "{answer}");
    assert_eq!(answer["proof"]["passed"], true);
    assert_eq!(answer["proof"]["batches"], serde_json::json!([1, 2, 5]));
    assert!(answer["proof"]["max_error"].as_f64().unwrap() < 1e-5);
    assert!(answer["expected"]["error_after"].as_f64().unwrap() < 1e-5);
    assert_eq!(files(&folder), ["fused.onnx"]);
    let accuracy = &layers[0]["accuracy"];
    for side in ["before", "after"] {
        let error = |name: &str| accuracy[side][name].as_f64().unwrap();
        assert!(
            error("max") < 1e-5 && error("max") >= error("p999") && error("p999") > error("mean"),
            "{accuracy}"
        );
    }
    // Five seeds of two samples, and the eight samples of the user's data.
    assert_eq!(accuracy["samples"], 18);
    assert!(["before", "after", "equal"].map(Value::from).contains(&accuracy["nearer"]), "{accuracy}");

    let again = isqrt_cov(&arguments!["inspect", output, "--json"]);
    assert_eq!(status(&again), 0);
    let fused = &object(&again)["fused"];
    assert_eq!(fused.as_array().map(Vec::len), Some(1), "{fused}");
    assert_eq!(fused[0]["operator"], "IsqrtCov");
    assert_eq!(fused[0]["attributes"], layers[0]["attributes"]);
    assert_eq!(fused[0]["output"], layers[0]["output"]);
    let same = isqrt_cov(&arguments!["validate", graph(FUSE), output, "--json"]);
    assert_eq!((status(&same), object(&same)["proof"]["passed"].as_bool()), (0, Some(true)));
    let twice = folder.path().join("twice.onnx");
    let converted = isqrt_cov(&arguments!["convert", output, "-o", twice, "--json"]);
    assert_eq!((status(&converted), &object(&converted)["reason"]), (1, &"already-converted".into()));
    assert_eq!(&object(&converted)["fused"], fused);
    assert!(object(&converted)["message"].as_str().unwrap().contains("converted already"));

    // Somebody changes the node, and the function stays what it was.
    let mut changed = Model::load(&output).unwrap();
    let node =
        changed.proto.graph.as_mut().unwrap().node.iter_mut().find(|node| node.op_type() == "IsqrtCov");
    let iterations = node.unwrap().attribute.iter_mut().find(|attribute| attribute.name() == "iterations");
    *iterations.unwrap() = AttributeProto::int("iterations", 3);
    let stale = folder.path().join("stale.onnx");
    changed.save(&stale).unwrap();
    let faults = |path: &Path| object(&isqrt_cov(&arguments!["inspect", path, "--json"]))["faults"].clone();
    assert!(faults(&stale)[0].as_str().unwrap().contains("off what the attributes ask for"));
    let other = isqrt_cov(&arguments!["validate", stale, stale, "--json"]);
    assert_eq!((status(&other), &object(&other)["reason"]), (1, &"different".into()));
    let mended = isqrt_cov(&arguments!["convert", stale, "-o", twice, "--json"]);
    assert_eq!((status(&mended), &object(&mended)["layers"]), (0, &serde_json::json!([])), "{mended:?}");
    assert_eq!(faults(&twice), serde_json::json!([]));

    let plain = folder.path().join("plain.onnx");
    let expanded = isqrt_cov(&arguments!["expand", output, "-o", plain, "--json"]);
    assert_eq!(status(&expanded), 0, "{expanded:?}");
    assert_eq!(object(&expanded)["proof"]["passed"], true);
    let inspected = isqrt_cov(&arguments!["inspect", plain, "--json"]);
    assert_eq!(object(&inspected)["fused"], serde_json::json!([]));
    // The body is one more way of writing the layer, and is recognized like any other.
    assert_eq!(object(&inspected)["layers"].as_array().map(Vec::len), Some(1), "{inspected:?}");
}

#[test]
fn people_get_a_table() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("fused.onnx");
    let ran = isqrt_cov(&arguments!["convert", graph(FUSE), "-o", output]);
    assert_eq!(status(&ran), 0, "{ran:?}");
    let text = String::from_utf8(ran.stdout).unwrap();
    for expected in [
        "IsqrtCov",
        "iterations=5",
        "ERROR is how far",
        "NEXT BEST is the",
        "103 before",
        "same function",
        "5 seeds at batch 1, 2 seeds at 2 and 5: 9 runs",
        "float64",
        "to the truth",
        "fused.onnx",
    ] {
        assert!(text.contains(expected), "`{expected}` is missing in:\n{text}");
    }
    assert!(ran.stderr.is_empty(), "nothing disturbs where no terminal looks");
}

#[test]
fn a_dry_run_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("fused.onnx");
    let ran = isqrt_cov(&arguments!["convert", graph(FUSE), "-o", output, "--dry-run", "--json"]);
    assert_eq!(status(&ran), 0, "{ran:?}");
    assert_eq!((&object(&ran)["output"], &object(&ran)["dry_run"]), (&Value::Null, &true.into()));
    assert!(files(&folder).is_empty());
}

#[test]
fn what_is_written_or_would_be_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (output, report) = (folder.path().join("fused.onnx"), folder.path().join("report.json"));
    let told = |line: &[std::ffi::OsString]| {
        let text = String::from_utf8(isqrt_cov(line).stdout).unwrap();
        let told = |name: &str| text.lines().find(|line| line.starts_with(name)).map(str::to_owned);
        (told("written "), told("report "))
    };
    let ends = |line: &Option<String>, with: &Path| {
        line.as_ref().is_some_and(|line| line.ends_with(with.to_str().unwrap()))
    };
    let dry = arguments!["convert", graph(FUSE), "-o", output, "--dry-run", "--seeds", "1"];
    let (written, reported) = told(&dry);
    let would = format!("no model, as --dry-run says; without it, {} would be", output.display());
    assert!(written.is_some_and(|line| line.contains(&would)) && reported.is_none());
    let (written, _) = told(&arguments!["convert", graph(FUSE), "--dry-run", "--seeds", "1"]);
    assert!(written.is_some_and(|line| line.ends_with("no model, as --dry-run says")));
    let done = arguments!["convert", graph(FUSE), "-o", output, "--report", report, "--seeds", "1"];
    let (written, reported) = told(&done);
    assert!(ends(&written, &output) && ends(&reported, &report), "{written:?}, {reported:?}");
    let answer: Value = serde_json::from_str(&std::fs::read_to_string(&report).unwrap()).unwrap();
    assert_eq!((&answer["report"], &answer["dry_run"]), (&report.to_str().into(), &false.into()));
    // The report is written where the answer is no, too.
    let refused = arguments!["convert", graph(LOST), "-o", output, "--report", report];
    let (written, reported) = told(&refused);
    assert!(written.is_none() && ends(&reported, &report), "{written:?}, {reported:?}");
}

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

#[test]
fn broken_files_give_one_clear_line() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out.onnx");
    let whole = std::fs::read(graph(FUSE)).unwrap();
    let mut inputs = vec![("truncated", whole[..whole.len() / 2].to_vec()), ("empty", Vec::new())];
    inputs.push(("text", b"not a model at all, but text".to_vec()));
    for (name, content) in inputs {
        let input = folder.path().join(format!("{name}.onnx"));
        std::fs::write(&input, content).unwrap();
        for command in ["convert", "inspect", "validate", "expand"] {
            let mut line = arguments![command, input].to_vec();
            match command {
                "convert" | "expand" => line.extend(arguments!["-o", output]),
                "validate" => line.extend(arguments![graph(FUSE)]),
                _ => {}
            }
            let ran = isqrt_cov(&line);
            assert_eq!(status(&ran), 2, "{ran:?}");
            let text = error_text(&ran);
            assert!(text.starts_with("error: ") && text.contains(&format!("{name}.onnx")), "{text}");
            assert_eq!(text.lines().count(), 1, "{text}");
            assert!(ran.stdout.is_empty());
            line.extend(arguments!["--json"]);
            let ran = isqrt_cov(&line);
            let answer = object(&ran);
            assert_eq!((status(&ran), answer["status"].as_str()), (2, Some("error")));
            assert!(answer["message"].as_str().unwrap().contains(&format!("{name}.onnx")));
        }
        std::fs::remove_file(input).unwrap();
    }
    assert!(files(&folder).is_empty());
}

#[test]
fn the_input_is_never_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("model.onnx");
    std::fs::copy(graph(FUSE), &input).unwrap();
    let linked = folder.path().join("linked.onnx");
    std::fs::hard_link(&input, &linked).unwrap();
    for output in [&input, &linked] {
        let ran = isqrt_cov(&arguments!["convert", input, "-o", output]);
        assert_eq!(status(&ran), 2, "{ran:?}");
        assert!(error_text(&ran).contains("is also read, as"), "{ran:?}");
    }
    let data = folder.path().join("data.npz");
    std::fs::write(&data, b"the user's own").unwrap();
    let ran = isqrt_cov(&arguments!["convert", input, "-o", data, "--inputs", data]);
    assert!(status(&ran) == 2 && error_text(&ran).contains("is also read, as"), "{ran:?}");
    // Nor is a library, whether an option names it or the environment.
    let named = |command: &str, option: &str, variable: &str| {
        let mut ran = Command::new(env!("CARGO_BIN_EXE_isqrt-cov"));
        ran.args([command.as_ref(), input.as_os_str(), "-o".as_ref(), data.as_os_str()]);
        ran.env_remove("ORT_DYLIB_PATH").env_remove("ISQRT_COV_OP_LIBRARY");
        if option.is_empty() {
            ran.env(variable, &data)
        } else {
            ran.arg(option).arg(&data)
        };
        ran.output().unwrap()
    };
    for command in ["convert", "expand"] {
        for (option, variable) in [
            ("--onnxruntime", ""),
            ("--op-library", ""),
            ("", "ORT_DYLIB_PATH"),
            ("", "ISQRT_COV_OP_LIBRARY"),
        ] {
            let ran = named(command, option, variable);
            assert!(status(&ran) == 2 && error_text(&ran).contains("is also read, as"), "{ran:?}");
        }
    }
    assert_eq!(std::fs::read(&data).unwrap(), b"the user's own");
    assert_eq!(std::fs::read(&input).unwrap(), std::fs::read(graph(FUSE)).unwrap());
    assert_eq!(files(&folder), ["data.npz", "linked.onnx", "model.onnx"]);
}

#[test]
fn bad_usage_is_an_error_in_either_form() {
    let missing = isqrt_cov(&["convert", "model.onnx"]);
    assert_eq!(status(&missing), 2);
    assert!(error_text(&missing).contains("--output"), "{missing:?}");
    // Two paths are what many other commands take.
    for (line, told) in [
        (&["convert", "a.onnx", "b.onnx"][..], true),
        (&["--json", "expand", "a.onnx", "b.onnx"], true),
        (&["validate", "a.onnx", "b.onnx", "c.onnx"], false),
    ] {
        let ran = isqrt_cov(line);
        let text = String::from_utf8([&*ran.stdout, &ran.stderr].concat()).unwrap();
        assert_eq!((status(&ran), text.contains("named by an option: -o b.onnx")), (2, told), "{ran:?}");
    }
    for line in [
        vec!["convert", "model.onnx", "--json"],
        vec!["--json"],
        vec!["--json", "frobnicate"],
        vec!["inspect", "--json", "--runtime", "abacus", "model.onnx"],
        vec!["convert", "model.onnx", "-o", "out.onnx", "--tolerance", "-1", "--json"],
        vec!["convert", "model.onnx", "-o", "out.onnx", "--seeds", "0", "--json"],
    ] {
        let ran = isqrt_cov(&line);
        assert_eq!((status(&ran), &object(&ran)["reason"]), (2, &"usage".into()), "{line:?}");
    }
    let absent = isqrt_cov(&["inspect", "no-such-model.onnx", "--json"]);
    assert_eq!(status(&absent), 2);
    assert!(object(&absent)["message"].as_str().unwrap().contains("no-such-model.onnx"));
    let checkpoint = isqrt_cov(&["convert", "model.pth.tar", "-o", "out.onnx"]);
    assert_eq!(status(&checkpoint), 2);
    assert!(error_text(&checkpoint).contains("model.pth.tar: cannot be read"), "{checkpoint:?}");
    let mixed = isqrt_cov(&arguments!["inspect", graph(FUSE), "--runtime", "tract", "--op-library", "x.so"]);
    assert_eq!(status(&mixed), 2);
    assert!(error_text(&mixed).contains("for `--runtime ort`"), "{mixed:?}");
}

#[test]
fn a_runtime_that_is_not_there_is_named() {
    let ran = isqrt_cov(&arguments!["inspect", graph(FUSE), "--runtime", "ort"]);
    assert_eq!(status(&ran), 2);
    assert!(error_text(&ran).contains("--onnxruntime or ORT_DYLIB_PATH"), "{ran:?}");
    let ran = isqrt_cov(&arguments!["inspect", graph(FUSE), "--onnxruntime", "/nowhere/libonnxruntime.so"]);
    assert_eq!(status(&ran), 2);
    assert!(error_text(&ran).contains("/nowhere/libonnxruntime.so: no such file"), "{ran:?}");
    let ran = isqrt_cov(&arguments![
        "convert",
        graph(FUSE),
        "--dry-run",
        "--no-function",
        "--onnxruntime",
        "/nowhere/libonnxruntime.so",
        "--op-library",
        "/nowhere/libisqrt_cov_op.so",
        "--json"
    ]);
    assert_eq!(status(&ran), 2);
    let doctor = isqrt_cov(&["doctor", "--onnxruntime", "/nowhere/libonnxruntime.so", "--json"]);
    assert_eq!((status(&doctor), &object(&doctor)["reason"]), (1, &"not-working".into()));
}

#[test]
fn the_doctor_checks_tract_where_there_is_nothing_else() {
    let ran = isqrt_cov(&["doctor", "--json"]);
    assert_eq!(status(&ran), 0, "{ran:?}");
    let answer = object(&ran);
    assert_eq!((&answer["checks"]["tract"]["works"], &answer["onnxruntime"]), (&true.into(), &Value::Null));
    assert!(!answer["checks"]["tract"]["result"].as_str().unwrap().contains("tract"), "{answer}");
    // A library is looked for though nothing loads it, whatever names it. A variable that is empty names nothing.
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("op.so");
    std::fs::write(&library, b"not looked into").unwrap();
    for by_option in [true, false] {
        for (path, expected, said) in [
            (Path::new("/nowhere/op.so"), 1, "/nowhere/op.so: there is no such file"),
            (&library, 0, "op.so: not checked: there is no ONNX Runtime"),
        ] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_isqrt-cov"));
            command.args(["doctor", "--json"]).env("ORT_DYLIB_PATH", "").env_remove("ISQRT_COV_OP_LIBRARY");
            if by_option {
                command.arg("--op-library").arg(path);
            } else {
                command.env("ISQRT_COV_OP_LIBRARY", path);
            }
            let ran = command.output().unwrap();
            assert_eq!(status(&ran), expected, "{ran:?}");
            let check = &object(&ran)["checks"]["operator library"];
            assert!(check["result"].as_str().unwrap().contains(said), "{ran:?}");
            let works = if expected == 0 { Value::Null } else { false.into() };
            assert_eq!((&check["works"], &object(&ran)["checks"]["ONNX Runtime"]), (&works, &Value::Null));
        }
    }
    assert_eq!(answer["checks"]["CUDA"]["works"].is_null(), answer["gpu"].is_null());
    // Where there is a GPU it has a name; elsewhere it is said why none is used.
    let said = answer["checks"]["CUDA"]["result"].as_str().unwrap();
    match answer["gpu"]["name"].as_str() {
        Some(name) => assert!(said.starts_with(name) && said.contains("load"), "{said}"),
        None => assert!(said.starts_with("not used: "), "{said}"),
    }
}

#[test]
fn every_command_explains_itself() {
    for command in ["convert", "inspect", "validate", "expand", "bench", "doctor", "operators", "completions"]
    {
        let ran = isqrt_cov(&[command, "--help"]);
        assert_eq!(status(&ran), 0);
        let text = String::from_utf8(ran.stdout).unwrap();
        assert!(text.contains("Examples:") && text.contains(&format!("isqrt-cov {command}")), "{text}");
        assert!(text.contains("--json"), "{text}");
    }
    // What a command cannot do without stands in its first lines.
    let convert = isqrt_cov(&["help", "convert"]);
    assert!(String::from_utf8(convert.stdout).unwrap().contains("<INPUT> --output <OUTPUT>\n"));
    let inspect = isqrt_cov(&["inspect", "--help"]);
    assert!(String::from_utf8(inspect.stdout).unwrap().contains("isqrt-cov inspect model.onnx --inputs"));
    let ran = isqrt_cov(&["--help"]);
    assert!(String::from_utf8(ran.stdout).unwrap().contains("Exit status"));
    let version = isqrt_cov(&["--version"]);
    assert_eq!(version.stdout, format!("isqrt-cov {}\n", env!("CARGO_PKG_VERSION")).as_bytes());
    let page = String::from_utf8(isqrt_cov(&["operators"]).stdout).unwrap();
    assert!(
        page.contains("# Operators") && page.contains("IsqrtCov") && page.contains("off_diagonal_scale"),
        "{page}"
    );
    let script = isqrt_cov(&["completions", "bash"]);
    assert!(String::from_utf8(script.stdout).unwrap().contains("complete -F"));
}

/// Models that cannot be compared do not differ.
#[test]
fn a_candidate_that_does_not_run_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.onnx");
    let mut model = Model::load(graph(FUSE)).unwrap();
    let nodes = &mut model.proto.graph.as_mut().unwrap().node;
    nodes.iter_mut().find(|node| node.op_type() == "Relu").unwrap().op_type = Some("Rellu".to_owned());
    std::fs::write(&path, prost::Message::encode_to_vec(&model.proto)).unwrap();
    let ran = isqrt_cov(&arguments!["validate", graph(FUSE), path]);
    assert_eq!(status(&ran), 2, "{ran:?}");
    assert!(
        String::from_utf8_lossy(&ran.stderr).contains("other.onnx: cannot be compared: the candidate"),
        "{ran:?}"
    );
}

/// Of several files, and of one in a script, an error says which it is about, and everything once.
#[test]
fn errors_name_their_file_once() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    let model = |name: &str, change: &dyn Fn(&mut GraphProto)| {
        let mut model = Model::load(corpus("../models/iterations_of_zero.onnx")).unwrap().proto;
        change(model.graph.as_mut().unwrap());
        Model::new(model, "").save(place(name)).unwrap();
    };
    model("none.onnx", &|_| ());
    model("good.onnx", &|graph| graph.node[0].attribute.clear());
    model("text.onnx", &|graph| {
        graph.node[0].attribute.clear();
        let port = graph.input[0].r#type.as_mut().unwrap().value.as_mut().unwrap();
        let type_proto::Value::TensorType(tensor) = port else { panic!("{port:?}") };
        tensor.elem_type = Some(DataType::String.into());
    });
    let [good, none, text] = ["good.onnx", "none.onnx", "text.onnx"].map(place);
    let has_type = "has element type string, 8 (as onnx.proto numbers them)";
    for (line, file, said) in [
        (
            &arguments!["expand", none, "-o", place("out.onnx")][..],
            "none.onnx",
            "`iterations` is 0; expected",
        ),
        (&arguments!["validate", good, none], "none.onnx", "`iterations` is 0; expected"),
        (&arguments!["validate", text, text], "text.onnx", has_type),
        (&arguments!["validate", good, text], "text.onnx", has_type),
        (&arguments!["inspect", text], "text.onnx", has_type),
        (&arguments!["convert", text, "--dry-run"], "text.onnx", has_type),
        (&arguments!["expand", text, "-o", place("out.onnx")], "text.onnx", has_type),
    ] {
        let ran = isqrt_cov(line);
        assert_eq!(status(&ran), 2, "{ran:?}");
        let text = error_text(&ran);
        assert!(text.lines().next().unwrap().contains(&format!("{file}: cannot be ")), "{text}");
        assert_eq!(text.matches(said).count(), 1, "{text}");
    }
}

/// A model under a checkpoint's name would not be read again.
#[test]
fn no_model_is_written_as_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("model.pth");
    let ran = isqrt_cov(&arguments!["convert", graph(FUSE), "-o", output]);
    assert_eq!(status(&ran), 2, "{ran:?}");
    assert!(
        String::from_utf8_lossy(&ran.stderr).contains("name a file with -o that ends in .onnx"),
        "{ran:?}"
    );
    assert!(!output.exists());
}

/// What a file is that is not what it was taken for.
#[test]
fn other_files_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let (archive, named, index) =
        (folder.path().join("data.npz"), folder.path().join("model.pth"), folder.path().join("i.json"));
    std::fs::write(&archive, b"").unwrap();
    std::fs::copy(graph(FUSE), &named).unwrap();
    std::fs::write(&index, br#"{"metadata": {}, "weight_map": {"w": "w.bin"}}"#).unwrap();
    std::fs::write(folder.path().join("w.bin"), b"PK\x03\x04 and so on").unwrap();
    for (line, said) in [
        (arguments!["bench", archive], "holds arrays, not a model"),
        (arguments!["inspect", named], "begins as an ONNX model does"),
        (arguments!["inspect", index], "`w.bin` is a file of torch.save; expected safetensors"),
    ] {
        let ran = isqrt_cov(&line);
        assert_eq!(status(&ran), 2, "{ran:?}");
        assert!(String::from_utf8_lossy(&ran.stderr).contains(said), "{ran:?}");
    }
}

/// Bash completes what stands behind a command, too: options, and files where the script offers nothing.
#[test]
fn bash_completes_options_and_files() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("completion");
    std::fs::write(&script, isqrt_cov(&["completions", "bash"]).stdout).unwrap();
    let ask = "source \"$1\"; shift; COMP_WORDS=(isqrt-cov \"$@\"); COMP_CWORD=$#; \
               _isqrt__cov isqrt-cov \"${@: -1}\" \"${COMP_WORDS[COMP_CWORD - 1]}\"; echo \"${COMPREPLY[@]}\"; \
               complete -p isqrt-cov | grep -c -- '-o default'";
    for (words, offered) in [
        (&["convert", "--tri"][..], "--triangle"),
        (&["convert", ""], ""),
        (&["convert", "model.onnx", ""], ""),
        (&["bench", "model.onnx", "fu"], ""),
        (&["convert", "model.onnx", "--triangle", "upper_"], "upper_column_major"),
        (&["completions", "f"], "fish"),
        (&["he"], "help"),
    ] {
        let asked = Command::new("bash").args(["-c", ask, "bash"]).arg(&script).args(words).output();
        let Ok(asked) = asked else { return };
        assert_eq!(String::from_utf8_lossy(&asked.stdout), format!("{offered}\n1\n"), "{words:?}: {asked:?}");
    }
}
