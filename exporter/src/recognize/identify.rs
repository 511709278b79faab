//! Which attributes explain what a region computes.

use std::cell::OnceCell;

use isqrt_cov_op::{Layer, Layout, Normalization, Operator, OperatorKind, Vectorization, reference};

use super::Evidence;
use super::probe::Generator;
use super::spectrum::{Spectrum, position};
use crate::tensor::{ElementType, Tensor};

/// The probes that a region was evaluated on, with their spectra: one decomposition serves every cut of the region.
#[derive(Debug)]
pub struct Probed {
    /// One input a probe, all of one shape and type.
    pub inputs: Vec<Tensor>,
    matrices: OnceCell<Vec<Spectra>>,
    channels_first: OnceCell<Vec<Spectra>>,
    channels_last: OnceCell<Vec<Spectra>>,
}

/// The spectra of a probe's first sample.
#[derive(Debug)]
struct Spectra {
    centered: Spectrum,
    uncentered: Option<Spectrum>,
}

impl Probed {
    /// Inputs whose spectra are not known yet.
    #[must_use]
    pub fn new(inputs: Vec<Tensor>) -> Self {
        let (matrices, channels_first, channels_last) = Default::default();
        Self { inputs, matrices, channels_first, channels_last }
    }

    /// The inputs' shape.
    #[must_use]
    pub fn dims(&self) -> &[usize] {
        self.inputs.first().map_or(&[], Tensor::dims)
    }

    fn spectra(&self, operator: OperatorKind, layout: Layout, channels: usize) -> &[Spectra] {
        let cell = match (operator, layout) {
            (OperatorKind::MatrixSqrt, _) => &self.matrices,
            (_, Layout::ChannelsFirst) => &self.channels_first,
            (_, Layout::ChannelsLast) => &self.channels_last,
        };
        cell.get_or_init(|| {
            let of = |input: &Tensor| {
                let values = input.to_f64();
                let sample = &values[..values.len() / input.dims()[0]];
                match operator {
                    OperatorKind::MatrixSqrt => {
                        Spectra { centered: Spectrum::of_matrix(sample, channels), uncentered: None }
                    }
                    _ => Spectra {
                        centered: Spectrum::of_features(sample, channels, layout, true),
                        uncentered: Some(Spectrum::of_features(sample, channels, layout, false)),
                    },
                }
            };
            self.inputs.iter().map(of).collect()
        })
    }
}

/// The result of a search.
#[derive(Debug, Clone)]
pub struct Identification {
    /// The attributes that explain the numbers best.
    pub layer: Layer,
    /// How well they do.
    pub evidence: Evidence,
}

// The table of what is searched: one line a value. Earlier values are preferred where the numbers cannot tell.
const ITERATIONS: std::ops::RangeInclusive<u32> = 1..=24;
const CENTERED: [bool; 2] = [true, false];
const CORRECTION: [u32; 2] = [0, 1];
const EPSILON: [f32; 18] = [
    0.0, 1e-5, 1e-3, 1e-4, 1e-6, 1e-2, 1e-1, 1e-7, 1e-8, 1e-9, 1e-10, 1e-12, 5e-3, 5e-4, 5e-5, 5e-6, 5e-2,
    1.0,
];
const NORMALIZATION: [Normalization; 2] = Normalization::ALL;
const COMPENSATED: [bool; 2] = [true, false];
const OFF_DIAGONAL_SCALE: [f32; 4] = [1.0, std::f32::consts::SQRT_2, 2.0, std::f32::consts::FRAC_1_SQRT_2];

/// Entries of the matrix that the search compares; the winner is judged on all of them.
const SAMPLED_ENTRIES: usize = 96;

/// Entries that are compared first: a few settle most candidates.
const FIRST_ENTRIES: usize = 8;

/// Candidates that are kept while searching: enough to hold every neighbor of the winner.
const KEPT: usize = 100;

/// How far the runner-up must be from the numbers, in units of the winner's distance.
const MARGIN: f64 = 20.0;

