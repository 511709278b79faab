//! What a pickle makes.

use crate::checkpoint::element::Element;
use crate::checkpoint::globals::Global;

/// A value's place in the list.
pub(in crate::checkpoint) type Id = u32;

/// Something that a pickle made.
#[derive(Debug)]
pub(in crate::checkpoint) enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    /// An integer of more than 64 bits, little-endian.
    Long(&'a [u8]),
    Float(f64),
    Text(&'a str),
    Bytes(&'a [u8]),
    /// Bytes that are the characters of a text, as protocol 2 writes them.
    Latin1(&'a str),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    NumpyDtype(NumpyDtype),
    Storage(Storage<'a>),
    Tensor(Box<Tensor>),
    /// Anything else, by the name it has in messages.
    Inert(&'static str),
}

/// A type of NumPy's numbers.
#[derive(Debug, Clone, Copy)]
pub(in crate::checkpoint) struct NumpyDtype {
    pub(in crate::checkpoint) kind: char,
    pub(in crate::checkpoint) bytes: usize,
}

/// A storage that the pickle refers to.
#[derive(Debug, Clone, Copy)]
pub(in crate::checkpoint) struct Storage<'a> {
    /// Its name in the file.
    pub(in crate::checkpoint) key: &'a str,
    /// The type of its elements.
    pub(in crate::checkpoint) element: &'static Element,
    /// How many elements the whole storage has.
    pub(in crate::checkpoint) length: u64,
    /// Where this one begins in it; other than 0 in old files only, as the length below.
    pub(in crate::checkpoint) start: u64,
    /// How many elements this one has.
    pub(in crate::checkpoint) size: u64,
}

/// A tensor: a view of a storage.
#[derive(Debug, Clone)]
pub(in crate::checkpoint) struct Tensor {
    /// The storage's place in the list.
    pub(in crate::checkpoint) storage: Id,
    /// The type of the elements, where it is not the storage's.
    pub(in crate::checkpoint) element: Option<&'static Element>,
    /// The first element in the storage.
    pub(in crate::checkpoint) offset: i64,
    pub(in crate::checkpoint) dims: Vec<i64>,
    /// The distance in elements between neighbors along each dimension.
    pub(in crate::checkpoint) strides: Vec<i64>,
}

impl Value<'_> {
    /// What the value is, for messages.
    pub(in crate::checkpoint) fn kind(&self) -> &'static str {
        match self {
            Value::None => "None",
            Value::Bool(_) => "a truth value",
            Value::Int(_) | Value::Long(_) => "an integer",
            Value::Float(_) => "a float",
            Value::Text(_) => "a text",
            Value::Bytes(_) | Value::Latin1(_) => "bytes",
            Value::Tuple(_) => "a tuple",
            Value::List(_) => "a list",
            Value::Dict(_) => "a dict",
            Value::Global(_) => "a class or function",
            Value::NumpyDtype(_) => "a NumPy dtype",
            Value::Storage(_) => "a storage",
            Value::Tensor(_) => "a tensor",
            Value::Inert(name) => name,
        }
    }
}
