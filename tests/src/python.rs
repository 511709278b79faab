//! Python's onnxruntime, in the releases that `tests/run` installs.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::{RUN_FIRST, folder};

/// The variable with the folder of the release that is at hand.
const AT_HAND: &str = "ISQRT_COV_ONNXRUNTIME";

/// One release of onnxruntime with the Python that it was installed for.
#[derive(Debug, Clone)]
pub struct Python {
    version: String,
    packages: PathBuf,
    interpreter: String,
}

/// What `clients/python/run.py` says of one job.
#[derive(Debug, Clone)]
pub struct Answer {
    job: String,
    json: Value,
}

impl Python {
    /// The releases whose pins are in `clients/python/runtimes`.
    ///
    /// # Panics
    /// If the folder cannot be read.
    #[must_use]
    pub fn pinned() -> Vec<String> {
        let entries =
            std::fs::read_dir(folder().join("clients/python/runtimes")).expect("the pins are there");
        let mut versions: Vec<_> = entries
            .map(|entry| entry.expect("the folder can be read").path())
            .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
            .collect();
        versions.sort();
        versions
    }

    /// The release called `version`, or nothing where this machine's Pythons have no wheel for it (`tests/run` lists
    /// those at its end).
    ///
    /// # Panics
    /// If no release at all was installed.
    #[must_use]
    pub fn installed(version: &str) -> Option<Self> {
        let cache = folder().join(".cache/python");
        let found = Self::in_folder(&cache.join(version));
        if found.is_none() {
            assert!(cache.exists(), "onnxruntime is missing; {RUN_FIRST}");
            eprintln!("SKIPPED: onnxruntime {version} has no wheel for the Pythons of this machine");
        }
        found
    }

    /// The release in the folder that `tests/compatibility/run` names, which has the release's name.
    ///
    /// # Panics
    /// If it names none, or there is none in it.
    #[must_use]
    pub fn at_hand() -> Self {
        let packages = std::env::var_os(AT_HAND).expect("`tests/compatibility/run` names a release");
        Self::in_folder(Path::new(&packages)).expect("the release is installed")
    }

    /// The release in a folder that is called like it, where an installation came to its end there.
    fn in_folder(packages: &Path) -> Option<Self> {
        let interpreter = std::fs::read_to_string(packages.join("interpreter")).ok()?.trim().to_owned();
        let version = packages.file_name()?.to_str()?.to_owned();
        Some(Self { version, packages: packages.to_owned(), interpreter })
    }

    /// What the release calls itself.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The release's own shared library, for clients that load it themselves.
    ///
    /// # Panics
    /// If the wheel holds none.
    #[must_use]
    pub fn shared_library(&self) -> PathBuf {
        let capi = self.packages.join("onnxruntime/capi");
        let files = std::fs::read_dir(&capi).expect("the wheel has a capi folder");
        let mut files = files.map(|entry| entry.expect("the folder can be read").path());
        let is_runtime = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.starts_with("libonnxruntime.") || name == "onnxruntime.dll"
        };
        files.find(is_runtime).expect("the wheel holds the runtime's shared library")
    }

    /// Runs jobs one after another in one process and returns their answers.
    ///
    /// # Panics
    /// If the process fails or does not answer every job.
    #[must_use]
    pub fn run(&self, jobs: &[Vec<OsString>]) -> Vec<Answer> {
        let jobs: Vec<Vec<&str>> = jobs
            .iter()
            .map(|job| job.iter().map(|word| word.to_str().expect("UTF-8 paths")).collect())
            .collect();
        let mut lines = String::new();
        for job in &jobs {
            writeln!(lines, "{}", Value::from(job.clone())).expect("a string can be written to");
        }
        let mut child = self
            .script("run.py")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("Python starts");
        child.stdin.take().expect("it is piped").write_all(lines.as_bytes()).expect("Python reads");
        let answers = self.output(child.wait_with_output().expect("Python ends"));
        let answers: Vec<_> = answers.lines().zip(&jobs).map(|(line, job)| self.answer(line, job)).collect();
        assert_eq!(answers.len(), jobs.len(), "onnxruntime {}: a job without an answer", self.version);
        answers
    }

    /// Runs `clients/python/accuracy.py` and returns what it measured: how far the operator and the decomposed graphs are
    /// from float64.
    ///
    /// # Panics
    /// If the process fails.
    #[must_use]
    pub fn accuracy(&self, library: &Path) -> Vec<Value> {
        let output = self.script("accuracy.py").arg(library).output().expect("Python starts");
        serde_json::from_str(&self.output(output)).expect("the script prints a JSON list")
    }

    /// A script of `clients/python`, ready to start in this release.
    fn script(&self, name: &str) -> Command {
        let mut command = Command::new(&self.interpreter);
        command.arg(folder().join("clients/python").join(name));
        command.env("PYTHONPATH", &self.packages);
        command.env("PYTHONNOUSERSITE", "1").env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }

    /// What a script printed.
    fn output(&self, output: Output) -> String {
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "onnxruntime {}: {}: {log}", self.version, output.status);
        String::from_utf8(output.stdout).expect("JSON is UTF-8")
    }

    fn answer(&self, line: &str, job: &[&str]) -> Answer {
        let json: Value = serde_json::from_str(line).expect("an answer is JSON");
        assert_eq!(json["version"], *self.version, "another onnxruntime than asked for");
        let model = job.first().and_then(|model| Path::new(model).file_stem()).unwrap_or_default();
        Answer { job: format!("onnxruntime {}, {}", self.version, model.to_string_lossy()), json }
    }
}

impl Answer {
    /// The answer of a job that the runtime carried out.
    ///
    /// # Panics
    /// If the runtime reported an error.
    #[must_use]
    pub fn done(&self) -> &Self {
        assert_eq!(self.json["stage"], "done", "{}: {}", self.job, self.json);
        self
    }

    /// What the runtime said at the stage where the job was to fail.
    ///
    /// # Panics
    /// If it failed elsewhere or not at all.
    #[must_use]
    pub fn error_at(&self, stage: &str) -> &str {
        assert_eq!(self.json["stage"], stage, "{}: {}", self.job, self.json);
        self.json["error"].as_str().unwrap_or_else(|| panic!("{}: no error: {}", self.job, self.json))
    }

    /// How often each operator's kernel ran, from the runtime's profile.
    ///
    /// # Panics
    /// If the answer has no profile.
    #[must_use]
    pub fn kernels(&self) -> HashMap<&str, u64> {
        let kernels = self.json["kernels"].as_object();
        let kernels = kernels.unwrap_or_else(|| panic!("{}: no profile: {}", self.job, self.json));
        kernels.iter().map(|(name, count)| (name.as_str(), count.as_u64().unwrap_or(0))).collect()
    }

    /// The greatest deviation from float64 of any run, relative to the greatest entry.
    ///
    /// # Panics
    /// If no run was compared.
    #[must_use]
    pub fn error(&self) -> f64 {
        let runs = self.json["runs"].as_array().into_iter().flatten();
        let errors: Vec<_> = runs.filter_map(|run| run["error"].as_f64()).collect();
        assert!(!errors.is_empty(), "{}: nothing was compared: {}", self.job, self.json);
        errors.into_iter().fold(0.0, f64::max)
    }

    /// A field of the answer.
    #[must_use]
    pub fn field(&self, name: &str) -> &Value {
        &self.json[name]
    }

    /// Which job this answers.
    #[must_use]
    pub fn job(&self) -> &str {
        &self.job
    }
}
