//! How near the layers are to the truth: the original's and the converted model's, each against the operators' float64
//! reference on what it read itself. A proof says that two models agree; this says which of them is right.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use isqrt_cov_op::{Layer, reference};
use isqrt_cov_proto::onnx::{ModelProto, ValueInfoProto};
use serde_json::{Value, json};

use super::cases::{Case, Work, inputs_of};
use super::inside::inside;
use super::parting::{in_main_graph, output_of};
use super::report::number;
use super::{Difference, Pair, Plan, Proof};
use crate::evaluate::multiplications;
use crate::found::Found;
use crate::runtime::{Runtime, Session};
use crate::tensor::{ElementType, Tensor};

/// Multiplications that the reference may take over all layers: about a second.
pub(super) const BUDGET: f64 = 1e9;
/// Multiplications that it may take of one sample, however few samples that leaves: 1024 channels, about ten seconds.
const LARGEST: f64 = 2e10;
/// Runs of each model with random inputs, and as many with the user's data.
const RUNS: usize = 5;

/// What other inputs may do to the greatest of rounding errors: a factor.
const NOISE: f64 = 1.5;

/// A layer's errors against the float64 reference, relative to the greatest value of the reference in a run.
#[derive(Debug, Clone, Default)]
pub struct Accuracy {
    /// Of the original.
    pub before: Difference,
    /// Of the converted model.
    pub after: Difference,
    /// Samples compared.
    pub samples: usize,
}

impl Accuracy {
    /// Which of the two is nearer to the reference; `equal` where their greatest errors differ by less than other
    /// inputs would change them.
    #[must_use]
    pub fn nearer(&self) -> &'static str {
        let (before, after) = (self.before.max, self.after.max);
        if before > NOISE * after {
            "after"
        } else if after > NOISE * before {
            "before"
        } else {
            "equal"
        }
    }

    /// The errors as a JSON object; those that are infinite are `null`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let side = |difference: &Difference| json!({ "max": difference.max, "mean": difference.mean(), "p999": difference.quantile_999() });
        json!({
            "before": side(&self.before),
            "after": side(&self.after),
            "nearer": self.nearer(),
            "samples": self.samples,
        })
    }

    /// The errors in a line for people; which of the two is nearer is [`Accuracy::verdict`].
    #[must_use]
    pub fn describe(&self) -> String {
        let side = |difference: &Difference| {
            let [max, tail, mean] =
                [difference.max, difference.quantile_999(), difference.mean()].map(number);
            format!("{max} (99.9 % {tail}, mean {mean})")
        };
        format!(
            "max error {} before, {} after, on {} samples",
            side(&self.before),
            side(&self.after),
            self.samples
        )
    }

    /// Which of the two is nearer, in words.
    #[must_use]
    pub fn verdict(&self) -> &'static str {
        match self.nearer() {
            "after" => "the converted layer is nearer to the truth",
            "before" => "the original layer was nearer to the truth",
            _ => "both are as near to the truth",
        }
    }
}

impl Pair<'_> {
    /// The accuracy of each of `layers` on inputs of `proof`, which compared the two models; where a layer could not be
    /// measured, why.
    ///
    /// Both models are run again, with what the layers read and compute as outputs, on up to five pieces of the user's data and
    /// five seeds, in one shape, as long as the reference takes no more than about a second; layers in other graphs and functions
    /// are run by themselves.
    #[must_use]
    pub fn truth(&self, layers: &[Found], plan: &Plan, proof: &Proof) -> Vec<Result<Accuracy, String>> {
        let exposed: Vec<&Found> = in_main_graph(layers).collect();
        let mut measured =
            self.measure(&exposed, plan, proof).map_err(|error| format!("{error:#}")).map(Vec::into_iter);
        let one = |found: &Found| {
            if !exposed.iter().any(|exposed| std::ptr::eq(*exposed, found)) {
                return inside(found, self.runtime).map_err(|error| format!("{error:#}"));
            }
            let measured = measured.as_mut().map_err(|error| error.clone())?;
            measured.next().unwrap_or_else(|| Err("not measured".to_owned()))
        };
        layers.iter().map(one).collect()
    }

    fn measure(
        &self,
        layers: &[&Found],
        plan: &Plan,
        proof: &Proof,
    ) -> Result<Vec<Result<Accuracy, String>>> {
        if layers.is_empty() {
            return Ok(Vec::new());
        }
        // The second shape is that of a batch of two, where the batch is open.
        let case = proof.cases.get(1).or(proof.cases.first()).context("the proof ran nothing")?;
        let common = self.common()?;
        let models = [
            Watched::new(self.reference, layers, self.runtime, &case.shapes)?,
            Watched::new(self.candidate, layers, self.runtime, &common.fed(&case.shapes))?,
        ];
        let mut measured: Vec<_> = layers.iter().map(|_| Ok(Accuracy::default())).collect();
        let budget = BUDGET / layers.len() as f64;
        for work in works(plan, case) {
            let (inputs, name) = inputs_of(&work, case, &common.shapes, plan);
            let values = [models[0].run(&inputs)?, models[1].run(&common.fed(&inputs))?];
            let mut wants_more = false;
            for (index, found) in layers.iter().enumerate() {
                let Ok(accuracy) = &mut measured[index] else { continue };
                let [before, after] = values.each_ref().map(|values| &values[index]);
                match accuracy.add(&found.layer, before, after, budget, &name) {
                    Ok(more) => wants_more |= more,
                    Err(error) => measured[index] = Err(format!("{error:#}")),
                }
            }
            if !wants_more {
                break;
            }
        }
        Ok(measured)
    }
}

