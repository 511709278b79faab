//! What a model's file says of itself.

use isqrt_cov_proto::onnx::{ModelProto, Version};

use crate::signature::Signature;
use crate::table::Table;

/// Format, producer, inputs and outputs, a row each.
pub fn describe(model: &ModelProto, signature: &Signature, table: &mut Table) {
    let sets: Vec<_> = opsets(model).map(|(domain, version)| format!("{domain} {version}")).collect();
    table.row(["format".to_owned(), format!("IR {}, opset {}", model.ir_version(), sets.join(", "))]);
    if !model.producer_name().is_empty() {
        table.row(["producer".to_owned(), format!("{} {}", model.producer_name(), model.producer_version())]);
    }
    for port in &signature.inputs {
        table.row(["input".to_owned(), format!("{}: {port}", port.name)]);
    }
    for port in &signature.outputs {
        table.row(["output".to_owned(), format!("{}: {port}", port.name)]);
    }
}

/// What a model of a newer version of the format may hold that is not seen here, nor written again.
pub fn newer_format(model: &ModelProto) -> Option<String> {
    let known = Version::IrVersion as i64;
    (model.ir_version() > known).then(|| {
        format!(
            "the model is of IR version {}, and this program knows the format up to {known}: what is newer in it is not seen, \
             and not written again",
            model.ir_version()
        )
    })
}

/// The operator sets that a model imports. The default domain has an empty name; ONNX's documents call it `ai.onnx`.
pub fn opsets(model: &ModelProto) -> impl Iterator<Item = (&str, i64)> {
    model.opset_import.iter().map(|set| {
        let domain = if set.domain().is_empty() { "ai.onnx" } else { set.domain() };
        (domain, set.version())
    })
}
