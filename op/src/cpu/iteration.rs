//! Running a program: from A to the factors of the layer's last product.

use super::combine::{Factors, Triangles};
use super::element::Real;
use super::executor::Executor;
use super::product::{Operand, Side, Simd};
use super::program::{Combination, Outcome, Program};
use super::shared::Shared;
use super::store::{Panels, store};

/// A pair of factors in use and one in the making.
pub(super) const PAIRS: usize = 2;

impl Program {
    /// The factors of product `step`; after all products, what the result is made of.
    fn factors(&self, step: usize) -> [Option<&Combination>; 2] {
        match (self.products.get(step), &self.result) {
            (Some((product, _)), _) | (None, Outcome::Iterate(product)) => {
                [Some(&product.left), product.right.as_ref()]
            }
            (None, Outcome::Factor(q)) => [Some(q), None],
        }
    }

    /// Which factors of each pair are ever needed: those of the products with even numbers, and with odd ones.
    pub(super) fn pairs(&self) -> [[bool; 2]; PAIRS] {
        let mut pairs = [[false; 2]; PAIRS];
        for step in 0..=self.products.len() {
            for (needed, factor) in pairs[step % PAIRS].iter_mut().zip(self.factors(step)) {
                *needed |= factor.is_some();
            }
        }
        pairs
    }

    /// Runs all products. `triangles` are the program's places, A in the first; `pairs` the panels of the factors that
    /// [`Self::pairs`] says. Returns the factors of the last product, or q(A) twice.
    pub(super) fn run<'a, R: Real, S: Simd<R, W>, const W: usize, const MR: usize>(
        &self,
        simd: S,
        executor: &dyn Executor,
        side: Side,
        triangles: &mut [[R; W]],
        [even, odd]: [[&'a mut [[R; W]]; 2]; PAIRS],
    ) -> [Operand<'a, R, W>; 2] {
        let (mut pair, mut next) = (even, odd);
        let factors = shared(self.factors(0), &mut pair);
        Factors { triangles: Triangles::all(triangles, side), factors, side }.make::<S, MR>(simd, executor);
        for (step, (_, place)) in self.products.iter().enumerate() {
            let (triangles, result) = Triangles::split(triangles, *place, side);
            let factors = Factors { triangles, factors: shared(self.factors(step + 1), &mut next), side };
            let operands = operands(self.factors(step), [&*pair[0], &*pair[1]], side);
            let sides = [side; 2];
            store::<R, S, W, MR>(simd, executor, operands, sides, Panels::Triangle, result, Some(&factors));
            std::mem::swap(&mut pair, &mut next);
        }
        let [left, right] = pair;
        operands(self.factors(self.products.len()), [left, right], side)
    }
}

fn shared<'a, R, const W: usize>(
    factors: [Option<&'a Combination>; 2],
    pair: &'a mut [&mut [[R; W]]; 2],
) -> [Option<(&'a Combination, Shared<'a, [R; W]>)>; 2] {
    let [left, right] = pair;
    let [first, second] = factors;
    [first.map(|first| (first, Shared::new(left))), second.map(|second| (second, Shared::new(right)))]
}

/// A factor without a second one is squared.
fn operands<'a, R, const W: usize>(
    factors: [Option<&Combination>; 2],
    [left, right]: [&'a [[R; W]]; 2],
    rows: Side,
) -> [Operand<'a, R, W>; 2] {
    let right = if factors[1].is_some() { right } else { left };
    [Operand { lines: left, rows }, Operand { lines: right, rows }]
}
