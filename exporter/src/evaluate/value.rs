//! What flows through an evaluated graph: tensors of float64, int64 or bool that remember their declared types.

use std::borrow::Cow;
use std::cell::Cell;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use half::{bf16, f16};
use isqrt_cov_proto::TensorData;
use isqrt_cov_proto::onnx::TensorProto;
use isqrt_cov_proto::onnx::tensor_proto::DataType;
use ndarray::{ArcArray, IxDyn};

use super::Precision;
use crate::runtime::Mistake;
use crate::tensor::{ElementType, Tensor};

/// Elements that any evaluation may hold at one time: with eight bytes each, 512 MiB.
const FREE: usize = 1 << 26;

/// Elements that it may hold beside them for each element of the model's weights and of its inputs: the first layers of a
/// network make twenty of one.
const EACH: usize = 64;

/// Elements that none may hold beside what it is given: with eight bytes each, 2 GiB.
const LARGEST: usize = 1 << 28;

/// The elements that have as much room as a tensor takes beside its own.
pub(super) const TENSOR: usize = 64;

/// Axes of a tensor, at most. Networks have eight; to step along thousands takes longer than what the elements are for.
const LARGEST_RANK: usize = 16;

/// Axes beyond which an element takes longer to find.
const LONG_RANK: usize = 4;

thread_local! {
    /// Elements that the evaluation in this thread may hold.
    static MOST: Cell<usize> = const { Cell::new(FREE) };
}

/// Elements that are looked at together for whether their type leaves them as they are.
const SETTLED_AT_ONCE: usize = 1024;

/// A tensor's elements, which values share until one is changed.
pub(super) type Array<T> = ArcArray<T, IxDyn>;

/// The elements of a tensor, in the widest type of their kind.
#[derive(Debug, Clone)]
pub(super) enum Data {
    Float(Array<f64>),
    Int(Array<i64>),
    Bool(Array<bool>),
}

/// A tensor.
#[derive(Debug, Clone)]
pub(super) struct Dense {
    /// The element type that the model gives it.
    pub declared: ElementType,
    /// The elements.
    pub data: Data,
}

/// What a name in a graph stands for.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Tensor(Dense),
    Sequence(Arc<Vec<Dense>>),
    /// An optional input or output that is not there.
    Absent,
}

/// Does the same to the elements, whatever their type, and keeps it.
macro_rules! map_data {
    ($data:expr, $array:ident => $body:expr) => {
        match $data {
            $crate::evaluate::value::Data::Float($array) => $crate::evaluate::value::Data::Float($body),
            $crate::evaluate::value::Data::Int($array) => $crate::evaluate::value::Data::Int($body),
            $crate::evaluate::value::Data::Bool($array) => $crate::evaluate::value::Data::Bool($body),
        }
    };
}
pub(super) use map_data;

/// Does the same to the elements of two tensors of one kind.
macro_rules! map_both {
    ($left:expr, $right:expr, ($a:ident, $b:ident) => $body:expr) => {
        match ($left, $right) {
            ($crate::evaluate::value::Data::Float($a), $crate::evaluate::value::Data::Float($b)) => {
                Ok($crate::evaluate::value::Data::Float($body))
            }
            ($crate::evaluate::value::Data::Int($a), $crate::evaluate::value::Data::Int($b)) => {
                Ok($crate::evaluate::value::Data::Int($body))
            }
            ($crate::evaluate::value::Data::Bool($a), $crate::evaluate::value::Data::Bool($b)) => {
                Ok($crate::evaluate::value::Data::Bool($body))
            }
            _ => Err(anyhow::anyhow!("the inputs are not of one element type")),
        }
    };
}
pub(super) use map_both;

/// Does `work` in bounds for an evaluation that is given so many elements: a file of a hundred bytes may ask for any number.
pub(super) fn bounded<T>(given: usize, work: impl FnOnce() -> T) -> T {
    let more = given.saturating_mul(EACH).saturating_add(FREE).min(LARGEST);
    let around = MOST.replace(given.saturating_add(more));
    let done = work();
    MOST.set(around);
    done
}

/// Elements that the evaluation in this thread may hold at one time, and that no tensor may have more of.
pub(super) fn most() -> usize {
    MOST.get()
}

/// The number of axes, if that many are allowed.
pub(super) fn check_rank(rank: usize) -> Result<usize> {
    ensure!(
        rank <= LARGEST_RANK,
        "a tensor of {rank} axes is not evaluated: at most {LARGEST_RANK} are followed"
    );
    Ok(rank)
}

