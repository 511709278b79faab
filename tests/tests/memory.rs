//! Memory that is not there: an error status, after which the session runs as before.
#![cfg(target_os = "linux")]

use std::process::Command;

use isqrt_cov_tests::{Element, Python, Runtime, Tensor, library, model};

/// The release whose shared library is loaded: older ones' wheels have none.
const RELEASE: &str = "1.32.0";

/// What is left of the address space, in bytes, beside what is in use.
const LEFT: u64 = 160 << 20;

/// Limits this process's address space, where that can be done.
fn limit(bytes: &str) -> bool {
    let own = std::process::id().to_string();
    let ran = Command::new("prlimit").args(["--pid", &own, &format!("--as={bytes}:unlimited")]).status();
    ran.is_ok_and(|status| status.success())
}

/// The size of this process's address space in bytes.
fn in_use() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status.lines().find_map(|line| line.strip_prefix("VmSize:")).expect("it has the size");
    let kibibytes = line.trim().trim_end_matches(" kB");
    kibibytes.parse::<u64>().expect("it is a number") << 10
}

#[test]
fn what_cannot_be_allocated_is_an_error_status() {
    let Some(python) = Python::installed(RELEASE) else { return };
    let runtime = Runtime::load(&python.shared_library()).expect("the runtime loads");
    let session = runtime.session(&model("unnamed_axes.onnx"), &[&library()], 2).expect("the model loads");
    let tensor = |shape: &[usize]| {
        let values: Vec<f64> = (0..shape.iter().product()).map(|index: usize| (index % 7) as f64).collect();
        Tensor::new(Element::Float, shape.to_vec(), &values)
    };
    let few = tensor(&[2, 8, 5]);
    let expected = session.run(std::slice::from_ref(&few)).expect("there is room for this");
    for (shape, said) in [
        // 2 TiB of output.
        (&[1, 1 << 20, 1][..], "llocat"),
        // More elements of output than 64 bits count.
        (&[0, 1 << 32, 1], "fewer channels"),
        (&[0, usize::MAX >> 1, 1], "fewer channels"),
        // 32 MiB of output, for which there is room, and matrices of 64 MiB, for which there is none.
        (&[1, 4096, 4096], "no memory for the workspace"),
    ] {
        let input = tensor(shape);
        if !limit(&(in_use() + LEFT).to_string()) {
            use std::io::Write as _;
            let note = "NOT TESTED: memory that is not there, because prlimit is missing";
            writeln!(std::io::stderr(), "{note}").expect("standard error is open");
            return;
        }
        let outcome = session.run(&[input]);
        assert!(limit("unlimited"));
        let error = outcome.expect_err("there is no room for this").to_string();
        assert!(error.contains(said), "{shape:?}: {error}");
        assert_eq!(session.run(std::slice::from_ref(&few)).expect("the session is as it was"), expected);
    }
}
