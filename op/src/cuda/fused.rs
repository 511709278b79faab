//! Whole layers in one launch, for sizes of which a cluster of blocks computes a sample.

use super::arguments::{Fused, STEPS};
use super::element::ElementType;
use super::plan::{Launch, Launching, Plan};
use super::slab::{Slab, no_product};
use super::tier::Capabilities;
use crate::Error;
use crate::layer::{Normalization, OperatorKind};
use crate::program::Outcome;

/// The sizes of `kernels/fused.cuh`: threads of a block, the greatest side, bytes of shared memory.
const THREADS: u32 = 512;
const SIDE: usize = 256;
const SHARED: u32 = 4 * 2 * 16 * (256 + 8) * 4;
/// The most blocks of a cluster on every device that has them.
const CLUSTER: usize = 8;

/// The blocks of a sample's cluster where a plan's samples are computed in one launch, on a device with this many multiprocessors.
///
/// Which layers are depends on nothing that changes from call to call with the same sizes, but for the batch, and the batch changes no bit.
pub(super) fn cluster(samples: usize, processors: usize) -> usize {
    (processors / samples.max(1)).clamp(1, CLUSTER)
}

/// Whether a plan's samples can be computed in one launch on such a device.
pub(super) fn fits(plan: &Plan, capabilities: Capabilities) -> bool {
    if !capabilities.tier.clusters() || capabilities.shared < SHARED {
        return false;
    }
    let Some(program) = &plan.program else { return false };
    let products = 1 + program.products.len() + usize::from(matches!(program.result, Outcome::Factor(_)));
    plan.layer.operator == OperatorKind::IsqrtCov
        && plan.layer.normalization == Normalization::Trace
        && plan.element != ElementType::Double
        && plan.extent.channels <= SIDE
        && products <= STEPS
}

impl Slab<'_> {
    /// Hands over the only launch.
    ///
    /// # Errors
    /// What it came to.
    pub(super) fn launch_fused(&self, cluster: usize, launch: Launching<'_>) -> Result<(), Error> {
        let Some(program) = &self.plan.program else { return Ok(()) };
        let mut fused = Fused {
            moments: self.moments(),
            center: self.center::<f32>(self.form()),
            write: self.result(program),
            steps: 0,
            products: [no_product(); STEPS],
        };
        let products = std::iter::once(self.gram(self.epilogue(program, None))).chain(self.products(program));
        for (step, product) in fused.products.iter_mut().zip(products) {
            *step = product;
            fused.steps += 1;
        }
        let function = match self.plan.element {
            ElementType::Float16 => "fused_f16",
            ElementType::BFloat16 => "fused_bf16",
            _ => "fused_f32",
        };
        let (blocks, cluster) = ((cluster * self.samples) as u32, cluster as u32);
        launch(Launch { function, blocks, threads: THREADS, shared: SHARED, cluster, arguments: &fused })
    }
}
