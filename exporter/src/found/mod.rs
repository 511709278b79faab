//! A layer in a model: where it is, what of the graph it stands for, and how it is known.

mod view;

use isqrt_cov_op::Layer;
use isqrt_cov_proto::onnx::ModelProto;

pub(crate) use self::view::views;
pub use self::view::{AS_IS, View};
use crate::scope::Scope;
use crate::tensor::{ElementType, Tensor};

/// A layer: where it is in the model, and how it is known.
#[derive(Debug, Clone)]
pub struct Found {
    /// The operator and its attributes.
    pub layer: Layer,
    /// The graph that it is in.
    pub scope: Scope,
    /// The same for people; nothing for the main graph.
    pub within: String,
    /// The value that it reads.
    pub input: String,
    /// The value that it computes.
    pub output: String,
    /// Element type of both.
    pub element: ElementType,
    /// How the operator reads `input`.
    pub view: View,
    /// Sizes of the axes beside the first that count samples, where there are such and they are fixed.
    pub groups: Option<Vec<usize>>,
    /// How `output` has the operator's numbers.
    pub arrangement: Arrangement,
    /// Indices, among the nodes of its graph, of the nodes that only this layer needs.
    pub nodes: Vec<usize>,
    /// How it is known.
    pub origin: Origin,
}

/// How it is known that a layer is where it is said to be.
#[derive(Debug, Clone)]
pub enum Origin {
    /// A region computes what the operator does.
    Recognized(Box<Recognition>),
    /// An exporter dropped it, and it was put back on the user's word: the attributes, by name, that nothing in the file tells.
    PutBack(Vec<&'static str>),
    /// A checkpoint's architecture has it there.
    Built,
}

/// The region that a layer was recognized in, and what was observed of it.
#[derive(Debug, Clone)]
pub struct Recognition {
    /// The region as a model of its own: one input of the shape that it was evaluated with, one output.
    pub region: ModelProto,
    /// What it read in the model, of that shape.
    pub seen: Tensor,
    /// What evaluated the region.
    pub evaluator: String,
    /// Why it is the layer.
    pub evidence: Evidence,
}

/// How a value of a graph has the numbers of an operator's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arrangement {
    /// As the operator gives them.
    AsGiven,
    /// Each sample in this shape: with a trailing axis of 1, or as a flat matrix.
    Reshaped(Vec<usize>),
    /// Each sample in this shape, behind the axes that count samples, apart as the input has them: several, or none.
    Apart(Vec<usize>),
    /// Triangles [D, N], one in each column: optimizers let the product behind transpose them.
    SamplesLast,
}

/// How well the identified attributes explain the numbers.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// max|Δ| / max|reference| of the winner against the float64 reference, the worst over all probes.
    pub error: f64,
    /// The same of the best other attributes that compute another function.
    pub runner_up: f64,
    /// Those attributes.
    pub runner_up_layer: Option<Layer>,
    /// Probes evaluated.
    pub probes: usize,
    /// The scale of inputs down to which the graph's numbers are the operator's, where they are not on smaller ones: the graph adds
    /// or limits something by next to nothing, to keep a divisor from 0. A thousandth of what the layer reads of ordinary
    /// inputs of the model, or nothing where no input shows a difference.
    pub down_to: Option<f64>,
}

impl Found {
    /// What the operator reads where the graph has `input`.
    #[must_use]
    pub fn own_input(&self, input: Tensor) -> Tensor {
        self.view.own(input)
    }

    /// Whether the operator's output fits in the shape that is said of a sample, where the input is of shape `dims`.
    #[must_use]
    pub fn is_as_large(&self, dims: &[usize]) -> bool {
        let (Arrangement::Apart(sample) | Arrangement::Reshaped(sample)) = &self.arrangement else {
            return true;
        };
        let own = self.layer.output_dims(&self.view.own_dims(dims));
        own.map_or(true, |own| own[1..].iter().product::<usize>() == sample.iter().product::<usize>())
    }

    /// What the operator gives where the graph has `output`, sample after sample.
    #[must_use]
    pub fn own_output(&self, output: Tensor) -> Tensor {
        match self.arrangement {
            Arrangement::SamplesLast => output.transposed(),
            Arrangement::Apart(_) => output.reshaped(&self.view.merged(output.dims())),
            Arrangement::AsGiven | Arrangement::Reshaped(_) => output,
        }
    }

    /// What it was recognized by, where it was.
    #[must_use]
    pub fn recognition(&self) -> Option<&Recognition> {
        match &self.origin {
            Origin::Recognized(recognition) => Some(recognition),
            Origin::PutBack(_) | Origin::Built => None,
        }
    }

    /// What was assumed of it, where it was put back on the user's word.
    #[must_use]
    pub fn assumed(&self) -> Option<&[&'static str]> {
        match &self.origin {
            Origin::PutBack(assumed) => Some(assumed),
            Origin::Recognized(_) | Origin::Built => None,
        }
    }

    /// Whether it was put back on the user's word.
    #[must_use]
    pub fn is_put_back(&self) -> bool {
        self.assumed().is_some()
    }
}

#[cfg(test)]
impl Found {
    /// A finding in the main graph that `nodes` make up.
    pub(crate) fn example(layer: Layer, input: &str, output: &str, nodes: Vec<usize>) -> Self {
        Self {
            layer,
            scope: Scope::default(),
            within: String::new(),
            input: input.to_owned(),
            output: output.to_owned(),
            element: ElementType::F32,
            view: AS_IS.clone(),
            groups: None,
            arrangement: Arrangement::AsGiven,
            nodes,
            origin: Origin::Recognized(Box::new(Recognition {
                region: ModelProto::default(),
                seen: Tensor::zeros(ElementType::F32, &[1]),
                evaluator: String::new(),
                evidence: Evidence {
                    error: 0.0,
                    runner_up: 1.0,
                    runner_up_layer: None,
                    probes: 4,
                    down_to: None,
                },
            })),
        }
    }

    /// The same with a `change` to what it was recognized by.
    pub(crate) fn recognized_with(mut self, change: impl FnOnce(&mut Recognition)) -> Self {
        if let Origin::Recognized(recognition) = &mut self.origin {
            change(recognition);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use isqrt_cov_op::OperatorKind;

    use super::*;

    #[test]
    fn a_shape_of_samples_is_for_one_number_of_channels() {
        let fits = |arrangement: &Arrangement, dims: &[usize]| {
            let example = Found::example(Layer::new(OperatorKind::IsqrtCov), "x", "y", vec![0]);
            Found { arrangement: arrangement.clone(), ..example }.is_as_large(dims)
        };
        for written in [Arrangement::Reshaped(vec![21, 1]), Arrangement::Apart(vec![21])] {
            assert!(fits(&written, &[2, 6, 20]) && !fits(&written, &[2, 7, 20]), "{written:?}");
        }
        assert!(fits(&Arrangement::AsGiven, &[2, 7, 20]) && fits(&Arrangement::SamplesLast, &[2, 7, 20]));
    }
}
