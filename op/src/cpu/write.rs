//! Writing the result: the entries asked for, in the order asked for, scaled and rounded.

use super::element::{Element, Real};
use super::product::{Part, Side, TILE_PANELS};
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

    /// The place in the output of the entry in row `row` and column `column` of the padded matrix.
    #[inline(always)]
    pub(super) fn place(&self, row: usize, column: usize) -> Option<usize> {
        let (row, column) = (row.checked_sub(self.side.pad)?, column.checked_sub(self.side.pad)?);
        let (start, first) = self.row_start(row);
        Some(start + column.checked_sub(first)?)
    }

    /// Writes a stretch of the row `row`, which in the padded matrix begins at `column`, into `output`, which begins at
    /// `offset` in the whole output. Entries outside the matrix and outside [`Self::part`] are left out.
    #[inline(always)]
    pub(super) fn row<T: Element<Real = R>, const W: usize>(
        &self,
        row: usize,
        column: usize,
        entries: &[[R; W]; TILE_PANELS],
        count: usize,
        output: &mut [T],
        offset: usize,
    ) {
        let Side { pad, padded, .. } = self.side;
        if row < pad {
            return;
        }
        let (from, to) = match self.part() {
            Part::Lower => (pad, row + 1),
            Part::Upper | Part::Whole => (row, padded),
        };
        let (from, to) = (from.max(column), to.min(column + count));
        if from >= to {
            return;
        }
        let (start, first) = self.row_start(row - pad);
        let output = &mut output[start + (from - pad - first) - offset..];
        let scale = |entry: R| entry * self.factor * self.powers[0] * self.powers[1];
        if to - from == count && !(column..column + count).contains(&row) {
            // The common case: lengths known beforehand are copied without a call.
            for (entries, output) in entries.iter().zip(output[..count].as_chunks_mut::<W>().0) {
                let mut scaled = *entries;
                for entry in &mut scaled {
                    *entry = scale(*entry) * self.off_diagonal;
                }
                T::store(&scaled, output);
            }
            return;
        }
        let mut scaled = *entries;
        for entry in scaled.as_flattened_mut() {
            *entry = scale(*entry) * self.off_diagonal;
        }
        let scaled = scaled.as_flattened_mut();
        if let Some(entry) = scaled.get_mut(row.wrapping_sub(column)) {
            *entry = scale(entries.as_flattened()[row - column]) + self.diagonal;
        }
        T::store(&scaled[from - column..to - column], &mut output[..to - from]);
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
