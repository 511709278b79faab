//! The CUDA kernels with nothing but a driver: `cargo run --release -p isqrt-cov-op --example gpu`.
//!
//! Computes the layer at many sizes and in every type, on fresh inputs and into poisoned outputs, compares with float64, and times it.
//! What the driver is told goes through the same `Kernel` that the plugin uses. Exit status 1: something was wrong.
//!
//! ```text
//! gpu [--quick] [--size C/M] [--batch N] [--type NAME] [--once] [--seconds S] [--seed N]
//!     --quick    small sizes, every operator and type, and no times: for compute-sanitizer
//!     --size, --batch, --type    only that; each may be given several times
//!     --once     a single run of each, and one with clusters, unchecked: for a profiler
//! ```
#![allow(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::ExitCode;
use std::ptr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cudarc::driver::sys;
use half::{bf16, f16};
use isqrt_cov_op::cuda::{ElementType, Gpu, Kernel};
use isqrt_cov_op::{Layer, Layout, OperatorKind, Vectorization, cpu, reference};

const TYPES: [(ElementType, &str, f64); 4] = [
    (ElementType::Float, "float32", 3e-6),
    (ElementType::Float16, "float16", 8e-4),
    (ElementType::BFloat16, "bfloat16", 6e-3),
    (ElementType::Double, "float64", 1e-12),
];
/// C, M and N that are checked, around the kernels' tiles.
const QUICK: [(usize, usize, usize); 8] =
    [(1, 5, 2), (3, 4, 2), (20, 12, 3), (33, 31, 2), (48, 70, 2), (64, 49, 3), (70, 66, 2), (130, 40, 1)];
/// More in float32: of more samples than any device has multiprocessors for, so that its blocks keep less in shared memory; and where one product has 20
/// tiles, which is more than a cluster's blocks, while no other has more than the output's 15, so that blocks have two of them in turn.
const SPECIAL: [(usize, usize, usize); 2] = [(170, 6, 320), (260, 193, 2)];
/// C and M that are timed.
const SIZES: [(usize, usize); 6] = [(256, 196), (256, 49), (128, 196), (64, 784), (512, 196), (2048, 49)];
const BATCHES: [usize; 4] = [1, 8, 32, 128];
/// From this many channels on, the CPU's kernel in float64 stands in for the reference, which takes seconds a sample.
const LARGE: usize = 300;
/// Samples of a batch that are compared: the first and the last ones.
const COMPARED: usize = 3;
/// Runs after the first one that are to give its bits, without clusters and with them.
const AGAIN: usize = 3;
/// Larger outputs are not worth the time that they take to be brought back.
const MOST_OUTPUTS: usize = 1 << 28;
/// Around every output.
const GUARD: usize = 256;
const POISON: u8 = 0xff;

