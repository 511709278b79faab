//! The inputs that a whole model is tried with: sizes for the axes that it leaves open, and numbers.

use std::collections::HashMap;

use anyhow::{Context, Result};
use isqrt_cov_proto::onnx::tensor_shape_proto::dimension;
use isqrt_cov_proto::onnx::{GraphProto, ValueInfoProto};

use crate::budget::spend;
use crate::demands::Demands;
use crate::graph::given;
use crate::held::Asked;
use crate::recognize::probe::{DRAWN, Generator};
use crate::tensor::{ElementType, Tensor};

/// Sizes for the axes that a model leaves open, tried until it runs.
pub struct Sizes<'s> {
    /// Of the first axis. Several samples show whether a region mixes them; but some models that leave the axis open
    /// hold a size of it inside.
    pub batches: &'s [usize],
    /// (the first other such axis, the rest). Different sizes come first: equal ones hide a transposition.
    pub extents: &'s [(usize, usize)],
    /// Of the only other such axis, after these: what is heard is longer than what is seen is wide.
    pub lengths: &'s [usize],
    /// Elements that the inputs may have together, at most: hostile models ask for any number.
    pub most: usize,
}

/// For what has to be tried, and for what is tried beside it.
const MOST: usize = 1 << 25;
const MOST_BESIDE: usize = 1 << 22;

/// The sizes that layers are looked for with.
pub const SIZES: Sizes<'static> = Sizes {
    batches: &[2, 1, 8],
    extents: &[
        (9, 7),
        (14, 12),
        (32, 32),
        (80, 48),
        (160, 96),
        (64, 64),
        (224, 224),
        (7, 7),
        (14, 14),
        (8, 8),
        (16, 16),
        (28, 28),
        (56, 56),
        (128, 128),
    ],
    lengths: &[600, 4000, 16_000],
    most: MOST,
};

/// Other sizes, the second larger than the first, and so much so that what has been made smaller differs as well: what is found
/// must be the same there.
pub const OTHER_SIZES: Sizes<'static> = Sizes {
    batches: &[3, 1, 16],
    extents: &[
        (20, 26),
        (15, 18),
        (48, 48),
        (96, 144),
        (192, 288),
        (96, 96),
        (256, 256),
        (10, 10),
        (21, 21),
        (12, 12),
        (24, 24),
        (40, 40),
        (80, 80),
        (160, 160),
    ],
    lengths: &[900, 6000, 24_000],
    most: MOST,
};

/// Few samples of images from small to large, long and wide, and many samples.
pub const MORE_SIZES: [Sizes<'static>; 11] = [
    beside(&[1], &[(34, 33)]),
    beside(&[12, 16], &[(9, 7), (32, 32)]),
    beside(&[1], &[(3, 2)]),
    beside(&[1], &[(9, 100)]),
    beside(&[1], &[(100, 9)]),
    beside(&[1], &[(22, 21)]),
    beside(&[1], &[(96, 96)]),
    beside(&[40], &[(9, 7), (32, 32)]),
    beside(&[5], &[(5, 4)]),
    beside(&[130], &[(3, 2)]),
    beside(&[33], &[(70, 64)]),
];

const fn beside(batches: &'static [usize], extents: &'static [(usize, usize)]) -> Sizes<'static> {
    Sizes { batches, extents, lengths: &[], most: MOST_BESIDE }
}

/// What a model is evaluated with.
#[derive(Clone, Copy)]
pub struct Trial<'t> {
    /// The shapes of the user's data.
    pub known: Known<'t>,
    /// The sizes for axes that are open still.
    pub sizes: &'t Sizes<'t>,
    /// The numbers.
    pub numbers: Numbers,
}

/// Samples of the user's that are tried at once, at most.
const MOST_SAMPLES: usize = 64;

/// What kind of numbers a model is evaluated with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbers {
    /// Normally distributed ones.
    Normal,
    /// Some of them far larger than most.
    Heavy,
    /// Most of them 0.
    Sparse,
    /// Small ones, a third of them the same.
    Small,
}

impl Numbers {
    /// What such numbers are, after "with".
    pub fn words(self) -> &'static str {
        match self {
            Self::Normal => "ordinary numbers",
            Self::Heavy => "some far larger numbers",
            Self::Sparse => "most numbers 0",
            Self::Small => "small numbers",
        }
    }

    fn of(self, generator: &mut Generator) -> f64 {
        let normal = generator.normal();
        match self {
            Self::Normal => normal,
            Self::Heavy => 1e3 * normal.powi(5),
            Self::Sparse => (normal - 0.8).max(0.0),
            Self::Small => 1e-4 * normal.max(-0.4),
        }
    }
}

impl<'t> Trial<'t> {
    /// Ordinary numbers in these sizes.
    pub fn of(sizes: &'t Sizes<'t>) -> Self {
        Self { known: None, sizes, numbers: Numbers::Normal }
    }

