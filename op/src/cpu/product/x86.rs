//! The vector instructions of x86-64.
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m256, __m256d, __m512, __m512d, _MM_HINT_T0, _mm_prefetch, _mm256_blendv_pd, _mm256_blendv_ps,
    _mm256_fmadd_pd, _mm256_fmadd_ps, _mm256_loadu_pd, _mm256_loadu_ps, _mm256_permute2f128_pd,
    _mm256_permute2f128_ps, _mm256_set1_pd, _mm256_set1_ps, _mm256_storeu_pd, _mm256_storeu_ps,
    _mm256_unpackhi_pd, _mm256_unpackhi_ps, _mm256_unpacklo_pd, _mm256_unpacklo_ps, _mm512_fmadd_pd,
    _mm512_fmadd_ps, _mm512_loadu_pd, _mm512_loadu_ps, _mm512_mask_mov_pd, _mm512_mask_mov_ps,
    _mm512_permutex2var_pd, _mm512_permutex2var_ps, _mm512_set1_pd, _mm512_set1_ps, _mm512_setr_epi32,
    _mm512_setr_epi64, _mm512_storeu_pd, _mm512_storeu_ps,
};

use super::{Lanes, Simd};

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

/// The second half of lines of 16 float32, for AVX-512: a half register takes half a cycle where the CPU splits whole ones.
#[derive(Debug, Clone, Copy)]
pub struct HalfAvx512(());

/// The bytes that a prefetch brings.
const CACHE_LINE: usize = 64;

macro_rules! lanes {
    ($lanes:ty, $real:ty, $width:literal, $range:expr, $vector:ty, $splat:ident, $load:ident, $store:ident, $fma:ident) => {
        impl Lanes<$real, $width> for $lanes {
            type Vector = $vector;

            #[inline(always)]
            fn splat(self, number: $real) -> $vector {
                // SAFETY: a value of this type was made after `detect`, so the CPU has the instructions.
                unsafe { $splat(number) }
            }

            #[inline(always)]
            fn load(self, line: &[$real; $width]) -> $vector {
                // SAFETY: as in `splat`; the range is as long as the vector, and the load need not be aligned.
                unsafe { $load(line[$range].as_ptr()) }
            }

            #[inline(always)]
            fn store(self, vector: $vector, line: &mut [$real; $width]) {
                // SAFETY: as in `load`.
                unsafe { $store(line[$range].as_mut_ptr(), vector) }
            }

            #[inline(always)]
            fn multiply_add(self, a: $vector, b: $vector, c: $vector) -> $vector {
                // SAFETY: as in `splat`.
                unsafe { $fma(a, b, c) }
            }
        }
    };
}
#[rustfmt::skip]
lanes!(Avx2, f32, 8, .., __m256, _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_fmadd_ps);
#[rustfmt::skip]
lanes!(Avx2, f64, 4, .., __m256d, _mm256_set1_pd, _mm256_loadu_pd, _mm256_storeu_pd, _mm256_fmadd_pd);
#[rustfmt::skip]
lanes!(Avx512, f32, 16, .., __m512, _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_fmadd_ps);
#[rustfmt::skip]
lanes!(Avx512, f64, 8, .., __m512d, _mm512_set1_pd, _mm512_loadu_pd, _mm512_storeu_pd, _mm512_fmadd_pd);
#[rustfmt::skip]
lanes!(HalfAvx512, f32, 16, 8.., __m256, _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_fmadd_ps);

