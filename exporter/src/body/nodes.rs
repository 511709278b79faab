//! Nodes as a body adds them.

use isqrt_cov_proto::Element;
use isqrt_cov_proto::onnx::tensor_proto::DataType;
use isqrt_cov_proto::onnx::{AttributeProto, NodeProto, TensorProto};

/// The nodes of a function, or of a branch in it, as they are added. Values are known by their names.
pub(super) struct Body {
    pub(super) nodes: Vec<NodeProto>,
    /// What the names of values begin with: branches must not share any.
    pub(super) prefix: String,
    pub(super) opset: i64,
    /// The type in which the body computes.
    pub(super) wide: DataType,
}

impl Body {
    /// The sum over `axes`, which stay as 1.
    pub(super) fn sum(&mut self, name: &str, of: &str, axes: &[i64]) -> String {
        if self.opset < 13 {
            let axes = AttributeProto::ints("axes", axes);
            return self.push(name, NodeProto::new("ReduceSum", &[of], &[]).with(axes));
        }
        let axes = self.integers(&format!("{name}_axes"), axes);
        self.add(name, "ReduceSum", &[of, &axes])
    }

    pub(super) fn transpose(&mut self, name: &str, of: &str) -> String {
        let perm = AttributeProto::ints("perm", &[0, 2, 1]);
        self.push(name, NodeProto::new("Transpose", &[of], &[]).with(perm))
    }

    pub(super) fn cast(&mut self, name: &str, input: &str) -> String {
        let to = AttributeProto::int("to", i32::from(self.wide).into());
        self.push(name, NodeProto::new("Cast", &[input], &[]).with(to))
    }

    pub(super) fn concat(&mut self, name: &str, inputs: &[&str]) -> String {
        self.push(name, NodeProto::new("Concat", inputs, &[]).with(AttributeProto::int("axis", 0)))
    }

    /// A scalar of the type in which the body computes.
    pub(super) fn number(&mut self, name: &str, value: f64) -> String {
        match self.wide {
            DataType::Double => self.constant(name, &[], &[value]),
            _ => self.constant(name, &[], &[value as f32]),
        }
    }

    pub(super) fn integers(&mut self, name: &str, values: &[i64]) -> String {
        self.constant(name, &[values.len()], values)
    }

    pub(super) fn constant<T: Element>(&mut self, name: &str, dims: &[usize], values: &[T]) -> String {
        let value = TensorProto { name: None, ..TensorProto::from_values("", dims, values) };
        self.push(name, NodeProto::new("Constant", &[], &[]).with(AttributeProto::tensor("value", value)))
    }

    pub(super) fn add(&mut self, name: &str, op_type: &str, inputs: &[&str]) -> String {
        self.push(name, NodeProto::new(op_type, inputs, &[]))
    }

    /// Adds `node`, unless it is there already. Returns the name of its output, which is `name` behind the prefix.
    pub(super) fn push(&mut self, name: &str, mut node: NodeProto) -> String {
        let name = format!("{}{name}", self.prefix);
        node.output = vec![name.clone()];
        if !self.nodes.contains(&node) {
            self.nodes.push(node);
        }
        name
    }
}
