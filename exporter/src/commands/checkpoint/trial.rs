//! Settings tried on the user's data: what the network gives with them, against what is known of its outputs.

use std::sync::Arc;

use anyhow::{Result, bail, ensure};
use isqrt_cov_models::{Built, Candidate, Choice, Options, Settings, Source, Storage, Weights};
use isqrt_cov_op::Vectorization;
use isqrt_cov_proto::onnx::ModelProto;

use crate::data::Samples;
use crate::expand;
use crate::progress::Progress;
use crate::proof::SampleProof;
use crate::runtime::Runtime;

/// Samples run at once.
const CHUNK: usize = 16;
/// The most steps that are tried.
const MOST_STEPS: u32 = 10;
/// The number of steps, of which other values are tried on the nearest combinations alone.
const ITERATIONS: &str = "iterations";
/// The order in which the classifier reads the triangle.
pub(super) const TRIANGLE: &str = "triangle";

/// A combination of settings, and what the user's data say of it.
#[derive(Debug, Clone)]
pub struct Trial {
    /// The settings.
    pub(super) settings: Settings,
    /// max|Δ| / max|expected|, where outputs are known.
    pub distance: Option<f64>,
    /// How many of the labels it gives, where those are known.
    pub correct: Option<usize>,
    /// How many samples were tried.
    pub samples: usize,
}

impl Trial {
    /// The settings that were tried, for people.
    pub fn name(&self) -> String {
        let tried = self.settings.names().filter_map(|name| Some((name, self.settings.get(name)?)));
        let tried = tried.filter(|(_, (_, source))| **source == Source::Data);
        let tried: Vec<String> = tried.map(|(name, (value, _))| format!("{name} {value}")).collect();
        if tried.is_empty() { "as told".to_owned() } else { tried.join(", ") }
    }

    /// What the data say of it, for people.
    pub fn said(&self) -> String {
        let said = [
            self.distance.map(|distance| format!("{distance:.1e} from the outputs expected")),
            self.correct.map(|correct| format!("{correct} of {} labels right", self.samples)),
        ];
        said.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    pub(super) fn distance(&self) -> f64 {
        self.distance.unwrap_or(f64::INFINITY)
    }

    pub(super) fn has(&self, name: &str, value: &str) -> bool {
        self.settings.get(name).is_some_and(|(own, _)| own == value)
    }
}

/// The trial whose outputs come nearest to those expected; of labels alone, the one that gives most of them.
pub(super) fn nearest<'t>(trials: impl IntoIterator<Item = &'t Trial>) -> Option<&'t Trial> {
    let rank = |one: &&Trial, other: &&Trial| {
        one.distance().total_cmp(&other.distance()).then(other.correct.cmp(&one.correct))
    };
    trials.into_iter().min_by(rank)
}

/// What can be tried: settings that nobody gave, of several values.
pub(super) fn open(built: &Built) -> Vec<&Choice> {
    let is_open = |choice: &&Choice| matches!(choice.source, Source::Assumed(_)) && choice.values.len() != 1;
    built.choices.iter().filter(is_open).collect()
}

/// What settings are tried on.
pub(super) struct Trying<'a> {
    pub(super) candidate: &'a Candidate,
    pub(super) weights: &'a Weights,
    pub(super) samples: &'a Samples,
    pub(super) runtime: &'a dyn Runtime,
}

