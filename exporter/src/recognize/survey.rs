//! One look at the whole model with concrete input shapes: the sizes that its values have there.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result, ensure};
use isqrt_cov_proto::onnx::tensor_shape_proto::dimension;
use isqrt_cov_proto::onnx::{GraphProto, ModelProto, TensorProto, ValueInfoProto};

use super::places::Place;
use super::probe::Generator;
use crate::evaluate::budget;
use crate::evaluate::{Evaluator, Precision, Watcher};
use crate::graph::{Kind, ValueId};
use crate::runtime::Runtime;
use crate::scope::Scope;
use crate::tensor::{ElementType, Tensor};

/// What was seen.
#[derive(Debug, Default)]
pub struct Survey {
    seen: HashMap<(Scope, String), Seen>,
    /// Why not everything was.
    pub failure: Option<String>,
}

/// A value as it came out the first time.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The value, floating-point numbers in float64.
    pub tensor: Tensor,
    /// The element type that the graph gives it.
    pub element: ElementType,
}

/// Sizes for the axes that a model leaves open, tried until it runs.
pub struct Sizes {
    /// Of the first axis. Several samples show whether a region mixes them; but some models that leave the axis open
    /// hold a size of it inside.
    batches: [usize; 3],
    /// (the first other such axis, the rest). Different sizes come first: equal ones hide a transposition.
    extents: [(usize, usize); 12],
}

