//! The kernels against the float64 reference.

mod accuracy;
mod calls;
mod extremes;

use std::sync::atomic::{AtomicUsize, Ordering};

use half::{bf16, f16};

use super::*;
use crate::layer::{Layout, Normalization, OperatorKind};
use crate::reference;
use crate::vectorization::Vectorization;

/// A float32 whose sums run in float32 however few channels there are.
#[derive(Debug, Clone, Copy)]
struct Single(f32);

impl Convert<f32> for Single {
    fn load(from: &[Self], to: &mut [f32]) {
        to.iter_mut().zip(from).for_each(|(to, from)| *to = from.0);
    }
    fn store(from: &[f32], to: &mut [Self]) {
        to.iter_mut().zip(from).for_each(|(to, from)| to.0 = *from);
    }
}

impl Element for Single {
    type Real = f32;
    type Few = f32;

    fn to_f64(self) -> f64 {
        self.0.into()
    }
    fn from_f64(value: f64) -> Self {
        Self(value as f32)
    }
    fn greatest_exponent(elements: &[Self]) -> Option<i32> {
        f32::greatest_exponent(&elements.iter().map(|element| element.0).collect::<Vec<_>>())
    }
}

/// Runs tasks on threads of its own, the last first.
pub(super) struct Threads(pub usize);

impl Executor for Threads {
    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        let left = AtomicUsize::new(tasks);
        std::thread::scope(|scope| {
            for _ in 0..self.0 {
                scope.spawn(|| {
                    while let Ok(index) =
                        left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                    {
                        task(index - 1);
                    }
                });
            }
        });
    }

    fn threads(&self) -> usize {
        self.0
    }
}

