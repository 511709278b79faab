//! Finds covariance layers in a graph by what its regions compute.
//!
//! Exports of one layer differ in everything but the function they compute, so no pattern of nodes is looked for.
//! A region takes one value in and holds no trained weight ([`propose`]); it is evaluated on [`probe`]s ([`observe`]);
//! [`identify`] searches the attributes for which an operator's float64 reference gives the same numbers, and demands that
//! any other function is far off; [`confirm`] holds what was found against inputs unlike those. [`tell`] says how a region
//! differs that is no layer, and tells a layer that an exporter broke from one that merely differs. [`search`] goes through
//! all regions so, and [`again`] through what is left once layers are operators.

mod again;
mod confirm;
mod findings;
mod identify;
mod observe;
pub mod probe;
mod propose;
mod search;
mod tell;

use anyhow::{Context, Result};
use isqrt_cov_proto::onnx::{GraphProto, ModelProto};

use self::observe::survey::survey;
use self::observe::trial::{self, Known, SIZES, Trial};
use self::propose::places::{Place, places};
use self::search::Search;
use self::search::candidates::{Candidate, candidates};
use self::tell::lost;
use crate::budget;
use crate::runtime::Runtime;
use crate::scope::bodies;

pub use self::findings::{Findings, Hole, Lost, Miss};
pub use self::identify::tolerance;

/// How often regions that turned out to be no layers are left out and others looked for.
const MOST_RETREATS: usize = 4;

/// Looks for layers in `model`, whose tensors are all inline: in its graph, in graphs inside nodes and in functions.
/// Operators that the evaluator of regions does not know are left to `runtime`.
///
/// # Errors
/// A model without a graph, or one that cannot be evaluated at all.
pub fn recognize(model: &ModelProto, runtime: &dyn Runtime) -> Result<Findings> {
    recognize_with(model, runtime, None)
}

/// The same with inputs of the shapes of the user's data, where there are any: one for each input, in the order of the
/// graph's, initializers left out. The number of samples is chosen here.
///
/// # Errors
/// Those of [`recognize`].
pub fn recognize_with(
    model: &ModelProto,
    runtime: &dyn Runtime,
    known: Option<&[Vec<usize>]>,
) -> Result<Findings> {
    let graph = model.graph.as_ref().context("the model has no graph")?;
    let shapes = trial::shapes(graph, known, &SIZES);
    budget::within(budget::of_model(model, shapes.iter().map(Vec::as_slice)), || {
        let findings = recognized(model, graph, runtime, known);
        // What was cut short tells nothing: a layer may be none, and there may be more.
        budget::check()?;
        findings
    })
}

fn recognized(
    model: &ModelProto,
    graph: &GraphProto,
    runtime: &dyn Runtime,
    known: Known<'_>,
) -> Result<Findings> {
    let bodies = bodies(model);
    let places = places(model, graph, &bodies);
    let mut findings = searched(model, graph, &places, runtime, known)?;
    again::complete(model, &places, &mut findings, |model, places| {
        let found = searched(model, model.graph.as_ref()?, places, runtime, known);
        Some(found.ok()?.layers)
    });
    findings.say_once();
    lost::leave_to_holes(model, &places, &mut findings.lost);
    if !findings.layers.is_empty() {
        // Without a covariance in front, a constant may be a mask.
        findings.lost.retain(|lost| lost.hole.is_some());
    }
    if findings.layers.is_empty() && findings.lost.is_empty() {
        findings.lost.extend(lost::constant_outputs(&places[0]));
    }
    Ok(findings)
}

/// What is found in the graphs of a model as they are.
fn searched(
    model: &ModelProto,
    graph: &GraphProto,
    places: &[Place],
    runtime: &dyn Runtime,
    known: Known<'_>,
) -> Result<Findings> {
    let mut candidates = candidates(places);
    // Beside what the model is given, which is there in any case.
    let given = graph.input.iter().filter_map(|input| Some((0, places[0].flow.id(input.name())?)));
    let wanted: Vec<_> =
        candidates.iter().map(|candidate| (candidate.place, candidate.input)).chain(given).collect();
    let trial = Trial { known, ..Trial::of(&SIZES) };
    let mut search = Search::new(model, places, runtime, trial);
    if !candidates.is_empty() {
        search.survey = survey(model, places, &wanted, &trial, runtime)?;
    }
    let mut refused = Vec::new();
    for retreat in 0..=MOST_RETREATS {
        search.run(&candidates);
        let before = refused.len();
        search.confirm(&wanted, &mut refused);
        if refused.len() == before || retreat == MOST_RETREATS {
            break;
        }
        // What is no layer may hold one, behind the choice that sizes made.
        let is_refused = |candidate: &Candidate| {
            refused[before..].iter().any(|refused| refused.source == (candidate.place, candidate.input))
        };
        candidates.retain(|candidate| !is_refused(candidate));
        search.forget();
    }
    search.findings.misses.extend(refused.into_iter().map(|refused| refused.miss));
    search.findings.not_evaluated = search.survey.failure.take();
    // A layer inside of another finding has gone with it.
    let mut layers = std::mem::take(&mut search.findings.layers);
    layers.retain(|found| search.place_of(found).is_none_or(|place| !search.is_inside(place, &search.owned)));
    let mut findings = search.findings;
    findings.layers = layers;
    Ok(findings)
}
