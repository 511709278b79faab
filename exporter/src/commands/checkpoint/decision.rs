//! What weights do not tell: decided by the user's data where there are any, the triangle's order by the weights'
//! statistics where there are none.

use std::sync::Arc;

use anyhow::{Result, bail, ensure};
use isqrt_cov_models::triangle::Scores;
use isqrt_cov_models::{Built, Candidate, Choice, Options, Settings, Source, Storage, Weights};
use isqrt_cov_proto::onnx::ModelProto;

use crate::commands::answer::Refusal;
use crate::commands::expected::TOLERANCE;
use crate::data::Samples;
use crate::expand;
use crate::progress::Progress;
use crate::proof::SampleProof;
use crate::runtime::Runtime;

/// Samples with known outputs on which every combination of settings is tried: each tells all.
const WITH_OUTPUTS: usize = 4;
/// The same of samples with known labels.
const WITH_LABELS: usize = 64;
/// Samples run at once.
const CHUNK: usize = 16;
/// How many more of n labels the right value of a setting gives than any other, in √n.
const LEAD: f64 = 2.0;
/// How many times as far off as the right value of a setting any other is.
const CLEARLY: f64 = 10.0;
/// The setting that is tried last, as it is rarely another than usual.
const ITERATIONS: &str = "iterations";
/// The most steps that are tried.
const MOST_STEPS: u32 = 10;
/// The setting that the weights may tell.
const TRIANGLE: &str = "triangle";
/// Channels of which both orders of the triangle are the same.
const ORDERLESS: usize = 2;

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
    /// How many samples were tried.
    pub samples: usize,
}

/// What decided.
#[derive(Debug, Default)]
pub struct Decision {
    /// How well the classifier's weights fit either order of the triangle.
    pub scores: Option<Scores>,
    /// What the user says against the weights.
    pub warning: Option<String>,
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
    let mut told = settings.clone();
    let scores = by_weights(candidate, weights, &mut told)?;
    let warning = scores.as_ref().and_then(|scores| against(scores, settings));
    let mut decision = Decision { scores, warning, trials: Vec::new() };
    let known = samples.filter(|samples| samples.expected.is_some() || samples.labels.is_some());
    if let Some(samples) = known {
        let most = if samples.expected.is_some() { WITH_OUTPUTS } else { WITH_LABELS };
        let trying = Trying { candidate, weights, samples: &samples.spread(most), runtime };
        decision.trials = trying.all(settings)?;
        let open = open(&candidate.built);
        if samples.expected.is_some() {
            let tolerance = tolerance.unwrap_or(TOLERANCE);
            let is_near = |trials: &[Trial]| nearest(trials).is_some_and(|best| best.distance() <= tolerance);
            if !is_near(&decision.trials) && settings.get(ITERATIONS).is_none() {
                let order = told.get(TRIANGLE).filter(|(_, source)| **source == Source::Weights);
                trying.other_steps(&mut decision.trials, order.map(|(order, _)| order), tolerance)?;
            }
            if !is_near(&decision.trials) {
                settings.clone_from(&told);
                let refusal = not_as_expected(&decision.trials, tolerance, &candidate.built.choices);
                return Ok((decision, Some(refusal)));
            }
            by_outputs(&decision.trials, &open, &candidate.built.choices, tolerance, settings);
        } else {
            by_labels(&decision.trials, &open, trying.samples.count, trying.classes()?, settings);
        }
    }
    let refusal = match (settings.get(TRIANGLE), told.get(TRIANGLE)) {
        (Some((data, Source::Data)), Some((own, Source::Weights))) if data != own => {
            Some(contradiction(data, own, decision.scores.as_ref()))
        }
        (None, Some((order, source))) => {
            let (order, source) = (order.to_owned(), source.clone());
            settings.set(TRIANGLE, &order, source.clone());
            (source == Source::Open).then(|| unsure(candidate, weights, decision.scores.as_ref()))
        }
        _ => None,
    };
    Ok((decision, refusal))
}

