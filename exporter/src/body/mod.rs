//! A layer as an ONNX function: its arithmetic in standard operators, for runtimes without the operator library.
//!
//! The body knows neither N, C nor M, only the layer's attributes, the element type and the operator set. Operators are
//! chosen that kept one meaning from operator set 11 on; only `ReduceSum` must be spelled in two ways.

use isqrt_cov_models::node::attribute;
use isqrt_cov_op::declaration::Attribute;
use isqrt_cov_op::{DOMAIN, Layer, Operator};
use isqrt_cov_proto::onnx::tensor_proto::DataType;
use isqrt_cov_proto::onnx::{AttributeProto, FunctionProto, NodeProto, OperatorSetIdProto};
use thiserror::Error;

use nodes::Body;

mod choice;
mod layer;
mod nodes;

/// The oldest operator set in which the layer can be written: `Range` and general `Equal` came with it.
pub const OLDEST_OPSET: i64 = 11;

/// The operator set in which `Constant` takes numbers and words, and so the attributes of a function.
const ATTRIBUTE_CONSTANTS: i64 = 12;

/// The operator set with `CastLike`.
const CAST_LIKE: i64 = 15;

/// Why a layer has no body.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Error {
    /// The operators do not take this type.
    #[error("element type {}; expected FLOAT, DOUBLE, FLOAT16 or BFLOAT16", .0.as_str_name())]
    ElementType(DataType),
    /// Without the type, the body needs an operator that came later.
    #[error(
        "the type of the input is not known, and operator set {found} has no `CastLike`; expected {CAST_LIKE} or \
         later, or a value_info with the type: run onnx.shape_inference"
    )]
    UnknownType {
        /// The model's operator set.
        found: i64,
    },
    /// The operator set lacks what the body needs.
    #[error("operator set {found}; expected {least} or later: convert the model with onnx.version_converter")]
    Opset {
        /// The model's operator set.
        found: i64,
        /// The oldest that would do.
        least: i64,
    },
}

/// The function that computes every one of `layers` on elements of type `element` in standard operators of version
/// `opset`. They are of one operator; which of them a node asks for, its attributes say.
///
/// A model holds one function of a name, since an `overload` is ignored by ONNX Runtime 1.17 and 1.20 (not by 1.32): there the last one
/// silently serves all nodes. So where layers differ, one body holds them all and chooses by the attributes that differ.
///
/// Where `element` is not known, or not the same everywhere, the body computes in float64 and casts back to what came;
/// that takes operator set 15. Half-precision types are computed in float32. From that set on, bodies of a known `element` cast back to what
/// came as well: tools that change a model's types leave functions as they are.
///
/// # Errors
/// An element type that the operators do not take, an operator set that is too old.
///
/// # Panics
/// If `layers` is empty or of several operators.
pub fn function_for(layers: &[Layer], element: Option<DataType>, opset: i64) -> Result<FunctionProto, Error> {
    make(layers, element, element.filter(|_| opset < CAST_LIKE), opset)
}

/// The same for `element`s and nothing else, without a cast that these do not need.
///
/// # Errors
/// Those of [`function_for`].
///
/// # Panics
/// As there.
pub fn function_of(layers: &[Layer], element: Option<DataType>, opset: i64) -> Result<FunctionProto, Error> {
    make(layers, element, element, opset)
}

/// `only` is the type that the body takes; none where it takes them all.
fn make(
    layers: &[Layer],
    element: Option<DataType>,
    only: Option<DataType>,
    opset: i64,
) -> Result<FunctionProto, Error> {
    let operator = Operator::of(layers[0].operator);
    assert!(layers.iter().all(|layer| layer.operator == operator.kind), "a function is of one operator");
    let least = if layers.len() > 1 { ATTRIBUTE_CONSTANTS } else { OLDEST_OPSET };
    if opset < least {
        return Err(Error::Opset { found: opset, least });
    }
    if element.is_none() && opset < CAST_LIKE {
        return Err(Error::UnknownType { found: opset });
    }
    let wide = match element {
        Some(DataType::Float | DataType::Float16 | DataType::Bfloat16) => DataType::Float,
        Some(DataType::Double) | None => DataType::Double,
        Some(other) => return Err(Error::ElementType(other)),
    };
    let mut body = Body { nodes: Vec::new(), prefix: String::new(), opset, wide };
    let (input, output) = (operator.input.name, operator.output.name);
    if only == Some(wide) {
        body.choose(layers, input, output);
    } else {
        let wide_input = body.cast("input", input);
        let result = body.choose(layers, &wide_input, "output");
        match only {
            Some(only) => {
                let to = AttributeProto::int("to", i32::from(only).into());
                body.push(output, NodeProto::new("Cast", &[&result], &[]).with(to));
            }
            None => {
                body.add(output, "CastLike", &[&result, input]);
            }
        }
    }
    Ok(FunctionProto {
        name: Some(operator.name.to_owned()),
        domain: Some(DOMAIN.to_owned()),
        input: vec![input.to_owned()],
        output: vec![output.to_owned()],
        attribute_proto: operator.attributes.iter().map(default_of).collect(),
        node: body.nodes,
        opset_import: vec![OperatorSetIdProto::new("", opset)],
        ..FunctionProto::default()
    })
}

fn default_of(declared: &Attribute) -> AttributeProto {
    attribute(declared.name, &declared.domain.default())
}
