//! The data of a tensor, in whichever of ONNX's forms it is stored.

use std::ops::Range;

use bytes::Bytes;
use half::{bf16, f16};
use zerocopy::{FromBytes, Immutable};

use crate::error::{Problem, TensorError};
use crate::onnx::TensorProto;
use crate::onnx::tensor_proto::{DataLocation, DataType};

/// The data of a tensor: its type, its shape, and its elements row by row in little-endian order, as `raw_data` would
/// hold them.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorData {
    data_type: DataType,
    dims: Vec<usize>,
    bytes: Bytes,
}

/// A Rust type that is the element of a tensor.
pub trait Element: Copy {
    /// The type's name in ONNX.
    const DATA_TYPE: DataType;

    /// Reads an element from as many bytes as it has.
    fn from_le(bytes: &[u8]) -> Self;

    /// Appends the element's bytes.
    fn append_le(self, to: &mut Vec<u8>);

    /// The element in float64: integers beyond 2^53 are rounded, booleans are 0 and 1.
    fn to_f64(self) -> f64;
}

macro_rules! element {
    ($($type:ty = $data_type:ident, $to_f64:expr;)*) => {$(
        impl Element for $type {
            const DATA_TYPE: DataType = DataType::$data_type;

            #[inline]
            fn from_le(bytes: &[u8]) -> Self {
                let mut own = [0; size_of::<Self>()];
                own.copy_from_slice(bytes);
                Self::from_le_bytes(own)
            }

            fn append_le(self, to: &mut Vec<u8>) {
                to.extend(self.to_le_bytes());
            }

            #[inline]
            fn to_f64(self) -> f64 {
                ($to_f64)(self)
            }
        }
    )*};
}
element!(
    f32 = Float, f64::from;
    f64 = Double, f64::from;
    f16 = Float16, f64::from;
    bf16 = Bfloat16, f64::from;
    i8 = Int8, f64::from;
    i16 = Int16, f64::from;
    i32 = Int32, f64::from;
    i64 = Int64, |value: i64| value as f64;
    u8 = Uint8, f64::from;
    u16 = Uint16, f64::from;
    u32 = Uint32, f64::from;
    u64 = Uint64, |value: u64| value as f64;
);

impl Element for bool {
    const DATA_TYPE: DataType = DataType::Bool;

    fn from_le(bytes: &[u8]) -> Self {
        bytes[0] != 0
    }

    fn append_le(self, to: &mut Vec<u8>) {
        to.push(self.into());
    }

    fn to_f64(self) -> f64 {
        self.into()
    }
}

impl TensorData {
    /// The data of a tensor that holds it itself.
    ///
    /// # Errors
    /// Data that is in another file ([`crate::Model::tensor`] reads that), or that does not have the size that type
    /// and shape imply.
    pub fn inline(tensor: &TensorProto) -> Result<Self, TensorError> {
        Self::read(tensor, |_| Err(Problem::NotInline))
    }

