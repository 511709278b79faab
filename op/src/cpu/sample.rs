//! One sample, from its elements to its output.

use super::covariance::{Reading, read, read_rows};
use super::division::Division;
use super::element::{Convert, Element, Real};
use super::executor::Executor;
use super::normalize::{degenerate, norm, normalize};
use super::product::{Operand, Rows, Side, Simd, triangle_panel};
use super::store::{Panels, store, store_inner};
use super::write::{Writing, write};
use crate::form::{Form, Multiplications, Programs};
use crate::layer::{Extent, Layer, Normalization, OperatorKind};
use crate::program::Program;

/// The exponents that a sum of squares may be above the greatest of them, and more.
const HEADROOM: i32 = 40;

/// A trace up to this has lost terms to underflow; one as far above one may come with overflow.
fn least_trace<R: Real>() -> f64 {
    2.0_f64.powi(40 - R::EXPONENTS)
}

/// What every sample of a call has in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call<'a> {
    pub layer: &'a Layer,
    pub extent: Extent,
    pub programs: &'a Programs,
    pub form: Form,
}

impl Call<'_> {
    /// The numbers of workspace that a sample needs; none where that is beyond all memory.
    pub(super) fn workspace<R: Real, S: Simd<R, W>, const W: usize>(&self) -> Option<usize> {
        Division::new::<R, S, W>(self)?.lines()?.checked_mul(W)
    }

    /// The multiplications of a sample's products.
    pub(super) fn cost(&self) -> f64 {
        self.form.cost::<Multiplications>(self.layer, self.extent, self.programs)
    }

    /// M − δ.
    fn divisor(&self) -> f64 {
        self.extent.positions as f64 - f64::from(self.layer.correction)
    }
}

/// Computes one sample. `memory` has the numbers that [`Call::workspace`] says.
pub(super) fn run<T: Element + Convert<R>, R: Real, S: Simd<R, W>, const W: usize, const MR: usize>(
    simd: S,
    call: &Call<'_>,
    input: &[T],
    output: &mut [T],
    memory: &mut [R],
    executor: &dyn Executor,
) {
    let Some(division) = Division::new::<R, S, W>(call) else { return };
    let memory = memory.as_chunks_mut().0;
    let sample = Sample::<T, R, S, W, MR> {
        simd,
        call,
        executor,
        input,
        division,
        reading: Reading {
            layout: call.layer.layout,
            centered: call.layer.centered,
            scale: R::from_f64(1.0),
            channels: Side::new::<W>(call.extent.channels),
            positions: Side::new::<W>(call.extent.positions),
        },
    };
    match (call.layer.operator, call.form) {
        (OperatorKind::CovariancePooling, _) => sample.covariance(output, memory),
        (OperatorKind::MatrixSqrt, _) => sample.square_root(output, memory),
        (OperatorKind::IsqrtCov, Form::Direct) => sample.direct(output, memory),
        (OperatorKind::IsqrtCov, Form::Gram) => sample.gram(output, memory),
    }
}

struct Sample<'a, T, R, S, const W: usize, const MR: usize> {
    simd: S,
    call: &'a Call<'a>,
    executor: &'a dyn Executor,
    input: &'a [T],
    division: Division,
    reading: Reading<R>,
}

