//! The ε that is none of the table's.

use isqrt_cov_op::Layer;

use super::{AttributeSearch, Fit};
use crate::budget::{self, is_spent};

/// log₁₀ of the least and the greatest ε that is looked for beside the table's.
const EXPONENTS: (f64, f64) = (-13.0, 0.5);

/// Combinations of the other attributes for which ε is looked for.
const REFINED: usize = 6;

/// Where the table's best is farther off than this, no ε between its values will do either.
const UNLIKE: f64 = 0.2;

/// Multiplications that a search over many values of ε may take.
const FINE: u64 = 1 << 33;

impl AttributeSearch<'_> {
    /// Adds candidates whose ε is none of the table's, where the nearest ones are not the numbers yet.
    pub(super) fn refine_epsilon(&self, nearest: &mut Vec<Fit>) {
        let Some(best) = nearest.first().map(|best| best.distance) else { return };
        if best <= 10.0 * self.resolution.noise || best > UNLIKE {
            return;
        }
        let without_epsilon = |layer: &Layer| Layer { epsilon: 0.0, ..*layer };
        let mut bases: Vec<Layer> = Vec::new();
        let mut add = |candidates: &[Fit], limit: usize| {
            for base in candidates.iter().map(|candidate| without_epsilon(&candidate.layer)) {
                if bases.len() < limit && !bases.contains(&base) {
                    bases.push(base);
                }
            }
        };
        add(nearest, REFINED);
        if best > self.resolution.tolerance {
            // No ε of the table is near enough to show which of the others are right.
            // Many values that are near to none must not use up what others need.
            add(&budget::within_half(FINE, || self.on_fine_grid()), 4 * REFINED);
        }
        for base in bases {
            let distance = |epsilon: f32| self.distance(&Layer { epsilon, ..base });
            let best = least(|exponent| distance(10_f64.powf(exponent) as f32), EXPONENTS);
            let exact = 10_f64.powf(best) as f32;
            let near = 2.0 * distance(exact).max(self.resolution.noise);
            // The shortest number that does as well is the one that was written.
            let written = (0..4).filter_map(|digits| format!("{exact:.digits$e}").parse().ok());
            let epsilon = written.into_iter().find(|&epsilon| distance(epsilon) <= near).unwrap_or(exact);
            nearest.push(Fit { distance: distance(epsilon), layer: Layer { epsilon, ..base } });
        }
        nearest.sort_by(|left, right| left.distance.total_cmp(&right.distance));
    }

    /// The nearest candidates over many values of ε, none more than 6 % from the next.
    fn on_fine_grid(&self) -> Vec<Fit> {
        let writings = self.writings();
        let mut matrices = self.matrices();
        matrices.retain(|layer| layer.epsilon == 0.0);
        let mut candidates = Vec::new();
        for matrix in matrices {
            let mut epsilon = 10_f64.powf(EXPONENTS.0);
            while epsilon < 10_f64.powf(EXPONENTS.1) && !is_spent() {
                let layer = Layer { epsilon: epsilon as f32, ..matrix };
                candidates.extend(self.distances(&layer, &writings, UNLIKE / 2.0));
                epsilon *= 1.12;
            }
        }
        candidates.sort_by(|left, right| left.distance.total_cmp(&right.distance));
        candidates
    }
}

/// Where `value` is least between two points: on a grid first, then by golden sections beside its least point.
fn least(value: impl Fn(f64) -> f64, (from, to): (f64, f64)) -> f64 {
    const POINTS: u32 = 40;
    let ratio = (5_f64.sqrt() - 1.0) / 2.0;
    let step = (to - from) / f64::from(POINTS);
    let grid = (0..=POINTS).map(|index| from + step * f64::from(index));
    let middle = grid.min_by(|&one, &other| value(one).total_cmp(&value(other))).unwrap_or(from);
    let (mut low, mut high) = (middle - step, middle + step);
    for _ in 0..50 {
        let (left, right) = (high - ratio * (high - low), low + ratio * (high - low));
        if value(left) < value(right) {
            high = right;
        } else {
            low = left;
        }
    }
    f64::midpoint(low, high)
}
