//! What a checkpoint is, for machines and for people.

use std::path::Path;

use anyhow::Result;
use isqrt_cov_models::triangle::Scores;
use isqrt_cov_models::{Built, Candidate, Choice, Problem, Settings, Source, spelled};
use isqrt_cov_proto::onnx::TensorProto;
use isqrt_cov_proto::onnx::tensor_proto::DataType;
use serde_json::{Map, Value, json};

use super::decision::{Decision, Trial, by_weights};
use super::{Read, misfit};
use crate::cli::{Answer, Refusal};
use crate::commands::layers;
use crate::table::Table;

/// A trained network, as far as it is known.
#[derive(Debug, Clone)]
pub struct Trained {
    format: String,
    facts: Vec<(String, String)>,
    title: String,
    layout: &'static str,
    parameters: u64,
    tensors: usize,
    choices: Vec<Choice>,
    assumptions: Vec<&'static str>,
    scores: Option<Scores>,
    warning: Option<String>,
    trials: Vec<Trial>,
    /// What took how many seconds.
    pub seconds: Vec<(&'static str, f64)>,
}

impl Trained {
    /// What `read` is, built as `built`, and what decided on what the weights do not tell.
    pub fn new(read: &Read, candidate: &Candidate, built: &Built, decision: Decision) -> Self {
        Self {
            format: read.format.to_string(),
            facts: read.facts.clone(),
            title: built.title.clone(),
            layout: candidate.layout.name,
            parameters: built.parameters(&read.weights),
            tensors: read.weights.len(),
            choices: built.choices.clone(),
            assumptions: built.assumptions.clone(),
            scores: decision.scores,
            warning: decision.warning,
            trials: decision.trials,
            seconds: Vec::new(),
        }
    }

    /// For people, a row each.
    pub fn describe(&self, table: &mut Table) {
        let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
        row("checkpoint", format!("{}, {} tensors", self.format, self.tensors));
        if !self.facts.is_empty() {
            row("says", pairs(&self.facts));
        }
        row("architecture", format!("{}, named as in: {}", self.title, self.layout));
        row("parameters", grouped(self.parameters));
        for choice in &self.choices {
            row(choice.name, format!("{} ({}): {}", choice.value, choice.meaning, because(&choice.source)));
        }
        for assumption in &self.assumptions {
            row("assumed", (*assumption).to_owned());
        }
        if let Some(scores) = &self.scores {
            row("evidence", format!("on the triangle's order: {scores}"));
        }
        if let Some(warning) = &self.warning {
            row("WARNING", warning.clone());
        }
        for Trial { name, distance, correct, samples, .. } in &self.trials {
            let said = [
                distance.map(|distance| format!("{distance:.1e} from the outputs expected")),
                correct.map(|correct| format!("{correct} of {samples} labels right")),
            ];
            row("tried", format!("{name}: {}", said.into_iter().flatten().collect::<Vec<_>>().join(", ")));
        }
    }