    /// The inputs of `graph` in the sizes to try, one after another.
    ///
    /// # Errors
    /// An input that is no tensor, or of which neither the graph nor the data say how many axes it has.
    pub fn tries(&self, graph: &GraphProto) -> Result<Vec<Try>> {
        let mut tries: Vec<Try> = Vec::new();
        let data = self.known.and_then(|known| known.first()?.first().copied());
        let data = data.filter(|samples| (1..=MOST_SAMPLES).contains(samples));
        let demands = Demands::of(graph);
        let entries = |batch, extents| entries(graph, &demands, self.known, batch, extents);
        let has_one_length = [(1, 2), (1, 3)].map(|extents| entries(1, extents).ok());
        let has_one_length = has_one_length[0] == has_one_length[1];
        let lengths = self.sizes.lengths.iter().filter(|_| has_one_length).map(|&length| (length, 1));
        let usual = self.sizes.extents.iter().map(|&extents| (extents, false));
        let extents: Vec<_> = usual.chain(lengths.map(|extents| (extents, true))).collect();
        let asked = Asked::of(graph);
        let folded = asked.folded.into_iter();
        let folded =
            folded.flat_map(|samples| self.sizes.batches.iter().take(2).map(move |times| times * samples));
        let batches = self.sizes.batches.iter().copied().chain(folded).chain(asked.held);
        for batch in batches.chain(data) {
            for &(extents, is_long) in &extents {
                let next =
                    Try { entries: entries(batch, extents)?, chosen: Chosen { batch, extents }, is_long };
                let is_known = tries.iter().any(|other| other.entries == next.entries);
                if !(is_known || is_long && batch > MOST_LONG) {
                    tries.push(next);
                }
            }
        }
        Ok(tries)
    }

    /// Numbers for these inputs.
    ///
    /// # Errors
    /// More than are left of the budget.
    pub fn numbers(&self, inputs: &[Fed]) -> Result<Vec<Tensor>> {
        let mut generator = Generator::new(1);
        inputs.iter().map(|input| random(&mut generator, input.element, &input.dims, self.numbers)).collect()
    }
}

/// The shapes of the user's data, where there are any: one for each input, initializers left out.
pub type Known<'k> = Option<&'k [Vec<usize>]>;

/// Whether a model leaves sizes open, so that [`OTHER_SIZES`] are other ones.
pub fn leaves_sizes_open(graph: &GraphProto) -> bool {
    let demands = Demands::of(graph);
    let [one, other] =
        [(2, (9, 7)), (3, (10, 12))].map(|(batch, extents)| entries(graph, &demands, None, batch, extents));
    matches!((one, other), (Ok(one), Ok(other)) if one != other)
}

/// Inputs of so many samples, 0 throughout, of a model that leaves nothing else open; none where it does, or where they are too large
/// to be tried beside others.
pub fn samples_alone(graph: &GraphProto, known: Known<'_>, samples: usize) -> Option<Vec<Tensor>> {
    let demands = Demands::of(graph);
    let [one, other] =
        [(9, 7), (10, 12)].map(|extents| entries(graph, &demands, known, samples, extents).ok());
    let inputs = one.filter(|one| Some(one) == other.as_ref() && beyond(one, MOST_BESIDE).is_none())?;
    Some(inputs.iter().map(|input| Tensor::zeros(input.element, &input.dims)).collect())
}

/// The shapes of the inputs with the first of these sizes, or those `known`; none where one has no shape.
pub fn shapes(graph: &GraphProto, known: Known<'_>, sizes: &Sizes) -> Vec<Vec<usize>> {
    let (batch, extents) = (sizes.batches[0], sizes.extents[0]);
    let entries = entries(graph, &Demands::of(graph), known, batch, extents).unwrap_or_default();
    entries.into_iter().map(|entry| entry.dims).collect()
}

/// Numbers of a kind, or 0 for types that are not floating-point.
fn random(
    generator: &mut Generator,
    element: ElementType,
    dims: &[usize],
    numbers: Numbers,
) -> Result<Tensor> {
    if !element.is_float() {
        return Ok(Tensor::zeros(element, dims));
    }
    let count = dims.iter().product();
    spend(&[count, DRAWN])?;
    let values: Vec<f64> = (0..count).map(|_| numbers.of(generator)).collect();
    Ok(Tensor::from_f64(element, dims, &values))
}

/// An input of the model with the size it is tried with.
#[derive(Debug, PartialEq)]
pub struct Fed {
    /// What it is called.
    pub name: String,
    element: ElementType,
    /// Its shape.
    pub dims: Vec<usize>,
}

/// Samples that are tried of long inputs, at most.
const MOST_LONG: usize = 3;

/// The sizes that were chosen of those to try.
#[derive(Debug, Clone, Copy)]
pub struct Chosen {
    /// Of [`Sizes::batches`], or what the model or data say.
    pub batch: usize,
    /// Of [`Sizes::extents`].
    pub extents: (usize, usize),
}

