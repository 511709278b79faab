//! The types that the kernels compute in.

use super::element::ElementType;
use crate::cpu;

/// float32, or float64 for float64 tensors, as on the CPU.
pub(super) trait Real: cpu::Real {
    /// The elements whose type it is.
    const ELEMENT: ElementType;
}

impl Real for f32 {
    const ELEMENT: ElementType = ElementType::Float;
}

impl Real for f64 {
    const ELEMENT: ElementType = ElementType::Double;
}

/// The bytes of the type in which the sums over elements run.
pub(super) fn real_bytes(element: ElementType) -> usize {
    if element == ElementType::Double { size_of::<f64>() } else { size_of::<f32>() }
}
