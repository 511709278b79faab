//! The shapes on which two models are compared: what both agree to take, with sizes for the axes left open.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail, ensure};

use super::Alignment;
use super::cases::BATCHES;
use crate::recognize::probe::Generator;
use crate::signature::{Dim, Signature};
use crate::tensor::{ElementType, Tensor};

/// Sizes tried for the open axes of images, until the reference runs: one that five halvings leave 2×2, then the usual.
const IMAGES: [usize; 4] = [64, 224, 32, 299];
/// The same for feature maps and sequences. Graphs may hold a centering matrix of M×M, so they start small.
const FEATURES: [usize; 5] = [14, 7, 32, 64, 1];

/// Integers that are drawn of what may pick something, where nothing says of how many.
const FEW: usize = 4;

/// What is tried last of the only open axis: what is heard is long.
const LENGTHS: [usize; 4] = [128, 600, 4000, 16_000];
/// The same of several.
const LARGE: [usize; 2] = [128, 512];

/// The size that is tried beside one that the models run at.
pub(super) fn larger(extent: usize) -> usize {
    extent + extent.div_ceil(2)
}

/// Whether two models can be run on the same inputs.
#[derive(Debug, Clone)]
pub enum Agreement {
    /// They can.
    On(Common),
    /// They are not run: no two models that compute the same function could look like this. Why, for people.
    NotRun(String),
}

/// What two models have in common.
#[derive(Debug, Clone)]
pub struct Common {
    /// How their inputs and outputs correspond.
    pub alignment: Alignment,
    /// The inputs that both take.
    pub shapes: Shapes,
}

impl Common {
    /// What the candidate gets where the reference gets this for each of its inputs.
    #[must_use]
    pub fn fed<T: Clone>(&self, given: &[T]) -> Vec<T> {
        self.alignment.inputs.iter().map(|&index| given[index].clone()).collect()
    }
}

/// The inputs that both models take, some axes still open.
#[derive(Debug, Clone, PartialEq)]
pub struct Shapes {
    inputs: Vec<Input>,
    /// Of how many samples an open batch is a multiple.
    folded: usize,
}

#[derive(Debug, Clone, PartialEq)]
struct Input {
    name: String,
    element: ElementType,
    dims: Vec<Axis>,
    /// As [`Port::rows`](crate::signature::Port::rows).
    rows: Option<usize>,
    /// Numbers of the user's that it may hold, where those are no floating-point ones.
    known: Vec<f64>,
}

/// Numbers of an input that are remembered to draw from.
const REMEMBERED: usize = 1 << 12;

/// An axis: of a given size, or open under a key that all axes of the same size share.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Axis {
    Size(usize),
    Open(String),
}

/// Elements that the inputs may have together.
const MOST_ELEMENTS: usize = 1 << 27;

