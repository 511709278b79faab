//! The CPU kernels' speed on one thread: `cargo bench -p isqrt-cov-op`, with `-- 256/196` for one size only.
//!
//! Prints for each size the least and the median time of a sample, and the rate on the operations that the layer needs at
//! least in the form that runs (a multiplication and an addition count as two, a symmetric product as half of a product).

use std::time::{Duration, Instant};

use isqrt_cov_op::cpu::{Kernel, Serial};
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
    println!("{:>5} {:>5} {:>5} {:>10} {:>10} {:>8}", "C", "M", "batch", "least ms", "median ms", "GFLOP/s");
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    for (channels, positions, batch) in SIZES {
        if !wanted.is_empty() && !wanted.contains(&format!("{channels}/{positions}")) {
            continue;
        }
        let kernel = Kernel::new(Layer::new(OperatorKind::IsqrtCov));
        let dims = [1, channels, positions];
        let elements = channels * positions;
        let mut state = 1_u32;
        let mut number = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32
        };
        let input: Vec<f32> = (0..batch * elements).map(|_| number()).collect();
        let mut output = vec![0.0_f32; batch * channels * (channels + 1) / 2];
        let mut times = Vec::new();
        let begin = Instant::now();
        while begin.elapsed() < TIME {
            // Sample by sample, so that a moment's disturbance spoils one time and not the batch's.
            let outputs = output.chunks_exact_mut(channels * (channels + 1) / 2);
            for (input, output) in input.chunks_exact(elements).zip(outputs) {
                let start = Instant::now();
                kernel.run(input, &dims, output, &Serial).expect("the sizes are legal");
                times.push(start.elapsed().as_secs_f64());
            }
        }
        times.sort_by(f64::total_cmp);
        let (least, median) = (times[0], times[times.len() / 2]);
        println!(
            "{channels:>5} {positions:>5} {batch:>5} {:>10.4} {:>10.4} {:>8.1}",
            least * 1e3,
            median * 1e3,
            operations(channels as f64, positions as f64) / least / 1e9
        );
    }
}

/// The operations of the cheaper form with K = 5 in five products.
fn operations(c: f64, m: f64) -> f64 {
    let direct = c * c * m + 6.0 * c * c * c;
    let gram = m * m * c + 5.0 * m * m * m + 2.0 * m * m * c + c * c * m;
    direct.min(gram)
}
