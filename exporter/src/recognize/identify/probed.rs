//! The inputs that a region is evaluated on, and their spectra.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::rc::Rc;

use anyhow::Result;
use isqrt_cov_op::{Layer, Layout, OperatorKind};

use super::spectrum::{Basis, Spectrum};
use super::{Identification, Resolution};
use crate::budget::{is_spent, spend};
use crate::recognize::probe::{DRAWN, Generator, PROBES, Probe};
use crate::tensor::{ElementType, Tensor};

/// Entries of the matrix that the search compares; the winner is judged on all of them.
const SAMPLED_ENTRIES: usize = 96;

/// Layers whose outputs are kept.
const KEPT: usize = 4;

/// Multiplications of the decomposition of a matrix for each of side³, about.
const DECOMPOSITION: usize = 8;

/// Batches of samples, each sample of the next kind of probe, with the spectra of the first of each kind: one
/// decomposition serves every cut of the region.
#[derive(Debug)]
pub struct Probed {
    /// The batches, all of one shape and type.
    pub inputs: Vec<Tensor>,
    matrices: OnceCell<Vec<Spectra>>,
    channels_first: OnceCell<Vec<Spectra>>,
    channels_last: OnceCell<Vec<Spectra>>,
    /// What layers give, sample by sample.
    expected: RefCell<Vec<(Layer, Expected)>>,
    /// What tells these inputs from others.
    key: OnceCell<u64>,
    unexplained: Unexplained,
}

/// Numbers, by what tells them and the inputs apart, that no attributes explain, with the nearest ones. A graph moves what it
/// computes, and all that it moves is searched, perhaps several times.
pub type Unexplained = Rc<RefCell<HashMap<u64, Option<Identification>>>>;

/// What a layer gives for each sample; none where it does not take them.
type Expected = Option<Rc<Vec<Vec<f64>>>>;

/// The spectra of a sample.
#[derive(Debug)]
pub struct Spectra {
    sample: Vec<f64>,
    channels: usize,
    operator: OperatorKind,
    layout: Layout,
    centered: (OnceCell<Spectrum>, OnceCell<Basis>),
    uncentered: (OnceCell<Spectrum>, OnceCell<Basis>),
}

impl Spectra {
    /// Those of one sample, to be worked out when they are asked for.
    #[must_use]
    pub fn new(sample: Vec<f64>, channels: usize, operator: OperatorKind, layout: Layout) -> Self {
        let (centered, uncentered) = Default::default();
        Self { sample, channels, operator, layout, centered, uncentered }
    }

    /// Takes from the budget what the spectrum of a sample of this size takes.
    ///
    /// # Errors
    /// More than is left.
    pub fn spend(channels: usize, positions: usize) -> Result<()> {
        let side = channels.min(positions);
        spend(&[DECOMPOSITION, side, side, channels])
    }

    /// The spectrum of what `layer` takes the root of.
    pub fn of(&self, layer: &Layer) -> &Spectrum {
        self.cells(layer).0.get_or_init(|| match self.operator {
            OperatorKind::MatrixSqrt => Spectrum::of_matrix(&self.sample, self.channels),
            _ => Spectrum::of_features(&self.sample, self.channels, self.layout, layer.centered),
        })
    }

    /// Its part in the [`sampled_entries`].
    pub fn basis(&self, layer: &Layer) -> &Basis {
        self.cells(layer).1.get_or_init(|| self.of(layer).at(&sampled_entries(self.channels)))
    }

    fn cells(&self, layer: &Layer) -> &(OnceCell<Spectrum>, OnceCell<Basis>) {
        if layer.centered { &self.centered } else { &self.uncentered }
    }
}

/// Inputs of shape `dims`, in float64, on which the attributes of `operator` show: as many batches as it takes until
/// every kind of probe was there. None where to make them takes more than is left of the budget.
#[must_use]
pub fn inputs(operator: OperatorKind, dims: &[usize]) -> Option<Vec<Tensor>> {
    drawn(operator, dims, PROBES.len().div_ceil(dims[0]))
}

/// The first of these batches.
#[must_use]
pub fn first_input(operator: OperatorKind, dims: &[usize]) -> Option<Tensor> {
    drawn(operator, dims, 1)?.pop()
}

fn drawn(operator: OperatorKind, dims: &[usize], batches: usize) -> Option<Vec<Tensor>> {
    let all: usize = dims.iter().product();
    // A matrix is a product of what is drawn.
    let product = if operator == OperatorKind::MatrixSqrt { dims[1] + 2 } else { 1 };
    spend(&[batches, all, DRAWN.max(product)]).ok()?;
    let mut generator = Generator::new(7);
    let mut probes = PROBES.iter().cycle();
    let mut batch = || batch(operator, dims, probes.by_ref().take(dims[0]), &mut generator);
    Some((0..batches).map(|_| batch()).collect())
}

/// A batch of this probe.
#[must_use]
pub fn extreme(operator: OperatorKind, dims: &[usize], probe: &Probe) -> Tensor {
    batch(operator, dims, std::iter::repeat_n(probe, dims[0]), &mut Generator::new(11))
}

