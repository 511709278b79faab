//! What a model takes and gives: names, element types and shapes of its inputs and outputs.

use std::fmt;

use anyhow::{Context, Result, bail};
use isqrt_cov_proto::onnx::{
    ModelProto, ValueInfoProto, tensor_proto::DataType, tensor_shape_proto::dimension::Value as Size,
    type_proto::Value as Type,
};

use crate::demands::Demands;
use crate::graph::given;
use crate::indices;
use crate::tensor::ElementType;

/// The inputs that a model must be fed and the outputs that it gives, in the graph's order.
#[derive(Debug, Clone, PartialEq)]
pub struct Signature {
    /// `graph.input` without those that an initializer gives a default.
    pub inputs: Vec<Port>,
    /// `graph.output`.
    pub outputs: Vec<Port>,
}

/// An input or output of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Its element type, where the model tells and a [`Tensor`](crate::tensor::Tensor) can hold it.
    pub element: Option<ElementType>,
    /// Its shape; nothing where even the rank is unknown.
    pub dims: Option<Vec<Dim>>,
    /// How many rows the tables have that its elements pick rows of, the least; none where they pick none.
    pub rows: Option<usize>,
}

/// One axis of a shape.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dim {
    /// Always this size.
    Fixed(usize),
    /// Whatever size; the same wherever the name stands.
    Named(String),
    /// Whatever size.
    Unknown,
}

impl Signature {
    /// Reads the signature of a model.
    ///
    /// # Errors
    /// A model without a graph, or one that takes or gives something else than dense tensors.
    pub fn of(model: &ModelProto) -> Result<Self> {
        let graph = model.graph.as_ref().context("the model has no graph")?;
        let rows = indices::rows(graph);
        let input = |input: &ValueInfoProto| {
            let rows = rows.get(input.name()).copied();
            Port::of(input, "input").map(|port| Port { rows, ..port })
        };
        let inputs = given(graph).map(input).collect::<Result<_>>()?;
        let outputs = graph.output.iter().map(|output| Port::of(output, "output")).collect::<Result<_>>()?;
        Ok(Self { inputs, outputs })
    }

    /// The same with the sizes that the weights of `model`, which it is of, ask of axes left open.
    #[must_use]
    pub fn settled(mut self, model: &ModelProto) -> Self {
        let demands = model.graph.as_ref().map(Demands::of).unwrap_or_default();
        for (index, port) in self.inputs.iter_mut().enumerate() {
            for (axis, dim) in port.dims.iter_mut().flatten().enumerate() {
                let size = match dim {
                    Dim::Fixed(_) => None,
                    Dim::Named(name) => demands.size(index, axis, Some(name)),
                    Dim::Unknown => demands.size(index, axis, None),
                };
                if let Some(size) = size {
                    *dim = Dim::Fixed(size);
                }
            }
        }
        self
    }
}

impl Port {
    fn of(value: &ValueInfoProto, what: &str) -> Result<Self> {
        let name = value.name().to_owned();
        let tensor = match value.r#type.as_ref().and_then(|proto| proto.value.as_ref()) {
            None => return Ok(Self { name, element: None, dims: None, rows: None }),
            Some(Type::TensorType(tensor)) => tensor,
            Some(_) => bail!("{what} `{name}` is not a dense tensor; expected dense tensors only"),
        };
        let element = ElementType::from_onnx(tensor.elem_type());
        if element.is_none() && tensor.elem_type() != 0 {
            bail!(
                "{what} `{name}` has element type {}{} (as onnx.proto numbers them); expected one of {}",
                DataType::try_from(tensor.elem_type())
                    .map_or_else(|_| String::new(), |known| known.as_str_name().to_lowercase() + ", "),
                tensor.elem_type(),
                ElementType::ALL.map(ElementType::name).join(", ")
            );
        }
        let dims = value.dims().map(|dims| {
            let size = |size: &Size| match size {
                Size::DimValue(value) => {
                    usize::try_from(*value).ok().filter(|&value| value > 0).map(Dim::Fixed)
                }
                Size::DimParam(name) => Some(name).filter(|name| !name.is_empty()).cloned().map(Dim::Named),
            };
            dims.iter().map(|dim| dim.value.as_ref().and_then(size).unwrap_or(Dim::Unknown)).collect()
        });
        Ok(Self { name, element, dims, rows: None })
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.element.map_or("?", ElementType::name))?;
        match &self.dims {
            None => write!(f, "[…]"),
            Some(dims) => {
                let dims: Vec<_> = dims.iter().map(Dim::to_string).collect();
                write!(f, "[{}]", dims.join(", "))
            }
        }
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(size) => write!(f, "{size}"),
            Self::Named(name) => write!(f, "{name}"),
            Self::Unknown => write!(f, "?"),
        }
    }
}
