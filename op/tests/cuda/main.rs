//! The CUDA kernels and the code that launches them, without a GPU: the kernels' sources compiled as C++ against a shim, behind
//! a stub of the driver. `shim.hpp` and `driver.cpp` say how.
//!
//! The crate finds the driver's library by itself, so that the stub has to be there when a process starts: the one test that runs by
//! default builds the stub and starts this program again, once for each tier of the kernels and for each test of the host's side, with
//! the tests that are marked as ignored.
#![cfg(target_os = "linux")]
#![allow(unsafe_code)]

mod bits;
mod captures;
mod device;
mod host;
mod numbers;
mod samples;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Devices by compute capability, one for every tier.
const DEVICES: [&str; 3] = ["7.5", "8.0", "9.0"];

#[test]
fn kernels_on_the_stub() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cuda");
    let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cuda/build");
    let built = Command::new(build).arg(&folder).output().expect("bash runs the script that builds the stub");
    assert!(built.status.success(), "the stub was not built:\n{}", String::from_utf8_lossy(&built.stderr));
    let program = std::env::current_exe().expect("a test has a path");
    let start_with = |folders: &[&Path], tests: &[&str], settings: &[(&str, &str)]| {
        let path = std::env::join_paths(folders).expect("a folder without a colon");
        let mut command = Command::new(&program);
        command.arg("--ignored").args(tests).env("LD_LIBRARY_PATH", path);
        command.envs(settings.iter().map(|(name, value)| (format!("ISQRT_STUB_{name}"), value)));
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        (format!("{tests:?} with {settings:?}"), child.expect("this program starts"))
    };
    let start = |tests: &[&str], settings: &[(&str, &str)]| start_with(&[&folder], tests, settings);
    // All at once: the longest test of one leaves processors to others.
    let tests = ["bits::", "numbers::"];
    let mut running: Vec<_> =
        DEVICES.iter().map(|capability| start(&tests, &[("CAPABILITY", capability)])).collect();
    running.extend(
        captures::CASES
            .iter()
            .chain(&host::CASES)
            .map(|(test, settings)| start(&["--exact", test], settings)),
    );
    // CUDA's toolkit has a folder of this name, with a library to link programs with; some make it found at run time too.
    let [beside, alone] =
        [("beside/stubs", "libcuda.so"), ("alone/stubs", "libcuda.so.1")].map(|(name, library)| {
            let stubs = folder.join(name);
            fs::create_dir_all(&stubs).expect("a folder for the toolkit's library");
            fs::copy(folder.join("libcuda.so.1"), stubs.join(library)).expect("there is room for a copy");
            stubs
        });
    running.push(start_with(&[&beside, &folder], &["--exact", "host::a_toolkit_beside_the_driver"], &[]));
    running.push(start_with(&[&alone], &["--exact", "host::a_toolkit_alone"], &[]));
    let mut failed = Vec::new();
    for (what, child) in running {
        let output = child.wait_with_output().expect("a process ends");
        let said = String::from_utf8_lossy(&output.stdout);
        println!("{what}: {}\n{said}{}", output.status, String::from_utf8_lossy(&output.stderr));
        if !output.status.success() || said.contains(" 0 passed") {
            failed.push(what);
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}
