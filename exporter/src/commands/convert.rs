//! `isqrt-cov convert`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueHint};
use isqrt_cov_proto::Model;
use isqrt_cov_proto::onnx::ModelProto;

use super::checkpoint::{self, CheckpointOptions};
use super::conversion::{Conversion, Left};
use super::form::Form;
use super::output::{self, Written};
use super::page::page;
use super::proving::Proving;
use super::repair::{self, Repair};
use super::selection::Selection;
use super::told::Told;
use super::{ProofOptions, facts, layers, signature};
use crate::commands::answer::{Answer, Refusal};
use crate::commands::runtime_options::RuntimeOptions;
use crate::expand;
use crate::found::Found;
use crate::functions::{self, Fault};
use crate::progress::Progress;
use crate::proof::{Pair, Plan};
use crate::recognize::recognize_with;
use crate::report;
use crate::rewrite;
use crate::runtime::ort::OPERATORS_VARIABLE;

/// Replace each covariance layer by a single operator, or build a model from a checkpoint, and prove it
///
/// A graph's layers are found by what they compute. Each becomes one node of the domain `ai.isqrtcov`; beside it stands an ONNX
/// function with the same meaning in standard operators, so that runtimes without the operator library run the file
/// too. Everything else in the model stays as it was, except that the IR version is raised to 8 where it is lower, that the
/// domain is imported, and that a metadata entry marks external data as written with the model. Functions of operators that
/// are there already are written anew, which mends those that another tool dropped or left behind. The original and the
/// file written are then run on the same inputs, and OUTPUT appears only if they agree: for a model that cannot be
/// converted, or whose proof fails, nothing is written, an older OUTPUT stays as it was, and the exit status is 1. The
/// input is never replaced.
///
/// A checkpoint's architecture is recognized by the names and shapes of its tensors, never by the file's name. Nothing in
/// it is executed. The model written is proven against the same network with every batch normalization and the layer in
/// standard operators. What weights do not tell (strides, the number of steps) is as published unless told otherwise, and
/// reported as assumed; where --inputs or --expected hold known outputs or labels, they decide as far as they tell.
#[derive(Debug, Args)]
#[command(
    override_usage = "isqrt-cov convert [OPTIONS] <INPUT> --output <OUTPUT>\n       \
    isqrt-cov convert [OPTIONS] <INPUT> --dry-run",
    after_help = "Examples:
  isqrt-cov convert model.onnx -o fused.onnx
  isqrt-cov convert model.onnx -o fused.onnx --inputs test.npz     Accuracy before and after on your own data
  isqrt-cov convert model.onnx -o fused.onnx --expected test.npz   Refused where the outputs are not those in test.npz
  isqrt-cov convert model.onnx -o fused.onnx --report report.html  What was done, and why it may be trusted
  isqrt-cov convert model.onnx -o fused.onnx --only /head/pool/Gather_output_0     One layer of several
  isqrt-cov convert model.onnx -o fused.onnx --onnxruntime /usr/lib/libonnxruntime.so
  isqrt-cov convert model.onnx -o fused.onnx --one-file --ir-version 9     For ONNX Runtime 1.17
  isqrt-cov convert model.onnx --dry-run --json | jq .proof
  isqrt-cov convert broken.onnx -o fused.onnx --repair --iterations 5 --expected outputs.npz
  isqrt-cov convert model_best.pth.tar -o model.onnx               A checkpoint: no PyTorch is needed
  isqrt-cov convert model.safetensors -o model.onnx --half --triangle upper_column_major"
)]
pub struct Arguments {
    /// The model to convert: an .onnx file, or a checkpoint (.pth, .pt, .pth.tar, .ckpt, .bin, .safetensors or its .index.json)
    #[arg(value_hint = ValueHint::FilePath)]
    pub(super) input: PathBuf,
    /// Where to write the converted model; one that is there is replaced, with the data that was written with it, unless it is
    /// read-only
    #[arg(short, long, value_name = "OUTPUT", value_hint = ValueHint::FilePath, required_unless_present = "dry_run")]
    output: Option<PathBuf>,
    /// Leave out the function body: the file is smaller, but runs only where the operator library is loaded
    #[arg(long)]
    pub(super) no_function: bool,
    /// Convert and prove, but write no model
    #[arg(long)]
    dry_run: bool,
    /// Write a report: a page to read where FILE ends in .html, what --json prints where it ends in .json
    ///
    /// It has the proof, and for each layer what it is, how that is known, its graph before and after, and its errors
    /// against float64; and the latency of both models, which takes about two seconds to measure. It is written also
    /// where the answer is no, and with --dry-run.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(super) report: Option<PathBuf>,
    #[command(flatten)]
    pub(super) form: Form,
    #[command(flatten)]
    pub(super) selection: Selection,
    #[command(flatten)]
    pub(super) repair: Repair,
    #[command(flatten)]
    pub(super) told: Told,
    #[command(flatten)]
    pub(super) checkpoint: CheckpointOptions,
    #[command(flatten)]
    pub(super) proof: ProofOptions,
    #[command(flatten)]
    pub(super) runtime: RuntimeOptions,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Answer> {
    let destination = arguments.check(&[])?;
    let runtime = arguments.runtime.open()?;
    if checkpoint::is_meant(&arguments.input) {
        return checkpoint::convert(arguments, destination, &*runtime);
    }
    arguments.refuse_what_is_for_checkpoints()?;
    let mut model = Model::load(&arguments.input)?;
    let original = Arc::new(model.inlined()?);
    let signature = signature(&original, &arguments.input)?;
    let mut plan = arguments.proof.plan(&signature, arguments.told.expected.as_ref())?;
    arguments.told.check(plan.samples.as_ref())?;

    layers::ensure_known(&original, &arguments.input)?;
    let progress = Progress::on_terminal();
    progress.spin("looking for layers");
    let mut findings = recognize_with(&original, &*runtime, plan.shapes.as_deref())
        .with_context(|| format!("{}: cannot be evaluated", arguments.input.display()))?;
    progress.end();
    let put_back = arguments.repair.take(&arguments.told, &mut findings);
    findings.layers.extend(put_back);
    let nodes_before = layers::node_count(&original);
    let mut faults = functions::faults(&original, &layers::fused(&original));
    let refusal = layers::refusal(&findings, &original, &faults, &*runtime);
    faults.retain(|fault| fault.is_of_function() && !arguments.no_function);
    // Functions are written anew where nothing else is to be done as well.
    let mut refusal = refusal.filter(|refusal| faults.is_empty() || !layers::is_converted_already(refusal));
    let mut skipped = Vec::new();
    if refusal.is_none() {
        (findings.layers, skipped) = arguments.selection.divide(findings.layers, &original)?;
        refusal = left_out(&findings.layers, &skipped);
    }
    let mut conversion =
        Conversion { findings, skipped, nodes_before, trained: None, converted: None, refusal };
    if conversion.refusal.is_some() {
        return arguments.finish(&conversion, &original, None);
    }

    let layers = &conversion.findings.layers;
    let repaired: Vec<_> = layers.iter().filter(|found| found.is_put_back()).cloned().collect();
    let reference = &arguments.reference(&original, &repaired, &faults)?;
    rewrite::apply(&mut model.proto, layers, !arguments.no_function).with_context(|| arguments.failed())?;
    let written = Written::stage(model, &arguments.form, destination)?;
    let (runtime, progress) = (&*runtime, &progress);
    let proving = Proving { arguments, reference, written: &written.proto, layers, runtime, progress };
    let proven = proving.run(&mut plan);
    let (mut proof, accuracies) =
        proven.with_context(|| format!("{}: cannot be proven", arguments.input.display()))?;
    let mended = faults.iter().map(|fault| format!("mended: {fault}"));
    proof.notes.extend(mended.chain(facts::newer_format(&original)).chain(facts::not_finite(&original)));
    let doubt = conversion.findings.not_evaluated.as_ref();
    proof.notes.extend(doubt.map(|problem| {
        format!("there may be more layers, since not all of the original could be evaluated: {problem}")
    }));
    if !repaired.is_empty() {
        proof.notes.push(repair::note(&arguments.told, &repaired));
        // What the user's data say of the original is of the broken one, which nothing else is asked of: it may give zeros alone.
        if plan.samples.is_some() {
            let plan = Plan { seeds: 0, ..plan.clone() };
            let pair = Pair::of(&original, &written.proto, runtime, &plan)?;
            proof.samples = pair.compare(&plan, progress)?.samples;
        }
    }
    let decides = arguments.told.expected.is_some() || arguments.repair.is_wanted();
    let cause = if repaired.is_empty() {
        proof.notes.extend(arguments.repair.was_idle());
        "check that the data are this model's".to_owned()
    } else {
        repair::cause(&arguments.told, &repaired)
    };
    let (converted, refusal) = proving.conclude(&plan, proof, accuracies, decides.then_some(&cause));
    (conversion.converted, conversion.refusal) = (Some(converted), refusal);
    arguments.finish(&conversion, &original, Some(written))
}

/// Why nothing is converted where --only and --skip leave these layers to be, and those as they are.
fn left_out(layers: &[Found], skipped: &[Found]) -> Option<Refusal> {
    // What lost its iteration and is left so is as broken as without --repair.
    if let Some(lost) = skipped.iter().find(|found| found.is_put_back()) {
        let message = format!(
            "{} lost its iteration, and --only or --skip leaves it so: the model would give meaningless outputs still",
            layers::place(lost)
        );
        return Some(Refusal { reason: "lost-iteration", message });
    }
    (layers.is_empty() && !skipped.is_empty()).then(|| Refusal {
        reason: "all-skipped",
        message: format!(
            "every layer of the model is left as it is, as --only and --skip say: {}",
            layers::listed(skipped)
        ),
    })
}

impl Arguments {
    /// Checks, before any long work, that what is to be written may be: it is none of the files that are read, which are
    /// those named, the checkpoint's `shards` and the libraries.
    pub(super) fn check(&self, shards: &[PathBuf]) -> Result<Option<&PathBuf>> {
        let destination = self.output.as_ref().filter(|_| !self.dry_run);
        let named = || self.proof.read_with(&self.input).chain(self.told.expected.as_deref());
        let libraries = self.runtime.libraries();
        let read = || named().chain(shards.iter().chain(&libraries).map(PathBuf::as_path));
        if let Some(destination) = destination {
            output::check_model(read(), destination)?;
        }
        if let Some(report) = &self.report {
            report::Format::of(report)?;
            output::check(read(), report, "--report")?;
            if let Some(destination) = destination {
                ensure!(
                    !output::same_file(report, destination),
                    "{}: is where the model goes; name another file with --report",
                    report.display()
                );
            }
        }
        ensure!(
            self.runtime.has_operators() || !self.no_function,
            "without function bodies the converted model runs only with the operator library; name it with --op-library \
             or {OPERATORS_VARIABLE}"
        );
        Ok(destination)
    }

