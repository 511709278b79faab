//! Writing a model: beside its destination first, then by rename.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message as _;
use tempfile::TempDir;

use crate::error::{Problem, TensorError};
use crate::external::offset_of;
use crate::map::map;
use crate::model::{MESSAGE_LIMIT, folder_of};
use crate::onnx::tensor_proto::DataLocation;
use crate::onnx::{ModelProto, StringStringEntryProto, TensorProto};
use crate::walk::{self, Place};
use crate::{Error, Model, stream};

/// Offsets of external data are multiples of a page, so that runtimes can map it.
const PAGE: u64 = 4096;

/// Initializers up to this size stay in the message when others must leave it.
const SMALL: usize = 1024;

/// Bytes from which on a tensor's data is not worth being in memory twice.
const SHARED: usize = 1 << 16;

/// Bytes that are compared at once.
const COMPARED: usize = 1 << 20;

/// A model written beside its destination, ready to be run, not yet in its place. Dropped, it leaves nothing behind.
#[derive(Debug)]
pub struct Staged {
    folder: TempDir,
    model: PathBuf,
    data: Option<PathBuf>,
    /// What was written of the larger tensors, by their place among the model's tensors.
    written: HashMap<usize, Bytes>,
}

impl Model {
    /// Writes the model to `destination`. See [`Model::stage`].
    ///
    /// # Errors
    /// As [`Model::stage`] and [`Staged::commit`].
    pub fn save(&self, destination: impl AsRef<Path>) -> Result<(), Error> {
        self.stage(destination)?.commit()
    }

    /// Writes the model into a temporary folder beside `destination`, where it can be run before it takes its place.
    ///
    /// External data stays external, in a file of the model's own, `<file name>.data`. A message that would exceed
    /// protobuf's 2 GiB is written with its larger initializers there.
    ///
    /// # Errors
    /// A destination that is the input or holds its data, a tensor that cannot be read, a file that cannot be
    /// written. Nothing is left behind then.
    pub fn stage(&self, destination: impl AsRef<Path>) -> Result<Staged, Error> {
        self.stage_within(destination.as_ref(), MESSAGE_LIMIT)
    }

    fn stage_within(&self, destination: &Path, limit: u64) -> Result<Staged, Error> {
        let write_error = |source| Error::Write { path: destination.to_owned(), source };
        let name =
            destination.file_name().ok_or_else(|| write_error(io::ErrorKind::InvalidFilename.into()))?;
        let parent = folder_of(destination);
        let folder =
            tempfile::Builder::new().prefix(".isqrt-cov-").tempdir_in(parent).map_err(write_error)?;

        let mut proto = self.proto.clone();
        let written = self.larger(&mut proto)?;
        let mut data = DataFile::new(folder.path(), name);
        self.keep_external(&mut proto, &mut data)?;
        if proto.encoded_len() as u64 > limit {
            self.make_external(&mut proto, &mut data)?;
        }
        let found = proto.encoded_len() as u64;
        if found > limit {
            return Err(Error::TooLarge { path: destination.to_owned(), found, limit });
        }
        let data = data.finish()?.map(|name| parent.join(name));
        for path in [Some(destination), data.as_deref()].into_iter().flatten() {
            self.refuse_input(path)?;
        }

        let mut file = BufWriter::new(File::create(folder.path().join(name)).map_err(write_error)?);
        stream::write(proto, &mut file)
            .and_then(|()| file.into_inner().map_err(io::IntoInnerError::into_error))
            .and_then(|file| file.sync_all())
            .map_err(write_error)?;
        Ok(Staged { folder, model: destination.to_owned(), data, written })
    }

