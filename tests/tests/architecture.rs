//! Who may know whom, held against the packages' manifests. The map is `ARCHITECTURE.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use isqrt_cov_tests::folder;
use serde_json::Value;

/// Each package, and the packages of the project that it may depend on, for its code and for its tests.
const MAY_KNOW: [(&str, &[&str]); 6] = [
    ("isqrt-cov-proto", &[]),
    ("isqrt-cov-op", &[]),
    ("isqrt-cov-models", &["isqrt-cov-op", "isqrt-cov-proto"]),
    ("isqrt-cov", &["isqrt-cov-models", "isqrt-cov-op", "isqrt-cov-proto"]),
    ("isqrt-cov-fuzz", &["isqrt-cov", "isqrt-cov-models", "isqrt-cov-op", "isqrt-cov-proto"]),
    ("isqrt-cov-tests", &[]),
];

/// What the plugin may bring into other people's processes.
const PLUGIN_DEPENDENCIES: [&str; 5] = ["cudarc", "half", "libloading", "ort-sys", "thiserror"];

fn packages() -> BTreeMap<String, Vec<Value>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(folder())
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let of = |package: &Value| package["dependencies"].as_array().unwrap().clone();
    let packages = metadata["packages"].as_array().unwrap().iter();
    packages.map(|package| (package["name"].as_str().unwrap().to_owned(), of(package))).collect()
}

#[test]
fn packages_know_only_whom_they_may() {
    let packages = packages();
    let known: BTreeSet<&str> = MAY_KNOW.iter().map(|(name, _)| *name).collect();
    let found: BTreeSet<&str> = packages.keys().map(String::as_str).collect();
    assert_eq!(found, known, "a new package takes its place in ARCHITECTURE.md and here");
    for (name, may_know) in MAY_KNOW {
        for dependency in &packages[name] {
            let dependency = dependency["name"].as_str().unwrap();
            assert!(
                !known.contains(dependency) || may_know.contains(&dependency),
                "{name} depends on {dependency}; it may know {may_know:?} only"
            );
        }
    }
}

#[test]
fn the_plugin_brings_few_dependencies() {
    let packages = packages();
    let normal = packages["isqrt-cov-op"].iter().filter(|dependency| dependency["kind"].is_null());
    let names: BTreeSet<&str> = normal.map(|dependency| dependency["name"].as_str().unwrap()).collect();
    assert_eq!(names, BTreeSet::from(PLUGIN_DEPENDENCIES));
}