/// The number of elements that a shape has, if that many are allowed, and as many axes.
pub(super) fn elements(dims: &[usize]) -> Result<usize> {
    check_rank(dims.len())?;
    let bounded = dims
        .iter()
        .filter(|&&dim| dim != 0)
        .try_fold(1_usize, |product, &dim| product.checked_mul(dim).filter(|&product| product <= most()));
    let bounded = bounded.with_context(|| {
        format!("a tensor of shape {dims:?} is too large to evaluate: at most {} elements are made", most())
    })?;
    Ok(if dims.contains(&0) { 0 } else { bounded })
}

/// See [`Value::weight`].
pub(super) fn weight(dims: &[usize]) -> usize {
    let sizes = dims.iter().map(|&dim| dim.max(1)).fold(1, usize::saturating_mul);
    sizes.saturating_mul(dims.len().div_ceil(LONG_RANK).max(1))
}

/// The array of this shape with these elements, row by row.
pub(super) fn array<T: Clone>(dims: &[usize], values: Vec<T>) -> Result<Array<T>> {
    elements(dims)?;
    let array = ndarray::Array::from_shape_vec(IxDyn(dims), values);
    Ok(array.with_context(|| format!("not as many elements as the shape {dims:?} asks for"))?.into_shared())
}

/// An array of this shape full of one value.
pub(super) fn full<T: Clone>(dims: &[usize], value: T) -> Result<Array<T>> {
    array(dims, vec![value; elements(dims)?])
}

/// The elements row by row.
pub(super) fn flat<T: Clone>(array: &Array<T>) -> Cow<'_, [T]> {
    array.as_slice().map_or_else(|| array.iter().cloned().collect(), Cow::Borrowed)
}

/// The same elements in another shape.
pub(super) fn reshaped<T: Clone>(from: &Array<T>, dims: &[usize]) -> Result<Array<T>> {
    elements(dims)?;
    let standard =
        if from.is_standard_layout() { from.clone() } else { array(from.shape(), flat(from).into_owned())? };
    let found = from.shape().to_vec();
    let mistake = || Mistake::Said(format!("{found:?} cannot become {dims:?}"));
    standard.into_shape_with_order(IxDyn(dims)).map_err(|_| mistake().into())
}

/// The nearest number of a floating-point type.
#[inline]
pub(super) fn rounded(value: f64, element: ElementType) -> f64 {
    match element {
        ElementType::F32 => (value as f32).into(),
        ElementType::F16 => f16::from_f64(value).into(),
        ElementType::BF16 => bf16::from_f64(value).into(),
        _ => value,
    }
}

/// The integer that is left of `value` in a narrower type.
fn wrapped(value: i64, element: ElementType) -> i64 {
    match element {
        ElementType::I32 => (value as i32).into(),
        ElementType::U32 => (value as u32).into(),
        ElementType::I16 => (value as i16).into(),
        ElementType::U16 => (value as u16).into(),
        ElementType::I8 => (value as i8).into(),
        ElementType::U8 => (value as u8).into(),
        _ => value,
    }
}

/// Rounds the elements where that changes any; `bits` tells them apart.
fn settle<T: Copy, B: PartialEq>(array: &mut Array<T>, round: impl Fn(T) -> T, bits: impl Fn(T) -> B) {
    let changes = |&value: &T| bits(round(value)) != bits(value);
    // Looking at all of a piece, and not only up to the first, is what the compiler makes vector instructions of.
    let unsettled = match array.as_slice_memory_order() {
        Some(values) => values
            .chunks(SETTLED_AT_ONCE)
            .any(|values| values.iter().fold(false, |any, value| any | changes(value))),
        None => array.iter().any(changes),
    };
    if unsettled {
        array.mapv_inplace(round);
    }
}

impl Data {
    /// The sizes along each axis.
    pub fn dims(&self) -> &[usize] {
        match self {
            Self::Float(array) => array.shape(),
            Self::Int(array) => array.shape(),
            Self::Bool(array) => array.shape(),
        }
    }

    /// Every element as float64.
    pub fn to_f64(&self) -> Array<f64> {
        match self {
            Self::Float(array) => array.clone(),
            Self::Int(array) => array.mapv(|value| value as f64).into_shared(),
            Self::Bool(array) => array.mapv(|value| f64::from(u8::from(value))).into_shared(),
        }
    }