/// The sizes that layers are looked for with.
pub const SIZES: Sizes = Sizes {
    batches: [2, 1, 8],
    extents: [
        (9, 7),
        (14, 12),
        (32, 32),
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
};

/// Other sizes, the second larger than the first: what is found must be the same there.
pub const OTHER_SIZES: Sizes = Sizes {
    batches: [3, 1, 16],
    extents: [
        (10, 12),
        (15, 18),
        (48, 48),
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
};

/// Larger ones, for what sizes decide.
pub const LARGE_SIZES: Sizes = Sizes {
    batches: [17, 1, 32],
    extents: [
        (36, 40),
        (66, 63),
        (64, 64),
        (128, 128),
        (384, 384),
        (22, 22),
        (42, 42),
        (30, 30),
        (48, 48),
        (72, 72),
        (112, 112),
        (192, 192),
    ],
};

/// What a model is evaluated with.
#[derive(Clone, Copy)]
pub struct Trial<'t> {
    /// The shapes of the user's data.
    pub known: Known<'t>,
    /// The sizes for axes that are open still.
    pub sizes: &'t Sizes,
    /// Whether a few numbers are far larger than most.
    pub heavy: bool,
}

impl<'t> Trial<'t> {
    /// Ordinary numbers in these sizes.
    pub fn of(sizes: &'t Sizes) -> Self {
        Self { known: None, sizes, heavy: false }
    }
}

/// The shapes of the user's data, where there are any: one for each input, initializers left out.
pub type Known<'k> = Option<&'k [Vec<usize>]>;

/// Whether a model leaves sizes open, so that [`OTHER_SIZES`] are other ones.
pub fn leaves_sizes_open(graph: &GraphProto) -> bool {
    let [one, other] =
        [(2, (9, 7)), (3, (10, 12))].map(|(batch, extents)| entries(graph, None, batch, extents));
    matches!((one, other), (Ok(one), Ok(other)) if one != other)
}

/// The shapes of the inputs with the first of these sizes, or those `known`; none where one has no shape.
pub fn shapes(graph: &GraphProto, known: Known<'_>, sizes: &Sizes) -> Vec<Vec<usize>> {
    let entries = entries(graph, known, sizes.batches[0], sizes.extents[0]).unwrap_or_default();
    entries.into_iter().map(|entry| entry.dims).collect()
}

/// Evaluates the model with the first input sizes that it takes, and keeps the `wanted` values of its `places` and what
/// regions cut out there need from outside. Operators that regions do not hold are left to `runtime`.
///
/// # Errors
/// A model of which nothing wanted can be evaluated with any of the sizes.
pub fn survey(
    model: &ModelProto,
    places: &[Place],
    wanted: &[(usize, ValueId)],
    &Trial { known, sizes, heavy }: &Trial<'_>,
    runtime: &dyn Runtime,
) -> Result<Survey> {
    let graph = places[0].flow.graph;
    let mut watch = Watch::new(places, wanted);
    let evaluator = Evaluator::new(model, Precision::Exact, Some(runtime))?;
    let mut best = Survey::default();
    let mut tried: Vec<Vec<Fed>> = Vec::new();
    let tries = sizes.batches.into_iter().flat_map(|batch| sizes.extents.map(|extents| (batch, extents)));
    for (batch, extents) in tries {
        let entries = entries(graph, known, batch, extents)?;
        let mut together = 0_usize;
        let is_too_much = |entry: &&Fed| {
            together = together.saturating_add(entry.elements());
            together > MOST_ELEMENTS
        };
        if let Some(large) = entries.iter().find(is_too_much) {
            best.failure.get_or_insert_with(|| {
                format!("input `{}` of shape {:?} is too large", large.name, large.dims)
            });
            continue;
        }
        if tried.contains(&entries) {
            continue;
        }
        let mut generator = Generator::new(1);
        let inputs: Vec<Tensor> =
            entries.iter().map(|entry| random(&mut generator, entry.element, &entry.dims, heavy)).collect();
        let outcome = evaluator.watch(&inputs, &mut watch);
        let (seen, kept) = (std::mem::take(&mut watch.seen), std::mem::take(&mut watch.kept));
        let mut survey = Survey { seen, failure: None };
        let shapes: Vec<String> =
            entries.iter().map(|entry| format!("`{}` {:?}", entry.name, entry.dims)).collect();
        let problem = match outcome {
            Err(error) => format!("{error:#}"),
            Ok(_) if kept > MOST_KEPT => {
                format!("what layers may read has {kept} elements together, of which {MOST_KEPT} are kept")
            }
            Ok(_) => return Ok(survey),
        };
        survey.failure = Some(format!("with inputs {}: {problem}", shapes.join(", ")));
        // What comes before the place of failure was still seen.
        if survey.seen.len() > best.seen.len() || best.failure.is_none() {
            best = survey;
        }
        tried.push(entries);
    }
    if known.is_none() && leaves_sizes_open(graph) {
        best.failure
            .iter_mut()
            .for_each(|failure| failure.push_str("; data of the right sizes may be given with --inputs"));
    }
    let failure = best.failure.as_deref().unwrap_or("no input sizes to try");
    ensure!(
        wanted.iter().any(|&(place, value)| best.get(places, place, value).is_some()),
        "{} could not evaluate the model{}, {failure}",
        runtime.name(),
        runtime.advice()
    );
    Ok(best)
}

impl Seen {
    /// The value in the element type that the graph gives it.
    #[must_use]
    pub fn declared(&self) -> Tensor {
        if self.tensor.element_type().is_float() {
            Tensor::from_f64(self.element, self.tensor.dims(), &self.tensor.to_f64())
        } else {
            self.tensor.clone()
        }
    }
}

impl Survey {
    /// What was seen of a value of `places[place]`.
    #[must_use]
    pub fn get(&self, places: &[Place], place: usize, value: ValueId) -> Option<&Seen> {
        let (place, value) = source(places, place, value);
        let Place { scope, flow, .. } = &places[place];
        self.seen.get(&(scope.clone(), flow.names[value].to_owned()))
    }

    /// The values of `places[place]` that do not depend on the elements of data but come from outside of what can be
    /// cut out there: those that depend on shapes, and constants of the graphs around it.
    #[must_use]
    pub fn frozen(&self, places: &[Place], place: usize) -> Vec<TensorProto> {
        let here = &places[place];
        let given = |&value: &ValueId| {
            let name = here.flow.names[value];
            let (source, id) = source(places, place, value);
            let from = &places[source].flow;
            if from.producer[id].is_none()
                && let Some(tensor) = from.graph.initializer.iter().find(|tensor| tensor.name() == name)
            {
                return (source != place).then(|| tensor.clone());
            }
            Some(self.get(places, source, id)?.declared().to_proto(name))
        };
        leaves(here).iter().filter_map(given).collect()
    }
}

/// Values of a place that regions need from outside.
fn leaves(place: &Place) -> Vec<ValueId> {
    let flow = &place.flow;
    let is_leaf = |value: ValueId| match flow.producer[value] {
        Some(node) => flow.kind[value] == Kind::Shape && flow.data_reads(node).next().is_some(),
        None => flow.kind[value] != Kind::Data && !place.scope.is_main(),
    };
    (0..flow.names.len()).filter(|&value| is_leaf(value)).collect()
}

/// The place, this one or one around it, that makes a value, and the value there.
#[must_use]
pub fn source(places: &[Place], mut place: usize, mut value: ValueId) -> (usize, ValueId) {
    loop {
        let here = &places[place];
        let name = here.flow.names[value];
        let is_own = here.flow.producer[value].is_some() || is_given(here.flow.graph, name);
        let Some(outer) = here.outer.filter(|_| !is_own) else { return (place, value) };
        let Some(id) = places[outer].flow.id(name) else { return (place, value) };
        (place, value) = (outer, id);
    }
}

fn is_given(graph: &GraphProto, name: &str) -> bool {
    graph.initializer.iter().any(|tensor| tensor.name() == name)
        || graph.input.iter().any(|input| input.name() == name)
}

/// Elements of values that are kept, at most.
const MOST_KEPT: usize = 1 << 26;

/// Keeps the values asked for.
struct Watch {
    wanted: HashMap<Scope, HashSet<String>>,
    seen: HashMap<(Scope, String), Seen>,
    /// Elements of all that was to be kept.
    kept: usize,
}

impl Watch {
    fn new(places: &[Place], wanted: &[(usize, ValueId)]) -> Self {
        let mut all: HashMap<Scope, HashSet<String>> = HashMap::new();
        let concerned: HashSet<usize> = wanted.iter().map(|&(place, _)| place).collect();
        let outside = concerned
            .into_iter()
            .flat_map(|place| leaves(&places[place]).into_iter().map(move |value| (place, value)));
        for (place, value) in wanted.iter().copied().chain(outside) {
            let (place, value) = source(places, place, value);
            let place = &places[place];
            all.entry(place.scope.clone()).or_default().insert(place.flow.names[value].to_owned());
        }
        Self { wanted: all, seen: HashMap::new(), kept: 0 }
    }
}

impl Watcher for Watch {
    fn wants(&self, scope: &Scope, name: &str) -> bool {
        self.wanted.get(scope).is_some_and(|names| names.contains(name))
    }

    fn saw(&mut self, scope: &Scope, name: &str, value: &Tensor, declared: ElementType) {
        // Whatever a layer reads is among them.
        budget::add_for(value.dims());
        if let Entry::Vacant(place) = self.seen.entry((scope.clone(), name.to_owned())) {
            self.kept = self.kept.saturating_add(value.dims().iter().product());
            if self.kept <= MOST_KEPT {
                place.insert(Seen { tensor: value.clone(), element: declared });
            }
        }
    }
}

/// Normally distributed numbers, or some thousand times as large and `heavy` ones, or 0 for types that are not floating-point.
fn random(generator: &mut Generator, element: ElementType, dims: &[usize], heavy: bool) -> Tensor {
    if !element.is_float() {
        return Tensor::zeros(element, dims);
    }
    let number = |normal: f64| if heavy { 1e3 * normal.powi(5) } else { normal };
    let values: Vec<f64> = (0..dims.iter().product()).map(|_| number(generator.normal())).collect();
    Tensor::from_f64(element, dims, &values)
}

/// An input of the model with the size it is tried with.
#[derive(Debug, PartialEq)]
struct Fed {
    name: String,
    element: ElementType,
    dims: Vec<usize>,
}

/// Elements that the inputs may have together, at most: hostile models ask for any number.
const MOST_ELEMENTS: usize = 1 << 25;

impl Fed {
    fn elements(&self) -> usize {
        self.dims.iter().fold(1, |product, &dim| product.saturating_mul(dim))
    }
}

/// The graph's inputs, initializers left out, with sizes for the axes that have none.
fn entries(graph: &GraphProto, known: Known<'_>, batch: usize, extents: (usize, usize)) -> Result<Vec<Fed>> {
    let initialized: HashSet<&str> = graph.initializer.iter().map(TensorProto::name).collect();
    let mut symbols: HashMap<String, usize> = HashMap::new();
    let inputs = graph.input.iter().filter(|value| !initialized.contains(value.name()));
    let inputs = inputs.enumerate().map(|(index, value)| {
        let known = known.and_then(|known| known.get(index)).map(Vec::as_slice);
        entry(value, known, batch, extents, &mut symbols)
    });
    inputs.collect()
}

fn entry(
    value: &ValueInfoProto,
    known: Option<&[usize]>,
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
    let Some(shape) = &tensor.shape else {
        let known = known.with_context(|| {
            format!("graph input `{name}` has no rank; give data of the right shape with --inputs")
        })?;
        return Ok(Fed { name: name.to_owned(), element, dims: of_batch(known) });
    };
    let mut unknown = 0;
    let mut dims = Vec::with_capacity(shape.dim.len());
    for (axis, dim) in shape.dim.iter().enumerate() {
        let mut fresh = || {
            if let Some(&size) = known.and_then(|known| known.get(axis)).filter(|_| axis > 0) {
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
                *symbols.entry(symbol.clone()).or_insert_with(&mut fresh)
            }
            _ => fresh(),
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
        let entry = entry(&value, None, 2, (9, 7), &mut HashMap::new()).unwrap();
        assert_eq!(entry.dims, [2, 8, 9, 7, 9]);
    }

    #[test]
    fn data_tell_the_sizes_of_open_axes() {
        let mut value = ValueInfoProto::of_any_shape("x", DataType::Float);
        let dims = |value: &ValueInfoProto, known| {
            Some(entry(value, known, 2, (9, 7), &mut HashMap::new()).ok()?.dims)
        };
        assert_eq!(dims(&value, None), None);
        assert_eq!(dims(&value, Some(&[100, 3, 20])), Some(vec![2, 3, 20]));
        let size = |size: usize| Dimension::from(size);
        value = ValueInfoProto::tensor("x", DataType::Float, [size(4), size(3), Dimension::default()]);
        assert_eq!(dims(&value, Some(&[100, 3, 20])), Some(vec![4, 3, 20]));
    }
}
