//! Who runs the kernels' independent tasks.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::shared::Shared;

/// Runs independent tasks, perhaps on several threads.
pub trait Executor: Sync {
    /// Calls `task` once for each index below `tasks`, in any order and on any thread, and returns when all are done.
    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync));

    /// The greatest number of tasks that may run at the same time, as far as it is known. It decides how the work is
    /// divided, never the numbers that come out.
    fn threads(&self) -> usize {
        std::thread::available_parallelism().map_or(1, usize::from)
    }
}

/// Runs the tasks one after another on the calling thread.
#[derive(Debug, Clone, Copy)]
pub struct Serial;

impl Executor for Serial {
    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        (0..tasks).for_each(task);
    }

    fn threads(&self) -> usize {
        1
    }
}

/// The multiplications below which work is not worth the waking of other threads, a few millionths of a second.
const LEAST: usize = 400_000;

/// The executor for work of so many multiplications: the calling thread alone where there are few.
pub(super) fn worthwhile(executor: &dyn Executor, multiplications: usize) -> &dyn Executor {
    if multiplications < LEAST { &Serial } else { executor }
}

/// Runs `task` once for each index below `tasks`, in the order of the indices as far as threads allow.
///
/// An index is handed out once even by an executor that calls its task too often: what the tasks write may be shared
/// out by index alone.
pub(super) fn for_each(executor: &dyn Executor, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
    let next = AtomicUsize::new(0);
    executor.run(tasks, &|_| {
        let index = next.fetch_add(1, Ordering::Relaxed);
        if index < tasks {
            task(index);
        }
    });
}

/// Which of several tasks begins: the longest, so that no thread is left alone with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// The first.
    Forward,
    /// The last.
    Backward,
}

/// Cuts `data` at `bound(0) ≤ bound(1) ≤ … ≤ bound(tasks)` and gives each task the piece that begins at its bound. What a bound is depends on
/// its index alone.
///
/// # Panics
/// If the bounds do not ascend.
pub(super) fn for_each_piece<T: Send + Sync>(
    executor: &dyn Executor,
    data: &mut [T],
    (tasks, order): (usize, Order),
    bound: &(dyn Fn(usize) -> usize + Sync),
    task: &(dyn Fn(usize, &mut [T]) + Sync),
) {
    assert!((0..tasks).all(|index| bound(index) <= bound(index + 1)), "the bounds of pieces ascend");
    let shared = Shared::new(data);
    for_each(executor, tasks, &|index| {
        let index = if order == Order::Backward { tasks - 1 - index } else { index };
        // SAFETY: the bounds ascend, as was looked at, so pieces of different indices do not overlap, and `for_each` hands out
        // each index once.
        #[allow(unsafe_code)]
        let piece = unsafe { shared.range(bound(index)..bound(index + 1)) };
        task(index, piece);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs every task three times.
    struct Insisting;

    impl Executor for Insisting {
        fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
            (0..3).for_each(|_| (0..tasks).for_each(task));
        }
    }

    #[test]
    fn an_index_is_handed_out_once_whatever_the_executor_does() {
        let runs: [AtomicUsize; 5] = Default::default();
        for_each(&Insisting, runs.len(), &|index| {
            runs[index].fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(runs.map(AtomicUsize::into_inner), [1; 5]);
    }

    #[test]
    #[should_panic(expected = "the bounds of pieces ascend")]
    fn pieces_that_overlap_are_not_handed_out() {
        let bound = |index: usize| [0, 3, 2, 4][index];
        for_each_piece(&Serial, &mut [0; 4], (3, Order::Forward), &bound, &|_, _| ());
    }
}
