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
                    if let (Some(upper), Some(lower)) = (upper.first_chunk_mut(), lower.first_chunk_mut()) {
                        add(simd, combination, triangles, side, [block, panel], upper);
                        simd.transpose(upper, lower);
                    }
                }
                let mut upper = [[R::default(); W]; W];
                add(simd, combination, triangles, side, [panel, panel], &mut upper);
                upper
                    .iter_mut()
                    .enumerate()
                    .for_each(|(i, line)| line[i] += R::from_f64(combination.identity));
                let at = panel * side.padded + panel * W;
                // SAFETY: the block on the diagonal: no other task writes it.
                if let Some(block) = unsafe { whole.range(at..at + W) }.first_chunk_mut() {
                    simd.transpose(&upper, block);
                    for i in 0..W {
                        block[i][i..].copy_from_slice(&upper[i][i..]);
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
    block: &mut [[R; W]; W],
) {
    let lines = side.triangle_lines::<W>();
    let start = triangle_panel::<W>(panel) + row * W;
    let zero = simd.splat(R::default());
    let mut sums = [zero; W];
    for &(place, factor) in &combination.terms {
        let factor = simd.splat(R::from_f64(factor));
        let terms = &triangles[place * lines + start..][..W];
        for (sum, term) in sums.iter_mut().zip(terms) {
            *sum = simd.multiply_add(factor, simd.load(term), *sum);
        }
    }
    for (sum, line) in sums.into_iter().zip(block) {
        simd.store(sum, line);
    }
}
