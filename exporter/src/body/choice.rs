//! One function for several layers: a branch for each, chosen by the attributes of the node that calls it.

use isqrt_cov_op::Layer;
use isqrt_cov_op::layer::Value;
use isqrt_cov_proto::onnx::attribute_proto::AttributeType;
use isqrt_cov_proto::onnx::tensor_proto::DataType;
use isqrt_cov_proto::onnx::{AttributeProto, GraphProto, NodeProto, ValueInfoProto};

use super::nodes::Body;

impl Body {
    /// The one of `layers` that the attributes of the function's caller describe.
    pub(super) fn choose(&mut self, layers: &[Layer], input: &str, output: &str) -> String {
        let (layer, others) = match layers {
            [layer] => return self.compute(layer, input, output),
            [layer, others @ ..] => (layer, others),
            [] => unreachable!("the rest of two or more layers is never empty"),
        };
        let condition = self.matches(layer, others);
        let branch = |name: &str, layers: &[Layer]| {
            let prefix = format!("{}{name}_", self.prefix);
            let mut body = Self { nodes: Vec::new(), prefix, ..*self };
            let result = body.choose(layers, input, "result");
            let graph = GraphProto {
                name: Some(name.to_owned()),
                node: body.nodes,
                output: vec![ValueInfoProto::of_any_shape(&result, self.wide)],
                ..GraphProto::default()
            };
            AttributeProto::graph(name, graph)
        };
        let (this, other) = (branch("then_branch", &[*layer]), branch("else_branch", others));
        self.push(output, NodeProto::new("If", &[&condition], &[]).with(this).with(other))
    }

    /// Whether the attributes of the function's caller are those of `layer` and not of one of `others`.
    fn matches(&mut self, layer: &Layer, others: &[Layer]) -> String {
        let mut all: Option<String> = None;
        for (name, value) in layer.attributes() {
            if others.iter().all(|other| other.attributes().contains(&(name, value.clone()))) {
                continue;
            }
            let same = self.has(name, &value);
            all = Some(match all {
                None => same,
                Some(all) => self.add(&format!("matches_to_{name}"), "And", &[&all, &same]),
            });
        }
        // Equal layers in the list would leave nothing to ask; either of them will do.
        all.unwrap_or_else(|| self.constant("always", &[], &[true]))
    }

    /// Whether the caller's attribute `name` has this value.
    fn has(&mut self, name: &str, value: &Value) -> String {
        let (field, r#type) = match value {
            Value::Integer(_) => ("value_int", AttributeType::Int),
            Value::Float(_) => ("value_float", AttributeType::Float),
            Value::Word(_) => ("value_string", AttributeType::String),
        };
        let reference = AttributeProto::reference(field, name, r#type);
        let given = self.push(name, NodeProto::new("Constant", &[], &[]).with(reference));
        let expected = match value {
            Value::Integer(value) => self.constant(&format!("{name}_expected"), &[], &[*value]),
            Value::Float(value) => self.constant(&format!("{name}_expected"), &[], &[*value]),
            Value::Word(word) => {
                // Strings can be compared only from operator set 19 on, but counted long before.
                let one = self.integers("one_word", &[1]);
                let words = self.add(&format!("{name}_words"), "Reshape", &[&given, &one]);
                let node = NodeProto::new("TfIdfVectorizer", &[&words], &[])
                    .with(AttributeProto::strings("pool_strings", &[word]))
                    .with(AttributeProto::string("mode", "TF"))
                    .with(AttributeProto::int("min_gram_length", 1))
                    .with(AttributeProto::int("max_gram_length", 1))
                    .with(AttributeProto::int("max_skip_count", 0))
                    .with(AttributeProto::ints("ngram_counts", &[0]))
                    .with(AttributeProto::ints("ngram_indexes", &[0]));
                let count = self.push(&format!("{name}_count"), node);
                let to = AttributeProto::int("to", i32::from(DataType::Bool).into());
                return self
                    .push(&format!("{name}_matches"), NodeProto::new("Cast", &[&count], &[]).with(to));
            }
        };
        self.add(&format!("{name}_matches"), "Equal", &[&given, &expected])
    }
}
