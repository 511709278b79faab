//! Do two models compute the same function? Both are run on the same inputs, whole, in the same runtime: random ones
//! under several seeds and batch sizes, and the user's own where there are any.

mod alignment;
mod cases;
mod difference;
mod inside;
mod latency;
mod pair;
mod parting;
mod remembered;
mod report;
mod rounding;
mod samples;
mod shapes;
mod tolerance;
mod truth;

pub use self::alignment::Alignment;
use self::cases::Case;
pub use self::difference::{Bin, Difference};
pub use self::latency::Latency;
pub use self::pair::Pair;
pub(crate) use self::remembered::Remembered;
pub(crate) use self::report::number;
pub use self::samples::SampleProof;
pub use self::shapes::{Agreement, Common, Shapes};
pub use self::tolerance::{MARGIN, tolerance};
pub use self::truth::Accuracy;
use crate::data::Samples;
use crate::tensor::Tensor;

/// The share of its greatest value by which an output varies, at least, where it proves something: a hundred times what counts as equal in float32.
const LITTLE: f64 = 1e-2;

/// Rows of the user's data that are run in a look.
const FEW: usize = 2;

/// What to run, and how much may differ.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Number of seeds at the first batch size; at others there are two.
    pub seeds: usize,
    /// The greatest max|Δ| / max|reference| that counts as equal; [`tolerance`] where nothing is said.
    pub tolerance: Option<f64>,
    /// The user's data.
    pub samples: Option<Samples>,
    /// Its shapes, which say which sizes the models take, also where the data themselves are not run.
    pub shapes: Option<Vec<Vec<usize>>>,
}

impl Plan {
    /// A look: one seed, and a few of the user's data, which say what inputs may hold.
    #[must_use]
    pub fn in_short(&self) -> Self {
        let samples = self.samples.as_ref().map(|samples| samples.spread(FEW));
        Self { seeds: 1, samples, ..self.clone() }
    }
}

/// What was run and how far apart the models were.
#[derive(Debug, Clone)]
pub struct Proof {
    /// The runtime's name and version.
    pub runtime: String,
    /// The greatest error that counted as equal.
    pub tolerance: f64,
    /// Number of seeds at the first batch size.
    pub seeds: usize,
    /// The batch sizes.
    pub batches: Vec<usize>,
    /// Runs of each model.
    pub runs: usize,
    /// Each output of the reference with its difference.
    pub outputs: Vec<(String, Difference)>,
    /// On the user's data.
    pub samples: Option<SampleProof>,
    /// The greatest error of the operators' bodies in standard operators, where the operators themselves ran first.
    pub body_error: Option<f64>,
    /// Where rounding decides what comes out: how far the models are apart in float64.
    pub float64_error: Option<f64>,
    /// What was assumed or left out, for people.
    pub notes: Vec<String>,
    /// Why the models do not compute the same function; nothing where they do.
    pub failure: Option<String>,
    /// Whether the candidate could not even be run, which is then the failure.
    pub not_run: bool,
    /// The shapes that were run, in the order of the plan.
    cases: Vec<Case>,
    /// Whether the runtime ran a model node by node, since it does not take it whole.
    by_node: bool,
    /// Whether everything ran, so that the numbers decide.
    complete: bool,
}

impl Proof {
    /// Before any run, of models with these outputs.
    fn begun(runtime: String, tolerance: f64, seeds: usize, outputs: Vec<(String, Difference)>) -> Self {
        Self {
            runtime,
            tolerance,
            seeds,
            batches: Vec::new(),
            runs: 0,
            outputs,
            samples: None,
            body_error: None,
            float64_error: None,
            notes: Vec::new(),
            failure: None,
            not_run: false,
            cases: Vec::new(),
            by_node: false,
            complete: false,
        }
    }

    /// The greatest error over all outputs.
    #[must_use]
    pub fn max_error(&self) -> f64 {
        self.outputs.iter().map(|(_, difference)| difference.max).fold(0.0, f64::max)
    }

    /// Adds what running the operators' bodies gave.
    pub fn join_body(&mut self, body: &Self) {
        match &body.failure {
            Some(failure) if body.runs == 0 => {
                self.failure = Some(format!(
                    "the function body does not run here: {failure}; prove it with --runtime ort, or leave it out with \
                     --no-function"
                ));
            }
            failure => {
                self.body_error = Some(body.max_error());
                self.failure = failure.as_ref().map(|failure| format!("with the function body, {failure}"));
            }
        }
    }

