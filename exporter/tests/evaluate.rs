//! The evaluator against PyTorch: every graph of the corpus that exporters made of one function.

mod common;

use std::collections::HashMap;
use std::path::Path;

use common::{array_of, arrays, cases, corpus, error, inputs, load};
use isqrt_cov::evaluate::{Evaluator, Precision};
use isqrt_cov::runtime::tract::Tract;
use isqrt_cov_proto::onnx::ModelProto;
use isqrt_cov_proto::onnx::tensor_shape_proto::Dimension;
use ndarray::ArrayD;
use serde_json::Value;

/// What is too far from PyTorch's numbers, or cannot be evaluated.
fn differences(folder: &Path, case: &Value) -> Vec<String> {
    let name = case["model"].as_str().unwrap();
    let model = load(&folder.join(name));
    let arrays = arrays(&folder.join(case["tensors"].as_str().unwrap()));
    // Half precision rounds otherwise where sums are taken in another order.
    let tolerance = f64::max(1e-5, 8.0 * case["export_max_rel_error"].as_f64().unwrap());
    let tract = Tract::new();
    let mut differences = Vec::new();
    let mut runs = 0;
    for precision in [Precision::Declared, Precision::Exact] {
        let evaluator = match Evaluator::new(&model, precision, Some(&tract)) {
            Ok(evaluator) => evaluator,
            Err(error) => return vec![format!("{name}: {error:#}")],
        };
        // As exported, and with other batch sizes where that one is left open.
        let suffixes = arrays.keys().filter_map(|key| key.strip_prefix("expected"));
        for suffix in suffixes.filter(|suffix| fed(&model, &arrays, suffix)) {
            runs += 1;
            match evaluator.run(&inputs(&model, &arrays, suffix)) {
                Err(error) => differences.push(format!("{name}{suffix} ({precision:?}): {error:#}")),
                Ok(outputs) => {
                    let far = error(&outputs[0], &arrays[&format!("expected{suffix}")]);
                    if far > tolerance {
                        differences
                            .push(format!("{name}{suffix} ({precision:?}): {far:.1e} > {tolerance:.1e}"));
                    }
                }
            }
        }
    }
    assert!(runs >= 2, "{name}: nothing to feed");
    differences
}

/// Whether there are arrays under this suffix for all inputs, of the sizes that the model declares.
fn fed(model: &ModelProto, arrays: &HashMap<String, ArrayD<f32>>, suffix: &str) -> bool {
    model.graph.as_ref().unwrap().input.iter().all(|input| {
        let fits = |(dim, &size): (&Dimension, &usize)| dim.size().is_none_or(|own| own == size);
        let array = array_of(input, arrays, suffix);
        array.is_some_and(|array| input.dims().unwrap().iter().zip(array.shape()).all(fits))
    })
}

#[test]
fn graphs_of_the_corpus_are_what_pytorch_says() {
    let folder = corpus();
    let cases = cases(&folder);
    let evaluated: Vec<&Value> = cases.iter().filter(|case| case["expect"] != "lost-iteration").collect();
    let differences: Vec<String> = evaluated.iter().flat_map(|case| differences(&folder, case)).collect();
    assert!(evaluated.len() > 60, "{} cases", evaluated.len());
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// Graphs with ONNX Runtime's operators for images in blocks of channels.
const NOT_EVALUATED_YET: [&str; 4] = [
    "depths_dyn18_b1_ortall.onnx",
    "depths_ts17_n_ortall.onnx",
    "position_attention_ts17_n_ortall.onnx",
    "residual_ts17_b1_ortall.onnx",
];

#[test]
fn own_graphs_are_what_pytorch_says() {
    let folder = corpus().join("own");
    let cases = cases(&folder);
    let evaluated: Vec<&Value> =
        cases.iter().filter(|case| case["held_out"] == false && case["expect"] != "lost-iteration").collect();
    let differences: Vec<String> = evaluated
        .iter()
        .flat_map(|case| {
            let found = differences(&folder, case);
            let name = case["model"].as_str().unwrap();
            match (NOT_EVALUATED_YET.contains(&name), found.is_empty()) {
                (true, true) => vec![format!("{name}: can be evaluated now")],
                (true, false) => Vec::new(),
                (false, _) => found,
            }
        })
        .collect();
    assert!(evaluated.len() > 100, "{} cases", evaluated.len());
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
