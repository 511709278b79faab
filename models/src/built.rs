//! A network that was described: what it needs of a checkpoint, and its graph in ONNX.

use std::collections::BTreeSet;

use isqrt_cov_op::Layer;
use isqrt_cov_proto::onnx::tensor_proto::DataType;
use isqrt_cov_proto::onnx::{AttributeProto, GraphProto, ModelProto, NodeProto, ValueInfoProto};

use crate::fold::{self, Recipe};
use crate::problem::Problem;
use crate::setting::Choice;
use crate::weights::{Error, Weights};

/// The graph's input: images.
pub(crate) const INPUT: &str = "input";
/// Its output: a score for each class.
pub(crate) const OUTPUT: &str = "logits";

/// How a graph is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// The version of the standard operators, 13 to 23.
    pub opset: i64,
    /// Whether batch normalizations become part of the convolutions before them.
    pub fold: bool,
    /// How weights are stored.
    pub storage: Storage,
}

/// How weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// In float32.
    Float32,
    /// In float16; they are computed with in float32.
    Float16,
    /// What is folded in float64, as it comes out: for proofs, not for runtimes.
    Float64,
}

/// A layer in the graph that was built.
#[derive(Debug, Clone, PartialEq)]
pub struct Placed {
    /// What it computes.
    pub layer: Layer,
    /// The value that it reads.
    pub input: String,
    /// The value that it computes.
    pub output: String,
    /// Its number of channels, where the checkpoint says it.
    pub channels: Option<usize>,
    /// The name of the weights that meet its triangle, where they do.
    pub classifier: Option<String>,
}

/// A network that was described to its end.
#[derive(Debug, Clone, Default)]
pub struct Built {
    /// What the network is called.
    pub title: String,
    /// Its layers.
    pub layers: Vec<Placed>,
    /// What the weights do not tell.
    pub choices: Vec<Choice>,
    /// What else is as usual, and the weights would not tell if it were not.
    pub assumptions: Vec<&'static str>,
    /// What does not fit.
    pub problems: Vec<Problem>,
    /// Names of the checkpoint's tensors that it has.
    pub read: BTreeSet<String>,
    pub(crate) nodes: Vec<NodeProto>,
    pub(crate) recipes: Vec<(String, Recipe)>,
    pub(crate) channels: Option<usize>,
    /// Number of classes, where the checkpoint says it.
    pub classes: Option<usize>,
}

impl Built {
    /// The same where what `weights` have besides does not fit.
    pub(crate) fn with_surplus(mut self, weights: &Weights) -> Self {
        for name in weights.names().filter(|&name| !self.read.contains(name)) {
            let found = weights.dims(name).unwrap_or_default().to_vec();
            self.problems.push(Problem::Surplus { name: weights.original(name).to_owned(), found });
        }
        self
    }

    /// How many numbers were trained: weights and biases, without the statistics of batch normalization.
    #[must_use]
    pub fn parameters(&self, weights: &Weights) -> u64 {
        let is_trained =
            |name: &&String| name.rsplit_once('.').is_some_and(|(_, part)| matches!(part, "weight" | "bias"));
        let trained = self.read.iter().filter(is_trained);
        let size = |name: &String| weights.dims(name).map_or(0, |dims| dims.iter().product::<i64>() as u64);
        trained.map(size).sum()
    }

    /// Checks that the weights are numbers that something can be computed with.
    ///
    /// # Errors
    /// A number that is infinite, or none, or a negative variance; weights that cannot be read.
    pub fn check(&self, weights: &Weights) -> Result<(), Error> {
        let read = self.read.iter().filter(|name| !name.ends_with("num_batches_tracked"));
        for name in read {
            if name.ends_with("running_var") {
                weights.check(name, 0.0, "a variance of 0 or more")?;
            } else {
                weights.check(name, f64::NEG_INFINITY, "a number within float32")?;
            }
        }
        Ok(())
    }

    /// The model. Nodes of the operators' domain have no functions yet.
    ///
    /// # Errors
    /// Weights that cannot be read.
    pub fn model(&self, weights: &Weights, options: Options) -> Result<ModelProto, Error> {
        let mut initializer = Vec::new();
        let mut node = Vec::new();
        for (name, recipe) in &self.recipes {
            let tensor = recipe.make(name, weights, options.storage)?;
            let stored = format!("{name}.float16");
            let is_half = options.storage == Storage::Float16;
            match is_half.then(|| fold::halved(&tensor, &stored)).flatten() {
                Some(half) => {
                    initializer.push(half);
                    let to = AttributeProto::int("to", i32::from(DataType::Float).into());
                    node.push(NodeProto::new("Cast", &[&stored], &[name]).named(name).with(to));
                }
                None => initializer.push(tensor),
            }
        }
        node.extend(self.nodes.iter().cloned());
        let size = |size: Option<usize>, name: &str| size.map_or_else(|| name.into(), Into::into);
        let images = ["batch".into(), size(self.channels, "channels"), "height".into(), "width".into()];
        let scores = ["batch".into(), size(self.classes, "classes")];
        let graph = GraphProto {
            name: Some(self.title.clone()),
            node,
            initializer,
            input: vec![ValueInfoProto::tensor(INPUT, DataType::Float, images)],
            output: vec![ValueInfoProto::tensor(OUTPUT, DataType::Float, scores)],
            value_info: self
                .layers
                .iter()
                .map(|layer| ValueInfoProto::of_any_shape(&layer.input, DataType::Float))
                .collect(),
            ..GraphProto::default()
        };
        Ok(ModelProto {
            producer_name: Some("isqrt-cov".to_owned()),
            producer_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            ..ModelProto::new(graph, options.opset).importing(isqrt_cov_op::DOMAIN, isqrt_cov_op::VERSION)
        })
    }
}
