//! The functions of the NVIDIA driver that the kernels need, looked up in its library when the first of them is made.
//!
//! `cudarc` says what its types are. Its own functions are not called: they panic where an older driver lacks one, an error that only newer
//! drivers know is no value of their result, and it looks for `libcuda.so` before `libcuda.so.1`, which CUDA's toolkit has too, to link programs
//! with. Here a missing function is an error like any other, a result is a number, and the library is the one that the CUDA runtime opens.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::fmt;
use std::mem::ManuallyDrop;
use std::ptr;
use std::sync::LazyLock;

use cudarc::driver::sys;
use libloading::Library;

use crate::Error;

/// What a driver function returns: zero is success.
pub(super) type Status = u32;

/// No memory on the device.
pub(super) const OUT_OF_MEMORY: Status = sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY as u32;

/// The driver's library, by the name under which it is loaded already where the host uses a GPU.
const LIBRARY: &str = if cfg!(windows) { "nvcuda.dll" } else { "libcuda.so.1" };

/// What all functions of the toolkit's `libcuda.so` return.
const STUB_LIBRARY: Status = sys::CUresult::CUDA_ERROR_STUB_LIBRARY as u32;

/// Declares the table of functions, each under the name of its symbol, and how it is filled: first those without which there are
/// no kernels, then those that older drivers may lack.
macro_rules! functions {
    ({ $($symbol:ident($($argument:ty),*);)* } { $($newer:ident($($also:ty),*);)* }) => {
        /// The driver's functions. Each may be called from any thread, with what its documentation asks for.
        #[allow(non_snake_case)]
        pub(super) struct Functions {
            $(pub(super) $symbol: unsafe extern "C" fn($($argument),*) -> Status,)*
            $(pub(super) $newer: Option<unsafe extern "C" fn($($also),*) -> Status>,)*
        }

        impl Functions {
            /// Looks up every function.
            ///
            /// # Errors
            /// The name of one that is not there.
            ///
            /// # Safety
            /// `find` gives the addresses of the driver's functions.
            unsafe fn load(find: impl Fn(&str) -> Option<*mut c_void>) -> Result<Self, &'static str> {
                // SAFETY: the types are those of the driver's header, in which every result is a 32-bit number; an
                // address that is there is not null, and a null one is no function.
                unsafe {
                    Ok(Self {
                        $($symbol: std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($argument),*) -> Status>(
                            find(stringify!($symbol)).ok_or(stringify!($symbol))?,
                        ),)*
                        $($newer: std::mem::transmute::<*mut c_void, Option<unsafe extern "C" fn($($also),*) -> Status>>(
                            find(stringify!($newer)).unwrap_or(ptr::null_mut()),
                        ),)*
                    })
                }
            }
        }
    };
}

functions! {
    {
        cuInit(c_uint);
        cuDriverGetVersion(*mut c_int);
        cuGetErrorName(Status, *mut *const c_char);
        cuGetErrorString(Status, *mut *const c_char);
        cuDeviceGet(*mut sys::CUdevice, c_int);
        cuDeviceGetName(*mut c_char, c_int, sys::CUdevice);
        cuDeviceGetAttribute(*mut c_int, sys::CUdevice_attribute, sys::CUdevice);
        cuDevicePrimaryCtxRetain(*mut sys::CUcontext, sys::CUdevice);
        cuCtxGetCurrent(*mut sys::CUcontext);
        cuCtxPushCurrent_v2(sys::CUcontext);
        cuCtxPopCurrent_v2(*mut sys::CUcontext);
        cuCtxGetDevice(*mut sys::CUdevice);
        cuStreamGetCtx(sys::CUstream, *mut sys::CUcontext);
        cuThreadExchangeStreamCaptureMode(*mut sys::CUstreamCaptureMode);
        cuModuleLoadDataEx(*mut sys::CUmodule, *const c_void, c_uint, *mut sys::CUjit_option, *mut *mut c_void);
        cuModuleGetFunction(*mut sys::CUfunction, sys::CUmodule, *const c_char);
        cuFuncSetAttribute(sys::CUfunction, sys::CUfunction_attribute, c_int);
        cuMemPoolCreate(*mut sys::CUmemoryPool, *const sys::CUmemPoolProps);
        cuMemPoolSetAttribute(sys::CUmemoryPool, sys::CUmemPool_attribute, *mut c_void);
        cuMemAllocFromPoolAsync(*mut sys::CUdeviceptr, usize, sys::CUmemoryPool, sys::CUstream);
        cuMemFreeAsync(sys::CUdeviceptr, sys::CUstream);
        cuLaunchKernel(
            sys::CUfunction,
            c_uint, c_uint, c_uint,
            c_uint, c_uint, c_uint,
            c_uint,
            sys::CUstream,
            *mut *mut c_void,
            *mut *mut c_void
        );
    }
    {
        // From CUDA 12: gives a context a number that no other has, also after it is gone.
        cuCtxGetId(sys::CUcontext, *mut u64);
        // From CUDA 11.8: lets a launch begin before the one before it is over, and makes clusters of blocks.
        cuLaunchKernelEx(*const sys::CUlaunchConfig, sys::CUfunction, *mut *mut c_void, *mut *mut c_void);
        // From CUDA 11.8: how many clusters there is room for.
        cuOccupancyMaxActiveClusters(*mut c_int, sys::CUfunction, *const sys::CUlaunchConfig);
    }
}

