//! The types that the kernels compute in.

use super::element::ElementType;

/// float32, or float64 for float64 tensors.
pub(super) trait Real: Copy + Default {
    /// The elements whose type it is.
    const ELEMENT: ElementType;

    /// The nearest value.
    fn from_f64(value: f64) -> Self;
}

impl Real for f32 {
    const ELEMENT: ElementType = ElementType::Float;

    fn from_f64(value: f64) -> Self {
        value as Self
    }
}

impl Real for f64 {
    const ELEMENT: ElementType = ElementType::Double;

    fn from_f64(value: f64) -> Self {
        value
    }
}

/// The bytes of the type in which the sums over elements run.
pub(super) fn real_bytes(element: ElementType) -> usize {
    if element == ElementType::Double { size_of::<f64>() } else { size_of::<f32>() }
}
