//! Keeps the shared library in memory once it is loaded.
//!
//! Hosts close it with the last session that uses it. Loaded again it would make its tables and its domain anew, while the
//! old ones, which a runtime may still point to, were never freed: 4 KB for each session of a host that makes one at a time.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    }
}
