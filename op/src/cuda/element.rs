//! The element types of tensors, as values: on the device there are no types to be generic over.

/// A type of [`ELEMENT_TYPES`](crate::declaration::ELEMENT_TYPES).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ElementType {
    /// float32.
    Float,
    /// float64.
    Double,
    /// float16.
    Float16,
    /// bfloat16.
    BFloat16,
}

impl ElementType {
    /// The size of an element in bytes, which its address is a multiple of.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::Float => 4,
            Self::Double => 8,
            Self::Float16 | Self::BFloat16 => 2,
        }
    }
}
