//! Factors of products: combinations of triangles, made whole.
#![allow(unsafe_code)]

use super::element::Real;
use super::executor::{Executor, for_each};
use super::product::{Side, Simd, triangle_panel};
use super::program::Combination;
use super::shared::Shared;

/// Writes c₀ I + Σ c_i B_i into the panels of `whole`. `triangles` are the upper triangles of the symmetric B_i.
pub(super) fn combine<R: Real, S: Simd<R, W>, const W: usize>(
    simd: S,
    executor: &dyn Executor,
    combination: &Combination,
    triangles: &[R],
    side: Side,
    whole: &mut [[R; W]],
) {
    let triangles = triangles.as_chunks::<W>().0;
    let whole = Shared::new(whole);
    for_each(executor, side.panels, &|panel| {
        simd.vectorize(
            #[inline(always)]
            || {
                for block in 0..panel {
                    let (upper, lower) = (panel * side.padded + block * W, block * side.padded + panel * W);
                    // SAFETY: a block above the diagonal in this task's panel, and its mirror image: no other task
                    // writes either.
                    let (upper, lower) =
                        unsafe { (whole.range(upper..upper + W), whole.range(lower..lower + W)) };
                    if let (Some(upper), Some(lower)) =
                        (upper.first_chunk_mut::<W>(), lower.first_chunk_mut())
                    {
                        let sums = add(simd, combination, triangles, side, [block, panel]);
                        for i in 0..W {
                            simd.store(sums[i], &mut upper[i]);
                        }
                        simd.transpose(sums, lower);
                    }
                }
                let at = panel * side.padded + panel * W;
                // SAFETY: the block on the diagonal: no other task writes it.
                if let Some(block) = unsafe { whole.range(at..at + W) }.first_chunk_mut() {
                    let sums = add(simd, combination, triangles, side, [panel, panel]);
                    simd.transpose(sums, block);
                    for i in 0..W {
                        let mut upper = [R::default(); W];
                        simd.store(sums[i], &mut upper);
                        block[i][i..].copy_from_slice(&upper[i..]);
                        block[i][i] += R::from_f64(combination.identity);
                    }
                }
            },
        );
    });
}

/// Σ c_i B_i in one block. On the diagonal its upper triangle alone has a meaning.
#[inline(always)]
fn add<R: Real, S: Simd<R, W>, const W: usize>(
    simd: S,
    combination: &Combination,
    triangles: &[[R; W]],
    side: Side,
    [row, panel]: [usize; 2],
) -> [S::Vector; W] {
    let lines = side.triangle_lines::<W>();
    let start = triangle_panel::<W>(panel) + row * W;
    let mut sums = [simd.splat(R::default()); W];
    for &(place, factor) in &combination.terms {
        let factor = simd.splat(R::from_f64(factor));
        let terms = &triangles[place * lines + start..][..W];
        for i in 0..W {
            sums[i] = simd.multiply_add(factor, simd.load(&terms[i]), sums[i]);
        }
    }
    sums
}
