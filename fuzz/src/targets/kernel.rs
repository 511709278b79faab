//! The CPU kernels on any operator, attributes, shape, type and values, held against the float64 reference.

use std::fmt::Debug;
use std::sync::atomic::{AtomicUsize, Ordering};

use arbitrary::{Result, Unstructured};
use fastrand::Rng;
use half::{bf16, f16};
use isqrt_cov_op::cpu::{Element, Executor, Kernel, Serial};
use isqrt_cov_op::declaration::Domain;
use isqrt_cov_op::layer::Value;
use isqrt_cov_op::{Layer, OPERATORS, OperatorKind, reference};

use super::refused;
use crate::mutation::Bytes;

/// The most elements of an input that is run, and the most channels.
const ELEMENTS: usize = 1 << 13;
const CHANNELS: usize = 96;

/// Elements before and after an output that nothing may be written to.
const MARGIN: usize = 64;

/// A layer, and an input for it, as the bytes say.
pub fn run(input: &[u8]) {
    // What is missing is zero.
    let _ = attempt(&mut Unstructured::new(input));
}

/// Changes bytes, or makes an input anew.
pub fn mutate(input: &mut Vec<u8>, random: &mut Rng, bytes: Bytes<'_>) {
    if input.len() < 16 || random.u8(..4) == 0 {
        *input = (0..random.usize(16..2000)).map(|_| random.u8(..)).collect();
    } else {
        bytes(input, random);
    }
}

fn attempt(bytes: &mut Unstructured<'_>) -> Result<()> {
    let operator = bytes.choose(&OPERATORS)?;
    let mut attributes = Vec::new();
    for attribute in operator.attributes {
        if bytes.ratio(1, 2)? {
            attributes.push((attribute.name, value(bytes, attribute.domain)?));
        }
    }
    let layer = match Layer::from_attributes(operator.name, attributes) {
        Ok(layer) => layer,
        Err(error) => {
            refused(&error);
            return Ok(());
        }
    };
    let dims = dims(bytes, layer.operator)?;
    let kernel = Kernel::new(layer);
    match bytes.int_in_range(0..=3)? {
        0 => on::<f32>(bytes, &kernel, &dims, f32::MAX.into(), f32::EPSILON.into()),
        1 => on::<f64>(bytes, &kernel, &dims, f64::MAX, f64::EPSILON),
        2 => on::<f16>(bytes, &kernel, &dims, f16::MAX.into(), f16::EPSILON.into()),
        _ => on::<bf16>(bytes, &kernel, &dims, bf16::MAX.into(), bf16::EPSILON.into()),
    }
}

/// A value of an attribute, most often one that it may have.
fn value(bytes: &mut Unstructured<'_>, domain: Domain) -> Result<Value> {
    let honest = !bytes.ratio(1, 32)?;
    Ok(match domain {
        Domain::Integer { least, most, .. } if honest => Value::Integer(bytes.int_in_range(least..=most)?),
        Domain::Float { .. } if honest => {
            Value::Float(*bytes.choose(&[0.0, 1.0, 1e-5, 0.3, 1.5, f32::MIN_POSITIVE, 1e-45, 1e9])?)
        }
        Domain::Word(words) if honest => Value::Word((*bytes.choose(words)?).to_owned()),
        _ => match bytes.int_in_range(0..=2)? {
            0 => Value::Integer(bytes.arbitrary()?),
            1 => Value::Float(bytes.arbitrary()?),
            _ => Value::Word(bytes.arbitrary()?),
        },
    })
}

/// A shape, most often one that the operator takes.
fn dims(bytes: &mut Unstructured<'_>, operator: OperatorKind) -> Result<Vec<usize>> {
    if bytes.ratio(1, 32)? {
        let rank = bytes.int_in_range(0..=5)?;
        return (0..rank).map(|_| bytes.arbitrary()).collect();
    }
    let samples = bytes.int_in_range(0..=4)?;
    let side = bytes.int_in_range(1..=CHANNELS)?;
    if operator == OperatorKind::MatrixSqrt {
        return Ok(vec![samples, side, side]);
    }
    let mut dims = vec![samples, side];
    for _ in 0..bytes.int_in_range(1..=3)? {
        let most = [64, 12, 4][dims.len() - 2];
        dims.push(bytes.int_in_range(1..=most)?);
    }
    Ok(dims)
}

