//! How near layers are to the truth that no output of the model can show: those in graphs inside nodes and in functions.

use std::sync::Arc;

use anyhow::{Context, Result};
use isqrt_cov_proto::onnx::ModelProto;

use super::parting::output_of;
use super::truth::{Accuracy, BUDGET, Values};
use crate::found::Found;
use crate::rewrite;
use crate::runtime::Runtime;
use crate::scope::Scope;

/// The accuracy of one layer, cut out of the model with its graph and with the operator in its place, both on what it
/// read when the model was looked through.
///
/// # Errors
/// What the runtime reports.
pub(super) fn inside(found: &Found, runtime: &dyn Runtime) -> Result<Accuracy> {
    let recognition = found.recognition().context("nothing computes what it read")?;
    let (input, mut before) = (&recognition.seen, recognition.region.clone());
    let graph = before.graph.as_mut().context("the layer was not cut out")?;
    graph.output = vec![output_of(found)];
    let nodes = (0..graph.node.len()).collect();
    let alone = Found { scope: Scope::default(), nodes, ..found.clone() };
    let mut after = before.clone();
    rewrite::apply(&mut after, &[alone], true)?;
    let values = |model: ModelProto| -> Result<Values> {
        let session = runtime.prepare(&Arc::new(model), &[input.dims().to_vec()])?;
        let output = session.run(std::slice::from_ref(input))?.pop().context("the layer has no output")?;
        Ok(Values { input: found.own_input(input.clone()), output: found.own_output(output) })
    };
    let mut accuracy = Accuracy::default();
    accuracy.add(&found.layer, &values(before)?, &values(after)?, BUDGET, "a random input")?;
    Ok(accuracy)
}
