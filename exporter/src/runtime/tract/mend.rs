//! What tract cannot take of valid models, said in a way that it can.
//!
//! Each mend is one that real exports needed; the graph that is written for people never sees them.

use std::cell::RefCell;
use std::collections::HashMap;

use isqrt_cov_proto::TensorData;
use isqrt_cov_proto::onnx::tensor_proto::DataType;
use isqrt_cov_proto::onnx::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto};

use crate::graph::producers;

/// The model as tract takes it.
pub fn mend(model: &ModelProto) -> ModelProto {
    let mut mended = model.clone();
    if let Some(graph) = &mut mended.graph {
        default_fill(graph);
        let bounds = Integers::new(graph).bounds();
        for (node, input, tensor) in bounds {
            tensor.name().clone_into(&mut graph.node[node].input[input]);
            graph.initializer.push(tensor);
        }
    }
    mended
}

/// `ConstantOfShape` without its `value` is float32 zero; tract demands the attribute.
fn default_fill(graph: &mut GraphProto) {
    for node in
        graph.node.iter_mut().filter(|node| node.op_type() == "ConstantOfShape" && node.attribute.is_empty())
    {
        node.attribute.push(AttributeProto::tensor("value", TensorProto::from_values("", &[1], &[0.0_f32])));
    }
}

/// Integer constants, seen through the operators that exporters put around them.
struct Integers<'a> {
    graph: &'a GraphProto,
    initializers: HashMap<&'a str, &'a TensorProto>,
    producers: HashMap<&'a str, &'a NodeProto>,
    /// What was looked for already.
    known: RefCell<HashMap<&'a str, Option<Vec<i64>>>>,
}

/// Operators deep that a constant is followed; exporters use two or three.
const DEPTH: usize = 16;

/// The most elements of one: axes of a tensor, or bounds of them.
const LONGEST: usize = 64;

impl<'a> Integers<'a> {
    fn new(graph: &'a GraphProto) -> Self {
        Self {
            graph,
            initializers: graph.initializer.iter().map(|tensor| (tensor.name(), tensor)).collect(),
            producers: producers(graph),
            known: RefCell::default(),
        }
    }

    /// Inputs that tract needs as plain constants: the bounds of slices (an end of i64::MAX that comes through a Cast
    /// comes out one short, silently) and the axis of a `CumSum` (a scalar, though exporters write [1]).
    fn bounds(&self) -> Vec<(usize, usize, TensorProto)> {
        let mut bounds = Vec::new();
        for (index, node) in self.graph.node.iter().enumerate() {
            let inputs = match node.op_type() {
                "Slice" => 1..node.input.len(),
                "CumSum" => 1..2,
                _ => continue,
            };
            for input in inputs {
                let Some(values) = node.input.get(input).and_then(|name| self.values(name, DEPTH)) else {
                    continue;
                };
                let scalar = node.op_type() == "CumSum" && values.len() == 1;
                let dims = if scalar { vec![] } else { vec![values.len()] };
                let name = format!("{}/mended/{index}/{input}", node.input[input]);
                bounds.push((index, input, TensorProto::from_values(&name, &dims, &values)));
            }
        }
        bounds
    }

    /// The elements of an integer constant.
    fn values(&self, name: &'a str, depth: usize) -> Option<Vec<i64>> {
        let known = self.known.borrow().get(name).cloned();
        known.unwrap_or_else(|| {
            let values = self.look(name, depth).filter(|values| values.len() <= LONGEST);
            self.known.borrow_mut().insert(name, values.clone());
            values
        })
    }

    fn look(&self, name: &'a str, depth: usize) -> Option<Vec<i64>> {
        if let Some(tensor) = self.initializers.get(name) {
            return integers(tensor);
        }
        let node = *self.producers.get(name)?;
        let input = |index: usize| self.values(node.input.get(index)?, depth.checked_sub(1)?);
        match node.op_type() {
            "Constant" => integers(&*node.constant()?),
            "Identity" | "Unsqueeze" | "Squeeze" | "Reshape" => input(0),
            "Cast" => {
                let to = node.find("to")?.i();
                (to == DataType::Int64 as i64 || to == DataType::Int32 as i64).then(|| input(0)).flatten()
            }
            "Concat" if node.input.len() <= LONGEST => {
                (0..node.input.len()).map(input).collect::<Option<Vec<_>>>().map(|parts| parts.concat())
            }
            _ => None,
        }
    }
}

fn integers(tensor: &TensorProto) -> Option<Vec<i64>> {
    let is_integer = [DataType::Int64, DataType::Int32].iter().any(|&kind| tensor.data_type() == kind as i32);
    if !is_integer || tensor.dims.len() > 1 || tensor.dims.iter().any(|&size| size > LONGEST as i64) {
        return None;
    }
    TensorData::inline(tensor).ok()?.to_i64()
}
