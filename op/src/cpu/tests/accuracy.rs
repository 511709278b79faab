//! How near float32 comes to the float64 reference.

use super::*;

/// The error of a correctly rounded result, relative to the greatest entry, and what float64 loses.
const ROUNDED: f64 = 1.001 * f32::EPSILON as f64 / 2.0;

/// What a graph of standard operators computes in float32: centered, then K coupled steps, every sum in float32.
fn decomposed(layer: &Layer, x: &[f32], channels: usize) -> Vec<f32> {
    let positions = x.len() / channels;
    let mut centered = x.to_vec();
    for row in centered.chunks_exact_mut(positions) {
        let mean = row.iter().sum::<f32>() / positions as f32;
        row.iter_mut().for_each(|value| *value -= mean);
    }
    let mut transposed = vec![0.0; x.len()];
    for (i, value) in centered.iter().enumerate() {
        transposed[i % positions * channels + i / positions] = *value;
    }
    let product = |left: &[f32], right: &[f32], depth: usize| {
        let mut result = vec![0.0_f32; channels * channels];
        for (row, factors) in result.chunks_exact_mut(channels).zip(left.chunks_exact(depth)) {
            for (factor, terms) in factors.iter().zip(right.chunks_exact(channels)) {
                row.iter_mut().zip(terms).for_each(|(entry, term)| *entry += factor * term);
            }
        }
        result
    };
    let covariance: Vec<f32> =
        product(&centered, &transposed, positions).iter().map(|entry| entry / positions as f32).collect();
    let trace: f32 = covariance.iter().step_by(channels + 1).sum();
    let mut y: Vec<f32> = covariance.iter().map(|entry| entry / trace).collect();
    let mut z = vec![0.0; channels * channels];
    z.iter_mut().step_by(channels + 1).for_each(|entry| *entry = 1.0);
    for _ in 0..layer.iterations {
        let mut t: Vec<f32> = product(&z, &y, channels).iter().map(|entry| -0.5 * entry).collect();
        t.iter_mut().step_by(channels + 1).for_each(|entry| *entry += 1.5);
        y = product(&y, &t, channels);
        z = product(&t, &z, channels);
    }
    let root = trace.sqrt();
    layer.vectorization.entries(channels).map(|(i, j)| y[i * channels + j] * root).collect()
}

#[test]
fn float32_is_as_accurate_as_the_decomposed_graph_and_the_gram_form_to_a_millionth() {
    let mut random = Random(6);
    let sizes = [
        (1, 2),
        (5, 3),
        (12, 40),
        (40, 12),
        (23, 70),
        (33, 30),
        (64, 300),
        (100, 49),
        (128, 196),
        (256, 49),
        (300, 64),
    ];
    for iterations in [1, 3, 5, 7, 9] {
        let mut layer = Layer::new(OperatorKind::IsqrtCov);
        layer.iterations = iterations;
        for (channels, positions) in sizes {
            if channels > 50 && iterations != 5 {
                continue;
            }
            let (mut ours, mut graphs): (f64, f64) = (0.0, 0.0);
            for decay in [1.0, 0.97, 0.8, 0.5, 0.0] {
                let x = sample(&mut random, channels, positions, decay);
                let input: Vec<f64> = x.iter().map(|&value| f64::from(value as f32)).collect();
                let expected = reference::evaluate(&layer, &input, &[1, channels, positions]).unwrap();
                let single: Vec<f32> = input.iter().map(|&value| value as f32).collect();
                graphs = graphs.max(difference(&expected, &decomposed(&layer, &single, channels)));
                let case = Case { layer, dims: vec![1, channels, positions], input };
                ours = ours.max(error::<f32>(&Kernel::new(layer), &case, &Serial));
            }
            let name =
                format!("K = {iterations}, {channels}×{positions}: {ours:.1e}, the graph {graphs:.1e}");
            // What a rounding of the covariance, which both have, can become in K steps.
            let rounding = f64::from(f32::EPSILON) * 2.0 * (1.0 + 1.5_f64.powi(iterations as i32));
            assert!(ours <= if channels < FEW { ROUNDED } else { graphs.max(rounding) }, "{name}");
            let programs = Programs::rounded(&layer);
            let form = Form::choose::<Multiplications>(
                &layer,
                crate::layer::Extent { samples: 1, channels, positions },
                &programs,
            );
            assert!(form == Form::Direct || iterations > 5 || ours <= 1e-6, "{name}");
        }
    }
}

