//! From the values of a pickle to the tensors of a state dict, and to what stands beside it.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use bytes::Bytes;
use isqrt_cov_proto::onnx::TensorProto;

use super::Error;
use super::element::Element;
use super::pickle::{Id, Pickle, Storage, Tensor, Value};
use super::place::{self, Place};
use super::storage::{Allowance, View, ViewProblem};

/// The longest text that is taken for a word.
const WORD: usize = 256;

/// The state dict of a file, and what stands beside it.
pub(super) struct Contents {
    pub(super) tensors: Vec<TensorProto>,
    pub(super) facts: Vec<(String, String)>,
    /// How the state dict was found.
    pub(super) notes: Vec<String>,
}

/// The most tensors of a state dict. A ResNet-152 has a thousand.
const TENSORS: usize = 1 << 14;

/// Checks the number of a state dict's tensors.
pub(super) fn bounded(path: &Path, tensors: usize) -> Result<(), Error> {
    if tensors <= TENSORS {
        return Ok(());
    }
    Err(Error::Refused {
        path: path.to_owned(),
        found: format!("a state dict of {tensors} tensors"),
        advice: "expected at most 16384; a network here has a thousand",
    })
}

/// Reads tensors, each storage once.
struct Reader<'p, 'a, S> {
    path: &'p Path,
    pickle: &'p Pickle<'a>,
    /// The whole data of a storage.
    storage: S,
    storages: HashMap<&'a str, Bytes>,
    allowance: Allowance,
}