fn main() -> ExitCode {
    let options = Options::parse();
    let begin = Instant::now();
    let gpu = Card::new();
    let found = Gpu::current().expect("the kernels load");
    println!(
        "{}, seed {}, clusters of {} blocks, of {} to read",
        found.name, options.seed, found.clusters, found.reading_clusters
    );
    let mut random = Random(options.seed);
    // Those of data centers have them: without, nothing below would try them.
    let lacks_clusters =
        matches!(found.capability, (9 | 10, _)) && found.clusters.min(found.reading_clusters) < 2;
    if lacks_clusters {
        println!("FAILED: a GPU of its kind has clusters of blocks, and the driver knows of none");
    }
    let mut wrong = usize::from(lacks_clusters);
    if !options.once {
        wrong += usize::from(!first_call_is_captured(&gpu, &mut random));
    }
    let types: Vec<_> = TYPES
        .into_iter()
        .filter(|(_, name, _)| options.types.is_empty() || options.types.iter().any(|t| t == name))
        .collect();
    if options.sizes.is_empty() && !options.once {
        for &(element, name, limit) in &types {
            wrong += check_small(&gpu, element, name, limit, &mut random);
        }
    }
    let quick = options.quick && options.sizes.is_empty();
    let sizes = if options.sizes.is_empty() { SIZES.to_vec() } else { options.sizes.clone() };
    let batches = if options.batches.is_empty() { BATCHES.to_vec() } else { options.batches.clone() };
    for &(element, name, limit) in types.iter().filter(|_| !quick) {
        for &(channels, positions) in &sizes {
            for &batch in &batches {
                // The other types' times are wanted at the published size only.
                let wanted = element == ElementType::Float || batch == 32 || !options.types.is_empty();
                let outputs = batch.saturating_mul(channels * channels);
                if !wanted || outputs > MOST_OUTPUTS || begin.elapsed() > options.time {
                    continue;
                }
                let dims = [batch, channels, positions];
                // What panics is printed, and does not end the others.
                let case = AssertUnwindSafe(|| measure(&gpu, element, dims, options.once, &mut random));
                let Ok((error, times)) = catch_unwind(case) else {
                    println!("{channels}/{positions} batch {batch} {name}: FAILED");
                    wrong += 1;
                    continue;
                };
                let holds = error <= limit;
                println!(
                    "{channels}/{positions} batch {batch} {name}: error {error:.1e}{times}{}",
                    if holds { "" } else { " FAILED" }
                );
                wrong += usize::from(!holds);
            }
        }
    }
    println!("{}", if wrong == 0 { "all is right".to_owned() } else { format!("{wrong} FAILED") });
    if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The error at a size, and what there is to say of the time; with `once`, the layer is only run.
fn measure(
    gpu: &Card,
    element: ElementType,
    dims: [usize; 3],
    once: bool,
    random: &mut Random,
) -> (f64, String) {
    let run = Run::new(gpu, Layer::new(OperatorKind::IsqrtCov), element, &dims, random);
    if once {
        run.start();
        run.start_by(&run.clusters);
        gpu.wait();
        return (0.0, ", not looked at".to_owned());
    }
    let error = run.error();
    let first = run.output.bytes();
    let graphs = [&run.kernel, &run.clusters].map(|kernel| gpu.captured(|| run.start_by(kernel)));
    let times = run.times(graphs);
    // After they were replayed many times.
    let same = graphs.into_iter().all(|graph| run.gives(&first, || gpu.replay(graph)));
    (if same { error } else { f64::INFINITY }, times)
}

/// Whether a graph gives what a run does though nothing has run before it was captured.
fn first_call_is_captured(gpu: &Card, random: &mut Random) -> bool {
    let case = AssertUnwindSafe(|| {
        let dims = [3, 70, 90];
        let run = Run::new(gpu, Layer::new(OperatorKind::IsqrtCov), ElementType::Float, &dims, random);
        let graph = gpu.captured(|| run.start());
        let replayed = run.written(|| gpu.replay(graph));
        run.gives(&replayed, || run.start())
    });
    let holds = catch_unwind(case).unwrap_or(false);
    println!("a graph of the first call: {}", if holds { "the same bits" } else { "FAILED" });
    holds
}

/// Every operator at small sizes. Returns how many were wrong.
fn check_small(gpu: &Card, element: ElementType, name: &str, limit: f64, random: &mut Random) -> usize {
    let mut layers = Vec::new();
    for operator in [OperatorKind::IsqrtCov, OperatorKind::CovariancePooling, OperatorKind::MatrixSqrt] {
        layers.push(Layer::new(operator));
    }
    layers.push(Layer {
        vectorization: Vectorization::None,
        epsilon: 1e-3,
        ..Layer::new(OperatorKind::IsqrtCov)
    });
    layers.push(Layer {
        vectorization: Vectorization::UpperColumnMajor,
        layout: Layout::ChannelsLast,
        iterations: 3,
        ..Layer::new(OperatorKind::IsqrtCov)
    });
    let (mut count, mut wrong, mut worst) = (0, 0, 0.0_f64);
    for (number, layer) in layers.into_iter().enumerate() {
        let special = (number == 0 && element == ElementType::Float).then_some(SPECIAL);
        for (channels, positions, samples) in QUICK.into_iter().chain(special.into_iter().flatten()) {
            let dims = match (layer.operator, layer.layout) {
                (OperatorKind::MatrixSqrt, _) => [samples, channels, channels],
                (_, Layout::ChannelsFirst) => [samples, channels, positions],
                (_, Layout::ChannelsLast) => [samples, positions, channels],
            };
            let case = AssertUnwindSafe(|| Run::new(gpu, layer, element, &dims, random).error());
            let error = catch_unwind(case).unwrap_or(f64::NAN);
            count += 1;
            worst = worst.max(error);
            // NaN is wrong too.
            if error.is_nan() || error > limit {
                println!("    FAILED: {layer} {name} {dims:?}: error {error:.1e}");
                wrong += 1;
            }
        }
    }
    println!("{name}: {count} small cases, greatest error {worst:.1e}, {wrong} wrong");
    wrong
}

/// A layer on an input that lies on the device.
struct Run<'a> {
    gpu: &'a Card,
    kernel: Kernel,
    /// The same with clusters, where the device has them.
    clusters: Kernel,
    element: ElementType,
    dims: [usize; 3],
    /// The input's numbers as the type rounds them.
    numbers: Vec<f64>,
    input: Memory,
    /// With a guard before and one behind.
    output: Memory,
    outputs: usize,
}