impl Agreement {
    /// What `reference` and `candidate` both take, in the order of the reference's inputs. `known` gives the shapes of
    /// the user's data, where there are any: they settle every axis but the first.
    ///
    /// # Errors
    /// An input without element type or rank; inputs larger than models are run on.
    pub fn of(reference: &Signature, candidate: &Signature, known: Option<&[Vec<usize>]>) -> Result<Self> {
        let alignment = match Alignment::of(reference, candidate) {
            Ok(alignment) => alignment,
            Err(reason) => return Ok(Self::NotRun(reason)),
        };
        let mut inputs = Vec::new();
        let mut settled: BTreeMap<String, usize> = BTreeMap::new();
        for (index, port) in reference.inputs.iter().enumerate() {
            let twin = alignment.inputs.iter().position(|&fed| fed == index).map(|at| &candidate.inputs[at]);
            let name = &port.name;
            let element = port.element.or(twin.and_then(|twin| twin.element));
            let element = element.with_context(|| format!("input `{name}` has no element type"))?;
            let known = known.map(|known| &known[index]);
            let dims = port.dims.clone().or_else(|| known.map(|dims| vec![Dim::Unknown; dims.len()]));
            let dims = dims.with_context(|| {
                format!(
                    "input `{name}` has no shape, not even a rank; give data of the right shape with --inputs"
                )
            })?;
            let twin_dims = twin.and_then(|twin| twin.dims.as_deref());
            if let Some(twin_dims) = twin_dims
                && twin_dims.len() != dims.len()
            {
                return Ok(Self::NotRun(format!(
                    "input `{name}` has rank {} in one model and {} in the other",
                    dims.len(),
                    twin_dims.len()
                )));
            }
            let mut axes = Vec::new();
            for (axis, dim) in dims.iter().enumerate() {
                let other = match twin_dims.map(|dims| &dims[axis]) {
                    Some(Dim::Fixed(size)) => Some(*size),
                    _ => known.filter(|_| axis > 0).map(|dims| dims[axis]),
                };
                axes.push(match (dim, other) {
                    (Dim::Fixed(size), Some(other)) if *size != other => {
                        return Ok(Self::NotRun(format!(
                            "axis {axis} of input `{name}` is {size} in one model and {other} in the other"
                        )));
                    }
                    (Dim::Fixed(size), _) => Axis::Size(*size),
                    (Dim::Named(key), other) => {
                        settled.extend(other.map(|other| (key.clone(), other)));
                        Axis::Open(key.clone())
                    }
                    (Dim::Unknown, Some(other)) => Axis::Size(other),
                    (Dim::Unknown, None) => Axis::Open(format!("{name}.{axis}")),
                });
            }
            inputs.push(Input {
                name: name.clone(),
                element,
                dims: axes,
                rows: port.rows,
                known: Vec::new(),
            });
        }
        for axis in inputs.iter_mut().flat_map(|input| &mut input.dims) {
            if let Axis::Open(key) = axis
                && let Some(&size) = settled.get(key)
            {
                *axis = Axis::Size(size);
            }
        }
        let shapes = Shapes { inputs, folded: 1 };
        shapes.check_greatest()?;
        Ok(Self::On(Common { alignment, shapes }))
    }

    /// What they have in common.
    ///
    /// # Errors
    /// Nothing: why they are not run.
    pub fn common(&self) -> Result<&Common> {
        match self {
            Self::On(common) => Ok(common),
            Self::NotRun(reason) => bail!("{reason}"),
        }
    }
}

impl Shapes {
    /// Looks at how large the inputs are at the greatest sizes that are tried.
    ///
    /// # Errors
    /// As [`Shapes::check`].
    pub fn check_greatest(&self) -> Result<()> {
        let greatest = |sizes: &[usize]| sizes.iter().copied().max().unwrap_or(1);
        let extent = greatest(self.extents());
        self.check(&self.sized(greatest(&self.batches()), (extent, larger(extent))))
    }

    /// Looks at how large inputs of these shapes are.
    ///
    /// # Errors
    /// Ones that are larger than models are run on.
    pub fn check(&self, sized: &[Vec<usize>]) -> Result<()> {
        let mut together = 0_usize;
        for (input, dims) in self.inputs.iter().zip(sized) {
            together =
                together.saturating_add(dims.iter().fold(1, |product, &dim| product.saturating_mul(dim)));
            ensure!(
                together <= MOST_ELEMENTS,
                "input `{}` of shape {dims:?} is too large: inputs may have {MOST_ELEMENTS} elements together",
                input.name
            );
        }
        Ok(())
    }

    /// The keys of open first axes: the batch.
    fn batch_keys(&self) -> BTreeSet<&str> {
        let first = self.inputs.iter().filter_map(|input| input.dims.first());
        first.filter_map(|axis| if let Axis::Open(key) = axis { Some(key.as_str()) } else { None }).collect()
    }

    /// Whether the number of samples is open.
    #[must_use]
    pub fn open_batch(&self) -> bool {
        !self.batch_keys().is_empty()
    }

    /// The same with so many samples, where that is open.
    #[must_use]
    pub fn with_batch(&self, batch: usize) -> Self {
        let keys = self.batch_keys();
        let settled = |axis: &Axis| match axis {
            Axis::Open(key) if keys.contains(key.as_str()) => Axis::Size(batch),
            other => other.clone(),
        };
        let input = |input: &Input| Input { dims: input.dims.iter().map(settled).collect(), ..input.clone() };
        Self { inputs: self.inputs.iter().map(input).collect(), ..*self }
    }

