//! The kernels, loaded into a context: compiled by the driver, found by name, launched.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::{CString, c_int, c_void};
use std::ptr;
use std::sync::{Mutex, PoisonError};

use cudarc::driver::sys;

use super::driver::{Driver, Status, call};
use super::plan::Launch;
use super::tier::Tier;
use crate::Error;

/// The bytes of shared memory that a block gets without asking for more first.
const SHARED_UNASKED: u32 = 48 * 1024;

/// What the driver says when it does not know a PTX version or a target: it is older than they are.
const TOO_NEW: [Status; 3] = [
    sys::CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU as u32,
    sys::CUresult::CUDA_ERROR_INVALID_PTX as u32,
    sys::CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION as u32,
];

/// The kernels of one tier in one context. Never unloaded.
#[derive(Debug)]
pub(super) struct Module {
    driver: &'static Driver,
    handle: Handle<sys::CUmodule>,
    /// Whether the kernels wait for the launch before them, and may begin before it is over.
    overlaps: bool,
    functions: Mutex<HashMap<&'static str, Function>>,
}

/// A handle that the driver takes from any thread.
#[derive(Debug, Clone, Copy)]
pub(super) struct Handle<T>(pub(super) T);

// SAFETY: the driver's handles may be used from any thread, several at once.
unsafe impl<T> Send for Handle<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Handle<T> {}

/// A kernel, and the most bytes of shared memory that it may be launched with.
#[derive(Debug, Clone, Copy)]
struct Function {
    handle: Handle<sys::CUfunction>,
    shared: u32,
}

impl Module {
    /// Loads the first of `tiers` that the driver takes into the current context of `device`. A driver that is older than a tier's PTX gets
    /// the next one.
    ///
    /// # Errors
    /// None was taken: what the compiler in the driver says.
    pub(super) fn load(
        driver: &'static Driver,
        device: &str,
        tiers: impl Iterator<Item = Tier>,
    ) -> Result<(Self, Tier), Error> {
        let mut refusals = Vec::new();
        for tier in tiers {
            match compile(driver, tier.ptx()) {
                Ok(handle) => {
                    let overlaps = tier.overlaps();
                    return Ok((Self { driver, handle, overlaps, functions: Mutex::default() }, tier));
                }
                Err((status, log)) => {
                    refusals.push(refusal(tier, &driver.explain(status), &log));
                    if !TOO_NEW.contains(&status) {
                        break;
                    }
                }
            }
        }
        let (device, version) = (device.to_owned(), driver.version.clone());
        Err(Error::Kernels { device, version, found: refusals.join("; ") })
    }

    /// Puts a launch at the end of a stream. Returns before it runs.
    ///
    /// # Errors
    /// The driver refuses it, or tells of an earlier failure on the device.
    ///
    /// # Safety
    /// Where `follows`, what is before it on the stream is a launch of this module. The module's context is current; `stream` is null or
    /// one of that context; what the launch's arguments point to is there when it runs, and as large as the kernel reads and writes.
    pub(super) unsafe fn launch(
        &self,
        launch: &Launch<'_>,
        follows: bool,
        stream: sys::CUstream,
    ) -> Result<(), Error> {
        if launch.blocks == 0 {
            return Ok(());
        }
        let function = self.function(launch.function, launch.shared)?;
        let mut parameters = [launch.arguments.address().cast_mut()];
        let Launch { blocks, threads, shared, .. } = *launch;
        let (parameters, none) = (parameters.as_mut_ptr(), ptr::null_mut());
        let overlapping = self.driver.functions.cuLaunchKernelEx.filter(|_| self.overlaps && follows);
        // SAFETY: the kernels take one parameter, by value, which the call copies; the rest is the caller's to see to. Those that
        // may overlap with the launch before them wait for its end themselves.
        unsafe {
            if let Some(launch_ex) = overlapping {
                let mut attribute = sys::CUlaunchAttribute {
                    id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
                    pad: [0; 4],
                    value: sys::CUlaunchAttributeValue { programmaticStreamSerializationAllowed: 1 },
                };
                let config = sys::CUlaunchConfig {
                    gridDimX: blocks,
                    gridDimY: 1,
                    gridDimZ: 1,
                    blockDimX: threads,
                    blockDimY: 1,
                    blockDimZ: 1,
                    sharedMemBytes: shared,
                    hStream: stream,
                    attrs: &raw mut attribute,
                    numAttrs: 1,
                };
                let status = launch_ex(&raw const config, function.0, parameters, none);
                return self.driver.check("cuLaunchKernelEx", status);
            }
            call!(
                self.driver,
                cuLaunchKernel(function.0, blocks, 1, 1, threads, 1, 1, shared, stream, parameters, none)
            )
        }
    }

