//! Tensor data in files beside the model.
//!
//! A model names those files itself, so a hostile one may name any file of the machine (CVE-2022-25882,
//! CVE-2024-27318, CVE-2024-27319, CVE-2025-51480, CVE-2026-27489, CVE-2026-34446). Here a location is made of normal
//! path components only, and is opened as [`named`](crate::named) says: a link does not lead out.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::error::Problem;
use crate::named::{Unread, open_beside};
use crate::onnx::{StringStringEntryProto, TensorProto};
use crate::tensor::Layout;

/// The key of the entry that names the file.
pub(crate) const LOCATION: &str = "location";

/// The files with external data of one model, each opened once, when first asked for.
#[derive(Debug, Clone)]
pub(crate) struct ExternalFiles {
    folder: PathBuf,
    opened: Arc<Mutex<HashMap<String, Opened>>>,
}

#[derive(Debug, Clone)]
struct Opened {
    path: PathBuf,
    content: Bytes,
}

/// Where a tensor says its data lies.
#[derive(Debug, PartialEq)]
struct Reference<'a> {
    location: &'a str,
    offset: u64,
    length: Option<u64>,
}

impl ExternalFiles {
    /// The files in `folder`.
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder, opened: Arc::default() }
    }

    /// The data of `tensor`, whose size `layout` says. Files are mapped, not read.
    pub(crate) fn read(&self, tensor: &TensorProto, layout: &Layout<'_>) -> Result<Bytes, Problem> {
        let reference = Reference::of(tensor)?;
        let expected = layout.bytes;
        if let Some(length) = reference.length {
            layout.expect("external_data", "bytes", length, expected)?;
        }
        let content = self.open(reference.location)?.content;
        let bounds = || Problem::Bounds {
            location: reference.location.to_owned(),
            offset: reference.offset,
            length: expected,
            size: content.len() as u64,
        };
        let end = reference.offset.checked_add(expected).ok_or_else(bounds)?;
        if end > content.len() as u64 {
            return Err(bounds());
        }
        // Both ends are at most the length of a slice, so they fit `usize`.
        Ok(content.slice(reference.offset as usize..end as usize))
    }

    /// The size of the files opened so far.
    pub(crate) fn opened_bytes(&self) -> u64 {
        let opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        opened.values().map(|file| file.content.len() as u64).sum()
    }

    /// The resolved paths of the files opened so far.
    pub(crate) fn opened_paths(&self) -> Vec<PathBuf> {
        let opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        opened.values().map(|file| file.path.clone()).collect()
    }

    /// Takes `content` for what the file `path`, which need not exist, holds.
    pub(crate) fn insert(&self, path: &Path, content: Bytes) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        opened.insert(name, Opened { path: path.to_owned(), content });
    }

    fn open(&self, location: &str) -> Result<Opened, Problem> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = opened.get(location) {
            return Ok(file.clone());
        }
        let refused = |reason| Problem::Location { location: location.to_owned(), reason };
        let failed = |source| Problem::File { location: location.to_owned(), source };

        let relative = Path::new(location);
        let normal = relative.components().all(|component| matches!(component, Component::Normal(_)));
        if !normal || location.is_empty() {
            return Err(refused(
                "is not a plain relative path; expected the name of a file in the model's folder",
            ));
        }
        let (path, content) = open_beside(&self.folder, relative).map_err(|unread| match unread {
            Unread::Refused(reason) => refused(reason),
            Unread::Failed(source) => failed(source),
        })?;
        let file = Opened { path, content };
        opened.insert(location.to_owned(), file.clone());
        Ok(file)
    }
}

/// Where in its file a tensor says that its data begins.
pub(crate) fn offset_of(tensor: &TensorProto) -> Result<u64, Problem> {
    Ok(Reference::of(tensor)?.offset)
}

impl<'a> Reference<'a> {
    /// Reads the entries of `tensor`. Keys that are not about the place (`checksum`, and what runtimes add) are left
    /// alone.
    fn of(tensor: &'a TensorProto) -> Result<Self, Problem> {
        let number = |key: &'static str| {
            let Some(text) = entry(tensor, key)? else { return Ok(None) };
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let value = if digits { text.parse::<u64>().ok() } else { None };
            value.map(Some).ok_or_else(|| Problem::Entry {
                key,
                found: format!("`{text}`"),
                expected: "a decimal number of bytes below 2^64",
            })
        };
        let location = entry(tensor, LOCATION)?.ok_or_else(|| Problem::Entry {
            key: LOCATION,
            found: "missing".to_owned(),
            expected: "the name of a file in the model's folder",
        })?;
        Ok(Self { location, offset: number("offset")?.unwrap_or(0), length: number("length")? })
    }
}

/// The value of one entry of `external_data`. Given twice, readers would disagree on which counts.
fn entry<'a>(tensor: &'a TensorProto, key: &'static str) -> Result<Option<&'a str>, Problem> {
    let mut values = tensor.external_data.iter().filter(|entry| entry.key() == key);
    let value = values.next().map(StringStringEntryProto::value);
    if values.next().is_some() {
        return Err(Problem::Entry { key, found: "given twice".to_owned(), expected: "one value" });
    }
    Ok(value)
}

/// What a model's metadata calls the file with data that was written with it, so that it can go with the model.
pub(crate) const OWN_DATA: &str = "isqrt_cov.data";
