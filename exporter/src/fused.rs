//! The operators' nodes in a model: made, read, and found wherever they are.

use std::collections::HashMap;

pub use isqrt_cov_models::node::node_of;
use isqrt_cov_op::layer::Value;
use isqrt_cov_op::{DOMAIN, Layer};
use isqrt_cov_proto::domain_of;
use isqrt_cov_proto::onnx::attribute_proto::AttributeType;
use isqrt_cov_proto::onnx::tensor_proto::DataType;
use isqrt_cov_proto::onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, ValueInfoProto,
};
use thiserror::Error;

use crate::body;

/// Why a node of the operators' domain cannot be understood or written in standard operators.
#[derive(Debug, Error)]
pub enum Error {
    /// An operator or attribute that the declarations do not allow.
    #[error("node `{node}`: {problem}")]
    Layer {
        /// The node's name, or its output's.
        node: String,
        /// What is not allowed. As a `source` it would be told twice.
        problem: isqrt_cov_op::Error,
    },
    /// A node whose attribute cannot be read.
    #[error(
        "node `{node}`: attribute `{attribute}` is {found}; expected an integer, a float or a UTF-8 string"
    )]
    Attribute {
        /// The node's name, or its output's.
        node: String,
        /// The attribute's name.
        attribute: String,
        /// What it is.
        found: &'static str,
    },
    /// A node with other than one input and one output.
    #[error("node `{node}`: has {inputs} inputs and {outputs} outputs; expected one of each")]
    Arity {
        /// The node's name, or its output's.
        node: String,
        /// How many inputs it has.
        inputs: usize,
        /// How many outputs it has.
        outputs: usize,
    },
    /// A layer that cannot be written in standard operators.
    #[error("node `{node}`: {source}")]
    Body {
        /// The node's name, or its output's.
        node: String,
        /// Why.
        source: body::Error,
    },
}

/// A node of the operators' domain, where it was found.
#[derive(Debug)]
pub(crate) struct Fused {
    /// The node.
    pub node: NodeProto,
    /// What it computes.
    pub layer: Layer,
    /// The type of its input, where the model tells it.
    pub element: Option<DataType>,
    /// The version of the standard operators at this place; 0 where none is imported.
    pub opset: i64,
}

/// The layer that a node of the operators' domain computes.
///
/// # Errors
/// An operator, an attribute or a value that the declarations do not allow; other than one input and one output.
pub fn layer_of(node: &NodeProto) -> Result<Layer, Error> {
    let place = || place_of(node);
    let (inputs, outputs) = (node.input.len(), node.output.len());
    if (inputs, outputs) != (1, 1) {
        return Err(Error::Arity { node: place(), inputs, outputs });
    }
    let value = |attribute: &AttributeProto| {
        let bad = |found| Error::Attribute { node: place(), attribute: attribute.name().to_owned(), found };
        if !attribute.ref_attr_name().is_empty() {
            return Err(bad("that of the enclosing function"));
        }
        match attribute.r#type() {
            AttributeType::Int => Ok(Value::Integer(attribute.i())),
            AttributeType::Float => Ok(Value::Float(attribute.f())),
            AttributeType::String => match std::str::from_utf8(attribute.s()) {
                Ok(word) => Ok(Value::Word(word.to_owned())),
                Err(_) => Err(bad("not UTF-8")),
            },
            _ => Err(bad("of another type")),
        }
    };
    let attributes = node.attribute.iter().map(|attribute| Ok((attribute.name(), value(attribute)?)));
    let attributes = attributes.collect::<Result<Vec<_>, Error>>()?;
    Layer::from_attributes(node.op_type(), attributes)
        .map_err(|problem| Error::Layer { node: place(), problem })
}

/// How messages call a node: by its name, or by its first output.
pub(crate) fn place_of(node: &NodeProto) -> String {
    let output = node.output.first().map_or("", String::as_str);
    if node.name().is_empty() { output.to_owned() } else { node.name().to_owned() }
}

/// The version of the standard operators that `imports` asks for; 0 where they do not.
pub(crate) fn standard_opset(imports: &[OperatorSetIdProto]) -> i64 {
    let standard = imports.iter().filter(|import| domain_of(import.domain()).is_empty());
    standard.map(OperatorSetIdProto::version).max().unwrap_or(0)
}

/// Replaces every node of the operators' domain by what `replace` makes of it: in the graph, in subgraphs, in the
/// bodies of functions and in training graphs. The operators' own functions hold none.
///
/// # Errors
/// Those of [`layer_of`] and of `replace`.
pub(crate) fn replace(
    model: &mut ModelProto,
    replace: &mut dyn FnMut(Fused) -> Result<Vec<NodeProto>, Error>,
) -> Result<(), Error> {
    let opset = standard_opset(&model.opset_import);
    let training = model
        .training_info
        .iter_mut()
        .flat_map(|part| part.initialization.iter_mut().chain(&mut part.algorithm));
    for graph in model.graph.iter_mut().chain(training) {
        in_graph(graph, None, opset, replace)?;
    }
    for function in &mut model.functions {
        let mut types = ElementTypes::new(None, &function.value_info);
        in_nodes(&mut function.node, &mut types, standard_opset(&function.opset_import), replace)?;
    }
    Ok(())
}

