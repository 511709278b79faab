//! What the host's side says where something is missing or fails, and which calls of the driver a run makes.

use std::ffi::c_void;
use std::ptr;

use isqrt_cov_op::cuda::{ElementType, Gpu, Kernel};
use isqrt_cov_op::{Error, Layer, OperatorKind};

use crate::device::{log, run, set, stream};
use crate::numbers::compare;
use crate::samples::input;

/// Each test, and what it needs of the stub: a process of its own, for a driver is looked for but once.
pub const CASES: [(&str, &[(&str, &str)]); 10] = [
    ("host::no_device", &[("DEVICES", "0")]),
    ("host::an_old_device", &[("CAPABILITY", "7.0")]),
    ("host::no_memory_pools", &[("POOLS", "0")]),
    ("host::a_refused_tier", &[("REFUSE", "90,80")]),
    ("host::every_tier_refused", &[("REFUSE", "75,80,90"), ("DRIVER", "11020")]),
    ("host::no_memory", &[]),
    ("host::a_failed_launch", &[("LAUNCHES", "3")]),
    ("host::calls_of_a_run", &[]),
    ("host::calls_with_clusters", &[("CLUSTERS", "3")]),
    ("host::little_shared_memory", &[("CAPABILITY", "12.0")]),
];

/// Calls that are the test's own.
const OWN: [&str; 4] = ["cuInit", "cuDevicePrimaryCtxRetain", "cuMemAlloc ", "cuMemFree "];

/// A kernel made in the device's context.
fn kernel() -> Result<Kernel, Error> {
    stream();
    Kernel::new(Layer::new(OperatorKind::IsqrtCov))
}

/// Runs it on three samples, which have to come out right unless it fails.
fn try_out(kernel: &Kernel, stream: *mut c_void) -> Result<(), Error> {
    let (data, dims) = input(kernel.layer(), (3, 70, 90));
    let found = run(kernel, ElementType::Float, (&data, &dims), stream)?;
    compare(kernel.layer(), ElementType::Float, (&data, &dims), &found);
    Ok(())
}

/// The log without the test's own calls, with names instead of the stream and the workspace, a vector of lines.
fn calls(stream: *mut c_void) -> Vec<String> {
    let text = log().replace(&format!("stream {}", stream.addr()), "stream S");
    let workspace = text
        .lines()
        .find_map(|line| line.strip_prefix("cuMemAllocFromPoolAsync")?.split_once(" -> "))
        .map_or("none", |(_, address)| address);
    let lines = text.lines().filter(|line| !OWN.iter().any(|own| line.starts_with(own)));
    lines.map(|line| line.replace(workspace, "W")).collect()
}

fn said<T>(result: Result<T, Error>) -> String {
    result.err().expect("an error").to_string()
}

#[test]
#[ignore = "run by kernels_on_the_stub"]
fn no_device() {
    let message = said(Kernel::new(Layer::new(OperatorKind::IsqrtCov)));
    assert!(message.contains("cuInit says CUDA_ERROR_NO_DEVICE (100)"), "{message}");
    assert_eq!(said(Gpu::current()), message);
    assert!(message.contains("CPUExecutionProvider"), "{message}");
}

/// The toolkit's folder is on the path before the driver's.
#[test]
#[ignore = "run by kernels_on_the_stub"]
fn a_toolkit_beside_the_driver() {
    try_out(&kernel().expect("the driver"), ptr::null_mut()).expect("the stub launches everything");
}

#[test]
#[ignore = "run by kernels_on_the_stub"]
fn a_toolkit_alone() {
    let message = said(Kernel::new(Layer::new(OperatorKind::IsqrtCov)));
    assert!(message.contains("libcuda.so.1 that was found is the toolkit's"), "{message}");
    assert!(message.contains("take its folder, `stubs`, out of LD_LIBRARY_PATH"), "{message}");
}

#[test]
#[ignore = "run by kernels_on_the_stub"]
fn an_old_device() {
    let message = said(kernel());
    assert!(message.contains("has compute capability 7.0; expected 7.5 or above"), "{message}");
}

#[test]
#[ignore = "run by kernels_on_the_stub"]
fn no_memory_pools() {
    let message = said(kernel());
    assert!(message.contains("has no memory pools"), "{message}");
}

