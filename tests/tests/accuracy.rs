//! Whether the operator is as near to float64 as the graph that it replaces, in ONNX Runtime itself.

use isqrt_cov_tests::{Python, library};
use serde_json::Value;

/// The release whose pins hold the package that writes the graphs.
const RELEASE: &str = "1.32.0";

/// The spacing of float32 numbers at 1.
const ULP: f64 = f32::EPSILON as f64;

/// From this many channels on, the operator must be no worse than the graph but by the rounding of the result.
const CHANNELS: u64 = 64;

/// Other processors sum in other orders: of thousands of cases with other random numbers, one was 0.99 ulp beyond the graph.
const ROUNDING: f64 = 2.0 * ULP;

/// The same for fewer channels. There the graph's few sums are next to exact, and the polynomial that the operator evaluates in
/// fewer products is itself up to 1.6 ulp from the iteration: 5 ulp beyond the graph were seen.
const ROUNDING_OF_FEW: f64 = 6.0 * ULP;

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
    for case in &measured {
        let number = |name: &str| case[name].as_f64().unwrap_or_else(|| panic!("no {name}: {case}"));
        let channels = case["channels"].as_u64().expect("a number of channels");
        let graph = number("matrix").max(number("mean"));
        let slack = if channels >= CHANNELS { ROUNDING } else { ROUNDING_OF_FEW };
        assert!(number("operator") <= graph + slack, "the graph is nearer: {case}");
        if is_gram(case) {
            let limit = if case["features"] == "rank one ReLU" { GRAM_OF_ONE_SIGN } else { GRAM };
            assert!(number("operator") <= limit, "more than {limit:e} from float64: {case}");
        }
    }
}

/// Whether there are so few positions that the Gram form is cheaper beyond doubt.
fn is_gram(case: &Value) -> bool {
    let size = |name: &str| case[name].as_u64().expect("a size");
    4 * size("positions") <= 3 * size("channels")
}