macro_rules! simd {
    ($simd:ty, $real:ty, $width:literal, $panels:literal, $sums_stay:literal, $half:ty, $to_half:expr, $vector:ty, $wrapper:ident, $interleave:ident, $join:ident) => {
        impl Simd<$real, $width> for $simd {
            const PANELS: usize = $panels;
            const SUMS_STAY: bool = $sums_stay;
            type Half = $half;

            #[inline(always)]
            fn half(self) -> $half {
                $to_half(self)
            }

            #[inline(always)]
            fn vectorize<O>(self, function: impl FnOnce() -> O) -> O {
                // SAFETY: `self` was made by `detect`, so the CPU has the instructions.
                unsafe { $wrapper(function) }
            }

            #[inline(always)]
            fn interleave(self, a: $vector, b: $vector) -> [$vector; 2] {
                // SAFETY: as in `vectorize`.
                unsafe { $interleave(a, b) }
            }

            #[inline(always)]
            fn prefetch<T>(self, first: *const T, count: usize) {
                for line in (0..count).step_by((CACHE_LINE / size_of::<T>()).max(1)) {
                    // SAFETY: a hint, of whatever address.
                    unsafe { _mm_prefetch::<_MM_HINT_T0>(first.wrapping_add(line).cast()) };
                }
            }

            #[inline(always)]
            fn join(self, count: usize, a: $vector, b: $vector) -> $vector {
                // SAFETY: as in `vectorize`.
                unsafe { $join(count, a, b) }
            }
        }
    };
}
simd!(Avx2, f32, 8, 2, true, Self, |simd| simd, __m256, with_avx2, interleave_avx2_ps, join_avx2_ps);
simd!(Avx2, f64, 4, 2, false, Self, |simd| simd, __m256d, with_avx2, interleave_avx2_pd, join_avx2_pd);
simd!(
    Avx512,
    f32,
    16,
    3,
    true,
    HalfAvx512,
    |Self(proof)| HalfAvx512(proof),
    __m512,
    with_avx512,
    interleave_avx512_ps,
    join_avx512_ps
);
simd!(Avx512, f64, 8, 3, true, Self, |simd| simd, __m512d, with_avx512, interleave_avx512_pd, join_avx512_pd);

#[inline]
#[target_feature(enable = "avx2")]
fn interleave_avx2_ps(a: __m256, b: __m256) -> [__m256; 2] {
    let (even, odd) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
    [_mm256_permute2f128_ps::<0x20>(even, odd), _mm256_permute2f128_ps::<0x31>(even, odd)]
}

#[inline]
#[target_feature(enable = "avx2")]
fn interleave_avx2_pd(a: __m256d, b: __m256d) -> [__m256d; 2] {
    let (even, odd) = (_mm256_unpacklo_pd(a, b), _mm256_unpackhi_pd(a, b));
    [_mm256_permute2f128_pd::<0x20>(even, odd), _mm256_permute2f128_pd::<0x31>(even, odd)]
}

#[inline]
#[target_feature(enable = "avx512f")]
fn interleave_avx512_ps(a: __m512, b: __m512) -> [__m512; 2] {
    let first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    let second = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    [_mm512_permutex2var_ps(a, first, b), _mm512_permutex2var_ps(a, second, b)]
}

#[inline]
#[target_feature(enable = "avx512f")]
fn interleave_avx512_pd(a: __m512d, b: __m512d) -> [__m512d; 2] {
    let first = _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11);
    let second = _mm512_setr_epi64(4, 12, 5, 13, 6, 14, 7, 15);
    [_mm512_permutex2var_pd(a, first, b), _mm512_permutex2var_pd(a, second, b)]
}

/// Masks from which each join's is read: one that starts `count` numbers before the middle.
const HALVES: [i64; 8] = [0, 0, 0, 0, -1, -1, -1, -1];
const EIGHTHS: [i32; 16] = [0, 0, 0, 0, 0, 0, 0, 0, -1, -1, -1, -1, -1, -1, -1, -1];

#[inline]
#[target_feature(enable = "avx2")]
fn join_avx2_ps(count: usize, a: __m256, b: __m256) -> __m256 {
    let mask = &EIGHTHS[8 - count..][..8];
    // SAFETY: eight numbers are read of a slice that has as many.
    let mask = unsafe { _mm256_loadu_ps(mask.as_ptr().cast()) };
    _mm256_blendv_ps(a, b, mask)
}

#[inline]
#[target_feature(enable = "avx2")]
fn join_avx2_pd(count: usize, a: __m256d, b: __m256d) -> __m256d {
    let mask = &HALVES[4 - count..][..4];
    // SAFETY: four numbers are read of a slice that has as many.
    let mask = unsafe { _mm256_loadu_pd(mask.as_ptr().cast()) };
    _mm256_blendv_pd(a, b, mask)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn join_avx512_ps(count: usize, a: __m512, b: __m512) -> __m512 {
    _mm512_mask_mov_ps(a, u16::MAX << count, b)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn join_avx512_pd(count: usize, a: __m512d, b: __m512d) -> __m512d {
    _mm512_mask_mov_pd(a, u8::MAX << count, b)
}