/// Numbers that look random and are the same every time (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// Between −1 and 1.
    fn number(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

/// How a sample's singular values fall: not at all, by a factor, or all to the first at once.
fn sample(random: &mut Random, channels: usize, positions: usize, decay: f64) -> Vec<f64> {
    let rank = channels.min(positions);
    let mut x = vec![0.0; channels * positions];
    let mut size = 1.0;
    for _ in 0..rank {
        let left: Vec<f64> = (0..channels).map(|_| random.number()).collect();
        let right: Vec<f64> = (0..positions).map(|_| random.number()).collect();
        for (row, factor) in x.chunks_exact_mut(positions).zip(&left) {
            row.iter_mut().zip(&right).for_each(|(entry, term)| *entry += size * factor * term);
        }
        size *= decay;
        if size < 1e-12 {
            break;
        }
    }
    let offset = random.number();
    x.iter_mut().for_each(|entry| *entry += offset);
    x
}

fn layer(random: &mut Random, operator: OperatorKind) -> Layer {
    let mut layer = Layer::new(operator);
    if operator != OperatorKind::MatrixSqrt {
        layer.centered = random.below(3) > 0;
        layer.correction = random.below(2) as u32;
        layer.vectorization =
            random.pick(&[Vectorization::Upper, Vectorization::UpperColumnMajor, Vectorization::None]);
        layer.off_diagonal_scale = random.pick(&[1.0, std::f32::consts::SQRT_2, 0.0]);
        layer.layout = random.pick(&[Layout::ChannelsFirst, Layout::ChannelsLast]);
    }
    if operator != OperatorKind::CovariancePooling {
        layer.iterations = random.pick(&[1, 2, 3, 4, 5, 5, 5, 6, 7, 9, 12]);
        layer.normalization = random.pick(&[Normalization::Trace, Normalization::Frobenius]);
        layer.compensated = random.below(3) > 0;
    }
    layer.epsilon = random.pick(&[0.0, 0.0, 0.0, 1e-5, 0.3]);
    layer
}

struct Case {
    layer: Layer,
    dims: Vec<usize>,
    input: Vec<f64>,
}

fn case(random: &mut Random, greatest: usize) -> Case {
    let operator = random.pick(&[
        OperatorKind::IsqrtCov,
        OperatorKind::IsqrtCov,
        OperatorKind::CovariancePooling,
        OperatorKind::MatrixSqrt,
    ]);
    let mut layer = layer(random, operator);
    let samples = random.below(4);
    let channels = 1 + random.below(greatest);
    let mut spatial: Vec<usize> = (0..=random.below(3)).map(|_| 1 + random.below(9)).collect();
    spatial[0] = 1 + random.below(greatest);
    let positions: usize = spatial.iter().product();
    if positions == 1 {
        layer.correction = 0;
    }
    let mut input = Vec::new();
    for _ in 0..samples {
        let decay = random.pick(&[1.0, 0.9, 0.5, 0.0]);
        if operator == OperatorKind::MatrixSqrt {
            let x = sample(random, channels, channels, decay);
            let mut pooling = Layer::new(OperatorKind::CovariancePooling);
            pooling.centered = false;
            let covariance = reference::covariance(&pooling, &x, channels);
            // The lower triangle is not read.
            input.extend(
                covariance
                    .entries
                    .iter()
                    .enumerate()
                    .map(|(i, &entry)| if i / channels > i % channels { f64::NAN } else { entry }),
            );
        } else {
            let mut x = sample(random, channels, positions, decay);
            if layer.layout == Layout::ChannelsLast {
                x = (0..x.len()).map(|i| x[i % channels * positions + i / channels]).collect();
            }
            input.extend(x);
        }
    }
    let dims = match (operator, layer.layout) {
        (OperatorKind::MatrixSqrt, _) => vec![samples, channels, channels],
        (_, Layout::ChannelsFirst) => [&[samples, channels], &spatial[..]].concat(),
        (_, Layout::ChannelsLast) => [&[samples], &spatial[..], &[channels]].concat(),
    };
    Case { layer, dims, input }
}

/// The greatest difference from the reference, sample by sample, relative to its greatest entry. Where the input itself is
/// rounded the reference sees the rounded one.
fn error<T: Element>(kernel: &Kernel, case: &Case, executor: &dyn Executor) -> f64 {
    let input: Vec<T> = case.input.iter().map(|&value| T::from_f64(value)).collect();
    let seen: Vec<f64> = input.iter().map(|value| value.to_f64()).collect();
    let expected = reference::evaluate(&case.layer, &seen, &case.dims).unwrap();
    let mut output = vec![T::from_f64(f64::NAN); expected.len()];
    kernel.run(&input, &case.dims, &mut output, executor).unwrap();
    let len = expected.len() / case.dims[0].max(1);
    let samples = expected.chunks_exact(len.max(1)).zip(output.chunks_exact(len.max(1)));
    samples.map(|(expected, output)| difference(expected, output)).fold(0.0, f64::max)
}

fn difference<T: Element>(expected: &[f64], output: &[T]) -> f64 {
    let scale = expected.iter().fold(0.0, |greatest: f64, entry| greatest.max(entry.abs()));
    let difference = expected.iter().zip(output).fold(0.0, |greatest: f64, (expected, found)| {
        let difference = (expected - found.to_f64()).abs();
        if difference.is_nan() { f64::INFINITY } else { greatest.max(difference) }
    });
    if scale == 0.0 { difference } else { difference / scale }
}

#[test]
fn every_operator_type_and_version_agrees_with_the_reference() {
    let mut random = Random(1);
    for round in 0..600 {
        let case = case(&mut random, if round % 20 == 0 { 80 } else { 24 });
        for version in Version::available() {
            let kernel = Kernel::with_version(case.layer, version);
            let check = |error: f64, bound: f64, name: &str| {
                assert!(
                    error <= bound,
                    "round {round}, {name}, {version:?}, {:?}, {:?}: error {error:e}",
                    case.dims,
                    case.layer
                );
            };
            // The smallest eigenvalues, and the errors in them, grow by half at each step.
            let growth = match case.layer.operator {
                OperatorKind::CovariancePooling => 1.0,
                _ => 1.5_f64.powi(case.layer.iterations as i32),
            };
            // The reference's own sums over the positions are plain ones.
            let reference = 2e-16 * (case.input.len() as f64).sqrt();
            check(error::<f64>(&kernel, &case, &Serial), 1e-15 * growth + reference, "float64");
            check(error::<Single>(&kernel, &case, &Serial), 6e-7 * growth + 5e-7, "sums in float32");
            check(error::<f32>(&kernel, &case, &Serial), 6e-7 * growth + 5e-7, "float32");
            check(error::<f16>(&kernel, &case, &Serial), 6e-7 * growth + 6e-4, "float16");
            check(error::<bf16>(&kernel, &case, &Serial), 6e-7 * growth + 4e-3, "bfloat16");
        }
    }
}

/// What the layer gives for an input, as bits.
fn bits<T: Element>(kernel: &Kernel, input: &[T], dims: &[usize], executor: &dyn Executor) -> Vec<u64> {
    let extent = kernel.layer.extent(dims).unwrap();
    let len = extent.samples * kernel.layer.output_elements(extent.channels);
    let mut output = vec![T::from_f64(f64::NAN); len];
    kernel.run(input, dims, &mut output, executor).unwrap();
    output.iter().map(|value| value.to_f64().to_bits()).collect()
}

#[test]
fn threads_and_batch_change_no_bit() {
    let mut random = Random(2);
    for round in 0..60 {
        let mut case = case(&mut random, 130);
        if round % 3 == 0 {
            // Large enough for every step of a sample to be worth several threads, in either form.
            let (channels, positions) =
                random.pick(&[(150, 260), (140, 139), (300, 130), (200, 64), (110, 700)]);
            let mut layer = layer(&mut random, OperatorKind::IsqrtCov);
            layer.layout = Layout::ChannelsFirst;
            let input = (0..2).flat_map(|_| sample(&mut random, channels, positions, 0.9)).collect();
            case = Case { layer, dims: vec![2, channels, positions], input };
        }
        if case.layer.operator == OperatorKind::MatrixSqrt {
            case.input.iter_mut().for_each(|value| *value = if value.is_nan() { 0.0 } else { *value });
        }
        for version in Version::available() {
            let kernel = Kernel::with_version(case.layer, version);
            match round % 5 {
                0 => threads_and_batch_change_nothing::<f64>(&kernel, &case),
                1 => threads_and_batch_change_nothing::<f16>(&kernel, &case),
                2 => threads_and_batch_change_nothing::<bf16>(&kernel, &case),
                3 => threads_and_batch_change_nothing::<Single>(&kernel, &case),
                _ => threads_and_batch_change_nothing::<f32>(&kernel, &case),
            }
        }
    }
}

fn threads_and_batch_change_nothing<T: Element>(kernel: &Kernel, case: &Case) {
    let input: Vec<T> = case.input.iter().map(|&value| T::from_f64(value)).collect();
    let expected = bits(kernel, &input, &case.dims, &Serial);
    for threads in [2, 3, 7] {
        let found = bits(kernel, &input, &case.dims, &Threads(threads));
        assert_eq!(found, expected, "{threads} threads, {:?}, {:?}", case.dims, case.layer);
    }
    if let Some(len) = input.len().checked_div(case.dims[0]) {
        let one = [&[1], &case.dims[1..]].concat();
        let samples = input.chunks_exact(len);
        let alone: Vec<u64> = samples.flat_map(|sample| bits(kernel, sample, &one, &Threads(2))).collect();
        assert_eq!(alone, expected, "alone, {:?}, {:?}", case.dims, case.layer);
    }
}

/// Counts how often it is asked for its threads.
struct Asked(AtomicUsize);

impl Executor for Asked {
    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        Serial.run(tasks, task);
    }

    fn threads(&self) -> usize {
        self.0.fetch_add(1, Ordering::Relaxed);
        2
    }
}

