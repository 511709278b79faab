//! The `isqrt-cov` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    isqrt_cov::cli::run(std::env::args_os()).into()
}
