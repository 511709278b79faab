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
//! symmetric matrices, which equals its own transpose, with the matrices as they are. A tile of MR rows by some
//! panels stays in registers over the whole sum.
//!
//! A matrix whose side is no multiple of W sits at the end of its panels: the first panel is padded in front. The
//! padded columns then cost a triangle a few rows instead of a few columns.

mod inner;
mod portable;
mod version;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::ops::Range;

use super::element::Real;

pub(super) use inner::{Rows, pays};
#[cfg(test)]
pub(super) use portable::Portable;
pub use version::{Dispatch, Task, Version};

/// The panels that any version's tile is wide at most.
pub(super) const TILE_PANELS: usize = 3;

/// The terms in one sum of a product of matrices.
const TERMS: usize = 70;

/// The terms in one sum of a covariance or a Gram matrix. Features are zero in many places, behind a ReLU: most terms are the
/// same then, and so are the errors that they are added with. And what this first product loses, the program magnifies.
const TERMS_OF_FEATURES: usize = 24;

/// The bytes of the right operand that all rows are multiplied with before the rest comes: about half of a common L2 cache.
const NEAR: usize = 400 << 10;

/// Arithmetic on lines of W numbers of type R. A value proves that the CPU has the instructions.
pub trait Lanes<R: Real, const W: usize>: Copy + Send + Sync {
    /// The numbers of a line.
    type Vector: Copy;

    /// The same number everywhere.
    fn splat(self, number: R) -> Self::Vector;
    /// Reads a line.
    fn load(self, line: &[R; W]) -> Self::Vector;
    /// Writes a line.
    fn store(self, vector: Self::Vector, line: &mut [R; W]);
    /// a·b + c, number by number.
    fn multiply_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
}

/// A set of vector instructions for numbers of type R, W at a time.
pub trait Simd<R: Real, const W: usize>: Lanes<R, W> {
    /// The panels that a tile is wide at most, [`TILE_PANELS`] or fewer: as many as leave registers for the operands. A sum that
    /// does not stay in its register waits for memory with every term.
    const PANELS: usize;

    /// Whether W vectors and a few more stay in registers, and are enough for no sum to wait for its last term.
    const SUMS_STAY: bool;

    /// The second half of each line, or all of it where half a line takes as long.
    type Half: Lanes<R, W>;

    /// The same instructions for the second half of each line.
    fn half(self) -> Self::Half;
    /// Runs `function` compiled for these instructions, as far as it is inlined: what the standard library's functions
    /// are given as a closure may not be, so that vectors are worked on in plain loops.
    fn vectorize<O>(self, function: impl FnOnce() -> O) -> O;
    /// a₀ b₀ a₁ b₁ …, in two vectors.
    fn interleave(self, a: Self::Vector, b: Self::Vector) -> [Self::Vector; 2];