    /// The data of a tensor; `external` gets it where it is in another file.
    pub(crate) fn read(
        tensor: &TensorProto,
        external: impl FnOnce(&Layout<'_>) -> Result<Bytes, Problem>,
    ) -> Result<Self, TensorError> {
        let read = || {
            let layout = Layout::of(tensor)?;
            let bytes = if tensor.data_location() == DataLocation::External {
                external(&layout)?
            } else if let Some(raw) = &tensor.raw_data {
                layout.expect("raw_data", "bytes", raw.len() as u64, layout.bytes)?;
                raw.clone()
            } else {
                layout.typed(tensor)?
            };
            Ok(Self { data_type: layout.data_type, dims: layout.sizes, bytes })
        };
        read().map_err(|problem| TensorError { tensor: tensor.name().to_owned(), problem })
    }

    /// The type of the elements.
    #[must_use]
    pub fn data_type(&self) -> DataType {
        self.data_type
    }

    /// The shape.
    #[must_use]
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// The elements' bytes.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Some of the rows, which are what lies side by side along the first axis; they share the bytes. None of a scalar,
    /// and where elements are not of whole bytes or a row has more than can be counted.
    ///
    /// # Panics
    /// If there are not as many rows.
    #[must_use]
    pub fn rows(&self, rows: Range<usize>) -> Option<Self> {
        let (_, columns) = self.dims.split_first()?;
        let bits = bits(self.data_type)? as usize;
        let bytes = bits.is_multiple_of(8).then_some(bits / 8)?;
        let width = columns.iter().try_fold(bytes, |width, &dim| width.checked_mul(dim))?;
        Some(Self {
            data_type: self.data_type,
            dims: [&[rows.len()], columns].concat(),
            bytes: self.bytes.slice(rows.start * width..rows.end * width),
        })
    }

    /// The elements, where they are of type `T`.
    #[must_use]
    pub fn values<T: Element>(&self) -> Option<Vec<T>> {
        // With a width that the compiler knows this is as fast as a copy.
        let elements = self.bytes.chunks_exact(size_of::<T>());
        (self.data_type == T::DATA_TYPE).then(|| elements.map(T::from_le).collect())
    }

    /// The elements where they lie; none where they are of another type, or not as this machine would have them in memory.
    #[must_use]
    pub fn in_place<T: Element + FromBytes + Immutable>(&self) -> Option<&[T]> {
        let fits = cfg!(target_endian = "little") && self.data_type == T::DATA_TYPE;
        fits.then(|| <[T]>::ref_from_bytes(&self.bytes).ok()).flatten()
    }

    /// The elements of any floating-point, integer or boolean type of 8 bits or more, in float64. Integers beyond
    /// 2^53 are rounded.
    #[must_use]
    pub fn to_f64(&self) -> Option<Vec<f64>> {
        fn widen<T: Element>(data: &TensorData) -> Option<Vec<f64>> {
            Some(data.values::<T>()?.into_iter().map(T::to_f64).collect())
        }
        match self.data_type {
            DataType::Float => widen::<f32>(self),
            DataType::Double => self.values(),
            DataType::Float16 => widen::<f16>(self),
            DataType::Bfloat16 => widen::<bf16>(self),
            DataType::Uint64 => widen::<u64>(self),
            _ => Some(self.to_i64()?.into_iter().map(|value| value as f64).collect()),
        }
    }

    /// The elements of any integer or boolean type of 8 bits or more. None where one exceeds the range of `i64`.
    #[must_use]
    pub fn to_i64(&self) -> Option<Vec<i64>> {
        fn widen<T: Element + Into<i64>>(data: &TensorData) -> Option<Vec<i64>> {
            Some(data.values::<T>()?.into_iter().map(Into::into).collect())
        }
        match self.data_type {
            DataType::Bool => widen::<bool>(self),
            DataType::Int8 => widen::<i8>(self),
            DataType::Int16 => widen::<i16>(self),
            DataType::Int32 => widen::<i32>(self),
            DataType::Int64 => self.values(),
            DataType::Uint8 => widen::<u8>(self),
            DataType::Uint16 => widen::<u16>(self),
            DataType::Uint32 => widen::<u32>(self),
            DataType::Uint64 => {
                self.values::<u64>()?.into_iter().map(|value| i64::try_from(value).ok()).collect()
            }
            _ => None,
        }
    }
}

/// The bits of one element; none for strings and for what is not a type.
#[must_use]
pub fn bits(data_type: DataType) -> Option<u64> {
    Some(match data_type {
        DataType::Undefined | DataType::String => return None,
        DataType::Uint2 | DataType::Int2 => 2,
        DataType::Uint4 | DataType::Int4 | DataType::Float4e2m1 => 4,
        DataType::Float6e2m3 | DataType::Float6e3m2 => 6,
        DataType::Uint8
        | DataType::Int8
        | DataType::Bool
        | DataType::Float8e4m3fn
        | DataType::Float8e4m3fnuz
        | DataType::Float8e5m2
        | DataType::Float8e5m2fnuz
        | DataType::Float8e8m0 => 8,
        DataType::Uint16 | DataType::Int16 | DataType::Float16 | DataType::Bfloat16 => 16,
        DataType::Uint32 | DataType::Int32 | DataType::Float => 32,
        DataType::Uint64 | DataType::Int64 | DataType::Double | DataType::Complex64 => 64,
        DataType::Complex128 => 128,
    })
}

/// What type and shape say about the data.
pub(crate) struct Layout<'a> {
    data_type: DataType,
    dims: &'a [i64],
    sizes: Vec<usize>,
    elements: u64,
    bits: u64,
    pub(crate) bytes: u64,
}

impl<'a> Layout<'a> {
    fn of(tensor: &'a TensorProto) -> Result<Self, Problem> {
        let number = tensor.data_type.unwrap_or(0);
        let data_type = DataType::try_from(number).map_err(|_| Problem::DataType(number))?;
        let bits = bits(data_type).ok_or(Problem::DataType(number))?;
        let dims = &tensor.dims;
        let bad_dims = || Problem::Dims(dims.clone());
        let sizes: Vec<usize> =
            dims.iter().map(|&dim| usize::try_from(dim).map_err(|_| bad_dims())).collect::<Result<_, _>>()?;
        let elements = sizes
            .iter()
            .try_fold(1_u64, |product, &size| product.checked_mul(size as u64))
            .ok_or_else(bad_dims)?;
        let bytes = elements.checked_mul(bits).ok_or_else(bad_dims)?.div_ceil(8);
        Ok(Self { data_type, dims, sizes, elements, bits, bytes })
    }

    pub(crate) fn expect(
        &self,
        field: &'static str,
        unit: &'static str,
        found: u64,
        expected: u64,
    ) -> Result<(), Problem> {
        if found == expected {
            return Ok(());
        }
        Err(Problem::Length {
            field,
            unit,
            found,
            expected,
            data_type: self.data_type,
            dims: self.dims.to_vec(),
        })
    }

