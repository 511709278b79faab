//! What models are fed while they are measured: the same inputs, where they take the same.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use isqrt_cov_proto::Model;
use isqrt_cov_proto::onnx::ModelProto;

use super::Arguments;
use crate::proof::{Alignment, Shapes};
use crate::signature::Signature;
use crate::tensor::Tensor;

/// A model that was read.
pub(super) struct Loaded<'a> {
    pub path: &'a Path,
    pub model: Arc<ModelProto>,
    signature: Signature,
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
    pub fn read(path: &'a Path) -> Result<Self> {
        let model = Arc::new(Model::load(path)?.into_inlined()?);
        let signature = Signature::of(&model).with_context(|| format!("{}", path.display()))?;
        Ok(Self { path, model, signature })
    }

    /// The inputs that it takes, whatever others do.
    fn shapes(&self) -> Result<Shapes> {
        let own = shapes(&self.signature, &self.signature);
        Ok(own.with_context(|| format!("{}: cannot be measured", self.path.display()))?.1)
    }
}

/// Inputs for each of `models`, and what is to be known of them.
///
/// # Errors
/// A model whose inputs cannot be made up, or that does not take the batch asked for.
pub(super) fn feeds(models: &[Loaded], arguments: &Arguments) -> Result<(Vec<Feed>, Vec<String>)> {
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
    if let [one, other] = models {
        // A size that one of them leaves open is what the other takes, or they would do different work.
        match shapes(&one.signature, &other.signature) {
            Ok((alignment, shapes)) => {
                let first = feed(&shapes, arguments);
                let inputs = alignment.inputs.iter().map(|&index| first.inputs[index].clone()).collect();
                let second = Feed { inputs, batch: first.batch };
                return Ok((vec![first, second], alignment.notes));
            }
            Err(reason) => {
                let note = format!(
                    "the models do not take and give the same, so the ratio compares different work: {reason:#}"
                );
                return Ok((each.iter().map(|shapes| feed(shapes, arguments)).collect(), vec![note]));
            }
        }
    }
    Ok((each.iter().map(|shapes| feed(shapes, arguments)).collect(), Vec::new()))
}

/// How two models correspond, and the inputs that both take.
fn shapes(one: &Signature, other: &Signature) -> Result<(Alignment, Shapes)> {
    let alignment = Alignment::of(one, other).map_err(anyhow::Error::msg)?;
    let shapes = Shapes::agreed(one, other, &alignment, None)?.map_err(anyhow::Error::msg)?;
    Ok((alignment, shapes))
}

fn feed(shapes: &Shapes, arguments: &Arguments) -> Feed {
    let batch = if shapes.open_batch() { arguments.batch as usize } else { shapes.fixed_batch() };
    let sized = shapes.sized(batch, (arguments.extent as usize, arguments.extent as usize));
    Feed { inputs: shapes.random(&sized, 1), batch }
}
