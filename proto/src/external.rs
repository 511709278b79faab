//! Tensor data in files beside the model.
//!
//! A model names those files itself, so a hostile one may name any file of the machine (CVE-2022-25882,
//! CVE-2024-27318, CVE-2024-27319, CVE-2025-51480, CVE-2026-27489, CVE-2026-34446). Here a location is made of normal
//! path components only, must resolve into the model's folder, and must be a regular file with a single name: a
//! symbolic or hard link does not lead out. What cannot be checked is refused.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::error::Problem;
use crate::map::map;
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
        let folder = self.folder.canonicalize().map_err(failed)?;
        let path = folder.join(relative).canonicalize().map_err(failed)?;
        if !path.starts_with(&folder) {
            return Err(refused("leads out of the model's folder; expected a file inside it"));
        }
        let content = map_named(&path).map_err(|unread| match unread {
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

/// Why a file that another one names was not read.
#[derive(Debug)]
pub enum Unread {
    /// It may not be.
    Refused(&'static str),
    /// It could not be.
    Failed(std::io::Error),
}

/// Maps a file that another one names, at a path without links.
///
/// # Errors
/// No regular file, or one with several names; the system's.
pub fn map_named(path: &Path) -> Result<Bytes, Unread> {
    // Looked at before it is opened, because opening a pipe waits for its other end.
    regular(&path.symlink_metadata().map_err(Unread::Failed)?).map_err(Unread::Refused)?;
    let file = File::open(path).map_err(Unread::Failed)?;
    // Looked at again, because the name may meanwhile lead elsewhere.
    regular(&file.metadata().map_err(Unread::Failed)?).map_err(Unread::Refused)?;
    map(&file, path).map_err(Unread::Failed)
}

/// Whether a file that another one names may be read; if not, why. A hard link cannot be told from a file but by the count of
/// its names: whoever unpacks an archive of a stranger's may have made one to a file elsewhere.
#[cfg(unix)]
pub(crate) fn regular(metadata: &Metadata) -> Result<(), &'static str> {
    use std::os::unix::fs::MetadataExt as _;

    if !metadata.is_file() {
        Err("is not a regular file; expected one")
    } else if metadata.nlink() > 1 {
        Err("is a hard link, perhaps to a file elsewhere; copy the file to break the link")
    } else {
        Ok(())
    }
}

#[cfg(not(unix))]
pub(crate) fn regular(_: &Metadata) -> Result<(), &'static str> {
    Err("cannot be checked for hard links on this system; expected all data in one file")
}
