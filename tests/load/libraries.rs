//! The library in many sessions, closed and opened again, and beside another version of itself.

use std::fs;
use std::path::{Path, PathBuf};

use isqrt_cov_tests::{Outcome, SharedSession};
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_LOCAL, RTLD_NOW};
use serde_json::{Value, json};

use crate::Bench;
use crate::process::{Course, mappings};
use crate::work::Case;

/// How much the memory may grow in the second half of that.
const SLACK: usize = 2 << 20;
/// Words of the library, and other ones that a version of it could have. They are in the error of a wrong attribute.
const WORDS: [&[u8]; 2] = [b"; expected ", b"; accepted "];

/// Opened and closed `count` times; `count` sessions at once of each of two versions.
pub fn libraries(bench: &Bench, count: usize) -> Outcome<Value> {
    let case = &Case::some(&bench.session("mixed", 1)?, 1)?[0];
    twice(bench, case)?;
    let footprint = opened_and_closed(bench, case, count)?;
    let visibility = [("local", RTLD_LOCAL), ("global", RTLD_GLOBAL)];
    for (name, flag) in visibility {
        two_versions(bench, case, name, flag, count)?;
    }
    Ok(json!({
        "opened_and_closed": count,
        "footprint": footprint,
        "stays_in_memory": mappings(&bench.library)? > 0,
        "two_versions": visibility.map(|(name, _)| name),
        "sessions_of_each_version": count,
    }))
}

/// Registered twice in the options of one session, the library is refused, and is none the worse for it.
fn twice(bench: &Bench, case: &Case) -> Outcome<()> {
    let libraries: [&Path; 2] = [&bench.library, &bench.library];
    match bench.runtime.session(&bench.model("mixed"), &libraries, 1) {
        Ok(_) => return Err("a domain that is there twice is not refused".into()),
        Err(error) if error.to_string().contains("already") => {}
        Err(error) => return Err(error),
    }
    right(&bench.session("mixed", 1)?, case)
}

/// Opens and closes the library, by the system and by making the only session that uses it.
fn opened_and_closed(bench: &Bench, case: &Case, count: usize) -> Outcome<Value> {
    let pieces = mappings(&bench.library)?;
    let mut course = Course::default();
    for number in 0..count {
        let handle = open(&bench.library, RTLD_LOCAL)?;
        entry(&handle)?;
        handle.close()?;
        right(&bench.session("mixed", 1)?, case)?;
        if mappings(&bench.library)? != pieces {
            return Err("the library is in memory once more, or no longer".into());
        }
        if (number + 1).is_multiple_of((count / 10).max(1)) {
            course.look()?;
        }
    }
    course.settled(SLACK)
}

/// Two versions of the library in this process, with their symbols as visible as `flag` says.
fn two_versions(bench: &Bench, case: &Case, name: &str, flag: i32, count: usize) -> Outcome<()> {
    let other = other_version(&bench.library, name)?;
    let outcome = beside_each_other(bench, case, [&bench.library, &other], flag, count);
    fs::remove_file(other)?;
    outcome
}

/// Each session is served by its own version.
fn beside_each_other(
    bench: &Bench,
    case: &Case,
    versions: [&Path; 2],
    flag: i32,
    count: usize,
) -> Outcome<()> {
    // ONNX Runtime opens files that are open already, with the visibility that they have then.
    let handles = [open(versions[0], flag)?, open(versions[1], flag)?];
    if entry(&handles[0])? == entry(&handles[1])? {
        return Err("two files have one entry point".into());
    }
    let mut sessions = Vec::new();
    for _ in 0..count {
        for version in versions {
            sessions.push(bench.runtime.session(&bench.model("mixed"), &[version], 1)?);
        }
    }
    sessions.iter().try_for_each(|session| right(session, case))?;
    for (version, words) in versions.iter().zip(WORDS) {
        let words = std::str::from_utf8(words)?;
        let refusal = bench.runtime.session(&bench.model("unknown_word"), &[version], 1);
        let refusal = refusal.err().ok_or("a wrong attribute is not refused")?.to_string();
        if !refusal.contains(words) {
            return Err(format!("{}: served by another version: {refusal}", version.display()).into());
        }
    }
    // Those of one version go; those of the other stay as they are.
    let mut left = sessions.into_iter().skip(1).step_by(2);
    left.try_for_each(|session| right(&session, case))
}

/// A copy of the library in a file of its own that has other words for one thing.
fn other_version(library: &Path, name: &str) -> Outcome<PathBuf> {
    let mut bytes = fs::read(library)?;
    let [ours, others] = WORDS;
    for place in 0..bytes.len() - ours.len() {
        if bytes[place..].starts_with(ours) {
            bytes[place..place + others.len()].copy_from_slice(others);
        }
    }
    let path = std::env::temp_dir().join(format!("isqrt_cov_{name}_{}.so", std::process::id()));
    fs::write(&path, bytes)?;
    Ok(path)
}

#[allow(unsafe_code)]
fn open(library: &Path, flag: i32) -> Outcome<Library> {
    // SAFETY: the library has no code that runs when it is opened or closed.
    Ok(unsafe { Library::open(Some(library), RTLD_NOW | flag) }?)
}

/// Where the function is that a runtime calls.
#[allow(unsafe_code)]
fn entry(library: &Library) -> Outcome<usize> {
    // SAFETY: the function is not called.
    let function = unsafe { library.get::<unsafe extern "C" fn()>(b"RegisterCustomOps") }?;
    Ok(*function as usize)
}

fn right(session: &SharedSession, case: &Case) -> Outcome<()> {
    if case.holds(session)? { Ok(()) } else { Err("a session gives another result".into()) }
}
