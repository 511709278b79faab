//! Nodes of the operators' domain.

use isqrt_cov_op::layer::Value;
use isqrt_cov_op::{DOMAIN, Layer};
use isqrt_cov_proto::onnx::{AttributeProto, NodeProto};

/// A node that computes `layer`.
#[must_use]
pub fn node_of(layer: &Layer, input: &str, output: &str) -> NodeProto {
    NodeProto {
        attribute: attributes_of(layer),
        ..NodeProto::new(layer.name(), &[input], &[output]).in_domain(DOMAIN)
    }
}

/// The attributes of a node that computes `layer`: all of them, so that a reader need not know the defaults.
#[must_use]
pub fn attributes_of(layer: &Layer) -> Vec<AttributeProto> {
    layer.attributes().iter().map(|(name, value)| attribute(name, value)).collect()
}

/// An attribute as a graph holds it.
#[must_use]
pub fn attribute(name: &str, value: &Value) -> AttributeProto {
    match value {
        Value::Integer(value) => AttributeProto::int(name, *value),
        Value::Float(value) => AttributeProto::float(name, *value),
        Value::Word(word) => AttributeProto::string(name, word),
    }
}
