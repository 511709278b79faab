//! Products of symmetric matrices, one triangle of them.
//!
//! An operand is stored as column panels: W columns side by side (W is the vector width), its rows one after another.
//! The product of the operands L and R over their rows k,
//!
//! ```text
//! P[i][j] = Σ_k L[k][i] R[k][j]
//! ```
//!
//! reads both along the panels, without packing: X̄ᵀX̄ with L = R = X̄, X̄X̄ᵀ with L = R = X̄ᵀ, and the product of commuting
//! symmetric matrices, which equals its own transpose, with the matrices as they are. A tile of MR rows by up to three
//! panels stays in registers over the whole sum.
//!
//! A matrix whose side is no multiple of W sits at the end of its panels: the first panel is padded in front. The
//! padded columns then cost a triangle a few rows instead of a few columns.

mod portable;
mod version;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::ops::Range;

use super::element::Real;

pub use version::{Dispatch, Task, Version};

/// The panels that a tile is wide at most.
pub(super) const TILE_PANELS: usize = 3;

/// The terms after which a sum is put aside and a new one begun: sums of sums lose less than one long sum.
const TERMS: usize = 256;

/// A set of vector instructions for numbers of type R, W at a time. A value proves that the CPU has them.
pub trait Simd<R: Real, const W: usize>: Copy + Send + Sync {
    /// W numbers.
    type Vector: Copy;

    /// Runs `function` compiled for these instructions, provided that it is inlined.
    fn vectorize<O>(self, function: impl FnOnce() -> O) -> O;
    /// W times the same number.
    fn splat(self, number: R) -> Self::Vector;
    /// Reads W numbers.
    fn load(self, numbers: &[R; W]) -> Self::Vector;
    /// Writes W numbers.
    fn store(self, vector: Self::Vector, numbers: &mut [R; W]);
    /// a·b + c, number by number.
    fn multiply_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;

    /// The transpose of a W×W block.
    #[inline(always)]
    fn transpose(self, block: &[[R; W]; W]) -> [[R; W]; W] {
        let mut transpose = [[R::default(); W]; W];
        for (i, row) in block.iter().enumerate() {
            for (j, &entry) in row.iter().enumerate() {
                transpose[j][i] = entry;
            }
        }
        transpose
    }
}

/// One side of a matrix that is stored in panels of W columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Side {
    /// The columns (or rows) that there are.
    pub len: usize,
    /// The panels (or blocks of W rows).
    pub panels: usize,
    /// Where the first of them lies in the first panel (or block).
    pub pad: usize,
    /// All columns (or rows), padding included.
    pub padded: usize,
}

impl Side {
    /// The side of `len` columns in panels of W.
    pub(super) fn new<const W: usize>(len: usize) -> Self {
        let panels = len.div_ceil(W);
        Self { len, panels, pad: panels * W - len, padded: panels * W }
    }

    /// The lines of W numbers in the upper triangle of a square matrix: panel p has its first p + 1 blocks only.
    pub(super) fn triangle_lines<const W: usize>(self) -> usize {
        triangle_panel::<W>(self.panels)
    }
}

/// The line at which a panel of an upper triangle begins.
pub(super) fn triangle_panel<const W: usize>(panel: usize) -> usize {
    W * panel * (panel + 1) / 2
}

/// A factor of a product.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operand<'a, R, const W: usize> {
    /// The panels, one after another.
    pub lines: &'a [[R; W]],
    /// Its rows, over which the product sums.
    pub rows: Side,
}

impl<'a, R, const W: usize> Operand<'a, R, W> {
    #[inline(always)]
    fn panel(&self, panel: usize) -> &'a [[R; W]] {
        &self.lines[panel * self.rows.padded..][..self.rows.padded]
    }
}

/// Which tiles of a product are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// All.
    Whole,
    /// Those with an entry on the diagonal or above.
    Upper,
    /// Those with an entry on the diagonal or below.
    Lower,
}

/// A tile's entries: for each of its rows the W columns of each of its panels.
pub(super) type Tile<R, const W: usize, const MR: usize> = [[[R; W]; TILE_PANELS]; MR];

/// Computes the tiles in `rows` × `panels` of the product of `left` and `right` and hands each to `sink` with its first
/// row, its first panel and its number of panels. `rows` begins at a multiple of MR.
#[inline(always)]
pub(super) fn product<R: Real, S: Simd<R, W>, const W: usize, const MR: usize>(
    simd: S,
    left: Operand<'_, R, W>,
    right: Operand<'_, R, W>,
    part: Part,
    rows: Range<usize>,
    panels: Range<usize>,
    mut sink: impl FnMut(usize, usize, usize, &Tile<R, W, MR>),
) {
    let mut tile: Tile<R, W, MR> = [[[R::default(); W]; TILE_PANELS]; MR];
    // Groups are counted from the last panel, so that a narrow group is the one with the fewest rows.
    let mut end = panels.end;
    while end > panels.start {
        let start = end.saturating_sub(TILE_PANELS).max(panels.start);
        for row in rows.clone().step_by(MR) {
            let wanted = match part {
                Part::Whole => start..end,
                Part::Upper => start.max(row / W)..end,
                Part::Lower => start..end.min((row + MR - 1) / W + 1),
            };
            match wanted.len() {
                0 => continue,
                1 => sums::<R, S, W, MR, 1>(simd, left, right, row, wanted.start, &mut tile),
                2 => sums::<R, S, W, MR, 2>(simd, left, right, row, wanted.start, &mut tile),
                _ => sums::<R, S, W, MR, 3>(simd, left, right, row, wanted.start, &mut tile),
            }
            sink(row, wanted.start, wanted.len(), &tile);
        }
        end = start;
    }
}

/// One tile of V panels.
#[inline(always)]
fn sums<R: Real, S: Simd<R, W>, const W: usize, const MR: usize, const V: usize>(
    simd: S,
    left: Operand<'_, R, W>,
    right: Operand<'_, R, W>,
    row: usize,
    panel: usize,
    tile: &mut Tile<R, W, MR>,
) {
    let column = row % W;
    let left_panel = left.panel(row / W);
    let right_panels: [&[[R; W]]; V] = std::array::from_fn(|v| right.panel(panel + v));
    let mut from = left.rows.pad;
    let mut first = true;
    while first || from < left.rows.padded {
        let to = left.rows.padded.min(from + TERMS);
        let left_lines = &left_panel[from..to];
        let right_lines = right_panels.map(|lines| &lines[from..to]);
        let mut total = [[simd.splat(R::default()); V]; MR];
        for k in 0..left_lines.len() {
            let factors: &[R; MR] = left_lines[k][column..].first_chunk().expect("MR divides W");
            let terms: [S::Vector; V] = std::array::from_fn(|v| simd.load(&right_lines[v][k]));
            for r in 0..MR {
                let factor = simd.splat(factors[r]);
                for v in 0..V {
                    total[r][v] = simd.multiply_add(factor, terms[v], total[r][v]);
                }
            }
        }
        for r in 0..MR {
            for v in 0..V {
                if !first {
                    let before = simd.load(&tile[r][v]);
                    total[r][v] = simd.multiply_add(simd.splat(R::from_f64(1.0)), before, total[r][v]);
                }
                simd.store(total[r][v], &mut tile[r][v]);
            }
        }
        first = false;
        from = to;
    }
}
