//! Whether the operator is as near to float64 as the graph that it replaces, in ONNX Runtime itself.

use isqrt_cov_tests::{Python, library};
use serde_json::Value;

/// The release whose pins hold the package that writes the graphs.
const RELEASE: &str = "1.32.0";

/// The spacing of float32 numbers at 1.
const ULP: f64 = f32::EPSILON as f64;

/// Below this many channels the operator computes in float64: no result is nearer than its correctly rounded one.
const FEW: u64 = 24;

/// From there on both sum in float32, each in its own order, and one case or another may fall out in the graph's favor: of 458 by
/// 0.55 ulp beside the farther of the two graphs and by 1.8 ulp beside the nearer, with AVX2 by 5.4. Other processors sum in other
/// orders.
const ROUNDING: [f64; 2] = [2.0 * ULP, 8.0 * ULP];

/// On the average of these cases the operator is at less than this share of the nearer graph's error: 0.29 was seen.
const AVERAGE: f64 = 0.4;

/// What the Gram form may be from float64.
const GRAM: f64 = 1e-6;

/// The same where nothing is negative and one eigenvalue holds everything: the rounding errors of a sum then have one sign. Up
/// to 1.6·10⁻⁶ was seen, where the graph was at 4·10⁻⁶ or more.
const GRAM_OF_ONE_SIGN: f64 = 2e-6;

#[test]
fn the_operator_is_no_farther_from_float64_than_the_graph() {
    let Some(python) = Python::installed(RELEASE) else { return };
    let measured = python.accuracy(&library());
    assert!(measured.len() > 700, "{} cases were measured", measured.len());
    let (mut shares, mut beyond) = (Vec::new(), [0.0_f64; 2]);
    for case in &measured {
        let number = |name: &str| case[name].as_f64().unwrap_or_else(|| panic!("no {name}: {case}"));
        let channels = case["channels"].as_u64().expect("a number of channels");
        let (operator, graphs) = (number("operator"), [number("matrix"), number("mean")]);
        let (farther, nearer) = (graphs[0].max(graphs[1]), graphs[0].min(graphs[1]));
        let slack = if channels < FEW { [1e-3 * ULP; 2] } else { ROUNDING };
        assert!(operator <= farther + slack[0], "both graphs are nearer: {case}");
        assert!(operator <= nearer + slack[1], "a graph is nearer: {case}");
        if channels >= FEW {
            beyond = [beyond[0].max(operator - farther), beyond[1].max(operator - nearer)];
            shares.push(operator / nearer.max(ULP / 2.0));
        }
        if is_gram(case) {
            let limit = if case["features"] == "rank one ReLU" { GRAM_OF_ONE_SIGN } else { GRAM };
            assert!(operator <= limit, "more than {limit:e} from float64: {case}");
        }
    }
    let average = shares.iter().sum::<f64>() / shares.len() as f64;
    println!("{} cases, {} of them from {FEW} channels on", measured.len(), shares.len());
    println!(
        "there the operator's error is {average:.2} of the nearer graph's on the average, and beyond the graphs' by"
    );
    println!(
        "{:.2} ulp of the farther and {:.2} ulp of the nearer one at most",
        beyond[0] / ULP,
        beyond[1] / ULP
    );
    assert!(average < AVERAGE, "the operator's errors are {average} of the nearer graph's");
}

/// Whether there are so few positions that the Gram form is cheaper beyond doubt.
fn is_gram(case: &Value) -> bool {
    let size = |name: &str| case[name].as_u64().expect("a size");
    4 * size("positions") <= 3 * size("channels")
}
