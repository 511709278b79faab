//! Values that go into and come out of a runtime.

use half::{bf16, f16};
use isqrt_cov_proto::Element;
use isqrt_cov_proto::onnx::TensorProto;
use isqrt_cov_proto::onnx::tensor_proto::DataType;
use ndarray::ArrayD;

/// A dense tensor of one of the element types that models hold.
#[derive(Debug, Clone, PartialEq)]
pub enum Tensor {
    /// float32
    F32(ArrayD<f32>),
    /// float64
    F64(ArrayD<f64>),
    /// float16
    F16(ArrayD<f16>),
    /// bfloat16
    BF16(ArrayD<bf16>),
    /// int64
    I64(ArrayD<i64>),
    /// int32
    I32(ArrayD<i32>),
    /// uint32
    U32(ArrayD<u32>),
    /// int16
    I16(ArrayD<i16>),
    /// uint16
    U16(ArrayD<u16>),
    /// uint8
    U8(ArrayD<u8>),
    /// int8
    I8(ArrayD<i8>),
    /// bool
    Bool(ArrayD<bool>),
}

/// The element type of a tensor, with ONNX's number for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ElementType {
    /// float32
    F32 = 1,
    /// uint8
    U8 = 2,
    /// int8
    I8 = 3,
    /// uint16
    U16 = 4,
    /// int16
    I16 = 5,
    /// int32
    I32 = 6,
    /// int64
    I64 = 7,
    /// bool
    Bool = 9,
    /// float16
    F16 = 10,
    /// float64
    F64 = 11,
    /// uint32
    U32 = 12,
    /// bfloat16
    BF16 = 16,
}

impl From<ElementType> for DataType {
    fn from(element: ElementType) -> Self {
        Self::try_from(element.onnx()).expect("the number is ONNX's")
    }
}

impl ElementType {
    /// Every type that a [`Tensor`] can hold.
    pub const ALL: [Self; 12] = [
        Self::F32,
        Self::F64,
        Self::F16,
        Self::BF16,
        Self::I64,
        Self::I32,
        Self::I16,
        Self::I8,
        Self::U32,
        Self::U16,
        Self::U8,
        Self::Bool,
    ];

    /// The type with this number in `TensorProto.DataType`, if a [`Tensor`] can hold it.
    #[must_use]
    pub fn from_onnx(number: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|element| element.onnx() == number)
    }

    /// Its number in `TensorProto.DataType`.
    #[must_use]
    pub fn onnx(self) -> i32 {
        self as i32
    }

    /// Whether it is a floating-point type.
    #[must_use]
    pub fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F64 | Self::F16 | Self::BF16)
    }

    /// The type's name as ONNX's documentation spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "float",
            Self::U8 => "uint8",
            Self::I8 => "int8",
            Self::U16 => "uint16",
            Self::I16 => "int16",
            Self::U32 => "uint32",
            Self::I32 => "int32",
            Self::I64 => "int64",
            Self::Bool => "bool",
            Self::F16 => "float16",
            Self::F64 => "double",
            Self::BF16 => "bfloat16",
        }
    }
}

/// Evaluates an expression for the array inside, whatever its element type.
#[macro_export]
macro_rules! with_array {
    ($tensor:expr, $array:ident => $body:expr) => {
        match $tensor {
            $crate::tensor::Tensor::F32($array) => $body,
            $crate::tensor::Tensor::F64($array) => $body,
            $crate::tensor::Tensor::F16($array) => $body,
            $crate::tensor::Tensor::BF16($array) => $body,
            $crate::tensor::Tensor::I64($array) => $body,
            $crate::tensor::Tensor::I32($array) => $body,
            $crate::tensor::Tensor::U32($array) => $body,
            $crate::tensor::Tensor::I16($array) => $body,
            $crate::tensor::Tensor::U16($array) => $body,
            $crate::tensor::Tensor::U8($array) => $body,
            $crate::tensor::Tensor::I8($array) => $body,
            $crate::tensor::Tensor::Bool($array) => $body,
        }
    };
}

