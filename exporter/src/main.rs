//! The `isqrt-cov` command.
fn main() {}
