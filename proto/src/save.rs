//! Writing a model: whole and proven first, then in one step under its name.
//!
//! External data cannot take its place in the same step as the model that refers to it. It therefore never takes the place
//! of other data: its name is one that is free, and until the model has its name the former one and its data are what they
//! were.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message as _;

use crate::draft::{Draft, Finished};
use crate::error::{Problem, TensorError};
use crate::external::{self, OWN_DATA, offset_of};
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

/// A model that is written and not yet in its place. Dropped, it leaves nothing behind.
#[derive(Debug)]
pub struct Staged {
    model: Finished,
    data: Option<Finished>,
    /// What was written of the larger tensors, by their place among the model's tensors.
    written: HashMap<usize, Bytes>,
    /// The files from which the data came.
    read: Vec<PathBuf>,
}

impl Model {
    /// Writes the model to `destination`. See [`Model::stage`].
    ///
    /// # Errors
    /// As [`Model::stage`] and [`Staged::commit`].
    pub fn save(&self, destination: impl AsRef<Path>) -> Result<(), Error> {
        self.stage(destination)?.commit()
    }

    /// Writes the model for `destination`, where it is not seen before [`Staged::commit`]. A symbolic link is followed.
    ///
    /// External data stays external, in a file of the model's own: `<file name>.data`, or `<file name>.2.data` and so on
    /// where other data has that name. A message that would exceed protobuf's 2 GiB is written with its larger
    /// initializers there.
    ///
    /// # Errors
    /// A destination that is the input or holds its data, a tensor that cannot be read, a file that cannot be
    /// written. Nothing is left behind then.
    pub fn stage(&self, destination: impl AsRef<Path>) -> Result<Staged, Error> {
        self.stage_within(destination.as_ref(), MESSAGE_LIMIT)
    }

