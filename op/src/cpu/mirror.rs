//! Writing the lower triangle of a symmetric matrix of which the upper one is written.
#![allow(unsafe_code)]

use std::ops::Range;

use super::element::Element;
use super::executor::{Executor, for_each, worthwhile};
use super::shared::Shared;

/// The rows and columns that are turned at a time, in a copy of their own: rows of a matrix may be so far apart that few of them
/// stay in the cache together, and each is read once.
const BLOCK: usize = 16;

/// The rows that one task writes.
const STRIP: usize = 64;

/// The multiplications that take as long as mirroring an entry.
const ENTRY: usize = 16;

/// Copies the upper triangle of a matrix of `len` rows into the lower one.
pub(super) fn mirror<T: Element>(executor: &dyn Executor, matrix: &mut [T], len: usize) {
    assert_eq!(matrix.len(), len * len, "a square matrix of {len} rows");
    let strips = len.div_ceil(STRIP);
    let executor = worthwhile(executor, (len * len / 2).saturating_mul(ENTRY));
    let matrix = Mirrored { matrix: Shared::new(matrix), len };
    // The last strips are the longest.
    for_each(executor, strips, &|index| {
        let first = (strips - 1 - index) * STRIP;
        // SAFETY: `for_each` hands out each index once.
        unsafe { matrix.strip(first..len.min(first + STRIP)) };
    });
}

/// A matrix whose lower triangle is in the making.
struct Mirrored<'a, T> {
    matrix: Shared<'a, T>,
    len: usize,
}

impl<T: Element> Mirrored<'_, T> {
    /// Fills these rows up to the diagonal.
    ///
    /// # Safety
    /// No other thread is in here with one of these rows: they are written left of the diagonal, and the columns of the same
    /// numbers are read above it.
    unsafe fn strip(&self, rows: Range<usize>) {
        let whole = rows.end - rows.len() % BLOCK;
        for column in (0..whole).step_by(BLOCK) {
            for row in (rows.start.max(column)..whole).step_by(BLOCK) {
                // SAFETY: by the caller's promise.
                unsafe {
                    if column < row { self.block(row, column) } else { self.edge(row..row + BLOCK, column) }
                }
            }
        }
        // SAFETY: by the caller's promise.
        unsafe { self.edge(whole..rows.end, 0) };
    }

    /// Fills a block that begins at `row` and `column` and lies below the diagonal.
    ///
    /// # Safety
    /// As for [`Self::strip`] with its rows.
    unsafe fn block(&self, row: usize, column: usize) {
        let mut block = [[T::from_f64(0.0); BLOCK]; BLOCK];
        for i in 0..BLOCK {
            let at = (column + i) * self.len + row;
            // SAFETY: above the diagonal; by the caller's promise no other thread has these entries.
            block[i].copy_from_slice(unsafe { self.matrix.range(at..at + BLOCK) });
        }
        for j in 0..BLOCK {
            let mut line = block[0];
            for i in 0..BLOCK {
                line[i] = block[i][j];
            }
            let at = (row + j) * self.len + column;
            // SAFETY: below the diagonal, and as above.
            unsafe { self.matrix.range(at..at + BLOCK) }.copy_from_slice(&line);
        }
    }

    /// Fills some rows from `column` up to the diagonal, entry by entry.
    ///
    /// # Safety
    /// As for [`Self::strip`].
    unsafe fn edge(&self, rows: Range<usize>, column: usize) {
        for row in rows.filter(|row| column < *row) {
            let start = row * self.len;
            // SAFETY: below the diagonal; by the caller's promise no other thread has these entries.
            let line = unsafe { self.matrix.range(start + column..start + row) };
            for (to, column) in line.iter_mut().zip(column..row) {
                let at = column * self.len + row;
                // SAFETY: above the diagonal, and as above.
                *to = unsafe { self.matrix.range(at..at + 1) }[0];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::executor::Serial;
    use super::super::tests::Threads;
    use super::*;

    #[test]
    fn the_lower_triangle_is_the_upper_ones_mirror_image() {
        for len in [1, 2, 15, 16, 17, 63, 64, 65, 80, 130, 257] {
            let upper = |i: usize, j: usize| (i * len + j) as f32;
            let matrix: Vec<f32> =
                (0..len * len).map(|at| if at % len < at / len { f32::NAN } else { at as f32 }).collect();
            let expected: Vec<f32> =
                (0..len * len).map(|at| upper((at / len).min(at % len), (at / len).max(at % len))).collect();
            for executor in [&Serial as &dyn Executor, &Threads(3)] {
                let mut found = matrix.clone();
                mirror(executor, &mut found, len);
                assert_eq!(found, expected, "{len} rows");
            }
        }
    }
}