    /// Every element as an integer: towards zero, and the nearest there is where it does not fit.
    pub fn to_i64(&self) -> Array<i64> {
        match self {
            Self::Float(array) => array.mapv(|value| value as i64).into_shared(),
            Self::Int(array) => array.clone(),
            Self::Bool(array) => array.mapv(i64::from).into_shared(),
        }
    }

    /// Whether each element is other than zero.
    pub fn to_bool(&self) -> Array<bool> {
        match self {
            Self::Float(array) => array.mapv(|value| value != 0.0).into_shared(),
            Self::Int(array) => array.mapv(|value| value != 0).into_shared(),
            Self::Bool(array) => array.clone(),
        }
    }

    /// The elements as those of another type.
    pub fn cast(&self, to: ElementType) -> Self {
        match to {
            ElementType::Bool => Self::Bool(self.to_bool()),
            to if to.is_float() => Self::Float(self.to_f64()),
            _ => Self::Int(self.to_i64()),
        }
    }
}

impl Dense {
    /// A tensor of a declared type.
    pub fn new(declared: ElementType, data: Data) -> Self {
        Self { declared, data }
    }

    /// Floating-point numbers of a declared type.
    pub fn float(declared: ElementType, array: Array<f64>) -> Self {
        Self::new(declared, Data::Float(array))
    }

    /// An int64 tensor.
    pub fn int(array: Array<i64>) -> Self {
        Self::new(ElementType::I64, Data::Int(array))
    }

    /// A tensor of booleans.
    pub fn bool(array: Array<bool>) -> Self {
        Self::new(ElementType::Bool, Data::Bool(array))
    }

    /// An int64 vector.
    pub fn vector(values: Vec<i64>) -> Result<Self> {
        Ok(Self::int(array(&[values.len()], values)?))
    }

    /// The sizes along each axis.
    pub fn dims(&self) -> &[usize] {
        self.data.dims()
    }

    /// The number of axes.
    pub fn rank(&self) -> usize {
        self.dims().len()
    }

    /// The floating-point elements.
    pub fn floats(&self) -> Result<&Array<f64>> {
        match &self.data {
            Data::Float(array) => Ok(array),
            _ => bail!("a tensor of {} is where floating-point numbers are expected", self.declared.name()),
        }
    }

    /// The integers.
    pub fn ints(&self) -> Result<&Array<i64>> {
        match &self.data {
            Data::Int(array) => Ok(array),
            _ => bail!("a tensor of {} is where integers are expected", self.declared.name()),
        }
    }

    /// The booleans.
    pub fn bools(&self) -> Result<&Array<bool>> {
        match &self.data {
            Data::Bool(array) => Ok(array),
            _ => bail!("a tensor of {} is where booleans are expected", self.declared.name()),
        }
    }

    /// A constant of the model.
    pub fn decode(tensor: &TensorProto) -> Result<Self> {
        let declared = declared(tensor.data_type())?;
        let data = TensorData::inline(tensor)?;
        elements(data.dims())?;
        let missing = || format!("constant `{}` cannot be read", tensor.name());
        let data = if declared.is_float() {
            Data::Float(array(data.dims(), data.to_f64().with_context(missing)?)?)
        } else if declared == ElementType::Bool {
            Data::Bool(array(data.dims(), data.values::<bool>().with_context(missing)?)?)
        } else {
            Data::Int(array(data.dims(), data.to_i64().with_context(missing)?)?)
        };
        Ok(Self { declared, data })
    }

    /// A tensor from outside, of the type that the model declares for it.
    pub fn from_tensor(tensor: &Tensor, declared: ElementType) -> Result<Self> {
        let found = tensor.element_type();
        let kind = |element: ElementType| (element.is_float(), element == ElementType::Bool);
        ensure!(
            kind(found) == kind(declared),
            "a tensor of {} is where {} is declared",
            found.name(),
            declared.name()
        );
        elements(tensor.dims())?;
        let data = match tensor {
            Tensor::I64(array) => Data::Int(array.to_shared()),
            Tensor::I32(array) => Data::Int(array.mapv(i64::from).into_shared()),
            Tensor::U32(array) => Data::Int(array.mapv(i64::from).into_shared()),
            Tensor::I16(array) => Data::Int(array.mapv(i64::from).into_shared()),
            Tensor::U16(array) => Data::Int(array.mapv(i64::from).into_shared()),
            Tensor::U8(array) => Data::Int(array.mapv(i64::from).into_shared()),
            Tensor::I8(array) => Data::Int(array.mapv(i64::from).into_shared()),
            Tensor::Bool(array) => Data::Bool(array.to_shared()),
            Tensor::F64(array) => Data::Float(array.to_shared()),
            _ => Data::Float(array(tensor.dims(), tensor.to_f64())?),
        };
        Ok(Self { declared, data })
    }

