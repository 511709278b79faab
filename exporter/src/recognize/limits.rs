//! Whether a layer may stand for what gives the same numbers on ordinary inputs: what a graph limits, chooses or keeps from
//! being 0 shows on others only.

use isqrt_cov_op::{Layer, OperatorKind};

use super::blank::blank;
use super::identify::Resolution;
use super::judge;
use super::observe::Subject;
use super::odd::Odd;
use super::probe::{EXTREMES, FAINT, PROBES, Probe};
use super::probed::{Probed, extreme};
use crate::evaluate::{Evaluator, Precision};
use crate::graph::ValueId;
use crate::runtime::Runtime;
use crate::tensor::{ElementType, Tensor};

/// Why something is no layer that is one on ordinary inputs.
pub enum Limit {
    /// It is another function on inputs like these, in words after "on inputs": something inside limits it.
    Inside(String),
    /// A graph that asks for a NaN puts a number where the operator would give 0, on inputs that are 0 everywhere.
    OfBlank,
}

impl Subject<'_> {
    /// Lets `layer` stand for `output`, which gives the same on the probes, and where nothing else can be told. Says whether it
    /// is guarded: whether the graph keeps a divisor from 0 by a number so small that it shows on inputs next to 0 only, where
    /// what it changes is less than rounding does to ordinary outputs.
    ///
    /// # Errors
    /// Why it may not.
    pub fn stands(&self, layer: &Layer, output: ValueId, runtime: &dyn Runtime) -> Result<bool, Limit> {
        let guarded = self.stands_inside(layer, output, runtime).map_err(Limit::Inside)?;
        if self.fills_blank(layer, output, runtime) { Err(Limit::OfBlank) } else { Ok(guarded) }
    }

    /// The same but for a NaN that the graph asks for. The error is inputs, in words, on which `output` is not what `layer`
    /// gives.
    fn stands_inside(&self, layer: &Layer, output: ValueId, runtime: &dyn Runtime) -> Result<bool, String> {
        let (dims, tolerance) = (&self.dims()[..], Resolution::exact(self.seen.element).tolerance);
        let part = self.part(&[output]);
        let departs = |input: Tensor, beside: f64, amplified: f64| {
            let distance = self.distance_on(&part, vec![input], layer, beside, runtime);
            distance.is_some_and(|distance| distance > amplified * tolerance)
        };
        let of = |probe: &Probe| extreme(layer.operator, dims, probe);
        let about = |probe: &Probe| format!("of about {:.0e}", probe.scale);
        let [small, large] = &EXTREMES;
        // What a root loses of a trace that is next to 0 is little beside an ordinary root.
        let mut beside = 0.0;
        if departs(of(small), beside, 1.0) {
            beside = ordinary(layer, &of(&PROBES[0])).ok_or_else(|| about(small))?;
            if let Some(probe) = FAINT.iter().find(|probe| departs(of(probe), beside, 1.0)) {
                return Err(about(probe));
            }
        }
        if departs(of(large), beside, 1.0) {
            return Err(about(large));
        }
        // Sums, products, quotients and powers that are the same on some inputs are so on all, but for a constant that is
        // faint beside every number and not beside 0.
        let flow = &self.place.flow;
        let bends = flow.between(self.input, output).into_iter().any(|node| flow.bends(node));
        let odds = if bends { &Odd::ALL[..] } else { &[Odd::Sparse] };
        if layer.operator != OperatorKind::MatrixSqrt {
            let shows = |odd: &&Odd| departs(odd.inputs(layer, dims), beside, odd.amplifies());
            if let Some(odd) = odds.iter().find(shows) {
                return Err(odd.words().to_owned());
            }
        }
        if bends && departs(blank(layer, dims), beside, 1.0) {
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
            _ => Ok(beside > 0.0),
        }
    }
}

/// The largest number that a layer gives for ordinary inputs. None where what it gives is no smaller for small ones, or so much
/// smaller that a comparison tells nothing.
fn ordinary(layer: &Layer, inputs: &Tensor) -> Option<f64> {
    let is_root = layer.operator != OperatorKind::CovariancePooling && layer.compensated;
    let largest = is_root.then(|| judge::largest(layer, &Probed::new(vec![inputs.clone()])))?;
    largest.filter(|&largest| largest > 0.0)
}