    /// The same with multiples of so many samples, where their number is open.
    #[must_use]
    pub fn with_folded(&self, samples: usize) -> Self {
        Self { folded: samples, ..self.clone() }
    }

    /// Of how many samples their number is a multiple, where it is open.
    #[must_use]
    pub(super) fn folded(&self) -> usize {
        if self.open_batch() { self.folded } else { 1 }
    }

    /// The numbers of samples that are tried, in this order.
    #[must_use]
    pub(super) fn batches(&self) -> Vec<usize> {
        if self.open_batch() {
            BATCHES.map(|batch| batch * self.folded).to_vec()
        } else {
            vec![self.fixed_batch()]
        }
    }

    /// The least number of samples, not below this one, that the models take at a time.
    pub(super) fn whole_batch(&self, samples: usize) -> usize {
        if self.open_batch() { samples.next_multiple_of(self.folded) } else { self.fixed_batch() }
    }

    /// Whether an axis other than the batch is open.
    #[must_use]
    pub fn open_extent(&self) -> bool {
        let batch = self.batch_keys();
        let mut axes = self.inputs.iter().flat_map(|input| &input.dims);
        axes.any(|axis| matches!(axis, Axis::Open(key) if !batch.contains(key.as_str())))
    }

    /// Whether every input that leaves such an axis open looks like an image: rank 4 with at most 4 channels.
    #[must_use]
    pub fn looks_like_images(&self) -> bool {
        let open = |input: &&Input| input.dims.iter().skip(1).any(|axis| matches!(axis, Axis::Open(_)));
        let image = |input: &Input| input.dims.len() == 4 && matches!(input.dims[1], Axis::Size(1..=4));
        self.inputs.iter().filter(open).all(image)
    }

    /// Inputs of these shapes for which images hold numbers from 0 to 255 and the rest is [`random`](Self::random); none where nothing is an image.
    #[must_use]
    pub(super) fn random_images(&self, shapes: &[Vec<usize>], seed: u64) -> Option<Vec<Tensor>> {
        let mut random = Generator::new(seed);
        let mut inputs = self.random(shapes, seed);
        let mut any = false;
        for (input, tensor) in self.inputs.iter().zip(&mut inputs) {
            // Half a precise number holds no sum of such.
            let is_precise = matches!(input.element, ElementType::F32 | ElementType::F64);
            if is_precise && matches!(tensor.dims(), [_, 1 | 3 | 4, _, _] | [_, _, _, 1 | 3 | 4]) {
                let dims = tensor.dims().to_vec();
                let values: Vec<f64> =
                    (0..dims.iter().product()).map(|_| (256.0 * random.uniform()).floor()).collect();
                *tensor = Tensor::from_f64(input.element, &dims, &values);
                any = true;
            }
        }
        any.then_some(inputs)
    }

