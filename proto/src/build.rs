//! Making messages, and reading their attributes, without spelling out every optional field.

use std::borrow::Cow;

use bytes::Bytes;

use crate::onnx::attribute_proto::AttributeType;
use crate::onnx::tensor_proto::DataType;
use crate::onnx::tensor_shape_proto::{Dimension, dimension};
use crate::onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
    TypeProto, ValueInfoProto, type_proto,
};
use crate::structure::domain_of;
use crate::tensor::Element;

impl ModelProto {
    /// A model of `graph` and the standard operators of version `opset`, in the first version of the format that knows functions and, up to 23, these.
    #[must_use]
    pub fn new(graph: GraphProto, opset: i64) -> Self {
        let ir_version = match opset {
            ..=18 => 8,
            19 | 20 => 9,
            21 | 22 => 10,
            _ => 11,
        };
        Self {
            ir_version: Some(ir_version),
            opset_import: vec![OperatorSetIdProto::new("", opset)],
            graph: Some(graph),
            ..Self::default()
        }
    }

    /// The model with the operators of one more domain.
    #[must_use]
    pub fn importing(mut self, domain: &str, version: i64) -> Self {
        self.opset_import.push(OperatorSetIdProto::new(domain, version));
        self
    }
}

impl NodeProto {
    /// A node of the standard domain.
    #[must_use]
    pub fn new(op_type: &str, input: &[&str], output: &[&str]) -> Self {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Self {
            op_type: Some(op_type.to_owned()),
            input: owned(input),
            output: owned(output),
            ..Self::default()
        }
    }

    /// The node in another domain.
    #[must_use]
    pub fn in_domain(mut self, domain: &str) -> Self {
        self.domain = Some(domain.to_owned());
        self
    }

    /// The node with a name.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// The node with one more attribute.
    #[must_use]
    pub fn with(mut self, attribute: AttributeProto) -> Self {
        self.attribute.push(attribute);
        self
    }

    /// The attribute called `name`.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&AttributeProto> {
        self.attribute.iter().find(|attribute| attribute.name() == name)
    }

    /// Whether the node is the standard domain's operator `op_type`.
    #[must_use]
    pub fn is(&self, op_type: &str) -> bool {
        domain_of(self.domain()).is_empty() && self.op_type() == op_type
    }
}

impl NodeProto {
    /// The tensor of a `Constant` node; none where the function around it is to say, and for words.
    #[must_use]
    pub fn constant(&self) -> Option<Cow<'_, TensorProto>> {
        let own = self.attribute.iter().filter(|_| self.is("Constant"));
        own.filter(|own| own.ref_attr_name().is_empty()).find_map(|own| own.constant(own.name()))
    }
}

