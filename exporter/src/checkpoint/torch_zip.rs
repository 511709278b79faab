//! The files of `torch.save` from PyTorch 1.6 on: a zip archive with a pickle and one entry for each storage.

use std::path::Path;

use bytes::Bytes;

use super::Error;
use super::archive::{Archive, ArchiveProblem};
use super::pickle::Pickle;
use super::state_dict::{self, Contents};
use super::storage::ViewProblem;
use isqrt_cov_proto::Printable;

/// Reads the archive `content`.
pub(super) fn read(path: &Path, content: Bytes) -> Result<Contents, Error> {
    let wrong = |problem| Error::Archive { path: path.to_owned(), problem: Box::new(problem) };
    let size = content.len() as u64;
    let archive = Archive::open(content).map_err(wrong)?;
    let prefix = prefix(path, &archive)?;
    let name = |entry: &str| format!("{prefix}/{entry}");
    let order = name("byteorder");
    // Missing in files from before there was a choice.
    if archive.names().any(|entry| entry == order) {
        let found = archive.read(&order).map_err(wrong)?;
        if found.trim_ascii() != b"little" {
            return Err(Error::Refused {
                path: path.to_owned(),
                found: format!(
                    "entry `{}` says `{}`",
                    Printable(&order),
                    Printable(&String::from_utf8_lossy(&found))
                ),
                advice: "expected `little`: load the file and save it again on a little-endian machine",
            });
        }
    }
    let place = name("data.pkl");
    let program = archive.read(&place).map_err(wrong)?;
    let pickle = Pickle::read(&program, 0).map_err(|(at, problem)| Error::Pickle {
        path: path.to_owned(),
        place: format!("entry `{}`", Printable(&place)),
        at,
        problem,
    })?;
    let storage = |storage: &super::pickle::Storage<'_>| {
        let entry = name(&format!("data/{}", storage.key));
        archive.read(&entry).map_err(ViewProblem::Entry)
    };
    state_dict::read(path, &pickle, size, storage)
}

/// The folder that everything in the archive is in.
fn prefix(path: &Path, archive: &Archive) -> Result<String, Error> {
    let refused =
        |found: &str, advice| Error::Refused { path: path.to_owned(), found: found.to_owned(), advice };
    let inside = |name: &str| name.split_once('/').map(|(_, rest)| rest.to_owned());
    let script = archive.names().find(|name| {
        inside(name).is_some_and(|inside| inside == "constants.pkl" || inside.starts_with("code/"))
    });
    if let Some(entry) = script {
        return Err(refused(
            &format!("a TorchScript archive: it has an entry `{}`", Printable(entry)),
            "expected a state dict: torch.jit.load it where you trust it, and torch.save its `state_dict()`",
        ));
    }
    let exported = archive.names().find(|name| {
        let inside = inside(name).unwrap_or_else(|| (*name).to_owned());
        matches!(inside.as_str(), "archive_format" | "models/model.json" | "serialized_exported_program.json")
    });
    if let Some(entry) = exported {
        return Err(refused(
            &format!("a program of torch.export: it has an entry `{}`", Printable(entry)),
            "expected a state dict: torch.export.load it where you trust it, and torch.save its `state_dict`; or export it \
             with torch.onnx.export(program, dynamo=True), and convert that file",
        ));
    }
    let mut pickles = archive.names().filter(|name| inside(name).as_deref() == Some("data.pkl"));
    let Some(pickle) = pickles.next() else {
        if archive.names().any(is_array) {
            return Err(arrays(path));
        }
        let problem = ArchiveProblem::Missing("…/data.pkl".to_owned());
        return Err(Error::Archive { path: path.to_owned(), problem: Box::new(problem) });
    };
    if let Some(other) = pickles.next() {
        return Err(refused(
            &format!("two pickles, `{}` and `{}`", Printable(pickle), Printable(other)),
            "expected one `data.pkl`, as torch.save writes it",
        ));
    }
    Ok(pickle.trim_end_matches("data.pkl").trim_end_matches('/').to_owned())
}

/// Whether an entry of that name is an array of NumPy's.
fn is_array(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension == "npy")
}

/// The file is of NumPy, not of torch.
fn arrays(path: &Path) -> Error {
    Error::Refused {
        path: path.to_owned(),
        found: "a NumPy archive".to_owned(),
        advice: "expected a checkpoint of torch.save or safetensors; arrays go with --inputs",
    }
}
