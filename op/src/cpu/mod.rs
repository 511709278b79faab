//! The CPU kernels.

// What is not inlined into a version's entry is compiled without that version's instructions.
#![allow(clippy::inline_always)]
// Tiles are indexed by row, panel and column side by side with the operands.
#![allow(clippy::needless_range_loop)]

mod combine;
mod covariance;
mod division;
mod element;
mod executor;
mod iteration;
mod mirror;
mod multiplier;
mod normalize;
mod peak;
mod product;
mod sample;
mod shared;
mod store;
mod workspace;
mod write;

#[cfg(test)]
mod tests;

use std::any::TypeId;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::form::{self, Form, Multiplications, Programs};
use crate::layer::Extent;
use crate::{Error, Layer};

use element::Convert;
pub use element::{Element, Real};
pub use executor::{Executor, Serial};
use executor::{Order, for_each_piece};
pub use peak::saturate;
pub use product::Version;
use product::{Dispatch, Simd, Task};
use sample::Call;
use workspace::Pools;

/// The multiplications of a sample that several threads hardly have done sooner than one, some 50 millionths of a second.
const LITTLE: f64 = 5e6;

/// Fewer channels than these are computed in float64 even where the tensor is of float32. A graph of standard operators rounds so
/// few sums hardly worse than the kernels do in float32, and now and then better; better than a rounded float64 it cannot be. It
/// takes about twice the time, and twice the workspace: a few millionths of a second, or as long as reading the sample where
/// that has many positions.
const FEW: usize = 24;

/// A layer ready to run: shared by every thread that calls it.
#[derive(Debug)]
pub struct Kernel {
    layer: Layer,
    version: Version,
    exact: Programs,
    rounded: Programs,
    pools: Pools,
}

impl Kernel {
    /// A kernel for `layer`, in the fastest version that the CPU runs.
    #[must_use]
    pub fn new(layer: Layer) -> Self {
        Self::with_version(layer, Version::best())
    }

    /// A kernel for `layer` in another version than the fastest, for comparisons.
    #[must_use]
    pub fn with_version(layer: Layer, version: Version) -> Self {
        Self {
            layer,
            version,
            exact: Programs::exact(&layer),
            rounded: Programs::rounded(&layer),
            pools: Pools::default(),
        }
    }

    /// The layer that it computes.
    #[must_use]
    pub fn layer(&self) -> &Layer {
        &self.layer
    }

    /// The operations that the layer's products take for one sample of an input of this shape, in the form that runs: a
    /// multiplication and an addition count as two, a symmetric product as half of one.
    ///
    /// # Errors
    /// A shape that the operator does not take.
    pub fn operations<T: Element>(&self, dims: &[usize]) -> Result<f64, Error> {
        let (call, _) = self.plan::<T>(dims)?;
        Ok(2.0 * call.cost())
    }

    /// The bytes of memory beside input and output that a call on an input of this shape works in, for each of its samples
    /// that run at the same time. They stay with the kernel for its next calls.
    ///
    /// # Errors
    /// A shape that the operator does not take; more than all memory.
    pub fn workspace<T: Element>(&self, dims: &[usize]) -> Result<usize, Error> {
        let (call, few) = self.plan::<T>(dims)?;
        let bytes = if few { self.bytes::<T::Few>(call) } else { self.bytes::<T::Real>(call) };
        bytes.ok_or_else(|| self.no_memory(call.extent))
    }

    fn bytes<R: Real>(&self, call: Call<'_>) -> Option<usize> {
        R::dispatch(self.version, Workspace(call))?.checked_mul(size_of::<R>())
    }

    fn no_memory(&self, extent: Extent) -> Error {
        let Extent { channels, positions, .. } = extent;
        Error::Memory { operator: self.layer.name(), channels, positions }
    }

