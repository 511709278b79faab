//! How far numbers are from those that they should be.

/// max|value|, of what is a number.
#[must_use]
pub fn magnitude<'a>(values: impl IntoIterator<Item = &'a f64>) -> f64 {
    values.into_iter().fold(0.0, |greatest: f64, value| greatest.max(value.abs()))
}

/// Whether two numbers are equal, or both none.
#[allow(clippy::float_cmp)]
#[must_use]
pub fn same(one: f64, other: f64) -> bool {
    one == other || (one.is_nan() && other.is_nan())
}

/// max|Δ| / max|expected|. What is no number is infinitely far, as is everything where all is expected to be 0.
#[must_use]
pub fn relative_distance(found: &[f64], expected: &[f64]) -> f64 {
    scaled_distance(found, expected, magnitude(expected))
}

/// max|Δ| / `scale`. What is no number is infinitely far.
#[must_use]
pub fn scaled_distance(found: &[f64], expected: &[f64], scale: f64) -> f64 {
    let distances = found.iter().zip(expected).map(|(found, expected)| (found - expected).abs() / scale);
    // `max` would drop a NaN.
    distances.fold(0.0, |worst: f64, one| if one.is_nan() { f64::INFINITY } else { worst.max(one) })
}

/// max|Δ| / `scale` of what is not the [`same`]: what is no number is infinitely far from a number alone.
#[must_use]
pub fn distance_of_unlike(found: &[f64], expected: &[f64], scale: f64) -> f64 {
    let pairs = found.iter().zip(expected).filter(|(found, expected)| !same(**found, **expected));
    let (found, expected): (Vec<f64>, Vec<f64>) = pairs.unzip();
    scaled_distance(&found, &expected, scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_on_both_sides_is_no_distance() {
        let (nan, inf) = (f64::NAN, f64::INFINITY);
        let is = |found: &[f64], expected: &[f64], scale: f64, distance: f64| {
            distance_of_unlike(found, expected, scale).to_bits() == distance.to_bits()
        };
        assert!(is(&[nan, inf, 1.0], &[nan, inf, 2.0], 2.0, 0.5));
        for (found, expected) in [(nan, 1.0), (1.0, nan), (inf, 1.0), (inf, -inf), (nan, inf)] {
            assert!(is(&[found, 1.0], &[expected, 1.0], 2.0, inf), "{found} for {expected}");
        }
        assert!(is(&[0.0], &[0.0], 0.0, 0.0) && is(&[1.0], &[0.0], 0.0, inf));
    }

    #[test]
    fn what_is_no_number_is_infinitely_far() {
        let relative = |found: &[f64]| relative_distance(found, &[1.0, -4.0]);
        let found = [[1.0, 2.0], [f64::NAN, -4.0], [1.0, f64::INFINITY]].map(|found| relative(&found));
        assert_eq!(found.to_vec(), [1.5, f64::INFINITY, f64::INFINITY]);
        let zeros = (relative_distance(&[0.0], &[0.0]), scaled_distance(&[0.0], &[0.0], 2.0));
        assert_eq!(zeros, (f64::INFINITY, 0.0));
        assert_eq!(Some(magnitude(&[1.0, f64::NAN, -2.0])), Some(2.0));
    }
}