/// Runs the kernel where the shape is not too large for that; asks what it needs in any case.
fn on<T: Element + Debug>(
    bytes: &mut Unstructured<'_>,
    kernel: &Kernel,
    dims: &[usize],
    greatest: f64,
    rounding: f64,
) -> Result<()> {
    let layer = kernel.layer();
    let extent = match layer.extent(dims) {
        Ok(extent) => extent,
        Err(error) => {
            refused(&error);
            return Ok(());
        }
    };
    if let Err(error) = kernel.workspace::<T>(dims) {
        refused(&error);
    }
    if let Err(error) = kernel.operations::<T>(dims) {
        refused(&error);
    }
    let sample = extent.channels.checked_mul(extent.positions);
    let elements = sample.and_then(|sample| sample.checked_mul(extent.samples));
    let Some(elements) = elements.filter(|&elements| elements <= ELEMENTS) else { return Ok(()) };
    if extent.channels > CHANNELS {
        return Ok(());
    }
    // Where the bytes end, any numbers follow.
    let mut random = Rng::with_seed(bytes.arbitrary()?);
    let any = |random: &mut Rng| T::from_f64(2.0 * random.f64() - 1.0);
    let next = |_| if bytes.is_empty() { Ok(any(&mut random)) } else { number(bytes) };
    let mut input: Box<[T]> = (0..elements).map(next).collect::<Result<_>>()?;
    if layer.operator == OperatorKind::MatrixSqrt && bytes.ratio(1, 2)? {
        input.chunks_exact_mut(dims[1] * dims[1]).for_each(|matrix| make_definite(matrix, dims[1]));
    }
    let output = computed(kernel, &input, dims, &Serial);
    let threads = Threads(bytes.int_in_range(2..=5)?);
    let size = layer.output_elements(extent.channels);
    let same = |found: &[T], expected: &[T], what: &str| {
        let same = found.iter().zip(expected).all(|(found, expected)| bits(*found) == bits(*expected));
        assert!(same && found.len() == expected.len(), "{what} change a bit: {layer:?}, {dims:?}");
    };
    same(&computed(kernel, &input, dims, &threads), &output, "threads");
    let sample = elements.checked_div(extent.samples).unwrap_or(1);
    let alone = [&[1], &dims[1..]].concat();
    for (input, output) in input.chunks_exact(sample).zip(output.chunks_exact(size)) {
        same(&computed(kernel, input, &alone, &Serial), output, "neighbors");
        compare(kernel, input, &alone, output, greatest, rounding);
    }
    Ok(())
}

/// An element: of any bits, or one between −1 and 1, or one of those that do harm.
fn number<T: Element>(bytes: &mut Unstructured<'_>) -> Result<T> {
    let byte: u8 = bytes.arbitrary()?;
    Ok(T::from_f64(match byte {
        0..=15 => f32::from_bits(bytes.arbitrary()?).into(),
        16 => f64::NAN,
        17 => f64::INFINITY,
        18 => f64::NEG_INFINITY,
        19 => 1e-40,
        20 => 1e-310,
        21 => 6e-8,
        22 => 1e18,
        23 => -1e-18,
        24 => f64::from_bits(bytes.arbitrary()?),
        25 => 3e38,
        _ => f64::from(byte) / 115.0 - 1.22,
    }))
}

/// The number as it is, NaNs of every kind apart.
fn bits<T: Element>(value: T) -> u64 {
    value.to_f64().to_bits()
}

/// What the kernel gives. Nothing beside the output is written.
fn computed<T: Element + Debug>(
    kernel: &Kernel,
    input: &[T],
    dims: &[usize],
    executor: &dyn Executor,
) -> Vec<T> {
    let size =
        dims[0] * kernel.layer().output_elements(kernel.layer().extent(dims).map_or(0, |it| it.channels));
    let canary = T::from_f64(-1234.5);
    let mut around = vec![canary; size + 2 * MARGIN];
    let result = kernel.run(input, dims, &mut around[MARGIN..MARGIN + size], executor);
    result.expect("there is memory for small shapes");
    let (front, rest) = around.split_at(MARGIN);
    let (output, back) = rest.split_at(size);
    let untouched = front.iter().chain(back).all(|&element| bits(element) == bits(canary));
    assert!(untouched, "written beside the output: {:?}, {dims:?}", kernel.layer());
    output.to_vec()
}

