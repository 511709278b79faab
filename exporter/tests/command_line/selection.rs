//! `--only` and `--skip`, and conversion in several steps.

use isqrt_cov_proto::onnx::AttributeProto;

use super::*;

/// A model with two layers side by side, each with an input and an output of its own: their names begin with these
/// prefixes.
pub fn two_layers_called(folder: &TempDir, prefixes: [&str; 2]) -> PathBuf {
    let mut model = Model::load(graph("layer/official_noDotData_d16_hw7_it5_dyn18_dynbatch")).unwrap();
    let one = model.proto.graph.take().unwrap();
    let mut both = prefixed(&one, prefixes[0]);
    let second = prefixed(&one, prefixes[1]);
    both.node.extend(second.node);
    both.initializer.extend(second.initializer);
    both.input.extend(second.input);
    both.output.extend(second.output);
    both.value_info.extend(second.value_info);
    model.proto.graph = Some(both);
    let path = folder.path().join("two.onnx");
    model.save(&path).unwrap();
    path
}

fn two_layers(folder: &TempDir) -> PathBuf {
    two_layers_called(folder, ["a/", "b/"])
}

fn prefixed(graph: &GraphProto, prefix: &str) -> GraphProto {
    let mut graph = graph.clone();
    let rename = |name: &mut String| {
        if !name.is_empty() {
            name.insert_str(0, prefix);
        }
    };
    for node in &mut graph.node {
        node.input.iter_mut().chain(&mut node.output).chain(&mut node.name).for_each(rename);
    }
    graph.initializer.iter_mut().filter_map(|tensor| tensor.name.as_mut()).for_each(rename);
    let values = graph.input.iter_mut().chain(&mut graph.output).chain(&mut graph.value_info);
    values.filter_map(|value| value.name.as_mut()).for_each(rename);
    graph
}

/// What `key` is of each layer in a list of the answer.
fn each(answer: &Value, list: &str, key: &str) -> Vec<String> {
    let layers = answer[list].as_array().unwrap().iter();
    layers.map(|layer| layer[key].as_str().unwrap().to_owned()).collect()
}

/// How many nodes of the operators' domain a model's graph has.
fn fused(path: &Path) -> usize {
    let graph = Model::load(path).unwrap().proto.graph.unwrap();
    graph.node.iter().filter(|node| node.domain() == "ai.isqrtcov").count()
}

#[test]
fn a_layer_is_named_by_what_it_reads_or_computes_or_by_a_node() {
    let folder = tempfile::tempdir().unwrap();
    let input = two_layers(&folder);
    let found = object(&isqrt_cov(&arguments!["inspect", input, "--json"]));
    let (inputs, outputs) = (each(&found, "layers", "input"), each(&found, "layers", "output"));
    assert_eq!(inputs.len(), 2, "{found}");
    let product = Model::load(&input).unwrap().proto.graph.unwrap();
    let product = product.node.iter().rfind(|node| node.op_type() == "MatMul").unwrap().name().to_owned();
    assert!(product.starts_with("b/"));
    for (option, name, converted) in [
        ("--only", &inputs[1], &outputs[1]),
        ("--only", &outputs[1], &outputs[1]),
        ("--only", &product, &outputs[1]),
        ("--skip", &product, &outputs[0]),
    ] {
        let ran = isqrt_cov(&arguments!["convert", input, "--dry-run", option, name, "--json"]);
        assert_eq!(status(&ran), 0, "{ran:?}");
        let answer = object(&ran);
        assert_eq!(each(&answer, "layers", "output"), [converted.as_str()], "{option} {name}");
        assert_eq!(each(&answer, "skipped", "output").len(), 1);
    }
    let both = arguments!["convert", input, "--dry-run", "--only", inputs[0], "--only", inputs[1], "--json"];
    assert_eq!(each(&object(&isqrt_cov(&both)), "layers", "output"), outputs.as_slice());
    let people = isqrt_cov(&arguments!["convert", input, "--dry-run", "--skip", inputs[0]]);
    assert!(String::from_utf8(people.stdout).unwrap().contains("left as they are: `a/"));
}

