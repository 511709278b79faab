//! The proof on the user's own data: how near both models come to the outputs and classes that the user knows.

use anyhow::{Result, ensure};

use crate::data::Samples;
use crate::distance::{distance_of_unlike, magnitude};
use crate::tensor::Tensor;

/// What the user's data say about both models.
#[derive(Debug, Clone)]
pub struct SampleProof {
    /// Number of samples.
    pub count: usize,
    /// How many of them each row of outputs is of.
    per_row: usize,
    /// max|Δ| / max|expected| of the reference and of the candidate, where `expected` was given.
    pub distance: Option<[f64; 2]>,
    /// Samples that the reference and the candidate class as `labels` says, where those were given.
    pub correct: Option<[usize; 2]>,
    /// Samples whose outputs the reference gives as NaN or infinite, which prove little.
    pub not_finite: usize,
    /// Whether the samples themselves are numbers throughout.
    pub finite_inputs: bool,
    /// Labels that are no class of the model's.
    pub no_class: usize,
    /// Arrays that the model has no use for.
    pub unused: Vec<String>,
    expected: Option<Expected>,
    labels: Option<Vec<i64>>,
}

#[derive(Debug, Clone)]
struct Expected {
    values: Vec<f64>,
    per_row: usize,
    scale: f64,
}

impl SampleProof {
    /// Nothing run so far.
    #[must_use]
    pub fn new(samples: &Samples) -> Self {
        let expected = samples.expected.as_ref().map(|expected| {
            let values = expected.to_f64();
            let scale = magnitude(values.iter().filter(|value| value.is_finite()));
            Expected { per_row: values.len() * samples.per_row / samples.count, values, scale }
        });
        Self {
            count: samples.count,
            per_row: samples.per_row,
            distance: expected.as_ref().map(|_| [0.0; 2]),
            correct: samples.labels.as_ref().map(|_| [0; 2]),
            not_finite: 0,
            finite_inputs: samples.inputs.iter().all(Tensor::is_finite),
            no_class: 0,
            unused: samples.unused.clone(),
            expected,
            labels: samples.labels.clone(),
        }
    }

    /// How many rows there are to be right about.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.count / self.per_row
    }

    /// The share of rows that both models class as `labels` says.
    #[must_use]
    pub fn accuracy(&self) -> Option<[f64; 2]> {
        Some(self.correct?.map(|correct| correct as f64 / self.rows() as f64))
    }

    /// Takes in the first outputs for a run of `batch` samples from `start` on; those beyond `valid` are padding.
    pub(crate) fn add(
        &mut self,
        (start, valid, batch): (usize, usize, usize),
        reference: &Tensor,
        candidate: &Tensor,
    ) -> Result<()> {
        let dims = reference.dims();
        let is_whole = [start, valid, batch].iter().all(|samples| samples.is_multiple_of(self.per_row));
        if !is_whole || dims.first() != Some(&(batch / self.per_row)) {
            ensure!(
                self.expected.is_none() && self.labels.is_none(),
                "`expected` and `labels` have a row for {}, which the model's first output has not: it is of shape {dims:?} for \
                 {batch} samples",
                match self.per_row {
                    1 => "each sample".to_owned(),
                    several => format!("every {several} samples"),
                }
            );
            if dims.first().is_none_or(|&rows| rows < valid) {
                return Ok(());
            }
        }
        let [start, valid] = [start, valid].map(|samples| samples / self.per_row);
        let width: usize = dims[1..].iter().product();
        if width > 0 {
            let rows = &reference.to_f64()[..valid * width];
            let finite = |row: &&[f64]| row.iter().all(|value| value.is_finite());
            self.not_finite += self.per_row * (valid - rows.chunks_exact(width).filter(finite).count());
        }
        let labels = self.labels.iter().flat_map(|labels| &labels[start..start + valid]);
        self.no_class += labels.filter(|&&label| !(0..width as i64).contains(&label)).count();
        for (model, output) in [reference, candidate].into_iter().enumerate() {
            let rows = &output.to_f64()[..valid * width];
            if let (Some(expected), Some(distance)) = (&self.expected, &mut self.distance) {
                ensure!(
                    expected.per_row == width,
                    "`expected` has {} numbers in each row; the model's first output, which it is compared with, has {width}",
                    expected.per_row
                );
                let expected_rows = &expected.values[start * width..][..rows.len()];
                // Users may expect a NaN, infinities, or zeros throughout.
                let apart = distance_of_unlike(rows, expected_rows, expected.scale);
                distance[model] = distance[model].max(apart);
            }
            if let (Some(labels), Some(correct)) = (&self.labels, &mut self.correct) {
                ensure!(
                    dims.len() == 2 && width > 1,
                    "`labels` need a first output of shape [N, classes]; its shape is {dims:?}"
                );
                for (scores, &label) in rows.chunks_exact(width).zip(&labels[start..]) {
                    correct[model] += usize::from(greatest(scores) == usize::try_from(label).ok());
                }
            }
        }
        Ok(())
    }
}