/// Finds the state dict of `pickle`, a file of `size` bytes, whose storages `storage` reads.
pub(super) fn read<'a, S>(path: &Path, pickle: &Pickle<'a>, size: u64, storage: S) -> Result<Contents, Error>
where
    S: Fn(&Storage<'a>) -> Result<Bytes, ViewProblem>,
{
    let Place { entries, beside, notes } = place::find(path, pickle)?;
    let mut reader =
        Reader { path, pickle, storage, storages: HashMap::new(), allowance: Allowance::of(size) };
    Ok(Contents { tensors: reader.tensors(entries)?, facts: reader.facts(beside)?, notes })
}

impl<'a, S> Reader<'_, 'a, S>
where
    S: Fn(&Storage<'a>) -> Result<Bytes, ViewProblem>,
{
    fn tensors(&mut self, entries: &[(Id, Id)]) -> Result<Vec<TensorProto>, Error> {
        let is_tensor = |entry: &&(Id, Id)| matches!(self.pickle.get(entry.1), Value::Tensor(_));
        bounded(self.path, entries.iter().filter(is_tensor).count())?;
        let mut names = HashSet::new();
        let mut tensors = Vec::new();
        for &(key, value) in entries {
            let path = self.path;
            let &Value::Text(name) = self.pickle.get(key) else {
                // Leaving a tensor out would be found out much later, or never.
                if matches!(self.pickle.get(value), Value::Tensor(_)) {
                    let found = format!("a tensor's name in it is {}", self.pickle.get(key).kind());
                    return Err(Error::StateDict { path: path.to_owned(), found });
                }
                continue;
            };
            let problem = |problem| Error::tensor(path, name, problem);
            let tensor = match self.pickle.get(value) {
                Value::Tensor(tensor) => tensor,
                &Value::Inert(
                    form @ ("a quantized tensor"
                    | "a sparse tensor"
                    | "a meta tensor without data"
                    | "a NumPy array"),
                ) => return Err(problem(ViewProblem::Form(form))),
                _ => continue,
            };
            if !names.insert(name) {
                return Err(problem(ViewProblem::Duplicate));
            }
            tensors.push(self.tensor(name, tensor).map_err(problem)?);
        }
        Ok(tensors)
    }

    fn tensor(&mut self, name: &str, tensor: &Tensor) -> Result<TensorProto, ViewProblem> {
        let (element, bytes) = self.bytes(tensor)?;
        let Some(data_type) = element.onnx else {
            return Err(ViewProblem::Type(element.dtype.to_owned()));
        };
        Ok(TensorProto {
            name: Some(name.to_owned()),
            dims: tensor.dims.clone(),
            data_type: Some(data_type.into()),
            raw_data: Some(bytes),
            ..TensorProto::default()
        })
    }

    fn bytes(&mut self, tensor: &Tensor) -> Result<(&'static Element, Bytes), ViewProblem> {
        let Value::Storage(storage) = self.pickle.get(tensor.storage) else {
            return Err(ViewProblem::Form("a tensor without a storage"));
        };
        let element = tensor.element.unwrap_or(storage.element);
        if element.onnx.is_none() {
            return Err(ViewProblem::Type(element.dtype.to_owned()));
        }
        let whole = if let Some(whole) = self.storages.get(storage.key) {
            whole.clone()
        } else {
            let whole = (self.storage)(storage)?;
            self.storages.insert(storage.key, whole.clone());
            whole
        };
        let expected = storage.length.checked_mul(storage.element.bytes);
        if expected.is_none_or(|expected| expected > whole.len() as u64) {
            return Err(ViewProblem::Storage {
                storage: storage.key.to_owned(),
                found: whole.len() as u64,
                expected: expected.map_or("more than 2^64".to_owned(), |expected| expected.to_string()),
                elements: storage.length,
                dtype: storage.element.dtype,
            });
        }
        // The part of an old file's storage lies inside the whole, and the whole is there.
        let [start, size] =
            [storage.start, storage.size].map(|count| (count * storage.element.bytes) as usize);
        let part = whole.slice(start..start + size);
        let view = View {
            storage: storage.key,
            offset: tensor.offset,
            dims: &tensor.dims,
            strides: &tensor.strides,
        };
        Ok((element, view.bytes(&part, element, &mut self.allowance)?))
    }

    /// The numbers and words among `entries`.
    fn facts(&mut self, entries: &[(Id, Id)]) -> Result<Vec<(String, String)>, Error> {
        let mut facts = Vec::new();
        for &(key, value) in entries {
            let &Value::Text(name) = self.pickle.get(key) else { continue };
            let fact = match self.pickle.get(value) {
                Value::Bool(value) => Some(value.to_string()),
                Value::Int(value) => Some(value.to_string()),
                Value::Float(value) => Some(value.to_string()),
                Value::Text(text) => word(text),
                Value::Tensor(tensor) if tensor.dims.iter().all(|&dim| dim == 1) => {
                    self.number(tensor).map_err(|problem| Error::tensor(self.path, name, problem))?
                }
                _ => None,
            };
            if let (Some(name), Some(fact)) = (word(name), fact) {
                facts.push((name, fact));
            }
        }
        Ok(facts)
    }

    /// The only element of a tensor, such as the accuracy that a script left in one. None where it is of a type that
    /// this reader does not read; beside the state dict that is nobody's loss.
    fn number(&mut self, tensor: &Tensor) -> Result<Option<String>, ViewProblem> {
        use isqrt_cov_proto::TensorData;

        let proto = match self.tensor("", tensor) {
            Ok(proto) => proto,
            Err(ViewProblem::Type(_)) => return Ok(None),
            Err(problem) => return Err(problem),
        };
        let data = TensorData::inline(&proto).ok();
        let number = data.and_then(|data| match (data.to_i64(), data.values::<f32>()) {
            (Some(values), _) => values.first().map(ToString::to_string),
            // The shortest decimal that is that float32, not the float64 beside it.
            (_, Some(values)) => values.first().map(ToString::to_string),
            _ => data.to_f64()?.first().map(ToString::to_string),
        });
        Ok(number)
    }
}

/// The text, if it is short and plain.
pub(super) fn word(text: &str) -> Option<String> {
    let plain = text.len() <= WORD && !text.chars().any(char::is_control);
    plain.then(|| text.to_owned())
}
