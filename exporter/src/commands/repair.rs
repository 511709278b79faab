//! Putting layers back whose iteration an exporter dropped: `--repair`.

use anyhow::{Context, Result, ensure};
use clap::Args;
use isqrt_cov_op::{Layer, OperatorKind, Vectorization};
use isqrt_cov_proto::onnx::ModelProto;
use serde_json::{Value, json};

use super::layers;
use super::told::{Told, Triangle};
use crate::expand;
use crate::recognize::{Findings, Found, Lost};
use crate::rewrite;

/// What the user says of layers that are to be put back.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Repair")]
pub struct Repair {
    /// Put back layers whose iteration the exporter dropped
    ///
    /// The trunk and the classifier of such a file are intact; between them stands a layer that computes a constant. What
    /// the file cannot tell is yours to say with --iterations and --triangle: it is reported as assumed, and proven only
    /// as far as --expected or labels in --inputs go.
    #[arg(id = "repair", long, requires = "iterations")]
    wanted: bool,
}

impl Repair {
    /// Whether layers are to be put back.
    pub fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// Takes the layers that can be put back from what was lost. Nothing where the user does not ask for it.
    ///
    /// # Errors
    /// A layer that cannot be as the user says.
    pub fn take(&self, told: &Told, findings: &mut Findings) -> Result<Vec<Found>> {
        let Some(iterations) = told.iterations.filter(|_| self.wanted) else { return Ok(Vec::new()) };
        let (whole, holes): (Vec<_>, Vec<_>) =
            std::mem::take(&mut findings.lost).into_iter().partition(|lost| lost.hole.is_none());
        findings.lost = whole;
        holes.iter().map(|lost| put_back(lost, iterations, told.triangle)).collect()
    }

    /// What to say where there was nothing to repair.
    pub fn was_idle(&self) -> Option<String> {
        let note = "no layer lost its iteration: --repair, --iterations and --triangle changed nothing";
        self.wanted.then(|| note.to_owned())
    }
}

/// Why a repaired model may not give the outputs that the user's data expect.
pub fn cause(told: &Told, repaired: &[Found]) -> String {
    let by_columns = |found: &Found| found.layer.vectorization == Vectorization::UpperColumnMajor;
    format!(
        "the model was trained with others than K = {} and the triangle {}, or its layer is another one",
        told.iterations.unwrap_or_default(),
        if repaired.iter().any(by_columns) { "column-major" } else { "row-major" }
    )
}

/// `lost` with `iterations` steps and the triangle in that order.
fn put_back(lost: &Lost, iterations: u32, triangle: Option<Triangle>) -> Result<Found> {
    let known = lost.hole.as_ref().and_then(|hole| hole.order);
    let orders = match triangle {
        Some(Triangle(triangle)) => [Some(triangle), None],
        None => [known.or(Some(Vectorization::Upper)), Some(Vectorization::None)],
    };
    let base = Layer { iterations, ..Layer::new(OperatorKind::IsqrtCov) };
    let mut layers = orders.into_iter().flatten().map(|vectorization| Layer { vectorization, ..base });
    let found = layers.find_map(|layer| lost.put_back(layer));
    found.with_context(|| {
        format!(
            "`{}` cannot hold {}: {}",
            lost.output,
            triangle.map_or("a layer", |_| "a triangle"),
            lost.shapes()
        )
    })
}

/// `original` with the `repaired` layers in standard operators: what a repaired model is compared with, as the original
/// computes nothing that could be.
///
/// # Errors
/// A model whose operator set is too old for the layer.
pub fn reference(original: &ModelProto, repaired: &[Found]) -> Result<ModelProto> {
    ensure!(!repaired.is_empty(), "nothing was repaired");
    let mut reference = original.clone();
    rewrite::apply(&mut reference, repaired, false)?;
    Ok(expand::inline(&reference)?)
}

/// What a proof of repaired layers rests on.
pub fn note(repaired: &[Found]) -> String {
    format!(
        "{} put back as told, not as known: the number of steps and the order of the triangle are assumed; the proof \
         compares with the original with the layer in standard operators, as the original's own outputs, of which `before` \
         tells, are meaningless",
        layers::listed(repaired)
    )
}

/// A layer put back, as JSON.
pub fn repaired_json(found: &Found) -> Value {
    json!({ "input": found.input, "output": found.output, "assumed": ["iterations", "vectorization"] })
}
