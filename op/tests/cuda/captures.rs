//! Kernels that are made, and calls that are put on streams, while streams are captured.

use std::ptr;
use std::thread;

use isqrt_cov_op::cuda::{ElementType, Kernel};
use isqrt_cov_op::{Layer, OperatorKind};

use crate::device::{Tensors, begin_capture, capture_mode, end_capture, launch, stream};
use crate::numbers::compare;
use crate::samples::input;

/// Each test, in a process of its own: what it is about happens the first time.
pub const CASES: [(&str, &[(&str, &str)]); 2] = [
    ("captures::another_thread_captures", &[("CLUSTERS", "3")]),
    ("captures::a_first_call_is_captured", &[]),
];

fn tensors(layer: &Layer) -> (Tensors, Vec<f64>, Vec<usize>) {
    let (data, dims) = input(layer, (3, 70, 90));
    (Tensors::new(layer, ElementType::Float, (&data, &dims)), data, dims)
}

/// A kernel is made, with clusters too, and runs for the first time, while another thread captures a stream.
#[test]
#[ignore = "run by kernels_on_the_stub"]
fn another_thread_captures() {
    let layer = Layer::new(OperatorKind::IsqrtCov);
    let captured = stream();
    // A pointer is no other thread's, its address is.
    let other = stream().expose_provenance();
    let (tensors, data, dims) = tensors(&layer);
    begin_capture(captured);
    thread::scope(|scope| {
        scope.spawn(|| {
            // This thread has no context yet: it is looked for as well.
            let kernel = Kernel::new(layer).expect("a device");
            let other = ptr::with_exposed_provenance_mut(other);
            tensors.put(&kernel, other).expect("the stub launches everything");
            let kernel = kernel.with_clusters().expect("the context is there");
            tensors.put(&kernel, other).expect("the stub launches everything");
            assert_eq!(capture_mode(), 0);
        });
    });
    assert!(end_capture(captured).is_some(), "the other thread's capture was spoiled");
    compare(&layer, ElementType::Float, (&data, &dims), &tensors.output());
}

/// A call of sizes that none came with before.
#[test]
#[ignore = "run by kernels_on_the_stub"]
fn a_first_call_is_captured() {
    let layer = Layer::new(OperatorKind::IsqrtCov);
    let stream = stream();
    let kernel = Kernel::new(layer).expect("a device");
    let (tensors, data, dims) = tensors(&layer);
    begin_capture(stream);
    tensors.put(&kernel, stream).expect("the call is captured");
    let graph = end_capture(stream).expect("a call does not spoil its own capture");
    for _ in 0..2 {
        launch(graph, stream);
        compare(&layer, ElementType::Float, (&data, &dims), &tensors.output());
    }
}