impl Trying<'_> {
    /// Every combination of what is open in `settings` that the weights fit, with the usual number of steps. Where outputs
    /// are known, other numbers as well, with what comes nearest in each order of the triangle; in the one of the nearest
    /// alone where that is within `tolerance`.
    pub(super) fn all(&self, settings: &Settings, tolerance: f64) -> Result<Vec<Trial>> {
        let open = open(&self.candidate.built);
        let mut combinations = vec![settings.clone()];
        for choice in &open {
            let usual = [choice.value.as_str()];
            let values = if choice.values.is_empty() { &usual } else { choice.values };
            let each =
                |settings: &Settings| values.iter().map(|value| with(settings, choice.name, value)).collect();
            combinations = combinations.iter().flat_map(|settings| -> Vec<_> { each(settings) }).collect();
        }
        let fits =
            |settings: &Settings| self.candidate.rebuilt(self.weights, settings, false).problems.is_empty();
        combinations.retain(fits);
        let mut trials = self.each(combinations)?;
        let steps = open.iter().find(|choice| choice.name == ITERATIONS);
        if let Some(usual) = steps.filter(|_| self.samples.expected.is_some()) {
            let is_near = nearest(&trials).is_some_and(|best| best.distance() <= tolerance);
            let in_order = |order: Vectorization| {
                nearest(trials.iter().filter(move |trial| trial.has(TRIANGLE, order.word())))
            };
            let mut from: Vec<&Trial> = Vectorization::TRIANGLES.into_iter().filter_map(in_order).collect();
            if is_near {
                from = nearest(from).into_iter().collect();
            }
            let others =
                || (1..=MOST_STEPS).map(|steps| steps.to_string()).filter(|steps| *steps != usual.value);
            let with_others = |trial: &&Trial| -> Vec<Settings> {
                others().map(|steps| with(&trial.settings, ITERATIONS, &steps)).collect()
            };
            trials.extend(self.each(from.iter().flat_map(with_others).collect())?);
        }
        Ok(trials)
    }

    fn each(&self, combinations: Vec<Settings>) -> Result<Vec<Trial>> {
        let progress = Progress::on_terminal();
        progress.begin("trying settings on the data", combinations.len());
        let trials = combinations.into_iter().map(|settings| {
            let trial = self.one(settings);
            progress.step();
            trial
        });
        let trials = trials.collect();
        progress.end();
        trials
    }

    fn one(&self, settings: Settings) -> Result<Trial> {
        let options = Options { opset: 17, fold: false, storage: Storage::Float32 };
        let model = Arc::new(plain(self.candidate, self.weights, &settings, options)?);
        let mut said = SampleProof::new(self.samples);
        let mut ready = None;
        for start in (0..self.samples.count).step_by(CHUNK) {
            let size = CHUNK.min(self.samples.count - start);
            let inputs = self.samples.cut(start, size);
            let session = match ready.take() {
                Some((of, session)) if of == size => session,
                _ => {
                    let shapes: Vec<_> = inputs.iter().map(|input| input.dims().to_vec()).collect();
                    self.runtime.prepare(&model, &shapes)?
                }
            };
            let outputs = session.run(&inputs)?;
            said.add((start, size, size), &outputs[0], &outputs[0])?;
            ready = Some((size, session));
        }
        let (distance, correct) = (said.distance.map(|both| both[0]), said.correct.map(|both| both[0]));
        Ok(Trial { settings, distance, correct, samples: self.samples.count })
    }

    /// The number of classes, which all labels are of.
    pub(super) fn classes(&self) -> Result<usize> {
        let Some(classes) = self.candidate.built.classes else { bail!("the classifier has no classes") };
        let mut labels = self.samples.labels.iter().flatten();
        let strange = labels.find(|label| !usize::try_from(**label).is_ok_and(|label| label < classes));
        if let Some(label) = strange {
            bail!("`labels` holds {label}; the network tells classes 0 to {} apart", classes - 1);
        }
        Ok(classes)
    }
}

/// `settings` with one more, to be tried.
pub(super) fn with(settings: &Settings, name: &str, value: &str) -> Settings {
    let mut settings = settings.clone();
    settings.set(name, value, Source::Data);
    settings
}

/// The network in standard operators alone.
///
/// # Errors
/// Weights that cannot be read or do not fit the settings.
pub fn plain(
    candidate: &Candidate,
    weights: &Weights,
    settings: &Settings,
    options: Options,
) -> Result<ModelProto> {
    let built = candidate.rebuilt(weights, settings, options.fold);
    ensure!(built.problems.is_empty(), "with these settings, {}", built.problems[0]);
    Ok(expand::inline(&built.model(weights, options)?)?)
}