    /// Sizes to try for such axes.
    pub(super) fn extents(&self) -> &'static [usize] {
        if self.looks_like_images() { &IMAGES } else { &FEATURES }
    }

    /// Sizes to try where the model runs at none of those, and inputs of them are not too large.
    pub(super) fn last_extents(&self) -> impl Iterator<Item = usize> {
        let has_one = self.sized(1, (1, 2)) == self.sized(1, (1, 3));
        let sizes = if has_one { &LENGTHS[..] } else { &LARGE };
        sizes.iter().copied().filter(|&size| self.check(&self.sized(1, (size, larger(size)))).is_ok())
    }

    /// The size of the first axis where it is fixed: the first input's that has axes.
    #[must_use]
    pub fn fixed_batch(&self) -> usize {
        let mut first = self.inputs.iter().filter_map(|input| input.dims.first());
        first.find_map(|axis| if let Axis::Size(size) = axis { Some(*size) } else { None }).unwrap_or(1)
    }

    /// The shape of each input with `batch` samples; the first of the other open axes has the first extent, all others have
    /// the second.
    #[must_use]
    pub fn sized(&self, batch: usize, (first, others): (usize, usize)) -> Vec<Vec<usize>> {
        let keys = self.batch_keys();
        let is_batch = |key: &str| keys.contains(key);
        let mut open = self.inputs.iter().flat_map(|input| &input.dims).filter_map(|axis| match axis {
            Axis::Open(key) if !is_batch(key) => Some(key),
            _ => None,
        });
        let leading = open.next();
        let size = |axis: &Axis| match axis {
            Axis::Size(size) => *size,
            Axis::Open(key) if is_batch(key) => batch,
            Axis::Open(key) if Some(key) == leading => first,
            Axis::Open(_) => others,
        };
        self.inputs.iter().map(|input| input.dims.iter().map(size).collect()).collect()
    }

    /// Has integers and truth values drawn from those of the user's `inputs`: lengths, classes and the like, of which not any will do.
    pub(super) fn draw_from(&mut self, inputs: &[Tensor]) {
        for (input, tensor) in
            self.inputs.iter_mut().zip(inputs).filter(|(input, _)| !input.element.is_float())
        {
            let values = tensor.to_f64();
            let step = values.len().div_ceil(REMEMBERED).max(1);
            input.known = values.into_iter().step_by(step).collect();
        }
    }

    /// Random inputs of these shapes: standard normal numbers; integers and truth values as the user's data have them, where there are
    /// such, else bytes over their whole range, other integers over the rows of the table that they pick, or from 0 to 3 (small enough
    /// for an index), and either truth value.
    #[must_use]
    pub fn random(&self, shapes: &[Vec<usize>], seed: u64) -> Vec<Tensor> {
        let tensor = |(input, dims): (&Input, &Vec<usize>)| {
            // Each input its own stream, so that two inputs of one shape differ.
            let mut random = Generator::new(input.name.bytes().fold(seed, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3).rotate_left(23)
            }));
            input.random(dims, &mut random)
        };
        self.inputs.iter().zip(shapes).map(tensor).collect()
    }
}

