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
        if let [layer] = layers {
            return self.compute(layer, input, output);
        }
        // By halves: readers allow few graphs in each other.
        let (first, others) = layers.split_at(layers.len() / 2);
        let condition = self.is_one_of(first, layers);
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
        let (this, other) = (branch("then_branch", first), branch("else_branch", others));
        self.push(output, NodeProto::new("If", &[&condition], &[]).with(this).with(other))
    }

    /// Whether the attributes of the function's caller are those of one of `wanted`, which are among `layers`, and of no other.
    fn is_one_of(&mut self, wanted: &[Layer], layers: &[Layer]) -> String {
        let prefix = self.prefix.clone();
        let mut any: Option<String> = None;
        for (index, layer) in wanted.iter().enumerate() {
            if index > 0 {
                self.prefix = format!("{prefix}or_{index}_");
            }
            let one = self.matches(layer, layers);
            any = Some(match any {
                None => one,
                Some(any) => self.add("matches", "Or", &[&any, &one]),
            });
        }
        self.prefix = prefix;
        // A function is of one layer at least.
        any.unwrap_or_else(|| self.constant("never", &[], &[false]))
    }

    /// Whether the attributes of the function's caller are those of `layer`, as far as they differ among `layers`.
    fn matches(&mut self, layer: &Layer, layers: &[Layer]) -> String {
        let mut all: Option<String> = None;
        for (name, value) in layer.attributes() {
            if layers.iter().all(|other| other.attributes().contains(&(name, value.clone()))) {
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

#[cfg(test)]
mod tests {
    use isqrt_cov_op::{Layer, OperatorKind};
    use isqrt_cov_proto::onnx::tensor_proto::DataType;
    use isqrt_cov_proto::onnx::{GraphProto, ModelProto, ValueInfoProto};
    use prost::Message as _;

    use crate::body::function_for;
    use crate::evaluate::{Evaluator, Precision};
    use crate::fused::node_of;
    use crate::tensor::{ElementType, Tensor};

    /// What a node of `layer` is given by a function of `layers`.
    fn computed(layer: &Layer, layers: &[Layer]) -> Vec<f64> {
        let body = function_for(layers, Some(DataType::Float), 17).unwrap();
        let ports = |name: &str, rank: usize| {
            vec![ValueInfoProto::tensor(name, DataType::Float, (0..rank).map(|_| "d".into()))]
        };
        let graph = GraphProto {
            node: vec![node_of(layer, "x", "y").in_domain("bodies")],
            input: ports("x", 3),
            output: ports("y", 3),
            ..GraphProto::default()
        };
        let model = ModelProto {
            functions: vec![isqrt_cov_proto::onnx::FunctionProto {
                domain: Some("bodies".to_owned()),
                ..body
            }],
            ..ModelProto::new(graph, 17)
        };
        // As it is read again.
        let model = ModelProto::decode(&model.encode_to_vec()[..]).unwrap();
        let x = Tensor::from_f64(ElementType::F32, &[1, 2, 3], &[1.0, -2.0, 0.5, 3.0, 1.5, -0.25]);
        Evaluator::new(&model, Precision::Exact, None).unwrap().run(&[x]).unwrap()[0].to_f64()
    }

    #[test]
    fn as_many_layers_as_there_are_share_a_function() {
        let layers: Vec<Layer> = (1..=12)
            .flat_map(|iterations| [0.0, 0.25, 0.5].map(|epsilon| (iterations, epsilon)))
            .map(|(iterations, epsilon)| Layer { iterations, epsilon, ..Layer::new(OperatorKind::IsqrtCov) })
            .collect();
        for layer in &layers {
            assert_eq!(computed(layer, &layers), computed(layer, &[*layer]), "{layer:?}");
        }
    }
}
