//! A target for libFuzzer.

pub use isqrt_cov_fuzz;

use fastrand::Rng;
use isqrt_cov_fuzz::Target;

/// Gives libFuzzer the target of this name.
#[macro_export]
macro_rules! fuzz {
    ($name:literal) => {
        use std::sync::LazyLock;

        use $crate::isqrt_cov_fuzz::Target;

        static TARGET: LazyLock<Target> = LazyLock::new(|| Target::named($name).expect("a target"));

        libfuzzer_sys::fuzz_target!(
            init: $crate::begin(&TARGET),
            |input: &[u8]| {
                let _peak = TARGET.run(input);
            }
        );

        libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
            $crate::mutate(&TARGET, data, size, max_size, seed)
        });
    };
}

/// Makes ready for `target`; with `SEEDS` in the environment lists its seeds, one after the other, and ends the process.
pub fn begin(target: &Target) {
    if std::env::var_os("SEEDS").is_some() {
        let seeds = target.seeds().into_iter().step_by(target.one_of).chain(target.findings());
        let seeds: Vec<String> = seeds.map(|seed| seed.display().to_string()).collect();
        println!("{}", seeds.join(","));
        std::process::exit(0);
    }
    // libFuzzer's own hook ends the process at every panic, also at one that is caught.
    drop(std::panic::take_hook());
}

/// Changes the first `size` bytes of `data`, and returns how many bytes there are then.
pub fn mutate(
    target: &isqrt_cov_fuzz::Target,
    data: &mut [u8],
    size: usize,
    max_size: usize,
    seed: u32,
) -> usize {
    let mut input = data[..size].to_vec();
    let mut random = Rng::with_seed(seed.into());
    target.mutate(&mut input, &mut random, &mut |input, _| {
        let size = input.len();
        input.resize(size.max(max_size), 0);
        let size = libfuzzer_sys::fuzzer_mutate(input, size, max_size);
        input.truncate(size);
    });
    input.truncate(max_size);
    data[..input.len()].copy_from_slice(&input);
    input.len()
}
