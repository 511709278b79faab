//! The attributes that are searched: a table, and every combination of what is in it.

use isqrt_cov_op::{Layer, Normalization, Operator};

use super::AttributeSearch;

// The table of what is searched: one line a value. Earlier values are preferred where the numbers cannot tell.
const ITERATIONS: std::ops::RangeInclusive<u32> = 1..=24;
const CENTERED: [bool; 2] = [true, false];
const CORRECTION: [u32; 2] = [0, 1];
const EPSILON: [f32; 21] = [
    0.0, 1e-5, 1e-3, 1e-4, 1e-6, 1e-2, 1e-1, 1e-7, 1e-8, 1e-9, 1e-10, 1e-12, 5e-3, 5e-4, 5e-5, 5e-6, 5e-2,
    1.0, 0.5, 0.2, 2e-2,
];
const NORMALIZATION: [Normalization; 2] = Normalization::ALL;
const COMPENSATED: [bool; 2] = [true, false];
const OFF_DIAGONAL_SCALE: [f32; 5] =
    [1.0, std::f32::consts::SQRT_2, 2.0, std::f32::consts::FRAC_1_SQRT_2, 0.5];

impl AttributeSearch<'_> {
    /// Every combination of the attributes that change the matrix itself.
    pub(super) fn matrices(&self) -> Vec<Layer> {
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
    pub(super) fn writings(&self) -> Vec<Layer> {
        let has_scale = Operator::of(self.base.operator).attribute("off_diagonal_scale").is_some();
        let mut layers = vec![self.base];
        expand(&mut layers, has_scale, &OFF_DIAGONAL_SCALE, |layer, scale| layer.off_diagonal_scale = scale);
        expand(&mut layers, true, &self.vectorizations, |layer, order| layer.vectorization = order);
        layers
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
pub(super) fn simplicity(layer: &Layer) -> (usize, u32) {
    (layer.changed_attributes().len(), layer.iterations)
}
