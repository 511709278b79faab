//! Vectors that the compiler makes of arrays: what every CPU has.

use super::{Lanes, Simd};
use crate::cpu::element::Real;

/// No instructions beyond what the program was compiled for.
#[derive(Debug, Clone, Copy)]
pub struct Portable;

impl<R: Real, const W: usize> Lanes<R, W> for Portable {
    type Vector = [R; W];

    #[inline(always)]
    fn splat(self, number: R) -> [R; W] {
        [number; W]
    }

    #[inline(always)]
    fn load(self, numbers: &[R; W]) -> [R; W] {
        *numbers
    }

    #[inline(always)]
    fn store(self, vector: [R; W], numbers: &mut [R; W]) {
        *numbers = vector;
    }

    /// Rounds twice: without an instruction for it a fused product is a call into the mathematics library.
    #[inline(always)]
    fn multiply_add(self, a: [R; W], b: [R; W], c: [R; W]) -> [R; W] {
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
}

impl<R: Real, const W: usize> Simd<R, W> for Portable {
    // A panel's sums fill half of x86-64's sixteen registers; three panels' fill three quarters of AArch64's.
    const PANELS: usize = if cfg!(target_arch = "aarch64") { 3 } else { 1 };
    // The narrowest registers are as wide as half a vector, and there may be sixteen.
    const SUMS_STAY: bool = false;

    type Half = Self;

    #[inline(always)]
    fn half(self) -> Self {
        self
    }

    #[inline(always)]
    fn vectorize<O>(self, function: impl FnOnce() -> O) -> O {
        function()
    }

    #[inline(always)]
    fn interleave(self, a: [R; W], b: [R; W]) -> [[R; W]; 2] {
        let pick = |i: usize| if i.is_multiple_of(2) { a[i / 2] } else { b[i / 2] };
        [std::array::from_fn(pick), std::array::from_fn(|i| pick(i + W))]
    }

    #[inline(always)]
    fn join(self, count: usize, a: [R; W], b: [R; W]) -> [R; W] {
        std::array::from_fn(|i| if i < count { a[i] } else { b[i] })
    }
}
