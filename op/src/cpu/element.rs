//! The element types of tensors and the types that the kernels compute in.

use std::fmt::Debug;
use std::ops::{Add, AddAssign, Mul, MulAssign, Sub};

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use super::product::Dispatch;
use super::workspace::{Pool, Pools};

/// A type that the kernels compute in: float32, or float64 for float64 tensors and for few channels of float32.
pub trait Real:
    Copy
    + Debug
    + Default
    + Send
    + Sync
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + AddAssign
    + MulAssign
    + Dispatch
    + 'static
{
    /// The greatest e for which 2^e and 2^−e are both normal numbers.
    const EXPONENTS: i32;

    /// The value in float64.
    fn to_f64(self) -> f64;
    /// The nearest value of this type.
    fn from_f64(value: f64) -> Self;
    /// Where the kernel keeps workspace of this type.
    fn pool(pools: &Pools) -> &Pool<Self>;
}

macro_rules! real {
    ($type:ty, $pool:ident) => {
        impl Real for $type {
            const EXPONENTS: i32 = 1 - <$type>::MIN_EXP;

            #[inline(always)]
            fn to_f64(self) -> f64 {
                self.into()
            }
            #[inline(always)]
            fn from_f64(value: f64) -> Self {
                value as $type
            }
            fn pool(pools: &Pools) -> &Pool<Self> {
                &pools.$pool
            }
        }
    };
}
real!(f32, single);
real!(f64, double);

/// An element type that the kernels take.
pub trait Element: Copy + Send + Sync + Convert<Self::Real> + Convert<Self::Few> + 'static {
    /// The type in which its sums run.
    type Real: Real;
    /// The type in which the sums of few channels run.
    type Few: Real;

    /// The value in float64.
    fn to_f64(self) -> f64;
    /// The nearest value of this type.
    fn from_f64(value: f64) -> Self;
    /// ⌊log₂⌋ of the greatest finite magnitude, subnormal numbers counting as the least normal one; none where every
    /// element is zero or not finite.
    fn greatest_exponent(elements: &[Self]) -> Option<i32>;
}

/// An element type whose sums can run in `R`.
pub trait Convert<R>: Sized {
    /// Converts each element; both slices have the same length.
    fn load(from: &[Self], to: &mut [R]);
    /// Rounds each number to the nearest element; both slices have the same length.
    fn store(from: &[R], to: &mut [Self]);
}

macro_rules! convert {
    ($type:ty, $real:ty, $load:expr, $store:expr) => {
        impl Convert<$real> for $type {
            #[inline(always)]
            fn load(from: &[Self], to: &mut [$real]) {
                $load(from, to);
            }
            #[inline(always)]
            fn store(from: &[$real], to: &mut [Self]) {
                $store(from, to);
            }
        }
    };
}
convert!(f32, f32, |from, to: &mut [f32]| to.copy_from_slice(from), |from, to: &mut [f32]| to
    .copy_from_slice(from));
convert!(f64, f64, |from, to: &mut [f64]| to.copy_from_slice(from), |from, to: &mut [f64]| to
    .copy_from_slice(from));
convert!(
    f32,
    f64,
    |from: &[f32], to: &mut [f64]| {
        for (to, from) in to.iter_mut().zip(from) {
            *to = (*from).into();
        }
    },
    |from: &[f64], to: &mut [f32]| {
        for (to, from) in to.iter_mut().zip(from) {
            *to = *from as f32;
        }
    }
);
convert!(f16, f32, |from: &[f16], to| from.convert_to_f32_slice(to), |from, to: &mut [f16]| to
    .convert_from_f32_slice(from));
convert!(bf16, f32, |from: &[bf16], to| from.convert_to_f32_slice(to), |from, to: &mut [bf16]| to
    .convert_from_f32_slice(from));

macro_rules! element {
    ($type:ty, $real:ty, $few:ty, $bits:ty, $fraction:literal, $bias:literal, $to:expr, $from:expr) => {
        impl Element for $type {
            type Real = $real;
            type Few = $few;

            #[inline(always)]
            fn to_f64(self) -> f64 {
                $to(self)
            }
            #[inline(always)]
            fn from_f64(value: f64) -> Self {
                $from(value)
            }
            #[inline(always)]
            fn greatest_exponent(elements: &[Self]) -> Option<i32> {
                let magnitude = |element: &Self| {
                    let magnitude = element.to_bits() & (<$bits>::MAX >> 1);
                    if magnitude < <$type>::INFINITY.to_bits() { magnitude } else { 0 }
                };
                // Many maxima side by side, which the compiler makes vectors of.
                let (chunks, rest) = elements.as_chunks::<64>();
                let mut greatest: [$bits; 64] = [0; 64];
                for chunk in chunks {
                    greatest.iter_mut().zip(chunk).for_each(|(greatest, element)| {
                        *greatest = (*greatest).max(magnitude(element));
                    });
                }
                let greatest = greatest.into_iter().chain(rest.iter().map(magnitude)).max().unwrap_or(0);
                let exponent = i32::try_from(greatest >> $fraction).unwrap_or(i32::MAX);
                (greatest != 0).then_some(exponent.max(1) - $bias)
            }
        }
    };
}
element!(f32, f32, f64, u32, 23, 127, f64::from, |value: f64| value as f32);
element!(f64, f64, f64, u64, 52, 1023, |value| value, |value| value);
element!(f16, f32, f32, u16, 10, 15, f16::to_f64, f16::from_f64);
element!(bf16, f32, f32, u16, 7, 127, bf16::to_f64, bf16::from_f64);

#[cfg(test)]
mod tests {
    use super::*;

    fn greatest<T: Element>(elements: &[f64]) -> Option<i32> {
        T::greatest_exponent(&elements.iter().map(|&element| T::from_f64(element)).collect::<Vec<_>>())
    }

    fn the_greatest_is_found<T: Element>(least_normal: i32) {
        // In the first of many, in the last of whole chunks, and behind them.
        for place in [0, 63, 64, 127, 128, 150] {
            let mut elements = vec![-1.0; 151];
            elements[place] = -5.0;
            assert_eq!(greatest::<T>(&elements), Some(2), "{place}");
            elements[place] = f64::NAN;
            assert_eq!(greatest::<T>(&elements), Some(0), "{place}");
        }
        let least = 2.0_f64.powi(least_normal);
        for element in [least, least / 2.0] {
            assert_eq!(greatest::<T>(&[0.0, element]), Some(least_normal), "{element:e}");
        }
        assert_eq!(greatest::<T>(&[]), None);
        assert_eq!(greatest::<T>(&[0.0, f64::NEG_INFINITY, f64::NAN]), None);
    }

    #[test]
    fn the_greatest_exponent_is_that_of_numbers_alone() {
        the_greatest_is_found::<f32>(-126);
        the_greatest_is_found::<f64>(-1022);
        the_greatest_is_found::<f16>(-14);
        the_greatest_is_found::<bf16>(-126);
    }
}