/// A size from 1 to 300, small ones as often as large ones.
fn size(random: &mut Random) -> usize {
    (300_f64.powf(random.number().abs()).round() as usize).max(1)
}

#[test]
fn float32_is_accurate_for_every_size_spectrum_and_scale() {
    let mut random = Random(7);
    for round in 0..150 {
        let (channels, positions) = (size(&mut random), size(&mut random).max(2));
        let decay = random.pick(&[1.0, 0.97, 0.8, 0.5, 0.0]);
        let scale = 10.0_f64.powf(18.0 * random.number());
        let x = sample(&mut random, channels, positions, decay);
        let input = x.iter().map(|value| f64::from((value * scale) as f32)).collect();
        let layer = Layer::new(OperatorKind::IsqrtCov);
        let case = Case { layer, dims: vec![1, channels, positions], input };
        let extent = crate::layer::Extent { samples: 1, channels, positions };
        let form = Form::choose::<Multiplications>(&layer, extent, &Programs::rounded(&layer));
        let bound = match form {
            _ if channels < FEW => ROUNDED,
            Form::Gram => 1e-6,
            Form::Direct => 3e-6,
        };
        let found = error::<f32>(&Kernel::new(layer), &case, &Serial);
        assert!(
            found <= bound,
            "round {round}: {channels}×{positions}, {form:?}, decay {decay}, scale {scale:e}: {found:e}"
        );
    }
}

#[test]
fn scales_from_tiny_to_huge_lose_nothing() {
    no_scale_loses::<f32>();
    no_scale_loses::<Single>();
}

fn no_scale_loses<T: Element>() {
    let mut random = Random(5);
    for (channels, positions) in [(12, 30), (30, 12), (12, 80)] {
        let x = sample(&mut random, channels, positions, 0.9);
        for exponent in [-140, -126, -100, -68, -60, -30, 0, 30, 60, 100, 124] {
            let scale = 2.0_f64.powi(exponent);
            let input: Vec<f64> = x.iter().map(|value| f64::from((value * scale) as f32)).collect();
            for operator in [OperatorKind::IsqrtCov, OperatorKind::CovariancePooling] {
                if operator == OperatorKind::CovariancePooling && exponent.abs() > 60 {
                    continue;
                }
                let layer = Layer::new(operator);
                let case = Case { layer, dims: vec![1, channels, positions], input: input.clone() };
                let found = error::<T>(&Kernel::new(layer), &case, &Serial);
                assert!(
                    found < 4e-6 || exponent < -130 && found < 1e-2,
                    "2^{exponent}, {operator:?}: {found:e}"
                );
            }
            let layer = Layer::new(OperatorKind::MatrixSqrt);
            let a: Vec<f64> = (0..channels * channels)
                .map(|i| if i % (channels + 1) == 0 { scale } else { 0.01 * scale })
                .map(|entry| f64::from(entry as f32))
                .collect();
            let case = Case { layer, dims: vec![1, channels, channels], input: a };
            let found = error::<T>(&Kernel::new(layer), &case, &Serial);
            assert!(found < 2e-6, "2^{exponent}, MatrixSqrt: {found:e}");
        }
    }
    // One large channel that is constant beside small ones.
    for (constant, scale) in [(3.0, 1e-29), (2e24, 1e-15), (3e30, 1e-17), (1e6, 1e-17), (100.0, 1e-18)] {
        for (channels, positions) in [(12, 30), (30, 12), (12, 80)] {
            let x = sample(&mut random, channels, positions, 0.9);
            let scaled = x.iter().enumerate();
            let scaled = scaled.map(|(i, value)| if i < positions { constant } else { value * scale });
            let input: Vec<f64> = scaled.map(|value| f64::from(value as f32)).collect();
            for operator in [OperatorKind::IsqrtCov, OperatorKind::CovariancePooling] {
                if operator == OperatorKind::CovariancePooling && scale < 1e-18 {
                    continue;
                }
                let layer = Layer::new(operator);
                let case = Case { layer, dims: vec![1, channels, positions], input: input.clone() };
                let found = error::<T>(&Kernel::new(layer), &case, &Serial);
                assert!(found < 4e-6, "{scale} beside a constant {constant}, {operator:?}: {found:e}");
            }
        }
    }
    // ε far above or below the covariance.
    for (scale, epsilon) in [(1e-18, 1.0), (1e-30, 1e-38), (1e18, 1e-3), (1e18, 3e38)] {
        let mut layer = Layer::new(OperatorKind::IsqrtCov);
        layer.epsilon = epsilon;
        for positions in [20, 50] {
            let x = sample(&mut random, 6, positions, 0.8);
            let input = x.iter().map(|value| f64::from((value * scale) as f32)).collect();
            let case = Case { layer, dims: vec![1, 6, positions], input };
            let found = error::<T>(&Kernel::new(layer), &case, &Serial);
            assert!(found < 4e-6, "scale {scale}, ε = {epsilon}, {positions}: {found:e}");
        }
    }
}

