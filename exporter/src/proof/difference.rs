//! How far apart two tensors are, gathered over many runs.

// Equal means equal to the last bit here; how near is near enough is judged by who asks.
#![allow(clippy::float_cmp)]

use crate::distance::{distance_of_unlike, magnitude, same};
use crate::tensor::Tensor;

/// The difference between an output of the reference and the same of the candidate, over all runs.
#[derive(Debug, Clone)]
pub struct Difference {
    /// The greatest max|Δ| / max|reference| of a run.
    pub max: f64,
    /// Where it was.
    pub worst: Option<Place>,
    /// Elements that are NaN on one side only, or infinite on one side only.
    pub lone: u64,
    /// Elements that are finite on both sides.
    pub finite: u64,
    sum: f64,
    histogram: Vec<u64>,
    /// What the reference gave for the first sample, how many more there were, and the greatest max|Δ| / max|first| of any of them.
    first: Option<Vec<f64>>,
    others: usize,
    variation: f64,
}

/// Errors of one order.
#[derive(Debug, Clone, PartialEq)]
pub struct Bin {
    /// The least error.
    pub from: f64,
    /// The error at which the next bin begins.
    pub to: f64,
    /// How many elements have such an error.
    pub count: u64,
}

/// An element on which the models differ.
#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    /// In which run.
    pub run: String,
    /// Its indices.
    pub index: Vec<usize>,
    /// Its value in the reference.
    pub reference: f64,
    /// Its value in the candidate.
    pub candidate: f64,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "on {} at {:?}: {:e} in the reference, {:e} in the candidate",
            self.run, self.index, self.reference, self.candidate
        )
    }
}

/// Buckets per factor of ten: quantiles are exact to 2 %.
const RESOLUTION: f64 = 100.0;
/// log₁₀ of the least and the greatest error that have a bucket of their own.
const RANGE: (f64, f64) = (-20.0, 6.0);

impl Difference {
    /// Nothing compared so far.
    #[must_use]
    pub fn new() -> Self {
        let buckets = ((RANGE.1 - RANGE.0) * RESOLUTION) as usize + 2;
        Self {
            max: 0.0,
            worst: None,
            lone: 0,
            finite: 0,
            sum: 0.0,
            histogram: vec![0; buckets],
            first: None,
            others: 0,
            variation: 0.0,
        }
    }

    /// Compares one more run. NaN on both sides counts as equal; so do equal infinities.
    ///
    /// # Panics
    /// If the two have different shapes.
    pub fn add(&mut self, reference: &Tensor, candidate: &Tensor, run: &str) {
        assert_eq!(reference.dims(), candidate.dims(), "shapes are compared first");
        let (expected, found) = (reference.to_f64(), candidate.to_f64());
        let scale = magnitude(expected.iter().filter(|value| value.is_finite()));
        let samples = reference.dims().first().copied().unwrap_or(1).max(1);
        expected.chunks((expected.len() / samples).max(1)).for_each(|sample| self.note_variation(sample));
        for (position, (&expected, &found)) in expected.iter().zip(&found).enumerate() {
            let error = if same(expected, found) {
                0.0
            } else if expected.is_finite() && found.is_finite() {
                // Infinite where the reference is 0 throughout.
                (expected - found).abs() / scale
            } else {
                self.lone += 1;
                f64::INFINITY
            };
            if expected.is_finite() && found.is_finite() {
                self.finite += 1;
                self.sum += error;
                self.histogram[bucket(error)] += 1;
            }
            if error > self.max {
                self.max = error;
                let index = unravel(position, reference.dims());
                self.worst =
                    Some(Place { run: run.to_owned(), index, reference: expected, candidate: found });
            }
        }
    }

    /// Mean |Δ| / max|reference| over all finite elements.
    #[must_use]
    pub fn mean(&self) -> f64 {
        if self.finite == 0 { 0.0 } else { self.sum / self.finite as f64 }
    }

    /// The error that 99.9 % of the finite elements do not exceed, to 2 %.
    #[must_use]
    pub fn quantile_999(&self) -> f64 {
        let beyond = self.finite / 1000;
        let mut above = 0;
        for (index, &count) in self.histogram.iter().enumerate().rev() {
            above += count;
            if above > beyond {
                return if index == 0 { 0.0 } else { upper_edge(index).min(self.max) };
            }
        }
        0.0
    }

