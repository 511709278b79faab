//! Every graph of the corpus: found, left or refused as it must be, and still the same function once rewritten.

mod behind;
mod changed;
#[path = "../common/mod.rs"]
mod common;
mod guards;
mod sizes;
mod views;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use common::{arrays, cases, corpus, error, for_each, inputs, load};
use isqrt_cov::found::Found;
use isqrt_cov::graph::holds_operator;
use isqrt_cov::recognize::{Findings, recognize};
use isqrt_cov::rewrite;
use isqrt_cov::runtime::Runtime;
use isqrt_cov::runtime::embedded::Embedded;
use isqrt_cov_op::layer::Value as Attribute;
use isqrt_cov_op::{DOMAIN, OPERATORS, OperatorKind};
use isqrt_cov_proto::onnx::{FunctionProto, ModelProto, NodeProto};
use ndarray::ArrayD;
use serde_json::Value;

/// max|Δ| / max|expected| of the model's first output, on the arrays named after its inputs.
fn distance(model: &ModelProto, arrays: &HashMap<String, ArrayD<f32>>, suffix: &str) -> f64 {
    let expected = &arrays[&format!("expected{suffix}")];
    let inputs = inputs(model, arrays, suffix);
    let shapes: Vec<Vec<usize>> = inputs.iter().map(|input| input.dims().to_vec()).collect();
    let output =
        Embedded::new().prepare(&Arc::new(model.clone()), &shapes).unwrap().run(&inputs).unwrap().remove(0);
    error(&output, expected)
}

/// What the replacement must not touch: every node that is left, every initializer that is left, and all the rest.
fn check_untouched(original: &ModelProto, rewritten: &ModelProto, name: &str) {
    let (before, after) = (original.graph.as_ref().unwrap(), rewritten.graph.as_ref().unwrap());
    // What stands around an operator is named after it.
    let is_around =
        |name: &str| OPERATORS.iter().any(|operator| name.contains(&format!("/{}/", operator.name)));
    let ours = |node: &&NodeProto| holds_operator(node) || is_around(node.name());
    let mut remaining = before.node.iter();
    for node in after.node.iter().filter(|node| !ours(node)) {
        assert!(remaining.any(|other| other == node), "{name}: node `{}` changed", node.name());
    }
    let mut remaining = before.initializer.iter();
    for tensor in after.initializer.iter().filter(|tensor| !is_around(tensor.name())) {
        assert!(remaining.any(|other| other == tensor), "{name}: initializer `{}` changed", tensor.name());
    }
    let mut remaining = before.value_info.iter();
    let mut described = after.value_info.iter().filter(|info| before.value_info.contains(info));
    assert!(described.all(|info| remaining.any(|other| other == info)), "{name}: value infos moved");
    let is_kept = |function: &FunctionProto| {
        original.functions.contains(function) || function.node.iter().any(holds_operator)
    };
    let mut functions = rewritten.functions.iter().filter(|function| function.domain() != DOMAIN);
    assert!(functions.all(is_kept), "{name}: a function changed");
    assert_eq!(rest_of(original), rest_of(rewritten), "{name}");
    let imports: Vec<_> = rewritten.opset_import.iter().filter(|import| import.domain() != DOMAIN).collect();
    assert_eq!(imports, original.opset_import.iter().collect::<Vec<_>>(), "{name}");
}

/// A model without the parts in which a replacement shows.
fn rest_of(model: &ModelProto) -> ModelProto {
    let mut rest = model.clone();
    rest.functions.clear();
    rest.opset_import.clear();
    rest.ir_version = None;
    if let Some(graph) = &mut rest.graph {
        graph.node.clear();
        graph.initializer.clear();
        graph.value_info.clear();
    }
    rest
}

fn rewritten(model: &ModelProto, findings: &Findings) -> ModelProto {
    let mut rewritten = model.clone();
    rewrite::apply(&mut rewritten, &findings.layers, true).unwrap();
    rewritten
}