/// A sample of each of the probes.
fn batch<'a>(
    operator: OperatorKind,
    dims: &[usize],
    probes: impl Iterator<Item = &'a Probe>,
    generator: &mut Generator,
) -> Tensor {
    let one = [&[1], &dims[1..]].concat();
    let sample = |probe: &Probe| match operator {
        OperatorKind::MatrixSqrt => probe.matrices(generator, &one),
        _ => probe.features(generator, &one),
    };
    Tensor::from_f64(ElementType::F64, dims, &probes.flat_map(sample).collect::<Vec<_>>())
}

impl Probed {
    /// Inputs whose spectra are not known yet.
    #[must_use]
    pub fn new(inputs: Vec<Tensor>) -> Self {
        let (matrices, channels_first, channels_last, expected, key, unexplained) = Default::default();
        Self { inputs, matrices, channels_first, channels_last, expected, key, unexplained }
    }

    /// Shares what is not explained with others.
    pub fn share(&mut self, unexplained: &Unexplained) {
        self.unexplained = Rc::clone(unexplained);
    }

    /// The inputs' shape.
    #[must_use]
    pub fn dims(&self) -> &[usize] {
        self.inputs.first().map_or(&[], Tensor::dims)
    }

    /// What `layer` gives for each sample, which `compute` says where it is not known: a region is cut in several ways
    /// that compute the same.
    pub fn expected(&self, layer: &Layer, compute: impl FnOnce() -> Option<Vec<Vec<f64>>>) -> Expected {
        let mut known = self.expected.borrow_mut();
        if let Some((_, expected)) = known.iter().find(|(known, _)| known == layer) {
            return expected.clone();
        }
        let expected = compute().map(Rc::new);
        if known.len() == KEPT {
            known.remove(0);
        }
        known.push((*layer, expected.clone()));
        expected
    }

    /// What `search` finds of numbers with this key, which it is asked for once where it explains nothing.
    pub fn identified(
        &self,
        key: u64,
        resolution: Resolution,
        search: impl FnOnce() -> Option<Identification>,
    ) -> Option<Identification> {
        let mut hasher = DefaultHasher::new();
        let inputs = self.key.get_or_init(|| of_numbers(&self.inputs));
        let resolved = [resolution.tolerance, resolution.noise].map(f64::to_bits);
        (key, inputs, self.dims(), resolved).hash(&mut hasher);
        let key = hasher.finish();
        if let Some(known) = self.unexplained.borrow().get(&key) {
            return known.clone();
        }
        let found = search();
        let explains = found.as_ref().is_some_and(|found| found.evidence.error <= resolution.tolerance);
        if !explains && !is_spent() {
            self.unexplained.borrow_mut().insert(key, found.clone());
        }
        found
    }

    /// The spectra of the first sample of each kind of probe.
    /// None where to decompose them would take too long.
    pub fn spectra(&self, operator: OperatorKind, layout: Layout, channels: usize) -> Option<&[Spectra]> {
        let cell = match (operator, layout) {
            (OperatorKind::MatrixSqrt, _) => &self.matrices,
            (_, Layout::ChannelsFirst) => &self.channels_first,
            (_, Layout::ChannelsLast) => &self.channels_last,
        };
        if cell.get().is_none() {
            let positions = self.dims()[1..].iter().product::<usize>().checked_div(channels)?;
            PROBES.iter().try_for_each(|_| Spectra::spend(channels, positions)).ok()?;
        }
        Some(cell.get_or_init(|| {
            samples(&self.inputs)
                .take(PROBES.len())
                .map(|sample| Spectra::new(sample, channels, operator, layout))
                .collect()
        }))
    }
}

/// What tells numbers from others: not their shape beyond the number of samples, which says nothing of what they are.
pub fn of_numbers(batches: &[Tensor]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for batch in batches {
        batch.dims().first().hash(&mut hasher);
        batch.to_f64().iter().for_each(|number| number.to_bits().hash(&mut hasher));
    }
    hasher.finish()
}

/// The samples of all batches, one after another.
pub fn samples(batches: &[Tensor]) -> impl Iterator<Item = Vec<f64>> + '_ {
    batches.iter().flat_map(|batch| {
        let values = batch.to_f64();
        let size = batch.dims()[1..].iter().product::<usize>().max(1);
        values.chunks_exact(size).map(<[f64]>::to_vec).collect::<Vec<_>>()
    })
}

/// Some entries (row ≤ column) of a matrix, both on and off the diagonal, spread over all of it.
#[must_use]
pub fn sampled_entries(side: usize) -> Vec<(usize, usize)> {
    let mut generator = Generator::new(1);
    let mut entries = std::collections::BTreeSet::from([(0, 0), (0, side - 1), (side - 1, side - 1), (0, 1)]);
    let all = side * (side + 1) / 2;
    while entries.len() < SAMPLED_ENTRIES.min(all) {
        let mut pick = || (generator.bits() % side as u64) as usize;
        let (one, other) = (pick(), pick());
        entries.insert((one.min(other), one.max(other)));
    }
    // Shuffled, so that the first few already are a fair sample.
    let mut entries: Vec<_> = entries.into_iter().collect();
    for index in (1..entries.len()).rev() {
        entries.swap(index, (generator.bits() % (index as u64 + 1)) as usize);
    }
    entries
}
