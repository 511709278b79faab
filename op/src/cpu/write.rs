//! Writing the result: the entries asked for, in the order asked for, scaled and rounded.

use std::ops::Range;

use super::element::{Convert, Element, Real};
use super::executor::{Executor, Order, for_each_piece, worthwhile};
use super::mirror::mirror;
use super::multiplier::Multiplier;
use super::product::{Lanes, Operand, Part, Side, Simd, Sink, TILE_PANELS, Tile, first_row, product};
use crate::layer::Layer;
use crate::vectorization::Vectorization;

/// The rows of a result that one task computes and writes.
const ROWS: usize = 48;

/// Computes the product that is the result and writes it.
pub(super) fn write<T: Element + Convert<R>, R: Real, S: Simd<R, W>, const W: usize, const MR: usize>(
    simd: S,
    executor: &dyn Executor,
    [left, right]: [Operand<'_, R, W>; 2],
    writing: Writing<R>,
    output: &mut [T],
) {
    let side = writing.side;
    let tasks = side.padded.div_ceil(ROWS);
    let bound = |task: usize| writing.row_start((task * ROWS).clamp(side.pad, side.padded) - side.pad).0;
    let executor = worthwhile(executor, (side.len * side.len / 2).saturating_mul(left.rows.len));
    let order = if writing.part() == Part::Lower { Order::Backward } else { Order::Forward };
    for_each_piece(executor, output, (tasks, order), &bound, &|task, output| {
        simd.vectorize(
            #[inline(always)]
            || {
                let rows = (task * ROWS).max(first_row::<MR>(side))..side.padded.min((task + 1) * ROWS);
                let tile = [[[R::default(); W]; MR]; TILE_PANELS];
                let mut sink = Sending { simd, writing, tile, output, offset: bound(task) };
                let (part, panels) = (writing.part(), 0..side.panels);
                product::<_, S, W, MR>(simd, left, right, part, side, rows, panels, &mut sink);
            },
        );
    });
    if writing.vectorization == Vectorization::None {
        mirror(executor, output, side.len);
    }
}

/// What becomes of a matrix on its way into the output.
#[derive(Debug, Clone, Copy)]
pub(super) struct Writing<R> {
    /// Which entries are written, in which order.
    pub vectorization: Vectorization,
    /// What entries off the diagonal are multiplied by.
    off_diagonal: Multiplier<R>,
    /// What those on the diagonal are multiplied by.
    diagonal: Multiplier<R>,
    /// What is added on the diagonal in the end.
    pub shift: R,
    /// The matrix's rows and columns.
    pub side: Side,
}

impl<R: Real> Writing<R> {
    /// The entries of `layer`'s result, each times `factor` and 2^exponent.
    pub(super) fn new(layer: &Layer, side: Side, factor: f64, exponent: i32) -> Self {
        Self {
            vectorization: layer.vectorization,
            off_diagonal: Multiplier::new([factor, layer.off_diagonal_scale.into()], exponent),
            diagonal: Multiplier::new([factor, 1.0], exponent),
            shift: R::default(),
            side,
        }
    }

    /// The triangle from which rows of the output are written without going to and fro.
    fn part(&self) -> Part {
        match self.vectorization {
            Vectorization::Upper | Vectorization::None => Part::Upper,
            Vectorization::UpperColumnMajor => Part::Lower,
        }
    }

    /// The place in the output of the first entry that row `row` has there, and that entry's column.
    ///
    /// Not by [`Vectorization::position`]: the kernels are tested against the reference, whose order comes from there.
    #[inline(always)]
    fn row_start(&self, row: usize) -> (usize, usize) {
        let len = self.side.len;
        match self.vectorization {
            Vectorization::Upper => (row * (2 * len + 1 - row) / 2, row),
            Vectorization::UpperColumnMajor => (row * (row + 1) / 2, 0),
            Vectorization::None => (row * len, 0),
        }
    }

    /// The place in the output of an entry that is written, by its row and column in the padded matrix.
    #[inline(always)]
    fn place(&self, row: usize, column: usize) -> usize {
        let (start, first) = self.row_start(row - self.side.pad);
        start + (column - self.side.pad - first)
    }

    /// Whether every entry of the panel of a tile that begins at `row` and `column` is written, and none is on the diagonal.
    #[inline(always)]
    fn is_whole<const W: usize, const MR: usize>(&self, row: usize, column: usize) -> bool {
        let inside = match self.part() {
            Part::Lower => column + W <= row,
            Part::Upper | Part::Whole => row + MR <= column,
        };
        inside && row >= self.side.pad && column >= self.side.pad
    }

    /// Writes a tile that begins at `row` and `column` in the padded matrix into `output`, which begins at `offset` in the
    /// whole output. Entries outside the matrix and outside [`Self::part`] are left out.
    #[inline(always)]
    fn tile<T: Element + Convert<R>, S: Simd<R, W>, const W: usize, const MR: usize>(
        &self,
        simd: S,
        [row, column]: [usize; 2],
        panels: usize,
        tile: &Tile<R, W, MR>,
        (output, offset): (&mut [T], usize),
    ) {
        // Panels that are not written whole are at one end: an upper triangle's first, a lower one's last.
        let mut inside = 0..panels;
        for v in 0..panels {
            let column = column + v * W;
            if !self.is_whole::<W, MR>(row, column) {
                self.edge(simd, [row, column], &tile[v], (&mut *output, offset));
                if v == inside.start {
                    inside.start += 1;
                } else {
                    inside.end = inside.end.min(v);
                }
            }
        }
        if inside.is_empty() {
            return;
        }
        let column = column + inside.start * W;
        for r in 0..MR {
            let at = self.place(row + r, column) - offset;
            // Lengths known beforehand are copied without a call.
            let output = &mut output[at..];
            for (v, output) in inside.clone().zip(output.as_chunks_mut::<W>().0) {
                T::store(&scaled(simd, self.off_diagonal, &tile[v][r]), output);
            }
        }
    }

    /// Writes a panel of a tile of which not every entry is wanted.
    #[inline(always)]
    fn edge<T: Element + Convert<R>, S: Simd<R, W>, const W: usize, const MR: usize>(
        &self,
        simd: S,
        [row, column]: [usize; 2],
        lines: &[[R; W]; MR],
        (output, offset): (&mut [T], usize),
    ) {
        let pad = self.side.pad;
        for r in pad.saturating_sub(row)..MR {
            let row = row + r;
            let (from, to) = match self.part() {
                Part::Lower => (column.max(pad), (row + 1).min(column + W)),
                Part::Upper | Part::Whole => (column.max(row), column + W),
            };
            if from >= to {
                continue;
            }
            let entries = scaled(simd, self.off_diagonal, &lines[r]);
            let at = self.place(row, from) - offset;
            let entries = &entries[from - column..to - column];
            let output = &mut output[at..at + entries.len()];
            // Copied in pieces of lengths known beforehand, without a call.
            let mut done = 0;
            macro_rules! copy {
                ($($len:literal)*) => {$(
                    while entries.len() - done >= $len {
                        T::store(&entries[done..done + $len], &mut output[done..done + $len]);
                        done += $len;
                    }
                )*};
            }
            copy!(8 4 2 1);
            if (from..to).contains(&row) {
                let diagonal = scaled(simd, self.diagonal, &lines[r])[row - column] + self.shift;
                T::store(&[diagonal], &mut output[row - from..=row - from]);
            }
        }
    }
}

/// Numbers times a factor.
#[inline(always)]
fn scaled<R: Real, S: Simd<R, W>, const W: usize>(
    simd: S,
    Multiplier { factor, powers }: Multiplier<R>,
    numbers: &[R; W],
) -> [R; W] {
    let zero = simd.splat(R::default());
    let mut vector = simd.multiply_add(simd.splat(factor), simd.load(numbers), zero);
    for power in powers.into_iter().flatten() {
        vector = simd.multiply_add(simd.splat(power), vector, zero);
    }
    let mut scaled = [R::default(); W];
    simd.store(vector, &mut scaled);
    scaled
}

/// Some rows of the output.
struct Sending<'a, T, R, S, const W: usize, const MR: usize> {
    simd: S,
    writing: Writing<R>,
    tile: Tile<R, W, MR>,
    output: &'a mut [T],
    /// The first of these elements in the whole output.
    offset: usize,
}

