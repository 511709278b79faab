//! Two models, run on the same inputs and compared.

use std::sync::Arc;

use anyhow::{Context, Result};
use isqrt_cov_proto::onnx::ModelProto;

use super::cases::{BATCHES, Case, Work, cases, inputs_of};
use super::shapes::larger;
use super::{Agreement, Common, Difference, Plan, Proof, SampleProof, Shapes, tolerance};
use crate::held::held_batches;
use crate::progress::Progress;
use crate::runtime::{Runtime, Session, advice};
use crate::signature::Signature;

/// Two models to be compared in a runtime. Tensors are all inline.
pub struct Pair<'a> {
    pub(super) reference: &'a Arc<ModelProto>,
    pub(super) candidate: &'a Arc<ModelProto>,
    pub(super) runtime: &'a dyn Runtime,
    /// Names of the reference's outputs.
    outputs: Vec<String>,
    agreement: Agreement,
}

/// That the reference does not run, or gives no numbers.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NotRun(String);

impl<'a> Pair<'a> {
    /// The two models; the user's data in `plan` say which sizes they take.
    ///
    /// # Errors
    /// A model whose inputs cannot be made up.
    pub fn of(
        reference: &'a Arc<ModelProto>,
        candidate: &'a Arc<ModelProto>,
        runtime: &'a dyn Runtime,
        plan: &Plan,
    ) -> Result<Self> {
        // Whose sizes data do not settle, weights do.
        let settled = |model: &ModelProto, signature: Signature| match plan.shapes {
            Some(_) => signature,
            None => signature.settled(model),
        };
        let signatures =
            [settled(reference, Signature::of(reference)?), settled(candidate, Signature::of(candidate)?)];
        let agreement = Agreement::of(&signatures[0], &signatures[1], plan.shapes.as_deref())?;
        let [Signature { outputs, .. }, _] = signatures;
        let outputs = outputs.into_iter().map(|port| port.name).collect();
        Ok(Self { reference, candidate, runtime, outputs, agreement })
    }

    /// What the models have in common.
    ///
    /// # Errors
    /// Nothing: why they are not run.
    pub(super) fn common(&self) -> Result<&Common> {
        self.agreement.common()
    }

    /// Runs both models and compares every output.
    ///
    /// # Errors
    /// A reference that does not run at all.
    pub fn compare(&self, plan: &Plan, progress: &Progress) -> Result<Proof> {
        let outputs = self.outputs.iter().map(|name| (name.clone(), Difference::new())).collect();
        let tolerance = plan.tolerance.unwrap_or_else(|| tolerance([self.reference, self.candidate]));
        let begun = Proof::begun(self.runtime.name(), tolerance, plan.seeds, outputs);
        let proof = Proof { samples: plan.samples.as_ref().map(SampleProof::new), ..begun };
        let common = match &self.agreement {
            Agreement::On(common) => common,
            Agreement::NotRun(reason) => return Ok(Proof { failure: Some(reason.clone()), ..proof }),
        };
        let takes_data = !common.alignment.inputs.is_empty();
        let proof = Proof { notes: common.alignment.notes.clone(), takes_data, ..proof };
        let done = self.run(common, plan, proof.clone(), progress);
        if !common.shapes.open_batch() || !done.as_ref().is_err_and(anyhow::Error::is::<NotRun>) {
            return done;
        }
        // Some exports declare an open batch but hold its size inside.
        for batch in self.reference.graph.as_ref().map_or_else(Vec::new, held_batches) {
            let common = Common { shapes: common.shapes.with_batch(batch), ..common.clone() };
            let mut proof = proof.clone();
            proof.notes.push(format!(
                "the model declares any number of samples, but runs with {batch} only, which it holds inside"
            ));
            if common.shapes.check_greatest().is_ok()
                && let Ok(proof) = self.run(&common, plan, proof, progress)
            {
                return Ok(proof);
            }
        }
        done
    }

