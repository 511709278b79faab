//! Safetensors in several files, with an index that says which tensor is in which.

use std::collections::{HashMap, HashSet};
use std::path::{Component, Path, PathBuf};

use isqrt_cov_proto::onnx::TensorProto;
use isqrt_cov_proto::{Bytes, Printable, Unread, folder_of, open_beside};

use super::pairs::Pairs;
use super::state_dict::{Contents, bounded};
use super::{Error, HEAD, Kind, safetensors};

/// The member of the index that lists the tensors.
pub(super) const MAP: &str = "weight_map";

/// Reads the index `text`, and the files that it names beside `path`. Also says which those are.
pub(super) fn read(path: &Path, text: &[u8]) -> Result<(Contents, Vec<PathBuf>), Error> {
    let wrong = |problem| Error::Index { path: path.to_owned(), problem };
    let malformed = |source: serde_json::Error| {
        wrong(format!("{source}; expected a JSON object whose `{MAP}` names a file for each tensor"))
    };
    let map: Pairs<String> = serde_json::from_slice::<Index>(text).map_err(malformed)?.map;
    if let Some(name) = map.duplicate() {
        return Err(wrong(format!("{MAP} has `{}` twice; expected each name once", Printable(name))));
    }
    bounded(path, map.0.len())?;
    let mut shards: Vec<&str> = Vec::new();
    let mut known = HashSet::new();
    for (_, file) in &map.0 {
        if known.insert(file.as_str()) {
            shards.push(file);
        }
    }
    let mut facts = Vec::new();
    let mut found: HashMap<String, (&str, TensorProto)> = HashMap::new();
    let mut files = Vec::with_capacity(shards.len());
    for &shard in &shards {
        let (file, bytes) = open(path, shard)?;
        files.push(file.clone());
        if matches!(Kind::of(&bytes[..bytes.len().min(HEAD)]), Some(Kind::Zip | Kind::Pickle)) {
            return Err(wrong(format!(
                "shard `{}` is a file of torch.save; expected safetensors: load the model and save it with safe_serialization",
                Printable(shard)
            )));
        }
        let contents = safetensors::read(&file, &bytes)?;
        facts.extend(contents.facts);
        for tensor in contents.tensors {
            let name = tensor.name().to_owned();
            if let Some((other, _)) = found.insert(name.clone(), (shard, tensor)) {
                return Err(wrong(format!(
                    "tensor `{}` is in `{}` and in `{}`; expected it once",
                    Printable(&name),
                    Printable(other),
                    Printable(shard)
                )));
            }
        }
    }
    let mut tensors = Vec::new();
    for (name, shard) in &map.0 {
        let missing = || {
            wrong(format!(
                "tensor `{}` is not in `{}`, where it should be; are index and files of one save?",
                Printable(name),
                Printable(shard)
            ))
        };
        let (file, tensor) = found.remove(name).ok_or_else(missing)?;
        if file != shard {
            return Err(missing());
        }
        tensors.push(tensor);
    }
    if let Some((name, (shard, _))) = found.into_iter().min_by(|(one, _), (other, _)| one.cmp(other)) {
        return Err(wrong(format!(
            "does not list tensor `{}` of `{}`; are index and files of one save?",
            Printable(&name),
            Printable(shard)
        )));
    }
    facts.sort();
    facts.dedup();
    Ok((Contents { tensors, facts, notes: Vec::new() }, files))
}

/// What matters of an index.
struct Index {
    map: Pairs<String>,
}

impl<'de> serde::Deserialize<'de> for Index {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> serde::de::Visitor<'de> for Members {
            type Value = Index;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("a JSON object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut members: A) -> Result<Index, A::Error> {
                let mut map = None;
                while let Some(name) = members.next_key::<String>()? {
                    if name == MAP && map.is_some() {
                        return Err(serde::de::Error::duplicate_field(MAP));
                    } else if name == MAP {
                        map = Some(members.next_value()?);
                    } else {
                        members.next_value::<serde::de::IgnoredAny>()?;
                    }
                }
                Ok(Index { map: map.ok_or_else(|| serde::de::Error::missing_field(MAP))? })
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// A shard: a file beside the index, with its path.
fn open(path: &Path, shard: &str) -> Result<(PathBuf, Bytes), Error> {
    let wrong = |problem: &str| Error::Index {
        path: path.to_owned(),
        problem: format!("file `{}` {problem}", Printable(shard)),
    };
    let mut components = Path::new(shard).components();
    let single = matches!((components.next(), components.next()), (Some(Component::Normal(_)), None));
    // A component may be given with a slash after it.
    if !single || shard.contains(['/', '\\', '\0']) {
        return Err(wrong("is not a plain name; expected a file beside the index"));
    }
    open_beside(folder_of(path), Path::new(shard)).map_err(|unread| match unread {
        Unread::Refused(reason) => wrong(reason),
        Unread::Failed(source) => wrong(&format!("cannot be read: {source}; expected it beside the index")),
    })
}

#[cfg(all(test, unix))]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn shards_of_torch_are_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("one.bin"), b"PK\x03\x04").unwrap();
        let index = br#"{"weight_map": {"a": "one.bin"}}"#;
        let refused = read(&folder.path().join("index.json"), index).err().unwrap().to_string();
        assert!(refused.contains("shard `one.bin` is a file of torch.save"), "{refused}");
    }

    #[test]
    fn shards_lie_beside_their_index() {
        let folder = tempfile::tempdir().unwrap();
        let index = folder.path().join("snapshots/0123/index.json");
        fs::create_dir_all(index.with_file_name("sub")).unwrap();
        fs::create_dir(folder.path().join("blobs")).unwrap();
        fs::write(folder.path().join("blobs/4567"), b"a shard").unwrap();
        symlink("../../blobs/4567", index.with_file_name("one.safetensors")).unwrap();
        assert_eq!(&open(&index, "one.safetensors").unwrap().1[..], b"a shard");
        for name in ["../../blobs/4567", "sub/one", ".", "..", "", "one.safetensors/"] {
            let refused = open(&index, name).unwrap_err().to_string();
            assert!(refused.contains("is not a plain name"), "{name}: {refused}");
        }
    }
}
