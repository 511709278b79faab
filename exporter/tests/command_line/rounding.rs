//! What layers stray from float64, and what the proof makes of it.

use super::*;

/// The answer to converting a graph of the project's own.
fn converted(name: &str) -> Value {
    let ran = isqrt_cov(&arguments!["convert", graph(&format!("own/{name}")), "--dry-run", "--json"]);
    assert_eq!(status(&ran), 0, "{name}: {ran:?}");
    object(&ran)
}

#[test]
fn layers_that_round_more_than_their_model_says_are_proven() {
    let answer = converted("bfloat16_around_dyn18_n");
    let proof = &answer["proof"];
    let allowed = proof["tolerance"].as_f64().unwrap();
    assert!(allowed > 1e-3 && allowed <= 5e-2, "{proof}");
    let strayed = answer["layers"][0]["accuracy"]["before"]["max"].as_f64().unwrap();
    assert!((allowed / strayed - 4.0).abs() < 1e-3, "{answer}");
    let notes = proof["notes"].as_array().unwrap();
    let raised = notes.iter().filter(|note| note.as_str().unwrap().contains("rounds to bfloat16")).count();
    assert_eq!(raised, 1, "{proof}");
    for name in ["float16_inside_ts17_n", "float16_products_dyn18_n", "half_outside_dyn18_n_fp16inside"] {
        assert_eq!(converted(name)["proof"]["passed"], true);
    }
    let exact = converted("plain_ts11_n");
    assert_eq!(exact["proof"]["tolerance"], 1e-4, "{exact}");
}

#[test]
fn every_seed_is_run_once_and_two_at_other_batches() {
    let proof = &converted("plain_ts11_n")["proof"];
    assert_eq!(proof["batches"], serde_json::json!([1, 2, 5]));
    assert_eq!((&proof["seeds"], &proof["runs"]), (&5.into(), &9.into()), "{proof}");
}

#[test]
fn layers_in_other_graphs_are_measured_and_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let (output, report) = (folder.path().join("out.onnx"), folder.path().join("report.html"));
    let input = graph("own/branches_dyn18_n");
    let ran = isqrt_cov(&arguments!["convert", input, "-o", output, "--report", report, "--json"]);
    assert_eq!(status(&ran), 0, "{ran:?}");
    for layer in object(&ran)["layers"].as_array().unwrap() {
        assert!(layer["within"].as_str().unwrap().contains("branch of If"), "{layer}");
        for side in ["before", "after"] {
            let error = layer["accuracy"][side]["max"].as_f64().unwrap();
            assert!(error > 0.0 && error < 1e-5, "{layer}");
        }
    }
    let page = std::fs::read_to_string(report).unwrap();
    assert!(page.contains("(then_branch of If") && page.contains("evaluated by float64 evaluator"), "{page}");
    assert_eq!(page.matches("aria-label=\"Graph of 1 nodes\"").count(), 2, "each layer after");
    assert!(page.matches("aria-label=\"Graph of ").count() == 4 && !page.contains("Graph of 0"), "{page}");
}
