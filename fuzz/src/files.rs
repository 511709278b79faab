//! The project's files.

use std::fs;
use std::path::{Path, PathBuf};

/// The largest file that is a seed. Larger ones make every step slow, and hold nothing that small ones do not.
const LARGEST: u64 = 64 << 10;

/// A file or folder of the project.
pub fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name(path)
}

/// The small files of a folder and of those in it whose names end in one of `endings`, by name.
pub fn below(folder: &str, endings: &[&str]) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![project(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => folders.push(path),
                Ok(metadata)
                    if metadata.len() <= LARGEST && endings.iter().any(|ending| name.ends_with(ending)) =>
                {
                    files.push(path);
                }
                _ => {}
            }
        }
    }
    files.sort();
    files
}
