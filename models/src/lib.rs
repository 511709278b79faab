//! Networks with iSQRT-COV layers: how their checkpoints name the weights, and their graphs in ONNX.
//!
//! A file of [`architectures`] describes one architecture, in the words of [`Network`]: what is computed from what, with
//! which weights. Descriptions see the names and shapes of a checkpoint and none of its numbers, so that one of them serves
//! to tell whether a checkpoint is of that architecture ([`recognize`]) and to build its graph ([`Built::model`]).

pub mod architectures;
mod built;
mod fold;
mod layout;
mod network;
pub mod node;
mod problem;
mod recognize;
mod setting;
pub mod triangle;
mod weights;

pub use built::{Built, Options, Placed, Storage};
pub use layout::Layout;
pub use network::Network;
pub use problem::Problem;
pub use recognize::{Architecture, Candidate, Recognition, recognize, recognize_within};
pub use setting::{Choice, Settings, Source};
pub use weights::{Error, Weights};
