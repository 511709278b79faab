//! Calls of the driver that a capture under way would not take.
#![allow(unsafe_code)]

use std::marker::PhantomData;

use cudarc::driver::sys::CUstreamCaptureMode as Mode;

use super::driver::{Driver, call};
use crate::Error;

/// While it lives, this thread may make calls that might wait for the device, such as loading kernels, though a stream is captured, by this thread or
/// by another one of the process. Otherwise they fail, and spoil that capture: sessions are made, and first calls come, while other parts of
/// the host capture theirs. Nothing that is called meanwhile is put on a stream, so that no graph lacks it.
pub(super) struct Relaxed {
    driver: &'static Driver,
    before: Mode,
    /// The thread's own.
    here: PhantomData<*const ()>,
}

impl Relaxed {
    /// # Errors
    /// The driver's.
    pub(super) fn new(driver: &'static Driver) -> Result<Self, Error> {
        let before = exchange(driver, Mode::CU_STREAM_CAPTURE_MODE_RELAXED)?;
        Ok(Self { driver, before, here: PhantomData })
    }
}

impl Drop for Relaxed {
    fn drop(&mut self) {
        // It was this thread's before.
        let _ = exchange(self.driver, self.before);
    }
}

/// Sets what captures allow this thread. Returns what was set before.
fn exchange(driver: &Driver, mut mode: Mode) -> Result<Mode, Error> {
    // SAFETY: the call reads a mode, and writes one of the three that there are.
    unsafe { call!(driver, cuThreadExchangeStreamCaptureMode(&raw mut mode))? };
    Ok(mode)
}
