//! What `REDUCE`, `NEWOBJ`, `BUILD` and `BINPERSID` make.

use super::machine::Machine;
use super::{Id, NumpyDtype, OPCODES, PickleProblem, Storage, Tensor, Value};
use crate::checkpoint::element::Element;
use crate::checkpoint::globals::Global;

/// The most dimensions that torch lets a tensor have.
const RANK: usize = 64;

impl<'a> Machine<'a> {
    /// Puts on the stack what the constructor `called` makes of `arguments`.
    pub(super) fn call(&mut self, called: Id, arguments: Id) -> Result<(), PickleProblem> {
        let &Value::Global(global) = self.get(called) else {
            return Err(self.operand("REDUCE", called, "a class or function"));
        };
        let Value::Tuple(arguments) = self.get(arguments) else {
            return Err(self.operand("REDUCE", arguments, "a tuple of arguments"));
        };
        // Arguments beyond these are of no constructor.
        let count = arguments.len();
        let mut own = [0; 10];
        own[..count.min(10)].copy_from_slice(&arguments[..count.min(10)]);
        let arguments = &own[..count.min(10)];
        match (global, arguments) {
            // What a default is made with does not matter here.
            (Global::OrderedDict | Global::DefaultDict, []) | (Global::DefaultDict, [_]) => {
                self.push(Value::Dict(Vec::new()));
            }
            (Global::OrderedDict, &[pairs]) => self.ordered(pairs)?,
            (Global::Counter, &[value]) if matches!(self.get(value), Value::Dict(_)) => {
                self.stack.push(value);
            }
            (Global::Size, &[value]) if matches!(self.get(value), Value::Tuple(_)) => self.stack.push(value),
            (Global::RebuildParameter, &[value, ..]) if matches!(self.get(value), Value::Tensor(_)) => {
                self.stack.push(value);
            }
            // A parameter of a quantized or sparse tensor is what that is.
            (Global::RebuildParameter, &[value, ..]) if matches!(self.get(value), Value::Inert(_)) => {
                self.stack.push(value);
            }
            // A tensor of a class of torch's own is what it is rebuilt from; its attributes do not matter.
            (Global::RebuildFromType, &[rebuild, class, parts, _])
                if matches!(self.get(class), Value::Global(Global::TensorClass))
                    && !matches!(self.get(rebuild), Value::Global(Global::RebuildFromType)) =>
            {
                self.call(rebuild, parts)?;
            }
            (
                Global::RebuildTensor | Global::RebuildTensorV2,
                &[storage, offset, dims, strides, ref rest @ ..],
            ) => {
                // Whether gradients are wanted, and hooks, come before the metadata.
                if let Some(&metadata) = rest.get(2)
                    && matches!(self.get(metadata), Value::Dict(pairs) if !pairs.is_empty())
                {
                    let found = "metadata, such as a negative or conjugate bit".to_owned();
                    return Err(PickleProblem::Tensor { part: "numbers", found, expected: "none" });
                }
                self.tensor(storage, offset, dims, strides, None)?;
            }
            (Global::RebuildTensorV3, &[storage, offset, dims, strides, _, _, dtype, ..]) => {
                let &Value::Global(Global::Dtype(element)) = self.get(dtype) else {
                    return Err(self.operand("_rebuild_tensor_v3", dtype, "a dtype of torch"));
                };
                self.tensor(storage, offset, dims, strides, Some(element))?;
            }
            (Global::Encode, &[text, ..]) => {
                let &Value::Text(text) = self.get(text) else {
                    return Err(self.operand("_codecs.encode", text, "a text"));
                };
                self.push(Value::Latin1(text));
            }
            (Global::NumpyDtype, &[name, ..]) => {
                let &Value::Text(name) = self.get(name) else {
                    return Err(self.operand("numpy.dtype", name, "a type's name"));
                };
                self.push(numpy_dtype(name).map_or(Value::Inert("a NumPy dtype"), Value::NumpyDtype));
            }
            (Global::NumpyScalar, &[dtype, bytes]) => {
                let scalar = match self.get(dtype) {
                    &Value::NumpyDtype(dtype) => self.scalar(dtype, bytes),
                    _ => None,
                };
                self.push(scalar.unwrap_or(Value::Inert("a NumPy scalar")));
            }
            (Global::Inert(name), _) => self.push(Value::Inert(name)),
            _ => {
                return Err(PickleProblem::Operand {
                    opcode: "REDUCE",
                    found: "a listed name with arguments it does not take",
                    expected: "those with which torch.save writes it",
                });
            }
        }
        Ok(())
    }

