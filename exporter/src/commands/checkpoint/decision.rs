//! What weights do not tell: decided by the user's data where there are any, the triangle's order by the weights'
//! statistics where there are none.

use std::sync::Arc;

use anyhow::Result;
use isqrt_cov_models::triangle::Scores;
use isqrt_cov_models::{Candidate, Choice, Options, Settings, Source, Storage, TRIANGLES, Weights};
use isqrt_cov_proto::onnx::ModelProto;

use crate::cli::Refusal;
use crate::data::Samples;
use crate::expand;
use crate::progress::Progress;
use crate::proof::SampleProof;
use crate::runtime::Runtime;

/// Samples that every combination of settings is tried on.
const SAMPLES: usize = 256;
/// Samples run at once.
const CHUNK: usize = 16;
/// Of so many labels more than any other combination, in square roots of their number, must the best give.
const LEAD: f64 = 2.0;
/// The greatest share of max|expected| that counts as what the data expect.
pub const TOLERANCE: f64 = 1e-4;

/// The setting that is tried last, as it is rarely another than usual.
const ITERATIONS: &str = "iterations";
/// The most steps that are tried.
const MOST_STEPS: u32 = 10;

/// A combination of settings, and what the user's data say of it.
#[derive(Debug, Clone)]
pub struct Trial {
    /// The settings that were tried, for people.
    pub name: String,
    /// The settings.
    settings: Settings,
    /// max|Δ| / max|expected|, where outputs are known.
    pub distance: Option<f64>,
    /// How many of the labels it gives, where those are known.
    pub correct: Option<usize>,
}

/// What decided.
#[derive(Debug, Default)]
pub struct Decision {
    /// How well the classifier's weights fit either order of the triangle; nothing where nobody had to ask them.
    pub scores: Option<Scores>,
    /// What was tried on the user's data.
    pub trials: Vec<Trial>,
}

/// Settles what is open in `settings`. A refusal where it cannot be told.
///
/// # Errors
/// Weights that cannot be read; a network that does not run.
pub fn decide(
    candidate: &Candidate,
    weights: &Weights,
    settings: &mut Settings,
    samples: Option<&Samples>,
    tolerance: Option<f64>,
    runtime: &dyn Runtime,
) -> Result<(Decision, Option<Refusal>)> {
    let mut decision = Decision::default();
    if let Some(samples) = samples.filter(|samples| samples.expected.is_some() || samples.labels.is_some()) {
        let tolerance = tolerance.unwrap_or(TOLERANCE);
        let trying = Trying { candidate, weights, samples, runtime };
        decision.trials = trying.all(settings)?;
        if samples.expected.is_some() {
            if nearest(&decision.trials).is_some_and(|best| best.distance() > tolerance)
                && settings.get(ITERATIONS).is_none()
            {
                trying.other_steps(&mut decision.trials, tolerance)?;
            }
            let refusal = by_outputs(&decision.trials, settings, tolerance);
            return Ok((decision, refusal));
        }
        if by_labels(&decision.trials, settings, samples.count.min(SAMPLES)) {
            return Ok((decision, None));
        }
    }
    let layer = candidate.built.layers.iter().find(|layer| layer.classifier.is_some());
    let asked = settings.get("triangle").is_none();
    if let (Some(layer), true) = (layer, asked)
        && let (Some(classifier), Some(channels)) = (&layer.classifier, layer.channels)
    {
        let scores = Scores::of(weights, classifier, channels)?;
        let order = scores.order();
        let refusal = order.is_none().then(|| unsure(&scores, weights.original(classifier)));
        if let Some(order) = order {
            let name = TRIANGLES.iter().find(|(_, known)| *known == order).map_or("", |(name, _)| *name);
            settings.set("triangle", name, Source::Weights);
        }
        decision.scores = Some(scores);
        return Ok((decision, refusal));
    }
    Ok((decision, None))
}

fn unsure(scores: &Scores, classifier: &str) -> Refusal {
    Refusal {
        reason: "triangle-unsure",
        message: format!(
            "`{classifier}` does not tell in which order it reads the triangle: {scores}. Read in the wrong order, a good \
             model gives chance. Say --triangle upper (the authors' code since December 2018, imgclsmob) or --triangle \
             upper_column_major (before, and GSoP-Net); or give data that decide, with outputs or labels that you know: \
             --inputs FILE.npz"
        ),
    }
}

/// What settings are tried on.
struct Trying<'a> {
    candidate: &'a Candidate,
    weights: &'a Weights,
    samples: &'a Samples,
    runtime: &'a dyn Runtime,
}

