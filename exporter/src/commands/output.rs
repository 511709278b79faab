//! Writing a model only once it is proven.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use isqrt_cov_proto::onnx::ModelProto;
use isqrt_cov_proto::{Draft, Model, Staged, folder_of};

use super::form::Form;
use super::{checkpoint, path_json};
use crate::commands::answer::Answer;
use crate::table::one_line;

/// Checks, before any long work, that a model may be written to `output`, which the user named with -o.
///
/// # Errors
/// As [`check`]; an output that would be taken for a checkpoint.
pub fn check_model<'a>(read: impl IntoIterator<Item = &'a Path>, output: &Path) -> Result<()> {
    check(read, output, "-o")?;
    ensure!(
        !checkpoint::is_named(output),
        "{}: would be taken for a checkpoint by its name; name a file with -o that ends in .onnx",
        output.display()
    );
    Ok(())
}

/// Checks, before any long work, that `output`, which the user named with `option`, may be written.
///
/// # Errors
/// An output that is one of the files `read`, under whatever name; one that is a folder, a device or a link to nothing, or
/// whose folder does not exist; one that is read-only, which a rename would replace all the same; one to which this program's
/// own output goes, or `-`, which is meant to be that.
pub fn check<'a>(read: impl IntoIterator<Item = &'a Path>, output: &Path, option: &str) -> Result<()> {
    ensure!(
        output != Path::new("-"),
        "{option} -: goes to no standard output, which no proof could come before; name a file (./- is one)"
    );
    for input in read {
        ensure!(
            !same_file(input, output),
            "{}: is also read, as {}; name another file with {option}",
            output.display(),
            input.display()
        );
    }
    ensure!(!output.is_dir(), "{}: is a folder; name a file in it with {option}", output.display());
    let is_last = |name: &OsStr| output.as_os_str().as_encoded_bytes().ends_with(name.as_encoded_bytes());
    ensure!(
        output.file_name().is_some_and(is_last),
        "{}: is the name of a folder, by how it ends; name a file with {option}",
        output.display()
    );
    ensure!(
        !output.exists() || output.is_file(),
        "{}: exists and is not a regular file; name another one with {option}",
        output.display()
    );
    ensure!(
        output.exists() || !output.is_symlink(),
        "{}: is a link to a file that does not exist; name that file with {option}",
        output.display()
    );
    ensure!(
        !is_read_only(output),
        "{}: exists and is read-only; name another file with {option}, or allow it to be written (chmod u+w)",
        output.display()
    );
    let streams = [stream(io::stdout()), stream(io::stderr())];
    ensure!(
        !streams.into_iter().flatten().any(|stream| identity(output) == Some(stream)),
        "{}: is where this program prints to; name another file with {option}",
        output.display()
    );
    let folder = folder_of(output);
    // The current one may be removed, and then is a folder still, without a name.
    let is_there = folder.canonicalize().is_ok_and(|folder| folder.is_dir());
    ensure!(is_there, "{}: the folder {} does not exist", output.display(), folder.display());
    Draft::new(output).with_context(|| {
        format!("{}: the folder {} cannot be written to", output.display(), folder.display())
    })?;
    Ok(())
}

/// Whether a file is there that this user may not write. Nothing is written to find out.
fn is_read_only(path: &Path) -> bool {
    let denied = |error: io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    path.metadata().is_ok_and(|data| data.permissions().readonly())
        || path.is_file() && File::options().append(true).open(path).is_err_and(denied)
}

/// What was written, for people.
pub fn written(model: &Path, data: Option<&Path>) -> String {
    let data = data.map(|data| format!(", which reads its weights from {} beside it", data.display()));
    format!("{}{}", model.display(), data.unwrap_or_default())
}

/// Whether two paths lead to one file, existing or not: through links of either kind, too.
pub fn same_file(one: &Path, other: &Path) -> bool {
    let resolved = |path: &Path| {
        path.canonicalize().or_else(|_| {
            Ok::<_, std::io::Error>(
                folder_of(path).canonicalize()?.join(path.file_name().unwrap_or_default()),
            )
        })
    };
    if let (Ok(one), Ok(other)) = (resolved(one), resolved(other))
        && one == other
    {
        return true;
    }
    // Under two names, perhaps.
    identity(one).is_some_and(|one| Some(one) == identity(other))
}

/// What tells a file from every other: its filesystem, and its number there.
type Identity = (u64, u64);

