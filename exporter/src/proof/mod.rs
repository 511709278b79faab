//! Do two models compute the same function? Both are run on the same inputs, whole, in the same runtime: random ones
//! under several seeds and batch sizes, and the user's own where there are any.

mod cases;
mod difference;
mod inside;
mod latency;
mod parting;
mod remembered;
mod report;
mod rounding;
mod samples;
mod shapes;
mod tolerance;
mod truth;

use std::sync::Arc;

use anyhow::{Context, Result};
use isqrt_cov_proto::onnx::ModelProto;

use self::cases::{Case, Work, cases, inputs_of};
pub use self::difference::{Bin, Difference, Place};
pub use self::latency::{Latency, latency};
pub use self::parting::parting;
pub(crate) use self::remembered::Remembered;
pub(crate) use self::report::number;
pub use self::rounding::{distance_in_float64, rounding};
pub use self::samples::SampleProof;
pub use self::shapes::{Alignment, Shapes};
pub use self::tolerance::tolerance;
pub use self::truth::{Accuracy, truth};
use crate::data::Samples;
use crate::held::held_batches;
use crate::progress::Progress;
use crate::runtime::{Runtime, Session, advice};
use crate::signature::Signature;
use crate::tensor::Tensor;

/// Sizes tried for the open axes of images, until the reference runs: one that five halvings leave 2×2, then the usual.
const IMAGES: [usize; 4] = [64, 224, 32, 299];
/// The same for feature maps and sequences. Graphs may hold a centering matrix of M×M, so they start small.
const FEATURES: [usize; 5] = [14, 7, 32, 64, 1];

/// The size that is tried beside one that the models run at.
fn larger(extent: usize) -> usize {
    extent + extent.div_ceil(2)
}

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

/// Runs both models and compares every output. Tensors are all inline.
///
/// # Errors
/// A reference that does not run at all; a model whose inputs cannot be made up.
pub fn compare(
    reference: &Arc<ModelProto>,
    candidate: &Arc<ModelProto>,
    runtime: &dyn Runtime,
    plan: &Plan,
    progress: &Progress,
) -> Result<Proof> {
    let outputs = Signature::of(reference)?.outputs.into_iter();
    let proof = Proof {
        runtime: runtime.name(),
        tolerance: plan.tolerance.unwrap_or_else(|| tolerance([reference, candidate])),
        seeds: plan.seeds,
        batches: Vec::new(),
        runs: 0,
        outputs: outputs.map(|port| (port.name, Difference::new())).collect(),
        samples: plan.samples.as_ref().map(SampleProof::new),
        body_error: None,
        float64_error: None,
        notes: Vec::new(),
        failure: None,
        not_run: false,
        cases: Vec::new(),
        by_node: false,
        complete: false,
    };
    let (pair, shapes) = match Pair::of(reference, candidate, runtime, plan)? {
        Ok(pair) => pair,
        Err(reason) => return Ok(Proof { failure: Some(reason), ..proof }),
    };
    let proof = Proof { notes: pair.alignment.notes.clone(), ..proof };
    let done = pair.compare(&shapes, plan, proof.clone(), progress);
    if !shapes.open_batch() || !done.as_ref().is_err_and(anyhow::Error::is::<NotRun>) {
        return done;
    }
    // Some exports declare an open batch but hold its size inside.
    for batch in reference.graph.as_ref().map_or_else(Vec::new, held_batches) {
        let shapes = shapes.with_batch(batch);
        let mut proof = proof.clone();
        proof.notes.push(format!(
            "the model declares any number of samples, but runs with {batch} only, which it holds inside"
        ));
        if shapes.check_greatest().is_ok()
            && let Ok(proof) = pair.compare(&shapes, plan, proof, progress)
        {
            return Ok(proof);
        }
    }
    done
}

/// That the reference does not run, or gives no numbers.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NotRun(String);

/// Two models to be compared in a runtime.
struct Pair<'a> {
    reference: &'a Arc<ModelProto>,
    candidate: &'a Arc<ModelProto>,
    runtime: &'a dyn Runtime,
    alignment: Alignment,
}

impl<'a> Pair<'a> {
    /// The two models, and the inputs that both take. The inner error, for people: why they take no common inputs.
    fn of(
        reference: &'a Arc<ModelProto>,
        candidate: &'a Arc<ModelProto>,
        runtime: &'a dyn Runtime,
        plan: &Plan,
    ) -> Result<Result<(Self, Shapes), String>> {
        let signatures = [Signature::of(reference)?, Signature::of(candidate)?];
        let alignment = match Alignment::of(&signatures[0], &signatures[1]) {
            Ok(alignment) => alignment,
            Err(reason) => return Ok(Err(reason)),
        };
        let shapes = Shapes::agreed(&signatures[0], &signatures[1], &alignment, plan.shapes.as_deref())?;
        Ok(shapes.map(|shapes| (Self { reference, candidate, runtime, alignment }, shapes)))
    }

