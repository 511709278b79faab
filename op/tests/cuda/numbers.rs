//! The kernels' numbers against the reference in float64.

use isqrt_cov_op::cuda::ElementType;
use isqrt_cov_op::reference;
use isqrt_cov_op::{Layer, Normalization, OperatorKind};

use crate::device::{bits, rounded, values};
use crate::samples::{ELEMENTS, input, layers};

/// Channels and positions, with all that is special about them: single ones, sides of a tile and one beside it, less positions
/// than channels.
const SIZES: [(usize, usize); 8] = [(1, 1), (1, 5), (5, 1), (3, 2), (33, 17), (64, 64), (65, 130), (100, 9)];
/// Those of published networks, for a few checks.
const LARGE: [(usize, usize); 3] = [(128, 196), (256, 49), (256, 196)];

/// What a value may be wrong by: as a part of the greatest of its sample's, and of itself for the rounding to its type.
fn tolerance(element: ElementType) -> (f64, f64) {
    match element {
        // The most is of a constant sample that is not centered: every entry's rounding is the same.
        ElementType::Float => (3e-6, 0.0),
        ElementType::Double => (1e-13, 0.0),
        ElementType::Float16 => (2e-6, 1.0 / 2048.0),
        ElementType::BFloat16 => (2e-6, 1.0 / 256.0),
    }
}

/// The least that a type's numbers below its normal ones differ by.
fn step(element: ElementType) -> f64 {
    match element {
        ElementType::Float => 2.0_f64.powi(-149),
        ElementType::Double => 0.0,
        ElementType::Float16 => 2.0_f64.powi(-24),
        ElementType::BFloat16 => 2.0_f64.powi(-133),
    }
}

/// Holds the layer on this input against the reference.
fn check(layer: &Layer, element: ElementType, data: &[f64], dims: &[usize]) {
    compare(layer, element, (data, dims), &bits(*layer, element, data, dims));
}

/// Holds what the layer has made of this input against the reference.
pub fn compare(layer: &Layer, element: ElementType, (data, dims): (&[f64], &[usize]), found: &[u64]) {
    let data = rounded(element, data);
    let expected = reference::evaluate(layer, &data, dims).expect("a sound shape");
    let found = values(element, found);
    assert_eq!(found.len(), expected.len());
    let (of_greatest, of_itself) = tolerance(element);
    for (sample, (found, expected)) in
        found.chunks(found.len() / dims[0]).zip(expected.chunks(expected.len() / dims[0])).enumerate()
    {
        let greatest = expected.iter().fold(0.0_f64, |greatest, value| greatest.max(value.abs()));
        for (index, (&found, &expected)) in found.iter().zip(expected).enumerate() {
            let allowed = of_greatest * greatest + of_itself * expected.abs() + step(element);
            // Where sums are not finite, the order of operations decides whether they are infinite or no number.
            let right =
                if expected.is_finite() { (found - expected).abs() <= allowed } else { !found.is_finite() };
            assert!(
                right,
                "{layer} of {element:?}, shape {dims:?}, sample {sample}, entry {index}: {found:e}, expected {expected:e} within {allowed:e}"
            );
        }
    }
}

fn check_size(layer: &Layer, element: ElementType, size: (usize, usize, usize)) {
    let (data, dims) = input(layer, size);
    if layer.extent(&dims).is_ok() {
        check(layer, element, &data, &dims);
    }
}

#[test]
#[ignore = "run by kernels_on_the_stub"]
fn every_size() {
    for (channels, positions) in SIZES {
        for kind in [OperatorKind::IsqrtCov, OperatorKind::CovariancePooling, OperatorKind::MatrixSqrt] {
            for element in ELEMENTS {
                check_size(&Layer::new(kind), element, (2, channels, positions));
            }
        }
    }
}

#[test]
#[ignore = "run by kernels_on_the_stub"]
fn large_sizes() {
    for (channels, positions) in LARGE {
        check_size(&Layer::new(OperatorKind::IsqrtCov), ElementType::Float, (1, channels, positions));
    }
    check_size(&Layer::new(OperatorKind::IsqrtCov), ElementType::Double, (1, 128, 196));
}

/// Several tiles in each direction, of triangles and of a rectangle.
#[test]
#[ignore = "run by kernels_on_the_stub"]
fn many_tiles() {
    for (channels, positions) in [(170, 6), (200, 70), (165, 130)] {
        let layer = Layer { iterations: 2, ..Layer::new(OperatorKind::IsqrtCov) };
        check_size(&layer, ElementType::Float, (3, channels, positions));
    }
}

#[test]
#[ignore = "run by kernels_on_the_stub"]
fn every_attribute() {
    for layer in layers() {
        for (channels, positions) in [(33, 17), (17, 40), (70, 5)] {
            for element in [ElementType::Float, ElementType::Double] {
                check_size(&layer, element, (1, channels, positions));
            }
        }
        for element in [ElementType::Float16, ElementType::BFloat16] {
            check_size(&layer, element, (3, 9, 12));
        }
    }
}

#[test]
#[ignore = "run by kernels_on_the_stub"]
fn every_number_of_steps() {
    for iterations in 1..=12 {
        let layer = Layer { iterations, ..Layer::new(OperatorKind::IsqrtCov) };
        for (channels, positions) in [(40, 60), (70, 40)] {
            for element in [ElementType::Float, ElementType::Double] {
                check_size(&layer, element, (1, channels, positions));
            }
        }
    }
}

#[test]
#[ignore = "run by kernels_on_the_stub"]
fn no_samples() {
    for element in ELEMENTS {
        assert!(bits(Layer::new(OperatorKind::IsqrtCov), element, &[], &[0, 5, 7]).is_empty());
    }
}

#[test]
#[ignore = "run by kernels_on_the_stub"]
fn very_small_and_very_large_inputs() {
    for kind in [OperatorKind::IsqrtCov, OperatorKind::CovariancePooling, OperatorKind::MatrixSqrt] {
        for normalization in Normalization::ALL {
            for compensated in [true, false] {
                let mut layer = Layer::new(kind);
                if kind != OperatorKind::CovariancePooling {
                    (layer.normalization, layer.compensated) = (normalization, compensated);
                }
                for scale in [1e-18, 1e18] {
                    for element in [ElementType::Float, ElementType::Double, ElementType::BFloat16] {
                        for size in [(1, 33, 40), (1, 40, 9)] {
                            let (mut data, dims) = input(&layer, size);
                            data.iter_mut().for_each(|value| *value *= scale);
                            check(&layer, element, &data, &dims);
                        }
                    }
                }
            }
        }
    }
}

/// A sample that is not finite, or has nothing to normalize, beside others.
#[test]
#[ignore = "run by kernels_on_the_stub"]
fn special_samples() {
    for layer in layers() {
        for size @ (samples, channels, positions) in [(5, 7, 12), (5, 12, 7), (5, 40, 33)] {
            let (mut data, dims) = input(&layer, size);
            let elements = data.len() / samples;
            data[elements] = f64::NAN;
            data[2 * elements + channels.min(positions)] = f64::INFINITY;
            let constant = if layer.operator == OperatorKind::MatrixSqrt { 0.0 } else { 0.5 };
            data[3 * elements..4 * elements].fill(constant);
            for element in [ElementType::Float, ElementType::Double] {
                check(&layer, element, &data, &dims);
            }
        }
    }
}
