//! What sessions are given to do: inputs of `mixed.onnx` and what one thread makes of them.

use isqrt_cov_tests::{Element, Outcome, Random, SharedSession, Tensor};

/// One case in this many is larger than the last layers of small networks.
const LARGE: usize = 100;

/// Inputs, and the outputs that they have to give, bit by bit.
#[derive(Debug)]
pub struct Case {
    pub inputs: Vec<Tensor>,
    pub outputs: Vec<Tensor>,
}

impl Case {
    /// `count` of them, in every type, shape and batch. `session` has one thread, and nobody else runs it.
    pub fn some(session: &SharedSession, count: usize) -> Outcome<Vec<Self>> {
        let mut random = Random(11);
        let case = |number: usize| {
            let most = if number.is_multiple_of(LARGE) { [128, 144] } else { [64, 64] };
            let inputs: Vec<_> = Element::ALL.map(|element| input(&mut random, element, most)).into();
            let outputs = session.run(&inputs)?;
            if outputs.iter().flat_map(Tensor::values).any(|value| !value.is_finite()) {
                return Err("an output is not finite".into());
            }
            Ok(Self { inputs, outputs })
        };
        (0..count).map(case).collect()
    }

    /// Whether `session` gives the same bits.
    pub fn holds(&self, session: &SharedSession) -> Outcome<bool> {
        Ok(session.run(&self.inputs)? == self.outputs)
    }
}

/// Of the shape [N, C, M]; one in five is empty, so that runs differ in what there is to do at all.
fn input(random: &mut Random, element: Element, [channels, positions]: [usize; 2]) -> Tensor {
    // One node divides by the positions less one.
    let shape = vec![random.between(0, 4), size(random, 3, channels), size(random, 2, positions)];
    let values: Vec<f64> = (0..shape.iter().product()).map(|_| random.number()).collect();
    Tensor::new(element, shape, &values)
}

/// From `least` to `greatest`; twice as large is as likely as half as large.
fn size(random: &mut Random, least: usize, greatest: usize) -> usize {
    let span = greatest as f64 / least as f64;
    (least as f64 * span.powf(random.number().abs())).round() as usize
}