    /// Takes in the outputs of one run.
    fn add(&mut self, reference: &[Tensor], candidate: &[&Tensor], run: &str) -> Result<(), String> {
        for ((expected, found), (name, difference)) in reference.iter().zip(candidate).zip(&mut self.outputs)
        {
            if expected.dims() != found.dims() || expected.element_type() != found.element_type() {
                let describe =
                    |tensor: &Tensor| format!("{} {:?}", tensor.element_type().name(), tensor.dims());
                return Err(format!(
                    "on {run}, output `{name}` is {} in the reference and {} in the candidate",
                    describe(expected),
                    describe(found)
                ));
            }
            difference.add(expected, found, run);
        }
        self.runs += 1;
        Ok(())
    }

    /// Judges what was gathered.
    fn conclude(&mut self) {
        if self.by_node {
            self.notes.push(format!(
                "{} does not take the models whole: they ran node by node, slower but no less exactly",
                self.runtime
            ));
        }
        if self.failure.is_some() {
            return;
        }
        self.complete = true;
        self.judge();
        for (name, difference) in &self.outputs {
            let variation = difference.variation();
            if !difference.varies() {
                self.notes.push(format!("output `{name}` is the same on every input: it proves nothing"));
            } else if variation < LITTLE {
                let data = self.other_data();
                self.notes.push(format!(
                    "output `{name}` varies by {variation:.1e} of its greatest value over all that was tried, so that it proves little; give \
                     {data} with --inputs"
                ));
            }
        }
    }

    /// Judges the numbers, where everything ran.
    fn judge(&mut self) {
        if self.complete {
            self.failure = self.difference();
        }
    }

    /// In what the models differ, or why the runs prove nothing.
    fn difference(&self) -> Option<String> {
        let apart = self.outputs.iter().find(|(_, difference)| difference.max > self.tolerance);
        if let Some((name, difference)) = apart {
            let place = difference.worst.as_ref();
            let place = place.map_or_else(String::new, |worst| format!("; worst {worst}"));
            // A length of 0, say.
            let is_made_up = difference.worst.as_ref().is_some_and(|worst| worst.reference.is_nan());
            let advice = if is_made_up && self.samples.is_none() {
                "; the reference gives no number there: if that is for made-up inputs, give valid ones with --inputs"
            } else {
                ""
            };
            return Some(format!(
                "output `{name}` differs by {:.2e} of its greatest value (at most {:.0e} counts as equal){place}{advice}",
                difference.max, self.tolerance
            ));
        }
        self.is_blank().then(|| self.proves_nothing("without a number, NaN or infinite"))
    }

    /// Whether the models ran and gave no number.
    fn is_blank(&self) -> bool {
        self.runs > 0 && self.outputs.iter().all(|(_, difference)| difference.finite == 0)
    }

    /// Whether no output varies by so much that what the models differ in before would show.
    fn hardly_varies(&self) -> bool {
        self.runs > 0 && self.outputs.iter().all(|(_, difference)| difference.variation() < LITTLE)
    }

    /// Fails where the reference's outputs are the same whatever it is given: then they tell it from nothing, and nothing else
    /// was held against anything.
    pub fn demand_variation(&mut self) {
        let takes_data = self.cases.iter().any(|case| !case.shapes.is_empty());
        let repeats = self.outputs.iter().all(|(_, difference)| difference.repeats());
        if self.failure.is_none() && takes_data && repeats {
            self.failure = Some(self.proves_nothing("the same"));
        }
    }

    /// What to give where what was tried does not do.
    fn other_data(&self) -> &'static str {
        if self.samples.is_some() { "other data" } else { "data of your own" }
    }

    fn proves_nothing(&self, what: &str) -> String {
        let data = self.other_data();
        format!(
            "every output is {what} on every input tried, so the runs prove nothing; give {data} with --inputs"
        )
    }
}

