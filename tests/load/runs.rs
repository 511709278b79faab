//! One session, many threads, many runs of mixed shapes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use isqrt_cov_tests::{Outcome, Random, SharedSession};
use serde_json::{Value, json};

use crate::Bench;
use crate::process::Course;
use crate::work::Case;

/// The threads that run the session at the same time.
const CALLERS: usize = 16;
/// The session's own threads.
const THREADS: usize = 4;
/// Different inputs, where there are so many runs.
const CASES: usize = 500;
/// How much the memory may grow in the second half of the runs: what the allocators keep varies by less.
const SLACK: usize = 6 << 20;

/// `count` runs. Their memory is looked at after every tenth.
pub fn runs(bench: &Bench, count: usize) -> Outcome<Value> {
    let cases = Case::some(&bench.session("mixed", 1)?, CASES.min(count))?;
    let session = bench.session("mixed", THREADS)?;
    let started = Instant::now();
    let mut course = Course::default();
    let mut wrong = 0;
    for tenth in 0..10 {
        wrong += together(&session, &cases, tenth, count / 10)?;
        course.look()?;
    }
    let seconds = started.elapsed().as_secs_f64();
    if wrong > 0 {
        return Err(format!("{wrong} of {count} runs differ from those of one thread").into());
    }
    Ok(json!({
        "runs": count / 10 * 10,
        "callers": CALLERS,
        "threads": THREADS,
        "cases": cases.len(),
        "seconds": seconds,
        "different": wrong,
        "footprint": course.settled(SLACK)?,
    }))
}

/// Has all callers make `count` runs between them, and says how many came out otherwise than they should.
fn together(session: &SharedSession, cases: &[Case], seed: usize, count: usize) -> Outcome<usize> {
    let (left, wrong) = (AtomicUsize::new(count), AtomicUsize::new(0));
    let caller = |number: usize| -> Outcome<()> {
        let mut random = Random((seed * CALLERS + number) as u64);
        while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
            let case = &cases[random.between(0, cases.len() - 1)];
            if !case.holds(session)? {
                wrong.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS).map(|number| scope.spawn(move || caller(number))).collect();
        callers.into_iter().try_for_each(|caller| caller.join().expect("callers do not panic"))
    })?;
    Ok(wrong.into_inner())
}
