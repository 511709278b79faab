//! `inspect` of a checkpoint.

use std::path::Path;

use anyhow::Result;
use isqrt_cov_models::{Problem, Settings};
use isqrt_cov_proto::Printable;
use isqrt_cov_proto::onnx::TensorProto;
use isqrt_cov_proto::onnx::tensor_proto::DataType;
use serde_json::{Value, json};

use super::Read;
use super::decision::{Decision, by_weights};
use super::description::{Trained, facts_json, said};
use crate::commands::answer::Answer;
use crate::commands::{facts, layers, path_json};
use crate::table::Table;

/// Shows what is in the checkpoint `path`.
///
/// # Errors
/// A file that cannot be read.
pub fn inspect(path: &Path) -> Result<Answer> {
    let mut settings = Settings::default();
    let mut read = Read::load(path, &settings, &[])?;
    let weights = &read.weights;
    let named = |name| Some((weights.original(name), weights.tensor(name)?));
    let note = facts::not_finite_among(weights.names().filter_map(named));
    read.notes.extend(note);
    let fitting = read.fitting(path);
    let scores = match &fitting {
        Ok(candidate) => by_weights(candidate, &read.weights, &mut settings)?,
        Err(_) => None,
    };
    let mut table = Table::pairs();
    table.row(["file".to_owned(), path.display().to_string()]);
    let tensors = || {
        read.weights
            .names()
            .filter_map(|name| Some((read.weights.original(name), read.weights.tensor(name)?)))
    };
    let problems = read.candidate.iter().flat_map(|candidate| &candidate.built.problems);
    let mut fields = json!({
        "model": path_json(path),
        "problems": problems.map(Problem::to_string).collect::<Value>(),
        "tensors": tensors().map(|(name, tensor)| tensor_json(name, tensor)).collect::<Value>(),
    });
    if let Ok(candidate) = &fitting {
        let built = candidate.rebuilt(&read.weights, &settings, true);
        let trained = Trained::new(&read, candidate, &built, Decision { scores, ..Decision::default() });
        trained.describe(&mut table);
        for placed in &built.layers {
            let input = format!("reads {}", placed.input);
            table.row(["layer".to_owned(), format!("{}, {input}", layers::named(&placed.layer))]);
        }
        fields["checkpoint"] = trained.to_json();
    } else {
        table.row(["checkpoint".to_owned(), format!("{}, {} tensors", read.format, read.weights.len())]);
        if let Some(said) = said(&read.facts, &read.notes) {
            table.row(["says".to_owned(), said]);
        }
        let nearest = read.candidate.as_ref().map(|candidate| candidate.built.title.clone());
        fields["checkpoint"] = json!({
            "format": read.format.to_string(),
            "facts": facts_json(&read.facts),
            "notes": read.notes,
            "architecture": null,
            "nearest": nearest,
            "tensors": read.weights.len(),
        });
    }

    let mut text = table.render();
    let mut list = Table::new(&["tensor", "type", "shape"]);
    for (name, tensor) in tensors() {
        list.row([Printable(name).to_string(), type_of(tensor), format!("{:?}", tensor.dims)]);
    }
    text.push('\n');
    text.push_str(&list.render());
    Ok(Answer { fields, text, refusal: fitting.err() })
}

fn tensor_json(name: &str, tensor: &TensorProto) -> Value {
    json!({ "name": name, "element_type": type_of(tensor), "shape": tensor.dims })
}

fn type_of(tensor: &TensorProto) -> String {
    let data_type = DataType::try_from(tensor.data_type()).unwrap_or_default();
    match data_type {
        DataType::Float => "float32".to_owned(),
        DataType::Double => "float64".to_owned(),
        other => other.as_str_name().to_lowercase(),
    }
}
