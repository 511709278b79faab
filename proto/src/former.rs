//! What becomes of the data of a model that is replaced.

use std::convert::Infallible;
use std::path::{Path, PathBuf};

use crate::data_file::data_name;
use crate::external::{LOCATION, OWN_DATA};
use crate::model::folder_of;
use crate::onnx::ModelProto;
use crate::walk;
use crate::{Error, Model};

/// The files with external data of a model that is replaced.
#[derive(Debug, Default)]
pub(crate) struct Former {
    /// Those that were written with it, under such names, and that no other model in the folder names.
    pub own: Vec<PathBuf>,
    /// The others. They stay: other models may have them, too.
    pub left: Vec<PathBuf>,
}

impl Former {
    /// Those of the model at `path`, if there is one.
    pub(crate) fn at(path: &Path) -> Self {
        let Ok(mut model) = Model::load(path) else { return Self::default() };
        let name = path.file_name().unwrap_or_default();
        let has_own_name = |location: &str| {
            let rest = location.strip_prefix(name.to_str()?)?.strip_suffix(".data")?;
            let number = if rest.is_empty() { 1 } else { rest.strip_prefix('.')?.parse().ok()? };
            (data_name(name, number) == *location).then_some(())
        };
        let mark = model.proto.metadata_props.iter().find(|entry| entry.key() == OWN_DATA);
        let mark = mark.map(|mark| mark.value().to_owned());
        let is_own = |location: &String| mark.as_ref() == Some(location) && has_own_name(location).is_some();
        let (mut own, mut left): (Vec<String>, Vec<String>) =
            locations(&mut model.proto).into_iter().partition(is_own);
        if !own.is_empty() {
            left.extend(own.extract_if(.., |location| is_named_beside(path, location)));
        }
        let paths = |locations: Vec<String>| -> Vec<PathBuf> {
            locations.into_iter().map(|location| path.with_file_name(location)).collect()
        };
        Self { own: paths(own), left: paths(left) }
    }
}

/// The files that a model names, each once.
fn locations(proto: &mut ModelProto) -> Vec<String> {
    let mut locations = Vec::new();
    let visited: Result<(), Infallible> = walk::tensors(proto, &mut |tensor, _| {
        let entries = tensor.external_data.iter().filter(|entry| entry.key() == LOCATION);
        locations.extend(entries.map(|entry| entry.value().to_owned()));
        Ok(())
    });
    let Ok(()) = visited;
    locations.sort();
    locations.dedup();
    locations
}

/// Whether another model in the folder of the one at `path` names this file, as a copy of that one does, whatever it is called.
/// Where it cannot be told, it may.
fn is_named_beside(path: &Path, location: &str) -> bool {
    let Ok(entries) = folder_of(path).read_dir() else { return true };
    entries.into_iter().any(|entry| {
        let Ok(other) = entry.map(|entry| entry.path()) else { return true };
        if other.file_name() == path.file_name() || !other.is_file() {
            return false;
        }
        match Model::load(&other) {
            Ok(mut other) => locations(&mut other.proto).iter().any(|named| named == location),
            // Most files are no models.
            Err(Error::Decode { .. } | Error::NotAModel { .. }) => {
                other.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("onnx"))
            }
            // Nor is what no message can be as large as.
            Err(Error::NotAFile { .. } | Error::TooLarge { .. }) => false,
            Err(_) => true,
        }
    })
}
