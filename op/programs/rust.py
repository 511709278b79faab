"""Writes programs as `op/src/program/fitted.rs`."""

import subprocess
from pathlib import Path

import numpy as np

TARGET = Path(__file__).parents[1] / "src" / "program" / "fitted.rs"

HEAD = """\
//! Coefficients of programs that agree with the Newton–Schulz polynomial on [0, 1] to float32 rounding.
//!
//! Made by `op/programs/fit.py`: change them there. The greatest relative errors that stand with the programs are proven
//! for the coefficients as they are here, float32 numbers.
//!
//! ```text
//! B₀ = I,  B₁ = A,  B₂ = A²,  B_{j+1} = (Σ left_i B_i)(Σ right_i B_i) for j ≥ 2,  q = Σ result_i B_i
//! ```
//!
//! An iterate is its last product. No left factor of its program has a term in I, nor has a squared one, so that every
//! B_j from B₁ on is A times a polynomial, and small where A is: its eigenvalues near zero keep their relative accuracy.
#![allow(clippy::excessive_precision, clippy::unreadable_literal)]

use super::Target;

/// A fitted program.
pub(super) struct Fitted {
    /// K.
    pub iterations: u32,
    /// The factors of B₃, B₄, …: the left one's coefficients and the right one's; none where the left one is squared.
    pub products: &'static [(&'static [f32], Option<&'static [f32]>)],
    /// The coefficients of q; none where the program is for A q(A).
    pub result: Option<&'static [f32]>,
}

impl Fitted {
    /// What the program computes.
    pub(super) fn target(&self) -> Target {
        if self.result.is_some() { Target::Factor } else { Target::Iterate }
    }
}
"""


def array(factor):
    """The coefficients, without the zeros at the end."""
    numbers = [np.format_float_positional(np.float32(c), unique=True, trim="0") for c in factor]
    while numbers[-1] in ("0.0", "-0.0"):
        numbers.pop()
    return "&[" + ", ".join(numbers) + "]"


def option(factor):
    return "None" if factor is None else f"Some({array(factor)})"


def write(programs, errors):
    """Writes the programs with their errors, in rustfmt's layout."""
    lines = [HEAD, "/// The programs, one for each K and target that has one."]
    lines.append(f"pub(super) static PROGRAMS: [Fitted; {len(programs)}] = [")
    for program, error in zip(programs, errors):
        lines.append(f"// {program.product_count} products, {program.combination_count()} combinations of "
                     f"{program.term_count()} terms, error {error:.1e}.")
        lines.append(f"Fitted {{ iterations: {program.iterations}, products: &[")
        lines += [f"({array(left)}, {option(right)})," for left, right in program.products]
        lines.append(f"], result: {option(program.result)} }},")
    lines.append("];")
    TARGET.write_text("\n".join(lines) + "\n")
    subprocess.run(["rustfmt", "--edition", "2024", "--config-path", TARGET.parents[4], TARGET], check=True)
