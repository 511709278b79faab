//! How the workspace of a call is divided: bytes on the device, for all samples of a slab.

use super::arguments::SCALE;
use super::arithmetic::Arithmetic;
use super::element::ElementType;
use super::real::real_bytes;
use crate::form::Form;
use crate::layer::{Extent, Layer, OperatorKind};
use crate::program::Program;

/// What parts begin at multiples of, in bytes; at least what a kernel reads at once.
const ALIGNMENT: usize = 256;

/// A part of the workspace: where it begins.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Part {
    /// The offset of its first byte.
    pub offset: usize,
}

/// The parts, for as many samples as it was made for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Workspace {
    /// Each channel's mean, float64.
    pub means: Part,
    /// Each channel's sum of squares, float64.
    pub squares: Part,
    /// Each sample's `Scale`.
    pub scales: Part,
    /// X̄, channels by positions; for the Gram form.
    pub straight: Part,
    /// X̄ᵀ, positions by channels.
    pub transposed: Part,
    /// The upper triangles of a program's places, all samples of one place together.
    pub places: Part,
    /// The factors of even and of odd products, left and right.
    pub factors: [[Part; 2]; 2],
    /// q(G) X̄ᵀ, positions by channels; for the Gram form.
    pub half: Part,
    /// All of it.
    pub bytes: usize,
}

impl Workspace {
    /// The workspace of `samples` samples; none where it is beyond all memory.
    pub(super) fn new(
        layer: &Layer,
        (extent, samples): (Extent, usize),
        form: Form,
        program: Option<&Program>,
        element: ElementType,
        arithmetic: Arithmetic,
    ) -> Option<Self> {
        let real = real_bytes(element);
        let Extent { channels, positions, .. } = extent;
        let mut parts = Self::default();
        let bytes = &mut parts.bytes;
        let mut part = |stride: usize, count: usize| {
            let offset = bytes.checked_next_multiple_of(ALIGNMENT)?;
            *bytes = stride.checked_mul(samples)?.checked_mul(count)?.checked_add(offset)?;
            Some(Part { offset })
        };
        let matrix = |rows: usize, columns: usize| {
            rows.checked_mul(arithmetic.row_stride(columns)?)?.checked_mul(real)
        };
        parts.scales = part(SCALE, 1)?;
        if layer.operator != OperatorKind::MatrixSqrt {
            parts.means = part(channels.checked_mul(size_of::<f64>())?, 1)?;
            parts.squares = part(channels.checked_mul(size_of::<f64>())?, 1)?;
            parts.transposed = part(matrix(positions, channels)?, 1)?;
        }
        if form == Form::Gram {
            parts.straight = part(matrix(channels, positions)?, 1)?;
            parts.half = part(matrix(positions, channels)?, 1)?;
        }
        if let Some(program) = program {
            let side = if form == Form::Gram { positions } else { channels };
            let matrix = matrix(side, side)?;
            parts.places = part(matrix, program.places)?;
            for parity in 0..2 {
                for (factor, there) in program.has_factors(parity).into_iter().enumerate() {
                    if there {
                        parts.factors[parity][factor] = part(matrix, 1)?;
                    }
                }
            }
        }
        Some(parts)
    }
}
