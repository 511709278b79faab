//! Whether a layer may stand for what gives the same numbers on ordinary inputs: what a graph limits, chooses or keeps from
//! being 0 shows on others only.

use std::collections::HashSet;

use isqrt_cov_op::{Layer, OperatorKind};

use super::blank::{Nothing, with_nothing};
use super::guards::sizes;
use super::odd::Odd;
use crate::evaluate::{Evaluator, Precision};
use crate::graph::{NodeId, ValueId};
use crate::recognize::identify::Resolution;
use crate::recognize::identify::probed::extreme;
use crate::recognize::observe::subject::Subject;
use crate::recognize::probe::{EXTREMES, PROBES, Probe};
use crate::runtime::Runtime;
use crate::tensor::{ElementType, Tensor};

/// Parts of the usual scale of what a layer reads on which it must be the same, where what keeps a divisor from 0 shows on still
/// smaller inputs.
const DOWN_TO: [f64; 4] = [1.0, 1e-1, 1e-2, 1e-3];

/// Why something is no layer that is one on ordinary inputs.
pub enum Limit {
    /// It is another function on inputs like these, in words after "on inputs": something inside limits it.
    Inside(String),
    /// A value of this name is compared with 0, and not to keep a divisor from it.
    Choice(String),
    /// A graph that asks for a NaN puts a number where the operator would give 0, on samples that are 0 everywhere, or
    /// the same.
    OfBlank,
}

impl Subject<'_> {
    /// Lets `layer` stand for `output`, which gives the same on the probes, and where nothing else can be told. Says down to which
    /// inputs, where it is not all: see [`crate::found::Evidence::down_to`]. What `has_fallback` tells is whether the model asks
    /// for a NaN anywhere behind `output` but among the nodes given.
    ///
    /// # Errors
    /// Why it may not.
    pub fn may_stand_for(
        &self,
        layer: &Layer,
        output: ValueId,
        has_fallback: &dyn Fn(&HashSet<NodeId>) -> bool,
        runtime: &dyn Runtime,
    ) -> Result<Option<f64>, Limit> {
        let down_to = self.stands_inside(layer, output, runtime).map_err(Limit::Inside)?;
        if let Some(compared) = self.no_guard(layer, output, runtime) {
            return Err(Limit::Choice(self.place.flow.names[compared].to_owned()));
        }
        let fills_blank = self.fills_blank(layer, output, has_fallback, runtime);
        if fills_blank { Err(Limit::OfBlank) } else { Ok(down_to) }
    }

    /// The same but for a NaN that the graph asks for. The error is inputs, in words, on which `output` is not what `layer`
    /// gives.
    fn stands_inside(
        &self,
        layer: &Layer,
        output: ValueId,
        runtime: &dyn Runtime,
    ) -> Result<Option<f64>, String> {
        let (dims, tolerance) = (&self.dims()[..], Resolution::exact(self.seen.element).tolerance);
        let part = self.part(&[output]);
        let distance = |input| self.distance_on(&part, vec![input], layer, runtime);
        let of = |probe: &Probe| extreme(layer.operator, dims, probe);
        let about = |probe: &Probe| format!("of about {:.0e}", probe.scale);
        let [small, large] = &EXTREMES;
        let departs = |input: Tensor, amplified: f64| {
            distance(input).is_some_and(|distance| distance > amplified * tolerance)
        };
        let mut down_to = None;
        if departs(of(small), 1.0) {
            let scale = self.usual_scale(layer).ok_or_else(|| about(small))?;
            let probes = DOWN_TO.map(|part| Probe { scale: part * scale, ..PROBES[0] });
            let is_same = |probe: &&Probe| distance(of(probe)).is_some_and(|distance| distance <= tolerance);
            if let Some(probe) = probes.iter().find(|probe| !is_same(probe)) {
                return Err(about(probe));
            }
            down_to = probes.last().map(|probe| probe.scale);
        }
        if departs(of(large), 1.0) {
            return Err(about(large));
        }
        // Sums, products, quotients and powers that are the same on some inputs are so on all, but for a constant that is
        // faint beside every number and not beside 0.
        let flow = &self.place.flow;
        let bends = flow.between(self.input, output).into_iter().any(|node| flow.bends(node));
        let odds = if bends { &Odd::ALL[..] } else { &[Odd::Sparse] };
        let is_shown = |odd: &&Odd| down_to.is_none() || !matches!(odd, Odd::Small);
        let shows = |odd: &&Odd| departs(odd.inputs(layer, dims), odd.amplifies());
        if let Some(odd) = odds.iter().filter(is_shown).find(shows) {
            return Err(odd.words().to_owned());
        }
        let blank = || with_nothing(layer, dims, Nothing::Zero, |sample| sample == 0);
        if bends && departs(blank(), 1.0) {
            return Err("of which one sample is 0 everywhere".to_owned());
        }
        // One is enough: it goes into the trace, and from there everywhere.
        let mut values = of(&PROBES[0]).to_f64();
        values[0] = f64::NAN;
        let input = Tensor::from_f64(ElementType::F64, dims, &values);
        let outputs = Evaluator::new(&part, Precision::Exact, Some(runtime))
            .and_then(|evaluator| evaluator.run(&[input]));
        let told = |outputs: &[Tensor]| {
            outputs.iter().any(|output| output.to_f64().iter().any(|value| value.is_nan()))
        };
        match outputs {
            Ok(outputs) if !told(&outputs) => Err("that hold a NaN".to_owned()),
            _ => Ok(down_to),
        }
    }

    /// The scale of what a layer reads in the model, as far as it goes into the roots, beside which what keeps a divisor from 0 may
    /// be nothing. None for what is no layer from features to roots, or has an ε of its own, which may be what shows.
    fn usual_scale(&self, layer: &Layer) -> Option<f64> {
        let is_whole = layer.operator == OperatorKind::IsqrtCov && layer.epsilon == 0.0;
        let seen = is_whole.then(|| self.view.own(self.seen.tensor.clone()))?;
        let channels = layer.extent(seen.dims()).ok()?.channels;
        let traces = sizes(layer, &seen)?.into_iter().map(|[trace, _]| trace);
        let least = traces.reduce(f64::min).filter(|least| *least > 0.0 && least.is_finite())?;
        Some((least / channels as f64).sqrt())
    }
}
