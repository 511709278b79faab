//! What is said of regions that hold no layer: how they differ from one, what else they compute, and what was lost.

pub mod divisor;
pub mod explain;
pub mod lost;
pub mod relatives;
