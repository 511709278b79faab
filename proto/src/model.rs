//! A model with the place it came from.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message;

use crate::{Error, onnx};

/// A model and the folder in which its external data lies.
#[derive(Debug, Clone)]
pub struct Model {
    /// The message. Change it freely; [`Model::save`] writes it as it then is.
    pub proto: onnx::ModelProto,
    path: PathBuf,
}

/// A model written beside its destination, ready to be run, not yet in its place. Dropped, it leaves nothing behind.
#[derive(Debug)]
pub struct Staged {
    folder: tempfile::TempDir,
    name: std::ffi::OsString,
    destination: PathBuf,
}

impl Model {
    /// Reads a model. External data is left where it is until asked for.
    ///
    /// # Errors
    /// A file that cannot be read, or that is not an ONNX model.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let content = std::fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        let not_a_model = |reason| Error::NotAModel { path: path.to_owned(), reason };
        if content.is_empty() {
            return Err(not_a_model("the file is empty"));
        }
        let proto = onnx::ModelProto::decode(Bytes::from(content))
            .map_err(|source| Error::Decode { path: path.to_owned(), source })?;
        if proto.graph.is_none() {
            return Err(not_a_model("it has no graph"));
        }
        if proto.opset_import.is_empty() {
            return Err(not_a_model("it imports no operator set"));
        }
        Ok(Self { proto, path: path.to_owned() })
    }

    /// The file that the model was read from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the model to `destination`.
    ///
    /// # Errors
    /// A file that cannot be written. Nothing is left behind then.
    pub fn save(&self, destination: impl AsRef<Path>) -> Result<(), Error> {
        self.stage(destination)?.commit()
    }

    /// Writes the model into a temporary folder beside `destination`, where it can be run before it takes its place.
    ///
    /// # Errors
    /// A file that cannot be written. Nothing is left behind then.
    pub fn stage(&self, destination: impl AsRef<Path>) -> Result<Staged, Error> {
        let destination = destination.as_ref();
        let write_error = |source| Error::Write { path: destination.to_owned(), source };
        let parent = match destination.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let name = destination
            .file_name()
            .ok_or_else(|| write_error(std::io::ErrorKind::InvalidFilename.into()))?
            .to_owned();
        let folder =
            tempfile::Builder::new().prefix(".isqrt-cov-").tempdir_in(parent).map_err(write_error)?;
        std::fs::write(folder.path().join(&name), self.proto.encode_to_vec()).map_err(write_error)?;
        Ok(Staged { folder, name, destination: destination.to_owned() })
    }
}

impl Staged {
    /// Where the model lies until [`Staged::commit`].
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.folder.path().join(&self.name)
    }

    /// Moves the model to its destination.
    ///
    /// # Errors
    /// A destination that cannot be replaced. Nothing is left behind then.
    pub fn commit(self) -> Result<(), Error> {
        std::fs::rename(self.path(), &self.destination)
            .map_err(|source| Error::Write { path: self.destination.clone(), source })
    }
}