impl AttributeProto {
    /// The tensor that a `Constant` node gives whose attribute `name` this is.
    #[must_use]
    pub fn constant(&self, name: &str) -> Option<Cow<'_, TensorProto>> {
        Some(match name {
            "value" => Cow::Borrowed(self.t.as_deref()?),
            "value_float" => Cow::Owned(TensorProto::scalar("", self.f())),
            "value_int" => Cow::Owned(TensorProto::scalar("", self.i())),
            "value_floats" => Cow::Owned(TensorProto::from_values("", &[self.floats.len()], &self.floats)),
            "value_ints" => Cow::Owned(TensorProto::from_values("", &[self.ints.len()], &self.ints)),
            _ => return None,
        })
    }

    fn of(name: &str, r#type: AttributeType) -> Self {
        Self { name: Some(name.to_owned()), r#type: Some(r#type.into()), ..Self::default() }
    }

    /// An `INT`.
    #[must_use]
    pub fn int(name: &str, value: i64) -> Self {
        Self { i: Some(value), ..Self::of(name, AttributeType::Int) }
    }

    /// An `INTS`.
    #[must_use]
    pub fn ints(name: &str, values: &[i64]) -> Self {
        Self { ints: values.to_vec(), ..Self::of(name, AttributeType::Ints) }
    }

    /// A `FLOAT`.
    #[must_use]
    pub fn float(name: &str, value: f32) -> Self {
        Self { f: Some(value), ..Self::of(name, AttributeType::Float) }
    }

    /// A `STRING`.
    #[must_use]
    pub fn string(name: &str, value: &str) -> Self {
        Self { s: Some(Bytes::copy_from_slice(value.as_bytes())), ..Self::of(name, AttributeType::String) }
    }

    /// A `STRINGS`.
    #[must_use]
    pub fn strings(name: &str, values: &[&str]) -> Self {
        let strings = values.iter().map(|value| Bytes::copy_from_slice(value.as_bytes())).collect();
        Self { strings, ..Self::of(name, AttributeType::Strings) }
    }

    /// A `TENSOR`.
    #[must_use]
    pub fn tensor(name: &str, value: TensorProto) -> Self {
        Self { t: Some(Box::new(value)), ..Self::of(name, AttributeType::Tensor) }
    }

    /// A `GRAPH`.
    #[must_use]
    pub fn graph(name: &str, value: GraphProto) -> Self {
        Self { g: Some(Box::new(value)), ..Self::of(name, AttributeType::Graph) }
    }

    /// The value of the enclosing function's attribute `from`; only inside a function's body.
    #[must_use]
    pub fn reference(name: &str, from: &str, r#type: AttributeType) -> Self {
        Self { ref_attr_name: Some(from.to_owned()), ..Self::of(name, r#type) }
    }
}

impl TensorProto {
    /// A tensor with its data in `raw_data`.
    ///
    /// # Panics
    /// If `values` does not have the number of elements that `dims` implies.
    #[must_use]
    pub fn from_values<T: Element>(name: &str, dims: &[usize], values: &[T]) -> Self {
        assert_eq!(
            values.len(),
            dims.iter().product::<usize>(),
            "the elements of `{name}` disagree with {dims:?}"
        );
        let mut bytes = Vec::with_capacity(size_of_val(values));
        values.iter().for_each(|&value| value.append_le(&mut bytes));
        Self {
            name: Some(name.to_owned()),
            dims: dims.iter().map(|&dim| dim as i64).collect(),
            data_type: Some(T::DATA_TYPE.into()),
            raw_data: Some(bytes.into()),
            ..Self::default()
        }
    }

    /// A tensor without dimensions.
    #[must_use]
    pub fn scalar<T: Element>(name: &str, value: T) -> Self {
        Self::from_values(name, &[], &[value])
    }
}

impl ValueInfoProto {
    /// A tensor's name, type and shape.
    #[must_use]
    pub fn tensor(name: &str, data_type: DataType, dims: impl IntoIterator<Item = Dimension>) -> Self {
        Self::of(name, data_type, Some(TensorShapeProto { dim: dims.into_iter().collect() }))
    }

    /// A value's name: its type is for others to tell.
    #[must_use]
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: Some(name.into()), ..Self::default() }
    }

    /// A tensor's name and type, where not even the rank is known.
    #[must_use]
    pub fn of_any_shape(name: &str, data_type: DataType) -> Self {
        Self::of(name, data_type, None)
    }

    fn of(name: &str, data_type: DataType, shape: Option<TensorShapeProto>) -> Self {
        let tensor = type_proto::Tensor { elem_type: Some(data_type.into()), shape };
        let r#type = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), denotation: None };
        Self { name: Some(name.to_owned()), r#type: Some(r#type), ..Self::default() }
    }

    /// The type and shape, where the value is a tensor.
    #[must_use]
    pub fn tensor_type(&self) -> Option<&type_proto::Tensor> {
        match self.r#type.as_ref()?.value.as_ref()? {
            type_proto::Value::TensorType(tensor) => Some(tensor),
            _ => None,
        }
    }

    /// The shape, where the value is a tensor and its rank is known.
    #[must_use]
    pub fn dims(&self) -> Option<&[Dimension]> {
        Some(&self.tensor_type()?.shape.as_ref()?.dim)
    }
}

impl Dimension {
    /// The size, where it is told.
    #[must_use]
    pub fn size(&self) -> Option<usize> {
        match self.value {
            Some(dimension::Value::DimValue(size)) => usize::try_from(size).ok(),
            _ => None,
        }
    }
}

impl From<usize> for Dimension {
    fn from(size: usize) -> Self {
        Self { value: Some(dimension::Value::DimValue(size as i64)), denotation: None }
    }
}

impl From<&str> for Dimension {
    fn from(name: &str) -> Self {
        Self { value: Some(dimension::Value::DimParam(name.to_owned())), denotation: None }
    }
}

impl OperatorSetIdProto {
    /// Version `version` of `domain`.
    #[must_use]
    pub fn new(domain: &str, version: i64) -> Self {
        Self { domain: Some(domain.to_owned()), version: Some(version) }
    }
}
