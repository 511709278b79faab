//! `isqrt-cov operators`.

use clap::Args;
use serde_json::json;

use crate::commands::answer::Answer;
use crate::documentation;

/// Print the documentation of the operators, in Markdown
///
/// Inputs, outputs, attributes, types, shape inference and bodies, in the form of ONNX's Operators.md.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  isqrt-cov operators > docs/Operators.md")]
pub struct Arguments {}

pub(crate) fn run() -> Answer {
    let text = documentation::operators();
    Answer { fields: json!({ "markdown": text }), text, refusal: None }
}
