//! `convert` on graphs: what is written, and what is told.

use super::*;

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