    /// `BUILD`: gives the value on the stack its Python attributes. None of them matters here but those of a NumPy type.
    pub(super) fn build(&mut self, state: Id) -> Result<(), PickleProblem> {
        let to = self.peek()?;
        match (self.get(to), self.get(state)) {
            // An OrderedDict's attributes: a state dict's `_metadata`, the versions of its modules.
            (Value::Dict(_), Value::Dict(_)) | (Value::Inert(_), _) => {}
            (Value::NumpyDtype(_), Value::Tuple(state)) => {
                let order = state.get(1).map(|&order| self.get(order));
                if !matches!(order, Some(Value::Text("<" | "|" | "="))) {
                    self.values[to as usize] = Value::Inert("a NumPy dtype of another byte order");
                }
            }
            _ => return Err(self.operand("BUILD", to, "a dict, or an object without a meaning here")),
        }
        Ok(())
    }

    /// `BINPERSID`: a reference to a storage.
    pub(super) fn refer(&mut self, reference: Id) -> Result<(), PickleProblem> {
        let Value::Tuple(parts) = self.get(reference) else {
            let found = self.get(reference).kind().to_owned();
            return Err(PickleProblem::PersistentId { found });
        };
        let values: Vec<&Value<'a>> = parts.iter().take(6).map(|&part| self.get(part)).collect();
        let (
            &[
                Value::Text("storage"),
                &Value::Global(Global::Storage(element)),
                &Value::Text(key),
                Value::Text(_),
                &Value::Int(length),
                ref view @ ..,
            ],
            5..=6,
        ) = (values.as_slice(), parts.len())
        else {
            let kinds: Vec<&str> = values.iter().map(|value| value.kind()).collect();
            return Err(PickleProblem::PersistentId { found: format!("({})", kinds.join(", ")) });
        };
        let out_of_range = |found: String| PickleProblem::PersistentId { found };
        let length = u64::try_from(length).map_err(|_| out_of_range(format!("one of {length} elements")))?;
        let (start, size) = match view {
            [] | [Value::None] => (0, length),
            // Old files: a storage that is a part of another.
            [Value::Tuple(view)] => match *view.iter().map(|&part| self.get(part)).collect::<Vec<_>>() {
                [Value::Text(_), &Value::Int(start), &Value::Int(size)] => {
                    let part = u64::try_from(start).ok().zip(u64::try_from(size).ok());
                    let inside = part
                        .filter(|(start, size)| start.checked_add(*size).is_some_and(|end| end <= length));
                    inside.ok_or_else(|| {
                        let part = format!("elements {start} and {size} more of a storage of {length}");
                        out_of_range(part)
                    })?
                }
                _ => return Err(out_of_range("a view of an unknown form".to_owned())),
            },
            _ => return Err(out_of_range("a view of an unknown form".to_owned())),
        };
        self.push(Value::Storage(Storage { key, element, length, start, size }));
        Ok(())
    }

    /// An OrderedDict from its pairs, as Python 2 writes it.
    fn ordered(&mut self, pairs: Id) -> Result<(), PickleProblem> {
        let Value::List(pairs) = self.get(pairs) else {
            return Err(self.operand("OrderedDict", pairs, "a list of pairs"));
        };
        let mut items = Vec::with_capacity(2 * pairs.len());
        for &pair in pairs {
            match self.get(pair) {
                Value::Tuple(parts) | Value::List(parts) if parts.len() == 2 => items.extend(parts),
                _ => return Err(self.operand("OrderedDict", pair, "a list of pairs")),
            }
        }
        // One list could be copied again and again.
        self.copied += items.len();
        if self.copied > OPCODES {
            return Err(PickleProblem::TooMany { limit: OPCODES });
        }
        self.push(Value::Dict(Vec::new()));
        self.insert(&items)
    }

