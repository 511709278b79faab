//! What is fuzzed. Each [`Target`] is a function that takes any bytes whatever and must come back: without a panic, within
//! its [`Memory`], with the properties that it asserts.
//!
//! Nothing here needs a fuzzer. `tests/targets.rs` runs every target on its seeds, on what fuzzing found, and on
//! mutations of them, the same ones each time; `libfuzzer/` gives the same functions to libFuzzer, which is let loose on
//! them for hours (`fuzz/run`).

mod files;
mod memory;
mod mutation;
mod target;
mod targets;

pub use memory::Memory;
pub use mutation::{Bytes, bytes};
pub use target::{TARGETS, Target};