/// What has a case for each element type.
macro_rules! element_types {
    ($($name:ident($type:ty)),*) => {
        $(impl From<ArrayD<$type>> for Tensor {
            fn from(array: ArrayD<$type>) -> Self {
                Self::$name(array)
            }
        })*

        impl Tensor {
            /// The element type.
            #[must_use]
            pub fn element_type(&self) -> ElementType {
                match self {
                    $(Self::$name(_) => ElementType::$name),*
                }
            }

            /// Zeros, or false, of this type and shape.
            #[must_use]
            pub fn zeros(element: ElementType, dims: &[usize]) -> Self {
                match element {
                    $(ElementType::$name => Self::$name(ArrayD::default(dims))),*
                }
            }
        }
    };
}
element_types!(
    F32(f32),
    F64(f64),
    F16(f16),
    BF16(bf16),
    I64(i64),
    I32(i32),
    U32(u32),
    I16(i16),
    U16(u16),
    U8(u8),
    I8(i8),
    Bool(bool)
);

impl Tensor {
    /// The sizes along each axis.
    #[must_use]
    pub fn dims(&self) -> &[usize] {
        with_array!(self, array => array.shape())
    }

    /// Bytes that the elements take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        with_array!(self, array => size_of_val(array.as_slice_memory_order().unwrap_or_default()))
    }

    /// Every element as float64, in row-major order (integers beyond 2^53 lose bits, booleans are 0 and 1).
    #[must_use]
    pub fn to_f64(&self) -> Vec<f64> {
        with_array!(self, array => array.iter().map(|&value| Element::to_f64(value)).collect())
    }

    /// Whether every element is a number, and a finite one.
    #[must_use]
    pub fn is_finite(&self) -> bool {
        match self {
            Self::F32(array) => array.iter().all(|value| value.is_finite()),
            Self::F64(array) => array.iter().all(|value| value.is_finite()),
            Self::F16(array) => array.iter().all(|value| value.is_finite()),
            Self::BF16(array) => array.iter().all(|value| value.is_finite()),
            _ => true,
        }
    }

    /// The same floating-point numbers in another shape.
    ///
    /// # Panics
    /// If that has another number of elements, or they are other ones.
    #[must_use]
    pub fn reshaped(&self, dims: &[usize]) -> Self {
        Self::from_f64(self.element_type(), dims, &self.to_f64())
    }

    /// The transpose of a matrix of floating-point numbers.
    ///
    /// # Panics
    /// If the tensor has no two axes, or other elements.
    #[must_use]
    pub fn transposed(&self) -> Self {
        let [rows, columns] = self.dims()[..] else { panic!("a matrix has two axes") };
        let values = self.to_f64();
        let transposed = (0..rows * columns).map(|index| values[index % rows * columns + index / rows]);
        Self::from_f64(self.element_type(), &[columns, rows], &transposed.collect::<Vec<_>>())
    }

    /// A tensor of floating-point numbers with its axes in another order.
    ///
    /// # Panics
    /// If that is no order of its axes, or the tensor has other elements.
    #[must_use]
    pub fn permuted(&self, order: &[usize]) -> Self {
        let array =
            ArrayD::from_shape_vec(self.dims(), self.to_f64()).expect("as many values as the shape says");
        let array = array.permuted_axes(order);
        let values: Vec<f64> = array.iter().copied().collect();
        Self::from_f64(self.element_type(), array.shape(), &values)
    }

    /// A floating-point tensor of type `element` with these values, rounded to it.
    ///
    /// # Panics
    /// If `element` is not a floating-point type, or the number of values is not what `dims` says.
    #[must_use]
    pub fn from_f64(element: ElementType, dims: &[usize], values: &[f64]) -> Self {
        fn array<T>(dims: &[usize], values: &[f64], convert: impl Fn(f64) -> T) -> ArrayD<T> {
            let values = values.iter().map(|&value| convert(value)).collect();
            ArrayD::from_shape_vec(dims, values).expect("as many values as the shape says")
        }
        match element {
            ElementType::F32 => Self::F32(array(dims, values, |value| value as f32)),
            ElementType::F64 => Self::F64(array(dims, values, |value| value)),
            ElementType::F16 => Self::F16(array(dims, values, f16::from_f64)),
            ElementType::BF16 => Self::BF16(array(dims, values, bf16::from_f64)),
            other => panic!("{} is not a floating-point type", other.name()),
        }
    }

    /// The tensor as ONNX stores it, under `name`.
    #[must_use]
    pub fn to_proto(&self, name: &str) -> TensorProto {
        with_array!(self, array => stored(name, array))
    }
}

fn stored<T: Element>(name: &str, array: &ArrayD<T>) -> TensorProto {
    let elements = array.as_standard_layout();
    let elements = elements.as_slice().expect("an array in standard layout is one slice");
    TensorProto::from_values(name, array.shape(), elements)
}
