//! `isqrt-cov bench`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueHint};
use isqrt_cov_proto::Model;
use serde_json::{Map, Value, json};

use super::output;
use crate::cli::{Answer, RuntimeOptions};
use crate::progress::Progress;
use crate::proof::{Alignment, Shapes};
use crate::runtime::{Runtime, Session};
use crate::signature::Signature;
use crate::table::Table;
use crate::tensor::Tensor;

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

/// The least time that a round takes, in seconds: a hundred times what the clock and the scheduler blur.
const ROUND: f64 = 5e-3;
/// Rounds run before the first that counts.
const WARM_UP: u32 = 3;

/// A model ready to be measured.
struct Subject {
    path: PathBuf,
    session: Box<dyn Session>,
    inputs: Vec<Tensor>,
    batch: usize,
    repeats: u32,
    /// Seconds a run, one for each round.
    times: Vec<f64>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Answer> {
    let paths: Vec<&Path> =
        std::iter::once(&arguments.model).chain(&arguments.other).map(PathBuf::as_path).collect();
    for path in &paths {
        output::refuse_checkpoint(path)?;
    }
    let runtime = arguments.runtime.open_with(arguments.threads.map(|threads| threads as usize))?;
    let mut subjects: Vec<Subject> =
        paths.iter().map(|path| Subject::load(path, &*runtime, arguments)).collect::<Result<_>>()?;
    let progress = Progress::on_terminal();
    progress.begin("measuring", arguments.rounds as usize);
    for round in 0..WARM_UP + arguments.rounds {
        // The order alternates, so that neither always runs in the other's wake.
        if round % 2 == 1 {
            subjects.iter_mut().rev().try_for_each(Subject::measure)?;
        } else {
            subjects.iter_mut().try_for_each(Subject::measure)?;
        }
        if round < WARM_UP {
            subjects.iter_mut().for_each(|subject| subject.times.clear());
        } else {
            progress.step();
        }
    }
    progress.end();

    let mut table = Table::new(&["model", "batch", "median ms", "min ms", "90 % ms", "ms a sample", "ratio"]);
    let base = subjects[0].quantile(0.5);
    let mut models = Vec::new();
    for subject in &subjects {
        let [median, least, slow] = [0.5, 0.0, 0.9].map(|share| 1e3 * subject.quantile(share));
        let (sample, ratio) = (median / subject.batch as f64, 1e3 * base / median);
        table.row([
            subject.path.display().to_string(),
            subject.batch.to_string(),
            format!("{median:.3}"),
            format!("{least:.3}"),
            format!("{slow:.3}"),
            format!("{sample:.3}"),
            format!("{ratio:.2}×"),
        ]);
        models.push(json!({
            "model": subject.path,
            "batch": subject.batch,
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

impl Subject {
    fn load(path: &Path, runtime: &dyn Runtime, arguments: &Arguments) -> Result<Self> {
        let model = Model::load(path)?.inlined()?;
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
        let sized = shapes.sized(batch, arguments.extent as usize);
        let place = || format!("{}: cannot be measured on inputs of shape {sized:?}", path.display());
        let session = runtime.prepare(&model, &sized).with_context(place)?;
        let inputs = shapes.random(&sized, 1);
        session.run(&inputs).with_context(place)?;
        let start = Instant::now();
        session.run(&inputs).with_context(place)?;
        let repeats = (ROUND / start.elapsed().as_secs_f64().max(1e-7)).ceil() as u32;
        Ok(Self { path: path.to_owned(), session, inputs, batch, repeats: repeats.max(1), times: Vec::new() })
    }

    fn measure(&mut self) -> Result<()> {
        let start = Instant::now();
        for _ in 0..self.repeats {
            self.session.run(&self.inputs)?;
        }
        self.times.push(start.elapsed().as_secs_f64() / f64::from(self.repeats));
        Ok(())
    }

    /// The time a run, in seconds, that this share of the rounds does not exceed.
    fn quantile(&self, share: f64) -> f64 {
        let mut times = self.times.clone();
        times.sort_by(f64::total_cmp);
        times[((times.len() - 1) as f64 * share).round() as usize]
    }
}
