//! The vector instructions of x86-64.
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m256, __m256d, __m512, __m512d, _mm256_fmadd_pd, _mm256_fmadd_ps, _mm256_loadu_pd, _mm256_loadu_ps,
    _mm256_set1_pd, _mm256_set1_ps, _mm256_storeu_pd, _mm256_storeu_ps, _mm512_fmadd_pd, _mm512_fmadd_ps,
    _mm512_loadu_pd, _mm512_loadu_ps, _mm512_set1_pd, _mm512_set1_ps, _mm512_storeu_pd, _mm512_storeu_ps,
};

use super::Simd;

/// AVX2 and FMA.
#[derive(Debug, Clone, Copy)]
pub struct Avx2(());

/// AVX-512 F, VL, BW and DQ beside AVX2 and FMA.
#[derive(Debug, Clone, Copy)]
pub struct Avx512(());

impl Avx2 {
    /// The proof that the CPU has these instructions, if it does.
    pub(super) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Self(()))
    }
}

impl Avx512 {
    /// The proof that the CPU has these instructions, if it does.
    pub(super) fn detect() -> Option<Self> {
        (Avx2::detect().is_some()
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq"))
        .then_some(Self(()))
    }
}

#[target_feature(enable = "avx2,fma")]
fn with_avx2<O>(function: impl FnOnce() -> O) -> O {
    function()
}

#[target_feature(enable = "avx2,fma,avx512f,avx512vl,avx512bw,avx512dq")]
fn with_avx512<O>(function: impl FnOnce() -> O) -> O {
    function()
}

macro_rules! simd {
    ($simd:ty, $wrapper:ident, $real:ty, $width:literal, $vector:ty, $splat:ident, $load:ident, $store:ident, $fma:ident) => {
        impl Simd<$real, $width> for $simd {
            type Vector = $vector;

            #[inline(always)]
            fn vectorize<O>(self, function: impl FnOnce() -> O) -> O {
                // SAFETY: `self` was made by `detect`, so the CPU has the instructions.
                unsafe { $wrapper(function) }
            }

            #[inline(always)]
            fn splat(self, number: $real) -> $vector {
                // SAFETY: as in `vectorize`.
                unsafe { $splat(number) }
            }

            #[inline(always)]
            fn load(self, numbers: &[$real; $width]) -> $vector {
                // SAFETY: as in `vectorize`; the array is as long as the vector, and the load need not be aligned.
                unsafe { $load(numbers.as_ptr()) }
            }

            #[inline(always)]
            fn store(self, vector: $vector, numbers: &mut [$real; $width]) {
                // SAFETY: as in `load`.
                unsafe { $store(numbers.as_mut_ptr(), vector) }
            }

            #[inline(always)]
            fn multiply_add(self, a: $vector, b: $vector, c: $vector) -> $vector {
                // SAFETY: as in `vectorize`.
                unsafe { $fma(a, b, c) }
            }
        }
    };
}
#[rustfmt::skip]
simd!(Avx2, with_avx2, f32, 8, __m256, _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_fmadd_ps);
#[rustfmt::skip]
simd!(Avx2, with_avx2, f64, 4, __m256d, _mm256_set1_pd, _mm256_loadu_pd, _mm256_storeu_pd, _mm256_fmadd_pd);
#[rustfmt::skip]
simd!(Avx512, with_avx512, f32, 16, __m512, _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_fmadd_ps);
#[rustfmt::skip]
simd!(Avx512, with_avx512, f64, 8, __m512d, _mm512_set1_pd, _mm512_loadu_pd, _mm512_storeu_pd, _mm512_fmadd_pd);
