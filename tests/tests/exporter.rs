//! What the exporter makes of the digit classifier in its exports, right and wrong, and what the results are worth.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Output};

use isqrt_cov_tests::{Python, cases, corpus, exporter, library, scratch};
use serde_json::{Value, json};

/// The release that reads every graph of the corpus.
const RELEASE: &str = "1.32.0";

fn convert(input: &Path, output: &Path) -> Output {
    let mut command = Command::new(exporter());
    command.args(["convert", "--json"]).arg(input).arg("-o").arg(output);
    command.output().expect("the exporter starts")
}

fn report(run: &Output) -> Value {
    serde_json::from_slice(&run.stdout).expect("one JSON object on standard output")
}

#[test]
fn every_export_with_the_layer_becomes_one_node_and_reads_every_digit() {
    let mut jobs = Vec::new();
    let names = cases("digits", "fuse");
    for name in &names {
        let output = scratch(&name.replace('/', "-"));
        let run = convert(&corpus(name), &output);
        assert_eq!(run.status.code(), Some(0), "{name}: {}", String::from_utf8_lossy(&run.stderr));
        let report = report(&run);
        let layers = report["layers"].as_array().expect("a list of layers");
        assert_eq!(layers.len(), 1, "{name}: {report}");
        assert_eq!(layers[0]["operator"], "IsqrtCov", "{name}");
        assert_eq!(layers[0]["attributes"]["iterations"], 5, "{name}");
        assert_eq!(layers[0]["attributes"]["vectorization"], "upper", "{name}");
        let (before, after) = (report["nodes_before"].as_u64(), report["nodes_after"].as_u64());
        let replaced = layers[0]["nodes_replaced"].as_u64();
        assert!(before > after && before >= replaced && replaced > Some(30), "{name}: {report}");

        jobs.extend(classifications(&output));
    }
    every_digit_is_read(&jobs, &names);
}

/// The digits' test images in the converted model: with the operator library, and without.
fn classifications(model: &Path) -> [Vec<OsString>; 2] {
    let classify = ["--images", "digits/test_images.npy", "--labels", "digits/test_labels.npy"];
    let classify =
        classify.map(|word| if word.starts_with("--") { word.into() } else { corpus(word).into() });
    let mut without: Vec<_> = vec![model.into()];
    without.extend(classify);
    let mut with = without.clone();
    with.extend(["--plugin".into(), library().into()]);
    [with, without]
}

/// Runs the classifications of each model in ONNX Runtime.
fn every_digit_is_read(jobs: &[Vec<OsString>], names: &[String]) {
    let Some(python) = Python::installed(RELEASE) else { return };
    for (answers, name) in python.run(jobs).chunks(2).zip(names) {
        for answer in answers {
            assert_eq!(answer.done().field("correct"), &json!(360), "{name}");
        }
        assert!(answers[0].kernels().contains_key("IsqrtCov"), "{name}");
        assert!(!answers[1].kernels().contains_key("IsqrtCov"), "{name}");
    }
}

#[test]
fn every_checkpoint_becomes_a_model_that_reads_every_digit() {
    let (mut jobs, mut names) = (Vec::new(), Vec::new());
    let files = corpus("checkpoints/digits").read_dir().expect("the checkpoints are in the corpus");
    for file in files {
        let file = file.expect("the folder can be read").path();
        let name = file.file_name().expect("it is a file").to_string_lossy().into_owned();
        let output = scratch(&format!("{name}.onnx"));
        let run = convert(&file, &output);
        assert_eq!(run.status.code(), Some(0), "{name}: {}", String::from_utf8_lossy(&run.stderr));
        jobs.extend(classifications(&output));
        names.push(name);
    }
    assert_eq!(names.len(), 7);
    every_digit_is_read(&jobs, &names);
}

#[test]
fn every_network_with_the_layer_becomes_one_node() {
    for name in cases("nets", "fuse") {
        let run = convert(&corpus(&name), &scratch(&name.replace('/', "-")));
        assert_eq!(run.status.code(), Some(0), "{name}: {}", String::from_utf8_lossy(&run.stderr));
        let report = report(&run);
        assert_eq!(report["layers"].as_array().map(Vec::len), Some(1), "{name}: {report}");
        assert_eq!(report["layers"][0]["operator"], "IsqrtCov", "{name}");
        assert_eq!(report["layers"][0]["attributes"]["iterations"], 5, "{name}");
    }
}

#[test]
fn a_near_miss_never_becomes_the_layer() {
    for name in cases("variants", "leave") {
        let output = scratch(&name.replace('/', "-"));
        let run = convert(&corpus(&name), &output);
        let report = report(&run);
        match run.status.code() {
            Some(0) => assert_eq!(report["layers"][0]["operator"], "CovariancePooling", "{name}: {report}"),
            Some(1) => {
                assert_eq!(report["reason"], "no-layer-found", "{name}: {report}");
                assert!(!output.exists(), "{name}: a file is left");
            }
            _ => panic!("{name}: {}", String::from_utf8_lossy(&run.stderr)),
        }
    }
}

#[test]
fn an_export_that_lost_its_iteration_is_named_and_refused() {
    for name in cases("digits", "lost-iteration") {
        let output = scratch(&name.replace('/', "-"));
        let run = convert(&corpus(&name), &output);
        assert_eq!(run.status.code(), Some(1), "{name}: {}", String::from_utf8_lossy(&run.stderr));
        let report = report(&run);
        assert_eq!(report["reason"], "lost-iteration", "{name}: {report}");
        assert!(
            report["message"].as_str().is_some_and(|text| text.contains("dynamo=True")),
            "{name}: {report}"
        );
        assert!(!output.exists(), "{name}: a file is left");
    }
}

#[test]
fn a_broken_file_is_one_clear_line_and_leaves_nothing() {
    let whole = std::fs::read(corpus(&cases("digits", "fuse")[0])).expect("the graph is in the corpus");
    let broken = scratch("broken.onnx");
    let output = scratch("broken-converted.onnx");
    let wrong: [&[u8]; 4] = [&whole[..whole.len() / 2], b"not a model", b"", &whole[7..]];
    for bytes in wrong {
        std::fs::write(&broken, bytes).expect("the scratch folder can be written to");
        let run = Command::new(exporter()).arg("convert").arg(&broken).arg("-o").arg(&output).output();
        let run = run.expect("the exporter starts");
        let error = String::from_utf8_lossy(&run.stderr);
        assert_eq!(run.status.code(), Some(2), "{} bytes: {error}", bytes.len());
        assert!(
            error.lines().count() == 1 && error.contains("broken.onnx"),
            "{} bytes: {error}",
            bytes.len()
        );
        assert!(!output.exists(), "{} bytes: a file is left", bytes.len());
    }
}