    /// The data of the larger tensors of `proto`, by their place.
    fn larger(&self, proto: &mut ModelProto) -> Result<HashMap<usize, Bytes>, Error> {
        let mut larger = HashMap::new();
        let mut place = 0;
        walk::tensors(proto, &mut |tensor, _| {
            let bytes = if tensor.data_location() == DataLocation::External {
                Some(self.tensor(tensor)?.bytes().clone())
            } else {
                tensor.raw_data.clone()
            };
            larger.extend(bytes.filter(|bytes| bytes.len() >= SHARED).map(|bytes| (place, bytes)));
            place += 1;
            Ok(())
        })?;
        Ok(larger)
    }

    /// Copies the external data of `proto` into `data`; ranges that several tensors share are copied once.
    fn keep_external(&self, proto: &mut ModelProto, data: &mut DataFile) -> Result<(), Error> {
        // The mapped files stay where they are while the model lives, so an address identifies a range.
        let mut copied: HashMap<(*const u8, usize), u64> = HashMap::new();
        let mut total = 0;
        walk::tensors(proto, &mut |tensor, _| {
            if tensor.data_location() != DataLocation::External {
                return Ok(());
            }
            let content = self.tensor(tensor)?;
            let bytes = content.bytes();
            let range = (bytes.as_ptr(), bytes.len());
            let offset = if let Some(&offset) = copied.get(&range) {
                offset
            } else {
                total += bytes.len() as u64;
                if total > self.external.opened_bytes() {
                    // Otherwise a small hostile pair of files could fill the disk.
                    let tensor = tensor.name().to_owned();
                    return Err(self.tensor_error(TensorError { tensor, problem: Problem::Overlap }));
                }
                let offset = data.append(bytes)?;
                copied.insert(range, offset);
                offset
            };
            data.refer(tensor, offset, bytes.len())
        })
    }

    /// Moves the larger initializers of `proto` out of the message into `data`.
    fn make_external(&self, proto: &mut ModelProto, data: &mut DataFile) -> Result<(), Error> {
        walk::tensors(proto, &mut |tensor, place| {
            let inline = tensor.data_location() == DataLocation::Default;
            let numbers = tensor.string_data.is_empty();
            if place != Place::Initializer || !inline || !numbers || tensor.encoded_len() <= SMALL {
                return Ok(());
            }
            let content = self.tensor(tensor)?;
            let offset = data.append(content.bytes())?;
            data.refer(tensor, offset, content.bytes().len())
        })
    }

    fn refuse_input(&self, destination: &Path) -> Result<(), Error> {
        // A destination that does not exist yet, and a model that never was a file, cannot be each other.
        let Ok(destination) = destination.canonicalize() else { return Ok(()) };
        let is_model = self.path.canonicalize().is_ok_and(|path| path == destination);
        if is_model || self.external.opened_paths().contains(&destination) {
            return Err(Error::OverInput { path: destination });
        }
        Ok(())
    }
}