    fn stage_within(&self, destination: &Path, limit: u64) -> Result<Staged, Error> {
        let write_error = |source| Error::Write { path: destination.to_owned(), source };
        let model = Draft::new(destination).map_err(write_error)?;

        let mut proto = self.proto.clone();
        let written = self.larger(&mut proto)?;
        let mut data = DataFile::new(model.destination());
        self.keep_external(&mut proto, &mut data)?;
        if proto.encoded_len() as u64 > limit {
            self.make_external(&mut proto, &mut data)?;
        }
        let read = self.external.opened_paths();
        let data = data.finish(&read, &mut proto)?;
        let found = proto.encoded_len() as u64;
        if found > limit {
            return Err(Error::TooLarge { path: destination.to_owned(), found, limit });
        }
        self.refuse_input(model.destination())?;

        let mut file = BufWriter::new(model);
        let model = stream::write(proto, &mut file)
            .and_then(|()| file.into_inner().map_err(io::IntoInnerError::into_error))
            .and_then(Draft::finish)
            .map_err(write_error)?;
        Ok(Staged { model, data, written, read })
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
    /// The data of the model that is replaced, if one is, which stay: they were not written here, and other models may have them, too.
    #[must_use]
    pub fn leaves(&self) -> Vec<PathBuf> {
        let (_, mut others) = former_data(self.model.destination());
        others.retain(|other| self.may_lose(other));
        others
    }

    /// Whether a file is there that neither what was read nor what was written needs.
    fn may_lose(&self, file: &Path) -> bool {
        self.data() != Some(file) && file.canonicalize().is_ok_and(|file| !self.read.contains(&file))
    }

    /// Gives the model its name, after its data if it has any. A model that was there is replaced, and its data removed where
    /// that was written here.
    ///
    /// # Errors
    /// A destination that cannot be replaced. What was there before is still there then.
    pub fn commit(self) -> Result<(), Error> {
        let (mut former, _) = former_data(self.model.destination());
        former.retain(|former| self.may_lose(former));
        let Self { model, data, .. } = self;
        let failed = |draft: &Finished, source| Error::Write { path: draft.destination().to_owned(), source };
        let mut new = None;
        if let Some(data) = &data {
            match data.commit_new() {
                Ok(()) => new = Some(data.destination()),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && holds_the_same(data) => {}
                Err(error) => return Err(failed(data, error)),
            }
            // The folder is not flushed in between: filesystems keep the order of names, and a process killed here leaves data.
        }
        if let Err(error) = model.commit() {
            // Already failing: the first error is the one to report.
            let _ = new.map(std::fs::remove_file);
            return Err(failed(&model, error));
        }
        for former in former {
            // The model is in its place; what is left over does not make that an error.
            let _ = std::fs::remove_file(former);
        }
        sync(folder_of(model.destination()));
        Ok(())
    }

    /// The file that holds the model's data, where it does not hold them itself.
    #[must_use]
    pub fn data(&self) -> Option<&Path> {
        self.data.as_ref().map(Finished::destination)
    }

    /// The message as the files hold it, with all external data moved into it. Where larger tensors are what was written,
    /// they share the memory of the model that was written: only one of the two is ever in memory.
    ///
    /// # Errors
    /// As [`Model::load`] and [`Model::tensor`].
    pub fn read_back(&self) -> Result<ModelProto, Error> {
        let failed = |draft: &Finished, source| Error::Read { path: draft.destination().to_owned(), source };
        let mapped =
            |draft: &Finished| map(draft.file(), draft.destination()).map_err(|source| failed(draft, source));
        let content = mapped(&self.model)?;
        let mut model = Model::decode(content.clone(), self.model.destination())?;
        if let Some(data) = &self.data {
            model.external.insert(data.destination(), mapped(data)?);
        }
        let mut proto = std::mem::take(&mut model.proto);
        let mut place = 0;
        walk::tensors(&mut proto, &mut |tensor, _| {
            let written = self.written.get(&place);
            place += 1;
            let Some(written) = written else { return Ok(()) };
            let (draft, offset) = match (&tensor.raw_data, &self.data) {
                (Some(raw), _) => {
                    let offset = raw.as_ptr().addr().wrapping_sub(content.as_ptr().addr());
                    (&self.model, offset as u64)
                }
                (None, Some(data)) if tensor.data_location() == DataLocation::External => {
                    let offset = offset_of(tensor).map_err(|problem| {
                        model.tensor_error(TensorError { tensor: tensor.name().to_owned(), problem })
                    })?;
                    (data, offset)
                }
                _ => return Ok(()),
            };
            if holds(draft.file(), offset, written).map_err(|source| failed(draft, source))? {
                tensor.set_raw(written.clone());
            }
            Ok(())
        })?;
        model.proto = proto;
        model.into_inlined()
    }
}

/// Whether a file holds `expected` from `offset` on. It is read, not mapped: what is only compared should not stay.
fn holds(mut file: &File, offset: u64, expected: &[u8]) -> io::Result<bool> {
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
fn holds_the_same(data: &Finished) -> bool {
    let compare = || -> io::Result<bool> {
        let metadata = data.destination().symlink_metadata()?;
        if external::regular(&metadata).is_err() || metadata.len() != data.file().metadata()?.len() {
            return Ok(false);
        }
        holds(&File::open(data.destination())?, 0, &map(data.file(), data.destination())?)
    };
    // What cannot be read is no reason to stop: other names are free.
    compare().unwrap_or(false)
}

/// Makes new names in a folder survive a power cut, where that can be asked for.
fn sync(folder: &Path) {
    if cfg!(unix)
        && let Ok(folder) = File::open(folder)
    {
        // The files are complete either way.
        let _ = folder.sync_all();
    }
}

/// The name of the `number`th file with external data that a model of this name may have.
fn data_name(model: &OsStr, number: usize) -> OsString {
    let mut name = model.to_owned();
    name.push(if number == 1 { ".data".to_owned() } else { format!(".{number}.data") });
    name
}

/// The files with data of the model at `path`, if there is one: those that were written with it, under such names, and others.
fn former_data(path: &Path) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let Ok(mut model) = Model::load(path) else { return (Vec::new(), Vec::new()) };
    let name = path.file_name().unwrap_or_default();
    let has_own_name = |location: &str| {
        let rest = location.strip_prefix(name.to_str()?)?.strip_suffix(".data")?;
        let number = if rest.is_empty() { 1 } else { rest.strip_prefix('.')?.parse().ok()? };
        (data_name(name, number) == *location).then_some(())
    };
    let mut locations = Vec::new();
    let visited: Result<(), std::convert::Infallible> = walk::tensors(&mut model.proto, &mut |tensor, _| {
        let entries = tensor.external_data.iter().filter(|entry| entry.key() == external::LOCATION);
        locations.extend(entries.map(|entry| entry.value().to_owned()));
        Ok(())
    });
    let Ok(()) = visited;
    locations.sort();
    locations.dedup();
    let mark = model.proto.metadata_props.iter().find(|entry| entry.key() == OWN_DATA);
    let is_own = |location: &String| {
        mark.is_some_and(|mark| mark.value() == location) && has_own_name(location).is_some()
    };
    let (own, others): (Vec<String>, Vec<String>) = locations.into_iter().partition(is_own);
    let paths = |locations: Vec<String>| -> Vec<PathBuf> {
        locations.into_iter().map(|location| path.with_file_name(location)).collect()
    };
    (paths(own), paths(others))
}

fn entry(key: &str, value: String) -> StringStringEntryProto {
    StringStringEntryProto { key: Some(key.to_owned()), value: Some(value) }
}

/// The file that gets a model's external data; it is created when the first data comes.
struct DataFile<'a> {
    model: &'a OsStr,
    path: PathBuf,
    writer: Option<BufWriter<Draft>>,
    end: u64,
}

impl<'a> DataFile<'a> {
    fn new(model: &'a Path) -> Self {
        let name = model.file_name().unwrap_or_default();
        Self { model: name, path: model.with_file_name(data_name(name, 1)), writer: None, end: 0 }
    }