impl Trying<'_> {
    /// Every combination of what is open in `settings`.
    fn all(&self, settings: &Settings) -> Result<Vec<Trial>> {
        let is_open =
            |choice: &&Choice| matches!(choice.source, Source::Assumed(_)) && choice.values.len() > 1;
        let mut combinations = vec![(String::new(), settings.clone())];
        for choice in self.candidate.built.choices.iter().filter(is_open) {
            combinations = combinations
                .iter()
                .flat_map(|(name, settings)| {
                    choice.values.iter().map(move |value| with(name, settings, choice.name, value))
                })
                .collect();
        }
        let progress = Progress::on_terminal();
        progress.begin("trying settings on the data", combinations.len());
        let trials = combinations.into_iter().map(|(name, settings)| {
            let trial = self.one(name, settings);
            progress.step();
            trial
        });
        let trials = trials.collect();
        progress.end();
        trials
    }

    /// The best of `trials` with other numbers of steps, until one gives what is expected.
    fn other_steps(&self, trials: &mut Vec<Trial>, tolerance: f64) -> Result<()> {
        let Some(best) = nearest(trials).cloned() else { return Ok(()) };
        let usual = self.candidate.built.choices.iter().find(|choice| choice.name == ITERATIONS);
        for steps in (1..=MOST_STEPS).map(|steps| steps.to_string()) {
            if usual.is_some_and(|usual| usual.value == steps) {
                continue;
            }
            let (name, settings) = with(&best.name, &best.settings, ITERATIONS, &steps);
            let trial = self.one(name, settings)?;
            let found = trial.distance() <= tolerance;
            trials.push(trial);
            if found {
                break;
            }
        }
        Ok(())
    }

    fn one(&self, name: String, settings: Settings) -> Result<Trial> {
        let options = Options { opset: 17, fold: false, storage: Storage::Float32 };
        let model = Arc::new(plain(self.candidate, self.weights, &settings, options)?);
        let mut said = SampleProof::new(self.samples);
        let count = self.samples.count.min(SAMPLES);
        for start in (0..count).step_by(CHUNK) {
            let size = CHUNK.min(count - start);
            let inputs = self.samples.cut(start, size);
            let shapes: Vec<Vec<usize>> = inputs.iter().map(|input| input.dims().to_vec()).collect();
            let outputs = self.runtime.prepare(&model, &shapes)?.run(&inputs)?;
            said.add(start, size, &outputs[0], &outputs[0])?;
        }
        let (distance, correct) = (said.distance.map(|both| both[0]), said.correct.map(|both| both[0]));
        let name = if name.is_empty() { "as told".to_owned() } else { name };
        Ok(Trial { name, settings, distance, correct })
    }
}

/// `settings`, for people called `name`, with one more.
fn with(name: &str, settings: &Settings, setting: &str, value: &str) -> (String, Settings) {
    let mut settings = settings.clone();
    settings.set(setting, value, Source::Data);
    let comma = if name.is_empty() { "" } else { ", " };
    (format!("{name}{comma}{setting} {value}"), settings)
}

impl Trial {
    fn distance(&self) -> f64 {
        self.distance.unwrap_or(f64::INFINITY)
    }
}

/// The trial whose outputs come nearest to those expected.
fn nearest(trials: &[Trial]) -> Option<&Trial> {
    trials.iter().min_by(|one, other| one.distance().total_cmp(&other.distance()))
}

/// The network in standard operators alone.
///
/// # Errors
/// Weights that cannot be read.
pub fn plain(
    candidate: &Candidate,
    weights: &Weights,
    settings: &Settings,
    options: Options,
) -> Result<ModelProto> {
    let model = candidate.rebuilt(weights, settings, options.fold).model(weights, options)?;
    Ok(expand::inline(&model)?)
}

/// Takes the settings that give what the data expect.
fn by_outputs(trials: &[Trial], settings: &mut Settings, tolerance: f64) -> Option<Refusal> {
    let best = nearest(trials)?;
    if best.distance() <= tolerance {
        settings.clone_from(&best.settings);
        return None;
    }
    let each = trials.iter().map(|trial| format!("{}: {:.1e}", trial.name, trial.distance()));
    Some(Refusal {
        reason: "expected-differs",
        message: format!(
            "the network does not give the outputs expected (at most {tolerance:.0e} of the greatest counts as equal), and \
             nothing was written. Distances: {}. Perhaps the images are prepared otherwise than in training",
            each.collect::<Vec<_>>().join("; ")
        ),
    })
}

/// Takes the settings that give clearly more of the labels than all others; says whether there are such.
fn by_labels(trials: &[Trial], settings: &mut Settings, count: usize) -> bool {
    let correct = |trial: &Trial| trial.correct.unwrap_or(0);
    let Some(best) = trials.iter().max_by_key(|trial| correct(trial)) else { return false };
    let others = trials.iter().filter(|trial| !std::ptr::eq(*trial, best));
    let next = others.map(correct).max();
    let leads = next.is_none_or(|next| (correct(best) - next) as f64 >= LEAD * (count as f64).sqrt());
    if leads {
        settings.clone_from(&best.settings);
    }
    leads
}