/// The runs: as the proof's, but all in one shape.
fn works(plan: &Plan, case: &Case) -> Vec<Work> {
    let count = plan.samples.as_ref().map_or(0, |samples| samples.count);
    let rows = (0..count).step_by(case.batch.max(1)).take(RUNS);
    let rows = rows.map(|start| Work::Rows { start, valid: case.batch.min(count - start) });
    rows.chain((1..=plan.seeds.min(RUNS)).map(Work::Seed)).collect()
}

/// What a layer read and computed in one run.
pub(super) struct Values {
    pub input: Tensor,
    pub output: Tensor,
}

impl Accuracy {
    /// Compares samples of one run, as long as the reference takes no more than `budget` multiplications over all runs; one
    /// sample always. Whether more can be compared.
    pub(super) fn add(
        &mut self,
        layer: &Layer,
        before: &Values,
        after: &Values,
        budget: f64,
        run: &str,
    ) -> Result<bool> {
        let extent = layer.extent(before.input.dims())?;
        let cost = multiplications(layer, extent);
        ensure!(
            cost <= LARGEST,
            "one sample would take the float64 reference {cost:.0e} multiplications; at most {LARGEST:.0e} are made"
        );
        let affordable = ((budget / cost).max(1.0) as usize).saturating_sub(self.samples);
        let samples = affordable.min(extent.samples);
        if samples == 0 {
            return Ok(affordable > 0);
        }
        let expected = expected(layer, &before.input, samples)?;
        let own = if after.input == before.input {
            None
        } else {
            Some(self::expected(layer, &after.input, samples)?)
        };
        let own = own.as_ref().unwrap_or(&expected);
        for (difference, expected, values) in
            [(&mut self.before, &expected, before), (&mut self.after, own, after)]
        {
            let found = first(&values.output, samples);
            ensure!(found.len() == expected.len(), "the layer's output has another size than the operator's");
            let tensor = |values: &[f64]| {
                Tensor::from_f64(ElementType::F64, &[samples, values.len() / samples], values)
            };
            difference.add(&tensor(expected), &tensor(&found), run);
        }
        self.samples += samples;
        Ok(affordable > samples)
    }
}

/// The reference's output for the first samples of `input`.
fn expected(layer: &Layer, input: &Tensor, samples: usize) -> Result<Vec<f64>> {
    let mut dims = input.dims().to_vec();
    dims[0] = samples;
    Ok(reference::evaluate(layer, &first(input, samples), &dims)?)
}

/// The elements of the first samples.
fn first(tensor: &Tensor, samples: usize) -> Vec<f64> {
    let mut values = tensor.to_f64();
    let rows = tensor.dims().first().copied().unwrap_or(1).max(1);
    values.truncate(values.len() / rows * samples);
    values
}

/// A model with what its layers read and compute as its outputs.
struct Watched<'l> {
    session: Box<dyn Session>,
    /// For each layer: where its input is to be found, and its output.
    places: Vec<(Source, usize, &'l Found)>,
}

#[derive(Clone, Copy)]
enum Source {
    Input(usize),
    Output(usize),
}

