//! Inner products of the rows of a matrix: the upper triangle of X̄ X̄ᵀ from X̄ as it lies.
//!
//! [`product`](super::product) sums over the rows of its operands, so that X̄ X̄ᵀ asks it for X̄ transposed. Here a vector
//! holds neighbors in one row, W parts of a sum, which are added up in the end: nothing is transposed, the tiles are small
//! and few of their entries lie below the diagonal.

use super::{NEAR, Real, Side, Simd};

/// The rows of a tile; its columns are as many as make W sums.
const ROWS: usize = 4;

/// The lines in one sum at most, which has W parts: as [`TERMS_OF_FEATURES`](super::TERMS_OF_FEATURES), but adding the parts
/// up costs more.
const LINES: usize = 50;

/// A matrix whose rows lie in lines of W numbers, one row after another. Each ends with zeros where W does not divide it.
#[derive(Debug, Clone, Copy)]
pub(in crate::cpu) struct Rows<'a, R, const W: usize> {
    /// All rows.
    pub lines: &'a [[R; W]],
    /// The lines of a row.
    pub blocks: usize,
    /// The matrix's rows, which are the product's rows and columns.
    pub side: Side,
}

impl<'a, R: Real, const W: usize> Rows<'a, R, W> {
    /// Computes this panel of the upper triangle of the product with the transpose into `panel_lines`.
    #[inline(always)]
    pub(in crate::cpu) fn panel<S: Simd<R, W>>(self, simd: S, panel: usize, panel_lines: &mut [[R; W]]) {
        let columns = W / ROWS;
        for row in (self.side.pad / ROWS * ROWS..(panel + 1) * W).step_by(ROWS) {
            let mut sums = [[R::default(); W]; ROWS];
            // The tiles of the panel that have an entry on the diagonal or above.
            let first = row.saturating_sub(panel * W) / columns * columns;
            for column in (first..W).step_by(columns) {
                let other = panel * W + column;
                // Functions of their own, in which nothing but the tile is in registers.
                if row == other {
                    simd.vectorize(
                        #[inline(always)]
                        || self.tile::<S, true>(simd, [row, other], column, &mut sums),
                    );
                } else {
                    simd.vectorize(
                        #[inline(always)]
                        || self.tile::<S, false>(simd, [row, other], column, &mut sums),
                    );
                }
            }
            panel_lines[row..row + ROWS].copy_from_slice(&sums);
        }
    }

    /// The inner products of some rows with others into some columns of `sums`.
    #[inline(always)]
    fn tile<S: Simd<R, W>, const DIAGONAL: bool>(
        self,
        simd: S,
        [row, other]: [usize; 2],
        column: usize,
        sums: &mut [[R; W]; ROWS],
    ) {
        let columns = W / ROWS;
        let left: [_; ROWS] = std::array::from_fn(|i| self.row(row + i));
        // As many as there are columns; an array's length cannot say so.
        let right: [_; W] = std::array::from_fn(|j| self.row(other + j % columns));
        let mut total = simd.splat(R::default());
        let mut from = 0;
        while from < self.blocks {
            let to = self.blocks.min(from + LINES);
            let left = left.map(|lines| &lines[from..to]);
            let right = right.map(|lines| &lines[from..to]);
            let mut parts = [simd.splat(R::default()); W];
            for k in 0..to - from {
                let factors = left.map(|lines| simd.load(&lines[k]));
                for j in 0..columns {
                    let terms = simd.load(&right[j][k]);
                    for i in 0..if DIAGONAL { j + 1 } else { ROWS } {
                        parts[i * columns + j] = simd.multiply_add(factors[i], terms, parts[i * columns + j]);
                    }
                }
            }
            total = simd.multiply_add(simd.splat(R::from_f64(1.0)), simd.totals(parts), total);
            from = to;
        }
        let mut numbers = [R::default(); W];
        simd.store(total, &mut numbers);
        for i in 0..ROWS {
            sums[i][column..column + columns].copy_from_slice(&numbers[i * columns..(i + 1) * columns]);
        }
    }

    /// A row by its place in the padded product. The padding repeats the first.
    #[inline(always)]
    fn row(self, row: usize) -> &'a [[R; W]] {
        &self.lines[row.saturating_sub(self.side.pad) * self.blocks..][..self.blocks]
    }
}

/// Whether these inner products are sooner there than a transposed copy and its product are: where rows are so long that the
/// adding up in the end is little beside them, and all stay in the cache for all others. The bounds are measured ones.
pub(in crate::cpu) fn pays<R: Real, S: Simd<R, W>, const W: usize>(rows: usize, row_len: usize) -> bool {
    let row = row_len.div_ceil(W).saturating_mul(size_of::<[R; W]>());
    S::SUMS_STAY && row_len / 6 >= rows && rows.saturating_mul(row) <= 2 * NEAR
}

#[cfg(test)]
mod tests {
    use super::super::portable::Portable;
    use super::*;

    #[test]
    fn every_entry_of_the_upper_triangle_is_an_inner_product_of_two_rows() {
        const W: usize = 8;
        for (len, row_len) in [(1, 1), (3, 20), (8, 8), (13, 9), (20, 64), (21, W * LINES + 5)] {
            let side = Side::new::<W>(len);
            let blocks = row_len.div_ceil(W);
            let entry =
                |row: usize, k: usize| if k < row_len { ((row * 7 + k * 5) % 11) as f32 - 5.0 } else { 0.0 };
            let mut lines = vec![[f32::NAN; W]; len * blocks];
            for row in 0..len {
                for k in 0..blocks * W {
                    lines[row * blocks + k / W][k % W] = entry(row, k);
                }
            }
            let rows = Rows { lines: &lines, blocks, side };
            for panel in 0..side.panels {
                let mut found = vec![[f32::NAN; W]; (panel + 1) * W];
                rows.panel(Portable, panel, &mut found);
                for column in (panel * W).max(side.pad)..(panel + 1) * W {
                    let found: Vec<_> = (side.pad..=column).map(|row| found[row][column % W]).collect();
                    // Small integers: every order of adding them up gives the same.
                    let product = |row: usize| -> f32 {
                        (0..row_len).map(|k| entry(row, k) * entry(column - side.pad, k)).sum()
                    };
                    let expected: Vec<_> = (0..=column - side.pad).map(product).collect();
                    assert_eq!(found, expected, "{len} {row_len} {column}");
                }
            }
        }
    }
}
