//! Inputs and attributes at the edge of what a type holds.

use super::*;

/// What the layer gives for one sample of this shape.
fn output<T: Element>(layer: Layer, input: &[f64], dims: &[usize]) -> Vec<f64> {
    let input: Vec<T> = input.iter().map(|&value| T::from_f64(value)).collect();
    let bits = bits(&Kernel::new(layer), &input, dims, &Serial);
    bits.into_iter().map(f64::from_bits).collect()
}

#[test]
fn the_frobenius_norm_is_taken_at_every_scale_of_float64() {
    let mut random = Random(11);
    for (channels, positions) in [(32, 20), (12, 50), (20, 300)] {
        let x = sample(&mut random, channels, positions, 0.9);
        for centered in [true, false] {
            let mut layer = Layer::new(OperatorKind::IsqrtCov);
            (layer.normalization, layer.centered) = (Normalization::Frobenius, centered);
            let dims = [1, channels, positions];
            let expected = output::<f64>(layer, &x, &dims);
            for exponent in [-900, -300, -260, 250, 260, 300, 480, 900] {
                let scale = 2.0_f64.powi(exponent);
                let scaled: Vec<f64> = x.iter().map(|value| value * scale).collect();
                let expected: Vec<f64> = expected.iter().map(|entry| entry * scale).collect();
                assert_eq!(output::<f64>(layer, &scaled, &dims), expected, "{dims:?}, 2^{exponent}, {layer}");
            }
        }
    }
}

/// Checks that a layer is as near to the reference as a type allows, in every version.
fn near<T: Element>(layer: Layer, input: &[f64], dims: &[usize], bound: f64) {
    let case = Case { layer, dims: dims.into(), input: input.into() };
    for version in Version::available() {
        let found = error::<T>(&Kernel::with_version(layer, version), &case, &Serial);
        assert!(found <= bound, "{dims:?}, {layer}, {}: {found:e}", version.name());
    }
}

/// Also where the trace is beyond the type, or its inverse is.
#[test]
fn matrices_have_roots_at_every_scale() {
    let mut random = Random(15);
    let side = 30;
    let x = sample(&mut random, side, side, 0.9);
    let matrix = reference::covariance(&Layer::new(OperatorKind::CovariancePooling), &x, side).entries;
    let largest = matrix.iter().fold(0.0, |largest: f64, entry| largest.max(entry.abs()));
    let matrix: Vec<f64> = matrix.iter().map(|entry| f64::from((entry / largest) as f32)).collect();
    for normalization in Normalization::ALL {
        let layer = Layer { normalization, ..Layer::new(OperatorKind::MatrixSqrt) };
        let dims = [1, side, side];
        let check = |at: fn(Layer, &[f64], &[usize]) -> Vec<f64>, exponents: &[i32]| {
            let root = at(layer, &matrix, &dims);
            for &exponent in exponents {
                let scaled = |numbers: &[f64], exponent: i32| -> Vec<f64> {
                    numbers.iter().map(|number| number * 2.0_f64.powi(exponent)).collect()
                };
                let found = at(layer, &scaled(&matrix, exponent), &dims);
                assert_eq!(found, scaled(&root, exponent / 2), "2^{exponent}, {layer}");
            }
        };
        check(output::<Single>, &[-80, 126]);
        check(output::<f64>, &[-900, 1022]);
        // ε that the scale of the entries leaves no room for.
        let faint: Vec<f64> =
            (0..side * side).map(|i| if i % (side + 1) == 0 { 1e-310 } else { 0.0 }).collect();
        near::<f64>(Layer { epsilon: 3e38, ..layer }, &faint, &dims, 1e-14);
    }
}

/// Nor is a matrix that is given the product of features: programs that hold for eigenvalues in [0, 1] alone are not for it.
#[test]
fn eigenvalues_may_be_negative() {
    let side = 30;
    let matrix: Vec<f64> = (0..side * side)
        .map(|i| match (i / side, i % side) {
            (0, 0) => -5.0,
            (row, column) if row == column => 1.0,
            _ => 0.0,
        })
        .collect();
    near::<Single>(Layer::new(OperatorKind::MatrixSqrt), &matrix, &[1, side, side], 2e-6);
}

/// A matrix that is given may have any trace.
#[test]
fn a_negative_trace_ends_as_the_reference_does() {
    let matrices = [[-1.0, 0.0, 0.0, -1.0], [1.0, 0.0, 0.0, -4.0], [-1e-30, 0.0, 0.0, -1e-30]];
    for compensated in [true, false] {
        let mut layer = Layer::new(OperatorKind::MatrixSqrt);
        layer.compensated = compensated;
        for matrix in matrices {
            let expected = reference::evaluate(&layer, &matrix, &[1, 2, 2]).unwrap();
            let check = |output: &[f64], bound: f64| {
                // The root of a negative trace is no number.
                let is_right = if compensated {
                    expected.iter().chain(output).all(|entry| entry.is_nan())
                } else {
                    difference(&expected, output) <= bound
                };
                assert!(is_right, "{matrix:?}, {layer}: {output:?} for {expected:?}");
            };
            check(&output::<Single>(layer, &matrix, &[1, 2, 2]), 1e-5);
            check(&output::<f32>(layer, &matrix, &[1, 2, 2]), 1e-5);
            check(&output::<f64>(layer, &matrix, &[1, 2, 2]), 1e-12);
        }
    }
}

