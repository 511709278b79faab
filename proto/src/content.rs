//! The content of files: mapped where it is large, read where it is not.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use bytes::Bytes;

use crate::Error;
use crate::map::map;

/// Files of so many bytes are mapped. Smaller ones are read, which nobody can change afterwards.
const MAPPED: u64 = 16 << 20;

/// The content of the file `path`. Large files are mapped: their pages are read when they are first looked at.
///
/// # Errors
/// A file that cannot be read, is not a regular one, or has more than `limit` bytes.
pub fn content(path: &Path, limit: u64) -> Result<Bytes, Error> {
    let read_error = |source| Error::Read { path: path.to_owned(), source };
    // Looked at before it is opened, because opening a pipe waits for its other end.
    let metadata = std::fs::metadata(path).map_err(read_error)?;
    if !metadata.is_file() {
        return Err(Error::NotAFile { path: path.to_owned() });
    }
    let too_large = |found| Error::TooLarge { path: path.to_owned(), found, limit };
    if metadata.len() > limit {
        return Err(too_large(metadata.len()));
    }
    let file = File::open(path).map_err(read_error)?;
    let content = if metadata.len() >= MAPPED {
        map(&file, path).map_err(read_error)?
    } else {
        let mut content = Vec::with_capacity(metadata.len() as usize);
        file.take(limit.saturating_add(1)).read_to_end(&mut content).map_err(read_error)?;
        content.into()
    };
    if content.len() as u64 > limit {
        return Err(too_large(content.len() as u64));
    }
    Ok(content)
}
