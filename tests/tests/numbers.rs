//! Numbers at the edge of what a type holds, in real sessions: a sample gives what the operators' contract says, and it gives
//! the same bits alone and in every batch, beside any other sample, on any number of threads.

use std::sync::OnceLock;

use isqrt_cov_tests::{Element, Python, Random, Runtime, SharedSession, Tensor, library, model};

/// The release whose shared library is loaded.
const RELEASE: &str = "1.32.0";
/// The sizes of the sessions.
const THREADS: [usize; 3] = [1, 2, 16];
/// The outputs of the models `numbers_*`: `turned` reads channels and positions in each other's place.
const OUTPUTS: [&str; 4] = ["layer", "turned", "covariance", "root"];

/// What is special about a sample.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    /// Nothing: numbers about 1.
    Usual,
    /// One element is this one, which is no finite number.
    Spoilt(f64),
    /// All elements are the same: a feature map without variance, and the matrix zero.
    Constant,
    /// About this large.
    Scaled(f64),
}

/// The kinds that are tried in a type, those below its least normal number first.
fn kinds(element: Element) -> Vec<Kind> {
    let scales: &[f64] = match element {
        Element::Float => &[1e-40, 1e-30, 1e-18, 1e18, 1e30],
        Element::Double => &[1e-310, 1e-150, 1e-18, 1e18, 1e150],
        Element::Float16 => &[1e-6, 1e-3, 1e2],
        Element::Bfloat16 => &[1e-39, 1e-18, 1e18],
    };
    let spoilt = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY].map(Kind::Spoilt);
    let mut kinds = vec![Kind::Usual, Kind::Constant];
    kinds.extend(spoilt);
    kinds.extend(scales.iter().map(|&scale| Kind::Scaled(scale)));
    kinds
}

/// The greatest error, relative to the greatest entry, and the least number above zero.
fn precision(element: Element) -> (f64, f64) {
    match element {
        Element::Float => (4e-6, 2.0_f64.powi(-149)),
        Element::Double => (1e-13, 2.0_f64.powi(-1074)),
        Element::Float16 => (1e-3, 2.0_f64.powi(-24)),
        Element::Bfloat16 => (8e-3, 2.0_f64.powi(-133)),
    }
}

/// A feature map [1, C, M] and a matrix [1, C, C], as the models take them.
#[derive(Clone)]
struct Sample {
    kind: Kind,
    inputs: [Tensor; 2],
}

impl Sample {
    fn new(random: &mut Random, element: Element, kind: Kind, [channels, positions]: [usize; 2]) -> Self {
        let scale = if let Kind::Scaled(scale) = kind { scale } else { 1.0 };
        let mut map: Vec<f64> = (0..channels * positions).map(|_| random.number() * scale).collect();
        // Positive definite: the diagonal outweighs the rest.
        let entry = |entry| if entry % (channels + 1) == 0 { 16.0 } else { random.number() };
        let mut matrix: Vec<f64> = (0..channels * channels).map(entry).map(|entry| entry * scale).collect();
        match kind {
            Kind::Constant => {
                map.fill(0.3);
                matrix.fill(0.0);
            }
            Kind::Spoilt(number) => {
                map[positions + 2] = number;
                // In the upper triangle, and on the diagonal where it would not be one of a norm.
                matrix[usize::from(number.is_nan())] = number;
            }
            Kind::Usual | Kind::Scaled(_) => {}
        }
        let map = Tensor::new(element, vec![1, channels, positions], &map);
        Self { kind, inputs: [map, Tensor::new(element, vec![1, channels, channels], &matrix)] }
    }

    /// The outputs in float64, with every number multiplied by a power of two that brings it near 1 and divided by what
    /// that is in each output.
    fn truth(&self) -> Vec<Vec<f64>> {
        let exponent = if let Kind::Scaled(scale) = self.kind { scale.log2().round() as i32 } else { 0 };
        let brought = |input: &Tensor, exponent: i32| {
            let values: Vec<f64> = input.values().iter().map(|value| shifted(*value, -exponent)).collect();
            Tensor::new(Element::Double, input.shape().to_vec(), &values)
        };
        // The root of 2²ⁿA is 2ⁿ times that of A.
        let half = exponent / 2;
        let inputs = [brought(&self.inputs[0], exponent), brought(&self.inputs[1], 2 * half)];
        let outputs = sessions(Element::Double)[0].run(&inputs).expect("float64 runs");
        let exponents = [exponent, exponent, 2 * exponent, half];
        let taken_back = outputs.iter().zip(exponents);
        let taken_back = taken_back.map(|(output, exponent)| {
            output.values().iter().map(|value| shifted(*value, exponent)).collect()
        });
        taken_back.collect()
    }

    /// What the sample gives alone, on one thread.
    fn alone(&self, element: Element) -> Vec<Tensor> {
        sessions(element)[0].run(&self.inputs).expect("a sample runs alone")
    }
}

/// value·2^exponent, by steps that 2^exponent itself would be too far for.
fn shifted(value: f64, exponent: i32) -> f64 {
    let half = exponent / 2;
    value * 2.0_f64.powi(half) * 2.0_f64.powi(exponent - half)
}

