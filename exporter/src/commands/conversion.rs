//! What a conversion came to, for machines and for people.

use std::path::Path;

use serde_json::{Value, json};

use super::checkpoint::Trained;
use super::{layers, output, path_json, repair};
use crate::commands::answer::{Answer, Refusal};
use crate::found::Found;
use crate::proof::{Accuracy, Latency, Proof};
use crate::recognize::Findings;
use crate::table::{Table, one_line};

/// A conversion, as far as it came.
#[derive(Debug)]
pub(crate) struct Conversion {
    /// What was found; the layers are those to convert.
    pub findings: Findings,
    /// Layers that were left as they are, as the user said.
    pub skipped: Vec<Found>,
    /// Number of nodes in the original.
    pub nodes_before: usize,
    /// Of which checkpoint the model is, where it is of one; its original is the network in standard operators.
    pub trained: Option<Trained>,
    /// The converted model, where there is one.
    pub converted: Option<Converted>,
    /// Why the answer is no; nothing where it is yes.
    pub refusal: Option<Refusal>,
}

/// What is known of the converted model.
#[derive(Debug)]
pub(crate) struct Converted {
    /// Its number of nodes.
    pub nodes_after: usize,
    /// Whether it computes the same function.
    pub proof: Proof,
    /// How near each layer is to the truth; where that could not be measured, why.
    pub accuracies: Vec<Result<Accuracy, String>>,
    /// How long both models run, where a report is to tell; where that could not be measured, why.
    pub latency: Option<Result<Latency, String>>,
}

/// Where a conversion leaves what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Left<'a> {
    /// Where the proven model goes; nothing where none is written.
    pub model: Option<&'a Path>,
    /// Where its data go, where they are not in the same file.
    pub data: Option<&'a Path>,
    /// Whether none is to be written, as the user says.
    pub is_dry: bool,
    /// Where it would go then.
    pub would: Option<&'a Path>,
    /// Where the report goes.
    pub report: Option<&'a Path>,
}

impl Left<'_> {
    /// For people, a row each. `is_proven` says whether there is a model to write.
    fn describe(&self, is_proven: bool, table: &mut Table) {
        let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
        if let Some(model) = self.model {
            row("written", output::written(model, self.data));
        } else if self.is_dry && is_proven {
            let would = self.would.map(|model| format!("; without it, {} would be", model.display()));
            row("written", format!("no model, as --dry-run says{}", would.unwrap_or_default()));
        }
        if let Some(report) = self.report {
            row("report", report.display().to_string());
        }
    }
}

impl Conversion {
    /// Of a file of which no model could be made.
    pub fn refused(refusal: Refusal) -> Self {
        Self {
            findings: Findings::default(),
            skipped: Vec::new(),
            nodes_before: 0,
            trained: None,
            converted: None,
            refusal: Some(refusal),
        }
    }

    /// The answer: `left` says where things go, `function` whether the model has function bodies.
    pub fn answer(&self, input: &Path, left: Left, function: bool) -> Answer {
        Answer {
            fields: self.fields(input, left, function),
            text: self.text(left),
            refusal: self.refusal.clone(),
        }
    }

    fn fields(&self, input: &Path, left: Left, function: bool) -> Value {
        let (findings, converted) = (&self.findings, self.converted.as_ref());
        let repaired = findings.layers.iter().filter(|found| found.is_put_back());
        let mut fields = json!({
            "input": path_json(input),
            "output": left.model.map(path_json),
            "output_data": left.data.map(path_json),
            "dry_run": left.is_dry,
            "report": left.report.map(path_json),
            "layers": (0..findings.layers.len()).map(|index| self.layer_json(index)).collect::<Value>(),
            "skipped": self.skipped.iter().map(layers::layer_json).collect::<Value>(),
            "repaired": repaired.map(repair::repaired_json).collect::<Value>(),
            "near_misses": findings.misses.iter().map(layers::miss_json).collect::<Value>(),
            "lost_iterations": findings.lost.iter().map(layers::lost_json).collect::<Value>(),
            "not_evaluated": findings.not_evaluated,
            "nodes_before": self.nodes_before,
            "nodes_after": converted.map_or(self.nodes_before, |done| done.nodes_after),
            "function": converted.is_some() && function,
            "proof": null,
        });
        if let Some(trained) = &self.trained {
            fields["checkpoint"] = trained.to_json();
        }
        if let Some(converted) = converted {
            converted.proof.tell(&mut fields);
            if let Some(latency) = &converted.latency {
                let not_measured = |reason: &String| json!({ "not_measured": reason });
                fields["latency"] = latency.as_ref().map_or_else(not_measured, Latency::to_json);
            }
        }
        fields
    }

    /// A layer with its accuracy, where that was measured.
    fn layer_json(&self, index: usize) -> Value {
        let mut layer = layers::layer_json(&self.findings.layers[index]);
        let accuracy = self.converted.as_ref().and_then(|done| done.accuracies.get(index));
        layer["accuracy"] = match accuracy {
            Some(Ok(accuracy)) => accuracy.to_json(),
            Some(Err(reason)) => json!({ "not_measured": reason }),
            None => Value::Null,
        };
        layer
    }

    fn text(&self, left: Left) -> String {
        let findings = &self.findings;
        let mut text = String::new();
        if let Some(trained) = &self.trained {
            let mut table = Table::pairs();
            trained.describe(&mut table);
            for found in &findings.layers {
                let place = format!("{}, reads {}", layers::named(&found.layer), found.input);
                table.row(["layer".to_owned(), place]);
            }
            text.push_str(&table.render());
        } else if !findings.layers.is_empty() {
            text.push_str(&layers::layer_table(&findings.layers));
            text.push('\n');
        }
        if !self.skipped.is_empty() {
            text.extend(["left as they are: ", &one_line(&layers::listed(&self.skipped)), "\n"]);
        }
        text.push_str(&layers::others_text(findings));
        let mut table = Table::pairs();
        self.summary(&mut table);
        left.describe(self.refusal.is_none(), &mut table);
        text.push_str(&table.render());
        text
    }

    /// What is known of the converted model, a row each; nothing where there is none.
    pub fn summary(&self, table: &mut Table) {
        let Some(Converted { nodes_after, proof, accuracies, .. }) = &self.converted else { return };
        table.row(["nodes".to_owned(), format!("{} before, {nodes_after} after", self.nodes_before)]);
        proof.describe(table, ["before", "after"]);
        for (found, accuracy) in self.findings.layers.iter().zip(accuracies) {
            let said = match accuracy {
                Err(reason) => format!("not measured: {reason}"),
                // Of a model that is not written, nothing is to be praised.
                Ok(accuracy) if self.refusal.is_some() => accuracy.describe(),
                Ok(accuracy) => format!("{}: {}", accuracy.describe(), accuracy.verdict()),
            };
            table.row(["float64".to_owned(), format!("{}: {said}", layers::place(found))]);
        }
    }
}