    /// The first `count` numbers of a, then b's.
    fn join(self, count: usize, a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// Asks for elements that are wanted soon, if there are any.
    #[inline(always)]
    fn prefetch<T>(self, first: *const T, count: usize) {
        let _ = (first, count);
    }

    /// Σ of each of W vectors.
    #[inline(always)]
    fn totals(self, mut vectors: [Self::Vector; W]) -> Self::Vector {
        // Each round adds the halves of every vector; a number's place in the end says whose total it is.
        let one = self.splat(R::from_f64(1.0));
        let mut left = W;
        while left > 1 {
            left /= 2;
            for i in 0..left {
                let [a, b] = self.interleave(vectors[i], vectors[i + left]);
                vectors[i] = self.multiply_add(one, a, b);
            }
        }
        vectors[0]
    }

    /// Σ of a vector, in each place.
    #[inline(always)]
    fn total(self, mut vector: Self::Vector) -> Self::Vector {
        let one = self.splat(R::from_f64(1.0));
        for _ in 0..W.ilog2() {
            let [a, b] = self.interleave(vector, vector);
            vector = self.multiply_add(one, a, b);
        }
        vector
    }

    /// The transpose of N lines: their W columns, W/N of them in a vector.
    #[inline(always)]
    fn transposed<const N: usize>(self, mut rows: [Self::Vector; N]) -> [Self::Vector; N] {
        // Each round shuffles the lines, read as one row of cards, perfectly; log₂ N shuffles exchange the digits of row
        // and column.
        for _ in 0..N.ilog2() {
            let mut shuffled = rows;
            for i in 0..N / 2 {
                [shuffled[2 * i], shuffled[2 * i + 1]] = self.interleave(rows[i], rows[i + N / 2]);
            }
            rows = shuffled;
        }
        rows
    }

    /// Writes the transpose of N lines into N columns of `lines`, from `column` on.
    #[inline(always)]
    fn transpose<const N: usize>(self, rows: [Self::Vector; N], lines: &mut [[R; W]], column: usize) {
        let rows = self.transposed(rows);
        let lines: &mut [[R; W]; W] = lines.first_chunk_mut().expect("a column for each of a line's numbers");
        for i in 0..N {
            let mut columns = [R::default(); W];
            self.store(rows[i], &mut columns);
            for j in 0..W / N {
                lines[i * (W / N) + j][column..column + N].copy_from_slice(&columns[j * N..(j + 1) * N]);
            }
        }
    }

    /// The lines of a block.
    #[inline(always)]
    fn lines(self, block: &[[R; W]; W]) -> [Self::Vector; W] {
        let mut rows = [self.splat(R::default()); W];
        for i in 0..W {
            rows[i] = self.load(&block[i]);
        }
        rows
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

/// The first row, rounded down to the tile's.
pub(super) fn first_row<const MR: usize>(rows: Side) -> usize {
    rows.pad / MR * MR
}

/// A factor of a product.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operand<'a, R, const W: usize> {
    /// The panels, one after another.
    pub lines: &'a [[R; W]],
    /// Its rows, over which the product sums.
    pub rows: Side,
    /// The terms in one sum at most, where it is the left factor: a longer one is a sum of such sums, which loses less.
    terms: usize,
}

impl<'a, R, const W: usize> Operand<'a, R, W> {
    /// A factor of a covariance or a Gram matrix.
    #[inline(always)]
    pub(super) fn of_features(lines: &'a [[R; W]], rows: Side) -> Self {
        Self { lines, rows, terms: TERMS_OF_FEATURES }
    }

    /// A factor of another product.
    #[inline(always)]
    pub(super) fn of_matrices(lines: &'a [[R; W]], rows: Side) -> Self {
        Self { lines, rows, terms: TERMS }
    }

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

/// The lines of a tile, panel by panel.
pub(super) type Tile<R, const W: usize, const MR: usize> = [[[R; W]; MR]; TILE_PANELS];

/// Where the tiles of a product go.
pub(super) trait Sink<R, const W: usize, const MR: usize> {
    /// The lines that a tile of V panels is to fill: MR of each panel.
    fn lines<const V: usize>(&mut self, row: usize, panel: usize) -> [&mut [[R; W]; MR]; V];

    /// Says that a tile is filled.
    fn filled(&mut self, row: usize, panels: Range<usize>);

    /// Whether a tile is wanted by [`Self::take`], and its lines are but scratch memory.
    #[inline(always)]
    fn takes(&self, row: usize, panels: Range<usize>) -> bool {
        let _ = (row, panels);
        false
    }

    /// Takes a tile out of registers.
    #[inline(always)]
    fn take<S: Lanes<R, W>, const V: usize>(
        &mut self,
        simd: S,
        row: usize,
        panel: usize,
        tile: [[S::Vector; V]; MR],
    ) where
        R: Real,
    {
        let _ = (simd, row, panel, tile);
    }
}

/// Computes the tiles in `rows` × `panels` of the product of `left` and `right` into `sink`. `rows` are some of
/// `output_rows` and begin at a multiple of MR.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub(super) fn product<R: Real, S: Simd<R, W>, const W: usize, const MR: usize>(
    simd: S,
    left: Operand<'_, R, W>,
    right: Operand<'_, R, W>,
    part: Part,
    output_rows: Side,
    rows: Range<usize>,
    panels: Range<usize>,
    sink: &mut impl Sink<R, W, MR>,
) {
    const { assert!(0 < S::PANELS && S::PANELS <= TILE_PANELS, "a tile has lines for its panels") };
    let terms = left.rows.len.div_ceil(left.rows.len.div_ceil(left.terms).max(1));
    let near = (NEAR / size_of_val(right.panel(panels.start))).max(S::PANELS);
    let mut from = panels.start;
    while from < panels.end {
        let to = panels.end.min(from + near);
        for row in rows.clone().step_by(MR) {
            let mut wanted = match part {
                Part::Whole => from..to,
                Part::Upper => from.max(row / W)..to,
                Part::Lower => from..to.min((row + MR - 1) / W + 1),
            };
            // Few rows of the first tile may be more than padding.
            let used = MR - output_rows.pad.saturating_sub(row);
            if part == Part::Upper && row % W >= W / 2 && wanted.start == row / W && !wanted.is_empty() {
                // The panel on the diagonal, of which the first half lies below.
                Operands { left, right, row, panel: wanted.start, terms }.half::<S, MR>(simd, sink);
                wanted.start += 1;
            }
            while !wanted.is_empty() {
                // The narrow tile comes first: for an upper triangle that is the one next to the diagonal.
                let count = (wanted.len() - 1) % S::PANELS + 1;
                let operands = Operands { left, right, row, panel: wanted.start, terms };
                match count {
                    1 => operands.tile::<S, MR, 1>(simd, used, sink),
                    2 => operands.tile::<S, MR, 2>(simd, used, sink),
                    _ => operands.tile::<S, MR, TILE_PANELS>(simd, used, sink),
                }
                wanted.start += count;
            }
        }
        from = to;
    }
}

/// The operands of a tile.
#[derive(Clone, Copy)]
struct Operands<'a, R, const W: usize> {
    left: Operand<'a, R, W>,
    right: Operand<'a, R, W>,
    row: usize,
    panel: usize,
    /// The terms in a part of a sum.
    terms: usize,
}

impl<R: Real, const W: usize> Operands<'_, R, W> {
    /// At least the last `used` rows of a tile.
    #[inline(always)]
    fn tile<S: Simd<R, W>, const MR: usize, const V: usize>(
        self,
        simd: S,
        used: usize,
        sink: &mut impl Sink<R, W, MR>,
    ) {
        let panels = self.panel..self.panel + V;
        if sink.takes(self.row, panels.clone()) {
            return simd.vectorize(
                #[inline(always)]
                || {
                    let tile = self.sums::<S, MR, V>(simd, &mut sink.lines(self.row, self.panel));
                    sink.take(simd, self.row, self.panel, tile);
                },
            );
        }
        let lines = sink.lines::<V>(self.row, self.panel);
        match used {
            1..=2 => self.rows::<S, MR, 2, V>(simd, lines),
            3..=4 => self.rows::<S, MR, 4, V>(simd, lines),
            _ => self.rows::<S, MR, MR, V>(simd, lines),
        }
        sink.filled(self.row, panels);
    }

