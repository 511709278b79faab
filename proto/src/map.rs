#![allow(unsafe_code)]

use std::fs::File;
use std::io;

use bytes::Bytes;

/// The content of `file`, mapped: pages are read when they are first looked at.
pub(crate) fn map(file: &File) -> io::Result<Bytes> {
    if file.metadata()?.len() == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: a mapping is sound as long as nobody shortens or rewrites the file while it lives. This crate writes
    // models by temporary file and rename, never into a file that exists, so it cannot be the one to do it. Another
    // process could; that is the contract of every runtime that maps weights, and the user's own file.
    let map = unsafe { memmap2::Mmap::map(file)? };
    Ok(Bytes::from_owner(map))
}
