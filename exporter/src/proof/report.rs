//! The proof for machines and for people.

use serde_json::{Value, json};

use super::Proof;
use super::cases::{Case, Work};
use crate::table::Table;

impl Proof {
    /// The proof as a JSON object. Errors that are infinite (a NaN on one side only) are `null`, and so are those of no run.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let outputs: Vec<Value> = self
            .outputs
            .iter()
            .map(|(name, difference)| {
                json!({
                    "name": name,
                    "max_error": difference.max,
                    "mean_error": difference.mean(),
                    "p999_error": difference.quantile_999(),
                    "nan_on_one_side": difference.lone,
                })
            })
            .collect();
        let measured = |error: f64| (self.runs > 0).then_some(error);
        json!({
            "passed": self.failure.is_none(),
            "runtime": self.runtime,
            "max_error": measured(self.max_error()),
            "mean_error": measured(self.mean_error()),
            "p999_error": measured(self.quantile_999()),
            "tolerance": self.tolerance,
            "seeds": self.seeds,
            "batches": self.batches,
            "runs": self.runs,
            "outputs": outputs,
            "function_body_max_error": self.body_error,
            "float64_max_error": self.float64_error,
            "samples": self.samples.as_ref().map(|samples| samples.count),
            "samples_not_finite": self.samples.as_ref().map(|samples| samples.not_finite),
            "notes": self.notes,
        })
    }

    /// Tells the proof in the fields of an answer, and what the user's `expected` and `labels` say where they were given.
    pub fn tell(&self, fields: &mut Value) {
        fields["proof"] = self.to_json();
        let Some(samples) = &self.samples else { return };
        if let Some([before, after]) = samples.distance {
            fields["expected"] = json!({ "error_before": before, "error_after": after });
        }
        if let (Some([before, after]), Some([correct_before, correct_after])) =
            (samples.accuracy(), samples.correct)
        {
            fields["accuracy"] = json!({
                "samples": samples.rows(),
                "before": before,
                "after": after,
                "correct_before": correct_before,
                "correct_after": correct_after,
            });
        }
    }

    /// The rows of a report: each a name and what there is to say. `sides` names the two models.
    pub fn describe(&self, table: &mut Table, sides: [&str; 2]) {
        if self.runs == 0 {
            table.row(["proof".to_owned(), format!("NONE: nothing ran in {}", self.runtime)]);
            return;
        }
        let verdict = if self.failure.is_none() { "same function" } else { "DIFFERENT" };
        let decides = self.failure.is_some() || self.max_error() <= self.tolerance;
        let counts = if decides {
            format!("at most {:.0e} counts as equal", self.tolerance)
        } else {
            "which decides nothing: rounding does".to_owned()
        };
        table.row([
            "proof".to_owned(),
            format!(
                "{verdict}: max error {}, 99.9 % {}, mean {} of the output's greatest value ({counts})",
                number(self.max_error()),
                number(self.quantile_999()),
                number(self.mean_error()),
            ),
        ]);
        table.row([
            String::new(),
            format!("{}: {} runs of each model in {}", self.tried(), self.runs, self.runtime),
        ]);
        if let Some(error) = self.float64_error {
            let said = format!("in float64: max error {}", number(error));
            table.row([String::new(), said]);
        }
        if let Some(error) = self.body_error {
            table.row([
                String::new(),
                format!("function body, without the operators: max error {}", number(error)),
            ]);
        }
        if self.outputs.len() > 1 {
            for (name, difference) in &self.outputs {
                table.row([String::new(), format!("output {name}: max error {}", number(difference.max))]);
            }
        }
        if let Some(samples) = &self.samples {
            if let Some([before, after]) = samples.distance {
                table.row([
                    "expected".to_owned(),
                    format!("{}: {} away; {}: {} away", sides[0], number(before), sides[1], number(after)),
                ]);
            }
            if let (Some(accuracy), Some(correct)) = (samples.accuracy(), samples.correct) {
                let side = |index: usize| {
                    let (percent, correct) = (100.0 * accuracy[index], correct[index]);
                    format!("{}: {percent:.2} % ({correct} of {})", sides[index], samples.rows())
                };
                table.row(["accuracy".to_owned(), format!("{}; {}", side(0), side(1))]);
            }
            if !samples.finite_inputs {
                table.row([
                    "note".to_owned(),
                    "the data hold NaN or infinity, which runtimes treat differently".to_owned(),
                ]);
            }
            if samples.no_class > 0 {
                let said = format!(
                    "{} of the labels are no class of the model's, which counts from 0",
                    samples.no_class
                );
                table.row(["note".to_owned(), said]);
            }
            if samples.not_finite > 0 {
                let said = format!(
                    "{} of the {} samples prove little: {} gives NaN or infinity on them",
                    samples.not_finite, samples.count, sides[0]
                );
                table.row(["note".to_owned(), said]);
            }
            if !samples.unused.is_empty() {
                let unused = samples.unused.join("`, `");
                table.row(["note".to_owned(), format!("arrays not used: `{unused}`")]);
            }
        }
        for note in &self.notes {
            table.row(["note".to_owned(), note.clone()]);
        }
    }

    /// The seeds, at which batch sizes, and the user's samples.
    fn tried(&self) -> String {
        let seeds = |case: &Case| case.work.iter().filter(|work| matches!(work, Work::Seed(_))).count();
        let counted =
            |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        let mut tried = Vec::new();
        let (mut batches, mut others, mut sizes) = (Vec::new(), 0, 0);
        for case in self.cases.iter().filter(|&case| seeds(case) > 0) {
            match &tried[..] {
                [] => tried.push(format!("{} at batch {}", counted(seeds(case), "seed"), case.batch)),
                _ if case.batch == self.cases[0].batch => sizes += seeds(case),
                _ => {
                    others = seeds(case);
                    batches.push(case.batch.to_string());
                }
            }
        }
        if others > 0 {
            tried.push(format!("{} at {}", counted(others, "seed"), batches.join(" and ")));
        }
        if sizes > 0 {
            tried.push(format!("{} at other sizes", counted(sizes, "seed")));
        }
        let work = self.cases.iter().flat_map(|case| &case.work);
        let images = work.filter(|work| matches!(work, Work::Images(_))).count();
        if images > 0 {
            tried.push(format!("{} of images from 0 to 255", counted(images, "seed")));
        }
        if let Some(samples) = &self.samples {
            tried.push(counted(samples.count, "sample"));
        }
        tried.join(", ")
    }

    /// The error that 99.9 % of an output's numbers do not exceed, of the output where that is greatest.
    fn quantile_999(&self) -> f64 {
        self.outputs.iter().map(|(_, difference)| difference.quantile_999()).fold(0.0, f64::max)
    }

    /// Mean error of the output where it is greatest.
    fn mean_error(&self) -> f64 {
        self.outputs.iter().map(|(_, difference)| difference.mean()).fold(0.0, f64::max)
    }
}

/// An error for people.
pub(crate) fn number(error: f64) -> String {
    if error == 0.0 {
        "0".to_owned()
    } else if error.is_finite() {
        format!("{error:.1e}")
    } else {
        "infinite".to_owned()
    }
}
