//! What any attributes would give on one sample, from its eigenvalues.
//!
//! Σ = V diag(λ) Vᵀ, and every step of the iteration is a polynomial in Σ: it acts on each eigenvalue alone. One
//! decomposition of a sample therefore predicts the output under thousands of attribute combinations, where the plain
//! iteration would need 3K products of matrices for each. The winner is still judged by the plain iteration.

use isqrt_cov_op::{Layer, Layout, Normalization, OperatorKind, Vectorization};
use nalgebra::{DMatrix, SymmetricEigen};

/// The eigenvalues and eigenvectors that a matrix operator's input has.
#[derive(Debug)]
pub struct Spectrum {
    /// C, or d.
    side: usize,
    /// Divisor of the eigenvalues before δ is taken off; none where they need no division.
    positions: Option<f64>,
    /// Eigenvalues of X̄X̄ᵀ that are not zero.
    values: Vec<f64>,
    /// side × values.len(): the eigenvectors.
    vectors: DMatrix<f64>,
}

impl Spectrum {
    /// The spectrum of X̄X̄ᵀ for one sample of `channels` channels.
    #[must_use]
    pub fn of_features(sample: &[f64], channels: usize, layout: Layout, centered: bool) -> Self {
        let positions = sample.len() / channels;
        let mut x = match layout {
            Layout::ChannelsFirst => DMatrix::from_row_slice(channels, positions, sample),
            Layout::ChannelsLast => DMatrix::from_column_slice(channels, positions, sample),
        };
        if centered {
            for mut row in x.row_iter_mut() {
                let mean = row.mean();
                row.add_scalar_mut(-mean);
            }
        }
        let wide = positions >= channels;
        let eigen = SymmetricEigen::new(if wide { &x * x.transpose() } else { x.tr_mul(&x) });
        let negligible = 1e-13 * eigen.eigenvalues.amax();
        let kept: Vec<usize> =
            (0..eigen.eigenvalues.len()).filter(|&k| eigen.eigenvalues[k] > negligible).collect();
        let values: Vec<f64> = kept.iter().map(|&k| eigen.eigenvalues[k]).collect();
        let mut vectors = eigen.eigenvectors.select_columns(&kept);
        if !wide {
            // X̄ᵀX̄ = W diag(σ²) Wᵀ has the same eigenvalues, and V = X̄ W / σ.
            vectors = x * vectors;
            for (mut column, value) in vectors.column_iter_mut().zip(&values) {
                column /= value.sqrt();
            }
        }
        Self { side: channels, positions: Some(positions as f64), values, vectors }
    }

    /// The spectrum of a symmetric matrix.
    #[must_use]
    pub fn of_matrix(sample: &[f64], side: usize) -> Self {
        let eigen = SymmetricEigen::new(DMatrix::from_row_slice(side, side, sample));
        Self {
            side,
            positions: None,
            values: eigen.eigenvalues.iter().copied().collect(),
            vectors: eigen.eigenvectors,
        }
    }

    /// What `layer` gives for the entries (row, column) of its matrix, off-diagonal ones scaled.
    #[must_use]
    pub fn predict(&self, layer: &Layer, entries: &[(usize, usize)]) -> Vec<f64> {
        let divisor = self.positions.map_or(1.0, |positions| positions - f64::from(layer.correction));
        let epsilon = f64::from(layer.epsilon);
        let lambdas: Vec<f64> = self.values.iter().map(|value| value / divisor + epsilon).collect();
        let rest = self.side - lambdas.len();
        let (images, of_epsilon) = if layer.operator == OperatorKind::CovariancePooling {
            (lambdas, epsilon)
        } else {
            let t = match layer.normalization {
                Normalization::Trace => lambdas.iter().sum::<f64>() + rest as f64 * epsilon,
                Normalization::Frobenius => {
                    (lambdas.iter().map(|l| l * l).sum::<f64>() + rest as f64 * epsilon * epsilon).sqrt()
                }
            };
            let scale = if layer.compensated { t.sqrt() } else { 1.0 };
            let image = |lambda: f64| scale * iterate(lambda / t, layer.iterations);
            (lambdas.iter().map(|&lambda| image(lambda)).collect(), image(epsilon))
        };
        let off_diagonal_scale = f64::from(layer.off_diagonal_scale);
        entries
            .iter()
            .map(|&(i, j)| {
                let row = self.vectors.row(i);
                let column = self.vectors.row(j);
                let sum: f64 = images
                    .iter()
                    .zip(row.iter().zip(column.iter()))
                    .map(|(f, (v, w))| (f - of_epsilon) * v * w)
                    .sum();
                if i == j { sum + of_epsilon } else { sum * off_diagonal_scale }
            })
            .collect()
    }
}

/// The Newton–Schulz iterate of one eigenvalue a of A: y ← y(3 − zy)/2, z ← z(3 − zy)/2 from y = a, z = 1.
fn iterate(a: f64, iterations: u32) -> f64 {
    let (mut y, mut z) = (a, 1.0);
    for _ in 0..iterations {
        let t = 0.5 * (3.0 - z * y);
        (y, z) = (y * t, t * z);
    }
    y
}

/// Where entry (row, column), row ≤ column, stands in a sample's output.
#[must_use]
pub fn position(vectorization: Vectorization, side: usize, (row, column): (usize, usize)) -> usize {
    match vectorization {
        Vectorization::None => row * side + column,
        Vectorization::Upper => row * side + column - row * (row + 1) / 2,
        Vectorization::UpperColumnMajor => column * (column + 1) / 2 + row,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recognize::probe::Generator;
    use isqrt_cov_op::reference;

    fn check(layer: &Layer, dims: &[usize]) {
        let extent = layer.extent(dims).unwrap();
        let mut generator = Generator::new(3);
        let sample: Vec<f64> =
            (0..extent.channels * extent.positions).map(|_| generator.normal() + 0.3).collect();
        let spectrum = match layer.operator {
            OperatorKind::MatrixSqrt => Spectrum::of_matrix(&sample, extent.channels),
            _ => Spectrum::of_features(&sample, extent.channels, layer.layout, layer.centered),
        };
        let expected = reference::evaluate(layer, &sample, dims).unwrap();
        let entries: Vec<_> = layer.entries(extent.channels).filter(|(i, j)| i <= j).collect();
        let largest = expected.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
        for (&entry, predicted) in entries.iter().zip(spectrum.predict(layer, &entries)) {
            let expected = expected[position(layer.vectorization, extent.channels, entry)];
            assert!(
                (predicted - expected).abs() < 1e-10 * largest,
                "{layer:?} at {entry:?}: {predicted} {expected}"
            );
        }
    }

    #[test]
    fn prediction_is_the_reference() {
        for dims in [[1, 5, 9], [1, 9, 4]] {
            for operator in [OperatorKind::IsqrtCov, OperatorKind::CovariancePooling] {
                for normalization in Normalization::ALL {
                    for vectorization in Vectorization::ALL {
                        for centered in [false, true] {
                            let mut layer = Layer::new(operator);
                            layer.normalization = normalization;
                            layer.vectorization = vectorization;
                            layer.centered = centered;
                            check(&layer, &dims);
                            layer.epsilon = 0.125;
                            layer.correction = 1;
                            layer.compensated = false;
                            layer.off_diagonal_scale = 1.5;
                            layer.layout = Layout::ChannelsLast;
                            check(&layer, &dims);
                        }
                    }
                }
            }
        }
    }
}