impl<'l> Watched<'l> {
    fn new(
        model: &Arc<ModelProto>,
        layers: &[&'l Found],
        runtime: &dyn Runtime,
        shapes: &[Vec<usize>],
    ) -> Result<Self> {
        let signature = crate::signature::Signature::of(model)?;
        let mut values: Vec<ValueInfoProto> = Vec::new();
        let mut place = |value: ValueInfoProto| {
            let known = values.iter().position(|other| other.name() == value.name());
            known.unwrap_or_else(|| {
                values.push(value);
                values.len() - 1
            })
        };
        let mut places = Vec::new();
        for &found in layers {
            let fed = signature.inputs.iter().position(|port| port.name == found.input);
            let input = ValueInfoProto::of_any_shape(&found.input, found.element.into());
            let source = fed.map_or_else(|| Source::Output(place(input)), Source::Input);
            places.push((source, place(output_of(found)), found));
        }
        let session = runtime.prepare_showing(model, &values, shapes)?;
        Ok(Self { session, places })
    }

    /// What each layer read and computed on `inputs`.
    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Values>> {
        let outputs = self.session.run(inputs)?;
        let one = |&(source, output, found): &(Source, usize, &Found)| {
            let input = match source {
                Source::Input(index) => &inputs[index],
                Source::Output(index) => &outputs[index],
            };
            Values {
                input: found.own_input(input.clone()),
                output: found.own_output(outputs[output].clone()),
            }
        };
        Ok(self.places.iter().map(one).collect())
    }
}

#[cfg(test)]
mod tests {
    use isqrt_cov_op::OperatorKind;

    use super::*;

    #[test]
    fn samples_are_compared_until_the_budget_is_spent() {
        let layer = Layer::new(OperatorKind::CovariancePooling);
        let input = Tensor::from_f64(ElementType::F32, &[2, 1, 2], &[1.0, 3.0, 2.0, 6.0]);
        let values = || Values {
            output: Tensor::from_f64(ElementType::F32, &[2, 1], &[1.0, 4.0]),
            input: input.clone(),
        };
        let compared = |budget: f64| -> Vec<(bool, usize)> {
            let mut accuracy = Accuracy::default();
            let mut add = || accuracy.add(&layer, &values(), &values(), budget, "a run").unwrap();
            let more = [add(), add()];
            vec![(more[0], 2.min(accuracy.samples)), (more[1], accuracy.samples)]
        };
        // A sample takes one multiplication.
        assert_eq!(compared(3.0), [(true, 2), (false, 3)]);
        assert_eq!(compared(2.0), [(false, 2), (false, 2)]);
        assert_eq!(compared(0.1), [(false, 1), (false, 1)], "one sample is always compared");
    }

    #[test]
    fn the_nearer_one_is_told_where_it_matters() {
        let layer = Layer::new(OperatorKind::IsqrtCov);
        let input =
            Tensor::from_f64(ElementType::F32, &[2, 2, 3], &[1., 2., 4., 3., 1., 0., 5., 1., 2., 2., 2., 1.]);
        let right = expected(&layer, &input, 2).unwrap();
        let values = |error: f64| {
            let output: Vec<f64> = right.iter().map(|value| value * (1.0 + error)).collect();
            Values { input: input.clone(), output: Tensor::from_f64(ElementType::F64, &[2, 3], &output) }
        };
        let nearer = |before: f64, after: f64| {
            let mut accuracy = Accuracy::default();
            accuracy.add(&layer, &values(before), &values(after), 1e9, "seed 1").unwrap();
            assert_eq!(accuracy.samples, 2);
            assert!(
                (accuracy.before.max - before).abs() < 1e-12 && (accuracy.after.max - after).abs() < 1e-12
            );
            accuracy.nearer()
        };
        assert_eq!(nearer(1e-5, 1e-6), "after");
        assert_eq!(nearer(1e-6, 1e-5), "before");
        assert_eq!(nearer(1e-6, 1.3e-6), "equal");
        assert_eq!(nearer(1.3e-6, 1e-6), "equal");
    }

    #[test]
    fn each_layer_is_held_against_what_it_read_itself() {
        let layer = Layer::new(OperatorKind::CovariancePooling);
        let values = |input: [f64; 2], output: &[f64]| Values {
            input: Tensor::from_f64(ElementType::F64, &[1, 1, 2], &input),
            output: Tensor::from_f64(ElementType::F64, &[1, output.len()], output),
        };
        let mut accuracy = Accuracy::default();
        accuracy.add(&layer, &values([1.0, 3.0], &[1.0]), &values([2.0, 6.0], &[4.0]), 1e9, "a run").unwrap();
        assert_eq!([accuracy.before.max, accuracy.after.max].map(f64::to_bits), [0.0, 0.0].map(f64::to_bits));
        let wide = values([1.0, 3.0], &[1.0, 1.0]);
        let refused = accuracy.add(&layer, &values([1.0, 3.0], &[1.0]), &wide, 1e9, "a run").unwrap_err();
        assert!(refused.to_string().contains("another size than the operator's"), "{refused}");
    }
}