/// The element types of the values that are visible at a place in a graph.
struct ElementTypes<'a> {
    outer: Option<&'a ElementTypes<'a>>,
    known: HashMap<String, DataType>,
}

impl<'a> ElementTypes<'a> {
    fn new<'b>(outer: Option<&'a Self>, values: impl IntoIterator<Item = &'b ValueInfoProto>) -> Self {
        let typed = |value: &ValueInfoProto| {
            let number = value.tensor_type()?.elem_type?;
            Some((value.name().to_owned(), DataType::try_from(number).ok()?))
        };
        Self { outer, known: values.into_iter().filter_map(typed).collect() }
    }

    fn of(&self, name: &str) -> Option<DataType> {
        self.known.get(name).copied().or_else(|| self.outer?.of(name))
    }
}

/// Returns the element types of the graph's outputs.
fn in_graph(
    graph: &mut GraphProto,
    outer: Option<&ElementTypes<'_>>,
    opset: i64,
    replace: &mut dyn FnMut(Fused) -> Result<Vec<NodeProto>, Error>,
) -> Result<Vec<Option<DataType>>, Error> {
    let values = graph.input.iter().chain(&graph.value_info).chain(&graph.output);
    let mut types = ElementTypes::new(outer, values);
    for tensor in &graph.initializer {
        if let Ok(data_type) = DataType::try_from(tensor.data_type()) {
            types.known.insert(tensor.name().to_owned(), data_type);
        }
    }
    in_nodes(&mut graph.node, &mut types, opset, replace)?;
    Ok(graph.output.iter().map(|output| types.of(output.name())).collect())
}

fn in_nodes(
    nodes: &mut Vec<NodeProto>,
    types: &mut ElementTypes<'_>,
    opset: i64,
    replace: &mut dyn FnMut(Fused) -> Result<Vec<NodeProto>, Error>,
) -> Result<(), Error> {
    let mut replaced = Vec::with_capacity(nodes.len());
    for mut node in std::mem::take(nodes) {
        let mut of_subgraphs = Vec::new();
        for attribute in &mut node.attribute {
            for graph in attribute.g.as_deref_mut().into_iter().chain(&mut attribute.graphs) {
                of_subgraphs = in_graph(graph, Some(types), opset, replace)?;
            }
        }
        for (output, data_type) in node.output.iter().zip(output_types(&node, types, of_subgraphs)) {
            if let Some(data_type) = data_type {
                types.known.entry(output.clone()).or_insert(data_type);
            }
        }
        if node.domain() == DOMAIN {
            let layer = layer_of(&node)?;
            let element = types.of(&node.input[0]);
            replaced.extend(replace(Fused { node, layer, element, opset })?);
        } else {
            replaced.push(node);
        }
    }
    *nodes = replaced;
    Ok(())
}

