//! A model with the place it came from.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message as _;

use crate::content::content;
use crate::external::{ExternalFiles, OWN_DATA};
use crate::onnx::tensor_proto::DataLocation;
use crate::onnx::{ModelProto, TensorProto};
use crate::stand_in::stand_in;
use crate::structure::{self, Refusal};
use crate::tensor::TensorData;
use crate::{Error, TensorError, walk};

/// The most bytes that protobuf allows a message.
pub(crate) const MESSAGE_LIMIT: u64 = i32::MAX as u64;

/// A model, and the folder in which its external data lies.
///
/// Cloning shares the tensors' data.
#[derive(Debug, Clone)]
pub struct Model {
    /// The message. Change it freely; [`Model::save`] writes it as it then is.
    pub proto: ModelProto,
    pub(crate) path: PathBuf,
    pub(crate) external: ExternalFiles,
}

impl Model {
    /// Reads a model. External data is left where it is until asked for.
    ///
    /// # Errors
    /// A file that cannot be read, or that is not an ONNX model: empty, truncated, nested more than 100 messages deep,
    /// or without a graph, an IR version or an operator set.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        Self::decode(content(path, MESSAGE_LIMIT)?, path)
    }

    /// Decodes a model as if it had been read from `path`, whose folder holds the external data. Its tensors share
    /// `content`.
    ///
    /// # Errors
    /// Content that is not an ONNX model; tensors of another size than they say; values and functions that are there twice, or
    /// need themselves.
    pub fn decode(content: Bytes, path: impl Into<PathBuf>) -> Result<Self, Error> {
        let path = path.into();
        if content.is_empty() {
            return Err(Error::NotAModel { path, reason: "the file is empty" });
        }
        if let Some(reason) = stand_in(&content) {
            return Err(Error::NotAModel { path, reason });
        }
        let mut proto = match ModelProto::decode(content) {
            Ok(proto) => proto,
            // The decoder tells the two apart in words only.
            Err(source) if source.to_string().contains("not UTF-8") => {
                return Err(Error::NotText { path, source });
            }
            Err(source) => return Err(Error::Decode { path, source }),
        };
        // Any short run of bytes may happen to decode as a message of nothing but unknown fields.
        let missing = if proto.graph.is_none() {
            Some("it has no graph")
        } else if proto.ir_version() < 1 {
            Some("it has no IR version")
        } else if proto.opset_import.is_empty() && proto.ir_version() >= 3 {
            Some("it imports no operator set; the file may be truncated")
        } else {
            None
        };
        if let Some(reason) = missing {
            return Err(Error::NotAModel { path, reason });
        }
        match structure::check(&mut proto) {
            Ok(()) => Ok(Self::new(proto, path)),
            Err(Refusal::Tensor(source)) => Err(Error::Tensor { path, source: Box::new(source) }),
            Err(Refusal::Structure(problem)) => Err(Error::Structure { path, problem }),
        }
    }

    /// A model as if it had been read from `path`, whose folder holds the external data if there is any.
    #[must_use]
    pub fn new(proto: ModelProto, path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let external = ExternalFiles::new(folder_of(&path).to_owned());
        Self { proto, path, external }
    }

    /// The file that the model was read from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The data of one of the model's tensors, wherever it is. Raw and external data is not copied.
    ///
    /// # Errors
    /// Data that does not have the size that type and shape imply, or a file that must not or cannot be read.
    pub fn tensor(&self, tensor: &TensorProto) -> Result<TensorData, Error> {
        TensorData::read(tensor, |layout| self.external.read(tensor, layout))
            .map_err(|source| self.tensor_error(source))
    }

    pub(crate) fn tensor_error(&self, source: TensorError) -> Error {
        Error::Tensor { path: self.path.clone(), source: Box::new(source) }
    }

    /// The message with all external data moved into it, for readers that know nothing of other files. The data is
    /// mapped, not copied; the message may exceed what protobuf can encode.
    ///
    /// # Errors
    /// As [`Model::tensor`].
    pub fn inlined(&self) -> Result<ModelProto, Error> {
        self.clone().into_inlined()
    }

    /// Moves all external data into the message, so that the model is written as a single file.
    ///
    /// # Errors
    /// As [`Model::tensor`]; a message that would exceed protobuf's 2 GiB, which leaves the model as it was.
    pub fn inline(&mut self) -> Result<(), Error> {
        let proto = self.inlined()?;
        let found = proto.encoded_len() as u64;
        if found > MESSAGE_LIMIT {
            return Err(Error::TooLarge { path: self.path.clone(), found, limit: MESSAGE_LIMIT });
        }
        self.proto = proto;
        Ok(())
    }

    /// The same, of a model that is not needed any more.
    ///
    /// # Errors
    /// As [`Model::tensor`].
    pub fn into_inlined(mut self) -> Result<ModelProto, Error> {
        let mut proto = std::mem::take(&mut self.proto);
        walk::tensors(&mut proto, &mut |tensor, _| {
            if tensor.data_location() == DataLocation::External {
                let data = self.tensor(tensor)?;
                tensor.set_raw(data.bytes().clone());
            }
            Ok(())
        })?;
        proto.metadata_props.retain(|entry| entry.key() != OWN_DATA);
        Ok(proto)
    }
}

/// The folder in which `path` lies.
#[must_use]
pub fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

impl TensorProto {
    /// Makes `bytes` the tensor's only data.
    pub(crate) fn set_raw(&mut self, bytes: Bytes) {
        self.clear_data();
        self.raw_data = Some(bytes);
    }

    /// Drops the tensor's data, wherever it is.
    pub(crate) fn clear_data(&mut self) {
        self.raw_data = None;
        self.float_data.clear();
        self.double_data.clear();
        self.int32_data.clear();
        self.int64_data.clear();
        self.uint64_data.clear();
        self.external_data.clear();
        self.data_location = None;
    }
}