    /// Runs all there is to run on inputs of these shapes.
    fn compare(&self, shapes: &Shapes, plan: &Plan, mut proof: Proof, progress: &Progress) -> Result<Proof> {
        let extents = self.extents(shapes)?;
        let mut cases = cases(shapes, &extents, plan);
        cases.retain(|case| !case.work.is_empty());
        let beyond = cases.iter().skip(1).map(|case| case.beyond().work.len());
        let first = cases.first().map_or(0, |case| case.work.len());
        progress.begin("proving", first + beyond.sum::<usize>());
        let mut refused = None;
        for case in cases {
            let case = if proof.cases.is_empty() { case } else { case.beyond() };
            let original = match self.runtime.prepare(self.reference, &case.shapes).and_then(|session| {
                session.run(&inputs_of(&case.work[0], &case, shapes, plan).0).map(|_| session)
            }) {
                Ok(session) => session,
                Err(error) => {
                    let shapes = &case.shapes;
                    let left_out = format!("left out: the reference does not run on {shapes:?}: {error:#}");
                    proof.notes.push(left_out);
                    refused = Some(error);
                    continue;
                }
            };
            self.run(&case, &*original, shapes, plan, &mut proof, progress)?;
            proof.cases.push(case);
            if proof.failure.is_some() {
                break;
            }
        }
        progress.end();
        if proof.runs == 0
            && proof.failure.is_none()
            && let Some(error) = refused
        {
            let (runtime, advice) = (self.runtime.name(), advice(self.runtime, &error));
            return Err(error.context(NotRun(format!("{runtime} does not run the reference{advice}"))));
        }
        proof.conclude();
        Ok(proof)
    }

    /// Sizes for the open axes other than the batch, the first and the others: some on which the reference gives numbers, and
    /// some more, which differ if the reference takes that.
    fn extents(&self, shapes: &Shapes) -> Result<Vec<(usize, usize)>> {
        if !shapes.open_extent() {
            return Ok(vec![(1, 1)]);
        }
        let batch = if shapes.open_batch() { 1 } else { shapes.fixed_batch() };
        let only_zeros = std::cell::Cell::new(true);
        let attempt = |extent: (usize, usize)| -> Result<bool> {
            let sized = shapes.sized(batch, extent);
            let outputs = self.runtime.prepare(self.reference, &sized)?.run(&shapes.random(&sized, 1))?;
            let any = |is: fn(&f64) -> bool| outputs.iter().any(|output| output.to_f64().iter().any(is));
            only_zeros.set(only_zeros.get() && !any(|value| *value != 0.0));
            Ok(any(|value| value.is_finite() && *value != 0.0))
        };
        let mut last = None;
        let candidates: &[usize] = if shapes.looks_like_images() { &IMAGES } else { &FEATURES };
        for &extent in candidates {
            let square = (extent, extent);
            match attempt(square) {
                Ok(true) => {
                    let more = larger(extent);
                    let others = [(extent, more), (more, more)].into_iter();
                    let other = others.filter(|&other| attempt(other).unwrap_or(false)).take(1);
                    return Ok(std::iter::once(square).chain(other).collect());
                }
                Ok(false) => {}
                Err(error) => last = Some(error),
            }
        }
        let tried: Vec<_> = candidates.iter().map(usize::to_string).collect();
        anyhow::ensure!(
            last.is_some() || !only_zeros.get(),
            "the model leaves sizes open, and gives 0 throughout for each of {}: no proof would show anything; are its last \
             weights zeros?",
            tried.join(", ")
        );
        let headline = format!(
            "the model leaves sizes open, and gives no numbers for any of {} in {}; give data of the right shape \
             with --inputs{}",
            tried.join(", "),
            self.runtime.name(),
            last.as_ref().map_or("", |error| advice(self.runtime, error))
        );
        Err(match last {
            Some(error) => error.context(NotRun(headline)),
            None => NotRun(headline).into(),
        })
    }

