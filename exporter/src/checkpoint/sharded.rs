//! Safetensors in several files, with an index that says which tensor is in which.

use std::collections::{HashMap, HashSet};
use std::path::{Component, Path, PathBuf};

use isqrt_cov_proto::onnx::TensorProto;
use isqrt_cov_proto::{Bytes, Printable, Unread, folder_of, map_named};

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

/// A shard: a file in the index's folder, also after links are followed, and with no other name, as for a model's
/// external data; or, where that folder is a snapshot in a cache of Hugging Face's, a file in that cache's store, to which all
/// of a snapshot's files are links.
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
    let failed =
        |source: std::io::Error| wrong(&format!("cannot be read: {source}; expected it beside the index"));
    let folder = folder_of(path).canonicalize().map_err(failed)?;
    let file = folder.join(shard).canonicalize().map_err(failed)?;
    let holder = file.parent();
    if holder != Some(&folder) && (holder.is_none() || holder != store(&folder).as_deref()) {
        return Err(wrong("is a link out of the index's folder; expected the file itself: copy it there"));
    }
    let content = map_named(&file).map_err(|unread| match unread {
        Unread::Refused(reason) => wrong(reason),
        Unread::Failed(source) => failed(source),
    })?;
    Ok((file, content))
}

/// The store of the cache in which `folder`, a path without links, is a snapshot or a folder of one:
/// `CACHE/blobs` of `CACHE/snapshots/REVISION/…`. It has to be a folder itself, as what it is compared with has no links.
fn store(folder: &Path) -> Option<PathBuf> {
    let snapshots = folder.ancestors().skip(1).find(|above| above.ends_with("snapshots"))?;
    Some(snapshots.parent()?.join("blobs"))
}

#[cfg(all(test, unix))]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// A cache with a shard in its store, and the index of a snapshot in it.
    fn cache(at: &Path) -> (PathBuf, PathBuf) {
        let (snapshot, store) = (at.join("models--a--b/snapshots/0123"), at.join("models--a--b/blobs"));
        fs::create_dir_all(&snapshot).unwrap();
        fs::create_dir_all(&store).unwrap();
        fs::write(store.join("4567"), b"a shard").unwrap();
        (snapshot.join("model.safetensors.index.json"), store)
    }

    #[test]
    fn the_links_of_a_snapshot_lead_to_its_store() {
        let folder = tempfile::tempdir().unwrap();
        let (index, store) = cache(folder.path());
        symlink("../../blobs/4567", index.with_file_name("one.safetensors")).unwrap();
        let expected = store.join("4567").canonicalize().unwrap();
        assert_eq!(open(&index, "one.safetensors").unwrap().0, expected);
        let within = index.with_file_name("unet").join("index.json");
        fs::create_dir(within.parent().unwrap()).unwrap();
        symlink("../../../blobs/4567", within.with_file_name("one.safetensors")).unwrap();
        assert_eq!(open(&within, "one.safetensors").unwrap().0, expected);
    }

    #[test]
    fn shards_of_torch_are_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("one.bin"), b"PK\x03\x04").unwrap();
        let index = br#"{"weight_map": {"a": "one.bin"}}"#;
        let refused = read(&folder.path().join("index.json"), index).err().unwrap().to_string();
        assert!(refused.contains("shard `one.bin` is a file of torch.save"), "{refused}");
    }

    #[test]
    fn links_lead_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let (index, store) = cache(folder.path());
        let secret = folder.path().join("secret");
        let other = cache(&folder.path().join("elsewhere")).1;
        fs::write(&secret, b"not the cache's").unwrap();
        fs::create_dir(store.join("deeper")).unwrap();
        fs::write(store.join("deeper/4567"), b"not where blobs are").unwrap();
        symlink(&secret, store.join("out")).unwrap();
        fs::hard_link(&secret, store.join("hard")).unwrap();
        let refused = |target: &Path, said: &str| {
            let shard = index.with_file_name("one.safetensors");
            symlink(target, &shard).unwrap();
            let problem = open(&index, "one.safetensors").unwrap_err().to_string();
            assert!(problem.contains(said), "{}: {problem}", target.display());
            fs::remove_file(shard).unwrap();
        };
        let out = "is a link out of the index's folder";
        refused(&secret, out);
        refused(&other.join("4567"), out);
        refused(Path::new("../../blobs/out"), out);
        refused(Path::new("../../blobs/deeper/4567"), out);
        refused(Path::new("../../blobs/hard"), "is a hard link");
        refused(Path::new("../../blobs/deeper"), "is not a regular file");
        // A store that is a link itself could be any folder.
        fs::remove_dir_all(&store).unwrap();
        symlink(&other, &store).unwrap();
        refused(Path::new("../../blobs/4567"), out);
        assert!(open(&index, "../../blobs/4567").unwrap_err().to_string().contains("is not a plain name"));
    }
}
