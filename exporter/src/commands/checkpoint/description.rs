//! What a checkpoint is, for machines and for people.

use isqrt_cov_models::triangle::Scores;
use isqrt_cov_models::{Built, Candidate, Choice, Source};
use isqrt_cov_op::Vectorization;
use isqrt_cov_proto::Printable;
use serde_json::{Value, json};

use super::Read;
use super::decision::Decision;
use super::trial::Trial;
use crate::table::Table;

/// A trained network, as far as it is known.
#[derive(Debug, Clone)]
pub struct Trained {
    format: String,
    facts: Vec<(String, String)>,
    notes: Vec<String>,
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
            notes: read.notes.clone(),
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
        if let Some(said) = said(&self.facts, &self.notes) {
            row("says", said);
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
        for trial in &self.trials {
            row("tried", format!("{}: {}", trial.name(), trial.said()));
        }
    }

    /// For machines.
    pub fn to_json(&self) -> Value {
        let trial = |trial: &Trial| json!({ "settings": trial.name(), "distance": trial.distance, "correct": trial.correct, "samples": trial.samples });
        json!({
            "format": self.format,
            "facts": facts_json(&self.facts),
            "notes": self.notes,
            "architecture": self.title,
            "layout": self.layout,
            "parameters": self.parameters,
            "tensors": self.tensors,
            "settings": self.choices.iter().map(choice_json).collect::<Vec<_>>(),
            "assumptions": self.assumptions,
            "triangle_scores": self.scores.as_ref().map(scores_json),
            "warning": self.warning,
            "seconds": self.seconds.iter().copied().collect::<Value>(),
            "trials": self.trials.iter().map(trial).collect::<Vec<_>>(),
        })
    }
}

pub(super) fn facts_json(facts: &[(String, String)]) -> Value {
    facts.iter().cloned().collect()
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
        "order": scores.order().map(Vectorization::word),
    })
}

fn because(source: &Source) -> String {
    match source {
        Source::User => "as told".to_owned(),
        Source::Data => "as the data decide".to_owned(),
        Source::Weights => "as the classifier's weights tell".to_owned(),
        Source::Assumed(reason) => format!("assumed, {reason}"),
        Source::Open => {
            "NOT KNOWN: convert needs --triangle, or known outputs or labels in --inputs that tell".to_owned()
        }
    }
}

/// What a checkpoint says of itself, its first facts, and how its tensors were found; nothing where that is nothing.
pub(super) fn said(facts: &[(String, String)], notes: &[String]) -> Option<String> {
    const SHOWN: usize = 20;
    let fact = |(name, value): &(String, String)| format!("{} {}", Printable(name), Printable(value));
    let mut said: Vec<String> = facts.iter().take(SHOWN).map(fact).collect();
    if facts.len() > SHOWN {
        said.push(format!("and {} more", facts.len() - SHOWN));
    }
    said.extend(notes.iter().cloned());
    (!said.is_empty()).then(|| said.join(", "))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_facts_the_first_are_shown() {
        let facts: Vec<(String, String)> =
            (0..4000).map(|index| (format!("metric\u{202e}{index}"), "1".to_owned())).collect();
        let said = said(&facts, &["taken from `net`".to_owned()]).unwrap();
        assert!(said.starts_with("metric\\u{202e}0 1, metric"), "{said}");
        assert!(said.ends_with(", and 3980 more, taken from `net`") && said.len() < 1000, "{said}");
    }
}
