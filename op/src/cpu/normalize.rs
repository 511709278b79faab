//! The pre-normalisation: A = (P + shift I)/f.

use super::element::{Element, Real};
use super::product::{Side, Simd, triangle_panel};
use crate::layer::Normalization;

/// f: the trace or the Frobenius norm of P + shift I, where P is symmetric and given by the lines of its upper triangle.
pub(super) fn norm<R: Real, const W: usize>(
    normalization: Normalization,
    lines: &[[R; W]],
    side: Side,
    shift: f64,
) -> f64 {
    let rows = side.pad..side.padded;
    let diagonal = rows.map(|row| lines[triangle_panel::<W>(row / W) + row][row % W].to_f64() + shift);
    match normalization {
        Normalization::Trace => diagonal.sum(),
        Normalization::Frobenius => {
            let squares: f64 = diagonal.map(|entry| entry * entry).sum();
            let mut above = 0.0;
            for panel in 0..side.panels {
                for row in side.pad..(panel + 1) * W {
                    let line = &lines[triangle_panel::<W>(panel) + row];
                    let from = (row + 1).max(side.pad).saturating_sub(panel * W);
                    above += line[from..].iter().map(|entry| entry.to_f64().powi(2)).sum::<f64>();
                }
            }
            (squares + 2.0 * above).sqrt()
        }
    }
}

/// A = (P + shift I)/f, in place.
pub(super) fn normalize<R: Real, S: Simd<R, W>, const W: usize>(
    simd: S,
    lines: &mut [[R; W]],
    side: Side,
    shift: f64,
    f: f64,
) {
    // 1/f in two parts, so that its own rounding does not shift every entry the same way.
    let inverse = R::from_f64(1.0 / f);
    let rest = R::from_f64(1.0 / f - inverse.to_f64());
    simd.vectorize(
        #[inline(always)]
        || {
            let (inverse, rest, zero) = (simd.splat(inverse), simd.splat(rest), simd.splat(R::default()));
            for line in lines.iter_mut() {
                let entries = simd.load(line);
                let small = simd.multiply_add(rest, entries, zero);
                simd.store(simd.multiply_add(inverse, entries, small), line);
            }
        },
    );
    for row in 0..side.padded {
        lines[triangle_panel::<W>(row / W) + row][row % W] += R::from_f64(shift / f);
    }
}

/// Writes what a sample without a proper norm gives: zeros where it is zero, as the limit is, and NaN where it is not a
/// number.
pub(super) fn degenerate<T: Element>(f: f64, output: &mut [T]) -> bool {
    if f == 0.0 {
        output.fill(T::from_f64(0.0));
    } else if !f.is_finite() {
        output.fill(T::from_f64(f64::NAN));
    }
    f == 0.0 || !f.is_finite()
}
