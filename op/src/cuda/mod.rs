//! The CUDA kernels, from the host's side.
//!
//! The kernels are in `kernels/`, compiled ahead to PTX, one text for each [`Tier`] of devices; the [`driver`] compiles the one that fits when the
//! first kernel is made, for all sessions. [`plan`] says which launches a call takes, and [`arguments`] what is passed to them.
//!
//! Everything happens in the host's CUDA context, in the order of the stream that a call comes with: no call waits for
//! the device, and each can be captured in a CUDA graph. By the driver's rules that holds for the first of its sizes too; on a GPU only later ones
//! have been captured yet. Nor does what is done once for a context or a kernel disturb a capture that is under way elsewhere
//! ([`relaxed`]). Nothing is linked: on a machine without a driver a kernel is refused, and nothing else changes.

mod arguments;
mod arithmetic;
mod chain;
mod clusters;
mod context;
mod driver;
mod element;
mod epilogue;
mod module;
mod plan;
mod pool;
mod read;
mod real;
mod relaxed;
mod slab;
mod tier;
mod workspace;

use std::ffi::c_void;
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::layer::Extent;
use crate::{Error, Layer};

use context::Current;
pub use element::ElementType;
use plan::{Addresses, Plan};
use tier::Target;

/// A GPU with the kernels that are loaded for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// Its name, as the driver has it.
    pub name: String,
    /// Its compute capability, major and minor.
    pub capability: (u32, u32),
    /// The newest CUDA that the driver supports, as `12.4`.
    pub driver: String,
    /// What the kernels are compiled for that it runs, as `sm_90`.
    pub kernels: String,
    /// The most blocks of a cluster that there is room for where it multiplies; less than 2 where there are none.
    pub clusters: u32,
    /// The most of one that reads a sample.
    pub reading_clusters: u32,
}

impl Gpu {
    /// That of the context that is current on this thread, or the first one. Its kernels are loaded as for a session.
    ///
    /// # Errors
    /// No driver, one that is too old, no device, or one that the kernels do not run on.
    #[allow(unsafe_code)]
    pub fn current() -> Result<Self, Error> {
        // SAFETY: null is a stream of the current context.
        let current = unsafe { Current::of(ptr::null_mut()) }?;
        let context = current.context()?;
        let clusters = context.target(true).clusters;
        Ok(Self { clusters: clusters.most(), reading_clusters: clusters.read, ..context.gpu.clone() })
    }
}

/// The plans that a kernel keeps: as many sizes as a session usually alternates between.
const PLANS: usize = 8;

/// A layer ready to run on the devices of one machine: shared by every thread that calls it.
#[derive(Debug)]
pub struct Kernel {
    layer: Layer,
    clusters: bool,
    /// The latest last.
    plans: Mutex<Vec<(Case, Arc<Plan>)>>,
}

/// What a plan depends on beside the layer.
type Case = (ElementType, Extent, Target);

impl Kernel {
    /// A kernel for `layer`. The kernels are loaded into the CUDA context that is current on this thread, so that calls find them there.
    ///
    /// # Errors
    /// No driver, one that is too old, or a device that the kernels do not run on.
    #[allow(unsafe_code)]
    pub fn new(layer: Layer) -> Result<Self, Error> {
        // SAFETY: null is a stream of the current context.
        unsafe { Current::of(ptr::null_mut()) }?.context()?;
        Ok(Self { layer, clusters: false, plans: Mutex::default() })
    }

    /// The same in fewer launches where the current context's device has clusters of blocks: the same bits. No GPU has run these kernels yet.
    ///
    /// # Errors
    /// As `new`.
    #[allow(unsafe_code)]
    pub fn with_clusters(self) -> Result<Self, Error> {
        // SAFETY: null is a stream of the current context.
        let current = unsafe { Current::of(ptr::null_mut()) }?;
        // Asked for now, and not in a call.
        let _ = current.context()?.target(true);
        Ok(Self { clusters: true, ..self })
    }

    /// The layer that it computes.
    #[must_use]
    pub fn layer(&self) -> &Layer {
        &self.layer
    }

    /// Has the layer computed on the `input` of shape `dims` into `output`, both addresses on the device, behind what is on
    /// `stream` already. Returns before that is done. May be called from several threads at once. Where there are no samples
    /// nothing is put on the stream.
    ///
    /// # Errors
    /// A shape that the operator does not take; no memory on the device; a failure of the driver, after which the
    /// output is unspecified.
    ///
    /// # Safety
    /// `stream` is null or a stream that is alive. When the stream comes to it, `input` and `output` point to as many elements of this type as `dims` implies, aligned
    /// as the type is, on the device of the stream (of the current context, for the null stream), and do not overlap.
    #[allow(unsafe_code)]
    pub unsafe fn run(
        &self,
        element: ElementType,
        input: u64,
        dims: &[usize],
        output: u64,
        stream: *mut c_void,
    ) -> Result<(), Error> {
        let extent = self.layer.extent(dims)?;
        if extent.samples == 0 {
            return Ok(());
        }
        let stream = stream.cast();
        // SAFETY: the stream is the caller's.
        let current = unsafe { Current::of(stream) }?;
        let context = current.context()?;
        let plan = self.plan((element, extent, context.target(self.clusters)))?;
        let bytes = plan.workspace();
        // SAFETY: the context is that of the stream, and current until this function returns.
        let memory = unsafe { context.pool.take(bytes, stream) }?;
        let memory = memory.ok_or(Error::DeviceMemory {
            operator: self.layer.name(),
            bytes,
            samples: extent.samples,
            channels: extent.channels,
            positions: extent.positions,
        })?;
        let addresses = Addresses { input, output, workspace: memory.address() };
        // The first one follows what the caller put on the stream, and the workspace's allocation.
        let mut follows = false;
        plan.launch(addresses, &mut |launch| {
            // SAFETY: the caller's tensors are as large as the plan takes them to be, the workspace as large as it asked
            // for, and given back behind the last launch.
            unsafe { context.module.launch(&launch, std::mem::replace(&mut follows, true), stream) }
        })
    }

    /// The plan of a call, made anew where none is kept.
    fn plan(&self, case: Case) -> Result<Arc<Plan>, Error> {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = plans.iter().position(|(known, _)| *known == case) {
            let found = plans.remove(index);
            let plan = Arc::clone(&found.1);
            plans.push(found);
            return Ok(plan);
        }
        let (element, extent, target) = case;
        let plan = Arc::new(Plan::new(&self.layer, element, extent, target)?);
        if plans.len() == PLANS {
            plans.remove(0);
        }
        plans.push((case, Arc::clone(&plan)));
        Ok(plan)
    }
}