/// The largest distance, relative to max|reference|, at which a region still counts as the operator: what the rounding
/// of its own arithmetic may do.
#[must_use]
pub fn tolerance(element: ElementType) -> f64 {
    match element {
        ElementType::F64 => 1e-9,
        ElementType::F16 => 2e-2,
        ElementType::BF16 => 1e-1,
        _ => 3e-5,
    }
}

impl Identification {
    /// Whether the attributes explain the numbers and nothing else does.
    #[must_use]
    pub fn is_certain(&self, element: ElementType) -> bool {
        let error = self.evidence.error;
        error <= tolerance(element) && self.evidence.runner_up >= MARGIN * error
    }
}

/// Searches the attributes under which `operator` explains the `outputs`, one for each of the `probed` inputs. Those
/// farther than `limit` off are not looked at closely. None where the shapes exclude the operator, where a number is not
/// finite, or where no attributes come within `limit`.
#[must_use]
pub fn identify(
    operator: OperatorKind,
    probed: &Probed,
    outputs: &[Tensor],
    limit: f64,
) -> Option<Identification> {
    let layouts: &[Layout] = match operator {
        OperatorKind::MatrixSqrt => &[Layout::ChannelsFirst],
        _ if probed.dims().len() < 3 => &[],
        _ => &Layout::ALL,
    };
    let found =
        layouts.iter().filter_map(|&layout| Search::new(operator, layout, probed, outputs)?.run(limit));
    found.min_by(|left, right| left.evidence.error.total_cmp(&right.evidence.error))
}

/// Attributes and how far their prediction is from the numbers.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    distance: f64,
    layer: Layer,
}

/// The entries that are compared, of one probe.
struct Sampled<'a> {
    spectra: &'a Spectra,
    /// The output's entries under each vectorization that its size allows, in the order of the entries.
    found: Vec<Vec<f64>>,
    largest: f64,
}

struct Search<'a> {
    base: Layer,
    probed: &'a Probed,
    outputs: &'a [Tensor],
    vectorizations: Vec<Vectorization>,
    entries: Vec<(usize, usize)>,
    samples: Vec<Sampled<'a>>,
}

impl<'a> Search<'a> {
    fn new(
        operator: OperatorKind,
        layout: Layout,
        probed: &'a Probed,
        outputs: &'a [Tensor],
    ) -> Option<Self> {
        let base = Layer { layout, vectorization: Vectorization::None, ..Layer::new(operator) };
        let extent = base.extent(probed.dims()).ok()?;
        let dims = outputs.first()?.dims();
        if dims.first() != Some(&extent.samples) || extent.samples == 0 || extent.channels < 2 {
            return None;
        }
        let per_sample = dims[1..].iter().product::<usize>();
        let vectorizations: Vec<Vectorization> = Vectorization::ALL
            .into_iter()
            .filter(|&vectorization| {
                operator != OperatorKind::MatrixSqrt || vectorization == Vectorization::None
            })
            .filter(|&vectorization| {
                Layer { vectorization, ..base }.output_elements(extent.channels) == per_sample
            })
            .collect();
        if vectorizations.is_empty() {
            return None;
        }
        let entries = sampled_entries(extent.channels);
        let spectra = probed.spectra(operator, layout, extent.channels);
        let sample = |(spectra, output): (&'a Spectra, &Tensor)| {
            let output = &output.to_f64()[..per_sample];
            let at = |&vectorization: &Vectorization| {
                entries.iter().map(|&entry| output[position(vectorization, extent.channels, entry)]).collect()
            };
            let found = vectorizations.iter().map(at).collect();
            let largest = output.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
            let usable = largest > 0.0 && output.iter().all(|value| value.is_finite());
            usable.then_some(Sampled { spectra, found, largest })
        };
        let samples = spectra.iter().zip(outputs).map(sample).collect::<Option<Vec<_>>>()?;
        Some(Self { base, probed, outputs, vectorizations, entries, samples })
    }

