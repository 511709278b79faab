//! What the operators compute, in float64: the plain coupled iteration, and nothing clever.
//!
//! Every kernel is judged by this module, and the exporter finds a layer's attributes with it. It is written to be
//! read beside the paper's equations; its pieces are public because recognition looks at the stages one by one.

use crate::error::Error;
use crate::layer::{Layer, Layout, Normalization, OperatorKind};

/// A square matrix, row by row.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    /// Rows and columns.
    pub side: usize,
    /// `side`² entries, row by row.
    pub entries: Vec<f64>,
}

/// Evaluates `layer` on `input`, whose shape is `dims`. Returns the output's elements; [`Layer::output_dims`] says
/// their shape.
///
/// # Errors
/// A shape that the operator does not take.
///
/// # Panics
/// If `input` does not have the number of elements that `dims` says.
pub fn evaluate(layer: &Layer, input: &[f64], dims: &[usize]) -> Result<Vec<f64>, Error> {
    let extent = layer.extent(dims)?;
    let elements = extent.channels * extent.positions;
    assert_eq!(
        input.len(),
        extent.samples * elements,
        "the input's elements disagree with its shape {dims:?}"
    );
    let mut output = Vec::with_capacity(extent.samples * layer.output_elements(extent.channels));
    for sample in input.chunks_exact(elements) {
        let matrix = match layer.operator {
            OperatorKind::IsqrtCov => root(layer, covariance(layer, sample, extent.channels)),
            OperatorKind::CovariancePooling => covariance(layer, sample, extent.channels),
            OperatorKind::MatrixSqrt => root(layer, symmetric(layer, sample, extent.channels)),
        };
        output.extend(vectorize(layer, &matrix));
    }
    Ok(output)
}

/// Σ = (1/(M−δ)) X (I − 11ᵀ/M) Xᵀ + εI of one sample, in the layer's layout.
#[must_use]
pub fn covariance(layer: &Layer, sample: &[f64], channels: usize) -> Matrix {
    let positions = sample.len() / channels;
    let mut x = vec![0.0; sample.len()];
    for channel in 0..channels {
        for position in 0..positions {
            x[channel * positions + position] = match layer.layout {
                Layout::ChannelsFirst => sample[channel * positions + position],
                Layout::ChannelsLast => sample[position * channels + channel],
            };
        }
    }
    if layer.centered {
        for row in x.chunks_exact_mut(positions) {
            let mean = row.iter().sum::<f64>() / positions as f64;
            row.iter_mut().for_each(|value| *value -= mean);
        }
    }
    let divisor = positions as f64 - f64::from(layer.correction);
    let mut entries = vec![0.0; channels * channels];
    for (i, row) in x.chunks_exact(positions).enumerate() {
        for (j, column) in x.chunks_exact(positions).enumerate().skip(i) {
            let sum: f64 = row.iter().zip(column).map(|(a, b)| a * b).sum();
            entries[i * channels + j] = sum / divisor;
            entries[j * channels + i] = sum / divisor;
        }
    }
    add_to_diagonal(Matrix { side: channels, entries }, layer.epsilon)
}

/// The symmetric matrix whose upper triangle is `sample`'s, plus εI.
#[must_use]
pub fn symmetric(layer: &Layer, sample: &[f64], side: usize) -> Matrix {
    let mut entries = sample.to_vec();
    for i in 0..side {
        for j in 0..i {
            entries[i * side + j] = sample[j * side + i];
        }
    }
    add_to_diagonal(Matrix { side, entries }, layer.epsilon)
}

/// Pre-normalisation, K Newton–Schulz steps, post-compensation.
#[must_use]
pub fn root(layer: &Layer, matrix: Matrix) -> Matrix {
    let t = norm(layer.normalization, &matrix);
    if t == 0.0 {
        // The limit of √t·Y_K(A) for t → 0, where A itself is 0/0.
        return Matrix { entries: vec![0.0; matrix.entries.len()], ..matrix };
    }
    let mut iteration = Iteration::new(scaled(matrix, 1.0 / t));
    for _ in 0..layer.iterations {
        iteration.step();
    }
    if layer.compensated { scaled(iteration.y, t.sqrt()) } else { iteration.y }
}

/// t: the trace or the Frobenius norm.
#[must_use]
pub fn norm(normalization: Normalization, matrix: &Matrix) -> f64 {
    match normalization {
        Normalization::Trace => (0..matrix.side).map(|i| matrix.entries[i * matrix.side + i]).sum(),
        Normalization::Frobenius => {
            // Squared after division by a power of two near the greatest entry: the squares of a matrix that float64 holds may
            // be beyond it. Powers of two round nothing.
            let greatest = matrix.entries.iter().fold(0.0_f64, |greatest, entry| greatest.max(entry.abs()));
            let power = if greatest.is_normal() { greatest.log2().floor().exp2() } else { 1.0 };
            let squares = matrix.entries.iter().map(|entry| (entry / power) * (entry / power));
            squares.sum::<f64>().sqrt() * power
        }
    }
}

/// The coupled Newton–Schulz iteration: Y → A^½ and Z → A^(−½).
#[derive(Debug, Clone)]
pub struct Iteration {
    /// Y.
    pub y: Matrix,
    /// Z.
    pub z: Matrix,
}

impl Iteration {
    /// Y₀ = A, Z₀ = I.
    #[must_use]
    pub fn new(a: Matrix) -> Self {
        let mut z = Matrix { side: a.side, entries: vec![0.0; a.entries.len()] };
        z.entries.iter_mut().step_by(z.side + 1).for_each(|entry| *entry = 1.0);
        Self { y: a, z }
    }

