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
    let lines = side.triangle_lines::<W>();
    let triangles = triangles.as_chunks::<W>().0;
    let whole = Shared::new(whole);
    let identity = R::from_f64(combination.identity);
    for_each(executor, side.panels, &|panel| {
        simd.vectorize(|| {
            for block in 0..=panel {
                let start = triangle_panel::<W>(panel) + block * W;
                let mut upper = [[R::default(); W]; W];
                for (i, line) in upper.iter_mut().enumerate() {
                    let mut sum = simd.splat(R::default());
                    for &(place, factor) in &combination.terms {
                        let term = simd.load(&triangles[place * lines + start + i]);
                        sum = simd.multiply_add(simd.splat(R::from_f64(factor)), term, sum);
                    }
                    simd.store(sum, line);
                }
                if block == panel {
                    upper.iter_mut().enumerate().for_each(|(i, line)| line[i] += identity);
                }
                let mut lower = simd.transpose(&upper);
                if block == panel {
                    for i in 0..W {
                        lower[i][i..].copy_from_slice(&upper[i][i..]);
                    }
                } else {
                    let at = panel * side.padded + block * W;
                    // SAFETY: this block lies above the diagonal in `panel`, and no other task writes it.
                    unsafe { whole.range(at..at + W) }.copy_from_slice(&upper);
                }
                let at = block * side.padded + panel * W;
                // SAFETY: the block's mirror image, or the block on the diagonal: no other task writes it.
                unsafe { whole.range(at..at + W) }.copy_from_slice(&lower);
            }
        });
    });
}