#[test]
fn every_case_is_found_left_or_refused() {
    let corpus = corpus();
    let cases = cases(&corpus);
    assert_eq!(cases.len(), 90);
    for_each(&cases, |case| {
        let name = case["model"].as_str().unwrap();
        let model = load(&corpus.join(name));
        let findings = recognize(&model, &Embedded::new()).unwrap();
        let operators: Vec<OperatorKind> = findings.layers.iter().map(|found| found.layer.operator).collect();
        match case["expect"].as_str().unwrap() {
            "fuse" => {
                let layers = case["layers"].as_u64().unwrap() as usize;
                assert_eq!(operators, vec![OperatorKind::IsqrtCov; layers], "{name}: {findings:?}");
                assert!(findings.lost.is_empty(), "{name}");
                if let Some(iterations) = case["parameters"]["iterN"].as_u64() {
                    assert_eq!(u64::from(findings.layers[0].layer.iterations), iterations, "{name}");
                }
            }
            "leave" => {
                assert!(!operators.contains(&OperatorKind::IsqrtCov), "{name}: {findings:?}");
                assert!(findings.lost.is_empty(), "{name}");
                assert_eq!(findings.misses.len(), 1, "{name}: the near miss is explained");
            }
            "lost-iteration" => {
                assert!(operators.is_empty() && !findings.lost.is_empty(), "{name}: {findings:?}");
                return;
            }
            other => panic!("{name}: {other}"),
        }
        let rewritten = rewritten(&model, &findings);
        check_untouched(&model, &rewritten, name);
        let again = recognize(&rewritten, &Embedded::new()).unwrap();
        assert!(again.layers.is_empty(), "{name}: a converted model has nothing left to convert: {again:?}");
        let arrays = arrays(&corpus.join(case["tensors"].as_str().unwrap()));
        let tolerance = f64::max(1e-5, 4.0 * case["export_max_rel_error"].as_f64().unwrap());
        let distance = distance(&rewritten, &arrays, "");
        assert!(distance <= tolerance, "{name}: {distance:.1e} off, {tolerance:.1e} allowed");
    });
}

/// Graphs that ONNX Runtime's optimizer has laid out for one processor: no other runtime reads their weights.
const OF_ONE_PROCESSOR: [&str; 4] = [
    "depths_dyn18_b1_ortall.onnx",
    "depths_ts17_n_ortall.onnx",
    "position_attention_ts17_n_ortall.onnx",
    "residual_ts17_b1_ortall.onnx",
];

/// Whether what was found is what the case says: the operators, in any order, with their attributes. Where the case names
/// alternatives, each is as right.
fn as_said(findings: &Findings, case: &Value) -> bool {
    let is = |found: &Found, said: &Value| {
        let attributes = said["attributes"].as_object().unwrap();
        found.layer.name() == said["operator"]
            && attributes.iter().all(|(name, value)| {
                found.layer.attributes().iter().any(|(own, found)| {
                    own == name
                        && match found {
                            Attribute::Integer(found) => value.as_i64() == Some(*found),
                            Attribute::Float(found) => {
                                (value.as_f64().unwrap() - f64::from(*found)).abs() < 1e-6
                            }
                            Attribute::Word(found) => value == found,
                        }
                })
            })
    };
    let alternatives = case["alternatives"].as_array().into_iter().flatten();
    std::iter::once(&case["operators"]).chain(alternatives).any(|said| {
        let said = said.as_array().unwrap();
        findings.layers.len() == said.len()
            && said.iter().all(|said| findings.layers.iter().any(|found| is(found, said)))
    })
}

/// Two thirds of the graphs that `models/exports` makes; the rest is held out of development.
#[test]
fn own_graphs_are_found_for_what_they_are() {
    let folder = corpus().join("own");
    let mut cases = cases(&folder);
    cases.retain(|case| case["held_out"] == false);
    assert!(cases.len() > 100, "{} cases", cases.len());
    let surprises = Mutex::new(Vec::new());
    let surprise = |text| surprises.lock().unwrap().push(text);
    for_each(&cases, |case| {
        let name = case["model"].as_str().unwrap();
        let model = load(&folder.join(name));
        let findings = recognize(&model, &Embedded::new()).unwrap_or_default();
        match case["expect"].as_str().unwrap() {
            "fuse" => {
                if as_said(&findings, case) == OF_ONE_PROCESSOR.contains(&name) {
                    let found: Vec<_> = findings.layers.iter().map(|found| found.layer).collect();
                    surprise(format!("{name}: {} said, {found:?} found", case["operators"]));
                }
                assert!(findings.lost.is_empty(), "{name}: {findings:?}");
            }
            "leave" => assert!(findings.lost.is_empty(), "{name}: {findings:?}"),
            "lost-iteration" => {
                assert!(findings.layers.is_empty() && !findings.lost.is_empty(), "{name}: {findings:?}");
            }
            other => panic!("{name}: {other}"),
        }
        if !findings.layers.is_empty() {
            let rewritten = rewritten(&model, &findings);
            check_untouched(&model, &rewritten, name);
            let arrays = arrays(&folder.join(case["tensors"].as_str().unwrap()));
            let suffix = if name.contains("_n") { "_b3" } else { "" };
            let suffix = if arrays.contains_key(&format!("expected{suffix}")) { suffix } else { "" };
            let tolerance = f64::max(1e-5, 4.0 * case["export_max_rel_error"].as_f64().unwrap());
            let distance = distance(&rewritten, &arrays, suffix);
            if distance > tolerance {
                surprise(format!("{name}: {distance:.1e} off, {tolerance:.1e} allowed"));
            }
        }
    });
    let surprises = surprises.into_inner().unwrap();
    assert!(surprises.is_empty(), "{}", surprises.join("\n"));
}
