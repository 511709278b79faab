//! Runs that another thread ends (`RunOptions.terminate`).
//!
//! ONNX Runtime looks at the flag between two nodes, and tells kernels nothing of it: a run ends when the node that is
//! under way has ended.

use std::thread;
use std::time::{Duration, Instant};

use isqrt_cov_tests::{Element, Outcome, Random, SharedSession, Tensor};
use ort::session::RunOptions;
use serde_json::{Value, json};

use crate::Bench;
use crate::process::Course;

/// The session's threads.
const THREADS: usize = 2;
/// What a whole run takes at least, so that it has a middle to be ended in. The matrices grow until it does: on a machine that
/// is slow, or in valgrind, where a second is a hundred, they stay small.
const LONG: Duration = Duration::from_millis(25);
const LEAST_CHANNELS: usize = 16;
const MOST_CHANNELS: usize = 512;
/// Whole runs before the first that is ended.
const WARM: u32 = 10;
/// How much the memory may grow in the second half of the runs.
const SLACK: usize = 4 << 20;
/// Matrices in the input of `chain.onnx`, as many as there are threads.
const BATCH: usize = 2;

/// `count` runs, each ended somewhere in its middle, and whole ones in between.
pub fn cancellation(bench: &Bench, count: usize) -> Outcome<Value> {
    let session = bench.session("chain", THREADS)?;
    let channels = channels_of_a_long_run(&session)?;
    let matrices = matrices(channels);
    let expected = session.run(&matrices)?;
    let started = Instant::now();
    for _ in 0..WARM {
        session.run(&matrices)?;
    }
    let whole = started.elapsed() / WARM;
    let mut course = Course::default();
    let mut random = Random(5);
    let mut ended = 0;
    for number in 0..count {
        let after = whole.mul_f64(random.between(0, 90) as f64 / 100.0);
        ended += usize::from(stopped(&session, &matrices, after)?);
        if number % 10 == 0 && session.run(&matrices)? != expected {
            return Err("a run after one that was ended gives another result".into());
        }
        if (number + 1).is_multiple_of((count / 10).max(1)) {
            course.look()?;
        }
    }
    if ended < count / 4 {
        return Err(format!("only {ended} of {count} runs were ended").into());
    }
    Ok(json!({
        "runs": count,
        "ended": ended,
        "channels": channels,
        "milliseconds_of_a_whole_run": whole.as_secs_f64() * 1e3,
        "footprint": course.settled(SLACK)?,
    }))
}

/// The fewest channels, among powers of two, with which the shortest of some runs is long.
fn channels_of_a_long_run(session: &SharedSession) -> Outcome<usize> {
    let mut channels = LEAST_CHANNELS;
    while channels < MOST_CHANNELS {
        let matrices = matrices(channels);
        let mut shortest = Duration::MAX;
        for _ in 0..3 {
            let started = Instant::now();
            session.run(&matrices)?;
            shortest = shortest.min(started.elapsed());
        }
        if shortest >= LONG {
            break;
        }
        channels *= 2;
    }
    Ok(channels)
}

/// Runs the session and has another thread end that run after a while. Whether it did: the run may have been faster.
fn stopped(session: &SharedSession, inputs: &[Tensor], after: Duration) -> Outcome<bool> {
    let options = RunOptions::new()?;
    let outcome = thread::scope(|scope| {
        let ending = scope.spawn(|| {
            thread::sleep(after);
            options.terminate()
        });
        let outcome = session.run_with(inputs, &options);
        ending.join().expect("the thread does not panic")?;
        Ok::<_, ort::Error>(outcome)
    })?;
    match outcome {
        Ok(_) => Ok(false),
        Err(error) if error.to_string().contains("terminate flag") => Ok(true),
        Err(error) => Err(error),
    }
}

/// Positive definite matrices, of which `chain.onnx` takes one root after another.
fn matrices(channels: usize) -> [Tensor; 1] {
    let mut random = Random(3);
    let mut values = Vec::with_capacity(BATCH * channels * channels);
    for entry in 0..BATCH * channels * channels {
        let on_diagonal = (entry % (channels * channels)).is_multiple_of(channels + 1);
        values.push(if on_diagonal { channels as f64 } else { random.number() });
    }
    [Tensor::new(Element::Float, vec![BATCH, channels, channels], &values)]
}
