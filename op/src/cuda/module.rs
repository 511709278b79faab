//! The kernels, loaded into a context: compiled by the driver, found by name, launched.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::{CString, c_int, c_void};
use std::ptr;
use std::sync::{Mutex, PoisonError};

use cudarc::driver::sys;

use super::driver::{Driver, Status, call};
use super::plan::Launch;
use super::relaxed::Relaxed;
use super::tier::Tier;
use crate::Error;

/// The bytes of shared memory that a block gets without asking for more first.
const SHARED_UNASKED: u32 = 48 * 1024;

/// The most blocks of a cluster that every device with clusters has; for more the function has to be allowed to have them.
const PORTABLE_CLUSTER: u32 = 8;

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

/// A kernel, and the most bytes of shared memory and blocks of a cluster that it may be launched with.
#[derive(Debug, Clone, Copy)]
struct Function {
    handle: Handle<sys::CUfunction>,
    shared: u32,
    cluster: u32,
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
        let Launch { blocks, cluster, threads, shared, .. } = *launch;
        let function = self.function(launch.function, shared, cluster)?;
        let mut parameters = [launch.arguments.address().cast_mut()];
        let (parameters, none) = (parameters.as_mut_ptr(), ptr::null_mut());
        let overlaps = self.overlaps && follows;
        // SAFETY: the kernels take one parameter, by value, which the call copies; the rest is the caller's to see to. Those that
        // may overlap with the launch before them wait for its end themselves.
        unsafe {
            if let Some(launch_ex) =
                self.driver.functions.cuLaunchKernelEx.filter(|_| overlaps || cluster > 1)
            {
                let mut attributes = [OVERLAPS, cluster_of(cluster)];
                let wanted = &mut attributes[usize::from(!overlaps)..=usize::from(cluster > 1)];
                let config = configuration([blocks, threads, shared], wanted, stream);
                let status = launch_ex(&raw const config, function.0, parameters, none);
                return self.driver.check("cuLaunchKernelEx", status);
            }
            call!(
                self.driver,
                cuLaunchKernel(function.0, blocks, 1, 1, threads, 1, 1, shared, stream, parameters, none)
            )
        }
    }

    /// How many clusters of a kernel the current context's device has room for at a time: with `cluster` blocks of so many threads and bytes of
    /// shared memory. None where the driver has no clusters at all.
    ///
    /// # Errors
    /// The driver knows of no such clusters.
    pub(super) fn clusters(
        &self,
        name: &'static str,
        cluster: u32,
        threads: u32,
        shared: u32,
    ) -> Result<u32, Error> {
        let functions = &self.driver.functions;
        let (Some(room), Some(_)) = (functions.cuOccupancyMaxActiveClusters, functions.cuLaunchKernelEx)
        else {
            return Ok(0);
        };
        let _relaxed = Relaxed::new(self.driver)?;
        let function = self.function(name, shared, cluster)?;
        let mut attributes = [cluster_of(cluster)];
        let config = configuration([cluster, threads, shared], &mut attributes, ptr::null_mut());
        let mut count = 0;
        // SAFETY: the call writes one number, and the function is this module's, whose context is current.
        let status = unsafe { room(&raw mut count, function.0, &raw const config) };
        self.driver.check("cuOccupancyMaxActiveClusters", status)?;
        Ok(count.try_into().unwrap_or(0))
    }

    /// The kernel called `name`, allowed to be launched with `shared` bytes of shared memory and with clusters of `cluster` blocks.
    fn function(
        &self,
        name: &'static str,
        shared: u32,
        cluster: u32,
    ) -> Result<Handle<sys::CUfunction>, Error> {
        use sys::CUfunction_attribute as Attribute;
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        let ready = functions.get(name).filter(|known| known.shared >= shared && known.cluster >= cluster);
        if let Some(function) = ready {
            return Ok(function.handle);
        }
        // The driver may load a kernel when it is looked up.
        let _relaxed = Relaxed::new(self.driver)?;
        let function = match functions.get_mut(name) {
            Some(function) => function,
            None => functions.entry(name).or_insert(self.find(name)?),
        };
        let allow = |attribute, value: u32| {
            // SAFETY: the function is this module's, whose context is current.
            unsafe { call!(self.driver, cuFuncSetAttribute(function.handle.0, attribute, value as c_int)) }
        };
        if function.shared < shared {
            allow(Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, shared)?;
            function.shared = shared;
        }
        if function.cluster < cluster {
            allow(Attribute::CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED, 1)?;
            function.cluster = u32::MAX;
        }
        Ok(function.handle)
    }

    fn find(&self, name: &'static str) -> Result<Function, Error> {
        let symbol = CString::new(name).unwrap_or_default();
        let mut handle = ptr::null_mut();
        // SAFETY: the call writes a handle, and reads a C string.
        unsafe { call!(self.driver, cuModuleGetFunction(&raw mut handle, self.handle.0, symbol.as_ptr()))? };
        Ok(Function { handle: Handle(handle), shared: SHARED_UNASKED, cluster: PORTABLE_CLUSTER })
    }
}

/// Lets a launch begin before the one before it is over.
const OVERLAPS: sys::CUlaunchAttribute = sys::CUlaunchAttribute {
    id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
    pad: [0; 4],
    value: sys::CUlaunchAttributeValue { programmaticStreamSerializationAllowed: 1 },
};

/// Makes so many blocks a cluster.
fn cluster_of(blocks: u32) -> sys::CUlaunchAttribute {
    let dimension = sys::CUlaunchAttributeValue_union__bindgen_ty_1 { x: blocks, y: 1, z: 1 };
    sys::CUlaunchAttribute {
        id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION,
        pad: [0; 4],
        value: sys::CUlaunchAttributeValue { clusterDim: dimension },
    }
}

/// A launch of so many blocks, threads in each, and bytes of shared memory. The driver reads the attributes by a pointer.
fn configuration(
    [blocks, threads, shared]: [u32; 3],
    attributes: &mut [sys::CUlaunchAttribute],
    stream: sys::CUstream,
) -> sys::CUlaunchConfig {
    sys::CUlaunchConfig {
        gridDimX: blocks,
        gridDimY: 1,
        gridDimZ: 1,
        blockDimX: threads,
        blockDimY: 1,
        blockDimZ: 1,
        sharedMemBytes: shared,
        hStream: stream,
        attrs: attributes.as_mut_ptr(),
        numAttrs: attributes.len() as u32,
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
