//! Which attributes explain what a region computes.

mod epsilon;
pub mod judge;
pub mod probed;
pub mod spectrum;
mod table;

use std::hash::{DefaultHasher, Hash, Hasher};

use isqrt_cov_op::{Layer, Layout, Operator, OperatorKind, Vectorization};

use self::probed::{Probed, Spectra, of_numbers, sampled_entries, samples};
use self::table::simplicity;
use crate::budget::{is_spent, spend};
use crate::distance::{magnitude, scaled_distance};
use crate::found::Evidence;
use crate::tensor::{ElementType, Tensor};

/// The result of a search.
#[derive(Debug, Clone)]
pub struct Identification {
    /// The attributes that explain the numbers best.
    pub layer: Layer,
    /// How well they do.
    pub evidence: Evidence,
}

/// Entries that are compared first: a few settle most candidates.
const FIRST_ENTRIES: usize = 8;

/// Multiplications that take as long as beginning with a prediction.
const PREDICTION: usize = 1 << 12;

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

/// What an evaluation of a region can tell apart, in units of the largest value.
#[derive(Debug, Clone, Copy)]
pub struct Resolution {
    /// The largest distance at which a region still counts as the operator.
    pub tolerance: f64,
    /// What the evaluation's own rounding may do, at least.
    noise: f64,
}

impl Resolution {
    /// That of an evaluation in float64, of a graph whose constants are of type `element`: nothing but them is rounded.
    #[must_use]
    pub fn exact(element: ElementType) -> Self {
        let tolerance = match element {
            ElementType::F16 => 2e-3,
            ElementType::BF16 => 8e-3,
            ElementType::F64 => tolerance(element),
            _ => 2e-6,
        };
        Self { tolerance, noise: 1e-10 }
    }

    /// That of an evaluation in `element`.
    #[must_use]
    pub fn of(element: ElementType) -> Self {
        Self { tolerance: tolerance(element), noise: 0.01 * tolerance(element) }
    }

    /// The distance up to which two functions are the same, where the best explanation is `error` off: one that is
    /// farther from the best is also farther from the numbers, by the margin.
    fn same(self, error: f64) -> f64 {
        (MARGIN * error).max(100.0 * self.noise).min(self.tolerance)
    }
}

impl Identification {
    /// Whether the attributes explain the numbers and nothing else does.
    #[must_use]
    pub fn is_certain(&self, resolution: Resolution) -> bool {
        let error = self.evidence.error;
        // A function at the edge of the same is nearer to the numbers than to the best by the best's own error.
        error <= resolution.tolerance && self.evidence.runner_up >= (MARGIN - 2.0) * error
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
    resolution: Resolution,
    limit: f64,
) -> Option<Identification> {
    if is_spent() {
        return None;
    }
    let layouts: &[Layout] = match operator {
        OperatorKind::MatrixSqrt => &[Layout::ChannelsFirst],
        _ if probed.dims().len() < 3 => &[],
        _ => &Layout::ALL,
    };
    probed.identified(key(operator, outputs, limit), resolution, || {
        let found = layouts.iter().filter_map(|&layout| {
            AttributeSearch::new(operator, layout, probed, outputs, resolution)?.run(limit)
        });
        found.min_by(|left, right| left.evidence.error.total_cmp(&right.evidence.error))
    })
}

/// What tells a search from others of the same probes.
fn key(operator: OperatorKind, outputs: &[Tensor], limit: f64) -> u64 {
    let mut hasher = DefaultHasher::new();
    (operator as u8, limit.to_bits(), of_numbers(outputs)).hash(&mut hasher);
    hasher.finish()
}

/// Attributes and how far their prediction is from the numbers.
#[derive(Debug, Clone, Copy)]
struct Fit {
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

/// A search for the attributes that explain the outputs.
pub(super) struct AttributeSearch<'a> {
    base: Layer,
    probed: &'a Probed,
    outputs: &'a [Tensor],
    resolution: Resolution,
    pub(super) vectorizations: Vec<Vectorization>,
    entries: Vec<(usize, usize)>,
    samples: Vec<Sampled<'a>>,
}

impl<'a> AttributeSearch<'a> {
    /// None where the shapes exclude the operator, or where a number is not finite.
    pub(super) fn new(
        operator: OperatorKind,
        layout: Layout,
        probed: &'a Probed,
        outputs: &'a [Tensor],
        resolution: Resolution,
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
        let spectra = probed.spectra(operator, layout, extent.channels)?;
        let sample = |(spectra, output): (&'a Spectra, Vec<f64>)| {
            let at = |&vectorization: &Vectorization| {
                entries.iter().map(|&entry| output[vectorization.position(extent.channels, entry)]).collect()
            };
            let found = vectorizations.iter().map(at).collect();
            let largest = magnitude(&output);
            let usable = largest > 0.0 && output.iter().all(|value| value.is_finite());
            usable.then_some(Sampled { spectra, found, largest })
        };
        let samples = spectra.iter().zip(samples(outputs)).map(sample).collect::<Option<Vec<_>>>()?;
        Some(Self { base, probed, outputs, resolution, vectorizations, entries, samples })
    }