    /// What a call on an input of this shape has to do, and whether it does it in the type for few channels.
    fn plan<T: Element>(&self, dims: &[usize]) -> Result<(Call<'_>, bool), Error> {
        let extent = self.layer.extent(dims)?;
        let few = extent.channels < FEW;
        let real = if few { TypeId::of::<T::Few>() } else { TypeId::of::<T::Real>() };
        let exact = real == TypeId::of::<f64>() || extent.channels.min(extent.positions) < form::SMALL;
        let programs = if exact { &self.exact } else { &self.rounded };
        let form = Form::choose::<Multiplications>(&self.layer, extent, programs);
        Ok((Call { layer: &self.layer, extent, programs, form }, few))
    }

    /// Computes the layer on `input` of shape `dims` into `output`. May be called from several threads at once. The
    /// result does not depend on the executor, nor a sample's result on the other samples.
    ///
    /// # Errors
    /// A shape that the operator does not take; workspace that cannot be allocated, after which the output is
    /// unspecified.
    ///
    /// # Panics
    /// If `input` or `output` does not have the number of elements that `dims` implies.
    pub fn run<T: Element>(
        &self,
        input: &[T],
        dims: &[usize],
        output: &mut [T],
        executor: &dyn Executor,
    ) -> Result<(), Error> {
        let (call, few) = self.plan::<T>(dims)?;
        let extent = call.extent;
        let (from, to) = (extent.channels * extent.positions, self.layer.output_elements(extent.channels));
        assert_eq!(
            Some(input.len()),
            extent.samples.checked_mul(from),
            "the input's elements disagree with {dims:?}"
        );
        assert_eq!(
            Some(output.len()),
            extent.samples.checked_mul(to),
            "the output's elements disagree with {dims:?}"
        );
        let batch = Batch { call, input, output, executor, pools: &self.pools };
        let enough =
            if few { T::Few::dispatch(self.version, batch) } else { T::Real::dispatch(self.version, batch) };
        if enough { Ok(()) } else { Err(self.no_memory(extent)) }
    }
}

/// The numbers of workspace that a sample of a call needs.
struct Workspace<'a>(Call<'a>);

impl<R: Real> Task<R> for Workspace<'_> {
    type Output = Option<usize>;

    fn run<S: Simd<R, W>, const W: usize, const MR: usize>(self, _: S) -> Option<usize> {
        self.0.workspace::<R, S, W>()
    }
}

/// The samples of a call. The result says whether there was memory for them.
struct Batch<'a, T: Element> {
    call: Call<'a>,
    input: &'a [T],
    output: &'a mut [T],
    executor: &'a dyn Executor,
    pools: &'a Pools,
}

impl<T: Element + Convert<R>, R: Real> Task<R> for Batch<'_, T> {
    type Output = bool;

    fn run<S: Simd<R, W>, const W: usize, const MR: usize>(self, simd: S) -> bool {
        let Self { call, input, output, executor, pools } = self;
        let Some(workspace) = call.workspace::<R, S, W>() else { return false };
        let samples = call.extent.samples;
        if samples == 0 {
            return true;
        }
        let (from, to) = (input.len() / samples, output.len() / samples);
        let enough = AtomicBool::new(true);
        let run = |index: usize, output: &mut [T], executor: &dyn Executor| {
            let input = &input[index * from..(index + 1) * from];
            let done = R::pool(pools).with(workspace, |memory| {
                sample::run::<T, R, S, W, MR>(simd, &call, input, output, memory, executor);
            });
            if done.is_none() {
                enough.store(false, Ordering::Relaxed);
            }
        };
        // A thread for each sample as long as there is a sample for each thread; all threads on each of the rest, unless
        // there is too little in a sample to divide. How many threads there are is not asked in vain: the first time it takes a
        // session as long as some samples.
        let little = call.cost() < LITTLE;
        let rest = match samples {
            1 if little => 1,
            _ if little => 0,
            _ => samples % executor.threads().max(1),
        };
        let side_by_side = samples - rest;
        let (first, rest) = output.split_at_mut(side_by_side * to);
        for_each_piece(
            executor,
            first,
            (side_by_side, Order::Forward),
            &|index| index * to,
            &|index, output| {
                run(index, output, &Serial);
            },
        );
        for (index, output) in rest.chunks_exact_mut(to).enumerate() {
            run(side_by_side + index, output, executor);
        }
        enough.into_inner()
    }
}