/// The driver, initialized: one for the process.
pub(super) struct Driver {
    pub(super) functions: Functions,
    /// The newest CUDA that it supports, as `11.4`.
    pub(super) version: String,
}

/// Calls a function of the driver by its name. The result is an error that names the function unless it succeeds.
macro_rules! call {
    ($driver:expr, $function:ident($($argument:expr),* $(,)?)) => {
        $driver.check(stringify!($function), ($driver.functions.$function)($($argument),*))
    };
}
pub(super) use call;

impl Driver {
    /// The driver of this machine.
    ///
    /// # Errors
    /// There is none, it is too old, or it finds no device. What was found the first time is found every time.
    pub(super) fn get() -> Result<&'static Self, Error> {
        static DRIVER: LazyLock<Result<Driver, Error>> = LazyLock::new(Driver::load);
        DRIVER.as_ref().map_err(Clone::clone)
    }

    fn load() -> Result<Self, Error> {
        let unusable = |found: String| Error::Driver { found };
        // SAFETY: the driver's library runs nothing that depends on this process when it is opened.
        let library = unsafe { Library::new(LIBRARY) }
            .map_err(|_| unusable(format!("its library, {LIBRARY}, was not found")))?;
        // Never closed again.
        let library = ManuallyDrop::new(library);
        let find = |name: &str| {
            // SAFETY: an address is all that is taken, and it is valid as long as the library is open.
            unsafe { library.get::<*mut c_void>(name.as_bytes()) }.ok().map(|symbol| *symbol)
        };
        // SAFETY: `find` looks into the driver's library.
        let functions = unsafe { Functions::load(find) }
            .map_err(|missing| unusable(format!("it is too old, having no function {missing}")))?;
        let mut driver = Self { functions, version: String::new() };
        // SAFETY: it takes no flags yet, and may be called any number of times.
        let status = unsafe { (driver.functions.cuInit)(0) };
        if status == STUB_LIBRARY {
            let found = format!(
                "the {LIBRARY} that was found is the toolkit's, which only links: take its folder, \
                `stubs`, out of LD_LIBRARY_PATH"
            );
            return Err(unusable(found));
        }
        if status != 0 {
            return Err(unusable(format!("cuInit says {}", driver.explain(status))));
        }
        let mut version = 0;
        // SAFETY: the call writes one number.
        unsafe { call!(driver, cuDriverGetVersion(&raw mut version))? };
        driver.version = format!("{}.{}", version / 1000, version % 1000 / 10);
        Ok(driver)
    }

    /// A result of `function`, as an error unless it is success.
    pub(super) fn check(&self, function: &'static str, status: Status) -> Result<(), Error> {
        if status == 0 {
            return Ok(());
        }
        Err(Error::Cuda { function, found: self.explain(status) })
    }

    /// The name and the text of a result, as far as this driver knows it.
    pub(super) fn explain(&self, status: Status) -> String {
        let ask = |function: unsafe extern "C" fn(Status, *mut *const c_char) -> Status| {
            let mut text = ptr::null();
            // SAFETY: the call writes a pointer to a constant string, or null.
            unsafe {
                function(status, &raw mut text);
                (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
            }
        };
        match (ask(self.functions.cuGetErrorName), ask(self.functions.cuGetErrorString)) {
            (Some(name), Some(text)) => format!("{name} ({status}): {text}"),
            (Some(name), None) => format!("{name} ({status})"),
            _ => format!("error {status}"),
        }
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").field("version", &self.version).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_function_is_named() {
        let here = ptr::dangling_mut::<c_void>();
        // SAFETY: none of the addresses is called.
        let missing = unsafe { Functions::load(|name| (name != "cuStreamGetCtx").then_some(here)) };
        assert_eq!(missing.err(), Some("cuStreamGetCtx"));
        // SAFETY: as above.
        let older = unsafe { Functions::load(|name| (name != "cuCtxGetId").then_some(here)) };
        assert!(older.is_ok_and(|found| found.cuCtxGetId.is_none()));
    }

    #[test]
    fn a_machine_without_a_driver_is_told_so() {
        // SAFETY: as in `load`.
        if unsafe { Library::new(LIBRARY) }.is_ok() {
            return;
        }
        let message = Driver::get().unwrap_err().to_string();
        let expected = format!("{LIBRARY}, was not found; expected that of CUDA");
        assert!(message.contains(&expected), "{message}");
        assert!(message.contains("CPUExecutionProvider"), "{message}");
    }
}