    /// How many of the finite elements have no error at all, and how many have an error of each order: `per_decade` bins
    /// per factor of ten, from the least error to the greatest.
    ///
    /// # Panics
    /// If `per_decade` does not divide the number of buckets per factor of ten.
    #[must_use]
    pub fn bins(&self, per_decade: usize) -> (u64, Vec<Bin>) {
        let width = RESOLUTION as usize / per_decade;
        assert_eq!(width * per_decade, RESOLUTION as usize, "bins are made of whole buckets");
        // The last bucket, of what lies beyond the range, becomes a bin of its own.
        let bins = self.histogram[1..].chunks(width).enumerate().map(|(index, counts)| Bin {
            from: 10_f64.powf(RANGE.0 + index as f64 / per_decade as f64),
            to: 10_f64.powf(RANGE.0 + (index + 1) as f64 / per_decade as f64),
            count: counts.iter().sum(),
        });
        let mut bins: Vec<Bin> = bins.skip_while(|bin| bin.count == 0).collect();
        bins.truncate(bins.iter().rposition(|bin| bin.count > 0).map_or(0, |last| last + 1));
        (self.histogram[0], bins)
    }

    /// Whether the reference's output depends on what it was given, as far as is known: of one sample, whether any two elements differ.
    #[must_use]
    pub fn varies(&self) -> bool {
        let is_even = |first: &Vec<f64>| first.iter().all(|&value| same(value, first[0]));
        self.variation > 0.0 || self.others == 0 && self.first.as_ref().is_some_and(|first| !is_even(first))
    }

    /// Whether the reference gave the same for each of several samples.
    #[must_use]
    pub fn repeats(&self) -> bool {
        self.others > 0 && self.variation == 0.0
    }

    /// By what share of its greatest value the reference's output varies from sample to sample; infinite where the samples are of
    /// different shapes, or there is one only.
    #[must_use]
    pub fn variation(&self) -> f64 {
        if self.others == 0 { f64::INFINITY } else { self.variation }
    }

    fn note_variation(&mut self, sample: &[f64]) {
        let Some(first) = &self.first else {
            self.first = Some(sample.to_vec());
            return;
        };
        self.others += 1;
        let apart = if first.len() == sample.len() {
            distance_of_unlike(sample, first, magnitude(first.iter().filter(|value| value.is_finite())))
        } else {
            f64::INFINITY
        };
        self.variation = self.variation.max(apart);
    }
}

impl Default for Difference {
    fn default() -> Self {
        Self::new()
    }
}

/// Bucket 0 holds errors of 0; the last one everything beyond the range.
fn bucket(error: f64) -> usize {
    if error == 0.0 {
        return 0;
    }
    let last = ((RANGE.1 - RANGE.0) * RESOLUTION) as usize + 1;
    let position = (error.log10() - RANGE.0) * RESOLUTION;
    // `as` clamps what lies below the range to 0 and what lies beyond to the greatest integer.
    (position as usize).saturating_add(1).min(last)
}

fn upper_edge(bucket: usize) -> f64 {
    10_f64.powf(RANGE.0 + bucket as f64 / RESOLUTION)
}

fn unravel(mut position: usize, dims: &[usize]) -> Vec<usize> {
    let mut index: Vec<usize> = dims
        .iter()
        .rev()
        .map(|&dim| {
            let along = position % dim;
            position /= dim;
            along
        })
        .collect();
    index.reverse();
    index
}

