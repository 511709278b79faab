//! `bench`: what is run, on what, and what is said of it.

use super::*;

#[test]
fn a_model_is_measured() {
    let ran =
        isqrt_cov(&arguments!["bench", graph(FUSE), graph(FUSE), "--batch", "2", "--rounds", "3", "--json"]);
    assert_eq!(status(&ran), 0, "{ran:?}");
    let answer = object(&ran);
    assert_eq!(answer["models"].as_array().unwrap().len(), 2);
    assert!(answer["ratio"].as_f64().unwrap() > 0.0);
    assert_eq!(answer["models"][0]["batch"], 2);
    assert_eq!(answer["models"][0]["inputs"], serde_json::json!([[2, 1, 8, 8]]));
    assert_eq!((&answer["models"][0]["operators"], &answer["notes"]), (&0.into(), &serde_json::json!([])));
}

#[test]
fn what_was_measured_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("fused.onnx");
    assert_eq!(status(&isqrt_cov(&arguments!["convert", graph(FUSE), "-o", output, "--seeds", "1"])), 0);
    let ran = isqrt_cov(&arguments!["bench", graph(FUSE), output, "--batch", "2", "--rounds", "1"]);
    let text = String::from_utf8(ran.stdout).unwrap();
    for expected in ["INPUTS", "[2, 1, 8, 8]", "none", "1, by operator"] {
        assert!(text.contains(expected), "`{expected}` is missing in:\n{text}");
    }
    assert!(!text.contains("note") && text.contains("RATIO") && text.contains('×'), "{text}");
    let alone = isqrt_cov(&arguments!["bench", output, "--rounds", "1"]);
    let text = String::from_utf8(alone.stdout).unwrap();
    assert!(!text.contains("RATIO") && !text.contains('×'), "{text}");
}

/// The ratio of models that do different work is none of the layer's doing.
#[test]
fn unrelated_models_are_not_compared_without_a_word() {
    let layer = "layer/official_noDotData_d16_hw7_it5_dyn18_dynbatch";
    let matrix = "layer/official_sqrt1_vec0_d16_hw7_it5_dyn18_b2";
    for (one, other, said) in [
        (FUSE, layer, "axis 1 of input `input` is 1 in one model and 16 in the other"),
        (layer, matrix, "the outputs of one have the shapes [[2, 136, 1]], those of the other"),
        (FUSE, LOST, "so the ratio compares different functions"),
    ] {
        let line = arguments!["bench", graph(one), graph(other), "--rounds", "1", "--json"];
        let answer = object(&isqrt_cov(&line));
        let note = answer["notes"][0].as_str().unwrap_or_else(|| panic!("{answer}"));
        assert!(note.contains("the ratio compares different") && note.contains(said), "{note}");
    }
}

/// Sizes that no memory holds are refused before any is asked for, and features are no images.
#[test]
fn sizes_that_are_measured_are_held() {
    for (option, size) in [("--batch", "100000000"), ("--batch", "4294967295")] {
        let ran = isqrt_cov(&arguments!["bench", graph(FUSE), option, size]);
        assert_eq!(status(&ran), 2, "{ran:?}");
        assert!(
            String::from_utf8_lossy(&ran.stderr).contains("give a smaller --batch or --extent"),
            "{ran:?}"
        );
    }
    let open = graph("layer/official_noDotData_d16_dynHW_it5_dyn18");
    let answer = object(&isqrt_cov(&arguments!["bench", open, "--rounds", "1", "--json"]));
    assert_eq!(answer["models"][0]["inputs"], serde_json::json!([[1, 16, 14, 14]]), "{answer}");
}

/// Data say what sizes are open, and go round where they are fewer than the batch.
#[test]
fn data_of_ones_own_are_run_on() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data.npy");
    ndarray_npy::write_npy(&data, &ndarray::Array4::<f32>::ones((3, 16, 9, 5))).unwrap();
    let open = graph("layer/official_noDotData_d16_dynHW_it5_dyn18");
    let line = arguments!["bench", open, open, "--inputs", data, "--rounds", "1", "--batch", "4", "--json"];
    let answer = object(&isqrt_cov(&line));
    for model in answer["models"].as_array().unwrap() {
        assert_eq!(model["inputs"], serde_json::json!([[4, 16, 9, 5]]), "{answer}");
    }
    for (line, said) in [
        (arguments!["bench", graph(FUSE), "--inputs", data].to_vec(), "has shape [3, 16, 9, 5]"),
        (
            arguments!["bench", open, "--inputs", data, "--batch", "4294967295"].to_vec(),
            "give a smaller --batch",
        ),
        (arguments!["bench", graph(FUSE), "--extent", "7"].to_vec(), "leaves no size open"),
        (
            arguments!["bench", open, "--inputs", data, "--extent", "7"].to_vec(),
            "cannot be used with '--extent",
        ),
    ] {
        let ran = isqrt_cov(&line);
        assert_eq!(status(&ran), 2, "{ran:?}");
        assert!(error_text(&ran).contains(said), "{ran:?}");
    }
}