#[test]
#[ignore = "run by kernels_on_the_stub"]
fn a_refused_tier() {
    let kernel = kernel().expect("there is another tier");
    try_out(&kernel, ptr::null_mut()).expect("kernels that were taken run");
    let log = log();
    let loaded: Vec<_> = log.lines().filter(|line| line.starts_with("cuModuleLoadDataEx")).collect();
    assert_eq!(
        loaded,
        ["cuModuleLoadDataEx 90 -> 222", "cuModuleLoadDataEx 80 -> 222", "cuModuleLoadDataEx 75 -> 0"]
    );
    let mut launched = log.lines().filter(|line| line.starts_with("cuLaunchKernel"));
    assert!(launched.all(|line| line.contains(" tier 75 ")), "{log}");
    let name = "stub of compute capability 9.0".to_owned();
    let gpu = Gpu {
        name,
        capability: (9, 0),
        driver: "12.4".to_owned(),
        kernels: "sm_75".to_owned(),
        clusters: 0,
        reading_clusters: 0,
    };
    assert_eq!(Gpu::current().expect("a device"), gpu);
}

#[test]
#[ignore = "run by kernels_on_the_stub"]
fn every_tier_refused() {
    let message = said(kernel());
    for tier in ["sm_90", "sm_80", "sm_75"] {
        let reason = format!("{tier}: CUDA_ERROR_UNSUPPORTED_PTX_VERSION (222)");
        assert!(message.contains(&reason), "{message}");
    }
    assert!(message.contains("the stub was told to refuse this tier"), "{message}");
    assert!(message.contains("it is that of CUDA 11.2"), "{message}");
}

#[test]
#[ignore = "run by kernels_on_the_stub"]
fn no_memory() {
    let (kernel, stream) = (kernel().expect("a device"), stream());
    log();
    // After the test's own two.
    set(c"ALLOCATIONS", c"2");
    let message = said(try_out(&kernel, stream));
    assert!(
        message.contains("no memory on the device") && message.contains("3 samples with 70 channels"),
        "{message}"
    );
    let calls = calls(stream);
    assert!(
        matches!(&calls[..], [taken] if taken.starts_with("cuMemAllocFromPoolAsync stream S")),
        "{calls:?}"
    );
    set(c"ALLOCATIONS", c"-1");
    try_out(&kernel, stream).expect("there is memory again");
}

#[test]
#[ignore = "run by kernels_on_the_stub"]
fn a_failed_launch() {
    let (kernel, stream) = (kernel().expect("a device"), stream());
    let message = said(try_out(&kernel, stream));
    assert!(message.contains("cuLaunchKernelEx failed: CUDA_ERROR_ILLEGAL_ADDRESS (700)"), "{message}");
    // The one that fails is the last, and memory is given back nevertheless.
    let calls = calls(stream);
    let launched = calls.iter().filter(|line| line.starts_with("cuLaunchKernel")).count();
    assert_eq!(launched, 4, "{calls:#?}");
    assert_eq!(calls.last().map(String::as_str), Some("cuMemFreeAsync stream S W"), "{calls:#?}");
}

#[test]
#[ignore = "run by kernels_on_the_stub"]
fn calls_of_a_run() {
    let (kernel, stream) = (kernel().expect("a device"), stream());
    assert_eq!(calls(stream), ["cuMemPoolCreate", "cuMemPoolSetAttribute 4", "cuModuleLoadDataEx 90 -> 0"]);
    try_out(&kernel, stream).expect("the stub launches everything");
    // Kernels are looked up the first time that they are launched.
    let all = calls(stream);
    let found = all.iter().filter_map(|line| line.strip_prefix("cuModuleGetFunction "));
    assert!(found.eq(["moments_f32", "center_halves_f32", "product_halves", "write_halves_f32"]), "{all:#?}");
    try_out(&kernel, stream).expect("the stub launches everything");
    assert_eq!(calls(stream), CALLS);
    try_out(&kernel, ptr::null_mut()).expect("the stub launches everything");
    assert_eq!(calls(stream), CALLS.map(|line| line.replace("stream S", "stream 0")));
    run(&kernel, ElementType::Float, (&[], &[0, 70, 90]), stream).expect("nothing to do");
    assert!(calls(stream).is_empty());
}

