//! The constants of a graph: initializers and the values of `Constant` nodes.

use std::borrow::Cow;
use std::collections::HashMap;

use half::{bf16, f16};
use isqrt_cov_proto::onnx::{GraphProto, TensorProto, tensor_proto::DataType};
use isqrt_cov_proto::{Element, TensorData};

/// Distinct values beyond which a floating-point constant counts as trained, unless all are integers: an identity matrix has
/// two, a centering matrix has two, a scalar has one, and what rows and columns are numbered with has integers.
const STRUCTURAL_VALUES: usize = 16;

/// Constants by the name of their value.
#[derive(Debug)]
pub struct Constants<'a> {
    tensors: HashMap<&'a str, Cow<'a, TensorProto>>,
}

impl<'a> Constants<'a> {
    /// The constants of `graph`.
    #[must_use]
    pub fn new(graph: &'a GraphProto) -> Self {
        let mut tensors: HashMap<&str, Cow<TensorProto>> =
            graph.initializer.iter().map(|tensor| (tensor.name(), Cow::Borrowed(tensor))).collect();
        let nodes =
            graph.node.iter().filter_map(|node| Some((node.output.first()?.as_str(), node.constant()?)));
        tensors.extend(nodes);
        Self { tensors }
    }

    /// The tensor of a constant.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&TensorProto> {
        self.tensors.get(name).map(AsRef::as_ref)
    }

    /// Whether a constant looks like trained weights rather than like a part of a formula.
    #[must_use]
    pub fn looks_trained(&self, name: &str) -> bool {
        self.get(name).is_some_and(looks_trained)
    }
}

/// Whether a tensor looks like trained weights rather than like a part of a formula.
#[must_use]
pub fn looks_trained(tensor: &TensorProto) -> bool {
    let (width, value): (usize, fn(&[u8]) -> f64) = match DataType::try_from(tensor.data_type()) {
        Ok(DataType::Float) => (4, number::<f32>),
        Ok(DataType::Double) => (8, number::<f64>),
        Ok(DataType::Float16) => (2, number::<f16>),
        Ok(DataType::Bfloat16) => (2, number::<bf16>),
        _ => return false,
    };
    // A tensor that cannot be read here is refused elsewhere; until then it is nobody's formula.
    let Ok(data) = TensorData::inline(tensor) else { return true };
    let mut distinct = Vec::with_capacity(STRUCTURAL_VALUES + 1);
    let mut all_integers = true;
    for bits in data.bytes().chunks_exact(width) {
        all_integers &= value(bits).fract() == 0.0;
        if distinct.len() <= STRUCTURAL_VALUES && !distinct.contains(&bits) {
            distinct.push(bits);
        }
        if distinct.len() > STRUCTURAL_VALUES && !all_integers {
            return true;
        }
    }
    false
}

/// The number that the bytes of an element are.
fn number<T: Element + Into<f64>>(bytes: &[u8]) -> f64 {
    T::from_le(bytes).into()
}

#[cfg(test)]
mod tests {
    use isqrt_cov_proto::onnx::{AttributeProto, NodeProto};

    use super::*;

    #[test]
    fn many_numbers_are_trained_unless_all_are_integers() {
        let trained = |values: &[f32]| looks_trained(&TensorProto::from_values("", &[values.len()], values));
        let numbers = |count: u8, step: f32| (0..count).map(|at| f32::from(at) * step).collect::<Vec<_>>();
        assert!(!trained(&numbers(16, 0.1)) && trained(&numbers(17, 0.1)));
        assert!(!trained(&numbers(200, 1.0)));
        assert!(trained(&[numbers(200, 1.0), vec![0.5]].concat()));
        let halves: Vec<f16> = numbers(64, 0.25).into_iter().map(f16::from_f32).collect();
        assert!(looks_trained(&TensorProto::from_values("", &[64], &halves)));
        // Whatever a node calls them.
        let floats = AttributeProto {
            floats: numbers(64, 0.1),
            name: Some("value_floats".to_owned()),
            ..Default::default()
        };
        let graph = GraphProto {
            node: vec![NodeProto::new("Constant", &[], &["w"]).with(floats)],
            ..Default::default()
        };
        assert!(Constants::new(&graph).looks_trained("w"));
    }
}