#[test]
fn threads_are_asked_for_only_where_a_sample_is_divided() {
    let asked = |operator, samples, channels, positions| {
        let executor = Asked(AtomicUsize::new(0));
        let (dims, len) = ([samples, channels, positions], samples * channels * positions);
        let input: Vec<f32> = (0..len).map(|i| (i * 7919 % 101) as f32).collect();
        bits(&Kernel::new(Layer::new(operator)), &input, &dims, &executor);
        executor.0.into_inner() > 0
    };
    assert!(!asked(OperatorKind::IsqrtCov, 1, 4, 4));
    assert!(!asked(OperatorKind::IsqrtCov, 1, 64, 49));
    assert!(!asked(OperatorKind::IsqrtCov, 3, 64, 49));
    assert!(!asked(OperatorKind::MatrixSqrt, 1, 64, 64));
    // The covariance's one product is less work than IsqrtCov's.
    assert!(!asked(OperatorKind::CovariancePooling, 3, 256, 49));
    assert!(asked(OperatorKind::IsqrtCov, 1, 256, 196));
    assert!(asked(OperatorKind::IsqrtCov, 3, 256, 196));
}

#[test]
fn a_kernel_serves_several_threads_at_once() {
    let mut random = Random(3);
    let kernel = Kernel::new(Layer::new(OperatorKind::IsqrtCov));
    let cases: Vec<_> = [(64, 49), (20, 100), (30, 7)]
        .map(|(channels, positions)| {
            let x = sample(&mut random, channels, positions, 0.9);
            let input: Vec<f32> = x.iter().map(|&value| value as f32).collect();
            let dims = [1, channels, positions];
            let expected = bits(&kernel, &input, &dims, &Serial);
            (input, dims, expected)
        })
        .into();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for (input, dims, expected) in cases.iter().cycle().take(30) {
                    assert_eq!(&bits(&kernel, input, dims, &Serial), expected);
                }
            });
        }
    });
}