/// Holds the output for one sample against the float64 reference, where that is finite and the sample not so that every
/// rounding is amplified beyond measure.
fn compare<T: Element + Debug>(
    kernel: &Kernel,
    input: &[T],
    dims: &[usize],
    output: &[T],
    greatest: f64,
    rounding: f64,
) {
    let layer = kernel.layer();
    let seen: Vec<f64> = input.iter().map(|value| value.to_f64()).collect();
    let magnitude = seen.iter().fold(0.0_f64, |greatest, value| greatest.max(value.abs()));
    // Where squares of float64 numbers overflow or vanish, the reference is worse than the kernel, which scales them.
    let plain = magnitude == 0.0 || (1e-100..1e100).contains(&magnitude);
    if seen.iter().any(|value| !value.is_finite()) || !plain {
        return;
    }
    let Ok(expected) = reference::evaluate(layer, &seen, dims) else { return };
    // An entry off the diagonal is rounded as the greatest of the matrix is, and scaled with its error.
    let factor = f64::from(layer.off_diagonal_scale).abs();
    let Ok(matrix) = reference::evaluate(&Layer { off_diagonal_scale: 1.0, ..*layer }, &seen, dims) else {
        return;
    };
    let scale = factor.max(1.0) * matrix.iter().fold(0.0_f64, |greatest, value| greatest.max(value.abs()));
    let bound = tolerance(layer, &seen, dims, rounding);
    if expected.iter().any(|value| !value.is_finite()) || bound > 0.05 || scale > greatest {
        return;
    }
    for (found, expected) in output.iter().zip(&expected) {
        let error = (found.to_f64() - expected).abs();
        assert!(
            error <= bound * scale + greatest.recip(),
            "{found:?} instead of {expected:e}, where the greatest is {scale:e} and {bound:e} of it is allowed: \
             {layer:?}, {dims:?}, {input:?}"
        );
    }
}

/// How much of the greatest entry an output may be off.
fn tolerance(layer: &Layer, sample: &[f64], dims: &[usize], rounding: f64) -> f64 {
    // Sums run in float32 at least.
    let sums = rounding.min(f32::EPSILON.into());
    let pooled = layer.operator != OperatorKind::MatrixSqrt;
    // Where A has an eigenvalue of zero, Y has a rounding error, and at each step it grows by half, as Z's eigenvalue does. Once
    // their product is no longer small the iteration departs from the root, in the reference as well.
    let departed = sums * 2.25_f64.powi(layer.iterations as i32) > 1e-3;
    let growth = if layer.operator == OperatorKind::CovariancePooling {
        1.0
    } else if departed {
        return f64::INFINITY;
    } else if pooled || is_definite(sample, dims[1]) {
        // The smallest eigenvalues, and the errors in them, grow by half at each step.
        1.5_f64.powi(layer.iterations as i32)
    } else {
        return f64::INFINITY;
    };
    // What is left of the numbers once their mean is taken out has lost as many digits as it is smaller.
    let amplification = if pooled && layer.centered { amplification(layer, sample, dims) } else { 1.0 };
    // Kernel and reference add one product after another, and each sum may be half a unit off in the same direction.
    let terms = layer.extent(dims).map_or(0.0, |extent| extent.positions as f64);
    let sums = 16.0 * sums + 0.5 * terms * (sums + f64::EPSILON);
    sums * growth * amplification + rounding
}

/// The greatest magnitude over the greatest one around its channel's mean.
fn amplification(layer: &Layer, sample: &[f64], dims: &[usize]) -> f64 {
    let channels = layer.extent(dims).map_or(1, |extent| extent.channels);
    let positions = sample.len() / channels;
    let greatest = sample.iter().fold(0.0_f64, |greatest, value| greatest.max(value.abs()));
    let element = |channel: usize, position: usize| match layer.layout {
        isqrt_cov_op::Layout::ChannelsFirst => sample[channel * positions + position],
        isqrt_cov_op::Layout::ChannelsLast => sample[position * channels + channel],
    };
    let around = (0..channels).map(|channel| {
        let row = (0..positions).map(|position| element(channel, position));
        let mean = row.clone().sum::<f64>() / positions as f64;
        row.map(|value| (value - mean).abs()).fold(0.0, f64::max)
    });
    let around = around.fold(0.0, f64::max);
    if greatest == 0.0 { 1.0 } else { greatest / around }
}

/// Makes the diagonal so great that no eigenvalue is negative.
fn make_definite<T: Element>(matrix: &mut [T], side: usize) {
    for row in 0..side {
        let sum: f64 =
            (0..side).map(|column| matrix[row.min(column) * side + row.max(column)].to_f64().abs()).sum();
        matrix[row * side + row] = T::from_f64(1.01 * sum);
    }
}

/// Whether a matrix has, by its diagonal, no negative eigenvalue: for others the iteration need not converge.
fn is_definite(matrix: &[f64], side: usize) -> bool {
    (0..side).all(|row| {
        let entry = |column: usize| matrix[row.min(column) * side + row.max(column)];
        let others: f64 = (0..side).filter(|&column| column != row).map(|column| entry(column).abs()).sum();
        entry(row) >= others
    })
}

/// Runs tasks on threads of its own, the last first.
struct Threads(usize);

impl Executor for Threads {
    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        let done = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..self.0 {
                scope.spawn(|| {
                    loop {
                        let index = done.fetch_add(1, Ordering::Relaxed);
                        if index >= tasks {
                            break;
                        }
                        task(tasks - 1 - index);
                    }
                });
            }
        });
    }

    fn threads(&self) -> usize {
        self.0
    }
}
