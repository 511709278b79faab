//! Putting layers back whose iteration an exporter dropped: `--repair`.

use anyhow::Result;
use clap::Args;
use isqrt_cov_op::{Layer, OperatorKind, Vectorization};
use isqrt_cov_proto::onnx::ModelProto;
use serde_json::{Value, json};

use super::layers;
use super::told::{Told, Triangle};
use crate::expand;
use crate::found::Found;
use crate::recognize::{Findings, Lost};
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
    pub fn take(&self, told: &Told, findings: &mut Findings) -> Vec<Found> {
        let Some(iterations) = told.iterations.filter(|_| self.wanted) else { return Vec::new() };
        let mut taken = Vec::new();
        findings.lost.retain(|lost| {
            let found = put_back(lost, iterations, told.triangle);
            let is_left = found.is_none();
            taken.extend(found);
            is_left
        });
        taken
    }

    /// What to say where there was nothing to repair.
    pub fn was_idle(&self) -> Option<String> {
        let note = "no layer lost its iteration: --repair, --iterations and --triangle changed nothing";
        self.wanted.then(|| note.to_owned())
    }
}

/// Why a repaired model may not give the outputs that the user's data expect.
pub fn cause(told: &Told, repaired: &[Found]) -> String {
    let steps = told.iterations.unwrap_or_default();
    let has = |order| repaired.iter().any(|found| found.layer.vectorization == order);
    let trained = match Vectorization::TRIANGLES.map(has) {
        [false, false] => format!("another K than {steps}"),
        [true, false] => format!("others than K = {steps} and the triangle row-major"),
        [false, true] => format!("others than K = {steps} and the triangle column-major"),
        [true, true] => format!("others than K = {steps} and the triangles as `layers` has them"),
    };
    let all = match repaired.len() {
        ..2 => String::new(),
        count => format!(
            ". {} for all {count} layers that were put back: layers trained with different values cannot be repaired",
            if told.triangle.is_some() { "--iterations and --triangle hold" } else { "--iterations holds" }
        ),
    };
    format!(
        "the model was trained with {trained}, or {} another one{all}",
        if repaired.len() > 1 { "a layer is" } else { "its layer is" }
    )
}

/// `lost` with `iterations` steps and its triangle, where it has one and not the whole matrix, in that order; none where no operator
/// gives what stood there.
fn put_back(lost: &Lost, iterations: u32, triangle: Option<Triangle>) -> Option<Found> {
    let told = triangle.map(|Triangle(order)| order);
    let known = lost.hole.as_ref()?.order;
    let orders = [told.or(known).unwrap_or(Vectorization::Upper), Vectorization::None];
    let base = Layer { iterations, ..Layer::new(OperatorKind::IsqrtCov) };
    orders.into_iter().find_map(|vectorization| lost.put_back(Layer { vectorization, ..base }))
}

/// `original` with the `repaired` layers in standard operators: what a repaired model is compared with, as the original
/// computes nothing that could be.
///
/// # Errors
/// A model whose operator set is too old for the layer.
pub fn reference(original: &ModelProto, repaired: &[Found]) -> Result<ModelProto> {
    let mut reference = original.clone();
    rewrite::apply(&mut reference, repaired, false)?;
    Ok(expand::inline(&reference)?)
}

/// What may be assumed of a layer that is put back, in words.
const WORDS: [(&str, &str); 3] = [
    ("iterations", "the number of steps"),
    ("vectorization", "the order of the triangle"),
    ("normalization", "the division by the trace"),
];

/// What a proof of repaired layers rests on.
pub fn note(told: &Told, repaired: &[Found]) -> String {
    let is_assumed = |name| repaired.iter().filter_map(Found::assumed).any(|assumed| assumed.contains(&name));
    let assumed: Vec<&str> =
        WORDS.iter().filter(|(name, _)| is_assumed(*name)).map(|(_, words)| *words).collect();
    let is_matrix =
        |found: &&Found| told.triangle.is_some() && found.layer.vectorization == Vectorization::None;
    let matrices = layers::listed(repaired.iter().filter(is_matrix));
    let idle = if matrices.is_empty() {
        String::new()
    } else {
        format!(". --triangle says nothing of {matrices}, which gives whole matrices")
    };
    format!(
        "{} put back as told, not as known. Assumed: {}. The proof compares with the original with the layer in standard \
         operators, as the original's own outputs, of which `before` tells, are meaningless{idle}",
        layers::listed(repaired),
        assumed.join(", ")
    )
}

/// A layer put back, as JSON.
pub fn repaired_json(found: &Found) -> Value {
    json!({ "input": found.input, "output": found.output, "assumed": found.assumed() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_speaks_of_what_was_put_back() {
        let told = |triangle| Told { iterations: Some(4), triangle, expected: None };
        let said_of = |told: &Told, orders: &[Vectorization]| {
            let layer = |&vectorization| {
                Found::example(
                    Layer { vectorization, ..Layer::new(OperatorKind::IsqrtCov) },
                    "x",
                    "y",
                    vec![0],
                )
            };
            cause(told, &orders.iter().map(layer).collect::<Vec<_>>())
        };
        let said = |orders: &[Vectorization]| said_of(&told(None), orders);
        let (none, rows, columns) =
            (Vectorization::None, Vectorization::Upper, Vectorization::UpperColumnMajor);
        assert_eq!(said(&[none]), "the model was trained with another K than 4, or its layer is another one");
        assert!(said(&[rows]).contains("trained with others than K = 4 and the triangle row-major, or its"));
        assert!(said(&[columns]).contains("the triangle column-major"));
        let both = said(&[none, rows, columns]);
        assert!(both.contains("the triangles as `layers` has them, or a layer is another one"), "{both}");
        assert!(both.contains(". --iterations holds for all 3 layers that were put back"), "{both}");
        let told = said_of(&told(Some(Triangle(rows))), &[rows, rows]);
        assert!(told.contains(". --iterations and --triangle hold for all 2 layers"), "{told}");
        assert!(!said(&[none, none]).contains("row-major"));
    }
}