    /// The bytes of data that is stored in the field of its type.
    fn typed(&self, tensor: &TensorProto) -> Result<Bytes, Problem> {
        let mut bytes = Vec::new();
        match self.data_type {
            DataType::Float | DataType::Complex64 => {
                let entries = self.elements * (self.bits / 32);
                self.expect("float_data", "entries", tensor.float_data.len() as u64, entries)?;
                tensor.float_data.iter().for_each(|value| value.append_le(&mut bytes));
            }
            DataType::Double | DataType::Complex128 => {
                let entries = self.elements * (self.bits / 64);
                self.expect("double_data", "entries", tensor.double_data.len() as u64, entries)?;
                tensor.double_data.iter().for_each(|value| value.append_le(&mut bytes));
            }
            DataType::Int64 => {
                self.expect("int64_data", "entries", tensor.int64_data.len() as u64, self.elements)?;
                tensor.int64_data.iter().for_each(|value| value.append_le(&mut bytes));
            }
            DataType::Uint32 | DataType::Uint64 => {
                self.expect("uint64_data", "entries", tensor.uint64_data.len() as u64, self.elements)?;
                let width = self.bits as usize / 8;
                for &value in &tensor.uint64_data {
                    if self.bits == 32 && u32::try_from(value).is_err() {
                        return Err(self.range("uint64_data", value));
                    }
                    bytes.extend_from_slice(&value.to_le_bytes()[..width]);
                }
            }
            // `int32_data` holds these one to an entry, `raw_data` four to three bytes. No operator produces them yet.
            DataType::Float6e2m3 | DataType::Float6e3m2 => {
                return Err(Problem::OtherType { found: self.data_type, expected: "raw_data for this type" });
            }
            _ => {
                // Types below 8 bits come packed into entries of one byte.
                let entries = if self.bits < 8 { self.bytes } else { self.elements };
                self.expect("int32_data", "entries", tensor.int32_data.len() as u64, entries)?;
                let bits = self.bits.max(8);
                for &value in &tensor.int32_data {
                    // Writers disagree on whether small types are sign-extended, so both forms are taken.
                    let fits = (-(1_i64 << (bits - 1))..1_i64 << bits).contains(&i64::from(value));
                    if !fits {
                        return Err(self.range("int32_data", value));
                    }
                    bytes.extend_from_slice(&value.to_le_bytes()[..bits as usize / 8]);
                }
            }
        }
        Ok(bytes.into())
    }

    fn range(&self, field: &'static str, found: impl Into<i128>) -> Problem {
        Problem::Range { field, found: found.into(), data_type: self.data_type }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_read_where_they_lie_if_they_lie_right() {
        let bytes = Bytes::from([1.5_f32.to_le_bytes(), 2.5_f32.to_le_bytes()].concat());
        let read = |from: usize| {
            let tensor = TensorProto {
                dims: vec![1],
                data_type: Some(DataType::Float.into()),
                raw_data: Some(bytes.slice(from..from + 4)),
                ..TensorProto::default()
            };
            let data = TensorData::inline(&tensor).unwrap();
            assert_eq!(data.in_place::<i32>(), None, "another type");
            data.in_place::<f32>().map(<[f32]>::to_vec)
        };
        let aligned: Vec<usize> = (0..4).filter(|&from| read(from).is_some()).collect();
        assert_eq!(aligned.len(), usize::from(cfg!(target_endian = "little")));
        if aligned == [0] {
            assert_eq!((read(0), read(4)), (Some(vec![1.5]), Some(vec![2.5])));
        }
    }

    #[test]
    fn rows_share_the_bytes_and_what_has_none_is_told() {
        let matrix = TensorProto::from_values("matrix", &[3, 2], &[1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let data = TensorData::inline(&matrix).unwrap();
        let rows = data.rows(1..3).unwrap();
        assert_eq!((rows.dims(), rows.values::<f32>().unwrap()), (&[2, 2][..], vec![3.0, 4.0, 5.0, 6.0]));
        assert_eq!(rows.bytes().as_ptr(), data.bytes()[8..].as_ptr());
        let of = |dims: &[i64], data_type: DataType| {
            let tensor = TensorProto {
                dims: dims.to_vec(),
                data_type: Some(data_type.into()),
                raw_data: Some(Bytes::from_static(&[0; 4][..if dims.is_empty() { 4 } else { 0 }])),
                ..TensorProto::default()
            };
            TensorData::inline(&tensor).unwrap().rows(0..0)
        };
        assert!(of(&[0, 2], DataType::Float).is_some());
        assert_eq!(of(&[], DataType::Float), None, "a scalar");
        assert_eq!(of(&[0, 2], DataType::Int4), None, "half bytes");
        assert_eq!(of(&[0, 1 << 40, 1 << 40], DataType::Float), None, "a row beyond counting");
    }
}
