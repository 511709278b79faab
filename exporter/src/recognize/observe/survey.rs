//! One look at the whole model with concrete input shapes: the sizes that its values have there.

use std::cell::OnceCell;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use anyhow::{Result, ensure};
use isqrt_cov_proto::onnx::{ModelProto, TensorProto};

use super::trial::{Chosen, Fed, Trial, Try, beyond, leaves_sizes_open};
use crate::budget;
use crate::evaluate::{Evaluator, Precision, Watcher};
use crate::graph::{Kind, NodeId, ValueId};
use crate::recognize::propose::places::Place;
use crate::runtime::{Mistake, Runtime, advice};
use crate::scope::Scope;
use crate::tensor::{ElementType, Tensor};

/// What was seen.
#[derive(Debug, Default)]
pub struct Survey {
    seen: HashMap<(Scope, String), Seen>,
    /// The shapes of what products of data made.
    shapes: HashMap<(Scope, String), Vec<usize>>,
    /// For each place what regions there need from outside, once it was asked for.
    frozen: Vec<OnceCell<Vec<TensorProto>>>,
    /// With which sizes, where the model ran.
    pub chosen: Option<Chosen>,
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

/// Positions that a feature map has, at least, where sizes allow: the covariance of one is 0, and that of a few hides much.
const POSITIONS: usize = 6;

/// How many other sizes are tried, once the model runs, for maps of so many positions.
const WIDER: usize = 4;

/// Elements of inputs that are tried in any case.
const CHEAP: usize = 1 << 20;

/// Evaluates the model with the first input sizes that it takes and that leave no map but a few positions, if there are such,
/// and keeps the `wanted` values of its `places` and what regions cut out there need from outside. Operators that regions do
/// not hold are left to `runtime`.
///
/// # Errors
/// A model of which nothing wanted can be evaluated with any of the sizes.
pub fn survey(
    model: &ModelProto,
    places: &[Place],
    wanted: &[(usize, ValueId)],
    trial: &Trial<'_>,
    runtime: &dyn Runtime,
) -> Result<Survey> {
    let graph = places[0].flow.graph;
    let tries = trial.tries(graph)?;
    let mut watch = Watch::new(places, wanted);
    let evaluator = Evaluator::new(model, Precision::Exact, Some(runtime))?;
    let mut best = Survey::default();
    let mut ran: Option<(usize, Survey)> = None;
    let mut sizes: Vec<Vec<Vec<usize>>> = Vec::new();
    let mut problems = HashSet::new();
    let mut failures = 0;
    let mut largest = 0;
    let mut most = trial.sizes.most;
    let mut is_too_much = true;
    // Of shapes that are held inside: which numbers of samples have not filled them at these sizes.
    let mut held: HashMap<(usize, usize), Vec<Misfit>> = HashMap::new();
    for Try { entries, chosen, is_long } in tries {
        if held.get(&chosen.extents).is_some_and(|misfits| rule_out(misfits, chosen.batch)) {
            continue;
        }
        // What goes wrong the same way at every size is not the sizes' fault: no more than that is spent on it.
        let elements = entries.iter().map(Fed::elements).fold(0, usize::saturating_add);
        let cheap = if failures < 2 * trial.sizes.extents.len() { largest.max(CHEAP) } else { CHEAP >> 6 };
        let is_costly = is_long || elements > cheap;
        if is_costly && ran.is_none() && problems.len() == 1 {
            continue;
        }
        largest = largest.max(elements);
        // Sizes beside the batch: another batch makes no map wider.
        let beside = entries.iter().map(|entry| entry.dims.get(1..).unwrap_or_default().to_vec()).collect();
        if ran.is_some() && sizes.contains(&beside) {
            continue;
        }
        if sizes.len() > WIDER {
            break;
        }
        if let Some(large) = beyond(&entries, most) {
            best.failure.get_or_insert_with(|| {
                format!("input `{}` of shape {:?} is too large", large.name, large.dims)
            });
            continue;
        }
        // What a size takes that is too large must not be missing at others.
        let (outcome, is_spent) = budget::within_half(u64::MAX, || {
            let outcome = trial.numbers(&entries).and_then(|inputs| evaluator.watch(&inputs, &mut watch));
            (outcome, budget::is_spent())
        });
        if is_spent {
            most = elements.saturating_sub(1);
        }
        let (seen, kept) = (std::mem::take(&mut watch.seen), std::mem::take(&mut watch.kept));
        let shapes = std::mem::take(&mut watch.shapes);
        let frozen = places.iter().map(|_| OnceCell::new()).collect();
        let mut survey = Survey { seen, shapes, frozen, chosen: None, failure: None };
        let inputs: Vec<String> =
            entries.iter().map(|entry| format!("`{}` {:?}", entry.name, entry.dims)).collect();
        let problem = match outcome {
            Err(error) => {
                if let Some(Mistake::Shape { from, to }) = error.downcast_ref() {
                    let [had, needed] = [from, to].map(|dims| dims.iter().product());
                    held.entry(chosen.extents).or_default().push(Misfit { batch: chosen.batch, had, needed });
                }
                // What runs a single node names it once more.
                let mut causes: Vec<String> = error.chain().map(ToString::to_string).collect();
                causes.dedup();
                causes.join(": ") + advice(runtime, &error)
            }
            Ok(_) if kept > MOST_KEPT => {
                format!("what layers may read has {kept} elements together, of which {MOST_KEPT} are kept")
            }
            Ok(_) => {
                sizes.push(beside);
                let narrow = survey.narrow(places, wanted);
                if ran.as_ref().is_none_or(|(least, _)| narrow < *least) {
                    ran = Some((narrow, Survey { chosen: Some(chosen), ..survey }));
                }
                if narrow == 0 {
                    break;
                }
                continue;
            }
        };
        survey.failure = Some(format!("with inputs {}: {problem}", inputs.join(", ")));
        problems.insert(problem);
        failures += 1;
        is_too_much &= is_spent;
        // What comes before the place of failure was still seen.
        if survey.seen.len() > best.seen.len() || best.failure.is_none() {
            best = survey;
        }
    }
    if let Some((_, survey)) = ran {
        return Ok(survey.budgeted());
    }
    // What is the same with all sizes is not theirs.
    if trial.known.is_none() && leaves_sizes_open(graph) && problems.len() != 1 {
        best.failure
            .iter_mut()
            .for_each(|failure| failure.push_str("; data of the right sizes may be given with --inputs"));
    }
    let failure = best.failure.as_deref().unwrap_or("no input sizes to try");
    ensure!(
        !is_too_much && wanted.iter().any(|&(place, value)| best.get(places, place, value).is_some()),
        "{} could not evaluate the model, {failure}",
        runtime.name()
    );
    Ok(best.budgeted())
}

/// A shape that so many samples do not fill.
struct Misfit {
    batch: usize,
    /// Elements that there were, and that the shape has.
    had: usize,
    needed: usize,
}

/// Whether two numbers of samples show that `batch` does not fill the shape: it is the same for both, and what there is grows with them.
fn rule_out(misfits: &[Misfit], batch: usize) -> bool {
    let [one, other, ..] = misfits else { return false };
    let is_held = one.needed == other.needed && one.needed > 0 && one.batch != other.batch;
    let grows = one.had > 0 && one.had * other.batch == other.had * one.batch;
    is_held && grows && one.had * batch != one.needed * one.batch
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
    /// The survey, with what layers take that read what was seen added to the budget: what was added in a try ended with it.
    fn budgeted(self) -> Self {
        self.seen.values().for_each(|seen| budget::add_for(seen.tensor.dims()));
        self
    }

    /// What was seen of a value of `places[place]`.
    #[must_use]
    pub fn get(&self, places: &[Place], place: usize, value: ValueId) -> Option<&Seen> {
        let (place, value) = source(places, place, value);
        let Place { scope, flow, .. } = &places[place];
        self.seen.get(&(scope.clone(), flow.names[value].to_owned()))
    }

    /// The shape of what a node makes that multiplies data with data.
    #[must_use]
    pub fn shape(&self, place: &Place, product: NodeId) -> Option<&[usize]> {
        let name = place.flow.graph.node[product].output.first()?;
        self.shapes.get(&(place.scope.clone(), name.clone())).map(Vec::as_slice)
    }

    /// How many of the `wanted` values are maps of but a few positions, wherever their channels are.
    fn narrow(&self, places: &[Place], wanted: &[(usize, ValueId)]) -> usize {
        let is_narrow = |seen: &&Seen| {
            let dims = seen.tensor.dims();
            let positions = |axes: &[usize]| axes.iter().product::<usize>();
            dims.len() >= 3
                && positions(&dims[1..]) != 1
                && positions(&dims[2..]).min(positions(&dims[1..dims.len() - 1])) < POSITIONS
        };
        wanted.iter().filter_map(|&(place, value)| self.get(places, place, value)).filter(is_narrow).count()
    }

    /// The values of `places[place]` that do not depend on the elements of data but come from outside of what can be
    /// cut out there: those that depend on shapes, and constants of the graphs around it.
    #[must_use]
    pub fn frozen(&self, places: &[Place], place: usize) -> &[TensorProto] {
        self.frozen.get(place).map_or(&[], |frozen| frozen.get_or_init(|| self.outside(places, place)))
    }

    fn outside(&self, places: &[Place], place: usize) -> Vec<TensorProto> {
        let here = &places[place];
        let given = |&value: &ValueId| {
            let name = here.flow.names[value];
            let (source, id) = source(places, place, value);
            let from = &places[source].flow;
            if from.producer[id].is_none()
                && let Some(tensor) = from.initializer(id)
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
        let Some(outer) = here.outer.filter(|_| !here.flow.is_own(value)) else { return (place, value) };
        let Some(id) = places[outer].flow.id(name) else { return (place, value) };
        (place, value) = (outer, id);
    }
}

/// Elements of values that are kept, at most.
const MOST_KEPT: usize = 1 << 26;

/// Keeps the values asked for.
struct Watch {
    wanted: HashMap<Scope, HashSet<String>>,
    /// What products of data make, of which the shapes are kept.
    products: HashMap<Scope, HashSet<String>>,
    shapes: HashMap<(Scope, String), Vec<usize>>,
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
        let products = places.iter().map(|Place { scope, flow, products, .. }| {
            let made = products.iter().filter_map(|&product| flow.graph.node[product].output.first());
            (scope.clone(), made.cloned().collect())
        });
        let (shapes, seen) = Default::default();
        Self { wanted: all, products: products.collect(), shapes, seen, kept: 0 }
    }
}

/// Whether a name is among those of its graph.
fn holds(names: &HashMap<Scope, HashSet<String>>, scope: &Scope, name: &str) -> bool {
    names.get(scope).is_some_and(|names| names.contains(name))
}

impl Watcher for Watch {
    fn wants(&self, scope: &Scope, name: &str) -> bool {
        holds(&self.wanted, scope, name) || holds(&self.products, scope, name)
    }