    /// The kernel called `name`, allowed to be launched with `shared` bytes of shared memory.
    fn function(&self, name: &'static str, shared: u32) -> Result<Handle<sys::CUfunction>, Error> {
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        let function = match functions.get_mut(name) {
            Some(function) => function,
            None => functions.entry(name).or_insert(self.find(name)?),
        };
        if function.shared < shared {
            // SAFETY: the function is this module's, whose context is current.
            unsafe {
                call!(
                    self.driver,
                    cuFuncSetAttribute(
                        function.handle.0,
                        sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                        shared as c_int,
                    )
                )?;
            }
            function.shared = shared;
        }
        Ok(function.handle)
    }

    fn find(&self, name: &'static str) -> Result<Function, Error> {
        let symbol = CString::new(name).unwrap_or_default();
        let mut handle = ptr::null_mut();
        // SAFETY: the call writes a handle, and reads a C string.
        unsafe { call!(self.driver, cuModuleGetFunction(&raw mut handle, self.handle.0, symbol.as_ptr()))? };
        Ok(Function { handle: Handle(handle), shared: SHARED_UNASKED })
    }
}

/// Has the driver compile and load PTX. An error comes with the compiler's log.
fn compile(driver: &Driver, ptx: &str) -> Result<Handle<sys::CUmodule>, (Status, String)> {
    let Ok(ptx) = CString::new(ptx) else { return Err((TOO_NEW[1], "a NUL in the text".to_owned())) };
    let mut log = [0_u8; 4096];
    let mut options =
        [sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER, sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
    // A size is passed, and comes back, as a pointer of that value.
    let mut values = [log.as_mut_ptr().cast::<c_void>(), ptr::without_provenance_mut(log.len())];
    let mut handle = ptr::null_mut();
    // SAFETY: a context is current; the text ends with NUL, and the log is as large as said.
    let status = unsafe {
        (driver.functions.cuModuleLoadDataEx)(
            &raw mut handle,
            ptx.as_ptr().cast(),
            options.len() as u32,
            options.as_mut_ptr(),
            values.as_mut_ptr(),
        )
    };
    if status == 0 {
        return Ok(Handle(handle));
    }
    let text = log.split(|&byte| byte == 0).next().unwrap_or_default();
    Err((status, String::from_utf8_lossy(text).trim().to_owned()))
}

/// Why a tier was not loaded, on one line.
fn refusal(tier: Tier, status: &str, log: &str) -> String {
    let log: Vec<&str> = log.split_whitespace().collect();
    if log.is_empty() { format!("{tier}: {status}") } else { format!("{tier}: {status}: {}", log.join(" ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_the_compiler_said() {
        let text = refusal(
            Tier::Sm80,
            "CUDA_ERROR_INVALID_PTX (218)",
            "ptxas fatal :\n  Unsupported .version 8.0\n",
        );
        assert_eq!(text, "sm_80: CUDA_ERROR_INVALID_PTX (218): ptxas fatal : Unsupported .version 8.0");
        assert_eq!(refusal(Tier::Sm75, "error 1", ""), "sm_75: error 1");
    }
}