/// The inputs of one try.
pub struct Try {
    /// Each with its size.
    pub entries: Vec<Fed>,
    /// The sizes that were chosen for them.
    pub chosen: Chosen,
    /// Whether they have one of the [`lengths`](Sizes::lengths).
    pub is_long: bool,
}

impl Fed {
    /// How many elements it has.
    pub fn elements(&self) -> usize {
        self.dims.iter().fold(1, |product, &dim| product.saturating_mul(dim))
    }
}

/// The first of the inputs with which they have more elements than so many.
pub fn beyond(inputs: &[Fed], most: usize) -> Option<&Fed> {
    let mut together = 0_usize;
    inputs.iter().find(|input| {
        together = together.saturating_add(input.elements());
        together > most
    })
}

/// The graph's inputs, initializers left out, with sizes for the axes that have none.
fn entries(
    graph: &GraphProto,
    demands: &Demands,
    known: Known<'_>,
    batch: usize,
    extents: (usize, usize),
) -> Result<Vec<Fed>> {
    let mut symbols: HashMap<String, usize> = HashMap::new();
    let inputs = given(graph).enumerate().map(|(index, value)| {
        let known = known.and_then(|known| known.get(index)).map(Vec::as_slice);
        let asked = |axis: usize, symbol: Option<&str>| demands.size(index, axis, symbol);
        entry(value, known, asked, batch, extents, &mut symbols)
    });
    inputs.collect()
}

fn entry(
    value: &ValueInfoProto,
    known: Option<&[usize]>,
    asked: impl Fn(usize, Option<&str>) -> Option<usize>,
    batch: usize,
    (first, others): (usize, usize),
    symbols: &mut HashMap<String, usize>,
) -> Result<Fed> {
    let name = value.name();
    let tensor = value.tensor_type().with_context(|| format!("graph input `{name}` is not a tensor"))?;
    let element = ElementType::from_onnx(tensor.elem_type());
    let element =
        element.with_context(|| format!("graph input `{name}` has element type {}", tensor.elem_type()))?;
    let of_batch =
        |known: &[usize]| known.iter().take(1).map(|_| batch).chain(known.iter().skip(1).copied()).collect();
    let Some(shape) = value.dims() else {
        let known = known.with_context(|| {
            format!("graph input `{name}` has no rank; give data of the right shape with --inputs")
        })?;
        return Ok(Fed { name: name.to_owned(), element, dims: of_batch(known) });
    };
    let mut unknown = 0;
    let mut dims = Vec::with_capacity(shape.len());
    for (axis, dim) in shape.iter().enumerate() {
        let mut fresh = |symbol: Option<&str>| {
            let size = known.and_then(|known| known.get(axis).copied()).filter(|_| axis > 0);
            if let Some(size) = size.or_else(|| asked(axis, symbol)) {
                return size;
            }
            unknown += usize::from(axis > 0);
            match (axis, unknown) {
                (0, _) => batch,
                (_, 1) => first,
                _ => others,
            }
        };
        dims.push(match &dim.value {
            Some(dimension::Value::DimValue(value)) if *value > 0 => usize::try_from(*value)
                .with_context(|| format!("graph input `{name}` has size {value} in axis {axis}"))?,
            Some(dimension::Value::DimParam(symbol)) if !symbol.is_empty() => {
                *symbols.entry(symbol.clone()).or_insert_with(|| fresh(Some(symbol)))
            }
            _ => fresh(None),
        });
    }
    Ok(Fed { name: name.to_owned(), element, dims })
}

#[cfg(test)]
mod tests {
    use isqrt_cov_proto::onnx::tensor_proto::DataType;
    use isqrt_cov_proto::onnx::tensor_shape_proto::Dimension;

    use super::*;

    #[test]
    fn open_axes_differ_whatever_is_known_in_front_of_them() {
        let open = |name: &str| Dimension {
            value: Some(dimension::Value::DimParam(name.to_owned())),
            ..Default::default()
        };
        let dims = [open("n"), 8.into(), open("h"), open("w"), open("h")];
        let value = ValueInfoProto::tensor("x", DataType::Float, dims);
        let entry = entry(&value, None, |_, _| None, 2, (9, 7), &mut HashMap::new()).unwrap();
        assert_eq!(entry.dims, [2, 8, 9, 7, 9]);
    }

    #[test]
    fn data_tell_the_sizes_of_open_axes() {
        let mut value = ValueInfoProto::of_any_shape("x", DataType::Float);
        let dims = |value: &ValueInfoProto, known| {
            Some(entry(value, known, |_, _| None, 2, (9, 7), &mut HashMap::new()).ok()?.dims)
        };
        assert_eq!(dims(&value, None), None);
        assert_eq!(dims(&value, Some(&[100, 3, 20])), Some(vec![2, 3, 20]));
        let size = |size: usize| Dimension::from(size);
        value = ValueInfoProto::tensor("x", DataType::Float, [size(4), size(3), Dimension::default()]);
        assert_eq!(dims(&value, Some(&[100, 3, 20])), Some(vec![4, 3, 20]));
    }
}
