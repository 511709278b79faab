//! Running the program, and what the system says that it took.
#![allow(unsafe_code)]

use std::ffi::OsString;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How a command ended, and what it took.
pub struct Measured {
    /// The exit status; none where a signal ended it, perhaps because it took too long.
    pub status: Option<i32>,
    /// What it wrote to standard error.
    pub error: String,
    /// What it wrote to standard output.
    pub printed: String,
    /// For how long it ran.
    pub took: Duration,
    /// The most memory that it held at a time, in bytes.
    pub peak: u64,
}

/// Runs the program in the folder `place`, with the folder `temporary` for temporary files, for at most `longest`.
// It is waited for, by its number.
#[allow(clippy::zombie_processes)]
pub fn measure(line: &[OsString], place: &Path, temporary: &Path, longest: Duration) -> Measured {
    let folder = tempfile::tempdir().unwrap();
    let [error, printed] = ["error", "printed"].map(|name| folder.path().join(name));
    let started = Instant::now();
    let mut process = Command::new(env!("CARGO_BIN_EXE_isqrt-cov"))
        .args(line)
        .current_dir(place)
        .env("TMPDIR", temporary)
        .env_remove("ORT_DYLIB_PATH")
        .env_remove("ISQRT_COV_OP_LIBRARY")
        .stdin(Stdio::null())
        .stdout(File::create(&printed).unwrap())
        .stderr(File::create(&error).unwrap())
        .spawn()
        .unwrap();
    let id = libc::pid_t::try_from(process.id()).unwrap();
    let (mut status, mut late) = (0, false);
    // SAFETY: all of its fields are numbers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both places are there to be written to. The process is a child of this one that nobody else waits for.
        let ended = unsafe { libc::wait4(id, &raw mut status, libc::WNOHANG, &raw mut usage) };
        assert!(ended >= 0, "{}", std::io::Error::last_os_error());
        if ended == id {
            break;
        }
        if !late && started.elapsed() > longest {
            late = true;
            process.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let read = |path: &Path| String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
    // Linux counts in units of 1024 bytes, macOS in bytes.
    let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
    Measured {
        status: libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)),
        error: read(&error),
        printed: read(&printed),
        took: started.elapsed(),
        peak: u64::try_from(usage.ru_maxrss).unwrap() * unit,
    }
}