    fn saw(&mut self, scope: &Scope, name: &str, value: &Tensor, declared: ElementType) {
        if holds(&self.products, scope, name) {
            self.shapes.entry((scope.clone(), name.to_owned())).or_insert_with(|| value.dims().to_vec());
        }
        if !holds(&self.wanted, scope, name) {
            return;
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_that_is_held_tells_which_numbers_of_samples_do_not_fill_it() {
        let misfits = |misfits: [(usize, usize, usize); 2]| {
            misfits.map(|(batch, had, needed)| Misfit { batch, had, needed })
        };
        let ruled_out = |all: [(usize, usize, usize); 2], batch| rule_out(&misfits(all), batch);
        // Eight heads of four samples, and maps too small for any number.
        let heads = [(2, 2 * 64 * 49, 32 * 8 * 49), (1, 64 * 49, 32 * 8 * 49)];
        assert_eq!([4, 8, 32].map(|batch| ruled_out(heads, batch)), [false, true, true]);
        let small = [(3, 3 * 768, 8192), (1, 768, 8192)];
        assert!((1..40).all(|batch| ruled_out(small, batch)));
        // Pairs of samples, a shape made of their number, and nothing that tells.
        let pairs = [(2, 4 * 80, 25 * 80), (1, 80, 25 * 80)];
        assert!(!(1..40).any(|batch| ruled_out(pairs, batch)));
        assert!(!ruled_out([(2, 128, 0), (1, 64, 0)], 8) && !ruled_out([(2, 128, 32), (1, 64, 16)], 8));
        assert!(!rule_out(&misfits(small)[..1], 2) && !ruled_out([(2, 0, 64), (1, 0, 64)], 8));
    }
}
