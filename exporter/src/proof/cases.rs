//! What a proof runs: shapes of the inputs, and on each seeds and the user's samples.

use super::{Plan, Shapes};
use crate::tensor::Tensor;

/// Batch sizes tried where the model leaves them open: alone, a pair, and an odd number larger than both.
pub(super) const BATCHES: [usize; 3] = [1, 2, 5];
/// Seeds at the sizes after the first. A large model takes seconds a sample, and what depends on a size shows at once.
const SEEDS_BEYOND: usize = 2;
/// Samples of the user's data that run at once, beyond the batch sizes above.
const CHUNK: usize = 32;
/// One shape of the inputs with what is run on it.
#[derive(Debug, Clone, Default)]
pub(super) struct Case {
    pub shapes: Vec<Vec<usize>>,
    pub batch: usize,
    pub work: Vec<Work>,
}

/// One run of both models.
#[derive(Debug, Clone)]
pub(super) enum Work {
    Seed(usize),
    /// Numbers as images have them before they are normalized.
    Images(usize),
    Rows {
        start: usize,
        valid: usize,
    },
}

impl Case {
    /// What is run of this where another shape ran before.
    pub fn beyond(&self) -> Self {
        let runs = |work: &&Work| !matches!(work, Work::Seed(seed) if *seed > SEEDS_BEYOND);
        Self { work: self.work.iter().filter(runs).cloned().collect(), ..self.clone() }
    }
}

/// The shapes to try, each with the seeds and the user's samples that run on it.
pub(super) fn cases(shapes: &Shapes, extents: &[(usize, usize)], plan: &Plan) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let batches = shapes.batches();
    let seeds = || (1..=plan.seeds).map(Work::Seed).collect();
    let mut seeded = |batch, extent| {
        cases.push(Case { shapes: shapes.sized(batch, extent), batch, work: seeds() });
    };
    batches.iter().for_each(|&batch| seeded(batch, extents[0]));
    extents[1..].iter().for_each(|&extent| seeded(batches[0], extent));
    let count = plan.samples.as_ref().map_or(0, |samples| samples.count);
    let mut sizes = batches.into_iter();
    let mut start = 0;
    while start < count {
        let wanted = sizes.next().unwrap_or(CHUNK).min(count - start);
        let batch = shapes.whole_batch(wanted);
        let valid = batch.min(count - start);
        let work = Work::Rows { start, valid };
        let sized = shapes.sized(batch, extents[0]);
        match cases.iter_mut().find(|case| case.shapes == sized) {
            Some(case) => case.work.push(work),
            None => cases.push(Case { shapes: sized, batch, work: vec![work] }),
        }
        start += valid;
    }
    cases
}

/// The inputs of one run, and its name for people.
pub(super) fn inputs_of(work: &Work, case: &Case, shapes: &Shapes, plan: &Plan) -> (Vec<Tensor>, String) {
    match (work, &plan.samples) {
        (Work::Rows { start, valid }, Some(samples)) => {
            let name = match valid {
                1 => format!("sample {start}"),
                _ => format!("samples {start} to {}", start + valid - 1),
            };
            (samples.cut(*start, case.batch), name)
        }
        (Work::Images(seed), _) => {
            let images = shapes.random_images(&case.shapes, *seed as u64).unwrap_or_default();
            (images, format!("seed {seed}, images from 0 to 255, inputs {:?}", case.shapes))
        }
        (Work::Seed(seed) | Work::Rows { start: seed, .. }, _) => {
            (shapes.random(&case.shapes, *seed as u64), format!("seed {seed}, inputs {:?}", case.shapes))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Samples;
    use crate::proof::Agreement;
    use crate::signature::{Dim, Port, Signature};
    use crate::tensor::ElementType;

    #[test]
    fn runs_on_samples_are_named_after_them() {
        let element = ElementType::F32;
        let dims = Some(vec![Dim::Unknown, Dim::Fixed(2)]);
        let inputs = vec![Port { name: "x".to_owned(), element: Some(element), dims, rows: None }];
        let signature = Signature { inputs, outputs: Vec::new() };
        let shapes = Agreement::of(&signature, &signature, None).unwrap().common().unwrap().shapes.clone();
        let named = |shapes: &Shapes, count: usize| -> Vec<String> {
            let samples = Samples {
                inputs: vec![Tensor::zeros(element, &[count, 2])],
                count,
                per_row: 1,
                expected: None,
                labels: None,
                unused: Vec::new(),
            };
            let plan = Plan { seeds: 0, tolerance: None, samples: Some(samples), shapes: None };
            cases(shapes, &[(1, 1)], &plan)
                .iter()
                .flat_map(|case| case.work.iter().map(|work| inputs_of(work, case, shapes, &plan).1))
                .collect()
        };
        assert_eq!(named(&shapes, 3), ["sample 0", "samples 1 to 2"]);
        // What is left is no whole batch.
        assert_eq!(named(&shapes, 4), ["sample 0", "sample 3", "samples 1 to 2"]);
        assert_eq!(named(&shapes.with_batch(2), 3), ["samples 0 to 1", "sample 2"]);
    }
}
