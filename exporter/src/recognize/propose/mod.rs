//! Where layers may be: the regions of every graph of a model.

pub mod places;
pub mod region;
