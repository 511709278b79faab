//! Files that have no name before they are whole.
//!
//! A temporary file with a name outlives the process that is killed. Where the system can (Linux, on most of its
//! filesystems), a draft is a file without a name from the start, and gets one in one step: until then nothing that
//! happens to the process leaves anything behind, and after it the file is there, whole. To replace a file takes two
//! steps, a name beside it and a rename, because the system has no call for both; a process that is killed between
//! them leaves the whole file under a name that begins with [`PREFIX`]. Elsewhere a draft's content is copied when it
//! is named, and what is left may be a part of it.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::TempPath;

use crate::map;
use crate::model::folder_of;

/// What the names of files begin with that are about to replace another.
const PREFIX: &str = ".isqrt-cov-";

/// A file that is being written for `destination`. Dropped, it leaves nothing behind.
#[derive(Debug)]
pub struct Draft {
    file: File,
    destination: PathBuf,
    /// Whether the permissions are another file's, and not those of any new file.
    is_like: bool,
}

impl Draft {
    /// An empty file in the folder of `destination`. Where that is a symbolic link, it is what the link leads to. A file that is
    /// there is replaced by one with its permissions.
    ///
    /// # Errors
    /// A destination without a file name, or in a folder that is missing or cannot be written to; a link to nothing.
    pub fn new(destination: impl AsRef<Path>) -> io::Result<Self> {
        let destination = destination.as_ref();
        Self::like(destination, destination)
    }

    /// The same with the permissions of the file `like`, if it is there, for what belongs to it.
    pub(crate) fn like(destination: &Path, like: &Path) -> io::Result<Self> {
        if destination.file_name().is_none() {
            return Err(io::ErrorKind::InvalidFilename.into());
        }
        let destination =
            if destination.is_symlink() { destination.canonicalize()? } else { destination.to_owned() };
        let file = nameless(folder_of(&destination))?;
        let like = like.metadata().ok().filter(Metadata::is_file);
        if let Some(like) = &like {
            allow_as(like, &file)?;
        }
        Ok(Self { file, destination, is_like: like.is_some() })
    }

    /// Where the file goes.
    pub(crate) fn destination(&self) -> &Path {
        &self.destination
    }

    /// Waits until the content is on the disk.
    ///
    /// # Errors
    /// What the system says.
    pub fn finish(self) -> io::Result<Finished> {
        self.file.sync_all()?;
        Ok(Finished { file: self.file, destination: self.destination, is_like: self.is_like })
    }
}

/// A file that is whole, and has no name yet. Dropped, it leaves nothing behind.
#[derive(Debug)]
pub struct Finished {
    file: File,
    destination: PathBuf,
    /// Whether the permissions are another file's, and not those of any new file.
    is_like: bool,
}

impl Finished {
    /// Where the file goes.
    #[must_use]
    pub fn destination(&self) -> &Path {
        &self.destination
    }

    /// The file, to read.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Another last component for the destination.
    pub(crate) fn rename(&mut self, name: &OsStr) {
        self.destination.set_file_name(name);
    }

    /// Gives the file its name. A file that has it is replaced, between two instants.
    ///
    /// # Errors
    /// A destination that cannot be replaced; it is as it was then.
    pub fn commit(&self) -> io::Result<()> {
        match link(&self.file, &self.destination) {
            Ok(()) => Ok(()),
            Err(_) => Ok(self.beside()?.persist(&self.destination)?),
        }
    }

    /// Gives the file its name, which no file may have.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`], or another failure.
    pub fn commit_new(&self) -> io::Result<()> {
        match link(&self.file, &self.destination) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Ok(self.beside()?.persist_noclobber(&self.destination)?)
            }
            outcome => outcome,
        }
    }

    /// The file under a temporary name.
    fn beside(&self) -> io::Result<TempPath> {
        let named = tempfile::Builder::new()
            .prefix(PREFIX)
            .make_in(folder_of(&self.destination), |path| self.link_or_copy(path))?;
        Ok(named.into_temp_path())
    }

    fn link_or_copy(&self, path: &Path) -> io::Result<()> {
        match link(&self.file, path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                copy(&self.file, path, self.is_like)
            }
            outcome => outcome,
        }
    }
}

impl Write for Draft {
    fn write(&mut self, content: &[u8]) -> io::Result<usize> {
        let written = self.file.write(content);
        if written.as_ref().is_err_and(map::is_fault) {
            map::look_at(content);
        }
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Gives `file` the permissions of the file `like`, and its group. Where it may not have that, a group may do nothing.
#[cfg(unix)]
fn allow_as(like: &Metadata, file: &File) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};

    let is_of_group = file.metadata()?.gid() == like.gid() || fchown(file, None, Some(like.gid())).is_ok();
    let mode = like.mode() & if is_of_group { 0o777 } else { 0o707 };
    file.set_permissions(std::fs::Permissions::from_mode(mode))
}

#[cfg(not(unix))]
fn allow_as(like: &Metadata, file: &File) -> io::Result<()> {
    file.set_permissions(like.permissions())
}

