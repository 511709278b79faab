//! What the innermost kernel does at best.

use std::ops::Range;

use super::product::{Dispatch, Operand, Part, Side, Simd, Sink, TILE_PANELS, Task, Tile, Version, product};

/// The rows of the operands: enough for what goes on between tiles not to matter, few enough for the caches.
const ROWS: usize = 400;

/// Computes a few tiles of a float32 product `rounds` times, from operands that stay in the caches. Returns the number of
/// operations, a multiplication and an addition counting as two: over the time, it is the rate at which a layer would run
/// that were nothing but long products.
#[must_use]
pub fn saturate(version: Version, rounds: usize) -> u64 {
    f32::dispatch(version, Rounds(rounds))
}

struct Rounds(usize);

impl Task<f32> for Rounds {
    type Output = u64;

    fn run<S: Simd<f32, W>, const W: usize, const MR: usize>(self, simd: S) -> u64 {
        let lines = vec![[0.5; W]; ROWS.next_multiple_of(W) * S::PANELS];
        let operand = Operand::of_matrices(&lines, Side::new::<W>(ROWS));
        let rows = Side::new::<W>(W);
        let mut tile = Kept([[[0.0; W]; MR]; TILE_PANELS]);
        for _ in 0..self.0 {
            simd.vectorize(
                #[inline(always)]
                || {
                    let panels = 0..S::PANELS;
                    product(simd, operand, operand, Part::Whole, rows, 0..rows.padded, panels, &mut tile);
                },
            );
            std::hint::black_box(&tile.0);
        }
        (2 * self.0 * W * S::PANELS * W * ROWS) as u64
    }
}

/// A tile that is filled and nothing more.
struct Kept<const W: usize, const MR: usize>(Tile<f32, W, MR>);

impl<const W: usize, const MR: usize> Sink<f32, W, MR> for Kept<W, MR> {
    #[inline(always)]
    fn lines<const V: usize>(&mut self, _: usize, _: usize) -> [&mut [[f32; W]; MR]; V] {
        self.0.first_chunk_mut().expect("a tile has at least V panels").each_mut()
    }

    #[inline(always)]
    fn filled(&mut self, _: usize, _: Range<usize>) {}
}
