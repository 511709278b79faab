//! Inputs on which different attributes give different numbers.

use nalgebra::DMatrix;

/// Multiplications that a random number counts as: a logarithm, a root and a cosine.
pub const DRAWN: usize = 1 << 8;

/// A small deterministic generator of random numbers (SplitMix64), so that a report can be reproduced anywhere.
#[derive(Debug, Clone)]
pub struct Generator {
    state: u64,
}

impl Generator {
    /// A generator that starts from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from [0, 1).
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A number from the standard normal distribution.
    pub fn normal(&mut self) -> f64 {
        // Box–Muller; 1 − u is never zero.
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

/// The kinds of probe. Each tells apart what another cannot.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Probe {
    /// Factor on everything. Small values bring out an ε that hides beside a larger Σ.
    pub scale: f64,
    /// The amplitudes of the channels fall from 1 to this, evenly on a logarithmic scale. A steep fall leaves
    /// eigenvalues that no number of steps brings to the root, so that K can be told.
    pub least_amplitude: f64,
    /// Means of the channels, in units of their amplitude. Centered and uncentered layers differ by it.
    pub offset: f64,
}

/// The probes that every region is evaluated on.
pub const PROBES: [Probe; 4] = [
    Probe { scale: 1.0, least_amplitude: 1.0, offset: 0.5 },
    Probe { scale: 1.0, least_amplitude: 1e-4, offset: 0.5 },
    Probe { scale: 1e-2, least_amplitude: 0.1, offset: 1.0 },
    Probe { scale: 8.0, least_amplitude: 0.1, offset: 0.2 },
];

/// Probes on which limits show that no input of ordinary size reaches: a `Clip` or a `Max` of the trace, say. Float32 has
/// the traces of both.
pub const EXTREMES: [Probe; 2] = [
    Probe { scale: 1e-9, least_amplitude: 0.1, offset: 0.5 },
    Probe { scale: 1e9, least_amplitude: 0.1, offset: 0.5 },
];

impl Probe {
    /// A feature map: every sample has amplitudes and offsets of its own.
    ///
    /// The amplitude varies along every axis but the first, so that it varies along the channels whichever axis they are.
    #[must_use]
    pub fn features(&self, generator: &mut Generator, dims: &[usize]) -> Vec<f64> {
        let elements: usize = dims[1..].iter().product();
        let mut values = Vec::with_capacity(dims[0] * elements);
        for _ in 0..dims[0] {
            let (first, last) = (dims[1], dims[dims.len() - 1]);
            let by_first = self.amplitudes(generator, first);
            let by_last = self.amplitudes(generator, last);
            let inner = elements / first;
            for element in 0..elements {
                let (first_amplitude, first_offset) = by_first[element / inner];
                let (last_amplitude, last_offset) = by_last[element % last];
                let noise = generator.normal();
                values.push(
                    self.scale * first_amplitude * last_amplitude * (noise + first_offset + last_offset),
                );
            }
        }
        values
    }

    /// Symmetric positive definite matrices [N, d, d].
    #[must_use]
    pub fn matrices(&self, generator: &mut Generator, dims: &[usize]) -> Vec<f64> {
        let side = dims[1];
        let rows = self.features(generator, &[dims[0], side, side + 2]);
        products(&rows, side, side + 2)
    }

    fn amplitudes(&self, generator: &mut Generator, count: usize) -> Vec<(f64, f64)> {
        let fall = self.least_amplitude.ln() / count.max(2).saturating_sub(1) as f64;
        (0..count).map(|index| ((fall * index as f64).exp(), self.offset * generator.normal())).collect()
    }
}

/// The products of matrices [N, rows, columns] with themselves, [N, rows, rows].
#[must_use]
pub fn products(matrices: &[f64], rows: usize, columns: usize) -> Vec<f64> {
    let mut values = Vec::with_capacity(matrices.len() / columns * rows);
    for sample in matrices.chunks_exact(rows * columns) {
        let sample = DMatrix::from_row_slice(rows, columns, sample);
        let product = &sample * sample.transpose();
        // One triangle twice: the two may be rounded differently.
        let mirrored = |(row, column)| product[(usize::min(row, column), usize::max(row, column))];
        values.extend((0..rows * rows).map(|at| mirrored((at / rows, at % rows))));
    }
    values
}
