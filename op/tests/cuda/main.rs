//! The CUDA kernels and the code that launches them, without a GPU: the kernels' sources compiled as C++ against a shim, behind
//! a stub of the driver. `shim.hpp` and `driver.cpp` say how.
//!
//! The crate finds the driver's library by itself, so that the stub has to be there when a process starts: the one test that runs by
//! default builds the stub and starts this program again, once for each tier of the kernels, with the tests that are marked as
//! ignored.
#![cfg(target_os = "linux")]
#![allow(unsafe_code)]

mod bits;
mod device;
mod numbers;
mod samples;

use std::path::Path;
use std::process::Command;

/// Devices: compute capability, multiprocessors, and which tests to run there. One for every tier; and one where samples get
/// clusters of few blocks, and of fewer the more samples there are.
const DEVICES: [(&str, &str, &str); 4] =
    [("7.5", "40", ""), ("8.0", "108", ""), ("9.0", "132", ""), ("9.0", "3", "bits::")];

#[test]
fn kernels_on_the_stub() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cuda");
    let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cuda/build");
    let built = Command::new(build).arg(&folder).output().expect("bash runs the script that builds the stub");
    assert!(built.status.success(), "the stub was not built:\n{}", String::from_utf8_lossy(&built.stderr));
    for (capability, multiprocessors, tests) in DEVICES {
        let program = std::env::current_exe().expect("a test has a path");
        let status = Command::new(program)
            .args(["--ignored", tests])
            .env("LD_LIBRARY_PATH", &folder)
            .env("ISQRT_STUB_CAPABILITY", capability)
            .env("ISQRT_STUB_MULTIPROCESSORS", multiprocessors)
            .status()
            .expect("this program starts");
        assert!(
            status.success(),
            "compute capability {capability}, {multiprocessors} multiprocessors: {status}"
        );
    }
}
