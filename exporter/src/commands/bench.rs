//! `isqrt-cov bench`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueHint};
use isqrt_cov_proto::Model;
use serde_json::{Map, Value, json};

use super::checkpoint;
use crate::cli::{Answer, RuntimeOptions};
use crate::latency::{Subject, in_turns};
use crate::progress::Progress;
use crate::proof::{Alignment, Shapes};
use crate::runtime::Runtime;
use crate::signature::Signature;
use crate::table::Table;

/// Measure the latency of a model, or of two side by side
///
/// Both models are loaded in one process and run in turns, so that what disturbs the one disturbs the other. A round
/// repeats a run until it takes long enough to be measured. Handing over inputs and outputs is included.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  isqrt-cov bench model.onnx fused.onnx --onnxruntime /usr/lib/libonnxruntime.so --threads 1
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
    /// Size of every other axis that the model leaves open
    #[arg(long, value_name = "N", default_value_t = 224, value_parser = clap::value_parser!(u32).range(1..))]
    extent: u32,
    /// Rounds measured
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Threads within an operator, for `--runtime ort` [default: what ONNX Runtime chooses]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    threads: Option<u32>,
    #[command(flatten)]
    runtime: RuntimeOptions,
}

/// Rounds run before the first that counts.
const WARM_UP: usize = 3;

pub(crate) fn run(arguments: &Arguments) -> Result<Answer> {
    let paths: Vec<&Path> =
        std::iter::once(&arguments.model).chain(&arguments.other).map(PathBuf::as_path).collect();
    for path in &paths {
        checkpoint::refuse(path)?;
    }
    let runtime = arguments.runtime.open_with(arguments.threads.map(|threads| threads as usize))?;
    let loaded = paths.iter().map(|path| load(path, &*runtime, arguments));
    let (mut subjects, batches): (Vec<Subject>, Vec<usize>) =
        loaded.collect::<Result<Vec<_>>>()?.into_iter().unzip();
    let progress = Progress::on_terminal();
    let rounds = arguments.rounds as usize;
    progress.begin("measuring", rounds);
    in_turns(&mut subjects, WARM_UP, |_| rounds, || progress.step())?;
    progress.end();

    let mut table = Table::new(&["model", "batch", "median ms", "min ms", "90 % ms", "ms a sample", "ratio"]);
    let base = subjects[0].quantile(0.5);
    let mut models = Vec::new();
    for ((subject, path), &batch) in subjects.iter().zip(&paths).zip(&batches) {
        let [median, least, slow] = [0.5, 0.0, 0.9].map(|share| 1e3 * subject.quantile(share));
        let (sample, ratio) = (median / batch as f64, 1e3 * base / median);
        table.row([
            path.display().to_string(),
            batch.to_string(),
            format!("{median:.3}"),
            format!("{least:.3}"),
            format!("{slow:.3}"),
            format!("{sample:.3}"),
            format!("{ratio:.2}×"),
        ]);
        models.push(json!({
            "model": path,
            "batch": batch,
            "median_ms": median,
            "min_ms": least,
            "p90_ms": slow,
            "median_ms_per_sample": sample,
        }));
    }
    let mut fields = Map::new();
    fields.insert("runtime".to_owned(), runtime.name().into());
    fields.insert("rounds".to_owned(), arguments.rounds.into());
    fields.insert("threads".to_owned(), json!(arguments.threads));
    fields.insert("models".to_owned(), Value::Array(models));
    if let [first, second] = subjects.as_slice() {
        fields.insert("ratio".to_owned(), json!(first.quantile(0.5) / second.quantile(0.5)));
    }
    let text = format!("{}\n{} rounds in {}\n", table.render(), arguments.rounds, runtime.name());
    Ok(Answer { fields, text, refusal: None })
}

/// A model ready to be measured, and the number of samples in its batch.
fn load(path: &Path, runtime: &dyn Runtime, arguments: &Arguments) -> Result<(Subject, usize)> {
    let model = Arc::new(Model::load(path)?.into_inlined()?);
    let signature = Signature::of(&model)?;
    let alignment = Alignment::of(&signature, &signature).map_err(anyhow::Error::msg)?;
    let shapes = Shapes::agreed(&signature, &signature, &alignment, None)?.map_err(anyhow::Error::msg)?;
    let batch = if shapes.open_batch() { arguments.batch as usize } else { shapes.fixed_batch() };
    ensure!(
        shapes.open_batch() || arguments.batch == 1 || batch == arguments.batch as usize,
        "{}: takes batches of {batch} only; --batch {} cannot be had",
        path.display(),
        arguments.batch
    );
    let sized = shapes.sized(batch, (arguments.extent as usize, arguments.extent as usize));
    let session = runtime.prepare(&model, &sized);
    let subject = session.and_then(|session| Subject::new(session, shapes.random(&sized, 1)));
    let subject = subject
        .with_context(|| format!("{}: cannot be measured on inputs of shape {sized:?}", path.display()))?;
    Ok((subject, batch))
}