impl<T: Element + Convert<R>, R: Real, S: Simd<R, W>, const W: usize, const MR: usize> Sink<R, W, MR>
    for Sending<'_, T, R, S, W, MR>
{
    #[inline(always)]
    fn lines<const V: usize>(&mut self, _: usize, _: usize) -> [&mut [[R; W]; MR]; V] {
        self.tile.first_chunk_mut().expect("a tile has at least V panels").each_mut()
    }

    #[inline(always)]
    fn filled(&mut self, row: usize, panels: Range<usize>) {
        let output = (&mut *self.output, self.offset);
        self.writing.tile(self.simd, [row, panels.start * W], panels.len(), &self.tile, output);
    }

    /// Tiles that are written as they are.
    #[inline(always)]
    fn takes(&self, row: usize, panels: Range<usize>) -> bool {
        let is_whole = |panel: usize| self.writing.is_whole::<W, MR>(row, panel * W);
        self.writing.off_diagonal.powers.is_none() && is_whole(panels.start) && is_whole(panels.end - 1)
    }

    #[inline(always)]
    fn take<L: Lanes<R, W>, const V: usize>(
        &mut self,
        simd: L,
        row: usize,
        panel: usize,
        tile: [[L::Vector; V]; MR],
    ) {
        let factor = simd.splat(self.writing.off_diagonal.factor);
        let zero = simd.splat(R::default());
        for r in 0..MR {
            let at = self.writing.place(row + r, panel * W) - self.offset;
            let output: &mut [[T; W]; V] =
                self.output[at..at + V * W].as_chunks_mut().0.first_chunk_mut().expect("V lines");
            for v in 0..V {
                let mut entries = [R::default(); W];
                simd.store(simd.multiply_add(factor, tile[r][v], zero), &mut entries);
                T::store(&entries, &mut output[v]);
            }
        }
    }
}