impl<'a> Run<'a> {
    fn new(
        gpu: &'a Card,
        layer: Layer,
        element: ElementType,
        dims: &[usize; 3],
        random: &mut Random,
    ) -> Self {
        let extent = layer.extent(dims).expect("the sizes are legal");
        let numbers = match layer.operator {
            OperatorKind::MatrixSqrt => random.matrices(extent.samples, extent.channels),
            _ => (0..dims.iter().product()).map(|_| random.normal()).collect(),
        };
        let (bytes, numbers) = encode(element, &numbers);
        let outputs = layer.output_elements(extent.channels) * extent.samples;
        let output = Memory::new(outputs * element.bytes() + 2 * GUARD);
        let [kernel, clusters] = [(); 2].map(|()| Kernel::new(layer).expect("the kernels load"));
        let clusters = clusters.with_clusters().expect("the kernels have loaded");
        let (dims, input) = (*dims, Memory::holding(&bytes));
        Self { gpu, kernel, clusters, element, dims, numbers, input, output, outputs }
    }

    /// Puts the layer on the stream.
    fn start(&self) {
        self.start_by(&self.kernel);
    }

    fn start_by(&self, kernel: &Kernel) {
        let output = self.output.address + GUARD as u64;
        let stream = self.gpu.stream.cast();
        // SAFETY: the stream lives as long as the process; input and output are as large as `dims` says, and apart.
        let done = unsafe { kernel.run(self.element, self.input.address, &self.dims, output, stream) };
        done.expect("the layer runs");
    }

    /// The greatest difference from float64, relative to the greatest entry; infinite where something else was written, or
    /// an element was not.
    fn error(&self) -> f64 {
        let bytes = self.written(|| self.start());
        let (before, rest) = bytes.split_at(GUARD);
        let (output, behind) = rest.split_at(self.outputs * self.element.bytes());
        if before.iter().chain(behind).any(|&byte| byte != POISON) {
            println!("    something beside the output was written");
            return f64::INFINITY;
        }
        let output = decode(self.element, output);
        if output.iter().any(|number| number.is_nan()) {
            println!("    an element was not written, or is NaN");
            return f64::INFINITY;
        }
        for kernel in [&self.kernel; AGAIN].into_iter().chain([&self.clusters; AGAIN]) {
            if !self.gives(&bytes, || self.start_by(kernel)) {
                return f64::INFINITY;
            }
        }
        let layer = self.kernel.layer();
        let [samples, ..] = self.dims;
        let (inputs, outputs) = (self.numbers.len() / samples, self.outputs / samples);
        let mut greatest = 0.0_f64;
        for sample in (0..samples).filter(|&sample| sample == 0 || sample + COMPARED > samples) {
            let x = &self.numbers[sample * inputs..][..inputs];
            let dims = [1, self.dims[1], self.dims[2]];
            let expected = if self.dims[1].min(self.dims[2]) == 1 || self.dims[1] < LARGE && sample == 0 {
                reference::evaluate(layer, x, &dims).expect("the sizes are legal")
            } else {
                let mut expected = vec![0.0; outputs];
                cpu::Kernel::new(*layer)
                    .run(x, &dims, &mut expected, &cpu::Serial)
                    .expect("the sizes are legal");
                expected
            };
            let largest = expected.iter().fold(f64::MIN_POSITIVE, |largest, entry| largest.max(entry.abs()));
            for (found, expected) in output[sample * outputs..].iter().zip(&expected) {
                greatest = greatest.max((found - expected).abs() / largest);
            }
        }
        greatest
    }

    /// The output, and what is beside it, after what `work` puts on the stream. It is poisoned before: what an earlier run has left would
    /// pass for what this one leaves out.
    fn written(&self, work: impl FnOnce()) -> Vec<u8> {
        self.output.poison(self.gpu);
        work();
        self.gpu.wait();
        self.output.bytes()
    }

    /// Whether `work` writes the same as the first run, and all of it.
    fn gives(&self, first: &[u8], work: impl FnOnce()) -> bool {
        let same = self.written(work) == first;
        if !same {
            println!("    other bits when it runs again");
        }
        same
    }