    /// The tensor as others know it: of its declared type, or with its floating-point numbers as they are.
    pub fn to_tensor(&self, precision: Precision) -> Tensor {
        match &self.data {
            Data::Float(array) => {
                let declared = if precision == Precision::Exact { ElementType::F64 } else { self.declared };
                Tensor::from_f64(declared, array.shape(), &flat(array))
            }
            Data::Bool(array) => Tensor::Bool(array.to_owned()),
            Data::Int(array) => match self.declared {
                ElementType::I32 => Tensor::I32(array.mapv(|value| value as i32)),
                ElementType::U32 => Tensor::U32(array.mapv(|value| value as u32)),
                ElementType::I16 => Tensor::I16(array.mapv(|value| value as i16)),
                ElementType::U16 => Tensor::U16(array.mapv(|value| value as u16)),
                ElementType::U8 => Tensor::U8(array.mapv(|value| value as u8)),
                ElementType::I8 => Tensor::I8(array.mapv(|value| value as i8)),
                _ => Tensor::I64(array.to_owned()),
            },
        }
    }

    /// What the declared type leaves of the elements: of integers always, of floating-point numbers where asked for.
    pub fn settled(mut self, precision: Precision) -> Self {
        let declared = self.declared;
        // Elements that only moved are settled already, and may be shared: they are looked at before they are copied.
        match &mut self.data {
            Data::Float(array) if precision == Precision::Declared => match declared {
                ElementType::F32 => settle(array, |value| rounded(value, ElementType::F32), f64::to_bits),
                ElementType::F64 => {}
                other => settle(array, |value| rounded(value, other), f64::to_bits),
            },
            Data::Int(array) => settle(array, |value| wrapped(value, declared), |value| value),
            _ => {}
        }
        self
    }
}

/// The element type with ONNX's number for it.
pub(super) fn declared(number: i32) -> Result<ElementType> {
    ElementType::from_onnx(number).with_context(|| {
        let known = DataType::try_from(number).map(|known| known.as_str_name().to_lowercase());
        format!("tensors of {} are not evaluated", known.unwrap_or_else(|_| format!("element type {number}")))
    })
}

impl From<Dense> for Value {
    fn from(tensor: Dense) -> Self {
        Self::Tensor(tensor)
    }
}

impl Value {
    /// The number of elements.
    pub fn elements(&self) -> usize {
        let count = |tensor: &Dense| tensor.dims().iter().product::<usize>();
        match self {
            Self::Tensor(tensor) => count(tensor),
            Self::Sequence(tensors) => tensors.iter().map(|tensor| count(tensor) + TENSOR).sum(),
            Self::Absent => 0,
        }
    }

    /// Whether its elements lie row by row, so that nobody has to rearrange them.
    pub fn is_in_rows(&self) -> bool {
        match self {
            Self::Tensor(Dense { data: Data::Float(array), .. }) => array.is_standard_layout(),
            Self::Tensor(Dense { data: Data::Int(array), .. }) => array.is_standard_layout(),
            Self::Tensor(Dense { data: Data::Bool(array), .. }) => array.is_standard_layout(),
            _ => true,
        }
    }

    /// The elements that take as long to go through, also where a size of 0 leaves none and an operator still goes through
    /// the others; each takes longer with more axes.
    pub fn weight(&self) -> usize {
        let of = |tensor: &Dense| weight(tensor.dims());
        match self {
            Self::Tensor(tensor) => of(tensor),
            Self::Sequence(tensors) => {
                tensors.iter().map(|tensor| of(tensor).saturating_add(TENSOR)).fold(0, usize::saturating_add)
            }
            Self::Absent => 0,
        }
    }

    /// What the declared type leaves of the elements.
    pub fn settled(self, precision: Precision) -> Self {
        match self {
            Self::Tensor(tensor) => Self::Tensor(tensor.settled(precision)),
            other => other,
        }
    }
}