    /// T = ½(3I − ZY);  Y ← YT;  Z ← TZ.
    pub fn step(&mut self) {
        let mut t = scaled(product(&self.z, &self.y), -0.5);
        t.entries.iter_mut().step_by(t.side + 1).for_each(|entry| *entry += 1.5);
        self.y = product(&self.y, &t);
        self.z = product(&t, &self.z);
    }
}

/// The entries that the layer writes, off-diagonal ones scaled.
pub fn vectorize<'a>(layer: &Layer, matrix: &'a Matrix) -> impl Iterator<Item = f64> + use<'a> {
    let scale = f64::from(layer.off_diagonal_scale);
    layer.vectorization.entries(matrix.side).map(move |(i, j)| {
        let entry = matrix.entries[i * matrix.side + j];
        if i == j { entry } else { entry * scale }
    })
}

/// `matrix` times a number.
#[must_use]
pub fn scaled(mut matrix: Matrix, factor: f64) -> Matrix {
    matrix.entries.iter_mut().for_each(|entry| *entry *= factor);
    matrix
}

fn add_to_diagonal(mut matrix: Matrix, epsilon: f32) -> Matrix {
    matrix.entries.iter_mut().step_by(matrix.side + 1).for_each(|entry| *entry += f64::from(epsilon));
    matrix
}

fn product(left: &Matrix, right: &Matrix) -> Matrix {
    let side = left.side;
    let mut entries = vec![0.0; side * side];
    for (row, factors) in entries.chunks_exact_mut(side).zip(left.entries.chunks_exact(side)) {
        for (factor, terms) in factors.iter().zip(right.entries.chunks_exact(side)) {
            for (entry, term) in row.iter_mut().zip(terms) {
                *entry += factor * term;
            }
        }
    }
    Matrix { side, entries }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For a diagonal covariance the iteration acts on each eigenvalue alone: y ← y(3 − m)/2 with m = zy.
    fn scalar_iterate(a: f64, iterations: u32) -> f64 {
        let (mut y, mut z) = (a, 1.0);
        for _ in 0..iterations {
            let t = 0.5 * (3.0 - z * y);
            (y, z) = (y * t, t * z);
        }
        y
    }

    #[test]
    fn orthogonal_channels_follow_the_scalar_iteration() {
        // Rows of a Hadamard matrix are centred and orthogonal: Σ is diagonal with the squared amplitudes.
        let amplitudes = [3.0, 0.5, 0.01];
        let signs = [[1., -1., 1., -1.], [1., 1., -1., -1.], [1., -1., -1., 1.]];
        let input: Vec<f64> = amplitudes.iter().zip(signs).flat_map(|(a, s)| s.map(|s| a * s)).collect();
        let mut layer = Layer::new(OperatorKind::IsqrtCov);
        for iterations in [1, 2, 5, 9] {
            layer.iterations = iterations;
            let output = evaluate(&layer, &input, &[1, 3, 4]).unwrap();
            let t: f64 = amplitudes.iter().map(|a| a * a).sum();
            for (index, amplitude) in [0, 3, 5].into_iter().zip(amplitudes) {
                let expected = t.sqrt() * scalar_iterate(amplitude * amplitude / t, iterations);
                assert!((output[index] - expected).abs() < 1e-14, "K = {iterations}: {output:?}");
            }
            assert!(output[1].abs() < 1e-14 && output[2].abs() < 1e-14 && output[4].abs() < 1e-14);
        }
    }

    #[test]
    fn many_steps_reach_the_root() {
        let mut layer = Layer::new(OperatorKind::MatrixSqrt);
        layer.iterations = 30;
        let root = evaluate(&layer, &[2.0, 1.0, 9.9, 2.0], &[1, 2, 2]).unwrap();
        let root = Matrix { side: 2, entries: root };
        for (found, expected) in product(&root, &root).entries.iter().zip([2.0, 1.0, 1.0, 2.0]) {
            assert!((found - expected).abs() < 1e-12);
        }
    }

    #[test]
    #[allow(clippy::float_cmp)]
    fn the_frobenius_norm_is_as_exact_at_every_scale() {
        let entries = [3.0, -1.5, -1.5, 0.7];
        let norm_at = |scale: f64| {
            norm(
                Normalization::Frobenius,
                &Matrix { side: 2, entries: entries.map(|entry| entry * scale).into() },
            )
        };
        for exponent in [-1000, -520, -1, 1, 520, 1000] {
            let scale = 2.0_f64.powi(exponent);
            assert_eq!(norm_at(scale), norm_at(1.0) * scale, "2^{exponent}");
        }
        assert_eq!(norm_at(0.0), 0.0);
        assert_eq!(norm_at(f64::INFINITY), f64::INFINITY);
        assert!(norm_at(f64::NAN).is_nan());
    }

    #[test]
    fn a_constant_map_gives_zeros_and_a_nan_stays_in_its_sample() {
        let layer = Layer::new(OperatorKind::IsqrtCov);
        let input = [1.0, 1.0, 1.0, 1.0, f64::NAN, 0.0, 0.0, 1.0, 0.0, 1.0, 2.0, 5.0];
        let output = evaluate(&layer, &input, &[3, 2, 2]).unwrap();
        assert_eq!(output[..3], [0.0; 3]);
        assert!(output[3].is_nan());
        assert!(output[6..].iter().all(|value| value.is_finite()));
    }

    #[test]
    fn layouts_agree() {
        let mut layer = Layer::new(OperatorKind::CovariancePooling);
        let first = evaluate(&layer, &[1.0, 2.0, 4.0, 0.0, 5.0, 1.0], &[1, 2, 3]).unwrap();
        layer.layout = Layout::ChannelsLast;
        let last = evaluate(&layer, &[1.0, 0.0, 2.0, 5.0, 4.0, 1.0], &[1, 3, 2]).unwrap();
        assert_eq!(first, last);
    }
}