impl Input {
    fn random(&self, dims: &[usize], random: &mut Generator) -> Tensor {
        fn array<T>(dims: &[usize], value: impl FnMut() -> T) -> ndarray::ArrayD<T> {
            let values = std::iter::repeat_with(value).take(dims.iter().product()).collect();
            ndarray::ArrayD::from_shape_vec(dims, values).expect("as many values as the shape says")
        }
        let bound = match self.element {
            ElementType::Bool => 2,
            ElementType::U8 | ElementType::I8 => self.rows.unwrap_or(256).min(256),
            _ => self.rows.unwrap_or(FEW),
        };
        let mut integer = || {
            let below = |random: &mut Generator, bound: usize| (random.uniform() * bound as f64) as usize;
            match self.known.len() {
                0 => below(random, bound) as i64,
                known => self.known[below(random, known)] as i64,
            }
        };
        match self.element {
            ElementType::I64 => Tensor::I64(array(dims, integer)),
            ElementType::I32 => Tensor::I32(array(dims, || integer() as i32)),
            ElementType::U32 => Tensor::U32(array(dims, || integer() as u32)),
            ElementType::I16 => Tensor::I16(array(dims, || integer() as i16)),
            ElementType::U16 => Tensor::U16(array(dims, || integer() as u16)),
            ElementType::U8 => Tensor::U8(array(dims, || integer() as u8)),
            ElementType::I8 => Tensor::I8(array(dims, || integer() as i8)),
            ElementType::Bool => Tensor::Bool(array(dims, || integer() == 1)),
            ElementType::F32 | ElementType::F64 | ElementType::F16 | ElementType::BF16 => {
                let values: Vec<f64> =
                    std::iter::repeat_with(|| random.normal()).take(dims.iter().product()).collect();
                Tensor::from_f64(self.element, dims, &values)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature::Port;

    fn port(name: &str, element: ElementType, dims: &[Dim]) -> Port {
        Port { name: name.to_owned(), element: Some(element), dims: Some(dims.to_vec()), rows: None }
    }

    fn signature(dims: &[Dim]) -> Signature {
        Signature {
            inputs: vec![port("x", ElementType::F32, dims)],
            outputs: vec![port("y", ElementType::F32, &[])],
        }
    }

    fn agreed(reference: &Signature, candidate: &Signature) -> Result<Shapes> {
        let agreement = Agreement::of(reference, candidate, None).unwrap();
        agreement.common().map(|common| common.shapes.clone())
    }

    #[test]
    fn open_axes_take_the_sizes_asked_for() {
        let model = signature(&[Dim::Named("n".into()), Dim::Fixed(3), Dim::Unknown, Dim::Unknown]);
        let shapes = agreed(&model, &model).unwrap();
        assert!(shapes.open_batch() && shapes.open_extent());
        assert_eq!(shapes.sized(2, (64, 48)), [[2, 3, 64, 48]]);
    }

    #[test]
    fn a_fixed_candidate_settles_the_axis() {
        let open = signature(&[Dim::Named("n".into()), Dim::Named("c".into())]);
        let fixed = signature(&[Dim::Fixed(8), Dim::Named("c".into())]);
        let shapes = agreed(&open, &fixed).unwrap();
        assert!(!shapes.open_batch());
        assert_eq!(shapes.fixed_batch(), 8);
        assert_eq!(shapes.sized(1, (4, 5)), [[8, 4]]);
        let other = signature(&[Dim::Fixed(7), Dim::Named("c".into())]);
        assert!(agreed(&fixed, &other).unwrap_err().to_string().contains("is 8 in one model and 7"));
    }

    /// Not any integer is a length: with one of 0 a mean is no number. Those of the user's data are.
    #[test]
    fn integers_are_drawn_from_those_of_the_data() {
        let dims = [Dim::Unknown, Dim::Fixed(50)];
        let input = |element: ElementType| port(element.name(), element, &dims);
        let model = Signature {
            inputs: [ElementType::I64, ElementType::Bool, ElementType::F32].map(input).to_vec(),
            outputs: vec![port("y", ElementType::F32, &[])],
        };
        let mut shapes = agreed(&model, &model).unwrap();
        let drawn = |shapes: &Shapes| -> [Vec<f64>; 3] {
            let tensors = shapes.random(&shapes.sized(2, (1, 1)), 1);
            [0, 1, 2].map(|input| tensors[input].to_f64())
        };
        let usual = drawn(&shapes);
        assert!(usual[0].iter().all(|number| (0.0..4.0).contains(number)) && usual[0].contains(&0.0));
        assert!(usual[1].contains(&0.0) && usual[1].contains(&1.0));
        shapes.draw_from(&[
            Tensor::I64(ndarray::arr2(&[[5, 700], [9, 5]]).into_dyn()),
            Tensor::Bool(ndarray::arr2(&[[true]]).into_dyn()),
            Tensor::F32(ndarray::arr2(&[[0.5]]).into_dyn()),
        ]);
        let own = drawn(&shapes);
        assert!(own[0].iter().all(|number| [5.0, 700.0, 9.0].contains(number)) && own[0].contains(&700.0));
        assert!(!own[1].contains(&0.0));
        assert_eq!(own[2], usual[2]);
        // Of many, some from all over.
        let many = ndarray::Array1::from_iter(0..=3 * REMEMBERED as i64).into_dyn();
        shapes.draw_from(&[Tensor::I64(many)]);
        let most = drawn(&shapes)[0].iter().copied().fold(0.0, f64::max);
        assert!(most > 2.0 * REMEMBERED as f64, "{most}");
    }

    #[test]
    fn data_settle_every_axis_but_the_first() {
        let open = [Dim::Named("n".into()), Dim::Unknown, Dim::Named("h".into())];
        let agreed = |model: &Signature| {
            let agreement = Agreement::of(model, model, Some(&[vec![5, 7, 9]])).unwrap();
            agreement.common().unwrap().shapes.clone()
        };
        assert_eq!(agreed(&signature(&open)).sized(2, (1, 1)), [[2, 7, 9]]);
        let mut unranked = signature(&open);
        unranked.inputs[0].dims = None;
        assert_eq!(agreed(&unranked).sized(2, (1, 1)), [[2, 7, 9]]);
        let other = signature(&open[..2]);
        assert!(
            self::agreed(&signature(&open), &other)
                .unwrap_err()
                .to_string()
                .contains("rank 3 in one model and 2")
        );
    }

    #[test]
    fn inputs_are_bounded_together_at_the_greatest_sizes() {
        let f32 = ElementType::F32;
        let fits = |dims: &[&[Dim]]| {
            let inputs = dims.iter().enumerate().map(|(index, dims)| port(&index.to_string(), f32, dims));
            let model = Signature { inputs: inputs.collect(), outputs: vec![] };
            Agreement::of(&model, &model, None).is_ok()
        };
        let half = [Dim::Fixed(MOST_ELEMENTS / 2)];
        assert!(fits(&[&half, &half]) && !fits(&[&half, &half, &[Dim::Fixed(1)]]));
        // Batches of up to 5, and extents of up to 64 and 96.
        assert!(!fits(&[&[Dim::Unknown, Dim::Fixed(MOST_ELEMENTS / 4)]]));
        let features = |channels| [Dim::Fixed(1), Dim::Fixed(channels), Dim::Unknown, Dim::Unknown];
        assert!(fits(&[&features(1 << 14)]) && !fits(&[&features(1 << 15)]));
    }

    #[test]
    fn the_batch_is_apart_from_other_open_axes() {
        let agreed = |dims: &[Dim]| agreed(&signature(dims), &signature(dims)).unwrap();
        let (batch, height, width) = (Dim::Named("n".into()), Dim::Named("h".into()), Dim::Unknown);
        let both = agreed(&[batch.clone(), height.clone()]);
        assert_eq!(both.with_batch(4).sized(1, (6, 6)), [[4, 6]]);
        assert!(!agreed(&[batch.clone(), Dim::Fixed(3)]).open_extent());
        for (channels, axes, is_image) in [(3, 4, true), (4, 4, true), (5, 4, false), (3, 3, false)] {
            let dims = [batch.clone(), Dim::Fixed(channels), height.clone(), width.clone()];
            assert_eq!(agreed(&dims[..axes]).looks_like_images(), is_image, "{channels} {axes}");
        }
        // What is of a given size beside an image says nothing.
        let mut beside = signature(&[batch, Dim::Fixed(3), height, width]);
        beside.inputs.push(port("z", ElementType::F32, &[Dim::Fixed(1), Dim::Fixed(64)]));
        assert!(super::tests::agreed(&beside, &beside).unwrap().looks_like_images());
    }

    #[test]
    fn random_inputs_follow_the_seed() {
        let model = signature(&[Dim::Fixed(2), Dim::Fixed(3)]);
        let shapes = agreed(&model, &model).unwrap();
        let sized = shapes.sized(1, (1, 1));
        assert_eq!(shapes.random(&sized, 1), shapes.random(&sized, 1));
        assert_ne!(shapes.random(&sized, 1), shapes.random(&sized, 2));
        let mut two = signature(&[Dim::Fixed(9), Dim::Fixed(9)]);
        two.inputs[0].element = Some(ElementType::I64);
        two.inputs.push(port("z", ElementType::U8, &[Dim::Fixed(9), Dim::Fixed(9)]));
        two.inputs.push(port("same", ElementType::U8, &[Dim::Fixed(9), Dim::Fixed(9)]));
        two.inputs.push(Port { rows: Some(200), ..two.inputs[0].clone() });
        two.inputs.push(Port { rows: Some(200), ..two.inputs[1].clone() });
        two.inputs.iter_mut().enumerate().for_each(|(at, input)| input.name = at.to_string());
        let shapes = agreed(&two, &two).unwrap();
        let random = shapes.random(&shapes.sized(1, (1, 1)), 1);
        let greatest = |at: usize| random[at].to_f64().into_iter().fold(0.0, f64::max);
        assert!(greatest(0) <= 3.0 && greatest(1) > 200.0, "an index, and a byte");
        assert!((3..5).all(|at| (100.0..200.0).contains(&greatest(at))), "rows of a table");
        assert_ne!(random[1], random[2]);
    }
}
