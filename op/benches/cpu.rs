//! The CPU kernels' speed on one thread: `cargo bench -p isqrt-cov-op`, with `-- 256/196` for one size only, with
//! `-- --version AVX2` in another version than the fastest (`AVX-512`, `AVX2`, `portable`).
//!
//! Prints for each size the least and the median time of a sample in microseconds, and the rate on the operations that the
//! layer needs at least in the form that runs (a multiplication and an addition count as two, a symmetric product as half of a
//! product), also as a share of the peak, and the workspace in KiB.
//!
//! `-- --json 256/196 …` prints the peak and the sizes' operations instead, for `tests/benchmark`.

use std::time::{Duration, Instant};

use isqrt_cov_op::cpu::{Kernel, Serial, Version, saturate};
use isqrt_cov_op::{Layer, OperatorKind};

/// C, M and the batch.
const SIZES: [(usize, usize, usize); 8] = [
    (256, 196, 8),
    (256, 49, 8),
    (128, 196, 8),
    (64, 784, 8),
    (512, 196, 8),
    (2048, 49, 1),
    (2048, 196, 1),
    (64, 3136, 8),
];

/// How long each size is measured.
const TIME: Duration = Duration::from_millis(1500);

fn main() {
    let (mut json, mut wanted, mut version) = (false, Vec::new(), Version::best());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            // Cargo's own.
            "--bench" => {}
            "--json" => json = true,
            "--version" => {
                let name = arguments.next().expect("--version is followed by a name");
                version = Version::available()
                    .find(|version| version.name() == name)
                    .unwrap_or_else(|| panic!("this CPU has no version {name}"));
            }
            size => wanted.push(parse(size).expect("a size is written C/M, such as 256/196")),
        }
    }
    if wanted.is_empty() {
        wanted = SIZES.iter().map(|&(channels, positions, _)| (channels, positions)).collect();
    }
    if json {
        print_json(version, &wanted);
    } else {
        print_table(version, &wanted);
    }
}

/// C and M as written.
fn parse(size: &str) -> Option<(usize, usize)> {
    let (channels, positions) = size.split_once('/')?;
    Some((channels.parse().ok()?, positions.parse().ok()?))
}

fn print_table(version: Version, sizes: &[(usize, usize)]) {
    let (peak, kernel) = (peak(version), kernel(version));
    println!("{}, peak {peak:.1} GFLOP/s", version.name());
    println!(
        "{:>5} {:>5} {:>5} {:>10} {:>10} {:>8} {:>7} {:>9}",
        "C", "M", "batch", "least µs", "median µs", "GFLOP/s", "of peak", "KiB"
    );
    for &(channels, positions) in sizes {
        let known = SIZES.iter().find(|&&(c, m, _)| (c, m) == (channels, positions));
        let batch = known.map_or(1, |&(.., batch)| batch);
        let times = times(&kernel, channels, positions, batch);
        let (least, median) = (times[0], times[times.len() / 2]);
        let rate = operations(&kernel, channels, positions) / least / 1e9;
        println!(
            "{channels:>5} {positions:>5} {batch:>5} {:>10.2} {:>10.2} {rate:>8.1} {:>5.0} % {:>9}",
            least * 1e6,
            median * 1e6,
            100.0 * rate / peak,
            kernel.workspace::<f32>(&[1, channels, positions]).expect("the sizes are small") / 1024
        );
    }
}

fn print_json(version: Version, sizes: &[(usize, usize)]) {
    let kernel = kernel(version);
    let sizes: Vec<_> = sizes
        .iter()
        .map(|&(channels, positions)| {
            let operations = operations(&kernel, channels, positions);
            format!(r#"{{"channels":{channels},"positions":{positions},"operations":{operations}}}"#)
        })
        .collect();
    println!(
        r#"{{"instructions":"{}","peak":{},"sizes":[{}]}}"#,
        version.name(),
        peak(version),
        sizes.join(",")
    );
}

/// The sorted seconds that the layer takes for a sample.
fn times(kernel: &Kernel, channels: usize, positions: usize, batch: usize) -> Vec<f64> {
    let dims = [1, channels, positions];
    let elements = channels * positions;
    let outputs = kernel.layer().output_elements(channels);
    let mut state = 1_u32;
    let mut number = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32
    };
    let input: Vec<f32> = (0..batch * elements).map(|_| number()).collect();
    let mut output = vec![0.0_f32; batch * outputs];
    let mut times = Vec::new();
    let begin = Instant::now();
    while begin.elapsed() < TIME {
        // Sample by sample, so that a moment's disturbance spoils one time and not the batch's.
        for (input, output) in input.chunks_exact(elements).zip(output.chunks_exact_mut(outputs)) {
            let start = Instant::now();
            kernel.run(input, &dims, output, &Serial).expect("the sizes are legal");
            times.push(start.elapsed().as_secs_f64());
        }
    }
    times.sort_by(f64::total_cmp);
    times
}

/// The rate of the products' innermost kernel, in 10⁹ operations a second.
fn peak(version: Version) -> f64 {
    let mut greatest = 0.0_f64;
    let begin = Instant::now();
    while begin.elapsed() < TIME {
        let start = Instant::now();
        let operations = saturate(version, 100);
        greatest = greatest.max(operations as f64 / start.elapsed().as_secs_f64());
    }
    greatest / 1e9
}

/// The layer with its default attributes.
fn kernel(version: Version) -> Kernel {
    Kernel::with_version(Layer::new(OperatorKind::IsqrtCov), version)
}

/// The operations of the layer on a sample.
fn operations(kernel: &Kernel, channels: usize, positions: usize) -> f64 {
    kernel.operations::<f32>(&[1, channels, positions]).expect("the sizes are legal")
}
