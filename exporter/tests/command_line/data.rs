//! What the user's data show and decide, and what is said of them.

use super::*;

#[test]
fn accuracy_is_told_before_and_after() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("fused.onnx");
    let digits = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/digits");
    let (model, data) = (digits.join("digits.onnx"), digits.join("test.npz"));
    let ran = isqrt_cov(&arguments!["convert", model, "-o", output, "--inputs", data, "--json"]);
    assert_eq!(status(&ran), 0, "{ran:?}");
    let accuracy = &object(&ran)["accuracy"];
    assert_eq!(accuracy["samples"], 360);
    assert!(accuracy["before"].as_f64().unwrap() > 0.98, "{accuracy}");
    assert_eq!(accuracy["before"], accuracy["after"]);
    assert_eq!(object(&ran)["proof"]["batches"], serde_json::json!([1, 2, 5, 32]));
}

/// What the user knows to be right is reported, or decides, as the user says.
#[test]
fn outputs_that_a_graph_does_not_give_are_told_or_refused() {
    use ndarray_npy::{NpzReader, NpzWriter};

    let folder = tempfile::tempdir().unwrap();
    let (right, wrong) = (corpus(&format!("{FUSE}.npz")), folder.path().join("wrong.npz"));
    let mut arrays = NpzReader::new(std::fs::File::open(&right).unwrap()).unwrap();
    let mut array = |name: &str| -> ndarray::ArrayD<f32> { arrays.by_name(name).unwrap() };
    let mut archive = NpzWriter::new(std::fs::File::create(&wrong).unwrap());
    archive.add_array("input", &array("input")).unwrap();
    archive.add_array("expected", &array("expected").mapv(|value| 1.5 * value)).unwrap();
    archive.finish().unwrap();
    let output = folder.path().join("out.onnx");
    let convert = |option: &str, data: &Path| {
        let ran = isqrt_cov(&arguments!["convert", graph(FUSE), "-o", output, option, data, "--json"]);
        let written = output.exists();
        let _ = std::fs::remove_file(&output);
        (status(&ran), written, object(&ran))
    };
    let is_told =
        |answer: &Value| answer["proof"]["notes"].to_string().contains("3.3e-1 away from those expected");
    let (status, written, answer) = convert("--inputs", &wrong);
    assert!(status == 0 && written && is_told(&answer), "{answer}");
    let (status, written, answer) = convert("--expected", &wrong);
    assert_eq!((status, written, &answer["reason"]), (1, false, &"expected-differs".into()), "{answer}");
    assert!(answer["message"].as_str().unwrap().contains("the original's 3.3e-1"), "{answer}");
    for option in ["--inputs", "--expected"] {
        let (status, written, answer) = convert(option, &right);
        assert!(status == 0 && written && !is_told(&answer), "{option}: {answer}");
    }
    let (status, _, answer) = convert("--expected", &corpus("digits/test_images.npy"));
    let message = answer["message"].as_str().unwrap();
    assert!(status == 2 && message.contains("has no array `expected`"), "{answer}");
}

#[test]
fn data_is_cut_to_a_fixed_batch() {
    // 360 images do not fill the last batch of a model that takes 7 at once.
    let folder = tempfile::tempdir().unwrap();
    let digits = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/digits");
    let mut model = Model::load(digits.join("digits.onnx")).unwrap();
    let graph = model.proto.graph.as_mut().unwrap();
    for value in graph.input.iter_mut().chain(&mut graph.output) {
        let Some(isqrt_cov_proto::onnx::type_proto::Value::TensorType(tensor)) =
            value.r#type.as_mut().and_then(|kind| kind.value.as_mut())
        else {
            panic!("a tensor")
        };
        tensor.shape.as_mut().unwrap().dim[0] = 7.into();
    }
    let fixed = folder.path().join("fixed.onnx");
    model.save(&fixed).unwrap();
    let data = digits.join("test.npz");
    let ran =
        isqrt_cov(&arguments!["validate", fixed, digits.join("digits.onnx"), "--inputs", data, "--json"]);
    assert_eq!(status(&ran), 0, "{ran:?}");
    let answer = object(&ran);
    assert_eq!(answer["proof"]["batches"], serde_json::json!([7]));
    assert_eq!(answer["accuracy"]["samples"], 360);
    assert!(answer["accuracy"]["before"].as_f64().unwrap() > 0.98, "{answer}");
    assert!(answer["expected"]["error_before"].as_f64().unwrap() < 1e-5, "{answer}");
}

#[test]
fn data_that_does_not_fit_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out.onnx");
    let data = corpus(&format!("{MISS}.npz"));
    let ran = isqrt_cov(&arguments!["convert", graph(FUSE), "-o", output, "--inputs", data]);
    assert_eq!(status(&ran), 2, "{ran:?}");
    assert!(
        error_text(&ran).contains("array `input`") && error_text(&ran).contains("[batch, 1, 8, 8]"),
        "{ran:?}"
    );
    let ran = isqrt_cov(&arguments!["convert", graph(FUSE), "-o", output, "--inputs", graph(FUSE)]);
    assert_eq!(status(&ran), 2, "{ran:?}");
    assert!(files(&folder).is_empty());
}

/// An exporter that was told of an open batch may have written down the one that it traced, in the reshaping say.
#[test]
fn a_batch_that_the_model_holds_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let (path, output) = (folder.path().join("held.onnx"), folder.path().join("fused.onnx"));
    let mut model = Model::load(graph(FUSE)).unwrap();
    let inner = model.proto.graph.as_mut().unwrap();
    let input = inner.input[0].name().to_owned();
    for name in inner.node.iter_mut().flat_map(|node| &mut node.input).filter(|name| **name == input) {
        "held".clone_into(name);
    }
    inner.initializer.push(TensorProto::from_values("traced", &[4], &[4_i64, 1, 8, 8]));
    inner.node.insert(0, NodeProto::new("Reshape", &[&input, "traced"], &["held"]));
    model.save(&path).unwrap();
    let data = corpus(&format!("{FUSE}.npz"));
    for options in [&arguments!["--seeds", "2"][..], &arguments!["--inputs", data]] {
        let line = arguments!["convert", path, "-o", output, "--json"];
        let ran = isqrt_cov(&[&line[..], options].concat());
        let answer = object(&ran);
        assert_eq!((status(&ran), &answer["proof"]["batches"]), (0, &serde_json::json!([4])), "{answer}");
        let note = answer["proof"]["notes"][0].as_str().unwrap();
        assert!(note.contains("runs with 4 only"), "{note}");
    }
}

/// What overflows in both models is equal, and shows nothing.
#[test]
fn samples_that_prove_little_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data.npy");
    let mut images =
        ndarray::Array4::<f32>::from_shape_fn((3, 1, 8, 8), |(n, _, i, j)| (7 * n + i * j) as f32);
    images[[1, 0, 2, 2]] = 1e30;
    ndarray_npy::write_npy(&data, &images).unwrap();
    let line = arguments!["validate", graph(FUSE), graph(FUSE), "--inputs", data];
    let text = String::from_utf8(isqrt_cov(&line).stdout).unwrap();
    for expected in [
        "5 seeds at batch 1, 2 seeds at 2 and 5, 3 samples: 11 runs",
        "1 of the 3 samples prove little: reference gives NaN or infinity on them",
    ] {
        assert!(text.contains(expected), "`{expected}` is missing in:\n{text}");
    }
}
