//! The types that elements of torch's storages have.

use isqrt_cov_proto::onnx::tensor_proto::DataType;

/// A type as torch knows it.
#[derive(Debug)]
pub(super) struct Element {
    /// Its name as a `dtype`, in module `torch`.
    pub(super) dtype: &'static str,
    /// The class of storages that hold it, in module `torch`; empty where only untyped storages do.
    pub(super) storage: &'static str,
    /// The bytes of one element.
    pub(super) bytes: u64,
    /// The same type in ONNX, for those that weights of a network here have.
    pub(super) onnx: Option<DataType>,
}

const fn element(dtype: &'static str, storage: &'static str, bytes: u64, onnx: Option<DataType>) -> Element {
    Element { dtype, storage, bytes, onnx }
}

static ELEMENTS: [Element; 26] = [
    element("float32", "FloatStorage", 4, Some(DataType::Float)),
    element("float64", "DoubleStorage", 8, Some(DataType::Double)),
    element("float16", "HalfStorage", 2, Some(DataType::Float16)),
    element("bfloat16", "BFloat16Storage", 2, Some(DataType::Bfloat16)),
    element("int64", "LongStorage", 8, Some(DataType::Int64)),
    element("int32", "IntStorage", 4, Some(DataType::Int32)),
    element("int16", "ShortStorage", 2, Some(DataType::Int16)),
    element("int8", "CharStorage", 1, Some(DataType::Int8)),
    element("uint8", "ByteStorage", 1, Some(DataType::Uint8)),
    element("bool", "BoolStorage", 1, Some(DataType::Bool)),
    element("uint16", "", 2, None),
    element("uint32", "", 4, None),
    element("uint64", "", 8, None),
    element("complex32", "", 4, None),
    element("complex64", "ComplexFloatStorage", 8, None),
    element("complex128", "ComplexDoubleStorage", 16, None),
    element("quint8", "QUInt8Storage", 1, None),
    element("qint8", "QInt8Storage", 1, None),
    element("qint32", "QInt32Storage", 4, None),
    element("quint4x2", "QUInt4x2Storage", 1, None),
    element("quint2x4", "QUInt2x4Storage", 1, None),
    element("float8_e4m3fn", "", 1, None),
    element("float8_e4m3fnuz", "", 1, None),
    element("float8_e5m2", "", 1, None),
    element("float8_e5m2fnuz", "", 1, None),
    element("float8_e8m0fnu", "", 1, None),
];

impl Element {
    /// The type of that name.
    pub(super) fn of_dtype(name: &str) -> Option<&'static Self> {
        ELEMENTS.iter().find(|element| element.dtype == name)
    }

    /// The type that storages of that class hold.
    pub(super) fn of_storage(class: &str) -> Option<&'static Self> {
        ELEMENTS.iter().find(|element| !element.storage.is_empty() && element.storage == class)
    }
}
