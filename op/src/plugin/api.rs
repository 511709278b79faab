//! ONNX Runtime's C API as the callbacks need it: failures that turn into `OrtStatus`, and no panic that leaves Rust.

use std::any::Any;
use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use ort_sys::{OrtApi, OrtApiBase, OrtErrorCode, OrtStatus, OrtStatusPtr};

use super::environment::in_default;
use crate::Error;

/// The API that the plugin asks for, and the oldest that has all it needs. It is also `OrtCustomOp.version`: a runtime
/// that grants this API reads exactly the fields that the plugin fills, while a larger version would have it read past
/// them. (Not `ort_sys::ORT_API_VERSION`, which grows with the features that other crates of a build turn on.)
pub(super) const API_VERSION: u32 = 17;

/// Why a callback did not do its work.
#[derive(Debug)]
pub(super) struct Failure {
    /// The code that the host sees; some clients turn it into the type of an exception.
    pub(super) code: OrtErrorCode,
    /// What the host prints.
    pub(super) message: String,
}

impl Failure {
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self { code: OrtErrorCode::ORT_INVALID_ARGUMENT, message: message.into() }
    }

    fn panic(payload: &(dyn Any + Send)) -> Self {
        let text = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        Self {
            code: OrtErrorCode::ORT_RUNTIME_EXCEPTION,
            message: format!("internal error in the isqrt-cov operator library, please report it: {text}"),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = match error {
            Error::Driver { .. } | Error::Device { .. } | Error::Kernels { .. } | Error::Cuda { .. } => {
                OrtErrorCode::ORT_EP_FAIL
            }
            Error::Memory { .. } | Error::DeviceMemory { .. } => OrtErrorCode::ORT_RUNTIME_EXCEPTION,
            Error::UnknownOperator(_)
            | Error::UnknownAttribute { .. }
            | Error::Attribute { .. }
            | Error::Shape { .. } => OrtErrorCode::ORT_INVALID_ARGUMENT,
        };
        Self { code, message: error.to_string() }
    }
}

/// A granted API table: at least the functions of version [`API_VERSION`], alive as long as the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Api(*const OrtApi);

// SAFETY: the table is constant, and ONNX Runtime lets its functions be called from any thread.
unsafe impl Send for Api {}
// SAFETY: as above.
unsafe impl Sync for Api {}

/// Calls a function of the API by its name. The pointer is never made a reference to the whole table: the runtime's
/// may be shorter than the one in `ort_sys`.
macro_rules! call {
    ($api:expr, $function:ident($($argument:expr),* $(,)?)) => {
        ((*$api.table()).$function)($($argument),*)
    };
}
pub(super) use call;

impl Api {
    /// # Safety
    /// `table` is the answer of some runtime's `GetApi`, for [`API_VERSION`] or above, and not null.
    pub(super) unsafe fn new(table: *const OrtApi) -> Self {
        Self(table)
    }

    pub(super) fn table(self) -> *const OrtApi {
        self.0
    }

    /// Turns a status into a result, and frees it.
    ///
    /// # Safety
    /// `status` comes from this API and is not used again.
    pub(super) unsafe fn check(self, status: OrtStatusPtr) -> Result<(), Failure> {
        if status.0.is_null() {
            return Ok(());
        }
        // SAFETY: the status is alive until it is released below, and its message with it.
        unsafe {
            let code = call!(self, GetErrorCode(status.0));
            let message =
                CStr::from_ptr(call!(self, GetErrorMessage(status.0))).to_string_lossy().into_owned();
            call!(self, ReleaseStatus(status.0));
            Err(Failure { code, message })
        }
    }

    /// Runs the body of a callback, in the default floating-point environment. An error or a panic becomes a status.
    pub(super) fn guard(self, body: impl FnOnce() -> Result<(), Failure>) -> OrtStatusPtr {
        let failure = match in_default(|| catch_unwind(AssertUnwindSafe(body))) {
            Ok(Ok(())) => return OrtStatusPtr(ptr::null_mut()),
            Ok(Err(failure)) => failure,
            Err(payload) => Failure::panic(&*payload),
        };
        // SAFETY: the table is a runtime's.
        unsafe { status(self.0, &failure) }
    }
}