    /// How long it takes, in words: one behind the other, waited for, captured in a graph and replayed, and that with clusters, as a share of the
    /// time without.
    fn times(&self, [graph, clusters]: [sys::CUgraphExec; 2]) -> String {
        let [samples, channels, positions] = self.dims;
        let waited = || {
            self.start();
            self.gpu.wait();
        };
        let [replayed, clustered] = [graph, clusters].map(|graph| move || self.gpu.replay(graph));
        let [plain, waited, captured, clusters] =
            self.medians([&|| self.start(), &waited, &replayed, &clustered]);
        let kernel = cpu::Kernel::new(*self.kernel.layer());
        let operations = kernel.operations::<f32>(&[1, channels, positions]).expect("the sizes are legal");
        let rate = operations * samples as f64 / captured.min(plain) / 1e6;
        let share = clusters / captured;
        format!(
            ", {plain:.1} us, {waited:.1} waited, {captured:.1} captured, {clusters:.1} with clusters ({share:.2}); {rate:.2} TFLOP/s"
        )
    }

    /// The median time of each work, in turns, in microseconds.
    fn medians<const N: usize>(&self, works: [&dyn Fn(); N]) -> [f64; N] {
        let once = |work: &dyn Fn(), runs: u32| {
            let start = Instant::now();
            (0..runs).for_each(|_| work());
            self.gpu.wait();
            start.elapsed().as_secs_f64() / f64::from(runs)
        };
        let runs = works.map(|work| {
            once(work, 2);
            (0.01 / once(work, 1)).clamp(1.0, 100.0) as u32
        });
        let mut times = [const { Vec::new() }; N];
        for _ in 0..9 {
            for ((work, runs), times) in works.iter().zip(runs).zip(&mut times) {
                times.push(once(work, runs));
            }
        }
        times.map(|mut times: Vec<f64>| {
            times.sort_by(f64::total_cmp);
            1e6 * times[times.len() / 2]
        })
    }
}

/// The first device's context, with a stream.
struct Card {
    stream: sys::CUstream,
}

impl Card {
    fn new() -> Self {
        let (mut device, mut context, mut stream) = (0, ptr::null_mut(), ptr::null_mut());
        // SAFETY: each call writes what its pointer has room for.
        unsafe {
            assert!(sys::is_culib_present(), "there is no NVIDIA driver on this machine");
            ok(sys::cuInit(0));
            ok(sys::cuDeviceGet(&raw mut device, 0));
            ok(sys::cuDevicePrimaryCtxRetain(&raw mut context, device));
            ok(sys::cuCtxSetCurrent(context));
            ok(sys::cuStreamCreate(&raw mut stream, sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32));
        }
        Self { stream }
    }

    fn wait(&self) {
        // SAFETY: the stream is alive.
        ok(unsafe { sys::cuStreamSynchronize(self.stream) });
    }

    /// What `work` puts on the stream, as a graph.
    fn captured(&self, work: impl Fn()) -> sys::CUgraphExec {
        let (mut graph, mut ready) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: the stream is alive, and each call writes a handle. The graphs are never freed.
        unsafe {
            ok(sys::cuStreamBeginCapture_v2(
                self.stream,
                sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL,
            ));
            let done = catch_unwind(AssertUnwindSafe(work));
            // Also where it failed: a thread that captures may do little else.
            let ended = sys::cuStreamEndCapture(self.stream, &raw mut graph);
            done.unwrap_or_else(|panic| resume_unwind(panic));
            ok(ended);
            ok(sys::cuGraphInstantiateWithFlags(&raw mut ready, graph, 0));
        }
        ready
    }

    fn replay(&self, graph: sys::CUgraphExec) {
        // SAFETY: `captured` made it, and what it reads and writes is still there.
        ok(unsafe { sys::cuGraphLaunch(graph, self.stream) });
    }
}

/// Memory on the device.
struct Memory {
    address: sys::CUdeviceptr,
    size: usize,
}

impl Memory {
    fn new(size: usize) -> Self {
        let mut address = 0;
        // SAFETY: the call writes an address.
        ok(unsafe { sys::cuMemAlloc_v2(&raw mut address, size) });
        Self { address, size }
    }

    fn holding(bytes: &[u8]) -> Self {
        let memory = Self::new(bytes.len());
        // SAFETY: the memory is as large as what is copied there. From pageable memory the copy may return before it is over, and the stream does
        // not wait for the default one, on which it is.
        unsafe {
            ok(sys::cuMemcpyHtoD_v2(memory.address, bytes.as_ptr().cast(), bytes.len()));
            ok(sys::cuCtxSynchronize());
        }
        memory
    }

