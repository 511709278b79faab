//! Writing a model: whole and proven first, then in one step under its name.
//!
//! External data cannot take its place in the same step as the model that refers to it. It therefore never takes the place
//! of other data: its name is one that is free, and until the model has its name the former one and its data are what they
//! were.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message as _;

use crate::data_file::{DataFile, holds, holds_the_same};
use crate::draft::{Draft, Finished};
use crate::error::{Problem, TensorError};
use crate::external::offset_of;
use crate::former::Former;
use crate::map::map;
use crate::model::{MESSAGE_LIMIT, folder_of};
use crate::onnx::ModelProto;
use crate::onnx::tensor_proto::DataLocation;
use crate::walk::{self, Place};
use crate::{Error, Model, stream};

/// Initializers up to this size stay in the message when others must leave it.
const SMALL: usize = 1024;

/// Bytes from which on a tensor's data is not worth being in memory twice.
const SHARED: usize = 1 << 16;

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
    /// The data of the model that is replaced, if one is, which stay: they were not written with it, or other models name them.
    #[must_use]
    pub fn leaves(&self) -> Vec<PathBuf> {
        let mut left = Former::at(self.model.destination()).left;
        left.retain(|left| self.may_lose(left));
        left
    }

    /// Whether a file is there that neither what was read nor what was written needs.
    fn may_lose(&self, file: &Path) -> bool {
        self.data() != Some(file) && file.canonicalize().is_ok_and(|file| !self.read.contains(&file))
    }

    /// Gives the model its name, after its data if it has any. A model that was there is replaced, and its data removed where
    /// that was written with it and no other model in the folder names it.
    ///
    /// # Errors
    /// A destination that cannot be replaced. What was there before is still there then.
    pub fn commit(self) -> Result<(), Error> {
        let mut former = Former::at(self.model.destination()).own;
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

/// Makes new names in a folder survive a power cut, where that can be asked for.
fn sync(folder: &Path) {
    if cfg!(unix)
        && let Ok(folder) = File::open(folder)
    {
        // The files are complete either way.
        let _ = folder.sync_all();
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek as _, SeekFrom, Write as _};

    use super::*;
    use crate::onnx::tensor_proto::DataType;
    use crate::onnx::{AttributeProto, GraphProto, NodeProto, TensorProto};

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
