//! Python's onnxruntime with and without the library, in every release that the project promises.

use std::ffi::OsString;
use std::path::Path;

use isqrt_cov_tests::{Python, converted, converted_to_ir, corpus, library, model};
use serde_json::json;

/// The published layer on 16 channels of 7×7 positions, batch size dynamic; of an IR that every release below reads.
const LAYER: &str = "layer/stripped_noDotData_d16_hw7_it5_ts17_dynbatch.onnx";

/// The digit classifier, likewise.
const DIGITS: &str = "digits/digits_isqrt_stripped_noDotData_ts17_dynbatch.onnx";

/// The nodes of the layer's body that could not be there if the kernel ran.
const BODY: &str = "MatMul";

/// A module with every check of a release, which `$python` gives or leaves out.
macro_rules! checks {
    ($module:ident $python:expr $(, $ignored:meta)?) => {
        mod $module {
            use isqrt_cov_tests::Python;

            #[test]
            $(#[$ignored])?
            fn every_type_and_attribute() {
                $python.iter().for_each(super::every_type_and_attribute);
            }

            #[test]
            $(#[$ignored])?
            fn many_threads_share_a_session() {
                $python.iter().for_each(super::many_threads_share_a_session);
            }

            #[test]
            $(#[$ignored])?
            fn shapes_are_inferred() {
                $python.iter().for_each(super::shapes_are_inferred);
            }

            #[test]
            $(#[$ignored])?
            fn errors_are_clear() {
                $python.iter().for_each(super::errors_are_clear);
            }

            #[test]
            $(#[$ignored])?
            fn a_converted_layer_runs_with_and_without_the_library() {
                $python.iter().for_each(super::a_converted_layer);
            }

            #[test]
            $(#[$ignored])?
            fn converted_digits_are_read_with_and_without_the_library() {
                $python.iter().for_each(super::converted_digits);
            }
        }
    };
}

macro_rules! releases {
    ($($module:ident $version:literal)*) => {
        const RELEASES: &[&str] = &[$($version),*];

        $(checks! { $module Python::installed($version) })*
    };
}

releases! {
    onnxruntime_1_17 "1.17.3"
    onnxruntime_1_20 "1.20.1"
    onnxruntime_1_23 "1.23.2"
    onnxruntime_1_28 "1.28.0"
    onnxruntime_1_32 "1.32.0"
}

checks! { release_at_hand [Python::at_hand()], ignore = "run by tests/compatibility/run" }

/// A release that lacks what the library needs.
const TOO_OLD: &str = "1.16.3";

fn job<const N: usize>(model: &Path, arguments: [&str; N]) -> Vec<OsString> {
    std::iter::once(model.into()).chain(arguments.map(OsString::from)).collect()
}

fn with_library(mut job: Vec<OsString>) -> Vec<OsString> {
    job.extend(["--plugin".into(), library().into()]);
    job
}

fn every_type_and_attribute(python: &Python) {
    let published = json!([["IsqrtCov", {}]]);
    let every_attribute = json!([["IsqrtCov", {
        "iterations": 3, "centered": 0, "correction": 1, "epsilon": 0.25, "normalization": "frobenius",
        "compensated": 0, "vectorization": "upper_column_major", "off_diagonal_scale": 1.5,
        "layout": "channels_last",
    }]]);
    let two = json!([["CovariancePooling", {}], ["MatrixSqrt", {"iterations": 7}]]);
    // Half an ulp at the greatest entry is 2⁻²⁴, 2⁻⁵³, 2⁻¹¹, 2⁻⁸; bfloat16's input is rounded too.
    let cases = [
        ("float", &published, 1e-6),
        ("double", &published, 1e-14),
        ("float16", &published, 1e-3),
        ("bfloat16", &published, 1e-2),
        ("gram", &published, 1e-6),
        ("every_attribute", &every_attribute, 1e-6),
        ("two_operators", &two, 1e-6),
    ];
    let jobs = cases.each_ref().map(|(name, layer, _)| {
        let layer = layer.to_string();
        with_library(job(&model(name), ["--layer", &layer, "--batch", "0", "--batch", "1", "--batch", "7"]))
    });
    for (answer, (_, layer, tolerance)) in python.run(&jobs).iter().zip(cases) {
        let error = answer.done().error();
        assert!(error <= tolerance, "{}: {error:e} away from float64", answer.job());
        let runs = answer.field("runs").as_array().expect("a list of runs");
        let batches: Vec<_> = runs.iter().map(|run| run["shape"][0].as_u64()).collect();
        assert_eq!(batches, [Some(0), Some(1), Some(7)], "{}", answer.job());
        for operator in layer.as_array().expect("a list of operators") {
            let name = operator[0].as_str().expect("an operator's name");
            assert_eq!(answer.kernels().get(name), Some(&3), "{}: {name}", answer.job());
        }
    }
}

fn many_threads_share_a_session(python: &Python) {
    let layer = json!([["IsqrtCov", {}]]).to_string();
    let jobs = [with_library(job(&model("float"), ["--layer", &layer, "--batch", "7", "--threads", "5"]))];
    let answers = python.run(&jobs);
    let answer = answers[0].done();
    assert!(answer.error() <= 1e-6, "{}: {:e} away from float64", answer.job(), answer.error());
    assert_eq!(answer.kernels()["IsqrtCov"], 40, "{}", answer.job());
}

fn shapes_are_inferred(python: &Python) {
    let cases = [
        ("float", json!(["batch", 136])),
        ("double", json!(["batch", 136])),
        ("every_attribute", json!(["batch", 36])),
        ("two_operators", json!(["batch", 16, 16])),
    ];
    let jobs = cases.each_ref().map(|(name, _)| with_library(job(&model(name), [])));
    for (answer, (_, shape)) in python.run(&jobs).iter().zip(cases) {
        assert_eq!(answer.done().field("output_shape"), &shape, "{}", answer.job());
    }

    // Nothing known: a shape is found when the node runs. Axes without a name: theirs are not the batch's name.
    let jobs = ["unknown_rank", "unnamed_axes"]
        .map(|name| with_library(job(&model(name), ["--shape", "[2, 4, 5]"])));
    let answers = python.run(&jobs);
    assert_eq!(answers[0].done().field("runs")[0]["shape"], json!([2, 10]), "{}", answers[0].job());
    assert_eq!(answers[1].done().field("runs")[0]["shape"], json!([2, 4, 4]), "{}", answers[1].job());
    let inferred = answers[1].field("output_shape");
    assert!(inferred[1] == inferred[2] && inferred[0] != inferred[1], "{}: {inferred}", answers[1].job());
}

fn errors_are_clear(python: &Python) {
    let shape = |shape| ["--shape", shape];
    let cases = [
        ("wrong_rank", shape("[2, 16]"), "run", "input `X` has shape [2, 16]; expected rank 3 or more"),
        ("unknown_rank", shape("[16]"), "run", "input `X` has shape [16]; expected rank 3 or more"),
        ("unknown_rank", shape("[]"), "run", "input `X` has shape []; expected rank 3 or more"),
        ("unknown_rank", shape("[2, 0, 3]"), "run", "expected at least 1 in every axis but the first"),
        (
            "unbiased",
            shape("[2, 16, 1, 1]"),
            "run",
            "has shape [2, 16, 1, 1]; expected more positions than `correction`",
        ),
        ("wrong_type", shape("[2, 16, 7, 7]"), "session", "tensor(int64)"),
        (
            "unknown_word",
            shape("[2, 16, 7, 7]"),
            "session",
            "node \"pool\": IsqrtCov: attribute `vectorization` is \"lower\"; expected one of \"upper\"",
        ),
        (
            "iterations_of_zero",
            shape("[2, 16, 7, 7]"),
            "session",
            "attribute `iterations` is 0; expected an integer from 1",
        ),
        (
            "iterations_as_float",
            shape("[2, 16, 7, 7]"),
            "session",
            "attribute `iterations` is 5.0; expected an integer",
        ),
        (
            "iterations_as_list",
            shape("[2, 16, 7, 7]"),
            "session",
            "attribute `iterations` is a list, a tensor or a graph; expected an integer",
        ),
        (
            "negative_epsilon",
            shape("[2, 16, 7, 7]"),
            "session",
            "attribute `epsilon` is -1.0; expected a finite float",
        ),
        (
            "attribute_of_another",
            shape("[2, 4, 4]"),
            "session",
            "MatrixSqrt: attribute `centered` does not exist; expected one of iterations",
        ),
    ];
    let jobs = cases.each_ref().map(|(name, shape, ..)| with_library(job(&model(name), *shape)));
    for (answer, (_, _, stage, text)) in python.run(&jobs).iter().zip(cases) {
        let error = answer.error_at(stage);
        assert!(error.contains(text), "{}: {error}", answer.job());
    }
}

fn a_converted_layer(python: &Python) {
    let fused = converted(LAYER);
    let layer = json!([["IsqrtCov", {}]]).to_string();
    let arguments = ["--layer", &layer, "--batch", "1", "--batch", "7"];
    let answers = python.run(&[with_library(job(&fused, arguments)), job(&fused, arguments)]);
    for answer in &answers {
        let error = answer.done().error();
        assert!(error <= 3e-6, "{}: {error:e} away from float64", answer.job());
    }
    let (with, without) = (answers[0].kernels(), answers[1].kernels());
    assert_eq!(with.get("IsqrtCov"), Some(&2), "{}: {with:?}", answers[0].job());
    assert!(!with.contains_key(BODY), "{}: {with:?}", answers[0].job());
    assert!(!without.contains_key("IsqrtCov"), "{}: {without:?}", answers[1].job());
    assert!(without.contains_key(BODY), "{}: {without:?}", answers[1].job());
    // The exported graph says nothing of the 136.
    assert_eq!(answers[0].field("output_shape"), &json!(["batch", 136, 1]), "{}", answers[0].job());
}

fn converted_digits(python: &Python) {
    let fused = converted(DIGITS);
    let images: OsString = corpus("digits/test_images.npy").into();
    let labels: OsString = corpus("digits/test_labels.npy").into();
    let mut classify = job(&fused, []);
    classify.extend(["--images".into(), images, "--labels".into(), labels]);
    let answers = python.run(&[with_library(classify.clone()), classify]);
    for answer in &answers {
        assert_eq!(answer.done().field("correct"), &json!(360), "{}", answer.job());
        assert_eq!(answer.field("samples"), &json!(360), "{}", answer.job());
    }
    assert_eq!(answers[0].kernels().get("IsqrtCov"), Some(&1), "{}", answers[0].job());
    assert!(!answers[1].kernels().contains_key("IsqrtCov"), "{}", answers[1].job());
}

/// What PyTorch exports today is of an IR version that the oldest release does not read.
#[test]
fn the_ir_version_may_be_lowered_for_an_older_runtime() {
    let Some(python) = Python::installed(RELEASES[0]) else { return };
    let newer = "digits/digits_isqrt_official_noDotData_dyn18_dynbatch.onnx";
    let images: OsString = corpus("digits/test_images.npy").into();
    let labels: OsString = corpus("digits/test_labels.npy").into();
    let jobs = [converted(newer), converted_to_ir(newer, "9")].map(|model| {
        let mut classify = with_library(job(&model, []));
        classify.extend(["--images".into(), images.clone(), "--labels".into(), labels.clone()]);
        classify
    });
    let answers = python.run(&jobs);
    let error = answers[0].error_at("session");
    assert!(error.contains("Unsupported model IR version: 10"), "{error}");
    assert_eq!(answers[1].done().field("correct"), &json!(360), "{}", answers[1].job());
    assert_eq!(answers[1].kernels().get("IsqrtCov"), Some(&1), "{}", answers[1].job());
}

/// A release below the floor says so when the library is registered, and runs the body without it.
fn refused(python: &Python) {
    let layer = json!([["IsqrtCov", {}]]).to_string();
    let arguments = ["--layer", &layer, "--batch", "7"];
    let fused = converted(LAYER);
    let answers = python.run(&[with_library(job(&fused, arguments)), job(&fused, arguments)]);
    let error = answers[0].error_at("register");
    let reason = format!("ONNX Runtime {} is too old; expected 1.17 or later", python.version());
    assert!(error.contains(&reason), "{error}");
    assert!(answers[1].done().error() <= 3e-6, "{:e} away from float64", answers[1].error());
}

#[test]
fn a_runtime_below_the_floor_refuses_the_library_and_runs_the_body() {
    Python::installed(TOO_OLD).iter().for_each(refused);
}

#[test]
#[ignore = "run by tests/compatibility/run"]
fn the_runtime_at_hand_refuses_the_library_and_runs_the_body() {
    refused(&Python::at_hand());
}

#[test]
fn the_releases_are_those_that_are_installed() {
    let mut releases = vec![TOO_OLD];
    releases.extend(RELEASES);
    assert_eq!(Python::pinned(), releases);
}

#[test]
fn a_domain_registered_twice_is_an_error_and_not_a_crash() {
    let newest = RELEASES.last().expect("there are releases");
    let Some(python) = Python::installed(newest) else { return };
    let twice = with_library(with_library(job(&model("float"), ["--batch", "1"])));
    let once = with_library(job(&model("float"), ["--batch", "1"]));
    let answers = python.run(&[twice, once]);
    assert!(answers[0].error_at("session").contains("already"), "{}", answers[0].error_at("session"));
    let _ = answers[1].done();
}
