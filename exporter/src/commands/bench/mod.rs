//! `isqrt-cov bench`.

mod feed;
mod figures;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, ValueHint};
use serde_json::json;

use self::feed::{Feed, Feeds, Loaded, feeds};
use self::figures::Figures;
use super::{checkpoint, layers};
use crate::commands::answer::Answer;
use crate::commands::runtime_options::{RuntimeKind, RuntimeOptions};
use crate::data::Data;
use crate::latency::{Timed, in_turns};
use crate::progress::Progress;
use crate::proof::{Difference, number};
use crate::runtime::Runtime;
use crate::runtime::ort::OPERATORS_VARIABLE;
use crate::table::one_line;
use crate::tensor::Tensor;

/// Measure the latency of a model, or of two side by side
///
/// Both models are loaded in one process and run in turns, so that what disturbs the one disturbs the other. A round
/// repeats a run until it takes long enough to be measured. Handing over inputs and outputs is included. Both get the same
/// inputs, random ones or the first samples of --inputs; models that do not take and give the same are measured too, and a
/// note says so. The column LAYERS says how many operators of ai.isqrtcov a model holds, and whether they ran or their
/// function bodies did.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  isqrt-cov bench model.onnx fused.onnx --onnxruntime /usr/lib/libonnxruntime.so --threads 1
  isqrt-cov bench model.onnx fused.onnx --inputs test.npz --batch 32
  isqrt-cov bench fused.onnx --batch 8 --json")]
pub struct Arguments {
    /// The model to measure: an .onnx file
    #[arg(value_hint = ValueHint::FilePath)]
    model: PathBuf,
    /// Another model, to compare with the first
    #[arg(value_hint = ValueHint::FilePath)]
    other: Option<PathBuf>,
    /// Samples in a run, where the model leaves that open
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// Size of every other axis that the model leaves open [default: 224 for images, 14 for features of more than 4
    /// channels]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    extent: Option<u32>,
    /// Data of your own to run on, instead of random inputs
    ///
    /// A .npz archive or .npy file as convert takes it. Each run takes the first --batch samples, again from the start
    /// where there are fewer.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "extent")]
    inputs: Option<PathBuf>,
    /// Rounds measured
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Threads within an operator, for `--runtime ort` [default: what ONNX Runtime chooses]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,
    #[command(flatten)]
    runtime: RuntimeOptions,
}

/// The greatest difference that is rounding's, in the least precise element type.
const ROUNDING: f64 = 5e-2;

/// Rounds run before the first that counts.
const WARM_UP: usize = 3;

pub(crate) fn run(arguments: &Arguments) -> Result<Answer> {
    let paths: Vec<&Path> =
        std::iter::once(&arguments.model).chain(&arguments.other).map(PathBuf::as_path).collect();
    for path in &paths {
        checkpoint::refuse(path)?;
    }
    let runtime = arguments.runtime.open_with(arguments.threads.map(|threads| threads as usize))?;
    let data = arguments.inputs.as_deref().map(Data::read).transpose()?;
    let loaded =
        paths.into_iter().map(|path| Loaded::read(path, data.as_ref())).collect::<Result<Vec<_>>>()?;
    let Feeds { each: feeds, outputs, mut notes } = feeds(&loaded, arguments)?;
    let models = loaded.iter().zip(&feeds);
    let mut timed = models
        .clone()
        .map(|(loaded, feed)| ready(loaded, feed, &*runtime, data.is_some()))
        .collect::<Result<Vec<_>>>()?;
    if let ([one, other], Some(outputs)) = (timed.as_slice(), outputs) {
        let others: Vec<&Tensor> = outputs.iter().map(|&index| &other.gives()[index]).collect();
        notes.extend(apart(one.gives(), &others));
    }
    let operators: Vec<usize> = loaded.iter().map(|loaded| layers::fused(&loaded.model).len()).collect();
    let runs_operators = arguments.runtime.has_operators();
    if !runs_operators && operators.iter().any(|&count| count > 0) {
        notes.push(format!(
            "no operator library was found, so function bodies ran; name it with --op-library or {OPERATORS_VARIABLE} to \
             measure the operators"
        ));
    }
    let progress = Progress::on_terminal();
    let rounds = arguments.rounds as usize;
    progress.begin("measuring", rounds);
    in_turns(&mut timed, WARM_UP, |_| rounds, || progress.step())?;
    progress.end();

    let ran = match (arguments.runtime.kind(), runs_operators) {
        (RuntimeKind::Tract, _) => "operator",
        (RuntimeKind::Ort, true) => "operator library",
        (RuntimeKind::Ort, false) => "function body",
    };
    let figures: Vec<Figures> = models
        .zip(&timed)
        .zip(operators)
        .map(|(((loaded, feed), timed), operators)| Figures {
            path: loaded.path,
            inputs: feed.shapes(),
            batch: feed.batch,
            operators,
            ran_as: (operators > 0).then_some(ran),
            milliseconds: [0.5, 0.0, 0.9].map(|share| 1e3 * timed.quantile(share)),
        })
        .collect();
    let mut text = format!(
        "{}\n{rounds} round{} in {}\n",
        figures::table(&figures),
        if rounds == 1 { "" } else { "s" },
        runtime.name()
    );
    text.extend(notes.iter().map(|note| format!("note: {}\n", one_line(note))));
    let mut fields = json!({
        "runtime": runtime.name(),
        "rounds": arguments.rounds,
        "threads": arguments.threads,
        "models": figures.iter().map(Figures::to_json).collect::<Vec<_>>(),
        "notes": notes,
    });
    if let [first, second] = figures.as_slice() {
        fields["ratio"] = first.ratio_to(second).into();
    }
    Ok(Answer { fields, text, refusal: None })
}

/// A model ready to be run on what it is fed.
///
/// # Errors
/// One that the runtime does not load, or does not run on that.
fn ready(loaded: &Loaded, feed: &Feed, runtime: &dyn Runtime, has_data: bool) -> Result<Timed> {
    let shapes = feed.shapes();
    let session = runtime.prepare(&loaded.model, &shapes);
    session.and_then(|session| Timed::new(session, feed.inputs.clone())).with_context(|| {
        let path = loaded.path.display();
        let sizes = if has_data { "" } else { " (--batch and --extent set the sizes that it leaves open)" };
        format!("{path}: cannot be measured on inputs of shape {shapes:?}{sizes}")
    })
}

/// In what the outputs of two models are further apart than any element type makes them, if they are.
fn apart(one: &[Tensor], other: &[&Tensor]) -> Option<String> {
    let one_shapes: Vec<Vec<usize>> = one.iter().map(|output| output.dims().to_vec()).collect();
    let other_shapes: Vec<Vec<usize>> = other.iter().map(|output| output.dims().to_vec()).collect();
    if one_shapes != other_shapes {
        return Some(format!(
            "the models do not give the same, so the ratio compares different work: the outputs of one have the shapes \
             {one_shapes:?}, those of the other {other_shapes:?}"
        ));
    }
    let mut difference = Difference::new();
    // Rounding may turn an integer, such as a class, into any other.
    let floats = one.iter().zip(other).filter(|(one, _)| one.element_type().is_float());
    floats.for_each(|(one, other)| difference.add(one, other, ""));
    (difference.max > ROUNDING).then(|| {
        format!(
            "the outputs differ by {} of their greatest value, so the ratio compares different functions: isqrt-cov validate \
             says more",
            number(difference.max)
        )
    })
}
