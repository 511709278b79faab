//! What the system says of this process.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use isqrt_cov_tests::Outcome;
use serde_json::{Value, json};

/// How often a footprint is looked at again, and after what time.
const LOOKS: usize = 10;
const PAUSE: Duration = Duration::from_millis(2);

/// What may not grow.
#[derive(Debug, Clone, Copy)]
struct Footprint {
    /// Bytes of memory that are there (RSS).
    memory: usize,
    /// Open file descriptors.
    files: usize,
    threads: usize,
}

impl Footprint {
    /// That of this moment: the least of some looks, for ONNX Runtime's telemetry has a thread that opens files now and then.
    fn now() -> Outcome<Self> {
        let mut least = Self::look()?;
        for _ in 0..LOOKS {
            thread::sleep(PAUSE);
            let next = Self::look()?;
            least.memory = least.memory.min(next.memory);
            least.files = least.files.min(next.files);
            least.threads = least.threads.min(next.threads);
        }
        Ok(least)
    }

    fn look() -> Outcome<Self> {
        let status = fs::read_to_string("/proc/self/status")?;
        let field = |name: &str| -> Outcome<usize> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.trim_start_matches(':').split_whitespace().next());
            Ok(number.ok_or("a line of /proc/self/status is missing")?.parse()?)
        };
        Ok(Self {
            memory: field("VmRSS")? * 1024,
            // The folder that is being read is one of them.
            files: fs::read_dir("/proc/self/fd")?.count() - 1,
            threads: field("Threads")?,
        })
    }

    /// Fails where there is more of anything than `before`: of memory, more than `slack` bytes.
    fn held_against(self, before: Self, slack: usize) -> Outcome<()> {
        if self.memory > before.memory + slack {
            let (from, to) = (before.memory, self.memory);
            return Err(
                format!("memory grew from {from} to {to} bytes; at most {slack} more were expected").into()
            );
        }
        if self.files > before.files || self.threads > before.threads {
            return Err(format!("descriptors or threads were left: {before:?}, then {self:?}").into());
        }
        Ok(())
    }

    fn json(self) -> Value {
        json!({"memory": self.memory, "files": self.files, "threads": self.threads})
    }
}

/// Footprints in the course of a scenario, at equal distances.
///
/// Calls that happen to be under way at the same time each keep a workspace, so it takes a while until there are enough.
/// Nothing may grow in the second half.
#[derive(Debug, Default)]
pub struct Course(Vec<Footprint>);

impl Course {
    /// Adds that of this moment.
    pub fn look(&mut self) -> Outcome<()> {
        self.0.push(Footprint::now()?);
        Ok(())
    }

    /// Fails where something grew: memory, by more than `slack` bytes. In valgrind, which looks for lost blocks itself, nothing is
    /// told of it.
    pub fn settled(self, slack: usize) -> Outcome<Value> {
        if is_in_valgrind() {
            return Ok(Value::Null);
        }
        let (middle, last) = (self.0[self.0.len() / 2], self.0[self.0.len() - 1]);
        last.held_against(middle, slack)
            .map_err(|grown| format!("{grown}; in the whole course: {self:?}"))?;
        let course: Vec<_> = self.0.into_iter().map(Footprint::json).collect();
        Ok(json!({"course": course, "slack": slack}))
    }
}

/// Whether valgrind runs this process, in which its own memory and files then are.
fn is_in_valgrind() -> bool {
    std::env::var("LD_PRELOAD").is_ok_and(|libraries| libraries.contains("vgpreload"))
}

/// How many pieces of `file` are mapped: none where the library is not loaded.
pub fn mappings(file: &Path) -> Outcome<usize> {
    let file = fs::canonicalize(file)?;
    let maps = fs::read_to_string("/proc/self/maps")?;
    Ok(maps.lines().filter(|line| line.ends_with(&*file.to_string_lossy())).count())
}
