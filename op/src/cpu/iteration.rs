//! Running a program: from A to the factors of the layer's last product.

use super::combine::{Factor, Factors, Triangles};
use super::element::Real;
use super::executor::Executor;
use super::product::{Operand, Side, Simd};
use super::shared::Shared;
use super::store::{Panels, store};
use crate::program::{Combination, Program};

/// The workspace of a program, in lines of W numbers.
///
/// The factors of one product are in use while those of the next are in the making, so that there are two pairs of them. Of
/// the pair that is the result nothing else is left when the program has run.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Plan {
    /// An upper triangle.
    pub triangle: usize,
    /// The triangles of all places, A's first, and the pair that is not the result.
    pub head: usize,
    /// The pair that is the result.
    pub tail: usize,
}

impl Program {
    /// The workspace for matrices of `len` rows; none where it is beyond all memory.
    pub(super) fn plan<const W: usize>(&self, len: usize) -> Option<Plan> {
        let (panels, last) = (len.div_ceil(W), self.products.len());
        let whole = panels.checked_mul(len.checked_next_multiple_of(W)?)?;
        let triangle = whole.checked_add(panels.checked_mul(W)?)? / 2;
        // Whether a pair ever has two factors: a squared one has no second.
        let width = |parity: usize| 1 + usize::from(self.has_factors(parity)[1]);
        let head =
            triangle.checked_mul(self.places)?.checked_add(whole.checked_mul(width((last + 1) % 2))?)?;
        Some(Plan { triangle, head, tail: whole.checked_mul(width(last % 2))? })
    }

    /// Runs all products. `head` and `tail` are as long as the plan says, A at the beginning of the head. Returns the factors
    /// of the last product, or q(A) twice.
    pub(super) fn run<'a, R: Real, S: Simd<R, W>, const W: usize, const MR: usize>(
        &self,
        simd: S,
        executor: &dyn Executor,
        side: Side,
        head: &mut [[R; W]],
        tail: &'a mut [[R; W]],
    ) -> [Operand<'a, R, W>; 2] {
        let last = self.products.len();
        let (triangles, other) = head.split_at_mut(self.places * side.triangle_lines::<W>());
        let (mut pair, mut next) =
            if last.is_multiple_of(2) { (&mut *tail, other) } else { (other, &mut *tail) };
        let first = making(self.factors(0), pair, side);
        Factors { triangles: Triangles::all(triangles, side), pair: first, side }
            .make::<S, MR>(simd, executor);
        for (step, (_, place)) in self.products.iter().enumerate() {
            let (triangles, result) = Triangles::split(triangles, *place, side);
            let factors = Factors { triangles, pair: making(self.factors(step + 1), next, side), side };
            let operands = operands(self.factors(step), pair, side);
            let sides = [side; 2];
            store::<R, S, W, MR>(simd, executor, operands, sides, Panels::Triangle, result, Some(&factors));
            std::mem::swap(&mut pair, &mut next);
        }
        operands(self.factors(last), tail, side)
    }
}

/// Factors that are to be made, with the panels of a pair that they go to.
fn making<'a, R, const W: usize>(
    [left, right]: [Option<&'a Combination>; 2],
    pair: &'a mut [[R; W]],
    side: Side,
) -> [Option<Factor<'a, R, W>>; 2] {
    let (first, second) = pair.split_at_mut(side.panels * side.padded);
    [(left, first), (right, second)].map(|(combination, panels)| {
        combination.map(|combination| Factor { combination, whole: Shared::new(panels) })
    })
}

/// The operands of a product with these factors: one without a second is squared.
fn operands<'a, R, const W: usize>(
    factors: [Option<&Combination>; 2],
    pair: &'a [[R; W]],
    rows: Side,
) -> [Operand<'a, R, W>; 2] {
    let (first, second) = pair.split_at(rows.panels * rows.padded);
    let second = if factors[1].is_some() { second } else { first };
    [first, second].map(|lines| Operand::of_matrices(lines, rows))
}