impl Staged {
    /// Where the model lies until [`Staged::commit`], under its final file name.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.staged(&self.model)
    }

    /// Moves the model, and its data if it has any, to their destinations, replacing what is there.
    ///
    /// # Errors
    /// A destination that cannot be replaced. What was there before is there again then.
    pub fn commit(self) -> Result<(), Error> {
        let mut former = None;
        if let Some(data) = &self.data {
            let backup = self.folder.path().join("former");
            // Most often there is nothing to be moved away.
            if std::fs::rename(data, &backup).is_ok() {
                former = Some(backup);
            }
            rename(&self.staged(data), data)?;
        }
        if let Err(error) = rename(&self.path(), &self.model) {
            if let Some(data) = &self.data {
                // Already failing: the first error is the one to report.
                let _ = match former {
                    Some(former) => std::fs::rename(former, data),
                    None => std::fs::remove_file(data),
                };
            }
            return Err(error);
        }
        #[cfg(unix)]
        if let Ok(folder) = File::open(folder_of(&self.model)) {
            // The files are complete either way; this only makes the new names survive a power cut.
            let _ = folder.sync_all();
        }
        Ok(())
    }

    /// The message as the files hold it, with all external data moved into it. Where larger tensors are what was written,
    /// they share the memory of the model that was written: only one of the two is ever in memory.
    ///
    /// # Errors
    /// As [`Model::load`] and [`Model::tensor`].
    pub fn read_back(&self) -> Result<ModelProto, Error> {
        let failed = |path: &Path, source| Error::Read { path: path.to_owned(), source };
        let open = |path: PathBuf| match File::open(&path) {
            Ok(file) => Ok((file, path)),
            Err(source) => Err(failed(&path, source)),
        };
        let (mut message, path) = open(self.path())?;
        let content = map(&message).map_err(|source| failed(&path, source))?;
        let mut data = self.data.as_ref().map(|data| open(self.staged(data))).transpose()?;
        let mut model = Model::decode(content.clone(), &path)?;
        let mut proto = std::mem::take(&mut model.proto);
        let mut place = 0;
        walk::tensors(&mut proto, &mut |tensor, _| {
            let written = self.written.get(&place);
            place += 1;
            let Some(written) = written else { return Ok(()) };
            let (file, path, offset) = match (&tensor.raw_data, &mut data) {
                (Some(raw), _) => {
                    let offset = raw.as_ptr().addr().wrapping_sub(content.as_ptr().addr());
                    (&mut message, &path, offset as u64)
                }
                (None, Some((file, path))) if tensor.data_location() == DataLocation::External => {
                    let offset = offset_of(tensor).map_err(|problem| {
                        model.tensor_error(TensorError { tensor: tensor.name().to_owned(), problem })
                    })?;
                    (file, &*path, offset)
                }
                _ => return Ok(()),
            };
            if holds(file, offset, written).map_err(|source| failed(path, source))? {
                tensor.set_raw(written.clone());
            }
            Ok(())
        })?;
        model.proto = proto;
        model.into_inlined()
    }

    fn staged(&self, destination: &Path) -> PathBuf {
        self.folder.path().join(destination.file_name().unwrap_or_default())
    }
}

/// Whether a file holds `expected` from `offset` on. It is read, not mapped: what is only compared should not stay.
fn holds(file: &mut File, offset: u64, expected: &[u8]) -> io::Result<bool> {
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

fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    std::fs::rename(from, to).map_err(|source| Error::Write { path: to.to_owned(), source })
}

/// The file that gets a model's external data; it is created when the first data comes.
struct DataFile {
    path: PathBuf,
    writer: Option<BufWriter<File>>,
    end: u64,
}

impl DataFile {
    fn new(folder: &Path, model: &OsStr) -> Self {
        let mut name = model.to_owned();
        name.push(".data");
        Self { path: folder.join(name), writer: None, end: 0 }
    }

