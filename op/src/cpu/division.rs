//! How the workspace of a sample is divided, in lines of W numbers.

use super::element::Real;
use super::iteration::Plan;
use super::product::{Simd, pays};
use super::sample::Call;
use crate::form::Form;
use crate::layer::{Extent, Layout, OperatorKind};

/// The parts of the workspace, one after another.
///
/// What comes before the program and after it lies where the program's own matrices do: behind A, in the head and the tail,
/// the operand of which P is made; in the head, when the tail holds q(G), the product q(G) X̄ᵀ.
#[derive(Debug, Clone, Copy)]
pub(super) struct Division {
    /// X̄ᵀ where the Gram form needs it to the end.
    pub kept: usize,
    /// X̄ᵀ or X̄, or X̄'s rows.
    pub sample: usize,
    /// Whether these rows are what the covariance is made of.
    pub by_rows: bool,
    /// A, at the beginning of the head.
    pub a: usize,
    /// The program's head and more.
    pub head: usize,
    /// The program's tail.
    pub tail: usize,
}

impl Division {
    /// The division for a call; none where it is beyond all memory.
    pub(super) fn new<R: Real, S: Simd<R, W>, const W: usize>(call: &Call<'_>) -> Option<Self> {
        let Extent { channels, positions, .. } = call.extent;
        let by_rows = call.layer.operator == OperatorKind::IsqrtCov
            && call.form == Form::Direct
            && call.layer.layout == Layout::ChannelsFirst
            && pays::<R, S, W>(channels, positions);
        let sample = match call.layer.operator {
            OperatorKind::MatrixSqrt => 0,
            _ if by_rows => channels.checked_mul(positions.div_ceil(W))?,
            _ => channels.div_ceil(W).checked_mul(positions.checked_next_multiple_of(W)?)?,
        };
        let (kept, plan) = match (call.layer.operator, call.form) {
            (OperatorKind::CovariancePooling, _) => (0, Plan::default()),
            (_, Form::Direct) => (0, call.programs.iterate.plan::<W>(channels)?),
            (_, Form::Gram) => (sample, call.programs.factor.plan::<W>(positions)?),
        };
        let behind_a = plan.triangle.checked_add(sample)?.saturating_sub(plan.tail);
        let head = plan.head.max(behind_a).max(kept);
        Some(Self { kept, sample, by_rows, a: plan.triangle, head, tail: plan.tail })
    }

    /// The lines of all parts.
    pub(super) fn lines(&self) -> Option<usize> {
        self.kept.checked_add(self.head)?.checked_add(self.tail)
    }
}