#[cfg(test)]
impl Proof {
    /// Of one run of float32 models, with these outputs.
    fn example(outputs: Vec<(String, Difference)>) -> Self {
        let begun = Self::begun("a runtime".to_owned(), 1e-4, 1, outputs);
        let cases = vec![Case { shapes: vec![vec![1]], ..Case::default() }];
        Self { batches: vec![1], runs: 1, complete: true, cases, ..begun }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::ElementType;

    fn tensor(values: &[f64]) -> Tensor {
        Tensor::from_f64(ElementType::F32, &[values.len()], values)
    }

    /// What comes of runs in which the two models give these of one output.
    fn concluded(runs: &[(&[f64], &[f64])]) -> Proof {
        let outputs = vec![("y".to_owned(), Difference::new())];
        let mut proof = Proof { runs: 0, complete: false, ..Proof::example(outputs) };
        for (expected, found) in runs {
            proof.add(&[tensor(expected)], &[&tensor(found)], "a run").unwrap();
        }
        proof.conclude();
        proof
    }

    #[test]
    fn numbers_decide_where_there_are_any() {
        let failure = |runs: &[(&[f64], &[f64])]| concluded(runs).failure.unwrap_or_default();
        let nan = f64::NAN;
        assert_eq!(failure(&[(&[1.0], &[1.0]), (&[2.0], &[2.0])]), "");
        assert!(failure(&[(&[1.0], &[1.0]), (&[2.0], &[2.1])]).contains("output `y` differs by"));
        // A single element among many, as far as it goes on average.
        let one = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0002];
        assert!(failure(&[(&[1.0; 9], &one)]).contains("output `y` differs by"));
        assert!(failure(&[(&[nan], &[nan])]).contains("the runs prove nothing"));
        assert_eq!(failure(&[(&[nan, 1.0], &[nan, 1.0])]), "");
        // One output of several that is no number takes nothing from the others.
        let mut proof = Proof::example(["y", "z"].map(|name| (name.to_owned(), Difference::new())).into());
        proof
            .add(&[nan, 1.0].map(|value| tensor(&[value])), &[&tensor(&[nan]), &tensor(&[1.0])], "a run")
            .unwrap();
        proof.judge();
        assert_eq!(proof.failure, None);
        let is_told = |runs: &[(&[f64], &[f64])]| {
            concluded(runs).notes.iter().any(|note| note.contains("same on every input"))
        };
        let same: &[(&[f64], &[f64])] = &[(&[1.0], &[1.0]), (&[1.0], &[1.0])];
        assert!(is_told(same) && failure(same).is_empty());
        assert!(!is_told(&[(&[1.0], &[1.0]), (&[2.0], &[2.0])]));
        // What depends on nothing is the same, and one of two outputs is enough.
        for (inputs, other, fails) in [(1, 2.0, false), (1, 1.0, true), (0, 1.0, false)] {
            let case = Case { shapes: vec![vec![1]; inputs], ..Case::default() };
            let outputs = ["y", "z"].map(|name| (name.to_owned(), Difference::new())).to_vec();
            let example = Proof::example(outputs);
            let mut proof = Proof { runs: 0, complete: false, cases: vec![case], ..example };
            for value in [1.0, other] {
                let outputs = [tensor(&[1.0]), tensor(&[value])];
                proof.add(&outputs, &[&outputs[0], &outputs[1]], "a run").unwrap();
            }
            proof.conclude();
            proof.demand_variation();
            assert_eq!(proof.failure.is_some(), fails);
        }
    }

    #[test]
    fn what_failed_before_is_what_is_said() {
        let outputs = vec![("y".to_owned(), Difference::new())];
        let failure = Some("it broke".to_owned());
        let mut proof = Proof { failure, by_node: true, complete: false, ..Proof::example(outputs) };
        proof.conclude();
        proof.judge();
        assert_eq!(proof.failure.as_deref(), Some("it broke"));
        assert!(proof.notes[0].contains("ran node by node"));
    }

    #[test]
    fn outputs_of_other_shapes_or_types_are_no_numbers_apart() {
        let mut proof = Proof::example(vec![("y".to_owned(), Difference::new())]);
        let other = Tensor::from_f64(ElementType::F64, &[1], &[1.0]);
        for (found, said) in [(tensor(&[1.0, 1.0]), "float [2]"), (other, "double [1]")] {
            let refused = proof.add(&[tensor(&[1.0])], &[&found], "a run").unwrap_err();
            assert!(refused.contains(&format!("is float [1] in the reference and {said}")), "{refused}");
        }
    }

    #[test]
    fn a_body_fails_with_its_numbers_or_without_running() {
        let joined = |body: &Proof| {
            let mut proof = concluded(&[(&[1.0], &[1.0])]);
            proof.join_body(body);
            (proof.failure.unwrap_or_default(), proof.body_error.is_some())
        };
        assert_eq!(joined(&concluded(&[(&[1.0], &[1.0])])), (String::new(), true));
        let (failure, measured) = joined(&concluded(&[(&[1.0], &[2.0])]));
        assert!(failure.starts_with("with the function body, output `y` differs") && measured);
        let failure = Some("it broke".to_owned());
        let (failure, measured) = joined(&Proof { failure, ..concluded(&[]) });
        assert!(failure.starts_with("the function body does not run here: it broke") && !measured);
    }
}
