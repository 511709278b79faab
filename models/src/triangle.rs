//! In which order a classifier reads the triangle, by the statistics of its weights.
//!
//! The column of weights that meets entry (i, j) of the root has a norm that depends on channels i and j, and on whether
//! the entry is on the diagonal: ln‖w_(i,j)‖ ≈ a_i + a_j + d·[i = j]. Read in the right order, that explains part of what
//! the norms vary by, and the diagonal stands apart; in the wrong one, columns are given to entries that they do not meet,
//! and it explains nothing. The rule and its threshold were found on trained networks (`models/checkpoints/orders.py`).

use std::fmt;

use isqrt_cov_op::Vectorization;

use crate::weights::{Error, Weights};

/// How well a classifier's weights fit either order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scores {
    /// Read row by row.
    pub row_major: f64,
    /// Read column by column.
    pub column_major: f64,
}

/// So far apart are the scores where the weights tell. On random weights their difference has a standard deviation of about
/// one, and was 5.2 at most in 3000; on classifiers trained on 16 channels and more it was 8.2 at least.
const LEAD: f64 = 6.0;
/// The most that the other order may score, as a share of the better one: where both explain much, something else does.
const RIVAL: f64 = 0.6;
/// Fewer channels have too few entries to tell.
const FEWEST_CHANNELS: usize = 6;
/// Norms that vary by no more than this share of their mean were never trained.
const CONSTANT: f64 = 1e-6;
/// The least norm, as a share of the greatest: columns of channels that are always zero say nothing.
const LEAST: f64 = 1e-4;

impl Scores {
    /// Of the classifier's weights called `name`, of shape [classes, C(C+1)/2].
    ///
    /// # Errors
    /// Weights that cannot be read.
    pub fn of(weights: &Weights, name: &str, channels: usize) -> Result<Self, Error> {
        let none = Self { row_major: 0.0, column_major: 0.0 };
        let Some(norms) = log_norms(weights, name)? else { return Ok(none) };
        if channels < FEWEST_CHANNELS || norms.len() != channels * (channels + 1) / 2 {
            return Ok(none);
        }
        let score = |order| Triangle { norms: &norms, channels, order }.score();
        Ok(Self {
            row_major: score(Vectorization::Upper),
            column_major: score(Vectorization::UpperColumnMajor),
        })
    }

    /// The order; nothing where the weights do not tell.
    #[must_use]
    pub fn order(&self) -> Option<Vectorization> {
        let lead = self.row_major - self.column_major;
        if self.row_major.min(self.column_major) > RIVAL * self.row_major.max(self.column_major) {
            None
        } else if lead >= LEAD {
            Some(Vectorization::Upper)
        } else if lead <= -LEAD {
            Some(Vectorization::UpperColumnMajor)
        } else {
            None
        }
    }
}

impl fmt::Display for Scores {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "read row by row its weights score {:.1}, column by column {:.1}; an order is told where it leads by {LEAD} and the \
             other has at most {:.0} % of its score",
            self.row_major,
            self.column_major,
            100.0 * RIVAL
        )
    }
}

/// ln‖w‖ of every column; nothing where they are all alike or are no numbers.
fn log_norms(weights: &Weights, name: &str) -> Result<Option<Vec<f64>>, Error> {
    let width = weights.dims(name).and_then(|dims| dims.get(1)).map_or(0, |&width| width as usize);
    let mut norms = vec![0.0; width];
    weights.each(name, |index, value| norms[index % width] += value * value)?;
    norms.iter_mut().for_each(|norm| *norm = norm.sqrt());
    let (mean, variance) = moments(&norms);
    let greatest = norms.iter().copied().fold(0.0, f64::max);
    let tells = variance.is_finite() && variance.sqrt() > CONSTANT * mean;
    Ok(tells.then(|| norms.iter().map(|norm| norm.max(LEAST * greatest).ln()).collect()))
}

/// The norms of columns, read as a triangle.
struct Triangle<'a> {
    norms: &'a [f64],
    channels: usize,
    order: Vectorization,
}