    /// In the order of the card's stream.
    fn poison(&self, gpu: &Card) {
        // SAFETY: it is of this size, and the stream is alive.
        ok(unsafe { sys::cuMemsetD8Async(self.address, POISON, self.size, gpu.stream) });
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.size];
        // SAFETY: both are of this size.
        ok(unsafe { sys::cuMemcpyDtoH_v2(bytes.as_mut_ptr().cast(), self.address, self.size) });
        bytes
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: it was allocated, and the device is done with it: freeing waits. A failure was seen before.
        let _ = unsafe { sys::cuMemFree_v2(self.address) };
    }
}

#[track_caller]
fn ok(result: sys::CUresult) {
    assert_eq!(result, sys::CUresult::CUDA_SUCCESS);
}

/// Numbers as the type has them: their bytes, and what they are rounded to.
fn encode(element: ElementType, numbers: &[f64]) -> (Vec<u8>, Vec<f64>) {
    let bytes: Vec<u8> = match element {
        ElementType::Float => numbers.iter().flat_map(|&number| (number as f32).to_ne_bytes()).collect(),
        ElementType::Double => numbers.iter().flat_map(|number| number.to_ne_bytes()).collect(),
        ElementType::Float16 => {
            numbers.iter().flat_map(|&number| f16::from_f64(number).to_ne_bytes()).collect()
        }
        ElementType::BFloat16 => {
            numbers.iter().flat_map(|&number| bf16::from_f64(number).to_ne_bytes()).collect()
        }
    };
    let rounded = decode(element, &bytes);
    (bytes, rounded)
}

fn decode(element: ElementType, bytes: &[u8]) -> Vec<f64> {
    let (whole, _) = bytes.as_chunks::<2>();
    match element {
        ElementType::Float => {
            bytes.as_chunks().0.iter().map(|&unit| f32::from_ne_bytes(unit).into()).collect()
        }
        ElementType::Double => bytes.as_chunks().0.iter().map(|&unit| f64::from_ne_bytes(unit)).collect(),
        ElementType::Float16 => whole.iter().map(|&unit| f16::from_ne_bytes(unit).to_f64()).collect(),
        ElementType::BFloat16 => whole.iter().map(|&unit| bf16::from_ne_bytes(unit).to_f64()).collect(),
    }
}

/// Numbers by a linear congruence.
struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// About normally distributed.
    fn normal(&mut self) -> f64 {
        (0..4).map(|_| self.uniform() - 0.5).sum::<f64>() * 1.7
    }

    /// Symmetric matrices with eigenvalues above zero.
    fn matrices(&mut self, samples: usize, side: usize) -> Vec<f64> {
        let mut matrices = Vec::new();
        for _ in 0..samples {
            let rows: Vec<Vec<f64>> =
                (0..side).map(|_| (0..side + 8).map(|_| self.normal()).collect()).collect();
            for left in &rows {
                matrices.extend(
                    rows.iter()
                        .map(|right| left.iter().zip(right).map(|(a, b)| a * b).sum::<f64>() / side as f64),
                );
            }
        }
        matrices
    }
}

/// What the command line asks for.
struct Options {
    quick: bool,
    once: bool,
    sizes: Vec<(usize, usize)>,
    batches: Vec<usize>,
    types: Vec<String>,
    time: Duration,
    seed: u64,
}

impl Options {
    fn parse() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_nanos() as u64);
        let mut options = Self {
            quick: false,
            once: false,
            sizes: Vec::new(),
            batches: Vec::new(),
            types: Vec::new(),
            time: Duration::MAX,
            seed: now % 1_000_000_007,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} needs a value"));
            match argument.as_str() {
                "--quick" => options.quick = true,
                "--once" => options.once = true,
                "--size" => {
                    options.sizes.push(size(&value()).expect("a size is written C/M, such as 256/196"));
                }
                "--batch" => options.batches.push(value().parse().expect("a batch is a number")),
                "--type" => options.types.push(value()),
                "--seconds" => {
                    options.time = Duration::from_secs(value().parse().expect("seconds are a number"));
                }
                "--seed" => options.seed = value().parse().expect("a seed is a number"),
                _ => panic!(
                    "{argument} is no option: --quick, --once, --size, --batch, --type, --seconds, --seed"
                ),
            }
        }
        options
    }
}

/// C and M as written.
fn size(text: &str) -> Option<(usize, usize)> {
    let (channels, positions) = text.split_once('/')?;
    Some((channels.parse().ok()?, positions.parse().ok()?))
}