    /// The last N rows of a tile.
    #[inline(always)]
    fn rows<S: Simd<R, W>, const MR: usize, const N: usize, const V: usize>(
        self,
        simd: S,
        lines: [&mut [[R; W]; MR]; V],
    ) {
        let mut lines = lines.map(|lines| lines.last_chunk_mut::<N>().expect("a tile has no fewer rows"));
        let operands = Self { row: self.row + MR - N, ..self };
        // A function of its own, which every caller shares.
        simd.vectorize(
            #[inline(always)]
            || {
                let tile = operands.sums::<S, N, V>(simd, &mut lines);
                put(simd, tile, &mut lines);
            },
        );
    }

    /// The second half of one panel.
    #[inline(always)]
    fn half<S: Simd<R, W>, const MR: usize>(self, simd: S, sink: &mut impl Sink<R, W, MR>) {
        let mut lines = sink.lines::<1>(self.row, self.panel);
        simd.vectorize(
            #[inline(always)]
            || {
                let tile = self.sums::<S::Half, MR, 1>(simd.half(), &mut lines);
                put(simd.half(), tile, &mut lines);
            },
        );
        sink.filled(self.row, self.panel..self.panel + 1);
    }

    /// N rows by V panels. Sums that are parts of others lie in `lines` for a while.
    #[inline(always)]
    fn sums<S: Lanes<R, W>, const N: usize, const V: usize>(
        self,
        simd: S,
        lines: &mut [&mut [[R; W]; N]; V],
    ) -> [[S::Vector; V]; N] {
        let column = self.row % W;
        let depth = self.left.rows;
        let left = &self.left.panel(self.row / W)[depth.pad..];
        let right: [_; V] = std::array::from_fn(|v| &self.right.panel(self.panel + v)[depth.pad..]);
        let mut total = part(simd, column, left, right, 0..depth.len.min(self.terms));
        let mut from = self.terms;
        while from < depth.len {
            put(simd, total, lines);
            total = part(simd, column, left, right, from..depth.len.min(from + self.terms));
            let one = simd.splat(R::from_f64(1.0));
            for r in 0..N {
                for v in 0..V {
                    total[r][v] = simd.multiply_add(one, simd.load(&lines[v][r]), total[r][v]);
                }
            }
            from += self.terms;
        }
        total
    }
}

