//! Two models, run on the same inputs and compared.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use isqrt_cov_proto::onnx::ModelProto;

use super::cases::{Case, Work, cases, inputs_of};
use super::shapes::larger;
use super::{Agreement, Common, Difference, Plan, Proof, SampleProof, Shapes, tolerance};
use crate::held::Asked;
use crate::progress::Progress;
use crate::runtime::{Runtime, Session, advice};
use crate::signature::Signature;
use crate::tensor::Tensor;

/// Two models to be compared in a runtime. Tensors are all inline.
pub struct Pair<'a> {
    pub(super) reference: &'a Arc<ModelProto>,
    pub(super) candidate: &'a Arc<ModelProto>,
    pub(super) runtime: &'a dyn Runtime,
    /// Names of the reference's outputs.
    outputs: Vec<String>,
    agreement: Agreement,
}

/// Runs on images as they are before they are normalized.
const IMAGES: usize = 2;

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
        let mut agreement = Agreement::of(&signatures[0], &signatures[1], plan.shapes.as_deref())?;
        if let (Agreement::On(common), Some(samples)) = (&mut agreement, &plan.samples) {
            common.shapes.draw_from(&samples.inputs);
        }
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
        let proof = Proof { notes: common.alignment.notes.clone(), ..proof };
        // Data with a row of outputs for several samples say how many belong together.
        let together = plan.samples.as_ref().map_or(1, |samples| samples.per_row);
        let graph = self.reference.graph.as_ref();
        if together > 1 && common.shapes.open_batch() {
            ensure!(
                graph.is_some_and(|graph| Asked::of(graph).folded.contains(&together)),
                "`expected` and `labels` have a row for every {together} samples, and nothing in the model puts so many together; \
                 give a row for each sample"
            );
        }
        let shapes = &common.shapes.with_folded(together);
        shapes.check_greatest()?;
        let sized = |shapes| Common { shapes, ..common.clone() };
        let done = self.run(&sized(shapes.clone()), plan, proof.clone(), progress);
        let batches = match &done {
            // What no number shows may show at others.
            Ok(done) if done.failure.is_none() || done.is_blank() => done.batches.len(),
            Err(error) if error.is::<NotRun>() => 0,
            _ => return done,
        };
        let Some(graph) = graph.filter(|_| batches < shapes.batches().len()) else { return done };
        // Some take the frames of clips as samples, and others declare an open batch but hold its size inside.
        let asked = Asked::of(graph);
        let folded = asked.folded.into_iter().map(|samples| (shapes.with_folded(samples), None));
        let held = asked.held.into_iter().filter(|_| batches == 0).map(|batch| {
            let note = format!(
                "the model declares any number of samples, but of those tried runs with {batch} only, which it holds inside"
            );
            (shapes.with_batch(batch), Some(note))
        });
        for (shapes, note) in folded.chain(held) {
            if shapes.check_greatest().is_err() {
                continue;
            }
            let all = shapes.batches().len();
            let notes = proof.notes.iter().cloned().chain(note).collect();
            let other = self.run(&sized(shapes), plan, Proof { notes, ..proof.clone() }, progress);
            if let Ok(other) = other
                && !other.is_blank()
                && (other.batches.len() == all || other.failure.is_some())
            {
                return Ok(other);
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
        let folded = shapes.folded();
        if folded > 1 {
            proof.notes.push(format!(
                "the numbers of samples tried are multiples of {folded}, which the model puts together: nothing is proven of others"
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
        self.run_images(common, plan, &mut proof, progress)?;
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

    /// Runs both on what images are before they are normalized, where outputs hardly vary on what they are after: a model that
    /// divides by 255 first sees nothing in the latter.
    fn run_images(&self, common: &Common, plan: &Plan, proof: &mut Proof, progress: &Progress) -> Result<()> {
        let case = proof.cases.first().filter(|_| plan.samples.is_none() && proof.hardly_varies());
        let Some(case) = case.filter(|_| proof.failure.is_none()) else { return Ok(()) };
        let case = Case { work: (1..=IMAGES).map(Work::Images).collect(), ..case.clone() };
        let Some(first) = common.shapes.random_images(&case.shapes, 1) else { return Ok(()) };
        let original = self.runtime.prepare(self.reference, &case.shapes)?;
        // Where it gives no numbers, it is not meant for them.
        if !original.run(&first).is_ok_and(|outputs| outputs.iter().all(Tensor::is_finite)) {
            return Ok(());
        }
        self.run_case(&case, &*original, common, plan, proof, progress)?;
        proof.cases.push(case);
        Ok(())
    }

    /// Sizes for the open axes other than the batch, the first and the others: some on which the reference gives numbers, and
    /// some more, which differ if the reference takes that.
    pub(super) fn extents(&self, shapes: &Shapes) -> Result<Vec<(usize, usize)>> {
        if !shapes.open_extent() {
            return Ok(vec![(1, 1)]);
        }
        let batches = shapes.batches();
        let batch = batches[0];
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
            Ok(shows(batch, extent)?
                || batches.get(1).is_some_and(|&more| shows(more, extent).unwrap_or(false)))
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
                samples.add((*start, *valid, case.batch), &before[0], after[0])?;
            }
            progress.step();
        }
        if !proof.batches.contains(&case.batch) {
            proof.batches.push(case.batch);
        }
        Ok(())
    }
}
