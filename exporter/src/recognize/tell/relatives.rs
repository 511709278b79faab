//! Functions near the layer that no operator computes, so that a near miss can be told by its name.

use isqrt_cov_op::{Layer, Layout, Normalization, OperatorKind};

use crate::recognize::identify::probed::Probed;
use crate::recognize::identify::spectrum::newton_schulz;
use crate::recognize::identify::{AttributeSearch, Resolution};
use crate::tensor::Tensor;

/// A function of Σ, by its image f(λ, t) of an eigenvalue; t normalises Σ. Those that step depend on K.
struct Relative {
    name: &'static str,
    steps: bool,
    image: fn(f64, f64, u32) -> f64,
}

/// The table of what is known by name: one line a function.
const RELATIVES: [Relative; 9] = [
    Relative {
        name: "the exact square root, by an eigendecomposition or by more steps than can be counted",
        steps: false,
        image: |lambda, _, _| lambda.sqrt(),
    },
    Relative {
        name: "the exact inverse square root",
        steps: false,
        image: |lambda, _, _| lambda.sqrt().recip(),
    },
    Relative {
        name: "the iteration's other factor, which goes to the inverse square root",
        steps: true,
        image: |lambda, t, steps| iterates(lambda / t, steps).1 / t.sqrt(),
    },
    Relative {
        name: "the iteration's other factor without post-compensation",
        steps: true,
        image: |lambda, t, steps| iterates(lambda / t, steps).1,
    },
    Relative {
        name: "the iteration, compensated by the trace instead of its square root",
        steps: true,
        image: |lambda, t, steps| t * iterates(lambda / t, steps).0,
    },
    Relative { name: "the covariance over its trace", steps: false, image: |lambda, t, _| lambda / t },
    Relative { name: "the matrix logarithm", steps: false, image: |lambda, _, _| lambda.ln() },
    Relative { name: "the inverse", steps: false, image: |lambda, _, _| lambda.recip() },
    Relative { name: "the cube root", steps: false, image: |lambda, _, _| lambda.cbrt() },
];

/// Iterations that are tried for those that step.
const ITERATIONS: std::ops::RangeInclusive<u32> = 1..=12;

/// What is added to the diagonal; functions of singular matrices need something.
const EPSILON: [f32; 6] = [0.0, 1e-5, 1e-3, 1e-4, 1e-6, 1e-2];

/// The iterates of one eigenvalue.
fn iterates(a: f64, steps: u32) -> (f64, f64) {
    let ([y], [z]) = newton_schulz([a], steps);
    (y, z)
}

/// What `outputs` are, one for each of the probes, if that is a function known by name.
#[must_use]
pub fn name_of(probed: &Probed, outputs: &[Tensor], resolution: Resolution) -> Option<String> {
    for layout in Layout::ALL {
        let search = AttributeSearch::new(OperatorKind::IsqrtCov, layout, probed, outputs, resolution);
        let Some(search) = search else { continue };
        for &vectorization in &search.vectorizations {
            for layer in layers(Layer { layout, vectorization, ..Layer::new(OperatorKind::IsqrtCov) }) {
                for relative in &RELATIVES {
                    let iterations = if relative.steps { ITERATIONS } else { 1..=1 };
                    for steps in iterations {
                        let image = |lambda: f64, t: f64| (relative.image)(lambda, t, steps);
                        if let Some((factor, distance)) = search.factor_of_image(&layer, &image) {
                            return Some(describe(relative, &layer, steps, factor, distance));
                        }
                    }
                }
            }
        }
    }
    None
}

/// The matrices that a function may be taken of.
fn layers(base: Layer) -> Vec<Layer> {
    let mut layers = Vec::new();
    for centered in [true, false] {
        for correction in [0, 1] {
            for epsilon in EPSILON {
                for normalization in Normalization::ALL {
                    layers.push(Layer { centered, correction, epsilon, normalization, ..base });
                }
            }
        }
    }
    layers
}

fn describe(relative: &Relative, layer: &Layer, steps: u32, factor: f64, distance: f64) -> String {
    let after = if relative.steps { format!(", after {steps} steps") } else { String::new() };
    let times = if (factor - 1.0).abs() < 1e-4 { String::new() } else { format!("{factor:.4} times ") };
    let of = if layer.epsilon > 0.0 {
        format!(" of the covariance with {:e} on its diagonal", layer.epsilon)
    } else {
        String::new()
    };
    let means = if layer.centered { "" } else { ", with the means left in" };
    format!(
        "it is {times}{}{after}{of}{means} (to {distance:.0e}), which no operator computes",
        relative.name
    )
}
