//! Files that stand where another one was meant.

/// What a file is that was put in the place of a model or a checkpoint, and what to do, as far as its beginning tells. No model
/// and no checkpoint begins so.
#[must_use]
pub fn stand_in(content: &[u8]) -> Option<&'static str> {
    if content.starts_with(b"version https://git-lfs") {
        Some("it is a pointer of git-lfs, not the file that it stands for: fetch that with git lfs pull")
    } else if content.starts_with(b"\x1f\x8b") {
        Some("it is compressed with gzip: unpack it with gunzip")
    } else if is_page(content) {
        Some("it is a web page, such as a server gives instead of a file: download it again")
    } else {
        None
    }
}

/// Whether a text begins as a web page does.
fn is_page(content: &[u8]) -> bool {
    let content = content.trim_ascii_start();
    let begins = |tag: &[u8]| content.get(..tag.len()).is_some_and(|head| head.eq_ignore_ascii_case(tag));
    begins(b"<!doctype html") || begins(b"<html")
}
