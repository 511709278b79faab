//! In what the kernels multiply float32 numbers, and the powers of two that this takes.

use super::element::ElementType;
use super::real::Real;
use super::tier::Tier;
use crate::layer::{Layer, OperatorKind};
use crate::program::Program;

/// How operands of products lie in memory, and what multiplies them: `kernels/operand.cuh`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arithmetic {
    /// Numbers as they are, by multiply-add.
    Plain,
    /// Sums of two float16 numbers, by tensor cores: as accurate as float32 where numbers are brought near 2^14 at most, and far less than 2^-14
    /// of that is as good as nothing.
    Halves,
}

/// The greatest exponent of an operand's numbers: float16 goes to 2^16, and bounds are rounded.
const GREATEST: i32 = 14;

/// The exponent of the power of two that X̄, whose norm is less than 2 by then, and q(G) X̄ᵀ are multiplied by.
pub(super) const RAISED: i32 = 12;

impl Arithmetic {
    /// The one for a layer on elements of this type.
    ///
    /// Halves need bounds. Everything in the layer's products has them: A has eigenvalues in [0, 1]. A matrix that is given may have any,
    /// and of a covariance also the small entries are wanted.
    pub(super) fn choose(layer: &Layer, element: ElementType, tier: Tier) -> Self {
        let bounded = layer.operator == OperatorKind::IsqrtCov;
        if bounded && element != ElementType::Double && tier >= Tier::Sm80 {
            Self::Halves
        } else {
            Self::Plain
        }
    }

    /// How far apart the rows of a matrix are, in numbers: kernels write eight at a time, and in halves whole panels.
    pub(super) fn row_stride(self, columns: usize) -> Option<usize> {
        columns.checked_next_multiple_of(match self {
            Self::Plain => 8,
            Self::Halves => 32,
        })
    }

    /// The stages of a product in `R`'s shared memory, and the bytes of each: `kernels/operand.cuh`. More of them hide more of what a multiprocessor
    /// waits for when it has one block only.
    pub(super) fn stages<R: Real>(self, alone: bool) -> (u32, u32) {
        match self {
            Self::Plain if size_of::<R>() == 8 => (2, 2 * 16 * 72 * 8),
            Self::Plain => (4, 2 * 16 * 72 * 4),
            Self::Halves => (if alone { 6 } else { 3 }, 2 * 2 * 16 * 64 * 4),
        }
    }

    /// The exponent of the power of two that X̄ is multiplied by.
    pub(super) fn raised(self) -> i32 {
        match self {
            Self::Plain => 0,
            Self::Halves => RAISED,
        }
    }

    /// The exponents of the powers of two that the factors of each product of a program are multiplied by, and those of its result.
    pub(super) fn exponents(self, program: &Program) -> Vec<[i32; 2]> {
        let exponent = |magnitude: f64| {
            if magnitude > 0.0 { GREATEST - magnitude.log2().ceil() as i32 } else { GREATEST }
        };
        match self {
            Self::Plain => vec![[0; 2]; program.products.len() + 1],
            Self::Halves => program.magnitudes().into_iter().map(|pair| pair.map(exponent)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::form::Programs;

    #[test]
    fn factors_stay_within_float16() {
        for iterations in 1..=25 {
            let layer = Layer { iterations, ..Layer::new(OperatorKind::IsqrtCov) };
            for programs in [Programs::exact(&layer), Programs::rounded(&layer)] {
                for program in [programs.factor, programs.iterate] {
                    let exponents = Arithmetic::Halves.exponents(&program);
                    for (pair, magnitudes) in exponents.into_iter().zip(program.magnitudes()) {
                        for (exponent, magnitude) in pair.into_iter().zip(magnitudes) {
                            let raised = magnitude * 2.0_f64.powi(exponent);
                            assert!(raised <= 16384.0, "K = {iterations}: {raised}");
                            assert!(magnitude == 0.0 || raised > 8192.0, "K = {iterations}: {raised}");
                        }
                    }
                }
            }
        }
    }
}
