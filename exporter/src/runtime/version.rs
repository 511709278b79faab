//! The version of an ONNX Runtime library, asked before anything else of it is used.

// The library's one documented entry point returns a C table; nothing in `ort` gives its version.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::path::Path;

use anyhow::{Context, Result, bail};
use libloading::{Library, Symbol};
use ort::sys::OrtApiBase;

use super::processor;

/// The oldest minor version of ONNX Runtime 1 that has everything used here.
const OLDEST: u32 = 17;

/// The version of the ONNX Runtime in `library`, such as `1.32.0`.
///
/// # Errors
/// A file that is no shared library, or one for another processor, or not ONNX Runtime's, or that is too old.
pub fn runtime_version(library: &Path) -> Result<String> {
    processor::check(library)?;
    // SAFETY: loading runs the library's initializers. The user named the file to be run as ONNX Runtime, and
    // everything else in it runs next.
    let loaded = unsafe { Library::new(library) };
    let loaded = loaded.with_context(|| format!("{}: cannot be loaded", library.display()))?;
    // SAFETY: the symbol's type is as `onnxruntime_c_api.h` declares it in every release.
    let entry: Symbol<unsafe extern "C" fn() -> *const OrtApiBase> = unsafe { loaded.get(b"OrtGetApiBase") }
        .with_context(|| {
            format!("{}: is not ONNX Runtime: it exports no `OrtGetApiBase`", library.display())
        })?;
    // SAFETY: the function takes nothing, and returns null or a pointer to a static table of two functions, of which
    // the second returns a static null-terminated string.
    let version = unsafe { entry().as_ref().map(|base| CStr::from_ptr((base.GetVersionString)())) };
    let version = version.with_context(|| format!("{}: gives no API", library.display()))?;
    let version = version.to_string_lossy().into_owned();
    let mut numbers = version.split('.').map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(1)), Some(Ok(minor))) if minor >= OLDEST => Ok(version),
        _ => bail!(
            "{}: is ONNX Runtime {version}; expected 1.{OLDEST} or later of version 1",
            library.display()
        ),
    }
}
