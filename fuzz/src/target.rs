//! What is fuzzed, and with what it begins.

use std::path::PathBuf;

use fastrand::Rng;

use crate::files;
use crate::memory::Memory;
use crate::mutation::Bytes;
use crate::targets::{archive, arrays, checkpoint, graph, kernel, model, recognition, safetensors};

/// Something that takes any bytes.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// What it is called.
    pub name: &'static str,
    /// Works on an input; panics where something is wrong.
    run: fn(&[u8]),
    /// Changes an input, with the help of something that changes bytes without knowing what they mean.
    mutate: fn(&mut Vec<u8>, &mut Rng, Bytes<'_>),
    /// Folders of the project, and the endings of the files in them that are inputs.
    seeds: &'static [(&'static str, &'static [&'static str])],
    /// One of so many of them is enough for libFuzzer, which works on each before it changes any.
    pub one_of: usize,
    /// What an input may cost.
    memory: Memory,
}

const TORCH: &[&str] = &[".pth", ".pt", ".tar"];
const MIB: usize = 1 << 20;

/// Everything that is fuzzed.
pub const TARGETS: [Target; 6] = [
    Target {
        name: "checkpoint",
        run: checkpoint::run,
        mutate: archive::mutate,
        seeds: &[("tests/corpus/checkpoints", TORCH)],
        one_of: 1,
        memory: Memory { constant: MIB, factor: 400 },
    },
    Target {
        name: "model",
        run: model::run,
        mutate: model::mutate,
        seeds: &[("tests/corpus", &[".onnx"]), ("proto/tests/data", &[".onnx"])],
        one_of: 1,
        memory: Memory { constant: MIB, factor: 400 },
    },
    Target {
        name: "recognition",
        run: recognition::run,
        mutate: graph::mutate,
        seeds: &[("tests/corpus", &[".onnx"])],
        one_of: 8,
        // The evaluator may hold 2 GiB, and makes the next tensor beside them.
        memory: Memory { constant: 3 << 30, factor: 400 },
    },
    Target {
        name: "kernel",
        run: kernel::run,
        mutate: kernel::mutate,
        seeds: &[],
        one_of: 1,
        memory: Memory { constant: 4 * MIB, factor: 400 },
    },
    Target {
        name: "safetensors",
        run: checkpoint::run,
        mutate: safetensors::mutate,
        seeds: &[("tests/corpus/checkpoints", &[".safetensors", ".index.json"])],
        one_of: 1,
        memory: Memory { constant: MIB, factor: 400 },
    },
    Target {
        name: "arrays",
        run: arrays::run,
        mutate: archive::mutate,
        seeds: &[("tests/corpus", &[".npz", ".npy"])],
        one_of: 1,
        // The archive reader sets room aside for as many entries as a directory counts, up to 65,535 of 216 bytes.
        memory: Memory { constant: 16 * MIB, factor: 5_000 },
    },
];

impl Target {
    /// The target called `name`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        TARGETS.into_iter().find(|target| target.name == name)
    }

    /// Works on an input, and says how many bytes it had allocated at most at one time.
    ///
    /// # Panics
    /// If the input does what none may.
    #[must_use]
    pub fn run(&self, input: &[u8]) -> usize {
        self.memory.hold(input.len(), || (self.run)(input))
    }

    /// Changes an input into another one; `bytes` changes bytes without knowing what they mean.
    pub fn mutate(&self, input: &mut Vec<u8>, random: &mut Rng, bytes: Bytes<'_>) {
        (self.mutate)(input, random, bytes);
    }

    /// The files that fuzzing begins with, in an order that is always the same.
    #[must_use]
    pub fn seeds(&self) -> Vec<PathBuf> {
        self.seeds.iter().flat_map(|&(folder, endings)| files::below(folder, endings)).collect()
    }

    /// The files that fuzzing found something with.
    #[must_use]
    pub fn findings(&self) -> Vec<PathBuf> {
        files::below(&format!("fuzz/findings/{}", self.name), &[""])
    }
}