    /// Runs all there is to run on the inputs that they have in `common`.
    fn run(&self, common: &Common, plan: &Plan, mut proof: Proof, progress: &Progress) -> Result<Proof> {
        let shapes = &common.shapes;
        let extents = self.extents(shapes)?;
        if let [(first, others)] = extents[..]
            && shapes.open_extent()
        {
            proof.notes.push(format!(
                "the model leaves sizes open, and of those tried runs at {:?} only: nothing is proven of others",
                shapes.sized(1, (first, others))
            ));
        }
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
            self.run_case(&case, &*original, common, plan, &mut proof, progress)?;
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
    pub(super) fn extents(&self, shapes: &Shapes) -> Result<Vec<(usize, usize)>> {
        if !shapes.open_extent() {
            return Ok(vec![(1, 1)]);
        }
        let batch = if shapes.open_batch() { BATCHES[0] } else { shapes.fixed_batch() };
        let only_zeros = std::cell::Cell::new(true);
        let shows = |batch: usize, extent: (usize, usize)| -> Result<bool> {
            let sized = shapes.sized(batch, extent);
            let outputs = self.runtime.prepare(self.reference, &sized)?.run(&shapes.random(&sized, 1))?;
            let any = |is: fn(&f64) -> bool| outputs.iter().any(|output| output.to_f64().iter().any(is));
            only_zeros.set(only_zeros.get() && !any(|value| *value != 0.0));
            Ok(any(|value| value.is_finite() && *value != 0.0))
        };
        // What a model calls its samples may be positions, of which a single one has no covariance.
        let attempt = |extent: (usize, usize)| -> Result<bool> {
            Ok(shows(batch, extent)? || shapes.open_batch() && shows(BATCHES[1], extent).unwrap_or(false))
        };
        let mut last = None;
        let mut tried = Vec::new();
        let usual = shapes.extents().iter().map(|&extent| (extent, true));
        for (extent, is_usual) in usual.chain(shapes.last_extents().map(|extent| (extent, false))) {
            // A model that runs and gives zeros gives no more than those of larger inputs.
            if !is_usual && last.is_none() && only_zeros.get() {
                break;
            }
            tried.push(extent);
            let square = (extent, extent);
            match attempt(square) {
                Ok(true) => {
                    // Windows and patches may ask for a multiple of what ran.
                    let [more, twice] = [larger(extent), 2 * extent];
                    let others = [(extent, more), (more, more), (extent, twice), (twice, twice)].into_iter();
                    let fits = |other: &(usize, usize)| shapes.check(&shapes.sized(batch, *other)).is_ok();
                    let other = others.filter(fits).filter(|&other| attempt(other).unwrap_or(false)).take(1);
                    return Ok(std::iter::once(square).chain(other).collect());
                }
                Err(error) if is_usual => last = Some(error),
                Ok(false) | Err(_) => {}
            }
        }
        let tried: Vec<_> = tried.iter().map(usize::to_string).collect();
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
    fn run_case(
        &self,
        case: &Case,
        original: &dyn Session,
        common: &Common,
        plan: &Plan,
        proof: &mut Proof,
        progress: &Progress,
    ) -> Result<()> {
        let converted = match self.runtime.prepare(self.candidate, &common.fed(&case.shapes)) {
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
            let (inputs, name) = inputs_of(work, case, &common.shapes, plan);
            let before = original.run(&inputs).with_context(|| format!("the reference fails on {name}"))?;
            let after = match converted.run(&common.fed(&inputs)) {
                Ok(after) => after,
                Err(error) => {
                    let advice = advice(self.runtime, &error);
                    proof.failure = Some(format!("the candidate fails on {name}{advice}: {error:#}"));
                    proof.not_run = proof.runs == 0;
                    return Ok(());
                }
            };
            let after: Vec<_> = common.alignment.outputs.iter().map(|&index| &after[index]).collect();
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

#[cfg(test)]
mod tests {
    use anyhow::ensure;
    use isqrt_cov_proto::onnx::tensor_proto::DataType;
    use isqrt_cov_proto::onnx::{GraphProto, ValueInfoProto};

    use super::*;
    use crate::tensor::{ElementType, Tensor};

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
            let sum: f64 = inputs[0].to_f64().iter().sum();
            Ok(vec![Tensor::from_f64(ElementType::F32, &[1], &[self.factor * sum])])
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
        Pair::of(&reference, &candidate, stub, &plan)?.compare(&plan, &Progress::hidden())
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
        // Windows and patches take multiples.
        let multiples: Factor = |_, dims| {
            ensure!(dims[2] % 14 == 0 && dims[3] % 14 == 0, "no whole number of windows");
            Ok(1.0)
        };
        assert_eq!(sizes(None, multiples)[3], [1, 14, 28]);
        let multiples: Factor = |_, dims| {
            ensure!(dims[2] % 14 == 0 && dims[2] == dims[3], "no whole number of windows");
            Ok(1.0)
        };
        assert_eq!(sizes(None, multiples)[3], [1, 28, 28]);
        // Positions that are called samples: one of them shows nothing, two do.
        let positions: Factor = |_, dims| Ok(if dims[0] == 1 { 0.0 } else { 1.0 });
        assert_eq!(sizes(None, positions)[0], [1, 14, 14]);
        // Neither zeros nor what is no number shows anything.
        let later: Factor = |_, dims| Ok(if dims[2] < 14 { 1.0 } else { 0.0 });
        assert_eq!(sizes(None, later)[0], [1, 7, 7]);
        let later: Factor = |_, dims| Ok(if dims[2] < 14 { 1.0 } else { f64::NAN });
        assert_eq!(sizes(None, later)[0], [1, 7, 7]);
        // What is larger than usual is tried last.
        let large: Factor = |_, dims| {
            ensure!(dims[2] > 299, "the kernel reaches beyond the input");
            Ok(1.0)
        };
        assert_eq!(sizes(None, large)[3], [1, 512, 768]);
        let held: Factor = |_, dims| {
            ensure!(dims[0] == 4, "another number of samples");
            Ok(1.0)
        };
        assert_eq!(sizes(Some(4), held), [[4, 14, 14], [4, 14, 21]]);
        let refused = |factor| compared(None, &stub(factor)).unwrap_err().to_string();
        assert!(
            refused(|_, _| Ok(0.0)).contains("gives 0 throughout for each of 14, 7, 32, 64, 1: no proof")
        );
        assert!(
            refused(|_, _| Ok(f64::NAN))
                .contains("gives no numbers for any of 14, 7, 32, 64, 1, 128, 512 in")
        );
        assert!(refused(|_, _| anyhow::bail!("broken")).contains("gives no numbers for any of"));
        let alone: Factor = |_, dims| {
            ensure!(dims[0] == 1, "one sample only");
            Ok(0.0)
        };
        assert!(refused(alone).contains("gives 0 throughout for each of 14, 7, 32, 64, 1: no proof"));
    }

    #[test]
    fn what_differs_at_twice_the_size_is_not_proven() {
        let windows: Factor = |is_candidate, dims| {
            ensure!(dims[2] % 14 == 0 && dims[3] % 14 == 0, "no whole number of windows");
            Ok(if is_candidate && dims[3] > 14 { 2.0 } else { 1.0 })
        };
        let proof = compared(None, &stub(windows)).unwrap();
        assert!(proof.failure.unwrap().contains("output `y`"));
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
}
