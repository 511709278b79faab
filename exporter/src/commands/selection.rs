//! Which of the layers found are converted: `--only` and `--skip`.

use anyhow::{Result, bail};
use clap::Args;
use isqrt_cov_proto::onnx::ModelProto;

use super::layers;
use crate::found::Found;

/// The layers that the user names.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Layers")]
pub struct Selection {
    /// Convert this layer and no other; may be given several times
    ///
    /// NAME is the value that the layer reads, the value that it computes, or a node that computes it. `isqrt-cov
    /// inspect` lists the values.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Leave this layer as it is; may be given several times
    ///
    /// NAME is as for --only. A layer that both name is left as it is.
    #[arg(long, value_name = "NAME")]
    skip: Vec<String>,
}

impl Selection {
    /// Whether the user names any.
    pub fn is_any(&self) -> bool {
        !self.only.is_empty() || !self.skip.is_empty()
    }

    /// The layers of `model` to convert, and those to leave as they are.
    ///
    /// # Errors
    /// A name that no layer has.
    pub fn divide(&self, found: Vec<Found>, model: &ModelProto) -> Result<(Vec<Found>, Vec<Found>)> {
        for (option, names) in [("--only", &self.only), ("--skip", &self.skip)] {
            for name in names {
                if !found.iter().any(|layer| is_called(layer, name, model)) {
                    let layers = layers::listed(&found);
                    bail!("{option} {name:?}: no layer has that name; the layers are {layers}");
                }
            }
        }
        Ok(found.into_iter().partition(|layer| {
            let named = |names: &[String]| names.iter().any(|name| is_called(layer, name, model));
            (self.only.is_empty() || named(&self.only)) && !named(&self.skip)
        }))
    }
}

fn is_called(layer: &Found, name: &str, model: &ModelProto) -> bool {
    let nodes = layer.scope.nodes(model).unwrap_or_default();
    let mut nodes = layer.nodes.iter().filter_map(|&node| nodes.get(node));
    !name.is_empty() && (name == layer.input || name == layer.output || nodes.any(|node| node.name() == name))
}
