//! The pre-normalisation: A = (P + shift I)/f.

use super::element::{Element, Real};
use super::product::{Side, Simd, triangle_panel};
use crate::layer::Normalization;

/// Sums of squares between these bounds have lost nothing to underflow and have no part beyond all numbers.
const SAFE: std::ops::Range<f64> = 1e-200..1e200;

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
            let norm = |scale: f64| {
                let squares: f64 = diagonal.clone().map(|entry| (entry * scale).powi(2)).sum();
                let mut above = 0.0;
                for_each_row_above(lines, side, |row| {
                    above += row.iter().map(|entry| (entry.to_f64() * scale).powi(2)).sum::<f64>();
                });
                (squares + 2.0 * above).sqrt()
            };
            let plain = norm(1.0);
            if SAFE.contains(&(plain * plain)) {
                return plain;
            }
            // P is as large as the squares of the elements, and its squares may be beyond float64 where P is not. That is so of features
            // alone, whose P has its greatest entry on the diagonal: a matrix that is given was scaled to about 1.
            let greatest = diagonal.clone().fold(0.0, |greatest: f64, entry| greatest.max(entry.abs()));
            // A power of two, which changes no digit of the sums, nor has an inverse beyond all numbers. A norm that is 0 or no finite
            // number it leaves as it is.
            let power = 2.0_f64.powi((greatest.log2() as i32).clamp(-f64::EXPONENTS, f64::EXPONENTS));
            norm(1.0 / power) * power
        }
    }
}

/// Calls `look` with the entries of each row that are above the diagonal, panel by panel.
fn for_each_row_above<R: Real, const W: usize>(lines: &[[R; W]], side: Side, mut look: impl FnMut(&[R])) {
    for panel in 0..side.panels {
        for row in side.pad..(panel + 1) * W {
            let from = (row + 1).saturating_sub(panel * W);
            look(&lines[triangle_panel::<W>(panel) + row][from..]);
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
    if f.abs() < 2.0_f64.powi(-R::EXPONENTS) {
        // 1/f may be beyond all numbers of the type. P and f times the same are the same A.
        let power = 2.0_f64.powi(R::EXPONENTS);
        lines.as_flattened_mut().iter_mut().for_each(|entry| *entry *= R::from_f64(power));
        return normalize(simd, lines, side, shift * power, f * power);
    }
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