#[test]
fn a_constant_map_gives_zeros_in_every_type_and_form() {
    fn zeros<T: Element>(layer: Layer, dims: &[usize], value: f64) {
        let input = vec![T::from_f64(value); dims.iter().product()];
        let len = layer.output_elements(layer.extent(dims).unwrap().channels);
        let mut output = vec![T::from_f64(f64::NAN); len];
        Kernel::new(layer).run(&input, dims, &mut output, &Serial).unwrap();
        assert!(output.iter().all(|entry| entry.to_f64() == 0.0), "{dims:?}, {value}");
    }
    for (channels, positions) in [(3, 49), (70, 49), (17, 1), (5, 784)] {
        for value in [0.0, 0.1, -7.3e-5, 2.9e4] {
            for layout in [Layout::ChannelsFirst, Layout::ChannelsLast] {
                let mut layer = Layer::new(OperatorKind::IsqrtCov);
                layer.layout = layout;
                layer.compensated = positions == 49;
                let dims = match layout {
                    Layout::ChannelsFirst => [1, channels, positions],
                    Layout::ChannelsLast => [1, positions, channels],
                };
                zeros::<f32>(layer, &dims, value);
                zeros::<f64>(layer, &dims, value);
                zeros::<f16>(layer, &dims, value);
                zeros::<bf16>(layer, &dims, value);
            }
        }
    }
    zeros::<f32>(Layer::new(OperatorKind::MatrixSqrt), &[1, 4, 4], 0.0);
}

#[test]
fn nan_and_infinity_stay_in_their_sample() {
    bad_numbers_stay_in_their_sample::<f32>();
    bad_numbers_stay_in_their_sample::<Single>();
}

fn bad_numbers_stay_in_their_sample<T: Element>() {
    let mut random = Random(4);
    for operator in [OperatorKind::IsqrtCov, OperatorKind::CovariancePooling, OperatorKind::MatrixSqrt] {
        for (channels, positions) in [(20, 20), (40, 9), (9, 40), (9, 70)] {
            let positions = if operator == OperatorKind::MatrixSqrt { channels } else { positions };
            let kernel = Kernel::new(Layer::new(operator));
            let len = channels * positions;
            let mut input: Vec<f64> = (0..3 * len).map(|_| random.number()).collect();
            if operator == OperatorKind::MatrixSqrt {
                for sample in input.chunks_exact_mut(len) {
                    sample.iter_mut().step_by(channels + 1).for_each(|entry| *entry += 20.0);
                }
            }
            let mut input: Vec<T> = input.into_iter().map(T::from_f64).collect();
            let dims = [3, channels, positions];
            let clean = bits(&kernel, &input, &dims, &Serial);
            for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                input[len + 3] = T::from_f64(bad);
                let dirty = bits(&kernel, &input, &dims, &Serial);
                let third = clean.len() / 3;
                assert_eq!(dirty[..third], clean[..third]);
                assert_eq!(dirty[2 * third..], clean[2 * third..]);
                assert!(dirty[third..2 * third].iter().any(|&bits| !f64::from_bits(bits).is_finite()));
                // Nor does it stay in the workspace.
                assert_eq!(bits(&kernel, &input, &dims, &Threads(2)), dirty);
            }
        }
    }
}

/// Every entry is written, whatever the output held.
#[test]
fn what_has_no_finite_norm_is_nan_throughout() {
    let features = |centered, channels, positions| {
        let layer = Layer { centered, ..Layer::new(OperatorKind::IsqrtCov) };
        (layer, [1, channels, positions])
    };
    let root = (Layer::new(OperatorKind::MatrixSqrt), [1, 9, 9]);
    for (layer, dims) in [features(true, 9, 40), features(false, 9, 40), features(false, 40, 9), root] {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut input: Vec<f32> = (0..dims[1] * dims[2]).map(|i| (i % 7) as f32).collect();
            input[0] = bad;
            let mut output = vec![5.0; layer.output_elements(dims[1])];
            Kernel::new(layer).run(&input, &dims, &mut output, &Serial).unwrap();
            assert!(output.iter().all(|entry| entry.is_nan()), "{bad}, {dims:?}, {layer}: {output:?}");
        }
    }
}