    /// What the converted model is compared with: the original, unless an exporter broke it, or a tool its functions.
    fn reference(
        &self,
        original: &Arc<ModelProto>,
        repaired: &[Found],
        faults: &[Fault],
    ) -> Result<Arc<ModelProto>> {
        if !repaired.is_empty() {
            return repair::reference(original, repaired).map(Arc::new).with_context(|| self.failed());
        }
        if faults.is_empty() {
            return Ok(Arc::clone(original));
        }
        // What its nodes ask for, whatever its functions compute.
        expand::inline(original).map(Arc::new).with_context(|| self.failed())
    }

    fn failed(&self) -> String {
        format!("{}: cannot be converted", self.input.display())
    }

    /// Refuses options that mean nothing for a graph.
    fn refuse_what_is_for_checkpoints(&self) -> Result<()> {
        let path = self.input.display();
        ensure!(
            self.repair.is_wanted() || !self.told.is_any(),
            "{path}: a graph says what its layers are; --iterations and --triangle are for checkpoints, and with --repair for \
             layers whose iteration was dropped"
        );
        if let Some(option) = self.checkpoint.given() {
            bail!("{path}: {option} is for checkpoints; a graph stays as it is but for its layers");
        }
        Ok(())
    }

    /// Writes the report, where one is asked for, and the model, where it is proven. Neither is seen before both are whole.
    pub(super) fn finish(
        &self,
        conversion: &Conversion,
        original: &ModelProto,
        model: Option<Written>,
    ) -> Result<Answer> {
        let proven = conversion.refusal.is_none();
        let written = self.output.as_deref().filter(|_| proven && !self.dry_run);
        let data = model.as_ref().and_then(Written::data).map(Path::to_owned);
        let left = Left {
            model: written,
            data: data.as_deref().filter(|_| written.is_some()),
            is_dry: self.dry_run,
            would: self.output.as_deref(),
            report: self.report.as_deref(),
        };
        let mut answer = conversion.answer(&self.input, left, !self.no_function);
        answer.fields["fused"] = layers::fused_json(&layers::fused(original));
        if let Some(model) = model.as_ref().filter(|_| proven) {
            model.tell(&mut answer);
        }
        let report = self.report.as_ref().map(|path| {
            let content = match report::Format::of(path)? {
                report::Format::Json => answer.to_json().to_string() + "\n",
                report::Format::Page => page(conversion, original, &self.input, written),
            };
            report::stage(path, &content)
        });
        let report = report.transpose()?;
        if let Some(model) = model.filter(|_| proven) {
            model.commit()?;
        }
        if let Some(report) = report {
            let path = report.destination().display();
            let written = written.map(|model| format!(", though the model is: {}", model.display()));
            let failed = || format!("{path}: cannot be written{}", written.unwrap_or_default());
            report.commit().with_context(failed)?;
        }
        Ok(answer)
    }
}
