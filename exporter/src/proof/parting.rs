//! Where two models part: the first tensor, in graph order, on which they disagree.

use std::sync::Arc;

use isqrt_cov_proto::onnx::{ModelProto, ValueInfoProto};

use super::{Pair, Plan};
use crate::found::Found;
use crate::progress::Progress;

impl Pair<'_> {
    /// Says at which tensor the models part, of those that the layers compute and the outputs; nothing where they cannot be
    /// compared there.
    ///
    /// One seed is run, and the whole `plan` only where that shows nothing.
    #[must_use]
    pub fn parting(&self, layers: &[Found], plan: &Plan) -> Option<String> {
        let mut layers: Vec<&Found> = in_main_graph(layers).collect();
        layers.sort_by_key(|found| found.nodes.last().copied());
        let values: Vec<ValueInfoProto> = layers.into_iter().map(output_of).collect();
        let models = [self.reference, self.candidate].map(|model| Arc::new(showing_first(model, &values)));
        let pair = Pair::of(&models[0], &models[1], self.runtime, plan).ok()?;
        for plan in [&plan.in_short(), plan] {
            let proof = pair.compare(plan, &Progress::hidden()).ok()?;
            let parted = proof.outputs.iter().position(|(_, difference)| difference.max > proof.tolerance);
            let Some(parted) = parted else { continue };
            let (name, difference) = &proof.outputs[parted];
            let place =
                difference.worst.as_ref().map_or_else(String::new, |place| format!(", worst {place}"));
            let agreed =
                proof.outputs[..parted.min(values.len())].iter().map(|(_, difference)| difference.max);
            return Some(if parted < values.len() {
                format!(
                    "they part at the layer's output `{name}`, by {:.1e} of its greatest value{place}",
                    difference.max
                )
            } else if values.is_empty() {
                format!("the first output on which they part is `{name}`")
            } else {
                format!(
                    "the layers themselves agree to {:.1e}, and the first tensor on which the models part is the output \
                 `{name}`: what lies between amplifies that, and --tolerance decides how much may be",
                    agreed.fold(0.0, f64::max)
                )
            });
        }
        None
    }
}

/// The layers in the main graph, whose output can be made an output of the model.
pub(super) fn in_main_graph(layers: &[Found]) -> impl Iterator<Item = &Found> {
    layers.iter().filter(|found| found.scope.is_main())
}

/// A layer's output as an output of the model.
pub(super) fn output_of(found: &Found) -> ValueInfoProto {
    ValueInfoProto::of_any_shape(&found.output, found.element.into())
}

/// `model` with `values` of its main graph as its first outputs; its own follow.
pub(super) fn showing_first(model: &ModelProto, values: &[ValueInfoProto]) -> ModelProto {
    let mut model = model.clone();
    if let Some(graph) = &mut model.graph {
        graph.output.retain(|output| values.iter().all(|value| value.name() != output.name()));
        graph.output.splice(0..0, values.iter().cloned());
    }
    model
}

#[cfg(test)]
mod tests {
    use isqrt_cov_op::{Layer, OperatorKind};
    use isqrt_cov_proto::onnx::tensor_proto::DataType;
    use isqrt_cov_proto::onnx::{GraphProto, NodeProto, TensorProto};

    use super::*;
    use crate::runtime::tract::Tract;

    /// y = x + `first`, z = y · y + `second`: y is the layer.
    fn model(first: f32, second: f32) -> ModelProto {
        let port = |name| ValueInfoProto::tensor(name, DataType::Float, [2.into(), 3.into()]);
        let graph = GraphProto {
            name: Some("steps".to_owned()),
            node: vec![
                NodeProto::new("Add", &["x", "first"], &["y"]),
                NodeProto::new("Mul", &["y", "y"], &["square"]),
                NodeProto::new("Add", &["square", "second"], &["z"]),
            ],
            initializer: vec![
                TensorProto::from_values("first", &[1], &[first]),
                TensorProto::from_values("second", &[1], &[second]),
            ],
            input: vec![port("x")],
            output: vec![port("z")],
            ..GraphProto::default()
        };
        ModelProto::new(graph, 17)
    }

    #[test]
    fn the_first_tensor_that_differs_is_named() {
        let layer = Found::example(Layer::new(OperatorKind::IsqrtCov), "x", "y", vec![0]);
        let plan = Plan { seeds: 2, tolerance: None, samples: None, shapes: None };
        let said = |converted: &ModelProto, layers: &[Found]| {
            let models = [&model(1.0, 1.0), converted].map(|model| Arc::new(model.clone()));
            let runtime = Tract::new();
            Pair::of(&models[0], &models[1], &runtime, &plan).unwrap().parting(layers, &plan)
        };
        let layers = [layer];
        let at_layer = said(&model(1.5, 1.0), &layers).unwrap();
        assert!(at_layer.starts_with("they part at the layer's output `y`, by "), "{at_layer}");
        assert!(at_layer.contains("worst on seed 1, inputs [[2, 3]] at ["), "{at_layer}");
        let behind = said(&model(1.0, 1.5), &layers).unwrap();
        assert!(behind.contains("agree to 0.0e0") && behind.contains("is the output `z`"), "{behind}");
        let beside_rounding = said(&model(1.0 + 1e-6, 1.5), &layers).unwrap();
        assert!(beside_rounding.contains("is the output `z`"), "{beside_rounding}");
        assert_eq!(said(&model(1.0, 1.5), &[]).unwrap(), "the first output on which they part is `z`");
        assert_eq!(said(&model(1.0, 1.0), &layers), None);
    }
}
