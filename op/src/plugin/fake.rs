//! A runtime of few functions, for what no real one can be made to do: call into code that panics, pass bad addresses.

use std::ffi::{CStr, CString, c_char, c_void};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::thread;

use ort_sys::{OrtApi, OrtErrorCode, OrtKernelContext, OrtStatus, OrtStatusPtr, OrtValue};

use super::api::Api;
use super::environment::without_subnormal_numbers;

type Status = (OrtErrorCode, CString);

unsafe extern "system" fn create_status(code: OrtErrorCode, message: *const c_char) -> OrtStatusPtr {
    // SAFETY: the plugin passes a C string.
    let status: Status = (code, unsafe { CStr::from_ptr(message) }.to_owned());
    OrtStatusPtr(Box::into_raw(Box::new(status)).cast())
}

unsafe extern "system" fn error_code(status: *const OrtStatus) -> OrtErrorCode {
    // SAFETY: `create_status` made it.
    unsafe { (*status.cast::<Status>()).0 }
}

unsafe extern "system" fn error_message(status: *const OrtStatus) -> *const c_char {
    // SAFETY: `create_status` made it.
    unsafe { (*status.cast::<Status>()).1.as_ptr() }
}

unsafe extern "system" fn release_status(status: *mut OrtStatus) {
    // SAFETY: `create_status` made it.
    drop(unsafe { Box::from_raw(status.cast::<Status>()) });
}

unsafe extern "system" fn parallel_for(
    _: *const OrtKernelContext,
    task: unsafe extern "C" fn(*mut c_void, usize),
    total: usize,
    _: usize,
    data: *mut c_void,
) -> OrtStatusPtr {
    // Only so that threads may have the address.
    let data = AtomicPtr::new(data);
    thread::scope(|scope| {
        for index in 0..total {
            scope.spawn({
                let data = &data;
                move || {
                    // SAFETY: the plugin's data may be shared by threads.
                    let run = || unsafe { task(data.load(Ordering::Relaxed), index) };
                    assert!(without_subnormal_numbers(run), "a task left another environment behind");
                }
            });
        }
    });
    OrtStatusPtr(ptr::null_mut())
}

/// A tensor whose data is at its own address.
unsafe extern "system" fn tensor_data(value: *mut OrtValue, data: *mut *mut c_void) -> OrtStatusPtr {
    // SAFETY: the plugin passes where it wants the address.
    unsafe { *data = value.cast() };
    OrtStatusPtr(ptr::null_mut())
}

/// An API of which only the functions above may be called.
pub(super) fn api() -> Api {
    let table: *mut OrtApi = Box::leak(Box::new(MaybeUninit::<OrtApi>::zeroed())).as_mut_ptr();
    // SAFETY: the fields are written one by one, and the table as a whole is never read.
    unsafe {
        (&raw mut (*table).CreateStatus).write(create_status);
        (&raw mut (*table).GetErrorCode).write(error_code);
        (&raw mut (*table).GetErrorMessage).write(error_message);
        (&raw mut (*table).ReleaseStatus).write(release_status);
        (&raw mut (*table).KernelContext_ParallelFor).write(parallel_for);
        (&raw mut (*table).GetTensorMutableData).write(tensor_data);
        Api::new(table)
    }
}