    /// Runs everything in `case`, until the models differ in more than numbers.
    fn run(
        &self,
        case: &Case,
        original: &dyn Session,
        shapes: &Shapes,
        plan: &Plan,
        proof: &mut Proof,
        progress: &Progress,
    ) -> Result<()> {
        let order = &self.alignment.inputs;
        let fed: Vec<_> = order.iter().map(|&index| case.shapes[index].clone()).collect();
        let converted = match self.runtime.prepare(self.candidate, &fed) {
            Ok(session) => session,
            Err(error) => {
                let advice = advice(self.runtime, &error);
                proof.failure =
                    Some(format!("the candidate does not load on {:?}{advice}: {error:#}", case.shapes));
                proof.not_run = proof.runs == 0;
                return Ok(());
            }
        };
        proof.by_node |= original.is_by_node() || converted.is_by_node();
        for work in &case.work {
            let (inputs, name) = inputs_of(work, case, shapes, plan);
            let before = original.run(&inputs).with_context(|| format!("the reference fails on {name}"))?;
            let fed: Vec<_> = order.iter().map(|&index| inputs[index].clone()).collect();
            let after = match converted.run(&fed) {
                Ok(after) => after,
                Err(error) => {
                    let advice = advice(self.runtime, &error);
                    proof.failure = Some(format!("the candidate fails on {name}{advice}: {error:#}"));
                    proof.not_run = proof.runs == 0;
                    return Ok(());
                }
            };
            let after: Vec<_> = self.alignment.outputs.iter().map(|&index| &after[index]).collect();
            if let Err(reason) = proof.add(&before, &after, &name) {
                proof.failure = Some(reason);
                return Ok(());
            }
            if let (Work::Rows { start, valid }, Some(samples)) = (work, &mut proof.samples) {
                samples.add(*start, *valid, &before[0], after[0])?;
            }
            progress.step();
        }
        if !proof.batches.contains(&case.batch) {
            proof.batches.push(case.batch);
        }
        Ok(())
    }
}

impl Proof {
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
            if !difference.varies() {
                self.notes.push(format!("output `{name}` is the same on every input: it proves nothing"));
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
            return Some(format!(
                "output `{name}` differs by {:.2e} of its greatest value (at most {:.0e} counts as equal){place}",
                difference.max, self.tolerance
            ));
        }
        let nothing = self.runs > 0 && self.outputs.iter().all(|(_, difference)| difference.finite == 0);
        nothing.then(|| {
            "every output is NaN or infinite on every input tried, so the runs prove nothing; give data of your own \
             with --inputs"
                .to_owned()
        })
    }
}