impl Triangle<'_> {
    fn norm(&self, i: usize, j: usize) -> f64 {
        self.norms[self.order.position(self.channels, (i.min(j), i.max(j)))]
    }

    /// How much less the fit leaves than chance would, and how far the diagonal stands apart, both in standard deviations.
    fn score(&self) -> f64 {
        let count = self.channels as f64;
        let diagonal: Vec<f64> = (0..self.channels).map(|i| self.norm(i, i)).collect();
        let pairs = || (0..self.channels).flat_map(|j| (0..j).map(move |i| (i, j)));
        let beside: Vec<f64> = pairs().map(|(i, j)| self.norm(i, j)).collect();
        // Least squares off the diagonal: Σ_{j≠i} (a_i + a_j) = (C − 2) a_i + Σ a.
        let sums: Vec<f64> = (0..self.channels)
            .map(|i| (0..self.channels).filter(|&j| j != i).map(|j| self.norm(i, j)).sum())
            .collect();
        let whole = beside.iter().sum::<f64>() / (count - 1.0);
        let of: Vec<f64> = sums.iter().map(|sum| (sum - whole) / (count - 2.0)).collect();
        let off: f64 = pairs().map(|(i, j)| (self.norm(i, j) - of[i] - of[j]).powi(2)).sum();
        let on: Vec<f64> = diagonal.iter().zip(&of).map(|(norm, of)| norm - 2.0 * of).collect();
        let squares = |values: &[f64]| moments(values).1 * (values.len() as f64 - 1.0);
        let total = squares(self.norms);
        let left = (off + squares(&on)).max(1e-12 * total);
        let free = self.norms.len() as f64 - count - 1.0;
        let fit = -free * (left / total).ln() / (2.0 * count.sqrt());
        fit + apart(&diagonal, &beside).abs() / 2.0
    }
}

/// Mean and sample variance.
fn moments(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, squares / (count - 1.0))
}

/// Welch's t: how many standard errors the means are apart.
fn apart(one: &[f64], other: &[f64]) -> f64 {
    let [(mean, variance), (other_mean, other_variance)] = [one, other].map(moments);
    let error = (variance / one.len() as f64 + other_variance / other.len() as f64).sqrt();
    if error > 0.0 { (mean - other_mean) / error } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use isqrt_cov_proto::onnx::TensorProto;

    use super::*;

    /// Weights whose norms are products of the channels', with some noise.
    fn classifier(order: Vectorization, channels: usize, strength: f64) -> Weights {
        let width = channels * (channels + 1) / 2;
        let mut state = 7_u64;
        let mut noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as f64 / f64::from(1_u32 << 31)
        };
        let of: Vec<f64> = (0..channels).map(|_| strength * noise()).collect();
        let mut values = vec![0.0_f32; width];
        for j in 0..channels {
            for i in 0..=j {
                let on_diagonal = if i == j { strength } else { 0.0 };
                values[order.position(channels, (i, j))] =
                    (of[i] + of[j] + on_diagonal + 0.5 * noise()).exp() as f32;
            }
        }
        Weights::new([TensorProto::from_values("fc.weight", &[1, width], &values)], vec![]).unwrap()
    }

    #[test]
    fn the_order_is_that_in_which_the_norms_are_explained() {
        let told =
            |order, strength| Scores::of(&classifier(order, 16, strength), "fc.weight", 16).unwrap().order();
        for order in Vectorization::TRIANGLES {
            assert_eq!(told(order, 0.5), Some(order));
        }
        assert_eq!(told(Vectorization::Upper, 0.0), None);
    }

    #[test]
    fn weights_that_were_never_trained_tell_nothing() {
        let zeros = TensorProto::from_values("fc.weight", &[1, 36], &[0.0_f32; 36]);
        let nan = TensorProto::from_values("nan.weight", &[1, 36], &[f32::NAN; 36]);
        let weights = Weights::new([zeros, nan], vec![]).unwrap();
        for name in ["fc.weight", "nan.weight"] {
            assert_eq!(Scores::of(&weights, name, 8).unwrap().order(), None);
        }
    }
}