/// The API of the runtime that calls, or a status that says why it cannot be used.
///
/// # Safety
/// `base` is null, or a runtime's `OrtApiBase`.
pub(super) unsafe fn granted(base: *const OrtApiBase) -> Result<Api, OrtStatusPtr> {
    if base.is_null() {
        return Err(detached("isqrt-cov: RegisterCustomOps was called without an OrtApiBase"));
    }
    // SAFETY: `base` is a runtime's; version 1 of the API is part of every later one.
    unsafe {
        let table = ((*base).GetApi)(API_VERSION);
        if !table.is_null() {
            return Ok(Api::new(table));
        }
        let version = ((*base).GetVersionString)();
        let version = if version.is_null() { c"of unknown version" } else { CStr::from_ptr(version) };
        let message = format!(
            "isqrt-cov: ONNX Runtime {} is too old; expected 1.{API_VERSION} or later. Update ONNX Runtime, or run the \
             model without this library if it carries the function body (the exporter's default)",
            version.to_string_lossy()
        );
        let oldest = ((*base).GetApi)(1);
        if oldest.is_null() {
            return Err(detached(&message));
        }
        Err(status(oldest, &Failure { code: OrtErrorCode::ORT_FAIL, message }))
    }
}

/// # Safety
/// `table` is a runtime's API of any version; version 1 has this function already.
unsafe fn status(table: *const OrtApi, failure: &Failure) -> OrtStatusPtr {
    let message = c_string(&failure.message);
    // SAFETY: the message is copied by the call.
    unsafe { ((*table).CreateStatus)(failure.code, message.as_ptr()) }
}

/// An error for a host that offers no API to make one with: not null, so that it cannot be taken for a success. Laid out
/// as ONNX Runtime's own status, a code and the text; never freed, for the host has no means to.
fn detached(message: &str) -> OrtStatusPtr {
    let mut bytes = (OrtErrorCode::ORT_FAIL as i32).to_ne_bytes().to_vec();
    bytes.extend(c_string(message).as_bytes_with_nul());
    // In units that align the code.
    let words: Vec<u64> = bytes
        .chunks(8)
        .map(|chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            u64::from_ne_bytes(word)
        })
        .collect();
    OrtStatusPtr(Box::leak(words.into_boxed_slice()).as_mut_ptr().cast::<OrtStatus>())
}

/// `text` without the NULs that C cannot carry.
pub(super) fn c_string(text: &str) -> CString {
    CString::new(text.replace('\0', "")).unwrap_or_default()
}

/// The text of a C string that may be absent.
///
/// # Safety
/// `text` is null or NUL-terminated.
pub(super) unsafe fn text<'a>(text: *const c_char) -> Option<&'a CStr> {
    // SAFETY: passed on to the caller.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::environment::{is_default, without_subnormal_numbers};
    use crate::plugin::fake;

    #[test]
    fn errors_and_panics_become_statuses() {
        let api = fake::api();
        let outcome = |body: fn() -> Result<(), Failure>| {
            let status = api.guard(body);
            // SAFETY: the status is this API's.
            unsafe { api.check(status) }
        };
        assert!(outcome(|| Ok(())).is_ok());
        let failure = outcome(|| Err(Failure::invalid("a NUL\0 inside"))).unwrap_err();
        assert_eq!((failure.code, &*failure.message), (OrtErrorCode::ORT_INVALID_ARGUMENT, "a NUL inside"));
        let failure = outcome(|| panic!("lost {}", 1)).unwrap_err();
        assert_eq!(failure.code, OrtErrorCode::ORT_RUNTIME_EXCEPTION);
        assert!(failure.message.ends_with("please report it: lost 1"), "{}", failure.message);
    }

    #[test]
    fn callbacks_run_in_the_default_environment_and_leave_the_hosts() {
        let api = fake::api();
        let mut inside = false;
        let kept = without_subnormal_numbers(|| {
            let status = api.guard(|| {
                inside = is_default();
                Ok(())
            });
            assert!(status.0.is_null());
        });
        assert_eq!((inside, kept), (true, true));
    }
}
