//! Factors of products: combinations of triangles, made whole tile by tile.
#![allow(unsafe_code)]

use super::element::Real;
use super::executor::{Executor, for_each, worthwhile};
use super::product::{Side, Simd, triangle_panel};
use super::shared::Shared;
use crate::program::Combination;

/// The multiplications that take as long as making an entry.
const ENTRY: usize = 4;

/// The upper triangles of a program's matrices, one of which may be in the making.
#[derive(Debug, Clone, Copy)]
pub(super) struct Triangles<'a, R, const W: usize> {
    /// The lines of the matrices in the places before that one: of all where none is.
    before: &'a [[R; W]],
    /// The lines of those after it.
    after: &'a [[R; W]],
    /// The lines of each.
    lines: usize,
}

impl<'a, R, const W: usize> Triangles<'a, R, W> {
    /// Takes the matrix in `place` out of `triangles`, to be written.
    pub(super) fn split(triangles: &'a mut [[R; W]], place: usize, side: Side) -> (Self, &'a mut [[R; W]]) {
        let lines = side.triangle_lines::<W>();
        let (before, rest) = triangles.split_at_mut(place * lines);
        let (made, after) = rest.split_at_mut(lines);
        (Self { before, after, lines }, made)
    }

    /// None of `triangles` is to be written.
    pub(super) fn all(triangles: &'a [[R; W]], side: Side) -> Self {
        Self { before: triangles, after: &[], lines: side.triangle_lines::<W>() }
    }

    /// N lines of the matrix in `place`, from line `line` of its triangle on. `made` are the lines of the one in the making,
    /// from its line `first` on.
    #[inline(always)]
    fn lines<'b, const N: usize>(
        &'b self,
        place: usize,
        line: usize,
        (made, first): (&'b [[R; W]], usize),
    ) -> &'b [[R; W]; N] {
        let at = place * self.lines + line;
        let in_the_making = self.before.len();
        let lines = if at < in_the_making {
            &self.before[at..]
        } else if at < in_the_making + self.lines {
            &made[line - first..]
        } else {
            &self.after[at - in_the_making - self.lines..]
        };
        lines.first_chunk().expect("a tile lies within one panel")
    }
}

/// A factor in the making.
pub(super) struct Factor<'a, R, const W: usize> {
    /// What it is.
    pub combination: &'a Combination,
    /// Its panels.
    pub whole: Shared<'a, [R; W]>,
}

/// The factors of the next product.
pub(super) struct Factors<'a, R, const W: usize> {
    /// What they are made of.
    pub triangles: Triangles<'a, R, W>,
    /// The left one and, unless it is squared, the right one.
    pub pair: [Option<Factor<'a, R, W>>; 2],
    /// The matrices' rows and columns.
    pub side: Side,
}

impl<R: Real, const W: usize> Factors<'_, R, W> {
    /// Makes both from matrices that are all there.
    pub(super) fn make<S: Simd<R, W>, const MR: usize>(&self, simd: S, executor: &dyn Executor) {
        let executor = worthwhile(executor, self.side.len * self.side.len * ENTRY);
        for_each(executor, self.side.panels, &|panel| {
            simd.vectorize(
                #[inline(always)]
                || {
                    for row in (0..(panel + 1) * W).step_by(MR) {
                        // SAFETY: every task has a panel of its own.
                        unsafe { self.tile::<S, MR>(simd, row, panel, (&[], 0)) };
                    }
                },
            );
        });
    }

    /// Makes the part of both that needs the tile at `row` of `panel` and what is above it in that panel: the tile and its
    /// mirror image, or, where the tile is the last of the block on the diagonal, that block.
    ///
    /// # Safety
    /// No other thread is in here for the same panel.
    #[inline(always)]
    pub(super) unsafe fn tile<S: Simd<R, W>, const MR: usize>(
        &self,
        simd: S,
        row: usize,
        panel: usize,
        made: (&[[R; W]], usize),
    ) {
        let padded = self.side.padded;
        let line = triangle_panel::<W>(panel);
        for Factor { combination, whole } in self.pair.iter().flatten() {
            if row + MR <= panel * W {
                let sums = self.add::<S, MR>(simd, combination, line + row, made);
                let (upper, lower) = (panel * padded + row, row / W * padded + panel * W);
                // SAFETY: a tile in this panel, and lines that only this panel's tiles have their mirror images in.
                let (upper, lower) =
                    unsafe { (whole.range(upper..upper + MR), whole.range(lower..lower + W)) };
                for r in 0..MR {
                    simd.store(sums[r], &mut upper[r]);
                }
                simd.transpose(sums, lower, row % W);
            } else if row + MR == (panel + 1) * W {
                let sums = self.add::<S, W>(simd, combination, line + panel * W, made);
                let at = panel * padded + panel * W;
                // SAFETY: a block in this panel.
                let block = unsafe { whole.range(at..at + W) };
                let (mirrored, identity) = (simd.transposed(sums), R::from_f64(combination.identity));
                for i in 0..W {
                    simd.store(simd.join(i, mirrored[i], sums[i]), &mut block[i]);
                    block[i][i] += identity;
                }
            }
        }
    }

    /// Σ c_i B_i in N lines. On the diagonal their upper triangle alone has a meaning.
    #[inline(always)]
    fn add<S: Simd<R, W>, const N: usize>(
        &self,
        simd: S,
        combination: &Combination,
        line: usize,
        made: (&[[R; W]], usize),
    ) -> [S::Vector; N] {
        let mut sums = [simd.splat(R::default()); N];
        for &(place, factor) in &combination.terms {
            let factor = simd.splat(R::from_f64(factor));
            let terms: &[[R; W]; N] = self.triangles.lines(place, line, made);
            for i in 0..N {
                sums[i] = simd.multiply_add(factor, simd.load(&terms[i]), sums[i]);
            }
        }
        sums
    }
}
