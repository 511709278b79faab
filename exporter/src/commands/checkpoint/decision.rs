//! What weights do not tell: decided by the user's data where there are any, the triangle's order by the weights'
//! statistics where there are none.

use anyhow::Result;
use isqrt_cov_models::triangle::Scores;
use isqrt_cov_models::{Candidate, Choice, Settings, Source, Weights};
use isqrt_cov_op::Vectorization;

use super::trial::{TRIANGLE, Trial, Trying, nearest, open};
use crate::commands::answer::Refusal;
use crate::commands::expected::TOLERANCE;
use crate::data::Samples;
use crate::runtime::Runtime;

/// Samples with known outputs on which every combination of settings is tried: each tells all.
const WITH_OUTPUTS: usize = 4;
/// The same of samples with known labels.
const WITH_LABELS: usize = 64;
/// How many more of n labels the right value of a setting gives than any other, in √n.
const LEAD: f64 = 2.0;
/// How many times as far off as the right value of a setting any other is.
const CLEARLY: f64 = 10.0;
/// Channels of which both orders of the triangle are the same.
const ORDERLESS: usize = 2;

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
        let tolerance = tolerance.unwrap_or(TOLERANCE);
        decision.trials = trying.all(settings, tolerance)?;
        let open = open(&candidate.built);
        if samples.expected.is_some() {
            if nearest(&decision.trials).is_none_or(|best| best.distance() > tolerance) {
                settings.clone_from(&told);
                let refusal = not_as_expected(&decision.trials, tolerance, &candidate.built.choices);
                return Ok((decision, Some(refusal)));
            }
            by_outputs(&decision.trials, &open, tolerance, settings);
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
            (source == Source::Open).then(|| unsure(candidate, weights, &decision))
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

/// Takes, of each setting, the value that comes nearest to what the data expect: decided by them where every other one that was
/// tried is clearly farther off, else assumed. Of the triangle, other things tell then.
fn by_outputs(trials: &[Trial], open: &[&Choice], tolerance: f64, settings: &mut Settings) {
    let Some(best) = nearest(trials) else { return };
    let equal = tolerance.min(TOLERANCE);
    let clearly = equal.max(CLEARLY * best.distance());
    for choice in open {
        let Some((value, _)) = best.settings.get(choice.name) else { continue };
        let is_other = |trial: &&Trial| !trial.has(choice.name, value);
        let Some(next) = nearest(trials.iter().filter(is_other)) else { continue };
        if next.distance() > clearly {
            settings.set(choice.name, value, Source::Data);
        } else if choice.name != TRIANGLE {
            let usual = nearest(trials.iter().filter(|trial| trial.has(choice.name, &choice.value)));
            let value =
                if usual.is_some_and(|usual| usual.distance() <= equal) { &choice.value } else { value };
            settings.set(choice.name, value, Source::Assumed(not_parted(trials, choice, value, clearly)));
        }
    }
}

/// Why `value` is assumed of a setting that the outputs expected do not decide.
fn not_parted(trials: &[Trial], choice: &Choice, value: &str, clearly: f64) -> String {
    let near = trials.iter().filter(|trial| trial.distance() <= clearly);
    let mut others: Vec<&str> = near.filter_map(|trial| Some(trial.settings.get(choice.name)?.0)).collect();
    others.retain(|other| *other != value);
    others.sort_unstable_by_key(|other| (other.len(), *other));
    others.dedup();
    let ground = match &choice.source {
        Source::Assumed(reason) if value == choice.value => reason,
        _ => "as it comes nearest to the outputs expected",
    };
    format!("{ground}; the data do not part it from {}", others.join(", "))
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
        // What alone was tried is not decided.
        let Some(next) = others.map(correct).max() else { continue };
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
            best.map_or_else(|| "nothing".to_owned(), Trial::name)
        ),
    }
}

