//! What the end-to-end tests share: where the built artefacts are, and how to run a client in a real runtime.
//!
//! The tests know the project by its artefacts only: the operator library and the exporter's binary. `tests/run` builds
//! them and installs the runtimes. Clients run in processes of their own; [`Runtime`] is one in the test's.

mod artefacts;
mod node;
mod python;
mod session;
mod tensor;

pub use artefacts::{
    cases, converted, converted_to_ir, converted_without_body, corpus, exporter, library, model, raw_input,
    scratch,
};
pub use node::Node;
pub use python::{Answer, Python};
pub use session::{Outcome, Runtime, SharedSession};
pub use tensor::{Element, Random, Tensor};

/// What to do when something is missing.
const RUN_FIRST: &str = "run `tests/run`, which builds and installs it";

/// The folder of this package.
#[must_use]
pub fn folder() -> &'static std::path::Path {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The greatest |found − expected|, relative to the greatest |expected|.
///
/// # Panics
/// If the two differ in length.
#[must_use]
pub fn relative_error(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len(), "the output has another size than expected");
    let greatest =
        |values: &mut dyn Iterator<Item = f32>| values.fold(0.0_f32, |a, b| if b > a { b } else { a });
    assert!(found.iter().all(|value| value.is_finite()), "the output is not finite");
    let deviation = greatest(&mut found.iter().zip(expected).map(|(f, e)| (f - e).abs()));
    deviation / greatest(&mut expected.iter().map(|value| value.abs()))
}
