//! The operators as an ONNX Runtime custom-operator library: the C entry point and the callbacks behind it.
//!
//! A host loads the shared library and calls `RegisterCustomOps`, which adds the domain to the session's options. From
//! then on ONNX Runtime asks [`custom_op`]'s tables what there is, [`shape`] for the shape of an output,
//! [`attributes`] reads a node's attributes, and [`kernel`] runs it on its [`tensors`]: under CPUExecutionProvider on the session's
//! [`threads`], under CUDAExecutionProvider on the stream that the provider names, with tensors that are on the device. [`api`] turns errors
//! and panics into statuses: nothing unwinds into the host; [`environment`] has arithmetic done alike on every thread. Nothing is linked from ONNX Runtime, so one library serves
//! every release from 1.17 on; nothing of CUDA either, and a runtime without that provider never asks for its kernels.
//!
//! Once loaded, the library stays (see `build.rs`). Who may call: ONNX Runtime calls one kernel from several threads at once, and creates kernels of several sessions at once.
#![allow(unsafe_code)]

mod api;
mod attributes;
mod custom_op;
mod environment;
#[cfg(test)]
mod fake;
mod kernel;
mod shape;
mod tensors;
mod threads;

use std::ptr;
use std::sync::{Mutex, PoisonError};

use ort_sys::{OrtApiBase, OrtCustomOpDomain, OrtSessionOptions, OrtStatusPtr};

use crate::declaration::DOMAIN;
use api::{Api, Failure, c_string, call};

/// Adds the domain `ai.isqrtcov` to a session's options. ONNX Runtime calls this function by its name when it loads the
/// library. Returns null, or a status that says what is wrong; a runtime older than 1.17 is refused. Options to which the
/// domain is added twice make no session: ONNX Runtime says that the domain is already set.
///
/// # Safety
/// `options` is null or session options of the runtime whose `OrtApiBase` is `base`; `base` is null or valid.
#[unsafe(no_mangle)]
#[allow(non_snake_case)]
pub unsafe extern "system" fn RegisterCustomOps(
    options: *mut OrtSessionOptions,
    base: *const OrtApiBase,
) -> OrtStatusPtr {
    // SAFETY: `base` is the caller's.
    let api = match unsafe { api::granted(base) } {
        Ok(api) => api,
        Err(status) => return status,
    };
    api.guard(|| {
        if options.is_null() {
            return Err(Failure::invalid("isqrt-cov: RegisterCustomOps was called without session options"));
        }
        let domain = domain(api)?;
        // SAFETY: the options are the caller's; the domain outlives every session, for it is never released.
        unsafe { api.check(call!(api, AddCustomOpDomain(options, domain))) }
    })
}

/// A runtime and its copy of the domain.
struct Registered(Api, *mut OrtCustomOpDomain);

// SAFETY: a domain is filled before it is stored here, and only read afterwards.
unsafe impl Send for Registered {}

/// One domain for each runtime in the process (there may be several, each with its own layout of the object). Session
/// options keep only a pointer, so a domain lives as long as the library.
static DOMAINS: Mutex<Vec<Registered>> = Mutex::new(Vec::new());

/// This runtime's domain, filled with every operator.
fn domain(api: Api) -> Result<*mut OrtCustomOpDomain, Failure> {
    let mut domains = DOMAINS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(Registered(_, domain)) = domains.iter().find(|registered| registered.0 == api) {
        return Ok(*domain);
    }
    let name = c_string(DOMAIN);
    let mut domain = ptr::null_mut();
    // SAFETY: the name is copied; the tables are never freed, as the domain keeps pointers to them.
    unsafe {
        api.check(call!(api, CreateCustomOpDomain(name.as_ptr(), &raw mut domain)))?;
        for operator in custom_op::tables(api) {
            api.check(call!(api, CustomOpDomain_Add(domain, operator.table())))?;
        }
    }
    domains.push(Registered(api, domain));
    Ok(domain)
}

#[cfg(test)]
mod tests {
    use std::ffi::{CStr, c_char};

    use ort_sys::OrtApi;

    use super::*;

    extern "system" fn no_api(_: u32) -> *const OrtApi {
        ptr::null()
    }

    extern "system" fn version() -> *const c_char {
        c"1.2.3".as_ptr()
    }

    #[test]
    fn a_host_without_an_api_is_never_told_of_success() {
        let base = OrtApiBase { GetApi: no_api, GetVersionString: version };
        // SAFETY: `base` is valid.
        let status = unsafe { RegisterCustomOps(ptr::null_mut(), &raw const base) };
        assert!(!status.0.is_null());
        // SAFETY: a code of four bytes and the text, as `detached` lays it out.
        let text = unsafe { CStr::from_ptr(status.0.cast::<c_char>().add(4)) };
        assert!(text.to_string_lossy().contains("1.2.3 is too old; expected 1.17"), "{text:?}");
        // SAFETY: null is allowed.
        let status = unsafe { RegisterCustomOps(ptr::null_mut(), ptr::null()) };
        assert!(!status.0.is_null());
    }
}
