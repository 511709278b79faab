//! What models are fed while they are measured: samples of the user's, or made-up ones; the same, where they take the same.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use isqrt_cov_proto::Model;
use isqrt_cov_proto::onnx::ModelProto;

use super::Arguments;
use crate::data::{Data, Samples};
use crate::proof::{Agreement, Common, Shapes};
use crate::signature::Signature;
use crate::tensor::Tensor;

/// A model that was read.
pub(super) struct Loaded<'a> {
    pub path: &'a Path,
    pub model: Arc<ModelProto>,
    signature: Signature,
    /// The user's data for it, if there are any.
    samples: Option<Samples>,
}

/// Inputs of a model, and how many samples they are.
pub(super) struct Feed {
    pub inputs: Vec<Tensor>,
    pub batch: usize,
}

impl Feed {
    /// The shape of each input.
    pub fn shapes(&self) -> Vec<Vec<usize>> {
        self.inputs.iter().map(|input| input.dims().to_vec()).collect()
    }
}

impl<'a> Loaded<'a> {
    pub fn read(path: &'a Path, data: Option<&Data>) -> Result<Self> {
        let model = Arc::new(Model::load(path)?.into_inlined()?);
        let signature = Signature::of(&model).with_context(|| format!("{}", path.display()))?;
        let samples = data.map(|data| data.clone().fit(&signature)).transpose()?;
        let signature = if samples.is_none() { signature.settled(&model) } else { signature };
        Ok(Self { path, model, signature, samples })
    }

    /// The inputs that it takes, whatever others do.
    fn shapes(&self) -> Result<Shapes> {
        let own = self.common_with(self);
        Ok(own.with_context(|| format!("{}: cannot be measured", self.path.display()))?.shapes)
    }

    /// How another model corresponds to this one, and the inputs that both take.
    fn common_with(&self, other: &Self) -> Result<Common> {
        let known = self.samples.as_ref().map(Samples::shapes);
        Agreement::of(&self.signature, &other.signature, known.as_deref())?.common().cloned()
    }
}

/// What models are fed.
pub(super) struct Feeds {
    /// The inputs of each.
    pub each: Vec<Feed>,
    /// Of two that take and give the same: for each output of the first, the other's.
    pub outputs: Option<Vec<usize>>,
    /// What is to be known of that.
    pub notes: Vec<String>,
}

/// Inputs for each of `models`.
///
/// # Errors
/// A model whose inputs cannot be made up, or that does not take the batch asked for.
pub(super) fn feeds(models: &[Loaded], arguments: &Arguments) -> Result<Feeds> {
    let each = models.iter().map(Loaded::shapes).collect::<Result<Vec<_>>>()?;
    for (model, shapes) in models.iter().zip(&each) {
        let fixed = shapes.fixed_batch();
        ensure!(
            shapes.open_batch() || arguments.batch == 1 || fixed == arguments.batch as usize,
            "{}: takes batches of {fixed} only; --batch {} cannot be had",
            model.path.display(),
            arguments.batch
        );
    }
    ensure!(
        arguments.extent.is_none() || each.iter().any(Shapes::open_extent),
        "{}: leaves no size open that --extent could set",
        models[0].path.display()
    );
    let mut notes = Vec::new();
    if let [one, other] = models {
        // A size that one of them leaves open is what the other takes, or they would do different work.
        match one.common_with(other) {
            Ok(common) => {
                let first = feed(one, &common.shapes, arguments)?;
                let second = Feed { inputs: common.fed(&first.inputs), batch: first.batch };
                let (outputs, notes) = (Some(common.alignment.outputs), common.alignment.notes);
                return Ok(Feeds { each: vec![first, second], outputs, notes });
            }
            Err(reason) => notes.push(format!(
                "the models do not take and give the same, so the ratio compares different work: {reason:#}"
            )),
        }
    }
    let feeds = models.iter().zip(&each).map(|(model, shapes)| feed(model, shapes, arguments));
    Ok(Feeds { each: feeds.collect::<Result<_>>()?, outputs: None, notes })
}

/// The sizes of images and of the features at a network's end.
const IMAGE: usize = 224;
const FEATURES: usize = 14;

/// Inputs for `model`.
///
/// # Errors
/// More numbers than a run is given.
fn feed(model: &Loaded, shapes: &Shapes, arguments: &Arguments) -> Result<Feed> {
    let batch = if shapes.open_batch() { arguments.batch as usize } else { shapes.fixed_batch() };
    let sized_by = |extent: usize| shapes.sized(batch, (extent, extent));
    // Data leave no size open but the batch.
    let usual = if shapes.looks_like_images() { IMAGE } else { FEATURES };
    let sized = sized_by(arguments.extent.map_or(usual, |extent| extent as usize));
    shapes
        .check(&sized)
        .with_context(|| format!("{}: give a smaller --batch or --extent", model.path.display()))?;
    let inputs = match &model.samples {
        Some(samples) => samples.cut(0, batch),
        None => shapes.random(&sized, 1),
    };
    Ok(Feed { inputs, batch })
}