/// The sums over some of the operands' rows. `left` is read from `column` on.
#[inline(always)]
fn part<R: Real, S: Lanes<R, W>, const W: usize, const N: usize, const V: usize>(
    simd: S,
    column: usize,
    left: &[[R; W]],
    right: [&[[R; W]]; V],
    rows: Range<usize>,
) -> [[S::Vector; V]; N] {
    let left = &left[rows.clone()];
    let right = right.map(|lines| &lines[rows.clone()]);
    let mut total = [[simd.splat(R::default()); V]; N];
    for k in 0..left.len() {
        let factors: &[R; N] = left[k][column..].first_chunk().expect("a tile's rows divide W");
        let terms = right.map(|lines| simd.load(&lines[k]));
        for r in 0..N {
            let factor = simd.splat(factors[r]);
            for v in 0..V {
                total[r][v] = simd.multiply_add(factor, terms[v], total[r][v]);
            }
        }
    }
    total
}

/// Writes a tile into its lines.
#[inline(always)]
fn put<R: Real, S: Lanes<R, W>, const W: usize, const N: usize, const V: usize>(
    simd: S,
    tile: [[S::Vector; V]; N],
    lines: &mut [&mut [[R; W]; N]; V],
) {
    for r in 0..N {
        for v in 0..V {
            simd.store(tile[r][v], &mut lines[v][r]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often each line of each panel is computed.
    struct Counted<const W: usize, const MR: usize>(Vec<Vec<u8>>, Tile<f32, W, MR>);

    impl<const W: usize, const MR: usize> Sink<f32, W, MR> for Counted<W, MR> {
        fn lines<const V: usize>(&mut self, row: usize, panel: usize) -> [&mut [[f32; W]; MR]; V] {
            for counts in &mut self.0[panel..panel + V] {
                counts[row..row + MR].iter_mut().for_each(|count| *count += 1);
            }
            self.1.first_chunk_mut().expect("a tile has at least V panels").each_mut()
        }

        fn filled(&mut self, _: usize, _: Range<usize>) {}
    }

    /// Products of matrices with so many columns and rows.
    struct Products(usize, usize);

    impl Task<f32> for Products {
        type Output = ();

        fn run<S: Simd<f32, W>, const W: usize, const MR: usize>(self, simd: S) {
            let Self(len, depth) = self;
            let side = Side::new::<W>(len);
            let lines = vec![[1.0; W]; side.panels * Side::new::<W>(depth).padded];
            let operand = Operand::of_matrices(&lines, Side::new::<W>(depth));
            for part in [Part::Whole, Part::Upper, Part::Lower] {
                let tile = [[[0.0; W]; MR]; TILE_PANELS];
                let mut sink = Counted(vec![vec![0; side.padded]; side.panels], tile);
                let rows = first_row::<MR>(side)..side.padded;
                product(simd, operand, operand, part, side, rows, 0..side.panels, &mut sink);
                for (panel, counts) in sink.0.iter().enumerate() {
                    for row in first_row::<MR>(side)..side.padded {
                        let wanted = match part {
                            Part::Whole => true,
                            Part::Upper => row / W <= panel,
                            Part::Lower => (row / MR * MR + MR - 1) / W >= panel,
                        };
                        assert_eq!(
                            counts[row],
                            u8::from(wanted),
                            "{len}, {part:?}: row {row}, panel {panel}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn every_tile_that_is_wanted_is_computed_once() {
        for version in Version::available() {
            // Deep operands are gone through in blocks of few panels.
            for (len, depth) in [(1, 3), (8, 1), (61, 5), (50, 9000), (130, 7), (130, 9000)] {
                f32::dispatch(version, Products(len, depth));
            }
        }
    }
}
