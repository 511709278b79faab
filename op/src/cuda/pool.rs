//! Memory for the time of a call, taken and given back in the order of a stream: nothing waits, and a call can be captured in a graph.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::ptr;

use cudarc::driver::sys;

use super::driver::{Driver, OUT_OF_MEMORY, call};
use super::module::Handle;
use crate::Error;

/// A device's memory for workspaces, apart from what the host takes there. What a call gives back stays for the next ones. Never
/// destroyed.
#[derive(Debug)]
pub(super) struct Pool {
    driver: &'static Driver,
    handle: Handle<sys::CUmemoryPool>,
}

/// Memory of one call, given back in the order of its stream when this is dropped.
#[derive(Debug)]
pub(super) struct Memory<'a> {
    driver: &'a Driver,
    address: sys::CUdeviceptr,
    stream: sys::CUstream,
}

impl Pool {
    /// A pool on a device that has pools.
    ///
    /// # Errors
    /// The driver refuses it.
    pub(super) fn new(driver: &'static Driver, device: sys::CUdevice) -> Result<Self, Error> {
        // SAFETY: numbers and a pointer, for all of which zero is a value: no handles to share, and the rest reserved.
        let mut properties: sys::CUmemPoolProps = unsafe { MaybeUninit::zeroed().assume_init() };
        properties.allocType = sys::CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED;
        properties.location.type_ = sys::CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE;
        properties.location.id = device as c_int;
        let mut handle = ptr::null_mut();
        // All of it. What is above a threshold the driver gives back whenever somebody waits for the stream, and a host that waits after every run would
        // have it allocated anew in each. A slab's size is no threshold that avoids this: streams side by side each have one, and a
        // single sample of many channels takes more. What is kept is no more than calls have had at a time; graphs have their own.
        let mut kept = u64::MAX;
        let threshold = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        // SAFETY: the first call writes a handle; the attribute's value is 64 bits wide.
        unsafe {
            call!(driver, cuMemPoolCreate(&raw mut handle, &raw const properties))?;
            call!(driver, cuMemPoolSetAttribute(handle, threshold, (&raw mut kept).cast()))?;
        }
        Ok(Self { driver, handle: Handle(handle) })
    }

    /// `bytes` of memory for what is put on `stream` until it is dropped; its address is a multiple of 256.
    /// Nothing where no memory is left.
    ///
    /// # Errors
    /// The driver refuses for another reason.
    ///
    /// # Safety
    /// A context of the device is current, and `stream` is null or one of it, and stays so until it is dropped.
    pub(super) unsafe fn take(
        &self,
        bytes: usize,
        stream: sys::CUstream,
    ) -> Result<Option<Memory<'_>>, Error> {
        let mut address = 0;
        if bytes > 0 {
            // SAFETY: the call writes an address.
            let status = unsafe {
                (self.driver.functions.cuMemAllocFromPoolAsync)(
                    &raw mut address,
                    bytes,
                    self.handle.0,
                    stream,
                )
            };
            if status == OUT_OF_MEMORY {
                return Ok(None);
            }
            self.driver.check("cuMemAllocFromPoolAsync", status)?;
        }
        Ok(Some(Memory { driver: self.driver, address, stream }))
    }
}

impl Memory<'_> {
    /// Where it is on the device; zero where nothing was asked for.
    pub(super) fn address(&self) -> u64 {
        self.address
    }
}

impl Drop for Memory<'_> {
    fn drop(&mut self) {
        if self.address != 0 {
            // SAFETY: `take` got it on this stream, and all that uses it was put there before. A failure here is one of
            // the stream as a whole, which its next user is told.
            let _ = unsafe { call!(self.driver, cuMemFreeAsync(self.address, self.stream)) };
        }
    }
}