#[cfg(test)]
impl Difference {
    /// Of one run, in which the candidate's output is off by `error`.
    pub(super) fn example(error: f64) -> Self {
        let tensor = |second| Tensor::from_f64(crate::tensor::ElementType::F64, &[2], &[1.0, second]);
        let mut difference = Self::new();
        difference.add(&tensor(0.5), &tensor(0.5 + error), "seed 1");
        difference
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::ElementType;

    fn tensor(values: &[f64]) -> Tensor {
        Tensor::from_f64(ElementType::F64, &[values.len()], values)
    }

    #[test]
    fn errors_are_relative_to_the_greatest_value() {
        let mut difference = Difference::new();
        difference.add(&tensor(&[10.0, 1.0, -2.0]), &tensor(&[10.0, 1.5, -2.0]), "seed 1");
        assert!((difference.max - 0.05).abs() < 1e-15);
        let worst = difference.worst.clone().unwrap();
        assert_eq!((worst.index, worst.reference, worst.candidate), (vec![1], 1.0, 1.5));
        assert!((difference.mean() - 0.05 / 3.0).abs() < 1e-15);
        assert!(difference.varies());
        // Also where that is small, or beside an infinity.
        for reference in [[1e-6, 2e-6], [f64::INFINITY, 2e-6]] {
            let mut difference = Difference::new();
            difference.add(&tensor(&reference), &tensor(&reference), "seed 1");
            assert_eq!((difference.max, &difference.worst), (0.0, &None));
            difference.add(&tensor(&reference), &tensor(&[reference[0], 3e-6]), "seed 2");
            assert!((difference.max - 0.5).abs() < 1e-15, "{reference:?}: {}", difference.max);
        }
    }

    #[test]
    fn nan_must_stand_on_both_sides() {
        let mut difference = Difference::new();
        difference.add(&tensor(&[f64::NAN, 1.0]), &tensor(&[f64::NAN, 1.0]), "");
        assert_eq!((difference.max, difference.lone, difference.finite), (0.0, 0, 1));
        for (reference, candidate) in [(1.0, f64::NAN), (f64::NAN, 1.0)] {
            let mut difference = difference.clone();
            difference.add(&tensor(&[reference, 1.0]), &tensor(&[candidate, 1.0]), "");
            assert_eq!((difference.max, difference.lone), (f64::INFINITY, 1));
        }
        let mut difference = Difference::new();
        difference.add(&tensor(&[f64::INFINITY]), &tensor(&[f64::NEG_INFINITY]), "");
        assert_eq!((difference.max, difference.lone), (f64::INFINITY, 1));
    }

    #[test]
    fn a_reference_of_zeros_allows_no_difference() {
        let mut difference = Difference::new();
        difference.add(&tensor(&[0.0, 0.0]), &tensor(&[0.0, 0.0]), "");
        assert_eq!(difference.max, 0.0);
        assert!(!difference.varies());
        difference.add(&tensor(&[0.0, 0.0]), &tensor(&[0.0, 1e-30]), "");
        assert_eq!(difference.max, f64::INFINITY);
    }

    /// Classes that differ from each other, and not from image to image, are a bias.
    #[test]
    fn what_is_the_same_of_every_sample_does_not_vary() {
        let bias = Tensor::from_f64(ElementType::F64, &[2, 3], &[1.0, 2.0, f64::NAN, 1.0, 2.0, f64::NAN]);
        let one = Tensor::from_f64(ElementType::F64, &[1, 3], &[1.0, 2.0, f64::NAN]);
        let mut difference = Difference::new();
        difference.add(&one, &one, "");
        assert!(difference.varies(), "nothing is known of another sample");
        difference.add(&bias, &bias, "");
        assert!(!difference.varies());
        let other = Tensor::from_f64(ElementType::F64, &[1, 3], &[1.0, 2.5, f64::NAN]);
        let longer = Tensor::from_f64(ElementType::F64, &[1, 4], &[1.0, 2.0, f64::NAN, 1.0]);
        for other in [other, longer] {
            let mut difference = difference.clone();
            difference.add(&other, &other, "");
            assert!(difference.varies());
        }
    }

    #[test]
    fn the_quantile_leaves_one_in_a_thousand_out() {
        let reference = vec![1.0; 10_000];
        let mut candidate = reference.clone();
        candidate[..10].fill(1.5);
        candidate[10..20].fill(1.001);
        let mut difference = Difference::new();
        difference.add(&tensor(&reference), &tensor(&candidate), "");
        let quantile = difference.quantile_999();
        assert!((quantile / 0.001 - 1.0).abs() < 0.03, "{quantile}");
        let mut of_one = Difference::new();
        of_one.add(&tensor(&[1.0]), &tensor(&[1.5]), "");
        assert_eq!(of_one.quantile_999(), 0.5, "no more than the greatest");
    }

    #[test]
    fn bins_hold_every_finite_element() {
        let mut difference = Difference::new();
        difference.add(&tensor(&[1.0; 5]), &tensor(&[1.0, 1.0 + 2e-5, 1.0 + 3e-5, 1.0 + 2e-3, 1.0]), "");
        let (equal, bins) = difference.bins(1);
        assert_eq!(equal, 2);
        assert_eq!(bins.iter().map(|bin| bin.count).collect::<Vec<_>>(), [2, 0, 1]);
        assert!((bins[0].from / 1e-5 - 1.0).abs() < 1e-9 && (bins[2].to / 1e-2 - 1.0).abs() < 1e-9);
        assert_eq!(Difference::new().bins(4), (0, vec![]));
    }

    #[test]
    fn extreme_errors_have_a_bucket() {
        assert_eq!(bucket(0.0), 0);
        assert_eq!(bucket(1e-300), 1);
        let last = Difference::new().histogram.len() - 1;
        assert_eq!(bucket(f64::INFINITY), last);
        assert_eq!(bucket(1e300), last);
    }

    #[test]
    fn positions_unravel_row_by_row() {
        assert_eq!(unravel(7, &[2, 3, 2]), [1, 0, 1]);
        assert_eq!(unravel(0, &[]), [0_usize; 0]);
    }
}
