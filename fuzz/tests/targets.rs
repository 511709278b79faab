//! Every target on its seeds, on what fuzzing found, and on mutations of them: the same ones each time.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use fastrand::Rng;
use isqrt_cov_fuzz::{Target, bytes};

/// What the inputs of two tests allocate at the same time would be counted together.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn arrays() {
    check("arrays", usize::MAX, 4_000);
}

#[test]
fn checkpoint() {
    check("checkpoint", usize::MAX, 20_000);
}

#[test]
fn kernel() {
    check("kernel", usize::MAX, 1_000);
}

#[test]
fn model() {
    check("model", usize::MAX, 3_000);
}

#[test]
fn recognition() {
    // The exporter's own tests look for layers in every graph of the corpus.
    check("recognition", 0, 30);
}

#[test]
fn safetensors() {
    check("safetensors", usize::MAX, 10_000);
}

/// Runs a target on every finding, on so many seeds, and on so many mutations of either; or as many mutations as the
/// environment's `MUTATIONS` says, made otherwise with another `SEED`.
fn check(name: &str, seeds: usize, mutations: usize) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let target = Target::named(name).unwrap();
    let given = |key: &str| std::env::var(key).ok().map(|value| value.parse::<u64>().unwrap());
    let mutations = given("MUTATIONS").map_or(mutations, |given| given as usize);
    let mut random = Rng::with_seed(given("SEED").unwrap_or(7));
    let start = Instant::now();

    let findings = target.findings();
    let all: Vec<PathBuf> = findings.iter().cloned().chain(target.seeds()).collect();
    let inputs: Vec<Vec<u8>> = all.iter().map(|path| fs::read(path).unwrap()).collect();
    let (mut most, mut largest) = (0.0_f64, 0);
    let mut run = |path: Option<&PathBuf>, input: &[u8]| {
        let peak = run(&target, path, input);
        most = most.max(peak as f64 / input.len().max(1024) as f64);
        largest = largest.max(peak);
        peak
    };
    for (number, (path, input)) in
        all.iter().zip(&inputs).take(findings.len().saturating_add(seeds)).enumerate()
    {
        let begun = Instant::now();
        let peak = run(Some(path), input);
        if number < findings.len() {
            println!("{}: {:?}, {} MiB", path.display(), begun.elapsed(), peak >> 20);
        }
    }
    for _ in 0..mutations {
        let chosen = random.choice(all.iter().zip(&inputs));
        let mut input = chosen.map_or_else(Vec::new, |(_, input)| input.clone());
        target.mutate(&mut input, &mut random, &mut bytes);
        run(chosen.map(|(path, _)| path), &input);
    }
    println!("{name}: {} files, {mutations} mutations, {:?}", all.len(), start.elapsed());
    println!(
        "{name}: at most {most:.0} bytes for each byte of an input of 1 KiB or more, {:.1} MiB in all",
        largest as f64 / f64::from(1 << 20)
    );
}

/// Works on an input; where that fails, it is kept, and the message says where.
fn run(target: &Target, from: Option<&PathBuf>, input: &[u8]) -> usize {
    catch_unwind(AssertUnwindSafe(|| target.run(input))).unwrap_or_else(|panic| {
        let path = std::env::temp_dir().join(format!("isqrt-cov-{}-failed", target.name));
        fs::write(&path, input).unwrap();
        let from = from.map_or_else(|| "nothing".into(), |from| from.to_string_lossy());
        eprintln!("{}: an input made of {from} failed; it is in {}", target.name, path.display());
        resume_unwind(panic)
    })
}
