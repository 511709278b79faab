//! From a checkpoint to a proven model.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use isqrt_cov_models::{Options, Placed, Storage};
use isqrt_cov_proto::Model;
use isqrt_cov_proto::onnx::ModelProto;

use super::decision::decide;
use super::description::Trained;
use super::trial::plain;
use super::{Read, options};
use crate::commands::answer::Answer;
use crate::commands::conversion::Conversion;
use crate::commands::convert::Arguments;
use crate::commands::layers;
use crate::commands::output::Written;
use crate::commands::proving::Proving;
use crate::found::{AS_IS, Arrangement, Found, Origin};
use crate::functions;
use crate::progress::Progress;
use crate::proof::Pair;
use crate::recognize::Findings;
use crate::runtime::Runtime;
use crate::scope::Scope;
use crate::signature::Signature;
use crate::tensor::ElementType;

/// Builds the model of the checkpoint that `arguments` name, and proves it against the network in standard operators,
/// every batch normalization on its own.
///
/// # Errors
/// A checkpoint that cannot be read; options that do not fit it.
pub fn convert(
    arguments: &Arguments,
    destination: Option<&PathBuf>,
    runtime: &dyn Runtime,
) -> Result<Answer> {
    let input = &arguments.input;
    ensure!(
        !arguments.repair.is_wanted() && !arguments.selection.is_any(),
        "{}: is a checkpoint; --repair, --only and --skip are for graphs",
        input.display()
    );
    let mut watch = Watch::start();
    let progress = Progress::on_terminal();
    progress.spin("reading the checkpoint");
    let mut settings = arguments.checkpoint.settings(&arguments.told)?;
    let read = Read::load(input, &settings, &arguments.checkpoint.ignore)?;
    progress.end();
    watch.lap("read");
    arguments.check(&read.shards)?;
    let candidate = match read.fitting(input) {
        Ok(candidate) => candidate,
        Err(refusal) => return arguments.finish(&Conversion::refused(refusal), &ModelProto::default(), None),
    };
    options::check(&settings, &candidate.built)?;
    candidate.built.check(&read.weights).with_context(|| format!("{}: cannot be used", input.display()))?;

    let graph = arguments.checkpoint.graph();
    let as_trained = Options { fold: false, storage: Storage::Float32, ..graph };
    let signature = Signature::of(&plain(candidate, &read.weights, &settings, as_trained)?)?;
    let mut plan = arguments.proof.plan(&signature, arguments.told.expected.as_ref())?;
    arguments.told.check(plan.samples.as_ref())?;
    let samples = plan.samples.as_ref();
    let data = arguments.proof.inputs.as_ref().or(arguments.told.expected.as_ref());
    let (decision, refusal) =
        decide(candidate, &read.weights, &mut settings, samples, plan.tolerance, runtime).with_context(
            || {
                let file = data.unwrap_or(input);
                format!("{}: what the weights do not tell cannot be decided", file.display())
            },
        )?;
    watch.lap("decide");
    let original = Arc::new(plain(candidate, &read.weights, &settings, as_trained)?);
    let built = candidate.rebuilt(&read.weights, &settings, graph.fold);
    let findings = Findings { layers: found(&original, &built.layers), ..Findings::default() };
    let trained = Trained::new(&read, candidate, &built, decision);
    let mut conversion = Conversion {
        nodes_before: layers::node_count(&original),
        findings,
        skipped: Vec::new(),
        trained: Some(trained),
        converted: None,
        refusal,
    };
    if conversion.refusal.is_some() {
        return arguments.finish(&conversion, &original, None);
    }

    let mut proto = built.model(&read.weights, graph)?;
    if !arguments.no_function {
        functions::attach(&mut proto)?;
    }
    let written = Written::stage(Model::new(proto, input), &arguments.form, destination)?;
    watch.lap("build and write");
    let is_rounded_more = graph.storage == Storage::Float16;
    let proving = Proving {
        arguments,
        reference: &original,
        written: &written.proto,
        layers: &conversion.findings.layers,
        runtime,
        progress: &progress,
    };
    let (mut proof, accuracies) = proving.run(&mut plan)?;
    if proof.failure.is_some() && arguments.proof.tolerance.is_none() && !is_rounded_more {
        // Some networks amplify rounding until nothing can be told from their outputs. In float64 it can, of weights that
        // are the network's own.
        let as_folded = Options { fold: graph.fold, storage: Storage::Float64, ..graph };
        let folded = Arc::new(plain(candidate, &read.weights, &settings, as_folded)?);
        let pair = Pair::of(&original, &folded, runtime, &plan)?;
        proof.allow_amplification(pair.rounding()?, pair.distance_in_float64()?, &accuracies);
    }
    watch.lap("prove");
    if let Some(trained) = &mut conversion.trained {
        trained.seconds = watch.laps;
    }
    // Those of some samples decided what the weights do not tell.
    let cause = "the network as trained gives those of the samples that were tried: check the others, or allow for more rounding \
                 with --tolerance";
    let (converted, refusal) = proving.conclude(&plan, proof, accuracies, Some(cause));
    (conversion.converted, conversion.refusal) = (Some(converted), refusal);
    arguments.finish(&conversion, &original, Some(written))
}

/// Says what takes how long.
struct Watch {
    since: Instant,
    laps: Vec<(&'static str, f64)>,
}

impl Watch {
    fn start() -> Self {
        Self { since: Instant::now(), laps: Vec::new() }
    }

    fn lap(&mut self, what: &'static str) {
        self.laps.push((what, self.since.elapsed().as_secs_f64()));
        self.since = Instant::now();
    }
}

/// The layers as nodes of `original`, the network in standard operators.
fn found(original: &ModelProto, placed: &[Placed]) -> Vec<Found> {
    let nodes = original.graph.as_ref().map_or(&[][..], |graph| &graph.node);
    let mut found = Vec::new();
    for Placed { layer, input, output, .. } in placed {
        // The nodes of a body follow one another, and the last of them computes its output.
        let last = nodes.iter().position(|node| node.output.contains(output)).unwrap_or_default();
        let mut needed: HashSet<&String> = HashSet::from([output]);
        let mut first = last;
        for (index, node) in nodes[..=last].iter().enumerate().rev() {
            if !node.output.iter().any(|output| needed.contains(output)) {
                break;
            }
            needed.extend(node.input.iter().filter(|name| *name != input));
            first = index;
        }
        found.push(Found {
            layer: *layer,
            scope: Scope::default(),
            within: String::new(),
            input: input.clone(),
            output: output.clone(),
            element: ElementType::F32,
            view: AS_IS.clone(),
            groups: None,
            arrangement: Arrangement::AsGiven,
            nodes: (first..=last).collect(),
            origin: Origin::Built,
        });
    }
    found
}