/// Lets the classifier's weights say the order of the triangle, where `settings` do not.
///
/// # Errors
/// Weights that cannot be read.
pub fn by_weights(
    candidate: &Candidate,
    weights: &Weights,
    settings: &mut Settings,
) -> Result<Option<Scores>> {
    let layers = candidate.built.layers.iter();
    let mut asked =
        layers.filter_map(|layer| Some((layer.classifier.as_ref()?, layer.channels?, layer.layer)));
    let Some((classifier, channels, layer)) = asked.next() else { return Ok(None) };
    if channels <= ORDERLESS {
        return Ok(None);
    }
    let scores = Scores::of(weights, classifier, channels)?;
    if settings.get(TRIANGLE).is_some() {
        return Ok(Some(scores));
    }
    match scores.order() {
        Some(order) => settings.set(TRIANGLE, order.word(), Source::Weights),
        None => settings.set(TRIANGLE, layer.vectorization.word(), Source::Open),
    }
    Ok(Some(scores))
}

/// What is told of the triangle against what the weights say.
fn against(scores: &Scores, settings: &Settings) -> Option<String> {
    let (told, _) = settings.get(TRIANGLE)?;
    let own = scores.order()?.word();
    (own != told).then(|| {
        format!("the triangle is read as told, {told}; the classifier's weights say {own}: read in the wrong order, a good model gives chance")
    })
}

/// What can be tried: settings that nobody gave, of several values.
fn open(built: &Built) -> Vec<&Choice> {
    let is_open = |choice: &&Choice| matches!(choice.source, Source::Assumed(_)) && choice.values.len() > 1;
    built.choices.iter().filter(is_open).collect()
}

/// What settings are tried on.
struct Trying<'a> {
    candidate: &'a Candidate,
    weights: &'a Weights,
    samples: &'a Samples,
    runtime: &'a dyn Runtime,
}

impl Trying<'_> {
    /// Every combination of what is open in `settings` that the weights fit.
    fn all(&self, settings: &Settings) -> Result<Vec<Trial>> {
        let mut combinations = vec![(String::new(), settings.clone())];
        for choice in open(&self.candidate.built) {
            combinations = combinations
                .iter()
                .flat_map(|(name, settings)| {
                    choice.values.iter().map(move |value| with(name, settings, choice.name, value))
                })
                .collect();
        }
        let fits =
            |settings: &Settings| self.candidate.rebuilt(self.weights, settings, false).problems.is_empty();
        combinations.retain(|(_, settings)| fits(settings));
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

    /// The best of `trials`, in the `order` of the triangle that the weights tell, with other numbers of steps, until one
    /// gives what is expected.
    fn other_steps(&self, trials: &mut Vec<Trial>, order: Option<&str>, tolerance: f64) -> Result<()> {
        let in_order = |trial: &&Trial| order.is_none_or(|order| trial.has(TRIANGLE, order));
        let in_order: Vec<Trial> = trials.iter().filter(in_order).cloned().collect();
        let Some(best) = nearest(&in_order).cloned() else { return Ok(()) };
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
            said.add(start, size, &outputs[0], &outputs[0])?;
            ready = Some((size, session));
        }
        let (distance, correct) = (said.distance.map(|both| both[0]), said.correct.map(|both| both[0]));
        let name = if name.is_empty() { "as told".to_owned() } else { name };
        Ok(Trial { name, settings, distance, correct, samples: self.samples.count })
    }

    /// The number of classes, which all labels are of.
    fn classes(&self) -> Result<usize> {
        let Some(classes) = self.candidate.built.classes else { bail!("the classifier has no classes") };
        let mut labels = self.samples.labels.iter().flatten();
        let strange = labels.find(|label| !usize::try_from(**label).is_ok_and(|label| label < classes));
        if let Some(label) = strange {
            bail!("`labels` holds {label}; the network tells classes 0 to {} apart", classes - 1);
        }
        Ok(classes)
    }
}

