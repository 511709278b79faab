//! What is done with an input.

pub mod archive;
pub mod arrays;
pub mod checkpoint;
pub mod graph;
pub mod kernel;
pub mod model;
pub mod recognition;
pub mod safetensors;

use std::fmt::Display;

/// The most bytes of a message: it names what is wrong, and does not show the whole of a hostile file.
const MESSAGE: usize = 16 << 10;

/// Checks what is said of an input that is refused.
fn refused(error: &impl Display) {
    let message = error.to_string();
    assert!(message.len() <= MESSAGE, "a message of {} bytes: {}", message.len(), &message[..200]);
    assert!(!message.is_empty());
}