    /// For machines.
    pub fn to_json(&self) -> Value {
        let trial = |trial: &Trial| json!({ "settings": trial.name, "distance": trial.distance, "correct": trial.correct, "samples": trial.samples });
        json!({
            "format": self.format,
            "facts": facts_json(&self.facts),
            "architecture": self.title,
            "layout": self.layout,
            "parameters": self.parameters,
            "tensors": self.tensors,
            "settings": self.choices.iter().map(choice_json).collect::<Vec<_>>(),
            "assumptions": self.assumptions,
            "triangle_scores": self.scores.as_ref().map(scores_json),
            "warning": self.warning,
            "seconds": self.seconds.iter().map(|&(what, time)| (what.to_owned(), json!(time))).collect::<Map<_, _>>(),
            "trials": self.trials.iter().map(trial).collect::<Vec<_>>(),
        })
    }
}

fn facts_json(facts: &[(String, String)]) -> Value {
    facts.iter().map(|(name, value)| (name.clone(), json!(value))).collect::<Map<_, _>>().into()
}

fn choice_json(choice: &Choice) -> Value {
    let (by, reason) = match &choice.source {
        Source::User => ("user", None),
        Source::Data => ("data", None),
        Source::Weights => ("weights", None),
        Source::Assumed(reason) => ("assumed", Some(reason)),
        Source::Open => ("nobody", None),
    };
    json!({ "name": choice.name, "value": choice.value, "meaning": choice.meaning, "by": by, "reason": reason })
}

fn scores_json(scores: &Scores) -> Value {
    json!({
        "upper": scores.row_major,
        "upper_column_major": scores.column_major,
        "order": scores.order().map(spelled),
    })
}

fn because(source: &Source) -> String {
    match source {
        Source::User => "as told".to_owned(),
        Source::Data => "as the data decide".to_owned(),
        Source::Weights => "as the classifier's weights tell".to_owned(),
        Source::Assumed(reason) => format!("assumed, {reason}"),
        Source::Open => {
            "NOT KNOWN: convert needs --triangle, or known outputs or labels in --inputs".to_owned()
        }
    }
}

fn pairs(facts: &[(String, String)]) -> String {
    facts.iter().map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join(", ")
}

/// A number with its thousands apart.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Shows what is in the checkpoint `path`.
///
/// # Errors
/// A file that cannot be read.
pub fn inspect(path: &Path) -> Result<Answer> {
    let mut settings = Settings::default();
    let read = Read::load(path, &settings)?;
    let fitting = read.candidate.as_ref().filter(|candidate| candidate.fits());
    let scores = match fitting {
        Some(candidate) => by_weights(candidate, &read.weights, &mut settings)?,
        None => None,
    };
    let mut table = Table::pairs();
    table.row(["file".to_owned(), path.display().to_string()]);
    let mut fields = Map::new();
    fields.insert("model".to_owned(), json!(path.display().to_string()));
    if let Some(candidate) = fitting {
        let built = candidate.rebuilt(&read.weights, &settings, true);
        let trained = Trained::new(&read, candidate, &built, Decision { scores, ..Decision::default() });
        trained.describe(&mut table);
        for placed in &built.layers {
            let input = format!("reads {}", placed.input);
            table.row(["layer".to_owned(), format!("{}, {input}", layers::named(&placed.layer))]);
        }
        fields.insert("checkpoint".to_owned(), trained.to_json());
    } else {
        table.row(["checkpoint".to_owned(), format!("{}, {} tensors", read.format, read.weights.len())]);
        if !read.facts.is_empty() {
            table.row(["says".to_owned(), pairs(&read.facts)]);
        }
        let nearest = read.candidate.as_ref().map(|candidate| candidate.built.title.clone());
        fields.insert(
            "checkpoint".to_owned(),
            json!({
                "format": read.format.to_string(),
                "facts": facts_json(&read.facts),
                "architecture": Value::Null,
                "nearest": nearest,
                "tensors": read.weights.len(),
            }),
        );
    }
    let problems = read.candidate.iter().flat_map(|candidate| &candidate.built.problems);
    fields.insert("problems".to_owned(), problems.map(Problem::to_string).collect());
    let tensors = || {
        read.weights
            .names()
            .filter_map(|name| Some((read.weights.original(name), read.weights.tensor(name)?)))
    };
    fields.insert("tensors".to_owned(), tensors().map(|(name, tensor)| tensor_json(name, tensor)).collect());

    let mut text = table.render();
    let mut list = Table::new(&["tensor", "type", "shape"]);
    for (name, tensor) in tensors() {
        list.row([name.to_owned(), type_of(tensor), format!("{:?}", tensor.dims)]);
    }
    text.push('\n');
    text.push_str(&list.render());
    let refusal = fitting.is_none().then(|| Refusal {
        reason: "unknown-architecture",
        message: misfit(read.candidate.as_ref(), &read.weights),
    });
    Ok(Answer { fields, text, refusal })
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
