//! Writing the result: the entries asked for, in the order asked for, scaled and rounded.

use super::element::{Element, Real};
use super::product::{Part, Side, Simd, Tile};
use crate::layer::{Layer, Vectorization};

/// The rows and columns that are mirrored at a time: both blocks stay in the cache.
const BLOCK: usize = 16;

/// What becomes of a matrix on its way into the output.
#[derive(Debug, Clone, Copy)]
pub(super) struct Writing<R> {
    /// Which entries are written, in which order.
    pub vectorization: Vectorization,
    /// Factor on the entries off the diagonal.
    pub off_diagonal: R,
    /// Factor on every entry.
    pub factor: R,
    /// Powers of two on every entry, apart from `factor` because their product may not be representable.
    pub powers: [R; 2],
    /// What is added on the diagonal in the end.
    pub diagonal: R,
    /// The matrix's rows and columns.
    pub side: Side,
}

impl<R: Real> Writing<R> {
    /// The entries of `layer`'s result as they are.
    pub(super) fn plain(layer: &Layer, side: Side) -> Self {
        Self {
            vectorization: layer.vectorization,
            off_diagonal: R::from_f64(layer.off_diagonal_scale.into()),
            factor: R::from_f64(1.0),
            powers: [R::from_f64(1.0); 2],
            diagonal: R::default(),
            side,
        }
    }

    /// The triangle from which rows of the output are written without going to and fro.
    pub(super) fn part(&self) -> Part {
        match self.vectorization {
            Vectorization::Upper | Vectorization::None => Part::Upper,
            Vectorization::UpperColumnMajor => Part::Lower,
        }
    }

    /// The place in the output of the first entry that row `row` has there, and that entry's column.
    #[inline(always)]
    pub(super) fn row_start(&self, row: usize) -> (usize, usize) {
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

    /// Writes a tile that begins at `row` and `column` in the padded matrix into `output`, which begins at `offset` in the
    /// whole output. Entries outside the matrix and outside [`Self::part`] are left out.
    #[inline(always)]
    pub(super) fn tile<T: Element<Real = R>, S: Simd<R, W>, const W: usize, const MR: usize>(
        &self,
        simd: S,
        [row, column]: [usize; 2],
        panels: usize,
        tile: &Tile<R, W, MR>,
        (output, offset): (&mut [T], usize),
    ) {
        let Side { pad, padded, .. } = self.side;
        let count = panels * W;
        let inside = match self.part() {
            Part::Lower => column + count <= row,
            Part::Upper | Part::Whole => row + MR <= column,
        };
        if !inside || row < pad || column < pad {
            for r in pad.saturating_sub(row)..MR {
                let row = row + r;
                let (from, to) = match self.part() {
                    Part::Lower => (column.max(pad), (row + 1).min(column + count)),
                    Part::Upper | Part::Whole => (column.max(row), column + count),
                };
                if from < to {
                    let mut entries = [R::default(); 64];
                    for (entries, panel) in entries.chunks_exact_mut(W).zip(tile) {
                        entries.copy_from_slice(&panel[r]);
                    }
                    let entries = &entries[from - column..to - column];
                    let at = self.place(row, from) - offset;
                    self.entries([row, from], entries, &mut output[at..at + entries.len()]);
                }
            }
            return;
        }
        let factor = simd.splat(self.factor * self.off_diagonal);
        let powers = [simd.splat(self.powers[0]), simd.splat(self.powers[1])];
        let zero = simd.splat(R::default());
        for r in 0..MR {
            let at = self.place(row + r, column) - offset;
            // Lengths known beforehand are copied without a call.
            for (v, output) in output[at..at + count].as_chunks_mut::<W>().0.iter_mut().enumerate() {
                let entries = simd.multiply_add(factor, simd.load(&tile[v][r]), zero);
                let entries = simd.multiply_add(powers[0], entries, zero);
                let mut scaled = [R::default(); W];
                simd.store(simd.multiply_add(powers[1], entries, zero), &mut scaled);
                T::store(&scaled, output);
            }
            // The next tile follows on the right.
            let next = at + count;
            for line in 0..(if column + count < padded { panels } else { 0 }) {
                if let Some(place) = output.get(next + line * W) {
                    simd.prefetch(place);
                }
            }
        }
    }

    /// Writes a stretch of a row, shorter than a tile, that begins at `row` and `column`.
    #[inline(always)]
    fn entries<T: Element<Real = R>>(&self, [row, column]: [usize; 2], entries: &[R], output: &mut [T]) {
        let mut scaled = [R::default(); 64];
        let factor = self.factor * self.off_diagonal;
        for (scaled, entry) in scaled.iter_mut().zip(entries) {
            *scaled = *entry * factor * self.powers[0] * self.powers[1];
        }
        if let Some(entry) = entries.get(row.wrapping_sub(column)) {
            scaled[row - column] = *entry * self.factor * self.powers[0] * self.powers[1] + self.diagonal;
        }
        T::store(&scaled[..entries.len()], output);
    }

    /// Copies the upper triangle of a matrix that is written whole into the lower one.
    pub(super) fn mirror<T: Element>(&self, output: &mut [T]) {
        if self.vectorization != Vectorization::None {
            return;
        }
        let len = self.side.len;
        for rows in (0..len).step_by(BLOCK) {
            for columns in (0..=rows).step_by(BLOCK) {
                for row in rows..len.min(rows + BLOCK) {
                    for column in columns..row.min(columns + BLOCK) {
                        output[row * len + column] = output[column * len + row];
                    }
                }
            }
        }
    }
}
