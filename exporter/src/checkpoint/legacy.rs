//! The files of `torch.save` before PyTorch 1.6: five pickles, and the storages after them.
//!
//! The pickles are a magic number, a protocol version, facts about the machine, the value saved, and the names of the
//! storages; each storage is the number of its elements in eight bytes, and the elements.

use std::collections::HashMap;
use std::path::Path;

use bytes::Bytes;

use super::Error;
use super::pickle::{Pickle, Value};
use super::state_dict::{self, Contents};
use super::storage::ViewProblem;

/// 0x1950a86a20f9469cfc6c, little-endian.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
const PROTOCOL: i64 = 1001;

/// Reads the file `content`.
pub(super) fn read(path: &Path, content: &Bytes) -> Result<Contents, Error> {
    let next = |start, part: &str| {
        Pickle::read(content, start).map_err(|(at, problem)| Error::Pickle {
            path: path.to_owned(),
            place: part.to_owned(),
            at,
            problem,
        })
    };
    let unlike = |at, found: String, expected| Error::Legacy { path: path.to_owned(), at, found, expected };
    let magic = next(0, "first pickle")?;
    if !matches!(magic.get(magic.top), Value::Long(bytes) if *bytes == MAGIC) {
        return Err(Error::Kind {
            path: path.to_owned(),
            found: format!(
                "a pickle of {}, without the magic number that torch.save begins with",
                magic.get(magic.top).kind()
            ),
        });
    }
    let protocol = next(magic.end, "protocol version")?;
    if !matches!(protocol.get(protocol.top), Value::Int(PROTOCOL)) {
        let found = match protocol.get(protocol.top) {
            Value::Int(version) => format!("torch's protocol version is {version}"),
            other => format!("torch's protocol version is {}", other.kind()),
        };
        return Err(unlike(magic.end, found, "1001"));
    }
    let system = next(protocol.end, "facts about the machine")?;
    let little = match system.get(system.top) {
        Value::Dict(facts) => {
            facts.iter().find_map(|(key, value)| match (system.get(*key), system.get(*value)) {
                (Value::Text("little_endian"), &Value::Bool(little)) => Some(little),
                _ => None,
            })
        }
        _ => None,
    };
    if little != Some(true) {
        let found = if little.is_some() {
            "the file was written big-endian"
        } else {
            "it is not said how bytes are ordered"
        };
        return Err(unlike(
            protocol.end,
            found.to_owned(),
            "little_endian: True; load and save it with torch again",
        ));
    }
    let pickle = next(system.end, "the saved value")?;
    let keys = next(pickle.end, "list of storages")?;
    let storages = storages(path, content, &pickle, &keys)?;
    state_dict::read(path, &pickle, content.len() as u64, |storage| {
        storages.get(storage.key).cloned().ok_or_else(|| ViewProblem::Missing(storage.key.to_owned()))
    })
}

/// The data of each storage, after the pickles.
fn storages<'a>(
    path: &Path,
    content: &Bytes,
    pickle: &Pickle<'a>,
    keys: &Pickle<'a>,
) -> Result<HashMap<&'a str, Bytes>, Error> {
    let unlike = |at, found: String, expected| Error::Legacy { path: path.to_owned(), at, found, expected };
    let Value::List(list) = keys.get(keys.top) else {
        let found = format!("the names of the storages are {}", keys.get(keys.top).kind());
        return Err(unlike(pickle.end, found, "a list"));
    };
    let mut elements = HashMap::new();
    for storage in pickle.storages() {
        let known = elements.entry(storage.key).or_insert(storage.element);
        if known.bytes != storage.element.bytes {
            let found =
                format!("a storage has elements of types {} and {}", known.dtype, storage.element.dtype);
            return Err(unlike(pickle.end, found, "one type for each storage"));
        }
    }
    let mut storages = HashMap::new();
    let mut at = keys.end;
    for &key in list {
        let &Value::Text(key) = keys.get(key) else {
            let found = format!("a storage's name is {}", keys.get(key).kind());
            return Err(unlike(pickle.end, found, "a text"));
        };
        let Some(element) = elements.get(key) else {
            return Err(unlike(
                pickle.end,
                "a storage is listed that no tensor has".to_owned(),
                "those of the tensors",
            ));
        };
        let left = &content[at..];
        let Some((length, data)) = left.split_first_chunk::<8>() else {
            let found = format!("{} bytes for the length of a storage", left.len());
            return Err(unlike(at, found, "8; the file is truncated"));
        };
        let length = i64::from_le_bytes(*length);
        let bytes = u64::try_from(length).ok().and_then(|length| length.checked_mul(element.bytes));
        let Some(bytes) = bytes.filter(|&bytes| bytes <= data.len() as u64) else {
            let found = format!(
                "a storage of {length} elements of type {}, with {} bytes to the end of the file",
                element.dtype,
                data.len()
            );
            return Err(unlike(at, found, "all of its elements; the file is truncated or damaged"));
        };
        let start = at + 8;
        at = start + bytes as usize;
        if storages.insert(key, content.slice(start..at)).is_some() {
            return Err(unlike(pickle.end, "a storage is listed twice".to_owned(), "each once"));
        }
    }
    Ok(storages)
}