#[test]
fn nothing_left_is_a_no_and_an_unknown_name_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let input = two_layers(&folder);
    let output = folder.path().join("out.onnx");
    let found = object(&isqrt_cov(&arguments!["inspect", input, "--json"]));
    let outputs = each(&found, "layers", "output");
    let line =
        arguments!["convert", input, "-o", output, "--skip", outputs[0], "--skip", outputs[1], "--json"];
    let ran = isqrt_cov(&line);
    assert_eq!((status(&ran), &object(&ran)["reason"]), (1, &"all-skipped".into()), "{ran:?}");
    assert_eq!(each(&object(&ran), "skipped", "output"), outputs);
    for option in ["--only", "--skip"] {
        for name in ["no-such-layer", ""] {
            let ran = isqrt_cov(&arguments!["convert", input, "-o", output, option, name]);
            assert_eq!(status(&ran), 2, "{ran:?}");
            let named = outputs.iter().all(|output| error_text(&ran).contains(output.as_str()));
            assert!(named && error_text(&ran).contains(&format!("{option} {name:?}")), "{ran:?}");
        }
    }
    assert_eq!(files(&folder), ["two.onnx"]);
}

#[test]
fn layers_may_be_converted_one_after_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let input = two_layers(&folder);
    let path = |name: &str| folder.path().join(name);
    let (first, second, both) = (path("first.onnx"), path("second.onnx"), path("both.onnx"));
    let done = |line: &[std::ffi::OsString]| {
        let ran = isqrt_cov(line);
        assert_eq!(status(&ran), 0, "{ran:?}");
        object(&ran)
    };
    done(&arguments!["convert", input, "-o", both, "--json"]);
    done(&arguments!["convert", input, "-o", first, "--only", "b/input", "--json"]);
    assert_eq!(fused(&first), 1);
    // What was converted already is neither found again nor in the way.
    let rest = done(&arguments!["convert", first, "-o", second, "--json"]);
    assert_eq!(each(&rest, "layers", "input"), ["a/input"]);
    // New initializers stand in the order in which they came.
    let sorted = |path: &Path| {
        let mut model = Model::load(path).unwrap().proto;
        model.graph.as_mut().unwrap().initializer.sort_by(|one, other| one.name.cmp(&other.name));
        model
    };
    assert!(sorted(&second) == sorted(&both), "in two steps or at once, the models are the same");
}

#[test]
fn a_covariance_of_which_more_is_read_is_found_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = Model::load(graph("layer/stripped_noDotData_d16_hw7_it1_ts17_dynbatch")).unwrap();
    let body = model.proto.graph.as_mut().unwrap();
    let maker = |name: &str| body.node.iter().find(|node| node.output[0] == name).unwrap();
    let sum = body.node.iter().find(|node| node.op_type() == "ReduceSum").unwrap();
    let masked = maker(&sum.input[0]);
    let covariance = masked.input.iter().find(|name| maker(name).op_type() == "MatMul").unwrap().clone();
    // The last sum of its rows' sums.
    let trace = body.node.iter().rfind(|node| node.op_type() == "ReduceSum").unwrap().output[0].clone();
    let turned = AttributeProto::ints("perm", &[0, 2, 1]);
    body.node.push(NodeProto::new("Transpose", &[&covariance], &["turned"]).with(turned));
    // Nobody needs an operator for the trace alone.
    for (name, expected) in [(trace.as_str(), 1), ("turned", 2)] {
        let body = model.proto.graph.as_mut().unwrap();
        body.output.push(ValueInfoProto::of_any_shape(name, DataType::Float));
        let [input, once, twice] =
            ["input", "once", "twice"].map(|file| folder.path().join(format!("{file}{expected}.onnx")));
        model.save(&input).unwrap();
        let converted = isqrt_cov(&arguments!["convert", input, "-o", once, "--json"]);
        assert_eq!(status(&converted), 0, "{converted:?}");
        let outputs = each(&object(&converted), "layers", "output");
        assert_eq!((outputs.len(), fused(&once)), (expected, expected), "{outputs:?}");
        assert_eq!(outputs.contains(&covariance), expected == 2, "{outputs:?}");
        let again = isqrt_cov(&arguments!["convert", once, "-o", twice, "--json"]);
        assert_eq!(object(&again)["reason"], "already-converted", "{again:?}");
        assert!(!twice.exists());
    }
}