impl<T: Element + Convert<R>, R: Real, S: Simd<R, W>, const W: usize, const MR: usize>
    Sample<'_, T, R, S, W, MR>
{
    fn covariance(&self, output: &mut [T], transposed: &mut [[R; W]]) {
        let layer = self.call.layer;
        self.read(0, transposed, None);
        // Small elements have products as small as the result, unless those are multiplied once more. Large ones need a scale, unless
        // centering makes them small.
        let large = |exponent: i32| 2 * exponent > R::EXPONENTS - HEADROOM;
        let mut exponent = self.exponent(0.0);
        let faint = layer.off_diagonal_scale > 1.0 && large(-exponent);
        if faint || large(exponent) && self.centered_exponent(transposed).is_some_and(large) {
            self.read(exponent, transposed, None);
        } else {
            exponent = 0;
        }
        let operand = Operand::of_features(transposed, self.reading.positions);
        let factor = 1.0 / self.call.divisor();
        let mut writing = Writing::new(layer, self.reading.channels, factor, 2 * exponent);
        writing.shift = R::from_f64(layer.epsilon.into());
        self.write([operand; 2], writing, output);
    }

    fn direct(&self, output: &mut [T], memory: &mut [[R; W]]) {
        let side = self.reading.channels;
        let divisor = self.call.divisor();
        // By the power twice: its square may be beyond all numbers, and ε zero.
        let shift = |exponent: i32| {
            let scale = 2.0_f64.powi(-exponent);
            f64::from(self.call.layer.epsilon) * scale * scale * divisor
        };
        let (a, rest) = memory.split_at_mut(self.division.a);
        let sample = &mut rest[..self.division.sample];
        let exponent = self.scaled(|exponent| {
            if self.division.by_rows {
                self.read_rows(exponent, sample);
                let rows = Rows { lines: sample, blocks: self.reading.positions.panels, side };
                store_inner(self.simd, self.executor, rows, a);
            } else {
                self.read(exponent, sample, None);
                self.gram_matrix(Operand::of_features(sample, self.reading.positions), side, a);
            }
            let trace = norm(Normalization::Trace, a, side, shift(exponent));
            (trace, self.greatest(sample, trace))
        });
        self.root(side, shift(exponent), divisor, exponent, output, memory);
    }

    fn square_root(&self, output: &mut [T], memory: &mut [[R; W]]) {
        let side = self.reading.channels;
        let upper = (0..side.len).map(|row| &self.input[row * side.len + row..(row + 1) * side.len]);
        let epsilon = f64::from(self.call.layer.epsilon);
        let entries = upper.filter_map(T::greatest_exponent).max();
        let greatest = entries.max((epsilon > 0.0).then(|| epsilon.log2().ceil() as i32)).unwrap_or(0);
        // The root of 2^2h A is 2^h times that of A.
        let half = (greatest.div_euclid(2)).clamp(-R::EXPONENTS / 2, R::EXPONENTS / 2);
        let scale: R = power(-2 * half);
        for panel in 0..side.panels {
            let pad = if panel == 0 { side.pad } else { 0 };
            for row in 0..(panel + 1) * W {
                let line = &mut memory[triangle_panel::<W>(panel) + row];
                *line = [R::default(); W];
                if row >= side.pad {
                    let start = (row - side.pad) * side.len + panel * W + pad - side.pad;
                    T::load(&self.input[start..start + W - pad], &mut line[pad..]);
                    line.iter_mut().for_each(|entry| *entry *= scale);
                }
            }
        }
        let shift = epsilon * 2.0_f64.powi(-2 * half);
        self.root(side, shift, 1.0, half, output, memory);
    }

    /// S = √(f/divisor) A q(A), where A = (P + shift I)/f and P is the first triangle.
    fn root(
        &self,
        side: Side,
        shift: f64,
        divisor: f64,
        exponent: i32,
        output: &mut [T],
        memory: &mut [[R; W]],
    ) {
        let a = &mut memory[..self.division.a];
        let f = norm(self.call.layer.normalization, a, side, shift);
        if degenerate(f, output) {
            return;
        }
        normalize(self.simd, a, side, shift, f);
        let layer = self.call.layer;
        let (factor, exponent) = if layer.compensated { ((f / divisor).sqrt(), exponent) } else { (1.0, 0) };
        let (head, tail) = memory.split_at_mut(self.division.head);
        let operands = self.iterate(&self.call.programs.iterate, side, head, tail);
        self.write(operands, Writing::new(layer, side, factor, exponent), output);
    }

    fn gram(&self, output: &mut [T], memory: &mut [[R; W]]) {
        let (layer, side) = (self.call.layer, self.reading.positions);
        let (transposed, memory) = memory.split_at_mut(self.division.kept);
        let (a, rest) = memory.split_at_mut(self.division.a);
        let straight = &mut rest[..self.division.sample];
        let exponent = self.scaled(|exponent| {
            self.read(exponent, transposed, Some(straight));
            self.gram_matrix(Operand::of_features(straight, self.reading.channels), side, a);
            let trace = norm(Normalization::Trace, a, side, 0.0);
            (trace, self.greatest(transposed, trace))
        });
        let f = norm(layer.normalization, a, side, 0.0);
        if degenerate(f, output) {
            return;
        }
        normalize(self.simd, a, side, 0.0, f);
        let (factor, exponent) =
            if layer.compensated { (1.0 / (f * self.call.divisor()).sqrt(), exponent) } else { (1.0 / f, 0) };
        let (head, tail) = memory.split_at_mut(self.division.head);
        let [q, _] = self.iterate(&self.call.programs.factor, side, head, tail);
        let transposed = Operand::of_matrices(transposed, side);
        let (sides, panels) = ([side, self.reading.channels], Panels::Whole(side.padded));
        store::<_, S, W, MR>(self.simd, self.executor, [q, transposed], sides, panels, head, None);
        let writing = Writing::new(layer, self.reading.channels, factor, exponent);
        self.write([transposed, Operand::of_matrices(head, side)], writing, output);
    }

    /// Computes P from the sample divided by a power of two such that neither its squares nor ε overflow or vanish, and
    /// returns the exponent. `attempt` takes an exponent and gives the trace and, where that is faint, ⌊log₂⌋ of the
    /// greatest centered element.
    fn scaled(&self, mut attempt: impl FnMut(i32) -> (f64, Option<i32>)) -> i32 {
        // Hardly any sample needs one, so the elements are looked through only where the trace says so.
        let (trace, mut greatest) = attempt(0);
        if trace > least_trace::<R>() && trace < 1.0 / least_trace::<R>() {
            return 0;
        }
        if trace <= least_trace::<R>() && greatest.is_none() {
            // Features are the same at every position: ε is all there is, and no power of two changes its part of f.
            return 0;
        }
        // Centered elements may be so much smaller than the elements that these must stay large; but not beyond all numbers.
        let elements = self.exponent(self.call.layer.epsilon.into());
        let least = (elements - R::EXPONENTS).max(-R::EXPONENTS);
        let mut exponent = if greatest.is_some() { 0 } else { elements };
        if greatest.is_none() {
            (_, greatest) = attempt(exponent);
        }
        while let Some(faint) = greatest {
            let magnified = (exponent + faint).max(least);
            if magnified >= exponent {
                break;
            }
            exponent = magnified;
            (_, greatest) = attempt(exponent);
        }
        exponent
    }

    /// ⌊log₂⌋ of the greatest element or of √ε, whichever is greater.
    fn exponent(&self, epsilon: f64) -> i32 {
        let greatest = self.simd.vectorize(
            #[inline(always)]
            || T::greatest_exponent(self.input),
        );
        let epsilon = (epsilon > 0.0).then(|| (epsilon.log2() / 2.0).ceil() as i32);
        greatest.max(epsilon).unwrap_or(0).clamp(-R::EXPONENTS, R::EXPONENTS)
    }

    /// ⌊log₂⌋ of the greatest centered element, where the trace is faint and it is not zero.
    fn greatest(&self, sample: &[[R; W]], trace: f64) -> Option<i32> {
        if trace.is_nan() || trace > least_trace::<R>() { None } else { self.centered_exponent(sample) }
    }

    /// ⌊log₂⌋ of the greatest centered element that is a number; none where all are zero.
    fn centered_exponent(&self, sample: &[[R; W]]) -> Option<i32> {
        let mut greatest = 0.0_f64;
        let mut look = |entries: &[R]| {
            greatest = entries.iter().fold(greatest, |greatest, entry| greatest.max(entry.to_f64().abs()));
        };
        if self.division.by_rows {
            look(sample.as_flattened());
        } else {
            for (panel, lines) in sample.chunks_exact(self.reading.positions.padded).enumerate() {
                let pad = if panel == 0 { self.reading.channels.pad } else { 0 };
                lines[self.reading.positions.pad..].iter().for_each(|line| look(&line[pad..]));
            }
        }
        (greatest > 0.0).then(|| (greatest.log2().floor() as i32).min(R::EXPONENTS + 1))
    }

    fn read_rows(&self, exponent: i32, rows: &mut [[R; W]]) {
        read_rows(self.simd, self.executor, self.reading(exponent), self.input, rows);
    }

    fn read(&self, exponent: i32, transposed: &mut [[R; W]], straight: Option<&mut [[R; W]]>) {
        read::<_, _, _, W, MR>(
            self.simd,
            self.executor,
            self.reading(exponent),
            self.input,
            transposed,
            straight,
        );
    }

    fn reading(&self, exponent: i32) -> Reading<R> {
        Reading { scale: power(-exponent), ..self.reading }
    }

    fn iterate<'b>(
        &self,
        program: &Program,
        side: Side,
        head: &mut [[R; W]],
        tail: &'b mut [[R; W]],
    ) -> [Operand<'b, R, W>; 2] {
        program.run::<_, S, W, MR>(self.simd, self.executor, side, head, tail)
    }

    /// The upper triangle of P = LᵀL.
    fn gram_matrix(&self, operand: Operand<'_, R, W>, side: Side, triangle: &mut [[R; W]]) {
        let (operands, sides) = ([operand; 2], [side; 2]);
        store::<_, S, W, MR>(self.simd, self.executor, operands, sides, Panels::Triangle, triangle, None);
    }

    fn write(&self, operands: [Operand<'_, R, W>; 2], writing: Writing<R>, output: &mut [T]) {
        write::<T, R, S, W, MR>(self.simd, self.executor, operands, writing, output);
    }
}

/// 2^exponent.
fn power<R: Real>(exponent: i32) -> R {
    R::from_f64(2.0_f64.powi(exponent))
}