    /// The distances, the worst over the samples, of `matrix` under each way of writing it; those above `limit` are left
    /// out.
    fn distances(&self, matrix: &Layer, writings: &[Layer], limit: f64) -> Vec<Fit> {
        let mut alive: Vec<Fit> = writings
            .iter()
            .map(|writing| Fit {
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
                let basis = sample.spectra.basis(matrix);
                let each = 2 * (part.len() + 4 * matrix.iterations as usize);
                if spend(&[PREDICTION + each * basis.rank()]).is_err() {
                    return Vec::new();
                }
                let predicted = basis.predict(matrix, part.clone());
                alive.retain_mut(|candidate| {
                    let order = self.vectorizations.iter().position(|&v| v == candidate.layer.vectorization);
                    let found = &sample.found[order.unwrap_or(0)][part.clone()];
                    let scale = f64::from(candidate.layer.off_diagonal_scale);
                    for ((predicted, found), (i, j)) in
                        predicted.iter().zip(found).zip(&self.entries[part.clone()])
                    {
                        let predicted = if i == j { *predicted } else { predicted * scale };
                        let distance = (predicted - found).abs() / sample.largest;
                        // `max` would drop a NaN, which no limit allows, not even an infinite one.
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

    /// Whether two candidates write the same numbers, up to `limit`.
    fn same(&self, left: &Layer, right: &Layer, limit: f64) -> bool {
        let spelled = |layer: &Layer| Layer { off_diagonal_scale: 1.0, ..*layer };
        left.off_diagonal_scale.to_bits() == right.off_diagonal_scale.to_bits()
            && self.separation(&spelled(left), &spelled(right)) <= limit
    }

    /// How far apart the predictions of two candidates are, at most.
    fn separation(&self, left: &Layer, right: &Layer) -> f64 {
        if left.vectorization != right.vectorization {
            return f64::INFINITY;
        }
        let mut worst: f64 = 0.0;
        for sample in &self.samples {
            let left = sample.spectra.basis(left).predict(left, 0..self.entries.len());
            let right = sample.spectra.basis(right).predict(right, 0..self.entries.len());
            worst = worst.max(scaled_distance(&left, &right, sample.largest));
        }
        worst
    }

    fn run(&self, limit: f64) -> Option<Identification> {
        let writings = self.writings();
        let mut nearest: Vec<Fit> = Vec::new();
        let farthest = limit;
        let mut limit = limit;
        for matrix in self.matrices() {
            if is_spent() {
                return None;
            }
            nearest.extend(self.distances(&matrix, &writings, limit));
            if nearest.len() >= 2 * KEPT {
                nearest.sort_by(|left, right| left.distance.total_cmp(&right.distance));
                nearest.truncate(KEPT);
                limit = nearest[KEPT - 1].distance;
            }
        }
        // The sort is stable: among equals the table's order stands.
        nearest.sort_by(|left, right| left.distance.total_cmp(&right.distance));
        if Operator::of(self.base.operator).attribute("epsilon").is_some() {
            self.refine_epsilon(&mut nearest);
        }
        let best = *nearest.first()?;
        // Candidates that cannot be told from the best compute the same function: the first of the table among them is
        // the simplest name for it.
        let equal = nearest.iter().filter(|candidate| {
            candidate.distance <= 2.0 * best.distance.max(self.resolution.noise)
                && self.same(&candidate.layer, &best.layer, self.resolution.same(best.distance))
        });
        let layer = equal.map(|candidate| candidate.layer).min_by_key(simplicity)?;
        // What is far off already needs no second opinion.
        let error = if best.distance <= self.resolution.tolerance {
            judge::error(&layer, self.probed, self.outputs).unwrap_or(f64::INFINITY)
        } else {
            best.distance
        };
        let limit = self.resolution.same(error);
        let runner_up = nearest.iter().find(|candidate| !self.same(&candidate.layer, &layer, limit));
        Some(Identification {
            layer,
            evidence: Evidence {
                error,
                runner_up: runner_up.map_or(farthest, |candidate| candidate.distance),
                runner_up_layer: runner_up.map(|candidate| candidate.layer),
                probes: self.samples.len(),
                down_to: None,
            },
        })
    }

    /// The factor c for which c f(Σ), f given by its image of an eigenvalue and the normaliser, is nearest to the numbers
    /// on the first probe, if it is the numbers on all, up to rounding; and how far off it is.
    pub(super) fn factor_of_image(
        &self,
        layer: &Layer,
        image: &dyn Fn(f64, f64) -> f64,
    ) -> Option<(f64, f64)> {
        let order = self.vectorizations.iter().position(|&order| order == layer.vectorization)?;
        let mut factor = None;
        let mut worst: f64 = 0.0;
        for sample in &self.samples {
            let basis = sample.spectra.basis(layer);
            if is_spent() || spend(&[PREDICTION + 2 * self.entries.len() * basis.rank()]).is_err() {
                return None;
            }
            let mut predicted = basis.predict_image(layer, 0..self.entries.len(), image);
            let found = &sample.found[order];
            let factor = *factor.get_or_insert_with(|| {
                let product: f64 = predicted.iter().zip(found).map(|(p, f)| p * f).sum();
                product / predicted.iter().map(|p| p * p).sum::<f64>()
            });
            predicted.iter_mut().for_each(|predicted| *predicted *= factor);
            let distance = scaled_distance(&predicted, found, sample.largest);
            if distance > self.resolution.tolerance {
                return None;
            }
            worst = worst.max(distance);
        }
        Some((factor?, worst))
    }

    /// How far the prediction of `layer` is from the numbers.
    fn distance(&self, layer: &Layer) -> f64 {
        self.distances(layer, std::slice::from_ref(layer), f64::INFINITY)
            .first()
            .map_or(f64::INFINITY, |candidate| candidate.distance)
    }
}

#[cfg(test)]
mod tests {
    use isqrt_cov_op::{Normalization, reference};

    use super::*;
    use crate::budget;
    use crate::recognize::identify::probed::inputs;
    use crate::recognize::search::NEAR;

    fn probed(operator: OperatorKind, dims: &[usize]) -> Probed {
        let inputs = inputs(operator, dims).unwrap();
        let rounded = |input: &Tensor| Tensor::from_f64(ElementType::F32, dims, &input.to_f64());
        Probed::new(inputs.iter().map(rounded).collect())
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
            // Not in the table.
            Layer { epsilon: 3.7e-4, ..features },
            Layer { iterations: 7, epsilon: 0.03, ..features },
            Layer { epsilon: 3e-4, vectorization: Vectorization::None, ..features },
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
            let resolution = Resolution::of(ElementType::F32);
            let found = identify(
                layer.operator,
                &probed,
                &outputs(&layer, &probed, |_, value| value),
                resolution,
                NEAR,
            )
            .unwrap_or_else(|| panic!("{layer:?}"));
            assert_eq!(found.layer, layer);
            assert!(found.is_certain(Resolution::of(ElementType::F32)), "{layer:?}: {:?}", found.evidence);
        }
    }

    #[test]
    fn many_steps_are_told_apart_where_nothing_is_rounded() {
        for operator in [OperatorKind::IsqrtCov, OperatorKind::MatrixSqrt] {
            for iterations in [14, 18, 22, 24] {
                let layer = Layer { iterations, vectorization: Vectorization::None, ..Layer::new(operator) };
                for dims in [&[2, 5, 5][..], &[2, 32, 32]] {
                    let probed = Probed::new(inputs(operator, dims).unwrap());
                    let exact = |input: &Tensor| {
                        let values = reference::evaluate(&layer, &input.to_f64(), input.dims()).unwrap();
                        Tensor::from_f64(ElementType::F64, dims, &values)
                    };
                    let outputs: Vec<Tensor> = probed.inputs.iter().map(exact).collect();
                    let resolution = Resolution::exact(ElementType::F32);
                    let found = identify(operator, &probed, &outputs, resolution, NEAR).unwrap();
                    assert_eq!(found.layer, layer, "{dims:?}");
                    assert!(found.is_certain(resolution), "{:?}", found.evidence);
                }
            }
        }
    }

    #[test]
    fn numbers_that_no_attributes_explain_are_not_certain() {
        let layer = Layer::new(OperatorKind::IsqrtCov);
        let probed = probed(layer.operator, &[2, 7, 5, 6]);
        let resolution = Resolution::of(ElementType::F32);
        for distort in
            [|_, value: f64| 1.001 * value, |index, value| if index == 30 { 0.9 * value } else { value }]
        {
            let outputs = outputs(&layer, &probed, distort);
            let found = identify(layer.operator, &probed, &outputs, resolution, NEAR);
            assert!(found.is_none_or(|found| !found.is_certain(Resolution::of(ElementType::F32))));
        }
        let nan = outputs(&layer, &probed, |_, _| f64::NAN);
        assert!(identify(layer.operator, &probed, &nan, resolution, NEAR).is_none());
    }

    #[test]
    fn numbers_that_nothing_explains_are_searched_once() {
        let layer = Layer { vectorization: Vectorization::None, ..Layer::new(OperatorKind::IsqrtCov) };
        let probed = probed(layer.operator, &[2, 7, 5, 6]);
        let resolution = Resolution::of(ElementType::F32);
        let spent = |outputs: &[Tensor], limit: f64| {
            budget::within(u64::MAX - 1, || {
                let before = budget::left();
                let found = identify(layer.operator, &probed, outputs, resolution, limit);
                (found.unwrap().evidence.error, before - budget::left())
            })
        };
        let distorted =
            outputs(&layer, &probed, |index, value| if index == 30 { 0.9 * value } else { value });
        let (first, cost) = spent(&distorted, NEAR);
        assert!(first > resolution.tolerance && cost > 0);
        // The same numbers as a map.
        let moved: Vec<Tensor> = distorted.iter().map(|output| output.clone().reshaped(&[2, 7, 7])).collect();
        assert_eq!(spent(&moved, NEAR), (first, 0));
        // Others, and others that are near enough, are searched.
        assert!(spent(&distorted, f64::INFINITY).1 > 0);
        let explained = outputs(&layer, &probed, |_, value| value);
        assert!(spent(&explained, NEAR).1 > 0 && spent(&explained, NEAR).1 > 0);
    }
}