    /// Every combination of the attributes that change the matrix itself.
    fn matrices(&self) -> Vec<Layer> {
        let base = self.base;
        let has = |name: &str| Operator::of(base.operator).attribute(name).is_some();
        let mut layers = vec![base];
        expand(&mut layers, has("centered"), &CENTERED, |layer, centered| layer.centered = centered);
        expand(&mut layers, has("correction"), &CORRECTION, |layer, correction| {
            layer.correction = correction;
        });
        expand(&mut layers, has("epsilon"), &EPSILON, |layer, epsilon| layer.epsilon = epsilon);
        expand(&mut layers, has("normalization"), &NORMALIZATION, |layer, norm| layer.normalization = norm);
        expand(&mut layers, has("compensated"), &COMPENSATED, |layer, compensated| {
            layer.compensated = compensated;
        });
        let iterations: Vec<u32> = ITERATIONS.collect();
        expand(&mut layers, has("iterations"), &iterations, |layer, iterations| {
            layer.iterations = iterations;
        });
        layers.retain(|layer| layer.extent(self.probed.dims()).is_ok());
        layers
    }

    /// Every combination of the attributes that change how a matrix is written.
    fn writings(&self) -> Vec<Layer> {
        let has_scale = Operator::of(self.base.operator).attribute("off_diagonal_scale").is_some();
        let mut layers = vec![self.base];
        expand(&mut layers, has_scale, &OFF_DIAGONAL_SCALE, |layer, scale| layer.off_diagonal_scale = scale);
        expand(&mut layers, true, &self.vectorizations, |layer, order| layer.vectorization = order);
        layers
    }

    fn predict(layer: &Layer, sample: &Sampled, entries: &[(usize, usize)]) -> Vec<f64> {
        let spectra = sample.spectra;
        let spectrum = spectra.uncentered.as_ref().filter(|_| !layer.centered).unwrap_or(&spectra.centered);
        spectrum.predict(layer, entries)
    }

    /// The distances, the worst over the samples, of `matrix` under each way of writing it; those above `limit` are left
    /// out.
    fn distances(&self, matrix: &Layer, writings: &[Layer], limit: f64) -> Vec<Candidate> {
        let mut alive: Vec<Candidate> = writings
            .iter()
            .map(|writing| Candidate {
                distance: 0.0,
                layer: Layer {
                    vectorization: writing.vectorization,
                    off_diagonal_scale: writing.off_diagonal_scale,
                    ..*matrix
                },
            })
            .collect();
        let few = FIRST_ENTRIES.min(self.entries.len());
        for sample in &self.samples {
            for part in [0..few, few..self.entries.len()] {
                let predicted = Self::predict(matrix, sample, &self.entries[part.clone()]);
                alive.retain_mut(|candidate| {
                    let order = self.vectorizations.iter().position(|&v| v == candidate.layer.vectorization);
                    let found = &sample.found[order.unwrap_or(0)][part.clone()];
                    let scale = f64::from(candidate.layer.off_diagonal_scale);
                    for ((predicted, found), (i, j)) in
                        predicted.iter().zip(found).zip(&self.entries[part.clone()])
                    {
                        let predicted = if i == j { *predicted } else { predicted * scale };
                        let distance = (predicted - found).abs() / sample.largest;
                        // `max` would drop a NaN.
                        candidate.distance = if distance > candidate.distance || distance.is_nan() {
                            distance
                        } else {
                            candidate.distance
                        };
                    }
                    candidate.distance <= limit
                });
                if alive.is_empty() {
                    return alive;
                }
            }
        }
        alive
    }

    /// How far apart the predictions of two candidates are, at most.
    fn separation(&self, left: &Layer, right: &Layer) -> f64 {
        if left.vectorization != right.vectorization {
            return f64::INFINITY;
        }
        let mut worst: f64 = 0.0;
        for sample in &self.samples {
            let left = Self::predict(left, sample, &self.entries);
            let right = Self::predict(right, sample, &self.entries);
            for (left, right) in left.iter().zip(right) {
                worst = worst.max((left - right).abs() / sample.largest);
            }
        }
        worst
    }

