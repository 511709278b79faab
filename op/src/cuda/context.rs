//! What is kept for each CUDA context that kernels run in: contexts are the host's, the kernels loaded into them are not.
//!
//! A context is looked up for each call, by its stream, and gets its kernels and its memory pool the first time. Both stay as long
//! as the process, and are shared by all sessions.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_int};
use std::ptr;
use std::sync::{Mutex, OnceLock, PoisonError};

use cudarc::driver::sys::{self, CUdevice_attribute as Attribute};

use super::Gpu;
use super::clusters::Clusters;
use super::driver::{Driver, call};
use super::module::Module;
use super::pool::Pool;
use super::relaxed::Relaxed;
use super::tier::{Target, Tier};
use crate::Error;

/// A context with everything that kernels need in it.
#[derive(Debug)]
pub(super) struct Context {
    /// Without the clusters.
    pub(super) gpu: Gpu,
    target: Target,
    /// The device's, once they are asked for.
    clusters: OnceLock<Clusters>,
    pub(super) module: Module,
    pub(super) pool: Pool,
}

/// Which context: its handle, and its number where the driver gives one, for a handle may be given again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key(usize, u64);

/// Every context that was seen.
static CONTEXTS: Mutex<Vec<(Key, &'static Slot)>> = Mutex::new(Vec::new());

/// What is kept for a context, once it is made: under a lock of its own, so that two sessions made at once do not compile the kernels twice,
/// and that meanwhile the runs in other contexts go on.
#[derive(Debug, Default)]
struct Slot {
    making: Mutex<()>,
    made: OnceLock<Context>,
}

/// The largest handle of a default stream: null, and those that stand for the legacy one and the thread's own.
const DEFAULT_STREAMS: usize = 2;

/// A context that is current on this thread until this is dropped.
#[derive(Debug)]
pub(super) struct Current {
    driver: &'static Driver,
    handle: sys::CUcontext,
    pushed: bool,
}

impl Current {
    /// Makes the context current in which `stream` lives; a default stream lives in the context that is current already.
    /// Where none is, it is the primary one of the first device, which the CUDA runtime would take as well; that is
    /// then kept alive as long as the process.
    ///
    /// # Errors
    /// There is no driver; the stream is of no context.
    ///
    /// # Safety
    /// `stream` is a default one or alive.
    pub(super) unsafe fn of(stream: sys::CUstream) -> Result<Self, Error> {
        let driver = Driver::get()?;
        let (mut current, mut handle) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: each call writes what its pointer has room for.
        unsafe {
            call!(driver, cuCtxGetCurrent(&raw mut current))?;
            if stream.addr() > DEFAULT_STREAMS {
                call!(driver, cuStreamGetCtx(stream, &raw mut handle))?;
            } else if !current.is_null() {
                handle = current;
            } else {
                let mut device = 0;
                let _relaxed = Relaxed::new(driver)?;
                call!(driver, cuDeviceGet(&raw mut device, 0))?;
                call!(driver, cuDevicePrimaryCtxRetain(&raw mut handle, device))?;
            }
            let pushed = handle != current;
            if pushed {
                call!(driver, cuCtxPushCurrent_v2(handle))?;
            }
            Ok(Self { driver, handle, pushed })
        }
    }

    /// What is kept for this context, made the first time.
    ///
    /// # Errors
    /// A device that the kernels do not run on; a driver that does not take them.
    pub(super) fn context(&self) -> Result<&'static Context, Error> {
        let key = self.key()?;
        let slot = slot(key);
        if let Some(context) = slot.made.get() {
            return Ok(context);
        }
        let _making = slot.making.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(context) = slot.made.get() {
            return Ok(context);
        }
        let _relaxed = Relaxed::new(self.driver)?;
        let context = Context::new(self.driver)?;
        Ok(slot.made.get_or_init(|| context))
    }

    fn key(&self) -> Result<Key, Error> {
        let mut number = 0;
        if let Some(get) = self.driver.functions.cuCtxGetId {
            // SAFETY: the context is alive, and the call writes one number.
            self.driver.check("cuCtxGetId", unsafe { get(self.handle, &raw mut number) })?;
        }
        Ok(Key(self.handle as usize, number))
    }
}

