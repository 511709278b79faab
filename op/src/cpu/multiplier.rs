//! Factors that may be beyond the type that they multiply numbers of.

use super::element::Real;

/// A factor, in up to three parts of which each is a normal number of the type. All are above 1 or all below, so that on the way
/// from a number to its product nothing overflows or vanishes that the product can hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Multiplier<R> {
    /// The factor, or the first part.
    pub factor: R,
    /// The others, powers of two, where one number does not hold the factor.
    pub powers: Option<[R; 2]>,
}

impl<R: Real> Multiplier<R> {
    /// The product of two factors and 2^exponent, rounded as if no number were beyond the type.
    pub(super) fn new(factors: [f64; 2], exponent: i32) -> Self {
        let range = 2.0_f64.powi(-R::EXPONENTS)..2.0_f64.powi(R::EXPONENTS);
        let factor = R::from_f64(factors[0]) * R::from_f64(factors[1]);
        if exponent == 0
            && [factors[0], factors[1], factor.to_f64()].iter().all(|number| range.contains(number))
        {
            // The rest gives the same, but takes as long as a small sample's products.
            return Self { factor, powers: None };
        }
        let [(first, first_exponent), (second, second_exponent)] = factors.map(split);
        let (digits, carried) = split((R::from_f64(first) * R::from_f64(second)).to_f64());
        // What a number times more than this gives is beyond the type, or vanishes, unless the number is 0.
        let most = 3 * R::EXPONENTS;
        let exponent = (exponent + first_exponent + second_exponent + carried).clamp(-most, most);
        let part = |digits: f64, exponent: i32| R::from_f64(digits * 2.0_f64.powi(exponent));
        if exponent.abs() <= R::EXPONENTS {
            return Self { factor: part(digits, exponent), powers: None };
        }
        let third = exponent / 3;
        let powers = [third, exponent - 2 * third].map(|exponent| part(1.0, exponent));
        Self { factor: part(digits, third), powers: Some(powers) }
    }
}

/// Digits between 1 and 2, and the exponent of the power of two that they are to be multiplied by.
fn split(number: f64) -> (f64, i32) {
    if number == 0.0 {
        return (0.0, 0);
    }
    let exponent = number.log2().floor() as i32;
    // The logarithm may be rounded up to the next integer.
    let digits = number * 2.0_f64.powi(-exponent);
    if digits < 1.0 { (2.0 * digits, exponent - 1) } else { (digits, exponent) }
}

#[cfg(test)]
// Powers of two round nothing.
#[allow(clippy::float_cmp)]
mod tests {
    use super::*;

    fn times(factors: [f64; 2], exponent: i32, number: f32) -> f32 {
        let Multiplier { factor, powers } = Multiplier::<f32>::new(factors, exponent);
        let [second, third] = powers.unwrap_or([1.0; 2]);
        assert!([factor, second, third].iter().all(|part| part.is_normal() || *part == 0.0));
        number * factor * second * third
    }

    #[test]
    fn factors_are_as_good_as_their_product() {
        for (a, b) in [(0.1, 1.0), (0.7, std::f64::consts::SQRT_2), (3e-5, 1e9), (1.0, 0.0), (2.0, 0.3)] {
            assert_eq!(times([a, b], 0, 1.1), a as f32 * b as f32 * 1.1, "{a} {b}");
        }
        let almost_two = f64::from_bits(2.0_f64.to_bits() - 1);
        assert_eq!(times([almost_two, 0.5], -20, 1.0), 2.0_f32.powi(-20));
    }

    #[test]
    fn nothing_is_lost_that_the_product_can_hold() {
        let two = |exponent: i32| 2.0_f64.powi(exponent);
        assert_eq!(times([two(100), two(100)], 0, 2.0_f32.powi(-140)), 2.0_f32.powi(60));
        assert_eq!(times([two(-100), two(100)], -200, 2.0_f32.powi(90)), 2.0_f32.powi(-110));
        assert_eq!(times([3.0 * two(-200), 1.0], 252, 1.0), 3.0 * 2.0_f32.powi(52));
        assert_eq!(times([1.9, 1.9 * two(127)], 252, 0.0), 0.0);
        assert_eq!(times([1.9, 1.9 * two(127)], 252, 2.0_f32.powi(-149)), f32::INFINITY);
        assert_eq!(times([two(-149), two(-30)], -252, f32::MAX), 0.0);
        // Factors that would be subnormal, and have fewer digits, where their product is not.
        let fraction = 0.7 * two(-139);
        for factors in [[fraction, two(100)], [two(100), fraction]] {
            assert_eq!(times(factors, 0, 1.0), 0.7 * 2.0_f32.powi(-39));
        }
        assert_eq!(times([1.1 * two(-127), 1.0], 0, 2.0_f32.powi(100)), 1.1 * 2.0_f32.powi(-27));
    }
}