    fn run(&self, limit: f64) -> Option<Identification> {
        let element = self.outputs[0].element_type();
        let writings = self.writings();
        let mut nearest: Vec<Candidate> = Vec::new();
        let farthest = limit;
        let mut limit = limit;
        for matrix in self.matrices() {
            nearest.extend(self.distances(&matrix, &writings, limit));
            if nearest.len() >= 2 * KEPT {
                nearest.sort_by(|left, right| left.distance.total_cmp(&right.distance));
                nearest.truncate(KEPT);
                limit = nearest[KEPT - 1].distance;
            }
        }
        // The sort is stable: among equals the table's order stands.
        nearest.sort_by(|left, right| left.distance.total_cmp(&right.distance));
        let best = *nearest.first()?;
        // Candidates that the element type cannot tell from the best compute the same function: the first of the table
        // among them is the simplest name for it.
        let same = |left: &Layer, right: &Layer| {
            let spelled = |layer: &Layer| Layer { off_diagonal_scale: 1.0, ..*layer };
            left.off_diagonal_scale.to_bits() == right.off_diagonal_scale.to_bits()
                && self.separation(&spelled(left), &spelled(right)) <= tolerance(element)
        };
        let equal = nearest.iter().filter(|candidate| {
            candidate.distance <= 2.0 * best.distance.max(0.01 * tolerance(element))
                && same(&candidate.layer, &best.layer)
        });
        let layer = equal.map(|candidate| candidate.layer).min_by_key(simplicity)?;
        let runner_up = nearest.iter().find(|candidate| !same(&candidate.layer, &layer));
        // The plain iteration is slow on large matrices; what is far off already needs no second opinion.
        let error = if best.distance <= tolerance(element) { self.judge(&layer) } else { best.distance };
        Some(Identification {
            layer,
            evidence: Evidence {
                error,
                runner_up: runner_up.map_or(farthest, |candidate| candidate.distance),
                runner_up_layer: runner_up.map(|candidate| candidate.layer),
                probes: self.samples.len(),
            },
        })
    }

    /// max|Δ| / max|reference| over every entry of every sample, against the plain iteration in float64.
    fn judge(&self, layer: &Layer) -> f64 {
        let mut worst: f64 = 0.0;
        for (input, output) in self.probed.inputs.iter().zip(self.outputs) {
            let dims = input.dims();
            let Ok(expected) = reference::evaluate(layer, &input.to_f64(), dims) else {
                return f64::INFINITY;
            };
            let found = output.to_f64();
            let per_sample = expected.len() / dims[0];
            for (expected, found) in expected.chunks_exact(per_sample).zip(found.chunks_exact(per_sample)) {
                let largest = expected.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
                for (expected, found) in expected.iter().zip(found) {
                    let distance = (expected - found).abs() / largest;
                    worst = if distance.is_nan() { f64::INFINITY } else { worst.max(distance) };
                }
            }
        }
        worst
    }
}

/// Replaces each layer by one for each value of an attribute, if the operator has it.
fn expand<T: Copy>(layers: &mut Vec<Layer>, applies: bool, values: &[T], assign: impl Fn(&mut Layer, T)) {
    if applies {
        let with = |layer: &Layer, value: T| {
            let mut layer = *layer;
            assign(&mut layer, value);
            layer
        };
        *layers = layers.iter().flat_map(|layer| values.iter().map(|&value| with(layer, value))).collect();
    }
}

/// Orders names for one function: fewer attributes away from their defaults first, then fewer steps.
fn simplicity(layer: &Layer) -> (usize, u32) {
    (layer.changed_attributes().len(), layer.iterations)
}