fn slot(key: Key) -> &'static Slot {
    let mut contexts = CONTEXTS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, slot)) = contexts.iter().find(|(known, _)| *known == key) {
        return slot;
    }
    let slot: &'static Slot = Box::leak(Box::default());
    contexts.push((key, slot));
    slot
}

impl Drop for Current {
    fn drop(&mut self) {
        if self.pushed {
            let mut popped = ptr::null_mut();
            // SAFETY: `of` pushed it on this thread: the pointer inside keeps `self` there.
            let _ = unsafe { call!(self.driver, cuCtxPopCurrent_v2(&raw mut popped)) };
        }
    }
}

impl Context {
    /// For the context that is current.
    fn new(driver: &'static Driver) -> Result<Self, Error> {
        let device = Device::current(driver)?;
        let capability = (
            device.number(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            device.number(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        );
        let pools = device.number(Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED)? != 0;
        suitable(&device.name, capability, pools)?;
        let tiers = Tier::fitting(capability.0, capability.1);
        // The pool first: one that is left where the kernels fail is empty, and kernels that are left where the pool fails are not.
        let pool = Pool::new(driver, device.ordinal)?;
        let (module, tier) = Module::load(driver, &device.name, tiers)?;
        let multiprocessors = device.number(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
        let shared = device.number(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?;
        let target = Target { tier, multiprocessors, shared, clusters: Clusters::default() };
        let gpu = Gpu {
            name: device.name,
            capability,
            driver: driver.version.clone(),
            kernels: tier.to_string(),
            clusters: 0,
            reading_clusters: 0,
        };
        Ok(Self { gpu, target, clusters: OnceLock::new(), module, pool })
    }

    /// What plans depend on; `clusters` are none unless they are wanted. The context is current.
    pub(super) fn target(&self, clusters: bool) -> Target {
        if !clusters || !self.target.tier.has_clusters() {
            return self.target;
        }
        let clusters = *self.clusters.get_or_init(|| Clusters::of(&self.module, self.target));
        Target { clusters, ..self.target }
    }
}

/// Whether the kernels run on a device, in words where they do not.
fn suitable(device: &str, (major, minor): (u32, u32), pools: bool) -> Result<(), Error> {
    let refused = |found: String, expected| Err(Error::Device { device: device.to_owned(), found, expected });
    if Tier::fitting(major, minor).next().is_none() {
        return refused(format!("compute capability {major}.{minor}"), "7.5 or above (Turing or later)");
    }
    if !pools {
        return refused("no memory pools".to_owned(), "a device and a driver mode that have them");
    }
    Ok(())
}

/// A device, as far as its context is made for it.
struct Device {
    driver: &'static Driver,
    ordinal: sys::CUdevice,
    name: String,
}

impl Device {
    /// The current context's.
    fn current(driver: &'static Driver) -> Result<Self, Error> {
        let mut ordinal = 0;
        let mut name = [0; 256];
        // SAFETY: a context is current; the second call writes as many bytes as it is told, the last of them NUL.
        unsafe {
            call!(driver, cuCtxGetDevice(&raw mut ordinal))?;
            call!(driver, cuDeviceGetName(name.as_mut_ptr(), name.len() as c_int, ordinal))?;
        }
        let name = name.map(|unit| unit as u8);
        let name = CStr::from_bytes_until_nul(&name).map(|name| name.to_string_lossy().into_owned());
        Ok(Self { driver, ordinal, name: name.unwrap_or_default() })
    }

    fn number(&self, attribute: Attribute) -> Result<u32, Error> {
        let mut value = 0;
        // SAFETY: the call writes one number.
        unsafe { call!(self.driver, cuDeviceGetAttribute(&raw mut value, attribute, self.ordinal))? };
        Ok(value.try_into().unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_does_not_do_is_named() {
        let message = suitable("Tesla V100", (7, 0), true).unwrap_err().to_string();
        assert!(
            message.starts_with("device \"Tesla V100\" has compute capability 7.0; expected 7.5"),
            "{message}"
        );
        assert!(message.contains("CPUExecutionProvider"), "{message}");
        let message = suitable("A virtual GPU", (8, 0), false).unwrap_err().to_string();
        assert!(message.contains("has no memory pools"), "{message}");
        assert!(suitable("H100", (9, 0), true).is_ok());
    }
}
