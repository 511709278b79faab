//! What any attributes would give on one sample, from its eigenvalues.
//!
//! Σ = V diag(λ) Vᵀ, and every step of the iteration is a polynomial in Σ: it acts on each eigenvalue alone. One
//! decomposition of a sample therefore predicts the output under thousands of attribute combinations, where the plain
//! iteration would need 3K products of matrices for each. The winner is still judged by the plain iteration.

use std::ops::Range;

use isqrt_cov_op::{Layer, Layout, Normalization, OperatorKind};
use nalgebra::{DMatrix, SymmetricEigen};

/// Eigenvalues that are worked on side by side.
const LANES: usize = 8;

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

    /// The spectrum's part in the `entries` (row, column) of every function of the matrix.
    #[must_use]
    pub fn at(&self, entries: &[(usize, usize)]) -> Basis {
        let products = entries.iter().flat_map(|&(i, j)| {
            let (row, column) = (self.vectors.row(i), self.vectors.row(j));
            (0..self.values.len()).map(move |k| row[k] * column[k])
        });
        Basis {
            side: self.side,
            positions: self.positions,
            values: self.values.clone(),
            on_diagonal: entries.iter().map(|(i, j)| i == j).collect(),
            products: products.collect(),
        }
    }
}

/// Some entries of a matrix, as sums over its eigenvalues: for entry (i, j), f(Σ) is Σₖ f(λₖ) vᵢₖ vⱼₖ.
#[derive(Debug)]
pub struct Basis {
    side: usize,
    positions: Option<f64>,
    values: Vec<f64>,
    /// Whether each entry is on the diagonal.
    on_diagonal: Vec<bool>,
    /// vᵢₖ vⱼₖ, entry by entry.
    products: Vec<f64>,
}

impl Basis {
    /// The eigenvalues that are not 0.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.values.len()
    }

    /// What `layer` gives for the entries in `range`, off-diagonal ones scaled.
    #[must_use]
    pub fn predict(&self, layer: &Layer, range: Range<usize>) -> Vec<f64> {
        match layer.operator {
            OperatorKind::CovariancePooling => self.predict_images(layer, range, |_, _| {}),
            _ => self.predict_images(layer, range, |values, t| {
                let scale = if layer.compensated { t.sqrt() } else { 1.0 };
                for values in values.chunks_mut(LANES) {
                    let mut lanes = [0.0; LANES];
                    lanes.iter_mut().zip(&*values).for_each(|(lane, value)| *lane = value / t);
                    let (roots, _) = newton_schulz(lanes, layer.iterations);
                    values.iter_mut().zip(roots).for_each(|(value, root)| *value = scale * root);
                }
            }),
        }
    }

    /// The same for a function f(λ, t) of the eigenvalues of Σ and its normaliser, with the rest as `layer` says.
    #[must_use]
    pub fn predict_image(
        &self,
        layer: &Layer,
        range: Range<usize>,
        image: &dyn Fn(f64, f64) -> f64,
    ) -> Vec<f64> {
        self.predict_images(layer, range, |values, t| {
            values.iter_mut().for_each(|value| *value = image(*value, t));
        })
    }

    /// The same for what replaces eigenvalues by their images.
    fn predict_images(
        &self,
        layer: &Layer,
        range: Range<usize>,
        replace: impl Fn(&mut [f64], f64),
    ) -> Vec<f64> {
        let divisor = self.positions.map_or(1.0, |positions| positions - f64::from(layer.correction));
        let epsilon = f64::from(layer.epsilon);
        let mut images: Vec<f64> = self.values.iter().map(|value| value / divisor + epsilon).collect();
        let rank = images.len();
        let rest = (self.side - rank) as f64;
        let t = match layer.normalization {
            Normalization::Trace => images.iter().sum::<f64>() + rest * epsilon,
            Normalization::Frobenius => {
                (images.iter().map(|l| l * l).sum::<f64>() + rest * epsilon * epsilon).sqrt()
            }
        };
        // The eigenvectors that are left out share one image.
        let mut of_rest = [epsilon];
        replace(&mut of_rest, t);
        let of_rest = if rest > 0.0 { of_rest[0] } else { 0.0 };
        replace(&mut images, t);
        images.iter_mut().for_each(|value| *value -= of_rest);
        let off_diagonal_scale = f64::from(layer.off_diagonal_scale);
        let entry = |entry: usize| {
            let products = &self.products[entry * rank..(entry + 1) * rank];
            let sum = dot(&images, products);
            if self.on_diagonal[entry] { sum + of_rest } else { sum * off_diagonal_scale }
        };
        range.map(entry).collect()
    }
}

/// The Newton–Schulz iterates (y, z) of some eigenvalues a of A: y ← y(3 − zy)/2, z ← z(3 − zy)/2 from y = a, z = 1.
#[must_use]
pub fn newton_schulz<const N: usize>(a: [f64; N], iterations: u32) -> ([f64; N], [f64; N]) {
    let (mut y, mut z) = (a, [1.0; N]);
    for _ in 0..iterations {
        for (y, z) in y.iter_mut().zip(&mut z) {
            let t = 0.5 * (3.0 - *z * *y);
            (*y, *z) = (*y * t, t * *z);
        }
    }
    (y, z)
}

/// Σ left · right. Each step of one sum waits for the one before, so there are several.
fn dot(left: &[f64], right: &[f64]) -> f64 {
    let mut sums = [0.0; LANES];
    let (left, left_rest) = left.as_chunks::<LANES>();
    let (right, right_rest) = right.as_chunks::<LANES>();
    for (left, right) in left.iter().zip(right) {
        for (sum, (left, right)) in sums.iter_mut().zip(left.iter().zip(right)) {
            *sum += left * right;
        }
    }
    let rest = left_rest.iter().zip(right_rest).map(|(left, right)| left * right);
    sums.into_iter().chain(rest).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distance::relative_distance;
    use crate::recognize::probe::Generator;
    use isqrt_cov_op::{Vectorization, reference};

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
        let entries: Vec<_> = layer.vectorization.entries(extent.channels).filter(|(i, j)| i <= j).collect();
        let predicted = spectrum.at(&entries).predict(layer, 0..entries.len());
        let position = |&entry: &(usize, usize)| layer.vectorization.position(extent.channels, entry);
        let expected: Vec<f64> = entries.iter().map(|entry| expected[position(entry)]).collect();
        let distance = relative_distance(&predicted, &expected);
        assert!(distance < 1e-10, "{layer:?}: {distance}, {predicted:?} {expected:?}");
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