#[test]
fn the_least_epsilon_is_the_matrix_where_features_are_the_same() {
    for normalization in [Normalization::Trace, Normalization::Frobenius] {
        for (channels, positions) in [(1, 1), (9, 1), (24, 1), (24, 7), (30, 40)] {
            // Float64 alone holds the last, but not its square.
            for value in [0.0, 0.3, 1e-30, 1e30, 3e38, 1e300] {
                for epsilon in [1e-45, 1e-40, 1e-38] {
                    let mut layer = Layer::new(OperatorKind::IsqrtCov);
                    (layer.normalization, layer.epsilon) = (normalization, epsilon);
                    let (input, dims) = (vec![value; channels * positions], [1, channels, positions]);
                    // The reference rounds means, also those of equal numbers, but not zeros.
                    let expected = reference::evaluate(&layer, &vec![0.0; input.len()], &dims).unwrap();
                    let check = |output: &[f64], bound: f64| {
                        let found = difference(&expected, output);
                        assert!(found <= bound, "{dims:?} of {value}, {layer}: {found:e}");
                    };
                    check(&output::<f64>(layer, &input, &dims), 1e-15);
                    if value > f32::MAX.into() {
                        continue;
                    }
                    check(&output::<Single>(layer, &input, &dims), 4e-7);
                    check(&output::<f32>(layer, &input, &dims), 4e-7);
                    check(&output::<bf16>(layer, &input, &dims), 4e-3);
                    if value < 1.0 {
                        assert!(output::<f16>(layer, &input, &dims).iter().all(|entry| *entry == 0.0));
                    }
                }
            }
        }
    }
}

#[test]
fn one_channel_varies_little_beside_a_huge_constant_one() {
    let mut random = Random(12);
    for (channels, positions) in [(30, 12), (30, 50)] {
        for compensated in [true, false] {
            let mut layer = Layer::new(OperatorKind::IsqrtCov);
            layer.compensated = compensated;
            let input: Vec<f64> = (0..channels * positions)
                .map(|i| if i < positions { 2.0_f64.powi(127) } else { random.number() * 2.0_f64.powi(-69) })
                .map(|value| f64::from(value as f32))
                .collect();
            // P is next to the least normal number, and its entries lose digits.
            near::<Single>(layer, &input, &[1, channels, positions], 1e-3);
            // The squares of the others may as well be too large.
            let large =
                |i: usize, value: &f64| if i < positions { *value } else { value * 2.0_f64.powi(133) };
            let large: Vec<f64> = input.iter().enumerate().map(|(i, value)| large(i, value)).collect();
            near::<Single>(layer, &large, &[1, channels, positions], 4e-6);
        }
    }
}

#[test]
fn an_iterate_that_is_not_compensated_is_the_same_at_every_scale() {
    let mut random = Random(16);
    for (channels, positions) in [(12, 30), (30, 12)] {
        let layer = Layer { compensated: false, ..Layer::new(OperatorKind::IsqrtCov) };
        let x = sample(&mut random, channels, positions, 0.9);
        for exponent in [-100, 100] {
            let scaled: Vec<f64> =
                x.iter().map(|value| f64::from((value * 2.0_f64.powi(exponent)) as f32)).collect();
            near::<Single>(layer, &scaled, &[1, channels, positions], 4e-6);
        }
    }
}

/// The sum over the positions is beyond the type where the mean is not.
#[test]
fn a_covariance_may_be_as_large_as_its_type() {
    let mut random = Random(17);
    for centered in [true, false] {
        let layer = Layer { centered, ..Layer::new(OperatorKind::CovariancePooling) };
        let input: Vec<f64> =
            (0..12 * 900).map(|_| f64::from((random.number() * 2.0_f64.powi(62)) as f32)).collect();
        near::<Single>(layer, &input, &[1, 12, 900], 4e-6);
    }
}

#[test]
fn a_scale_off_the_diagonal_loses_nothing_that_the_output_can_hold() {
    let mut random = Random(13);
    for (channels, positions) in [(12, 30), (30, 12)] {
        let dims = [1, channels, positions];
        let x = sample(&mut random, channels, positions, 0.9);
        let scaled = |exponent: i32| -> Vec<f64> {
            x.iter().map(|value| f64::from((value * 2.0_f64.powi(exponent)) as f32)).collect()
        };
        for vectorization in Vectorization::ALL {
            let layer = |operator, off_diagonal_scale| Layer {
                vectorization,
                off_diagonal_scale,
                ..Layer::new(operator)
            };
            for exponent in [-100, -80, -60] {
                near::<Single>(layer(OperatorKind::CovariancePooling, 1e30), &scaled(exponent), &dims, 4e-6);
            }
            near::<f64>(
                layer(OperatorKind::CovariancePooling, 1e30),
                &x.iter().map(|value| value * 2.0_f64.powi(-550)).collect::<Vec<_>>(),
                &dims,
                1e-14,
            );
            near::<Single>(layer(OperatorKind::CovariancePooling, 1e-30), &scaled(55), &dims, 4e-6);
            near::<Single>(layer(OperatorKind::IsqrtCov, 1e30), &scaled(-110), &dims, 4e-6);
            near::<Single>(layer(OperatorKind::IsqrtCov, 1e-30), &scaled(110), &dims, 4e-6);
            // Channels of which no two vary together: the root is diagonal, and 0 times any scale is 0.
            let apart: Vec<f64> = (0..4 * 16)
                .map(|i| if (i % 16) & (1 << (i / 16)) == 0 { 2.0_f64.powi(41) } else { -2.0_f64.powi(41) })
                .collect();
            near::<Single>(layer(OperatorKind::IsqrtCov, 1e30), &apart, &[1, 4, 16], 4e-7);
        }
    }
}
