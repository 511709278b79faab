//! How far two models may be apart and still count as equal.

use isqrt_cov_proto::each_node;
use isqrt_cov_proto::onnx::{AttributeProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};

use super::report::number;
use super::{Accuracy, Proof};
use crate::found::Found;
use crate::graph::{by_key, called, subgraphs};
use crate::tensor::ElementType;

/// How many times as far from the original as the original is from the truth the converted model may be: layers behind
/// amplify the difference, and other inputs give greater ones.
pub const MARGIN: f64 = 4.0;

/// What an original layer in float32 may stray, so that it counts; and how near to float64 the converted one is then.
const STRAYED: f64 = 1e-3;
const TRUE: f64 = 1e-5;

/// The greatest error that counts as equal where the user says nothing, from the least precise floating-point type in
/// either model. Two orders of magnitude above what reordered sums make of a layer, because the layers behind it
/// amplify that; two below what a wrong attribute does to it.
#[must_use]
pub fn tolerance(models: [&ModelProto; 2]) -> f64 {
    let graphs = models.into_iter().filter_map(|model| model.graph.as_ref());
    let types = graphs.flat_map(|graph| {
        let ports = graph.input.iter().chain(&graph.output).filter_map(type_of);
        ports.chain(graph.initializer.iter().filter_map(stored))
    });
    types.map(of).fold(of(ElementType::F64), f64::max)
}

/// The same of one type.
pub(super) fn of(element: ElementType) -> f64 {
    match element {
        ElementType::BF16 => 5e-2,
        ElementType::F16 => 1e-2,
        ElementType::F64 => 1e-9,
        _ => 1e-4,
    }
}

impl Proof {
    /// Judges again where an original layer rounds more than the model's types say: one may compute in float16 between
    /// two casts. The converted model cannot be nearer to the original than the original is to the truth.
    ///
    /// What a layer strays is known from `accuracies`. It counts only up to the tolerance of a model in the least precise
    /// type that the layer computes in, or up to [`STRAYED`] where the converted layer is true: sums over many positions lose more
    /// than reordered ones differ.
    pub fn allow_rounding(&mut self, layers: &[Found], accuracies: &[Result<Accuracy, String>]) {
        let strayed = layers.iter().zip(accuracies).filter_map(|(found, accuracy)| {
            let Accuracy { before, after, .. } = accuracy.as_ref().ok()?;
            let error = before.max;
            let element = least_precise(&found.recognition()?.region)?;
            let is_true = element == ElementType::F32 && after.max <= TRUE;
            let most = if is_true { STRAYED } else { of(element) };
            Some(((MARGIN * error).min(most), error, element, &found.output))
        });
        let Some((allowed, error, element, output)) =
            strayed.max_by(|left, right| left.0.total_cmp(&right.0))
        else {
            return;
        };
        if allowed <= self.tolerance {
            return;
        }
        self.notes.push(format!(
            "the original layer `{output}`, which rounds to {}, is itself {} from float64: up to {allowed:.1e} counts as \
             equal, instead of {:.0e}",
            element.name(),
            number(error),
            self.tolerance
        ));
        self.tolerance = allowed;
        self.judge();
    }
}

/// The least precise floating-point type that a part of a model has among its inputs, constants and casts.
fn least_precise(part: &ModelProto) -> Option<ElementType> {
    let graph = part.graph.as_ref()?;
    let mut types: Vec<ElementType> = graph.input.iter().filter_map(type_of).collect();
    types.extend(graph.initializer.iter().filter_map(stored));
    let called = called(&by_key(&part.functions), [&graph.node[..]]);
    for nodes in std::iter::once(&graph.node).chain(called.into_iter().map(|function| &function.node)) {
        each_node(nodes, &mut |node| {
            types.extend(node.attribute.iter().filter_map(|attribute| named(node, attribute)));
            types.extend(subgraphs(node).flat_map(|graph| &graph.initializer).filter_map(stored));
        });
    }
    types.into_iter().max_by(|left, right| of(*left).total_cmp(&of(*right)))
}

/// The type that an attribute gives a node's output: a cast's, a constant's.
fn named(node: &NodeProto, attribute: &AttributeProto) -> Option<ElementType> {
    match attribute.name() {
        "to" | "dtype" if node.domain().is_empty() => float(i32::try_from(attribute.i()).ok()?),
        _ => stored(attribute.t.as_deref()?),
    }
}

fn type_of(value: &ValueInfoProto) -> Option<ElementType> {
    float(value.tensor_type()?.elem_type())
}

fn stored(tensor: &TensorProto) -> Option<ElementType> {
    float(tensor.data_type?)
}

