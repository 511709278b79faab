//! What is seen when a model runs: the sizes and values of the whole, then what a region of it computes.

pub mod cuts;
pub mod subject;
pub mod survey;
pub mod trial;
