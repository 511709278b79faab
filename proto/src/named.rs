//! Files that another file names, as a model names its data and an index its shards.
//!
//! Whoever wrote that file chose the names, so they may lead to any file of the machine. What is opened here lies in the
//! folder of the file that names it, or in the store of the cache that this folder belongs to, is a regular file, and has a
//! single name: neither a symbolic nor a hard link leads elsewhere. What cannot be checked is refused.

use std::fs::{File, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::map::map;

/// Why a file that another one names was not read.
#[derive(Debug)]
pub enum Unread {
    /// It may not be.
    Refused(&'static str),
    /// It could not be.
    Failed(io::Error),
}

/// Maps the file that one in `folder` names as `relative`, which has normal components only. Also says where it is, without links.
///
/// # Errors
/// A link that leads elsewhere, no regular file, or one with several names; the system's.
pub fn open_beside(folder: &Path, relative: &Path) -> Result<(PathBuf, Bytes), Unread> {
    let folder = folder.canonicalize().map_err(Unread::Failed)?;
    let path = folder.join(relative).canonicalize().map_err(Unread::Failed)?;
    if !path.starts_with(&folder) && path.parent() != store(&folder).as_deref() {
        return Err(Unread::Refused(
            "leads out of the folder; expected the file itself in it: copy it there",
        ));
    }
    // Looked at before it is opened, because to open a device may do something.
    regular(&path.symlink_metadata().map_err(Unread::Failed)?).map_err(Unread::Refused)?;
    let file = open_without_links(&path).map_err(Unread::Failed)?;
    // Looked at again, because the name may meanwhile be another file's.
    regular(&file.metadata().map_err(Unread::Failed)?).map_err(Unread::Refused)?;
    let content = map(&file, &path).map_err(Unread::Failed)?;
    Ok((path, content))
}

/// The store of the cache of Hugging Face's in which `folder`, a path without links, is a snapshot or a folder of one, all of whose
/// files are links into it: `CACHE/blobs` of `CACHE/snapshots/REVISION/…`. It has to be a folder itself, as what it is compared
/// with has no links.
fn store(folder: &Path) -> Option<PathBuf> {
    let snapshots = folder.ancestors().skip(1).find(|above| above.ends_with("snapshots"))?;
    Some(snapshots.parent()?.join("blobs"))
}

/// Whether a file that another one names may be read; if not, why. A hard link cannot be told from a file but by the count of
/// its names: whoever unpacks an archive of a stranger's may have made one to a file elsewhere.
#[cfg(unix)]
pub(crate) fn regular(metadata: &Metadata) -> Result<(), &'static str> {
    use std::os::unix::fs::MetadataExt as _;

    if !metadata.is_file() {
        Err("is not a regular file; expected one")
    } else if metadata.nlink() > 1 {
        Err("is a hard link, perhaps to a file elsewhere; copy the file to break the link")
    } else {
        Ok(())
    }
}

#[cfg(not(unix))]
pub(crate) fn regular(_: &Metadata) -> Result<(), &'static str> {
    Err("cannot be checked for hard links on this system; expected all data in one file")
}

/// Opens a file at an absolute path that had no links when it was looked up. Where one has been put there since, this fails: the
/// path is walked folder by folder, and no link is followed.
#[cfg(unix)]
fn open_without_links(path: &Path) -> io::Result<File> {
    use std::path::Component;

    use rustix::fs::{Mode, OFlags, open, openat};

    // Whoever may not list a folder may yet go through it.
    #[cfg(target_os = "linux")]
    const THROUGH: OFlags = OFlags::PATH;
    #[cfg(not(target_os = "linux"))]
    const THROUGH: OFlags = OFlags::RDONLY;
    let same = OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut at = open("/", THROUGH | OFlags::DIRECTORY | same, Mode::empty())?;
    let mut names =
        path.components().filter(|component| matches!(component, Component::Normal(_))).peekable();
    while let Some(name) = names.next() {
        // To open a pipe would wait for its other end.
        let last = names.peek().is_none();
        let how = if last { OFlags::RDONLY | OFlags::NONBLOCK } else { THROUGH | OFlags::DIRECTORY };
        at = openat(&at, name.as_os_str(), how | same, Mode::empty())?;
    }
    Ok(at.into())
}

#[cfg(not(unix))]
fn open_without_links(path: &Path) -> io::Result<File> {
    File::open(path)
}

#[cfg(all(test, unix))]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// A cache with a file in its store, and the folder of a snapshot in it.
    fn cache(at: &Path) -> (PathBuf, PathBuf) {
        let (snapshot, store) = (at.join("models--a--b/snapshots/0123"), at.join("models--a--b/blobs"));
        fs::create_dir_all(&snapshot).unwrap();
        fs::create_dir_all(&store).unwrap();
        fs::write(store.join("4567"), b"weights").unwrap();
        (snapshot, store)
    }

    #[test]
    fn the_links_of_a_snapshot_lead_to_its_store() {
        let folder = tempfile::tempdir().unwrap();
        let (snapshot, store) = cache(folder.path());
        symlink("../../blobs/4567", snapshot.join("weights")).unwrap();
        let expected = store.join("4567").canonicalize().unwrap();
        let (path, content) = open_beside(&snapshot, Path::new("weights")).unwrap();
        assert_eq!((path, &content[..]), (expected.clone(), &b"weights"[..]));
        let within = snapshot.join("unet");
        fs::create_dir(&within).unwrap();
        symlink("../../../blobs/4567", within.join("weights")).unwrap();
        assert_eq!(open_beside(&within, Path::new("weights")).unwrap().0, expected);
    }

    #[test]
    fn links_lead_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let (snapshot, store) = cache(folder.path());
        let secret = folder.path().join("secret");
        let other = cache(&folder.path().join("elsewhere")).1;
        fs::write(&secret, b"not the cache's").unwrap();
        fs::create_dir(store.join("deeper")).unwrap();
        fs::write(store.join("deeper/4567"), b"not where blobs are").unwrap();
        symlink(&secret, store.join("out")).unwrap();
        fs::hard_link(&secret, store.join("hard")).unwrap();
        let refused = |target: &Path, said: &str| {
            let named = snapshot.join("weights");
            symlink(target, &named).unwrap();
            match open_beside(&snapshot, Path::new("weights")).unwrap_err() {
                Unread::Refused(reason) => assert!(reason.contains(said), "{}: {reason}", target.display()),
                Unread::Failed(error) => panic!("{}: {error}", target.display()),
            }
            fs::remove_file(named).unwrap();
        };
        let out = "leads out of the folder";
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
    }

    /// What was looked up may be a link by the time it is opened.
    #[test]
    fn a_link_put_in_the_way_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        fs::create_dir(folder.join("real")).unwrap();
        fs::write(folder.join("real/secret"), b"a secret").unwrap();
        symlink("real/secret", folder.join("file")).unwrap();
        symlink("real", folder.join("way")).unwrap();
        open_without_links(&folder.join("real/secret")).unwrap();
        for path in ["file", "way/secret"] {
            open_without_links(&folder.join(path)).unwrap_err();
        }
    }
}
