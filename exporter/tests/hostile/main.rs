//! Files that mean harm, through the command line: each gives one clear error that names the file, with exit status 2,
//! within bounded time and memory, and leaves no file behind, neither beside it nor among the temporary ones.
//!
//! What of it is a file lies in `tests/corpus/checkpoints/hostile`, with what must be said of it in `cases.json`; the rest,
//! which is large or needs links, is made here. [`ITEMS`] is the list of what there must be, with the vulnerabilities of
//! other readers that each stands for.

mod arrays;
mod checkpoints;
mod computing;
mod measured;
mod models;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use measured::{Measured, measure};

/// What a file may do, and where other readers let it; nothing where no vulnerability of that kind is known by a number.
const ITEMS: &[(&str, &str)] = &[
    ("path traversal", "CVE-2022-25882, CVE-2024-27318; writing: CVE-2025-51480"),
    ("symlinked parents", "CVE-2026-27489, CVE-2026-34447"),
    ("hard links", "CVE-2026-34446"),
    ("absolute paths", "CVE-2022-25882"),
    ("unknown keys", "CVE-2026-34445"),
    ("huge lengths", "CVE-2026-34445"),
    ("negative dimensions", ""),
    ("overflowing dimensions", ""),
    ("deep nesting", ""),
    ("cyclic graphs and functions", ""),
    ("duplicate names", ""),
    ("names that control the terminal, or have no end", "CVE-2024-27319"),
    ("pickle gadgets", "CVE-2025-32434; arrays: CVE-2019-6446"),
    ("pickles that are damaged", "CVE-2026-24747"),
    ("compression bombs", ""),
    ("little that computes for long", ""),
    ("archives that say two things", "CVE-2026-24747"),
    ("truncated", ""),
];

/// How long a command may take.
const LONGEST: Duration = Duration::from_secs(10);

/// The most memory that it may hold at a time, in bytes. The program alone takes a tenth of that.
const LARGEST: u64 = 256 << 20;

/// Something hostile.
struct Case {
    /// One of [`ITEMS`].
    item: &'static str,
    name: String,
    /// A piece of what must be said.
    said: String,
    /// Makes the files in a folder, and says what to give the command.
    make: Box<dyn Fn(&Path) -> Given>,
}

impl Case {
    /// Whether it is of data, which only a conversion reads.
    fn is_data(&self) -> bool {
        [".npy", ".npz"].iter().any(|ending| self.name.ends_with(ending))
    }
}

/// What a command is given.
struct Given {
    /// The file to be named in the error.
    hostile: PathBuf,
    /// The model or checkpoint.
    input: PathBuf,
    /// Options that come with it.
    options: Vec<OsString>,
}

impl Given {
    /// A hostile model or checkpoint.
    fn input(path: PathBuf) -> Self {
        Self { hostile: path.clone(), input: path, options: Vec::new() }
    }
}

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/corpus")
}

/// Everything under a folder.
fn tree(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            found.extend(tree(&path));
        }
        found.push(path);
    }
    found.sort();
    found
}

/// Which answers are right, beside an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Right {
    Error,
    No,
    Any,
}

/// What is wrong with how a command answers; nothing where it is as it should be.
fn judge(case: &Case, command: &str, right: Right) -> Option<String> {
    // Nobody looks at the shapes of inputs who computes nothing.
    let looks_away = command == "expand" && case.name.starts_with("input of");
    let right = if looks_away { Right::No } else { right };
    let [files, place, temporary] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let given = (case.make)(files.path());
    let before = tree(files.path());
    let mut line: Vec<OsString> = vec![command.into(), given.input.clone().into()];
    line.extend(given.options.iter().cloned());
    // Beside the input, where its own files could be in the way.
    let output = files.path().join("written.onnx");
    if command == "validate" {
        line.push(given.input.clone().into());
    }
    if ["convert", "expand"].contains(&command) {
        line.extend(["-o".into(), output.into()]);
        if command == "convert" && right == Right::Error {
            // A report is written also where the answer is no.
            line.extend(["--report".into(), files.path().join("report.html").into()]);
        }
    }
    let Measured { status, error, printed, took, peak } =
        measure(&line, place.path(), temporary.path(), LONGEST);
    let name = given.hostile.file_name().unwrap().to_string_lossy();
    let mut lines = error.lines();
    let first = lines.next().unwrap_or_default();
    let others: &[i32] = match right {
        Right::Error => &[],
        Right::No => &[1],
        Right::Any => &[0, 1],
    };
    let wrong = if status != Some(2) && !status.is_some_and(|status| others.contains(&status)) {
        format!("status {status:?}")
    } else if right != Right::Error {
        left_over(peak, [files.path(), place.path(), temporary.path()], &before)?
    } else if !first.starts_with("error: ") || !lines.all(|line| line.starts_with("  cause: ")) {
        "not one error".to_owned()
    } else if !first.contains(&*name) {
        format!("does not name {name}")
    } else if !error.contains(&case.said) {
        format!("does not say `{}`", case.said)
    } else if error.len() > 5000 || error.contains(|c: char| c.is_control() && c != '\n') {
        format!("{} bytes, perhaps with control characters", error.len())
    } else if !printed.is_empty() {
        "prints something".to_owned()
    } else {
        left_over(peak, [files.path(), place.path(), temporary.path()], &before)?
    };
    let shown: String = error.chars().take(500).collect();
    Some(format!(
        "{command} {} ({}): {wrong} after {took:?} with {} MiB\n    {shown}",
        case.name,
        case.item,
        peak >> 20
    ))
}

/// What a command took or left that it should not have; nothing where there is nothing.
fn left_over(peak: u64, [files, place, temporary]: [&Path; 3], before: &[PathBuf]) -> Option<String> {
    if peak > LARGEST {
        return Some("too much memory".to_owned());
    }
    let left = [tree(files), tree(place), tree(temporary)];
    (left[0] != before || !left[1].is_empty() || !left[2].is_empty()).then(|| format!("leaves {left:?}"))
}

/// What computes with a model's values, and what reads models at all. Checkpoints are read by the first.
const COMPUTING: [&str; 2] = ["inspect", "convert"];
const READING: [&str; 4] = ["inspect", "convert", "validate", "expand"];

fn check(cases: &[Case], commands: &[&str], right: Right) {
    let mut wrong = Vec::new();
    for case in cases {
        assert!(ITEMS.iter().any(|(item, _)| *item == case.item), "{}", case.item);
        let commands = if case.is_data() { &["convert"] } else { commands };
        wrong.extend(commands.iter().filter_map(|command| judge(case, command, right)));
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn models() {
    check(&models::cases(), &READING, Right::Error);
}

#[test]
fn models_that_compute_too_much() {
    check(&computing::large(), &COMPUTING, Right::No);
    check(&computing::long(), &COMPUTING, Right::Error);
    check(&computing::wide(), &["inspect"], Right::Any);
    check(&computing::bounds(), &["validate"], Right::Any);
}

#[test]
fn arrays() {
    check(&arrays::cases(), &COMPUTING, Right::Error);
}

#[test]
fn checkpoints() {
    check(&checkpoints::cases(), &COMPUTING, Right::Error);
    check(&checkpoints::nested_names(), &COMPUTING, Right::No);
    assert!(!Path::new("harm").exists(), "something was run");
}

#[test]
fn every_item_is_there() {
    let cases =
        [models::cases(), computing::long(), arrays::cases(), checkpoints::cases()].into_iter().flatten();
    let items: std::collections::BTreeSet<_> = cases.map(|case| case.item).collect();
    for (item, _) in ITEMS {
        assert!(items.contains(item), "nothing stands for {item}");
    }
}
