//! What a model's file says of itself.

use isqrt_cov_proto::onnx::{ModelProto, TensorProto, Version};
use isqrt_cov_proto::{Printable, TensorData};

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

/// That weights of a model are no numbers, if so. Constants that are a single number are often infinite on purpose.
pub fn not_finite(model: &ModelProto) -> Option<String> {
    let tensors = model.graph.iter().flat_map(|graph| &graph.initializer);
    let several = tensors.filter(|tensor| tensor.dims.iter().any(|&dim| dim > 1));
    not_finite_among(several.map(|tensor| (tensor.name(), tensor)))
}

/// That some of these tensors, with what they are called, hold NaN or infinity, if so. Nothing is said of masks: what is to be added to
/// scores, 0 or -∞.
pub fn not_finite_among<'t>(tensors: impl Iterator<Item = (&'t str, &'t TensorProto)>) -> Option<String> {
    const SHOWN: usize = 5;
    let mut holding: Vec<String> = tensors
        .filter_map(|(name, tensor)| {
            let mut first = None;
            let mut is_mask = true;
            TensorData::inline(tensor).ok()?.each_float(|place, value| {
                is_mask &= value == 0.0 || value == f64::NEG_INFINITY;
                if !value.is_finite() && first.is_none() {
                    first = Some((place, value));
                }
            })?;
            first
                .filter(|_| !is_mask)
                .map(|(place, value)| format!("`{}` ({value} at element {place})", Printable(name)))
        })
        .collect();
    let more = holding.len().saturating_sub(SHOWN);
    holding.truncate(SHOWN);
    holding.extend((more > 0).then(|| format!("{more} more")));
    let what = "NaN or infinity, of which nothing useful can be computed unless it is meant";
    (!holding.is_empty()).then(|| format!("these tensors hold {what}: {}", holding.join(", ")))
}

/// The operator sets that a model imports. The default domain has an empty name; ONNX's documents call it `ai.onnx`.
pub fn opsets(model: &ModelProto) -> impl Iterator<Item = (&str, i64)> {
    model.opset_import.iter().map(|set| {
        let domain = if set.domain().is_empty() { "ai.onnx" } else { set.domain() };
        (domain, set.version())
    })
}

#[cfg(test)]
mod tests {
    use isqrt_cov_proto::onnx::GraphProto;

    use super::*;

    #[test]
    fn weights_that_are_no_numbers_are_named() {
        let tensor = |name: &str, values: &[f32]| TensorProto::from_values(name, &[values.len()], values);
        let said = |initializer: Vec<TensorProto>| {
            not_finite(&ModelProto::new(GraphProto { initializer, ..GraphProto::default() }, 17))
        };
        let (nan, inf) = (f32::NAN, f32::NEG_INFINITY);
        assert_eq!(said(vec![tensor("a", &[1.0, 2.0]), tensor("one", &[inf])]), None);
        assert_eq!(said(vec![tensor("mask", &[0.0, inf, inf]), tensor("-0", &[-0.0, inf])]), None);
        let two =
            said(vec![tensor("a", &[1.0, nan, inf]), tensor("b", &[inf, 1.0]), tensor("c", &[0.0, 0.0])]);
        assert!(two.unwrap().ends_with(": `a` (NaN at element 1), `b` (-inf at element 0)"));
        let many = said((0..7).map(|_| tensor("a", &[nan, nan])).collect()).unwrap();
        assert!(many.ends_with("`a` (NaN at element 0), 2 more"), "{many}");
    }
}