/// The position of the greatest number; nothing if one is NaN.
fn greatest(scores: &[f64]) -> Option<usize> {
    if scores.iter().any(|score| score.is_nan()) {
        return None;
    }
    (0..scores.len()).reduce(|best, index| if scores[index] > scores[best] { index } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::ElementType;

    fn tensor(dims: &[usize], values: &[f64]) -> Tensor {
        Tensor::from_f64(ElementType::F32, dims, values)
    }

    fn samples() -> Samples {
        Samples {
            inputs: vec![],
            count: 3,
            per_row: 1,
            expected: Some(tensor(&[3, 2], &[1.0, 0.0, 0.0, 2.0, 1.0, 0.0])),
            labels: Some(vec![0, 1, 1]),
            unused: vec![],
        }
    }

    #[test]
    fn accuracy_and_distance_are_counted_for_both_models() {
        let mut proof = SampleProof::new(&samples());
        let first = tensor(&[2, 2], &[1.0, 0.0, 0.0, 2.0]);
        proof.add((0, 2, 2), &first, &tensor(&[2, 2], &[0.0, 1.0, 0.0, 2.0])).unwrap();
        let padded = tensor(&[2, 2], &[1.0, 0.0, 9.0, 9.0]);
        proof.add((2, 1, 2), &padded, &padded).unwrap();
        assert_eq!((proof.correct, proof.no_class), (Some([2, 1]), 0));
        // Counted from one, below all classes, and above.
        for (labels, no_class) in [([1, 2, 2], [1, 2]), ([-1, 0, 0], [1, 1]), ([0, 1, 9], [0, 1])] {
            let mut proof = SampleProof::new(&Samples { labels: Some(labels.to_vec()), ..samples() });
            let counted = [(0, 2, &first), (2, 1, &padded)].map(|(start, valid, output)| {
                proof.add((start, valid, 2), output, output).unwrap();
                proof.no_class
            });
            assert_eq!(counted, no_class, "{labels:?}");
        }
        assert_eq!((proof.not_finite, proof.distance), (0, Some([0.0, 0.5])));
    }

    #[test]
    fn outputs_that_are_no_scores_are_refused() {
        let mut proof = SampleProof::new(&samples());
        let output = tensor(&[3, 2, 1], &[0.0; 6]);
        assert!(proof.add((0, 3, 3), &output, &output).unwrap_err().to_string().contains("[N, classes]"));
        let narrow = tensor(&[3, 1], &[0.0; 3]);
        assert!(
            proof.add((0, 3, 3), &narrow, &narrow).unwrap_err().to_string().contains("2 numbers in each row")
        );
        let mut labeled = SampleProof::new(&Samples { expected: None, ..samples() });
        assert!(labeled.add((0, 3, 3), &narrow, &narrow).unwrap_err().to_string().contains("[N, classes]"));
        // A row for all samples together is none for each.
        let mut expecting = SampleProof::new(&Samples { labels: None, ..samples() });
        let mut telling_nothing = SampleProof::new(&Samples { labels: None, expected: None, ..samples() });
        let one = tensor(&[1, 2], &[0.0; 2]);
        for proof in [&mut proof, &mut labeled, &mut expecting] {
            let refused = proof.add((0, 3, 3), &one, &one).unwrap_err().to_string();
            assert!(refused.contains("a row for each sample"), "{refused}");
        }
        telling_nothing.add((0, 3, 3), &one, &one).unwrap();
    }

    #[test]
    fn what_is_expected_of_a_sample_is_compared_with_it() {
        let rows = [[f64::INFINITY, 0.0], [0.0, 2.0], [1.0, 0.5]];
        let expected = Some(tensor(&[3, 2], rows.as_flattened()));
        let mut proof = SampleProof::new(&Samples { expected, labels: None, ..samples() });
        for (sample, row) in rows.iter().enumerate() {
            let row = tensor(&[1, 2], row);
            proof.add((sample, 1, 1), &row, &row).unwrap();
        }
        assert_eq!(proof.distance, Some([0.0; 2]));
        // Of the greatest number that is expected, which is no infinity.
        proof.add((2, 1, 1), &tensor(&[1, 2], &rows[2]), &tensor(&[1, 2], &[1.0, 1.5])).unwrap();
        assert_eq!(proof.distance, Some([0.0, 0.5]));
    }

    #[test]
    fn a_nan_is_no_class_and_an_infinite_distance() {
        assert_eq!(greatest(&[0.0, f64::NAN]), None);
        assert_eq!(greatest(&[0.0, 3.0, 3.0]), Some(1));
        let mut proof = SampleProof::new(&samples());
        let nan = tensor(&[3, 2], &[f64::NAN; 6]);
        proof.add((0, 3, 3), &nan, &nan).unwrap();
        assert_eq!((proof.not_finite, proof.distance), (3, Some([f64::INFINITY; 2])));
        assert_eq!(proof.accuracy(), Some([0.0; 2]));
    }
}