    /// Writes `bytes` at the next page and returns their offset.
    fn append(&mut self, bytes: &[u8]) -> Result<u64, Error> {
        let offset = self.end.next_multiple_of(PAGE);
        let padding = (offset - self.end) as usize;
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => self.writer.insert(BufWriter::new(
                File::create(&self.path)
                    .map_err(|source| Error::Write { path: self.path.clone(), source })?,
            )),
        };
        writer
            .write_all(&[0; PAGE as usize][..padding])
            .and_then(|()| writer.write_all(bytes))
            .map_err(|source| Error::Write { path: self.path.clone(), source })?;
        self.end = offset + bytes.len() as u64;
        Ok(offset)
    }

    /// Makes `tensor` refer to data in this file.
    fn refer(&self, tensor: &mut TensorProto, offset: u64, length: usize) -> Result<(), Error> {
        let location = self.path.file_name().and_then(OsStr::to_str).ok_or_else(|| Error::Write {
            path: self.path.clone(),
            source: io::Error::new(
                io::ErrorKind::InvalidFilename,
                "the name of a file with external data must be UTF-8",
            ),
        })?;
        let entry = |key: &str, value: String| StringStringEntryProto {
            key: Some(key.to_owned()),
            value: Some(value),
        };
        tensor.clear_data();
        tensor.external_data = vec![
            entry("location", location.to_owned()),
            entry("offset", offset.to_string()),
            entry("length", length.to_string()),
        ];
        tensor.data_location = Some(DataLocation::External.into());
        Ok(())
    }

    /// Flushes the file to the disk. Returns its name if there is one.
    fn finish(self) -> Result<Option<std::ffi::OsString>, Error> {
        let Some(writer) = self.writer else { return Ok(None) };
        writer
            .into_inner()
            .map_err(io::IntoInnerError::into_error)
            .and_then(|file| file.sync_all())
            .map_err(|source| Error::Write { path: self.path.clone(), source })?;
        Ok(self.path.file_name().map(OsStr::to_owned))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::{GraphProto, OperatorSetIdProto};

    fn large() -> Model {
        let typed = TensorProto {
            name: Some("typed".to_owned()),
            data_type: Some(1),
            dims: vec![1000],
            float_data: (0..1000_u16).map(f32::from).collect(),
            ..TensorProto::default()
        };
        let initializer = vec![
            TensorProto::from_values("large", &[4096], &[1.5_f64; 4096]),
            TensorProto::scalar("small", 2.5_f32),
            typed,
        ];
        let proto = ModelProto {
            ir_version: Some(8),
            opset_import: vec![OperatorSetIdProto::new("", 17)],
            graph: Some(GraphProto { initializer, ..GraphProto::default() }),
            ..ModelProto::default()
        };
        Model::new(proto, "")
    }

    #[test]
    fn what_exceeds_the_message_goes_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.onnx");
        large().stage_within(&path, 2000).unwrap().commit().unwrap();
        assert!(std::fs::metadata(&path).unwrap().len() <= 2000);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 2);

        let (before, after) = (large(), Model::load(&path).unwrap());
        let tensors = |model: &Model| -> Vec<_> {
            let graph = model.proto.graph.as_ref().unwrap();
            graph.initializer.iter().map(|tensor| model.tensor(tensor).unwrap()).collect()
        };
        assert_eq!(tensors(&before), tensors(&after));
    }

    #[test]
    fn what_still_exceeds_the_message_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let error = large().stage_within(&folder.path().join("m.onnx"), 100).unwrap_err();
        assert!(matches!(error, Error::TooLarge { limit: 100, .. }), "{error}");
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    }

    #[test]
    fn what_is_read_back_is_what_the_files_hold_and_shares_what_is_the_same() {
        for limit in [MESSAGE_LIMIT, 2000] {
            let mut model = large();
            let tensors = [TensorProto::from_values("wide", &[20_000], &vec![2.5_f64; 20_000])];
            model.proto.graph.as_mut().unwrap().initializer.extend(tensors);
            let folder = tempfile::tempdir().unwrap();
            let staged = model.stage_within(&folder.path().join("m.onnx"), limit).unwrap();
            let wide =
                |proto: &ModelProto| proto.graph.as_ref().unwrap().initializer[3].raw_data.clone().unwrap();
            let found = staged.read_back().unwrap();
            assert_eq!(found, Model::load(staged.path()).unwrap().inlined().unwrap());
            assert_eq!(wide(&found).as_ptr(), wide(&model.proto).as_ptr());
            drop(found);

            let path = staged.data.as_ref().map_or(staged.path(), |data| staged.staged(data));
            let mut content = std::fs::read(&path).unwrap();
            let place = content.windows(8).rposition(|bytes| bytes == 2.5_f64.to_le_bytes()).unwrap();
            content[place..place + 8].copy_from_slice(&7.0_f64.to_le_bytes());
            std::fs::write(&path, content).unwrap();
            let changed = wide(&staged.read_back().unwrap());
            assert!(changed.ends_with(&7.0_f64.to_le_bytes()), "the file is what counts");
        }
    }
}
