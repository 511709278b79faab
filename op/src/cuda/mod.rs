//! The layer on NVIDIA GPUs.

mod arguments;
mod element;
mod fused;
mod plan;
mod real;
mod slab;
mod workspace;

pub use element::ElementType;