/// The model of a type in a session of each size. Nothing where this machine has no such runtime.
fn sessions(element: Element) -> &'static [SharedSession] {
    static SESSIONS: [OnceLock<Vec<SharedSession>>; 4] = [const { OnceLock::new() }; 4];
    SESSIONS[element as usize].get_or_init(|| {
        let runtime = runtime().expect("asked for before");
        let model = model(&format!("numbers_{}", element.name()));
        THREADS.map(|threads| runtime.session(&model, &[&library()], threads).expect("a session")).into()
    })
}

fn runtime() -> Option<&'static Runtime> {
    static RUNTIME: OnceLock<Option<Runtime>> = OnceLock::new();
    let load = || {
        let python = Python::installed(RELEASE)?;
        Some(Runtime::load(&python.shared_library()).expect("ONNX Runtime loads"))
    };
    RUNTIME.get_or_init(load).as_ref()
}

/// Holds what a sample gives alone against the contract.
fn as_promised(element: Element, sample: &Sample) {
    let outputs = sample.alone(element);
    let truths = sample.truth();
    for ((name, output), truth) in OUTPUTS.iter().zip(&outputs).zip(truths) {
        let found = output.values();
        let about = format!("{element:?}, {:?} {:?}, {name}", sample.kind, sample.inputs[0].shape());
        match sample.kind {
            Kind::Constant => assert!(found.iter().all(|&entry| entry == 0.0), "{about}: not zero"),
            // A covariance of other channels has nothing to do with it.
            Kind::Spoilt(_) if *name == "covariance" => {
                assert!(found.iter().any(|entry| entry.is_nan()), "{about}: no trace of it");
            }
            Kind::Spoilt(_) => assert!(found.iter().all(|entry| entry.is_nan()), "{about}: a number"),
            Kind::Usual | Kind::Scaled(_) => near(element, &found, &truth, &about),
        }
    }
}

/// As near to the truth as the type is precise; infinite where the type has no such number.
fn near(element: Element, found: &[f64], truth: &[f64], about: &str) {
    let (relative, least) = precision(element);
    let rounded = Tensor::new(element, vec![truth.len()], truth).values();
    if rounded.iter().any(|entry| entry.is_infinite()) {
        assert!(found.iter().any(|entry| entry.is_infinite()), "{about}: should be out of range");
        return;
    }
    let scale = truth.iter().fold(0.0, |greatest: f64, entry| greatest.max(entry.abs()));
    for (found, truth) in found.iter().zip(truth) {
        let error = (found - truth).abs();
        assert!(
            error <= relative * scale + least,
            "{about}: {found:e} is {truth:e}, {:e} off",
            error / scale
        );
    }
}

/// Holds a batch with `special` at `place` among `usual` ones against each sample alone, in sessions of every size.
fn as_alone(
    element: Element,
    special: &(Sample, Vec<Tensor>),
    usual: &[(Sample, Vec<Tensor>)],
    place: usize,
) {
    let mut samples: Vec<_> = usual.iter().collect();
    samples.insert(place, special);
    let input = |which: usize| {
        Tensor::batch(&samples.iter().map(|(sample, _)| &sample.inputs[which]).collect::<Vec<_>>())
    };
    let inputs = [input(0), input(1)];
    for (session, threads) in sessions(element).iter().zip(THREADS) {
        let outputs = session.run(&inputs).expect("a batch runs");
        for (index, (sample, alone)) in samples.iter().enumerate() {
            for ((name, output), alone) in OUTPUTS.iter().zip(&outputs).zip(alone) {
                assert!(
                    output.sample(index) == *alone,
                    "{element:?}, {:?}: {name} of sample {index} ({:?}) of {} differs beside {:?} on {threads} threads",
                    sample.inputs[0].shape(),
                    sample.kind,
                    samples.len(),
                    special.0.kind,
                );
            }
        }
    }
}

/// Every kind in batches of each size, first, in the middle and last.
fn every_kind(size: [usize; 2], kinds_of: fn(Element) -> Vec<Kind>, batches: &[usize]) {
    if runtime().is_none() {
        return;
    }
    let mut random = Random(9);
    for element in Element::ALL {
        let mut make = |kind| {
            let sample = Sample::new(&mut random, element, kind, size);
            let alone = sample.alone(element);
            (sample, alone)
        };
        let greatest = batches.iter().max().expect("there are batches");
        let usual: Vec<_> = (1..*greatest).map(|_| make(Kind::Usual)).collect();
        for kind in kinds_of(element) {
            let special = make(kind);
            as_promised(element, &special.0);
            for &batch in batches {
                let mut places = vec![0, batch / 2, batch - 1];
                places.dedup();
                for place in places {
                    as_alone(element, &special, &usual[..batch - 1], place);
                }
            }
        }
    }
}

#[test]
fn more_positions_than_channels() {
    every_kind([24, 40], kinds, &[1, 2, 3, 4, 5, 6, 7, 8, 9]);
}

#[test]
fn fewer_positions_than_channels() {
    every_kind([40, 24], kinds, &[1, 2, 3, 4, 5, 6, 7, 8, 9]);
    every_kind([40, 24], |_| vec![Kind::Usual], &[16, 17, 33]);
}

/// Large enough for every step of one sample to be divided over threads.
#[test]
fn samples_that_are_divided() {
    let kinds = |_| vec![Kind::Usual, Kind::Spoilt(f64::NAN), Kind::Constant];
    every_kind([150, 260], kinds, &[1, 2, 5]);
    every_kind([300, 130], kinds, &[1, 3]);
    // With sixteen threads, sixteen side by side and one that is divided.
    every_kind([150, 260], |_| vec![Kind::Usual], &[17]);
}