fn float(number: i32) -> Option<ElementType> {
    ElementType::from_onnx(number).filter(|element| element.is_float())
}

#[cfg(test)]
mod tests {
    use isqrt_cov_op::{Layer, OperatorKind};
    use isqrt_cov_proto::onnx::GraphProto;
    use isqrt_cov_proto::onnx::tensor_proto::DataType;

    use super::*;
    use crate::proof::Difference;
    use crate::tensor::Tensor;

    /// A layer that casts its float32 input to `to`.
    fn layer(to: DataType) -> Found {
        let cast =
            NodeProto::new("Cast", &["x"], &["y"]).with(AttributeProto::int("to", i64::from(i32::from(to))));
        let graph = GraphProto {
            node: vec![cast],
            input: vec![ValueInfoProto::tensor("x", DataType::Float, [2.into(), 3.into()])],
            ..GraphProto::default()
        };
        let region = ModelProto { graph: Some(graph), ..ModelProto::default() };
        let found = Found::example(Layer::new(OperatorKind::IsqrtCov), "x", "y", vec![0]);
        found.recognized_with(|recognition| recognition.region = region)
    }

    /// The tolerance and whether the proof passes, of models that are `apart`, by layers that are `strayed` from float64.
    fn judged(apart: f64, strayed: f64, to: DataType) -> (f64, bool) {
        converted(apart, strayed, 0.0, to)
    }

    /// The same where the converted layer is so far from float64.
    fn converted(apart: f64, strayed: f64, after: f64, to: DataType) -> (f64, bool) {
        let mut proof = Proof::example(vec![("z".to_owned(), Difference::example(apart))]);
        proof.judge();
        let [before, after] = [strayed, after].map(Difference::example);
        let accuracy = Accuracy { before, after, ..Accuracy::default() };
        proof.allow_rounding(&[layer(to)], &[Ok(accuracy)]);
        assert_eq!(proof.notes.len(), usize::from(proof.tolerance > 1e-4));
        (proof.tolerance, proof.failure.is_none())
    }

    #[test]
    fn the_least_precise_type_of_either_model_decides() {
        let model = |input: DataType, stored: ElementType, output: DataType| {
            let port = |name, element| ValueInfoProto::tensor(name, element, [1.into()]);
            let initializer = Tensor::zeros(stored, &[1]).to_proto("w");
            let graph = GraphProto {
                input: vec![port("x", input)],
                output: vec![port("y", output)],
                initializer: vec![initializer],
                ..GraphProto::default()
            };
            ModelProto { graph: Some(graph), ..ModelProto::default() }
        };
        let double = || model(DataType::Double, ElementType::F64, DataType::Double);
        let cases = [
            (double(), 1e-9),
            (model(DataType::Float, ElementType::F64, DataType::Double), 1e-4),
            (model(DataType::Double, ElementType::F16, DataType::Double), 1e-2),
            (model(DataType::Double, ElementType::F64, DataType::Bfloat16), 5e-2),
        ];
        for (other, expected) in cases {
            let found = [tolerance([&double(), &other]), tolerance([&other, &double()])];
            assert!(
                found.iter().all(|found| found.to_bits() == f64::to_bits(expected)),
                "{found:?}, {expected}"
            );
        }
    }

    #[test]
    fn what_the_original_strays_counts_as_equal() {
        let (tolerance, passes) = judged(3e-3, 1e-3, DataType::Float16);
        assert!((tolerance - 4e-3).abs() < 1e-9 && passes);
        assert_eq!(
            judged(3e-3, 1e-6, DataType::Float16),
            (1e-4, false),
            "a difference that no rounding explains"
        );
        assert_eq!(judged(3e-5, 1e-6, DataType::Float16), (1e-4, true));
    }

    #[test]
    fn sums_in_float32_may_stray_where_the_converted_layer_is_true() {
        let (tolerance, passes) = judged(3e-4, 1e-4, DataType::Float);
        assert!((tolerance - 4e-4).abs() < 1e-9 && passes);
        assert_eq!(converted(3e-4, 1e-4, 2e-5, DataType::Float), (1e-4, false));
        assert_eq!(judged(3e-4, 2e-5, DataType::Float), (1e-4, false));
    }

    #[test]
    fn no_more_than_the_layers_types_explain() {
        assert_eq!(judged(3e-2, 1e-1, DataType::Float16), (1e-2, false));
        assert_eq!(judged(3e-2, 1e-1, DataType::Bfloat16), (5e-2, true));
        assert_eq!(judged(3e-3, 1e-1, DataType::Float), (1e-3, false));
        // Its input is in float32 as well.
        assert_eq!(judged(3e-3, 1e-1, DataType::Double), (1e-3, false));
    }
}
