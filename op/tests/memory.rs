//! What a call allocates: the workspace once, of the size that the kernel says, and no memory after that.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use isqrt_cov_op::cpu::{Kernel, Serial};
use isqrt_cov_op::{Layer, OperatorKind};

/// The system's allocator, which keeps count.
struct Counting;

thread_local! {
    // Of this thread: the test's harness allocates in another when it likes.
    static NOW: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is the system allocator's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.get().wrapping_add(layout.size());
        NOW.set(now);
        PEAK.set(PEAK.get().max(now));
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        NOW.set(NOW.get().wrapping_sub(layout.size()));
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The bytes that it takes to check a shape.
const SHAPE: usize = 256;

/// C, M, and the bound on the workspace in C×C matrices where the direct form runs and in M×M matrices beside two copies
/// of the sample where the Gram form does.
const SIZES: [(usize, usize, f64); 9] = [
    // In float64, so that these are of two numbers each.
    (16, 784, 100.0),
    (128, 196, 7.0),
    (64, 784, 13.0),
    (64, 3136, 50.0),
    (256, 49, 7.0),
    (256, 196, 7.0),
    (512, 196, 7.0),
    (2048, 49, 7.0),
    (2048, 196, 7.0),
];

#[test]
fn a_call_takes_the_workspace_once() {
    for (channels, positions, bound) in SIZES {
        let kernel = Kernel::new(Layer::new(OperatorKind::IsqrtCov));
        let dims = [2, channels, positions];
        let input: Vec<f32> = (0..2 * channels * positions).map(|i| (i % 97) as f32).collect();
        let mut output = vec![0.0_f32; channels * (channels + 1)];
        let before = NOW.get();
        PEAK.set(before);
        kernel.run(&input, &dims, &mut output, &Serial).unwrap();
        let peak = PEAK.get() - before;
        let workspace = kernel.workspace::<f32>(&dims).unwrap();
        // Beside it there is the list of idle workspaces, and room for its alignment.
        assert!((workspace..workspace + 1024).contains(&peak), "{dims:?}: {peak} bytes, not {workspace}");

        let before = NOW.get();
        PEAK.set(before);
        kernel.run(&input, &dims, &mut output, &Serial).unwrap();
        let again = PEAK.get() - before;
        assert!(again < SHAPE, "{dims:?}: a second call allocates {again} bytes");

        let pad = |len: usize| len.next_multiple_of(16) as f64;
        let numbers = workspace as f64 / 4.0;
        let matrices = if channels > positions {
            (numbers - 2.0 * pad(channels) * pad(positions)) / (pad(positions) * pad(positions))
        } else {
            numbers / (channels * channels) as f64
        };
        assert!(matrices <= bound, "{dims:?}: {matrices:.2} matrices");
        println!("{channels}/{positions}: {} KiB, {matrices:.2} matrices", workspace / 1024);
    }
}