/// Features of `channels` channels and 30 positions whose covariance has eight eigenvalues that are not 0, all of a size, and its
/// K-step iterate: by an orthonormal basis from those of eight channels, where the reference loses nothing.
fn of_rank_eight(layer: &Layer, channels: usize) -> (Vec<f64>, Vec<f64>) {
    const RANK: usize = 8;
    let (mut random, positions) = (Random(14), 30);
    let mut basis: Vec<Vec<f64>> = Vec::new();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    while basis.len() < RANK {
        let mut column: Vec<f64> = (0..channels).map(|_| random.number()).collect();
        // Twice, for what the first time rounds.
        for other in basis.iter().chain(&basis) {
            let part = dot(&column, other);
            column.iter_mut().zip(other).for_each(|(entry, other)| *entry -= part * other);
        }
        let length = dot(&column, &column).sqrt();
        column.iter_mut().for_each(|entry| *entry /= length);
        basis.push(column);
    }
    let few: Vec<f64> = (0..RANK * positions).map(|_| random.number()).collect();
    let root = reference::root(layer, reference::covariance(layer, &few, RANK));
    let spread = |matrix: &[f64], width: usize| -> Vec<f64> {
        let entry = |i: usize, j: usize| (0..RANK).map(|k| basis[k][i] * matrix[k * width + j]).sum();
        (0..channels).flat_map(|i| (0..width).map(move |j| (i, j))).map(|(i, j)| entry(i, j)).collect()
    };
    let half = spread(&root.entries, RANK);
    let turned: Vec<f64> =
        (0..RANK * channels).map(|at| half[at % channels * RANK + at / channels]).collect();
    (spread(&few, positions), spread(&turned, channels))
}

/// The errors that the declaration of `iterations` speaks of, to which this holds it.
#[test]
fn many_steps_magnify_rounding_where_eigenvalues_are_zero() {
    let mut layer = Layer::new(OperatorKind::IsqrtCov);
    (layer.centered, layer.vectorization) = (false, Vectorization::None);
    let (lost, any) = (0.5, f64::INFINITY);
    // K, and between what the errors are in float32 and in float64.
    let cases = [
        (5, 1e-7..1e-6, 1e-16..3e-15),
        (15, 1e-5..1e-4, 1e-14..2e-13),
        (20, 1e-4..1e-3, 1e-13..2e-12),
        (30, lost..any, 3e-12..3e-10),
        (40, lost..any, 5e-10..1e-8),
        (60, lost..any, lost..any),
    ];
    for (iterations, single, double) in cases {
        layer.iterations = iterations;
        let mut errors = [0.0_f64; 3];
        // In the Gram form and in the direct one.
        for channels in [40, 29] {
            let (input, expected) = of_rank_eight(&layer, channels);
            let dims = [1, channels, 30];
            let reference = reference::evaluate(&layer, &input, &dims).unwrap();
            let (kernel, rounded) =
                (Kernel::new(layer), input.iter().map(|&value| value as f32).collect::<Vec<_>>());
            let numbers = |bits: Vec<u64>| bits.into_iter().map(f64::from_bits).collect();
            let outputs: [Vec<f64>; 3] = [
                numbers(bits(&kernel, &rounded, &dims, &Serial)),
                numbers(bits(&kernel, &input, &dims, &Serial)),
                reference,
            ];
            for (error, output) in errors.iter_mut().zip(&outputs) {
                *error = error.max(difference(&expected, output));
            }
        }
        println!("K = {iterations}: {errors:?}");
        let within = |error: f64, bounds: &std::ops::Range<f64>| bounds.start <= error && error <= bounds.end;
        assert!(within(errors[0], &single) && within(errors[1], &double), "K = {iterations}: {errors:?}");
    }
}
