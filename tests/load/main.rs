//! The plugin under load: each scenario runs a real ONNX Runtime and the built library in this process, watches the process,
//! and prints what it saw as one JSON object. It fails where something is not as it should be.
//!
//! ```text
//! load SCENARIO RUNTIME LIBRARY MODELS COUNT
//! ```
//!
//! SCENARIO is `runs`, `sessions`, `libraries` or `cancellation`; RUNTIME is ONNX Runtime's shared library, LIBRARY that of
//! the operators, MODELS the folder of `models/make.py`; COUNT says how often. Linux only: it reads `/proc`.

mod cancellation;
mod libraries;
mod process;
mod runs;
mod sessions;
mod work;

use std::path::PathBuf;

use isqrt_cov_tests::{Outcome, Runtime, SharedSession};

/// What every scenario works with.
struct Bench {
    runtime: Runtime,
    library: PathBuf,
    models: PathBuf,
}

impl Bench {
    fn session(&self, model: &str, threads: usize) -> Outcome<SharedSession> {
        self.runtime.session(&self.model(model), &[&self.library], threads)
    }

    fn model(&self, name: &str) -> PathBuf {
        self.models.join(name).with_extension("onnx")
    }
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [scenario, runtime, library, models, count] = &arguments[..] else {
        return Err("usage: load SCENARIO RUNTIME LIBRARY MODELS COUNT".into());
    };
    let bench =
        Bench { runtime: Runtime::load(runtime.as_ref())?, library: library.into(), models: models.into() };
    let count = count.parse()?;
    let seen = match scenario.as_str() {
        "runs" => runs::runs(&bench, count)?,
        "sessions" => sessions::sessions(&bench, count)?,
        "libraries" => libraries::libraries(&bench, count)?,
        "cancellation" => cancellation::cancellation(&bench, count)?,
        other => return Err(format!("no scenario `{other}`").into()),
    };
    println!("{seen}");
    Ok(())
}
