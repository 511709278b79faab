//! The session's threads, through which the kernels run their tasks.

use std::any::Any;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ort_sys::OrtKernelContext;

use super::api::{Api, call};
use super::environment::in_default;
use crate::cpu::Executor;

/// How long the first call waits for all threads to show themselves: a few times what it takes to wake one.
const PATIENCE: Duration = Duration::from_micros(200);

/// The threads that a session runs tasks on, as far as they have shown themselves; zero before the first call.
///
/// A session does not tell its `intra_op_num_threads`. Work is divided by this number, and comes out the same however it is
/// divided.
#[derive(Debug, Default)]
pub(super) struct PoolSize(AtomicUsize);

/// The session's threads, as many as its `intra_op_num_threads` says.
pub(super) struct Threads<'a> {
    pub api: Api,
    pub context: *const OrtKernelContext,
    pub pool_size: &'a PoolSize,
}

// SAFETY: the context is used for nothing but `ParallelFor`, which only reads the session's thread pool from it; the pool
// may be entered from any thread.
unsafe impl Sync for Threads<'_> {}

/// What the threads of one `ParallelFor` share.
struct Tasks<'a> {
    task: &'a (dyn Fn(usize) + Sync),
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    /// The tasks that have begun and not ended, and the most that ever did.
    running: AtomicUsize,
    together: AtomicUsize,
}

impl Executor for Threads<'_> {
    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        unsafe extern "C" fn one(tasks: *mut c_void, index: usize) {
            // SAFETY: `run` passes a pointer to its `Tasks` and returns after the last call.
            let tasks = unsafe { &*tasks.cast::<Tasks>() };
            let running = tasks.running.fetch_add(1, Ordering::Relaxed) + 1;
            tasks.together.fetch_max(running, Ordering::Relaxed);
            if let Err(payload) = in_default(|| catch_unwind(AssertUnwindSafe(|| (tasks.task)(index)))) {
                tasks.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(payload);
            }
            tasks.running.fetch_sub(1, Ordering::Relaxed);
        }

        if tasks <= 1 {
            return (0..tasks).for_each(task);
        }
        let mut shared = Tasks {
            task,
            panic: Mutex::new(None),
            running: AtomicUsize::new(0),
            together: AtomicUsize::new(0),
        };
        // SAFETY: the context is alive during the kernel's call, and `shared` until every task is done, which is when
        // `ParallelFor` returns. Zero batches lets idle threads take the next task.
        let done = unsafe {
            let status = call!(
                self.api,
                KernelContext_ParallelFor(self.context, one, tasks, 0, (&raw mut shared).cast())
            );
            self.api.check(status)
        };
        self.pool_size.0.fetch_max(shared.together.into_inner(), Ordering::Relaxed);
        // Both panics end in the guard around the kernel's call.
        if let Some(payload) = shared.panic.into_inner().unwrap_or_else(PoisonError::into_inner) {
            resume_unwind(payload);
        }
        if let Err(failure) = done {
            panic!("ParallelFor: {}", failure.message);
        }
    }

    fn threads(&self) -> usize {
        let known = self.pool_size.0.load(Ordering::Relaxed);
        if known > 0 { known } else { self.count() }
    }
}

impl Threads<'_> {
    /// Has one task for each processor wait until all have begun or patience is at an end.
    fn count(&self) -> usize {
        // Asking the system opens files, which is not for every session.
        static PROCESSORS: LazyLock<usize> =
            LazyLock::new(|| std::thread::available_parallelism().map_or(1, usize::from));
        let begun = AtomicUsize::new(0);
        let end = Instant::now() + PATIENCE;
        self.run(*PROCESSORS, &|_| {
            begun.fetch_add(1, Ordering::Relaxed);
            while begun.load(Ordering::Relaxed) < *PROCESSORS && Instant::now() < end {
                std::hint::spin_loop();
            }
        });
        // A thread that was busy elsewhere shows itself in a later call, if the work is divided at all.
        let least = 2.min(*PROCESSORS);
        self.pool_size.0.fetch_max(least, Ordering::Relaxed).max(least)
    }
}

#[cfg(test)]
mod tests {
    use std::ptr;

    use super::*;
    use crate::plugin::environment::is_default;
    use crate::plugin::fake;

    #[test]
    fn every_task_runs_once_and_a_panic_waits_for_the_rest() {
        let pool_size = PoolSize::default();
        let threads = Threads { api: fake::api(), context: ptr::null(), pool_size: &pool_size };
        let runs: [AtomicUsize; 5] = Default::default();
        let count = |index: usize| runs[index].fetch_add(1, Ordering::Relaxed);
        threads.run(runs.len(), &|index| {
            count(index);
        });
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            threads.run(runs.len(), &|index| {
                count(index);
                assert_ne!(index, 1, "the second task");
            });
        }));
        let payload = panicked.unwrap_err();
        assert!(payload.downcast_ref::<String>().is_some_and(|text| text.contains("the second task")));
        assert!(runs.iter().all(|runs| runs.load(Ordering::Relaxed) == 2), "{runs:?}");
    }

    #[test]
    fn tasks_run_in_the_default_environment_on_threads_that_have_another() {
        let pool_size = PoolSize::default();
        let threads = Threads { api: fake::api(), context: ptr::null(), pool_size: &pool_size };
        let in_default = AtomicUsize::new(0);
        threads.run(3, &|_| {
            in_default.fetch_add(is_default().into(), Ordering::Relaxed);
        });
        assert_eq!(in_default.into_inner(), 3);
    }

    #[test]
    fn threads_are_counted_once() {
        let pool_size = PoolSize::default();
        let threads = Threads { api: fake::api(), context: ptr::null(), pool_size: &pool_size };
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        // The other runtime has a thread for each task.
        assert!((2.min(processors)..=processors).contains(&threads.threads()));
        let known = PoolSize(AtomicUsize::new(7));
        assert_eq!(Threads { pool_size: &known, ..threads }.threads(), 7);
    }
}