    fn tensor(
        &mut self,
        storage: Id,
        offset: Id,
        dims: Id,
        strides: Id,
        element: Option<&'static Element>,
    ) -> Result<(), PickleProblem> {
        if !matches!(self.get(storage), Value::Storage(_)) {
            return Err(self.operand("a tensor", storage, "a storage"));
        }
        let &Value::Int(offset) = self.get(offset) else {
            return Err(self.operand("a tensor", offset, "an offset"));
        };
        let dims = self.sizes("shape", dims)?;
        let strides = self.sizes("strides", strides)?;
        if dims.len() != strides.len() {
            let found = format!("{strides:?} for dims {dims:?}");
            return Err(PickleProblem::Tensor { part: "strides", found, expected: "one for each dimension" });
        }
        self.push(Value::Tensor(Box::new(Tensor { storage, element, offset, dims, strides })));
        Ok(())
    }

    fn sizes(&self, part: &'static str, sizes: Id) -> Result<Vec<i64>, PickleProblem> {
        let (Value::Tuple(sizes) | Value::List(sizes)) = self.get(sizes) else {
            return Err(self.operand("a tensor", sizes, "a tuple of sizes"));
        };
        if sizes.len() > RANK {
            let found = format!("{} numbers", sizes.len());
            return Err(PickleProblem::Tensor { part, found, expected: "at most 64" });
        }
        let size = |&id: &Id| match self.get(id) {
            &Value::Int(size) => Ok(size),
            _ => Err(self.operand("a tensor's shape or strides", id, "integers below 2^63")),
        };
        sizes.iter().map(size).collect()
    }

    /// A NumPy scalar as a number of this reader. None where it is not one.
    fn scalar(&self, dtype: NumpyDtype, bytes: Id) -> Option<Value<'a>> {
        let mut own = [0_u8; 8];
        let own = own.get_mut(..dtype.bytes)?;
        match *self.get(bytes) {
            Value::Bytes(bytes) if bytes.len() == own.len() => own.copy_from_slice(bytes),
            Value::Text(text) if text.len() == own.len() => own.copy_from_slice(text.as_bytes()),
            Value::Latin1(text) => {
                let mut characters = text.chars();
                for byte in &mut *own {
                    *byte = u8::try_from(u32::from(characters.next()?)).ok()?;
                }
                if characters.next().is_some() {
                    return None;
                }
            }
            _ => return None,
        }
        Some(match (dtype.kind, &*own) {
            ('f', &[a, b]) => Value::Float(half::f16::from_le_bytes([a, b]).into()),
            ('f', &[a, b, c, d]) => Value::Float(f32::from_le_bytes([a, b, c, d]).into()),
            ('f', &[a, b, c, d, e, f, g, h]) => Value::Float(f64::from_le_bytes([a, b, c, d, e, f, g, h])),
            ('b', &[byte]) => Value::Bool(byte != 0),
            ('i' | 'u', bytes) => {
                let negative = dtype.kind == 'i' && bytes.last().is_some_and(|&byte| byte >= 0x80);
                let mut wide = if negative { [0xff; 8] } else { [0; 8] };
                wide[..bytes.len()].copy_from_slice(bytes);
                let value = i64::from_le_bytes(wide);
                if dtype.kind == 'u' && value < 0 {
                    return None;
                }
                Value::Int(value)
            }
            _ => return None,
        })
    }
}

/// What NumPy calls `f8` and the like.
fn numpy_dtype(name: &str) -> Option<NumpyDtype> {
    let name = name.strip_prefix(['<', '|', '=']).unwrap_or(name);
    let mut characters = name.chars();
    let kind = characters.next().filter(|kind| matches!(kind, 'f' | 'i' | 'u' | 'b'))?;
    let bytes = characters.as_str().parse().ok().filter(|bytes| matches!(bytes, 1 | 2 | 4 | 8))?;
    Some(NumpyDtype { kind, bytes })
}
