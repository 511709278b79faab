//! The plugin under load, in short: `tests/load/run` does the same a hundred times longer.
#![cfg(target_os = "linux")]

use std::process::Command;

use isqrt_cov_tests::{Python, folder, library};
use serde_json::Value;

/// The release whose shared library is loaded: older ones' wheels have none.
const RELEASE: &str = "1.32.0";

/// What `load/main.rs` saw.
fn load(scenario: &str, count: usize) -> Option<Value> {
    let python = Python::installed(RELEASE)?;
    let run = Command::new(env!("CARGO_BIN_EXE_load"))
        .arg(scenario)
        .args([python.shared_library(), library(), folder().join("models")])
        .arg(count.to_string())
        .output()
        .expect("the program starts");
    let (seen, errors) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{scenario}: {}: {errors}", run.status);
    println!("{seen}");
    Some(serde_json::from_str(&seen).expect("one JSON object"))
}

#[test]
fn sixteen_threads_get_the_bits_of_one_and_memory_does_not_grow() {
    let Some(seen) = load("runs", 20_000) else { return };
    assert_eq!(
        (&seen["runs"], &seen["callers"], &seen["different"]),
        (&20_000.into(), &16.into(), &0.into())
    );
}

#[test]
fn sessions_made_and_destroyed_leave_nothing() {
    let Some(seen) = load("sessions", 300) else { return };
    assert_eq!(seen["sessions"], 300);
}

#[test]
fn the_library_is_opened_again_and_stands_beside_another_version() {
    let Some(seen) = load("libraries", 30) else { return };
    assert_eq!((&seen["stays_in_memory"], &seen["opened_and_closed"]), (&true.into(), &30.into()));
}

#[test]
fn a_run_that_is_ended_leaves_the_session_as_it_was() {
    let Some(seen) = load("cancellation", 40) else { return };
    assert!(seen["ended"].as_u64() >= Some(10), "{seen}");
}
