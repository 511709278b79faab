//! The constants of a graph: initializers and the values of `Constant` nodes.

use std::collections::HashMap;

use isqrt_cov_proto::TensorData;
use isqrt_cov_proto::onnx::{GraphProto, TensorProto, tensor_proto::DataType};

/// Distinct values beyond which a floating-point constant counts as trained: an identity matrix has two, a centering
/// matrix has two, a scalar has one, and a table of triangle indices is not floating-point.
const STRUCTURAL_VALUES: usize = 16;

/// Constants by the name of their value.
#[derive(Debug)]
pub struct Constants<'a> {
    tensors: HashMap<&'a str, &'a TensorProto>,
}

impl<'a> Constants<'a> {
    /// The constants of `graph`.
    #[must_use]
    pub fn new(graph: &'a GraphProto) -> Self {
        let mut tensors: HashMap<&str, &TensorProto> =
            graph.initializer.iter().map(|tensor| (tensor.name(), tensor)).collect();
        for node in graph.node.iter().filter(|node| node.op_type() == "Constant") {
            let value = node.find("value").and_then(|value| value.t.as_deref());
            if let (Some(name), Some(tensor)) = (node.output.first(), value) {
                tensors.insert(name, tensor);
            }
        }
        Self { tensors }
    }

    /// The tensor of a constant.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a TensorProto> {
        self.tensors.get(name).copied()
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
    let width = match DataType::try_from(tensor.data_type()) {
        Ok(DataType::Float) => 4,
        Ok(DataType::Double) => 8,
        Ok(DataType::Float16 | DataType::Bfloat16) => 2,
        _ => return false,
    };
    // A tensor that cannot be read here is refused elsewhere; until then it is nobody's formula.
    let Ok(data) = TensorData::inline(tensor) else { return true };
    let mut distinct = Vec::with_capacity(STRUCTURAL_VALUES + 1);
    for bits in data.bytes().chunks_exact(width) {
        if !distinct.contains(&bits) {
            distinct.push(bits);
            if distinct.len() > STRUCTURAL_VALUES {
                return true;
            }
        }
    }
    false
}