#[cfg(test)]
impl Proof {
    /// Of one run of float32 models, with these outputs.
    fn example(outputs: Vec<(String, Difference)>) -> Self {
        Self {
            runtime: "a runtime".to_owned(),
            tolerance: 1e-4,
            seeds: 1,
            batches: vec![1],
            runs: 1,
            outputs,
            samples: None,
            body_error: None,
            float64_error: None,
            notes: Vec::new(),
            failure: None,
            not_run: false,
            cases: Vec::new(),
            by_node: false,
            complete: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::ensure;
    use isqrt_cov_proto::onnx::tensor_proto::DataType;
    use isqrt_cov_proto::onnx::{GraphProto, ValueInfoProto};

    use super::*;
    use crate::tensor::ElementType;

    /// What a model multiplies the sum of an input of these sizes by: the candidate, or the reference.
    type Factor = fn(bool, &[usize]) -> Result<f64>;

    struct Stub {
        factor: Factor,
        by_node: Option<bool>,
    }

    struct Ready {
        factor: f64,
        by_node: bool,
    }

    impl Runtime for Stub {
        fn name(&self) -> String {
            "a stub".to_owned()
        }

        fn prepare(&self, model: &Arc<ModelProto>, shapes: &[Vec<usize>]) -> Result<Box<dyn Session>> {
            let is_candidate = model.producer_name() == "candidate";
            let factor = (self.factor)(is_candidate, &shapes[0])?;
            Ok(Box::new(Ready { factor, by_node: self.by_node == Some(is_candidate) }))
        }
    }

    impl Session for Ready {
        fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
            Ok(vec![tensor(&[self.factor * inputs[0].to_f64().iter().sum::<f64>()])])
        }

        fn is_by_node(&self) -> bool {
            self.by_node
        }
    }

    /// Compares models of an input of so many samples, or any number, with 8 channels and two open axes.
    fn compared(samples: Option<usize>, stub: &Stub) -> Result<Proof> {
        let samples = samples.map_or_else(|| "n".into(), Into::into);
        let graph = GraphProto {
            input: vec![ValueInfoProto::tensor(
                "x",
                DataType::Float,
                [samples, 8.into(), "h".into(), "w".into()],
            )],
            output: vec![ValueInfoProto::tensor("y", DataType::Float, [1.into()])],
            ..GraphProto::default()
        };
        let [reference, candidate] = ["reference", "candidate"].map(|name| {
            let (name, graph) = (Some(name.to_owned()), Some(graph.clone()));
            Arc::new(ModelProto { producer_name: name, graph, ..ModelProto::default() })
        });
        let plan = Plan { seeds: 3, tolerance: None, samples: None, shapes: None };
        compare(&reference, &candidate, stub, &plan, &Progress::hidden())
    }

    fn stub(factor: Factor) -> Stub {
        Stub { factor, by_node: None }
    }

    #[test]
    fn models_are_run_at_sizes_that_give_numbers() {
        let sizes = |samples, factor| -> Vec<Vec<usize>> {
            let proof = compared(samples, &stub(factor)).unwrap();
            assert_eq!(proof.failure, None);
            proof.cases.iter().map(|case| [0, 2, 3].map(|axis| case.shapes[0][axis]).to_vec()).collect()
        };
        assert_eq!(sizes(None, |_, _| Ok(1.0)), [[1, 14, 14], [2, 14, 14], [5, 14, 14], [1, 14, 21]]);
        let square: Factor = |_, dims| {
            ensure!(dims[2] == dims[3], "other sizes");
            Ok(1.0)
        };
        assert_eq!(sizes(None, square)[3], [1, 21, 21]);
        let only: Factor = |_, dims| {
            ensure!(dims[2] == 14 && dims[3] == 14, "other sizes");
            Ok(1.0)
        };
        assert_eq!(sizes(None, only).len(), 3);
        // Neither zeros nor what is no number shows anything.
        let later: Factor = |_, dims| Ok(if dims[2] < 14 { 1.0 } else { 0.0 });
        assert_eq!(sizes(None, later)[0], [1, 7, 7]);
        let later: Factor = |_, dims| Ok(if dims[2] < 14 { 1.0 } else { f64::NAN });
        assert_eq!(sizes(None, later)[0], [1, 7, 7]);
        let held: Factor = |_, dims| {
            ensure!(dims[0] == 4, "another number of samples");
            Ok(1.0)
        };
        assert_eq!(sizes(Some(4), held), [[4, 14, 14], [4, 14, 21]]);
        let refused = |factor| compared(None, &stub(factor)).unwrap_err().to_string();
        assert!(refused(|_, _| Ok(0.0)).contains("gives 0 throughout for each of 14, 7, 32, 64, 1"));
        assert!(refused(|_, _| Ok(f64::NAN)).contains("gives no numbers for any of 14, 7, 32, 64, 1"));
        assert!(refused(|_, _| anyhow::bail!("broken")).contains("gives no numbers for any of"));
    }

    #[test]
    fn every_run_is_counted_and_what_is_left_out_is_told() {
        let all = compared(None, &stub(|_, _| Ok(1.0))).unwrap();
        assert_eq!((all.runs, &all.batches[..], all.notes.len()), (3 + 2 + 2 + 2, &[1, 2, 5][..], 0));
        let few: Factor = |is_candidate, dims| {
            ensure!(is_candidate || dims[0] < 5, "too many");
            Ok(1.0)
        };
        let few = compared(None, &stub(few)).unwrap();
        assert_eq!((few.failure.is_none(), &few.batches[..]), (true, &[1, 2][..]));
        assert!(few.notes[0].contains("left out: the reference does not run on [[5, 8, 14, 14]]"));
        for candidate in [false, true] {
            let by_node = compared(None, &Stub { factor: |_, _| Ok(1.0), by_node: Some(candidate) }).unwrap();
            assert!(by_node.notes[0].contains("they ran node by node"), "{candidate}");
        }
    }

    #[test]
    fn a_candidate_that_does_not_run_ends_the_proof() {
        let never: Factor = |is_candidate, _| {
            ensure!(!is_candidate, "unknown operator");
            Ok(1.0)
        };
        let never = compared(None, &stub(never)).unwrap();
        assert!(never.not_run && never.failure.unwrap().contains("does not load on [[1, 8, 14, 14]]"));
        let later: Factor = |is_candidate, dims| {
            ensure!(!is_candidate || dims[0] != 2, "two are too many");
            Ok(1.0)
        };
        let later = compared(None, &stub(later)).unwrap();
        assert_eq!((later.not_run, &later.batches[..]), (false, &[1][..]), "some were compared");
        assert!(later.failure.unwrap().contains("does not load on [[2, 8, 14, 14]]"));
    }

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
        assert!(failure(&[(&[nan], &[nan])]).contains("the runs prove nothing"));
        assert_eq!(failure(&[(&[nan, 1.0], &[nan, 1.0])]), "");
        let is_told = |runs: &[(&[f64], &[f64])]| {
            concluded(runs).notes.iter().any(|note| note.contains("same on every input"))
        };
        assert!(is_told(&[(&[1.0], &[1.0]), (&[1.0], &[1.0])]));
        assert!(!is_told(&[(&[1.0], &[1.0]), (&[2.0], &[2.0])]));
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