/// `settings`, for people called `name`, with one more.
fn with(name: &str, settings: &Settings, setting: &str, value: &str) -> (String, Settings) {
    let mut settings = settings.clone();
    settings.set(setting, value, Source::Data);
    let comma = if name.is_empty() { "" } else { ", " };
    (format!("{name}{comma}{setting} {value}"), settings)
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

impl Trial {
    fn distance(&self) -> f64 {
        self.distance.unwrap_or(f64::INFINITY)
    }

    fn has(&self, name: &str, value: &str) -> bool {
        self.settings.get(name).is_some_and(|(own, _)| own == value)
    }
}

/// The trial whose outputs come nearest to those expected.
fn nearest(trials: &[Trial]) -> Option<&Trial> {
    trials.iter().min_by(|one, other| one.distance().total_cmp(&other.distance()))
}

/// Takes, of each setting, the value that alone gives what the data expect. Where others do as well, they decide nothing.
fn by_outputs(trials: &[Trial], open: &[&Choice], usual: &[Choice], tolerance: f64, settings: &mut Settings) {
    let Some(best) = nearest(trials) else { return };
    let clearly = tolerance.max(CLEARLY * best.distance());
    for choice in open {
        let Some((value, _)) = best.settings.get(choice.name) else { continue };
        let mut others = trials.iter().filter(|trial| !trial.has(choice.name, value));
        if others.all(|other| other.distance() > clearly) {
            settings.set(choice.name, value, Source::Data);
        }
    }
    // Another number of steps would give other outputs.
    let usual = usual.iter().find(|choice| choice.name == ITERATIONS).map(|choice| choice.value.as_str());
    let steps = best.settings.get(ITERATIONS).map(|(steps, _)| steps).or(usual);
    if let Some(steps) = steps.filter(|_| settings.get(ITERATIONS).is_none()) {
        settings.set(ITERATIONS, steps, Source::Data);
    }
}

/// Takes, of each setting, the value that gives clearly more of the labels than any other.
fn by_labels(trials: &[Trial], open: &[&Choice], count: usize, classes: usize, settings: &mut Settings) {
    let correct = |trial: &Trial| trial.correct.unwrap_or(0);
    let Some(best) = trials.iter().max_by_key(|trial| correct(trial)) else { return };
    let chance = 1.0 / classes as f64;
    let enough = (3.0 * chance).min(f64::midpoint(1.0, chance));
    if (correct(best) as f64) < enough * count as f64 {
        return;
    }
    for choice in open {
        let Some((value, _)) = best.settings.get(choice.name) else { continue };
        let others = trials.iter().filter(|trial| !trial.has(choice.name, value));
        let next = others.map(correct).max().unwrap_or(0);
        if (correct(best) - next) as f64 >= LEAD * (count as f64).sqrt() {
            settings.set(choice.name, value, Source::Data);
        }
    }
}

fn not_as_expected(trials: &[Trial], tolerance: f64, choices: &[Choice]) -> Refusal {
    let best = nearest(trials);
    let told = choices.iter().filter(|choice| choice.source == Source::User);
    let told: Vec<String> = told.map(|choice| format!("{} {}", choice.name, choice.value)).collect();
    let told = if told.is_empty() {
        String::new()
    } else {
        format!(" Taken as told were: {}; leave that out to have others tried.", told.join(", "))
    };
    Refusal {
        reason: "expected-differs",
        message: format!(
            "no setting gives the outputs expected (at most {tolerance:.0e} of the greatest counts as equal), and nothing was \
             written. {} of {} tried comes nearest: {}.{told} Perhaps `expected` is of another checkpoint, or not logits but \
             probabilities, or rounded otherwise than float32 (--tolerance allows for that), or the images are prepared otherwise \
             than in training",
            best.map_or_else(String::new, |best| format!("{:.1e} away", best.distance())),
            trials.len(),
            best.map_or("nothing", |best| &best.name)
        ),
    }
}

fn unsure(candidate: &Candidate, weights: &Weights, scores: Option<&Scores>) -> Refusal {
    let classifier = candidate.built.layers.iter().find_map(|layer| layer.classifier.as_deref());
    Refusal {
        reason: "triangle-unsure",
        message: format!(
            "nothing tells in which order `{}` reads the triangle: {}. Read in the wrong order, a good \
             model gives chance. Say --triangle upper (the authors' code since December 2018, imgclsmob) or --triangle \
             upper_column_major (before, and GSoP-Net); or give data that decide, with outputs or labels that you know: \
             --inputs FILE.npz",
            weights.original(classifier.unwrap_or_default()),
            scores.map(Scores::to_string).unwrap_or_default()
        ),
    }
}

fn contradiction(data: &str, own: &str, scores: Option<&Scores>) -> Refusal {
    Refusal {
        reason: "triangle-contradicted",
        message: format!(
            "the data say that the triangle is {data}, the classifier's weights that it is {own}: {}. Look at how images and \
             labels are prepared, or say --triangle",
            scores.map(Scores::to_string).unwrap_or_default()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDERS: [&str; 2] = ["upper", "upper_column_major"];

    fn choice(name: &'static str, value: &str, values: &'static [&'static str]) -> Choice {
        let source = Source::Assumed(String::new());
        Choice { name, meaning: "", value: value.to_owned(), values, source }
    }

    /// One trial of each order of the triangle.
    fn trials(distances: [f64; 2], correct: [usize; 2]) -> Vec<Trial> {
        let trial = |at: usize| {
            let (name, settings) = with("", &Settings::default(), TRIANGLE, ORDERS[at]);
            let (distance, correct) = (Some(distances[at]), Some(correct[at]));
            Trial { name, settings, distance, correct, samples: 64 }
        };
        vec![trial(0), trial(1)]
    }

    #[test]
    fn outputs_decide_where_one_order_alone_gives_them() {
        let usual = [choice(TRIANGLE, "upper", &ORDERS), choice(ITERATIONS, "5", &[])];
        let decided = |distances, settings: &mut Settings| {
            by_outputs(&trials(distances, [0; 2]), &[&usual[0]], &usual, 1e-4, settings);
            settings.get(TRIANGLE).map(|(order, _)| order.to_owned())
        };
        for (distances, order) in [
            ([1e-6, 0.5], Some("upper")),
            ([0.5, 1e-6], Some("upper_column_major")),
            // Near enough to count as equal, and hardly farther off.
            ([1e-6, 5e-5], None),
            ([5e-5, 2e-4], None),
        ] {
            let mut settings = Settings::default();
            assert_eq!(decided(distances, &mut settings).as_deref(), order, "{distances:?}");
            assert_eq!(settings.get(ITERATIONS), Some(("5", &Source::Data)));
        }
        let mut told = Settings::default();
        told.set(ITERATIONS, "3", Source::User);
        decided([1e-6, 0.5], &mut told);
        assert_eq!(told.get(ITERATIONS), Some(("3", &Source::User)));
    }

    #[test]
    fn labels_decide_where_one_order_gives_many_more() {
        let triangle = choice(TRIANGLE, "upper", &ORDERS);
        for (correct, classes, order) in [
            ([60, 10], 10, Some("upper")),
            ([10, 60], 10, Some("upper_column_major")),
            ([40, 30], 10, None),
            // Not much more than chance gives.
            ([18, 0], 10, None),
            ([64, 30], 2, Some("upper")),
        ] {
            let mut settings = Settings::default();
            by_labels(&trials([1.0; 2], correct), &[&triangle], 64, classes, &mut settings);
            assert_eq!(settings.get(TRIANGLE).map(|(order, _)| order), order, "{correct:?} of {classes}");
        }
    }
}