/// A file that has no name in `folder`, with the permissions of any new file.
#[cfg(target_os = "linux")]
fn nameless(folder: &Path) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags, open};

    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    match open(folder, flags, Mode::from_raw_mode(0o666)) {
        Ok(file) => Ok(file.into()),
        // Not every filesystem can; what else is wrong is found out again.
        Err(_) => tempfile::tempfile_in(folder),
    }
}

#[cfg(not(target_os = "linux"))]
fn nameless(folder: &Path) -> io::Result<File> {
    tempfile::tempfile_in(folder)
}

/// Gives a file without a name the name `path`, which no file may have.
#[cfg(target_os = "linux")]
fn link(file: &File, path: &Path) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;

    use rustix::fs::{AtFlags, CWD, linkat};

    // The way that open(2) gives; the other one asks for privileges.
    let own = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(linkat(CWD, own, CWD, path, AtFlags::SYMLINK_FOLLOW)?)
}

#[cfg(not(target_os = "linux"))]
fn link(_: &File, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Copies a file into a new one, with its permissions where they are another file's. What stands there of it when that fails is removed.
fn copy(file: &File, path: &Path, is_like: bool) -> io::Result<()> {
    use std::io::Seek as _;

    let mut new = File::create_new(path)?;
    let mut from = file;
    let allowed = if is_like { file.metadata().and_then(|like| allow_as(&like, &new)) } else { Ok(()) };
    let copied = allowed.and_then(|()| from.rewind()).and_then(|()| io::copy(&mut from, &mut new));
    let copied = copied.and_then(|_| new.sync_all());
    if copied.is_err() {
        // Already failing: the first error is the one to report.
        let _ = std::fs::remove_file(path);
    }
    copied
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn draft(destination: &Path, content: &str) -> Finished {
        let mut draft = Draft::new(destination).unwrap();
        draft.write_all(content.as_bytes()).unwrap();
        draft.finish().unwrap()
    }

    fn count(folder: &Path) -> usize {
        folder.read_dir().unwrap().count()
    }

    #[test]
    fn a_file_appears_whole_replaces_another_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let first = draft(&path, "first");
        assert_eq!(count(folder.path()), 0, "nothing has a name yet");
        first.commit_new().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "first");
        let second = draft(&path, "second");
        assert_eq!(second.commit_new().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "first");
        second.commit().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "second");
        drop(draft(&path, "third"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "second");
        assert_eq!(count(folder.path()), 1);
    }

    #[cfg(unix)]
    #[test]
    fn permissions_are_those_of_any_new_file() {
        use std::os::unix::fs::PermissionsExt as _;

        let folder = tempfile::tempdir().unwrap();
        let mode = |name: &str| fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
        fs::write(folder.path().join("any"), "").unwrap();
        draft(&folder.path().join("linked"), "").commit().unwrap();
        assert_eq!(mode("linked"), mode("any"));
        copy(&File::open(folder.path().join("any")).unwrap(), &folder.path().join("copied"), false).unwrap();
        assert_eq!(mode("copied"), mode("any"));
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_replaces_another_has_its_permissions() {
        use std::os::unix::fs::PermissionsExt as _;

        let folder = tempfile::tempdir().unwrap();
        let [path, copied] = ["file", "copied"].map(|name| folder.path().join(name));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        for wanted in [0o600, 0o640, 0o664, 0o444] {
            fs::write(&path, "former").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(wanted)).unwrap();
            let new = draft(&path, "new");
            copy(&new.file, &copied, new.is_like).unwrap();
            new.commit().unwrap();
            assert_eq!((mode(&path), mode(&copied)), (wanted, wanted), "{wanted:o}");
            for path in [&path, &copied] {
                assert_eq!(fs::read_to_string(path).unwrap(), "new");
                fs::remove_file(path).unwrap();
            }
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed() {
        let folder = tempfile::tempdir().unwrap();
        let [link, target] = ["link", "target"].map(|name| folder.path().join(name));
        std::os::unix::fs::symlink("target", &link).unwrap();
        assert!(Draft::new(&link).is_err(), "there is nothing");
        fs::write(&target, "former").unwrap();
        draft(&link, "new").commit().unwrap();
        assert!(link.is_symlink());
        assert_eq!(fs::read_to_string(&target).unwrap(), "new");
    }

    #[test]
    fn where_files_without_names_get_none_they_are_copied() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        // Such a file had a name once and can have none again.
        let mut file = tempfile::tempfile_in(folder.path()).unwrap();
        if cfg!(target_os = "linux") {
            let named = folder.path().join("named");
            file = File::options().read(true).write(true).create_new(true).open(&named).unwrap();
            fs::remove_file(named).unwrap();
        }
        let mut draft = Draft { file, destination: path.clone(), is_like: false };
        draft.write_all(b"content").unwrap();
        let draft = draft.finish().unwrap();
        draft.commit_new().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "content");
        draft.commit().unwrap();
        assert_eq!(draft.commit_new().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(count(folder.path()), 1);
    }

    #[test]
    fn what_cannot_be_written_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Draft::new(folder.path().join("nowhere/file")).is_err());
        assert!(Draft::new("/").is_err());
        let taken = folder.path().join("taken");
        fs::create_dir(&taken).unwrap();
        fs::write(taken.join("full"), "").unwrap();
        assert!(draft(&taken, "x").commit().is_err());
        assert_eq!(count(folder.path()), 1);
    }
}