/// The identity of the file to which `path` leads, if there is one.
#[cfg(unix)]
fn identity(path: &Path) -> Option<Identity> {
    use std::os::unix::fs::MetadataExt;
    path.metadata().ok().map(|data| (data.dev(), data.ino()))
}

/// The identity of what a stream of this program goes to.
#[cfg(unix)]
fn stream(stream: impl std::os::fd::AsFd) -> Option<Identity> {
    use std::os::unix::fs::MetadataExt;
    let file = std::fs::File::from(stream.as_fd().try_clone_to_owned().ok()?);
    file.metadata().ok().map(|data| (data.dev(), data.ino()))
}

#[cfg(not(unix))]
fn identity(_: &Path) -> Option<Identity> {
    None
}

#[cfg(not(unix))]
fn stream<S>(_: S) -> Option<Identity> {
    None
}

/// A model that is written, to be proven before it takes its place. Dropped, it leaves nothing behind.
#[derive(Debug)]
pub struct Written {
    /// The model as the file holds it, all tensors inline: the proof is of that, not of what was meant to be in it.
    pub proto: Arc<ModelProto>,
    staged: Option<Staged>,
}

impl Written {
    /// Writes `model` for `output` in the form asked for; nowhere without an `output`.
    ///
    /// # Errors
    /// A form that the model cannot have; a file that cannot be written or read again.
    pub fn stage(mut model: Model, form: &Form, output: Option<&PathBuf>) -> Result<Self> {
        form.apply(&mut model)?;
        let Some(output) = output else {
            return Ok(Self { proto: Arc::new(model.inlined()?), staged: None });
        };
        let staged = model.stage(output)?;
        let written = staged.read_back().context("the model written cannot be read again")?;
        Ok(Self { proto: Arc::new(written), staged: Some(staged) })
    }

    /// Where the model's data go, where they are not in its own file.
    pub fn data(&self) -> Option<&Path> {
        self.staged.as_ref().and_then(Staged::data)
    }

    /// Tells `answer` what will be left of the model that is there.
    pub fn tell(&self, answer: &mut Answer) {
        let Some(staged) = &self.staged else { return };
        let left = staged.leaves();
        for path in &left {
            let said = "note: data of the model that was replaced is left, since other models may need it";
            answer.text.extend([said, ": ", &one_line(&path.to_string_lossy()), "\n"]);
        }
        answer.fields["data_left"] = left.iter().map(|path| path_json(path)).collect();
    }

    /// Moves the model to its destination.
    ///
    /// # Errors
    /// A destination that cannot be replaced.
    pub fn commit(self) -> Result<()> {
        self.staged.map_or(Ok(()), Staged::commit)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_input_is_refused_under_every_name() {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("model.onnx");
        std::fs::write(&model, b"x").unwrap();
        let check = |read: &Path, output: &Path| check([Path::new("other.npz"), read], output, "-o");
        assert!(check(&model, &model).unwrap_err().to_string().contains("is also read"));
        assert!(check(&model, &folder.path().join(".").join("model.onnx")).is_err());
        let hard = folder.path().join("hard.onnx");
        std::fs::hard_link(&model, &hard).unwrap();
        assert!(check(&model, &hard).is_err());
        #[cfg(unix)]
        {
            let soft = folder.path().join("soft.onnx");
            std::os::unix::fs::symlink(&model, &soft).unwrap();
            assert!(check(&model, &soft).is_err());
            let nothing = folder.path().join("nothing.onnx");
            std::os::unix::fs::symlink("nowhere.onnx", &nothing).unwrap();
            assert!(
                check(&model, &nothing).unwrap_err().to_string().contains("a link to a file that does not")
            );
        }
        assert!(check(&model, &folder.path().join("other.onnx")).is_ok());
        assert!(check(&model, folder.path()).unwrap_err().to_string().contains("is a folder"));
        #[cfg(unix)]
        assert!(
            check(&model, Path::new("/dev/null")).unwrap_err().to_string().contains("not a regular file")
        );
        for name in ["other.html/", "other.html/."] {
            let path = folder.path().join(name);
            assert!(check(&model, &path).unwrap_err().to_string().contains("the name of a folder"), "{name}");
        }
        assert!(check(&model, Path::new("-")).unwrap_err().to_string().contains("./- is one"));
        let nowhere = folder.path().join("nowhere/out.onnx");
        assert!(check(&model, &nowhere).unwrap_err().to_string().contains("does not exist"));
    }
}
