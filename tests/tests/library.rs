//! What the built files show to, and ask of, the system that loads them.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use isqrt_cov_tests::{exporter, library};

/// The only symbol that other people's processes see.
const EXPORTED: &str = "RegisterCustomOps";

/// The parts of the C library and, where GCC links, of its runtime; by their names up to the first dot.
const SYSTEM: [&str; 7] =
    ["ld-linux-aarch64", "ld-linux-x86-64", "libc", "libdl", "libgcc_s", "libm", "libpthread"];

/// The release of the GNU C library that released files load on.
const GLIBC: (u32, u32) = (2, 28);

/// What binutils' `readelf` says of a file.
fn readelf(option: &str, file: &Path) -> String {
    let run = Command::new("readelf").args(["--wide", option]).arg(file).env("LC_ALL", "C").output();
    let run = run.expect("readelf, which comes with the linker, starts");
    assert!(run.status.success(), "{}: {}", file.display(), String::from_utf8_lossy(&run.stderr));
    String::from_utf8_lossy(&run.stdout).into_owned()
}

/// The names of the symbols that a file defines for others.
fn exported(file: &Path) -> BTreeSet<String> {
    let table = readelf("--dyn-syms", file);
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    // Number, value, size, type, binding, visibility, section, name.
    let defined =
        rows.filter(|row| row.len() >= 8 && row[4] != "LOCAL" && row[6] != "UND" && row[6] != "Ndx");
    defined.map(|row| row[7].to_owned()).collect()
}

/// The names of the libraries that a file is linked with.
fn linked(file: &Path) -> BTreeSet<String> {
    let table = readelf("--dynamic", file);
    let needed = table.lines().filter(|line| line.contains("(NEEDED)"));
    needed.filter_map(|line| Some(line.split_once('[')?.1.split_once(']')?.0.to_owned())).collect()
}

/// The versions of the GNU C library's symbols that a file asks for, such as `2.17`.
fn versions(file: &Path) -> BTreeSet<String> {
    let table = readelf("--version-info", file);
    let names = table.lines().filter_map(|line| line.split_once("Name: ")?.1.split_whitespace().next());
    names.filter_map(|name| Some(name.strip_prefix("GLIBC_")?.to_owned())).collect()
}

/// Whether a version is at most [`GLIBC`]; what is no number, such as a feature of the loader, is newer.
fn is_old_enough(version: &str) -> bool {
    let mut numbers = version.split('.').map(str::parse);
    matches!((numbers.next(), numbers.next()), (Some(Ok(major)), Some(Ok(minor))) if (major, minor) <= GLIBC)
}

fn loads_on_the_oldest_system(file: &Path) {
    let versions = versions(file);
    assert!(!versions.is_empty(), "{} asks for nothing", file.display());
    let new: Vec<_> = versions.iter().filter(|version| !is_old_enough(version)).collect();
    assert!(new.is_empty(), "{} needs glibc {new:?}; expected at most {GLIBC:?}", file.display());
}

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "the files are not ELF")]
fn the_library_exports_one_function() {
    assert_eq!(exported(&library()), BTreeSet::from([EXPORTED.to_owned()]));
}

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "the files are not ELF")]
fn the_library_is_linked_with_the_system_only() {
    let linked = linked(&library());
    assert!(linked.contains("libc.so.6"), "{linked:?}");
    for name in &linked {
        let stem = name.split('.').next().unwrap_or_default();
        assert!(SYSTEM.contains(&stem), "the library is linked with {name}");
    }
}

#[test]
#[ignore = "run by release/build, on what it built"]
fn the_library_loads_on_the_oldest_system() {
    loads_on_the_oldest_system(&library());
}

#[test]
#[ignore = "run by release/build, on what it built"]
fn the_command_loads_on_the_oldest_system() {
    loads_on_the_oldest_system(&exporter());
}
