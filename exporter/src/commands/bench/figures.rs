//! What was measured of models, for people and for machines.

use std::path::Path;

use serde_json::{Value, json};

use crate::commands::path_json;
use crate::table::Table;

/// What was measured of a model.
pub(super) struct Figures<'m> {
    pub path: &'m Path,
    /// The shapes that it ran on, with so many samples.
    pub inputs: Vec<Vec<usize>>,
    pub batch: usize,
    /// How many of the operators it has, and as what they ran, if there are any.
    pub operators: usize,
    pub ran_as: Option<&'static str>,
    /// Of a run: the median, the least, and what nine of ten do not exceed.
    pub milliseconds: [f64; 3],
}

impl Figures<'_> {
    fn median(&self) -> f64 {
        self.milliseconds[0]
    }

    fn of_a_sample(&self) -> f64 {
        self.median() / self.batch as f64
    }

    /// How many times as long this takes as another.
    pub fn ratio_to(&self, other: &Self) -> f64 {
        self.median() / other.median()
    }

    /// As `--json` has it.
    pub fn to_json(&self) -> Value {
        let [median, least, slow] = self.milliseconds;
        json!({
            "model": path_json(self.path),
            "inputs": self.inputs,
            "batch": self.batch,
            "operators": self.operators,
            "operators_ran_as": self.ran_as,
            "median_ms": median,
            "min_ms": least,
            "p90_ms": slow,
            "median_ms_per_sample": self.of_a_sample(),
        })
    }
}

/// The figures of models side by side, with the ratio of the first to each where there are several.
pub(super) fn table(models: &[Figures]) -> String {
    let last = if models.len() > 1 { "ratio" } else { "" };
    let mut table =
        Table::new(&["model", "inputs", "layers", "median ms", "min ms", "90 % ms", "ms a sample", last]);
    for model in models {
        let [median, least, slow] = model.milliseconds;
        table.row([
            model.path.display().to_string(),
            model.inputs.iter().map(|shape| format!("{shape:?}")).collect::<Vec<_>>().join(" "),
            model.ran_as.map_or_else(|| "none".to_owned(), |ran| format!("{}, by {ran}", model.operators)),
            format!("{median:.3}"),
            format!("{least:.3}"),
            format!("{slow:.3}"),
            format!("{:.3}", model.of_a_sample()),
            if models.len() > 1 { format!("{:.2}×", models[0].ratio_to(model)) } else { String::new() },
        ]);
    }
    table.render()
}