fn unsure(candidate: &Candidate, weights: &Weights, decision: &Decision) -> Refusal {
    let classifier = candidate.built.layers.iter().find_map(|layer| layer.classifier.as_deref());
    let best = |order: Vectorization| {
        let best = nearest(decision.trials.iter().filter(|trial| trial.has(TRIANGLE, order.word())))?;
        Some(format!("{} is {}", order.word(), best.said()))
    };
    let tried: Vec<String> = Vectorization::TRIANGLES.into_iter().filter_map(best).collect();
    let (tried, more) = match decision.trials.first() {
        None => (String::new(), "data that decide, with outputs or labels that you know"),
        Some(trial) if trial.distance.is_some() => (
            format!(". The outputs expected were tried and do not decide: {}", tried.join("; ")),
            "outputs that you know of other samples, on which the orders differ more",
        ),
        Some(_) => (
            format!(". The labels given were tried and do not decide: {}", tried.join("; ")),
            "more samples with labels, or better the logits that they should give, as `expected`, of which a few decide",
        ),
    };
    Refusal {
        reason: "triangle-unsure",
        message: format!(
            "nothing tells in which order `{}` reads the triangle: {}{tried}. Read in the wrong order, a good \
             model gives chance. Say --triangle upper (the authors' code since December 2018, imgclsmob) or --triangle \
             upper_column_major (before, and GSoP-Net); or give {more}: --inputs FILE.npz",
            weights.original(classifier.unwrap_or_default()),
            decision.scores.as_ref().map(Scores::to_string).unwrap_or_default()
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
    use super::super::trial::with;
    use super::*;

    const ORDERS: [&str; 2] = ["upper", "upper_column_major"];

    fn choice(name: &'static str, value: &str, values: &'static [&'static str]) -> Choice {
        let source = Source::Assumed("as usual".to_owned());
        Choice { name, meaning: "", value: value.to_owned(), values, source }
    }

    /// A trial of each value of a setting.
    fn trials(name: &str, said: &[(&str, f64, usize)]) -> Vec<Trial> {
        let trial = |&(value, distance, correct): &(&str, f64, usize)| {
            let settings = with(&Settings::default(), name, value);
            Trial { settings, distance: Some(distance), correct: Some(correct), samples: 64 }
        };
        said.iter().map(trial).collect()
    }

    #[test]
    fn outputs_decide_where_one_order_alone_gives_them() {
        let triangle = choice(TRIANGLE, "upper", &ORDERS);
        for (distances, order) in [
            ([1e-6, 0.5], Some("upper")),
            ([0.5, 1e-6], Some("upper_column_major")),
            // Near enough to count as equal, and hardly farther off.
            ([1e-6, 5e-5], None),
            ([5e-5, 2e-4], None),
        ] {
            let mut settings = Settings::default();
            let trials = trials(TRIANGLE, &[(ORDERS[0], distances[0], 0), (ORDERS[1], distances[1], 0)]);
            by_outputs(&trials, &[&triangle], 1e-4, &mut settings);
            assert_eq!(settings.get(TRIANGLE).map(|(order, _)| order), order, "{distances:?}");
        }
    }

    #[test]
    fn steps_are_said_to_be_decided_where_no_other_number_does_as_well() {
        let steps = choice("iterations", "5", &[]);
        let usual = "as usual; the data do not part it from";
        let nearest = "as it comes nearest to the outputs expected; the data do not part it from";
        for (said, tolerance, value, by) in [
            (&[("5", 0.04, 0), ("4", 1e-7, 0), ("6", 0.06, 0)][..], 0.1, "4", None),
            (&[("5", 1e-7, 0), ("4", 1e-3, 0), ("6", 1e-2, 0)], 1e-4, "5", None),
            // Rounded data.
            (&[("5", 4e-3, 0), ("4", 3e-3, 0), ("6", 0.2, 0)], 1e-2, "4", Some((nearest, "5"))),
            (&[("5", 9e-5, 0), ("10", 3e-5, 0), ("9", 2e-5, 0)], 1e-4, "5", Some((usual, "9, 10"))),
            (&[("5", 2e-3, 0), ("10", 3e-5, 0), ("9", 2e-5, 0)], 1e-4, "9", Some((nearest, "10"))),
        ] {
            let mut settings = Settings::default();
            by_outputs(&trials("iterations", said), &[&steps], tolerance, &mut settings);
            let source =
                by.map_or(Source::Data, |(ground, others)| Source::Assumed(format!("{ground} {others}")));
            assert_eq!(settings.get("iterations"), Some((value, &source)), "{said:?}");
        }
        let mut alone = Settings::default();
        by_outputs(&trials("iterations", &[("5", 1e-7, 0)]), &[&steps], 1e-4, &mut alone);
        by_labels(&trials("iterations", &[("5", 1e-7, 64)]), &[&steps], 64, 10, &mut alone);
        assert_eq!(alone.get("iterations"), None, "no other number was tried");
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
            let trials = trials(TRIANGLE, &[(ORDERS[0], 1.0, correct[0]), (ORDERS[1], 1.0, correct[1])]);
            by_labels(&trials, &[&triangle], 64, classes, &mut settings);
            assert_eq!(settings.get(TRIANGLE).map(|(order, _)| order), order, "{correct:?} of {classes}");
        }
    }
}