    /// Writes `bytes` at the next page and returns their offset.
    fn append(&mut self, bytes: &[u8]) -> Result<u64, Error> {
        let write_error = |source| Error::Write { path: self.path.clone(), source };
        let offset = self.end.next_multiple_of(PAGE);
        let padding = (offset - self.end) as usize;
        if self.writer.is_none() {
            // A name that no file can have is told before the data is written, not after.
            is_free(&self.path)?;
        }
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => self.writer.insert(BufWriter::new(Draft::new(&self.path).map_err(write_error)?)),
        };
        writer
            .write_all(&[0; PAGE as usize][..padding])
            .and_then(|()| writer.write_all(bytes))
            .map_err(write_error)?;
        self.end = offset + bytes.len() as u64;
        Ok(offset)
    }

    /// Makes `tensor` refer to data in this file.
    fn refer(&self, tensor: &mut TensorProto, offset: u64, length: usize) -> Result<(), Error> {
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
    fn finish(self, read: &[PathBuf], proto: &mut ModelProto) -> Result<Option<Finished>, Error> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::tensor_proto::DataType;
    use crate::onnx::{AttributeProto, GraphProto, NodeProto};

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
        let proto = ModelProto::new(GraphProto { initializer, ..GraphProto::default() }, 17);
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
        let initializers = after.proto.graph.as_ref().unwrap().initializer.iter();
        let outside: Vec<bool> = initializers.map(|tensor| !tensor.external_data.is_empty()).collect();
        assert_eq!(outside, [true, false, true]);
    }

    #[test]
    fn what_runtimes_read_nowhere_else_stays_in_the_message() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.onnx");
        let mut model = large();
        let words = TensorProto {
            name: Some("words".to_owned()),
            data_type: Some(DataType::String.into()),
            dims: vec![1],
            string_data: vec![vec![b'x'; 2 * SMALL].into()],
            ..TensorProto::default()
        };
        let constant = TensorProto::from_values("", &[512], &[1.5_f32; 512]);
        let graph = model.proto.graph.as_mut().unwrap();
        graph.initializer.push(words.clone());
        let node = NodeProto::new("Constant", &[], &["c"]).with(AttributeProto::tensor("value", constant));
        graph.node.push(node.clone());
        model.stage_within(&path, 6000).unwrap().commit().unwrap();
        let graph = Model::load(&path).unwrap().proto.graph.unwrap();
        assert_eq!((&graph.initializer[3], &graph.node[..]), (&words, &[node][..]));
    }

    #[test]
    fn what_still_exceeds_the_message_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let error = large().stage_within(&folder.path().join("m.onnx"), 100).unwrap_err();
        assert!(matches!(error, Error::TooLarge { limit: 100, .. }), "{error}");
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    }

    /// A model may have the longest name that there is, and its data then has none.
    #[test]
    fn a_name_that_leaves_none_for_the_data_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        for length in [251, 255] {
            let error = large().stage_within(&folder.path().join("m".repeat(length)), 2000).unwrap_err();
            assert!(error.to_string().contains("m.data: cannot be written: the name is too long"), "{error}");
        }
        // Here a second name is too long, where the first is taken.
        let path = folder.path().join("m".repeat(249));
        std::fs::write(path.with_file_name("m".repeat(249) + ".data"), "other data").unwrap();
        let error = large().stage_within(&path, 2000).unwrap_err();
        assert!(error.to_string().contains("m.2.data: cannot be written: the name is too long"), "{error}");
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
    }

    #[test]
    fn what_is_read_back_is_what_the_files_hold_and_shares_what_is_the_same() {
        for limit in [MESSAGE_LIMIT, 2000] {
            let mut model = large();
            let tensors = [TensorProto::from_values("wide", &[20_000], &vec![2.5_f64; 20_000])];
            model.proto.graph.as_mut().unwrap().initializer.extend(tensors);
            let folder = tempfile::tempdir().unwrap();
            let staged = model.stage_within(&folder.path().join("m.onnx"), limit).unwrap();
            assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "nothing has a name yet");
            let wide =
                |proto: &ModelProto| proto.graph.as_ref().unwrap().initializer[3].raw_data.clone().unwrap();
            let found = staged.read_back().unwrap();
            assert_eq!(wide(&found).as_ptr(), wide(&model.proto).as_ptr());

            let mut file = staged.data.as_ref().unwrap_or(&staged.model).file();
            let content = map(file, "".as_ref()).unwrap();
            let place = content.windows(8).rposition(|bytes| bytes == 2.5_f64.to_le_bytes()).unwrap();
            file.seek(SeekFrom::Start(place as u64)).unwrap();
            file.write_all(&7.0_f64.to_le_bytes()).unwrap();
            let changed = wide(&staged.read_back().unwrap());
            assert!(changed.ends_with(&7.0_f64.to_le_bytes()), "the file is what counts");
            file.seek(SeekFrom::Start(place as u64)).unwrap();
            file.write_all(&2.5_f64.to_le_bytes()).unwrap();
            staged.commit().unwrap();
            assert_eq!(found, Model::load(folder.path().join("m.onnx")).unwrap().inlined().unwrap());
        }
    }
}
