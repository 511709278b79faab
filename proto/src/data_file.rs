//! The file beside a model that holds its external data.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::Error;
use crate::draft::{Draft, Finished};
use crate::external::{self, OWN_DATA};
use crate::map::map;
use crate::named::regular;
use crate::onnx::tensor_proto::DataLocation;
use crate::onnx::{ModelProto, StringStringEntryProto, TensorProto};
use crate::walk;

/// Offsets of what takes a page or more are multiples of one, so that runtimes can map it.
const PAGE: u64 = 4096;

/// Offsets of what takes less are multiples of a cache's line: many small tensors, each with a page, would make a small model large.
const LINE: u64 = 64;

/// Bytes that are compared at once.
const COMPARED: usize = 1 << 20;

/// The file that gets a model's external data; it is created when the first data comes.
pub(crate) struct DataFile<'a> {
    model: &'a OsStr,
    path: PathBuf,
    writer: Option<BufWriter<Draft>>,
    end: u64,
}

impl<'a> DataFile<'a> {
    pub(crate) fn new(model: &'a Path) -> Self {
        let name = model.file_name().unwrap_or_default();
        Self { model: name, path: model.with_file_name(data_name(name, 1)), writer: None, end: 0 }
    }

    /// Writes `bytes` at the next page, or the next line where they are less than a page, and returns their offset.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<u64, Error> {
        let write_error = |source| Error::Write { path: self.path.clone(), source };
        let aligned = if bytes.len() as u64 >= PAGE { PAGE } else { LINE };
        let offset = self.end.next_multiple_of(aligned);
        let padding = (offset - self.end) as usize;
        if self.writer.is_none() {
            // A name that no file can have is told before the data is written, not after.
            is_free(&self.path)?;
        }
        // Who may not read the model may not read its weights.
        let draft = || Draft::like(&self.path, &self.path.with_file_name(self.model));
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => self.writer.insert(BufWriter::new(draft().map_err(write_error)?)),
        };
        writer
            .write_all(&[0; PAGE as usize][..padding])
            .and_then(|()| writer.write_all(bytes))
            .map_err(write_error)?;
        self.end = offset + bytes.len() as u64;
        Ok(offset)
    }

    /// Makes `tensor` refer to data in this file.
    pub(crate) fn refer(&self, tensor: &mut TensorProto, offset: u64, length: usize) -> Result<(), Error> {
        let location = text(&self.path)?;
        tensor.clear_data();
        tensor.external_data = vec![
            entry(external::LOCATION, location.to_owned()),
            entry("offset", offset.to_string()),
            entry("length", length.to_string()),
        ];
        tensor.data_location = Some(DataLocation::External.into());
        Ok(())
    }

    /// Flushes the file to the disk, if there is one. It gets the first name that is free or that a file of the same content
    /// has, unless that is one of those `read`; `proto`, all of whose external data it holds, then refers to that name, and says
    /// that it is its own.
    pub(crate) fn finish(self, read: &[PathBuf], proto: &mut ModelProto) -> Result<Option<Finished>, Error> {
        proto.metadata_props.retain(|entry| entry.key() != OWN_DATA);
        let Some(writer) = self.writer else { return Ok(None) };
        let write_error = |source| Error::Write { path: self.path.clone(), source };
        let data = writer.into_inner().map_err(io::IntoInnerError::into_error);
        let mut data = data.and_then(Draft::finish).map_err(write_error)?;
        let mut number = 1;
        loop {
            data.rename(&data_name(self.model, number));
            let is_read = || data.destination().canonicalize().is_ok_and(|path| read.contains(&path));
            if is_free(data.destination())? || (!is_read() && holds_the_same(&data)) {
                break;
            }
            number += 1;
        }
        proto.metadata_props.push(entry(OWN_DATA, text(data.destination())?.to_owned()));
        if number > 1 {
            let location = text(data.destination())?;
            walk::tensors(proto, &mut |tensor, _| {
                for entry in tensor.external_data.iter_mut().filter(|entry| entry.key() == external::LOCATION)
                {
                    entry.value = Some(location.to_owned());
                }
                Ok::<(), Error>(())
            })?;
        }
        Ok(Some(data))
    }
}

/// The name of the `number`th file with external data that a model of this name may have.
pub(crate) fn data_name(model: &OsStr, number: usize) -> OsString {
    let mut name = model.to_owned();
    name.push(if number == 1 { ".data".to_owned() } else { format!(".{number}.data") });
    name
}

fn entry(key: &str, value: String) -> StringStringEntryProto {
    StringStringEntryProto { key: Some(key.to_owned()), value: Some(value) }
}

/// Whether no file has the name `path`. Where that cannot be told, no longer name would do either.
fn is_free(path: &Path) -> Result<bool, Error> {
    let failed = |source| Error::Write { path: path.to_owned(), source };
    match path.symlink_metadata() {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::InvalidFilename => {
            let advice = "the name is too long; the model, beside which its data goes, needs a shorter one";
            Err(failed(io::Error::new(error.kind(), advice)))
        }
        Err(error) => Err(failed(error)),
    }
}

/// The name of a file with external data, as a model has it.
fn text(path: &Path) -> Result<&str, Error> {
    path.file_name().and_then(OsStr::to_str).ok_or_else(|| Error::Write {
        path: path.to_owned(),
        source: io::Error::new(
            io::ErrorKind::InvalidFilename,
            "the name of a file with external data must be UTF-8",
        ),
    })
}

/// Whether a file holds `expected` from `offset` on. It is read, not mapped: what is only compared should not stay.
pub(crate) fn holds(mut file: &File, offset: u64, expected: &[u8]) -> io::Result<bool> {
    file.seek(SeekFrom::Start(offset))?;
    let mut found = vec![0; COMPARED.min(expected.len())];
    for expected in expected.chunks(COMPARED) {
        match file.read_exact(&mut found[..expected.len()]) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            outcome => outcome?,
        }
        if found[..expected.len()] != *expected {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a file with the name of `data` has its content, and may be read as external data.
pub(crate) fn holds_the_same(data: &Finished) -> bool {
    let compare = || -> io::Result<bool> {
        let metadata = data.destination().symlink_metadata()?;
        if regular(&metadata).is_err() || metadata.len() != data.file().metadata()?.len() {
            return Ok(false);
        }
        holds(&File::open(data.destination())?, 0, &map(data.file(), data.destination())?)
    };
    // What cannot be read is no reason to stop: other names are free.
    compare().unwrap_or(false)
}

#[cfg(all(test, unix))]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn data_have_the_permissions_of_the_model_that_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.onnx");
        fs::write(&path, "former").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let mut data = DataFile::new(&path);
        data.append(b"weights").unwrap();
        data.finish(&[], &mut ModelProto::default()).unwrap().unwrap().commit_new().unwrap();
        let mode = fs::metadata(folder.path().join("m.onnx.data")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