/// The element types of a node's outputs, as far as they can be told without knowing every operator: those that
/// compute with floating-point numbers keep the type, except for the few that are there to change it.
fn output_types(
    node: &NodeProto,
    types: &ElementTypes<'_>,
    of_subgraphs: Vec<Option<DataType>>,
) -> Vec<Option<DataType>> {
    let floating = |data_type: &DataType| {
        matches!(data_type, DataType::Float | DataType::Double | DataType::Float16 | DataType::Bfloat16)
    };
    let input = |index: usize| node.input.get(index).and_then(|name| types.of(name));
    let named = |name: &str| node.find(name).and_then(|to| DataType::try_from(to.i() as i32).ok());
    let all = |data_type: Option<DataType>| vec![data_type; node.output.len()];
    if !matches!(domain_of(node.domain()), "" | DOMAIN) {
        return all(None);
    }
    match node.op_type() {
        "If" | "Scan" => of_subgraphs,
        // The body's first output is its condition.
        "Loop" => of_subgraphs.into_iter().skip(1).collect(),
        "Cast" => all(named("to")),
        "CastLike" => all(input(1)),
        "Constant" => all(node.constant().and_then(|tensor| DataType::try_from(tensor.data_type()).ok())),
        "ConstantOfShape" => all(Some(
            node.find("value")
                .and_then(|value| DataType::try_from(value.t.as_deref()?.data_type()).ok())
                .unwrap_or(DataType::Float),
        )),
        "DequantizeLinear" => all(named("output_dtype").or_else(|| input(1))),
        "QuantizeLinear" | "DynamicQuantizeLinear" | "SequenceAt" | "OptionalGetElement" => all(None),
        name if name.starts_with("Random") || name == "Bernoulli" || name == "EyeLike" => {
            all(named("dtype").or_else(|| input(0)))
        }
        _ => all((0..node.input.len()).filter_map(input).find(floating)),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use isqrt_cov_op::OperatorKind;
    use isqrt_cov_proto::onnx::TensorProto;

    use super::*;

    /// A model of operator set 17 whose float32 input is `x`, with a float16 weight `half`.
    pub(crate) fn model(nodes: Vec<NodeProto>) -> ModelProto {
        let graph = GraphProto {
            node: nodes,
            input: vec![ValueInfoProto::of_any_shape("x", DataType::Float)],
            initializer: vec![TensorProto::from_values("half", &[1], &[half::f16::ONE])],
            ..GraphProto::default()
        };
        ModelProto::new(graph, 17)
    }

    /// An If node with one node in each branch.
    pub(crate) fn branches(then: NodeProto, other: NodeProto) -> NodeProto {
        let graph = |node: NodeProto| GraphProto {
            output: vec![ValueInfoProto { name: node.output.first().cloned(), ..ValueInfoProto::default() }],
            node: vec![node],
            ..GraphProto::default()
        };
        NodeProto::new("If", &["condition"], &["chosen"])
            .with(AttributeProto::graph("then_branch", graph(then)))
            .with(AttributeProto::graph("else_branch", graph(other)))
    }

    fn elements(nodes: Vec<NodeProto>) -> Vec<Option<DataType>> {
        let mut found = Vec::new();
        replace(&mut model(nodes), &mut |fused| {
            found.push(fused.element);
            Ok(vec![fused.node])
        })
        .unwrap();
        found
    }

    #[test]
    fn nodes_are_read_as_they_are_made() {
        let layer = Layer { iterations: 3, epsilon: 0.5, ..Layer::new(OperatorKind::IsqrtCov) };
        let node = node_of(&layer, "x", "y");
        assert_eq!(layer_of(&node).unwrap(), layer);
        assert_eq!(node.attribute.len(), layer.attributes().len());
        let defaults = NodeProto { attribute: Vec::new(), ..node };
        assert_eq!(layer_of(&defaults).unwrap(), Layer::new(OperatorKind::IsqrtCov));
    }

    #[test]
    fn nodes_that_the_declarations_do_not_allow_are_refused() {
        let node = |attribute| NodeProto::new("IsqrtCov", &["x"], &["y"]).in_domain(DOMAIN).with(attribute);
        let error = |attribute| layer_of(&node(attribute)).unwrap_err().to_string();
        assert!(
            error(AttributeProto::int("iterations", 0))
                .contains("node `y`: IsqrtCov: attribute `iterations`")
        );
        assert!(error(AttributeProto::int("rounds", 5)).contains("`rounds` does not exist"));
        assert!(error(AttributeProto::ints("iterations", &[5])).contains("is of another type"));
        let reference = AttributeProto::reference("iterations", "k", AttributeType::Int);
        assert!(error(reference).contains("is that of the enclosing function"));
        let two = NodeProto::new("IsqrtCov", &["x", "x"], &["y"]).in_domain(DOMAIN).named("pool");
        assert!(layer_of(&two).unwrap_err().to_string().contains("node `pool`: has 2 inputs and 1 outputs"));
    }

    #[test]
    fn element_types_are_followed_through_the_graph() {
        let layer = Layer::new(OperatorKind::IsqrtCov);
        let fused = |input: &str| node_of(&layer, input, "y");
        let node = NodeProto::new;
        let double = || AttributeProto::int("to", i32::from(DataType::Double).into());
        assert_eq!(elements(vec![fused("x")]), [Some(DataType::Float)]);
        assert_eq!(elements(vec![fused("nowhere")]), [None]);
        let convolution = node("Conv", &["unknown", "half"], &["c"]);
        let rectified = node("Relu", &["c"], &["r"]);
        assert_eq!(elements(vec![convolution, rectified, fused("r")]), [Some(DataType::Float16)]);
        assert_eq!(
            elements(vec![node("Cast", &["x"], &["d"]).with(double()), fused("d")]),
            [Some(DataType::Double)]
        );
        let dequantized = node("DequantizeLinear", &["q", "half"], &["d"]);
        assert_eq!(elements(vec![dequantized, fused("d")]), [Some(DataType::Float16)]);
        let foreign = node("Mystery", &["x"], &["m"]).in_domain("com.example");
        assert_eq!(elements(vec![foreign, fused("m")]), [None]);
        // A branch sees what is outside it, and its own output is the node's.
        let inner = branches(fused("half"), node("Relu", &["half"], &["z"]));
        assert_eq!(elements(vec![inner, fused("chosen")]), [Some(DataType::Float16); 2]);
    }
}
