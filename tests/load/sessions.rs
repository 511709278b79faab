//! Sessions made, run once and destroyed, the library registered anew for each.

use std::time::Instant;

use isqrt_cov_tests::Outcome;
use serde_json::{Value, json};

use crate::Bench;
use crate::process::Course;
use crate::work::Case;

/// The threads of each session.
const THREADS: usize = 3;
/// How much the memory may grow in the second half of the sessions.
const SLACK: usize = 4 << 20;

/// `count` sessions. After every tenth one is refused because of an attribute: errors are among what is repeated.
pub fn sessions(bench: &Bench, count: usize) -> Outcome<Value> {
    let cases = Case::some(&bench.session("mixed", 1)?, 10)?;
    let started = Instant::now();
    let mut course = Course::default();
    for number in 0..count {
        if number % 10 == 0 {
            refused(bench)?;
        }
        let case = &cases[number % cases.len()];
        if !case.holds(&bench.session("mixed", THREADS)?)? {
            return Err(format!("session {number} gives another result").into());
        }
        if (number + 1).is_multiple_of((count / 10).max(1)) {
            course.look()?;
        }
    }
    Ok(json!({
        "sessions": count,
        "threads": THREADS,
        "seconds": started.elapsed().as_secs_f64(),
        "footprint": course.settled(SLACK)?,
    }))
}

/// A session that cannot be made, of a model with a value that an attribute does not take.
fn refused(bench: &Bench) -> Outcome<()> {
    match bench.session("unknown_word", THREADS) {
        Ok(_) => Err("a model with a wrong attribute is not refused".into()),
        Err(error) if error.to_string().contains("expected one of") => Ok(()),
        Err(error) => Err(error),
    }
}