/// Nothing waits, and all is on the stream.
const CALLS: [&str; 10] = [
    "cuMemAllocFromPoolAsync stream S 833280 -> W",
    "cuLaunchKernel stream S moments_f32 tier 90 blocks 27 threads 256 shared 2048",
    "cuLaunchKernelEx stream S center_halves_f32 tier 90 blocks 9 threads 256 shared 33024",
    PRODUCT,
    PRODUCT,
    PRODUCT,
    PRODUCT,
    PRODUCT,
    "cuLaunchKernelEx stream S write_halves_f32 tier 90 blocks 9 threads 256 shared 98304",
    "cuMemFreeAsync stream S W",
];
const PRODUCT: &str = "cuLaunchKernelEx stream S product_halves tier 90 blocks 9 threads 256 shared 98304";

/// What is asked for once for a context, and the launches instead of those.
const ASKED: [&str; 6] = [
    "cuModuleGetFunction cluster_halves_f32",
    "cuFuncSetAttribute cluster_halves_f32 8 49184",
    "cuFuncSetAttribute cluster_halves_f32 8 98336",
    "cuFuncSetAttribute cluster_halves_f32 14 1",
    "cuModuleGetFunction read_halves_f32",
    "cuFuncSetAttribute read_halves_f32 8 102592",
];
const CLUSTERS: [&str; 2] = [
    "cuLaunchKernelEx stream S read_halves_f32 tier 90 blocks 9 clusters of 3 threads 256 shared 12480",
    "cuLaunchKernelEx stream S cluster_halves_f32 tier 90 blocks 9 clusters of 3 threads 256 shared 98336",
];

#[test]
#[ignore = "run by kernels_on_the_stub"]
fn calls_with_clusters() {
    let (kernel, stream) = (kernel().expect("a device"), stream());
    log();
    let kernel = kernel.with_clusters().expect("the context is there");
    assert_eq!(calls(stream)[..ASKED.len()], ASKED);
    try_out(&kernel, stream).expect("the stub launches everything");
    let mut expected = CALLS.to_vec();
    expected.splice(1..9, CLUSTERS);
    assert_eq!(calls(stream), expected);
    // Where some samples would have to wait for others, each product has its launch.
    let (data, dims) = input(kernel.layer(), (7, 70, 90));
    run(&kernel, ElementType::Float, (&data, &dims), stream).expect("the stub launches everything");
    assert!(!calls(stream).iter().any(|line| line.contains("cluster_halves")));
}

#[test]
#[ignore = "run by kernels_on_the_stub"]
fn little_shared_memory() {
    let stream = stream();
    let kernel = kernel().expect("a device").with_clusters().expect("the context is there");
    let gpu = Gpu::current().expect("a device");
    assert_eq!((gpu.clusters, gpu.reading_clusters), (16, 16));
    // Clusters read as many positions as there is room for, and multiply whatever the positions.
    for (positions, reads) in [(768, true), (769, false)] {
        let (data, dims) = input(kernel.layer(), (1, 70, positions));
        log();
        let found =
            run(&kernel, ElementType::Float, (&data, &dims), stream).expect("the stub launches everything");
        compare(kernel.layer(), ElementType::Float, (&data, &dims), &found);
        let calls = calls(stream);
        let launched = |name| calls.iter().any(|line| line.contains("cuLaunch") && line.contains(name));
        assert_eq!(launched(" read_halves_f32 "), reads, "{positions}: {calls:#?}");
        assert!(launched(" cluster_halves_f32 "), "{positions}: {calls:#?}");
    }

    // Nor is there room for a chain's places.
    let kernel = self::kernel().expect("a device");
    let (data, dims) = input(kernel.layer(), (1, 70, 64));
    let found =
        run(&kernel, ElementType::Float, (&data, &dims), stream).expect("the stub launches everything");
    compare(kernel.layer(), ElementType::Float, (&data, &dims), &found);
    let chain =
        calls(stream).into_iter().find(|line| line.contains("cuLaunch") && line.contains(" chain_halves "));
    assert!(chain.as_ref().is_some_and(|line| line.ends_with(" shared 98304")), "{chain:?}");
}