/// Some entries (row ≤ column) of a matrix, both on and off the diagonal, spread over all of it.
fn sampled_entries(side: usize) -> Vec<(usize, usize)> {
    let mut generator = Generator::new(1);
    let mut entries = std::collections::BTreeSet::from([(0, 0), (0, side - 1), (side - 1, side - 1), (0, 1)]);
    let all = side * (side + 1) / 2;
    while entries.len() < SAMPLED_ENTRIES.min(all) {
        let mut pick = || (generator.bits() % side as u64) as usize;
        let (one, other) = (pick(), pick());
        entries.insert((one.min(other), one.max(other)));
    }
    // Shuffled, so that the first few already are a fair sample.
    let mut entries: Vec<_> = entries.into_iter().collect();
    for index in (1..entries.len()).rev() {
        entries.swap(index, (generator.bits() % (index as u64 + 1)) as usize);
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recognize::probe::PROBES;

    fn probed(operator: OperatorKind, dims: &[usize]) -> Probed {
        let mut generator = Generator::new(5);
        let values = PROBES.iter().map(|probe| match operator {
            OperatorKind::MatrixSqrt => probe.matrices(&mut generator, dims),
            _ => probe.features(&mut generator, dims),
        });
        Probed::new(values.map(|values| Tensor::from_f64(ElementType::F32, dims, &values)).collect())
    }

    fn outputs(layer: &Layer, probed: &Probed, distort: impl Fn(usize, f64) -> f64) -> Vec<Tensor> {
        let samples = probed.dims()[0];
        let output = |input: &Tensor| {
            let values = reference::evaluate(layer, &input.to_f64(), input.dims()).unwrap();
            let values: Vec<f64> =
                values.iter().enumerate().map(|(index, &value)| distort(index, value)).collect();
            Tensor::from_f64(ElementType::F32, &[samples, values.len() / samples], &values)
        };
        probed.inputs.iter().map(output).collect()
    }

    #[test]
    fn every_attribute_is_found_from_the_numbers() {
        let features = Layer::new(OperatorKind::IsqrtCov);
        let layers = [
            features,
            Layer { iterations: 3, ..features },
            Layer { iterations: 12, ..features },
            Layer { centered: false, epsilon: 1e-3, ..features },
            Layer { correction: 1, vectorization: Vectorization::UpperColumnMajor, ..features },
            Layer { normalization: Normalization::Frobenius, vectorization: Vectorization::None, ..features },
            Layer { compensated: false, off_diagonal_scale: std::f32::consts::SQRT_2, ..features },
            Layer { layout: Layout::ChannelsLast, ..features },
            Layer { correction: 1, ..Layer::new(OperatorKind::CovariancePooling) },
            Layer { iterations: 4, ..Layer::new(OperatorKind::MatrixSqrt) },
        ];
        for layer in layers {
            let dims: &[usize] =
                if layer.operator == OperatorKind::MatrixSqrt { &[2, 7, 7] } else { &[2, 7, 5, 6] };
            let probed = probed(layer.operator, dims);
            let found =
                identify(layer.operator, &probed, &outputs(&layer, &probed, |_, value| value), 0.05).unwrap();
            assert_eq!(found.layer, layer);
            assert!(found.is_certain(ElementType::F32), "{layer:?}: {:?}", found.evidence);
        }
    }

    #[test]
    fn numbers_that_no_attributes_explain_are_not_certain() {
        let layer = Layer::new(OperatorKind::IsqrtCov);
        let probed = probed(layer.operator, &[2, 7, 5, 6]);
        for distort in
            [|_, value: f64| 1.001 * value, |index, value| if index == 30 { 0.9 * value } else { value }]
        {
            let outputs = outputs(&layer, &probed, distort);
            let found = identify(layer.operator, &probed, &outputs, 0.05);
            assert!(found.is_none_or(|found| !found.is_certain(ElementType::F32)));
        }
        let nan = outputs(&layer, &probed, |_, _| f64::NAN);
        assert!(identify(layer.operator, &probed, &nan, 0.05).is_none());
    }
}
