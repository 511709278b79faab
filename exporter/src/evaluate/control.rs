//! Nodes that hold graphs: `If`, `Loop`, `Scan`.

use anyhow::{Context, Result, bail, ensure};
use isqrt_cov_proto::onnx::ValueInfoProto;
use ndarray::{Axis, IxDyn};

use super::call::{attribute, axis, truth};
use super::plan::{Plan, Step};
use super::run::{Run, Setting, Values};
use super::value::{Array, Data, Dense, TENSOR, Value, declared, full, map_data};
use crate::budget::within_half;
use crate::tensor::ElementType;

impl<'r, 'a> Run<'r, 'a> {
    /// Evaluates a node that holds graphs.
    pub fn control(
        &mut self,
        step: &'r Step<'a>,
        inputs: &[Value],
        values: &Values,
        setting: Setting<'_, 'a>,
    ) -> Result<Vec<Value>> {
        match step.node.op_type() {
            "If" => self.branch(step, inputs, values, setting),
            "Loop" => self.repeat(step, inputs, values, setting),
            "Scan" => self.scan(step, inputs, values, setting),
            other => bail!("the operator {other} is not evaluated"),
        }
    }

    fn branch(
        &mut self,
        step: &'r Step<'a>,
        inputs: &[Value],
        values: &Values,
        setting: Setting<'_, 'a>,
    ) -> Result<Vec<Value>> {
        let condition = truth(tensor(inputs, 0)?)?;
        let (taken, other) =
            if condition { ("then_branch", "else_branch") } else { ("else_branch", "then_branch") };
        if self.is_watched()
            && let Ok(plan) = graph(step, other)
        {
            // A shape test decides between a layer and what stands in for it: both are to be seen. However this one ends, the one that
            // counts must still have what it takes.
            let nodes_left = self.nodes_left;
            drop(within_half(u64::MAX, || self.plan(plan, Vec::new(), values, setting)));
            self.nodes_left = nodes_left;
        }
        self.plan(graph(step, taken)?, Vec::new(), values, setting)
    }

    fn repeat(
        &mut self,
        step: &'r Step<'a>,
        inputs: &[Value],
        values: &Values,
        setting: Setting<'_, 'a>,
    ) -> Result<Vec<Value>> {
        let (body, around) = (graph(step, "body")?, self.alive);
        let trips = match inputs.first() {
            Some(Value::Tensor(trips)) => single(trips)?,
            _ => i64::MAX,
        };
        let mut go = match inputs.get(1) {
            Some(Value::Tensor(condition)) => truth(condition)?,
            _ => true,
        };
        let mut carried: Vec<Value> = inputs.iter().skip(2).cloned().collect();
        let scanned = body.outputs.len().checked_sub(1 + carried.len());
        let mut scanned = vec![Vec::new(); scanned.context("the body has too few outputs")?];
        let mut trip = 0;
        while go && trip < trips {
            let counter = Dense::int(full(&[], trip)?);
            let state =
                [counter.into(), Dense::bool(full(&[], true)?).into()].into_iter().chain(carried.drain(..));
            let mut outputs = self.plan(body, state.collect(), values, setting)?.into_iter();
            go = truth(tensor(&outputs.next().into_iter().collect::<Vec<_>>(), 0)?)?;
            carried = outputs.by_ref().take(inputs.len().saturating_sub(2)).collect();
            self.collect(&mut scanned, outputs)?;
            trip += 1;
        }
        for (place, scanned) in scanned.into_iter().enumerate() {
            carried.push(stacked(&scanned, body, inputs.len().saturating_sub(2) + 1 + place, 0)?);
        }
        self.alive = around;
        Ok(carried)
    }

    fn scan(
        &mut self,
        step: &'r Step<'a>,
        inputs: &[Value],
        values: &Values,
        setting: Setting<'_, 'a>,
    ) -> Result<Vec<Value>> {
        ensure!(setting.opset >= 9, "Scan of operator set 8 is not evaluated");
        let (body, around) = (graph(step, "body")?, self.alive);
        let list =
            |name: &str| attribute(step.node, setting.bindings, name).map_or(&[][..], |list| &list.ints);
        let count = attribute(step.node, setting.bindings, "num_scan_inputs")
            .map_or(0, isqrt_cov_proto::onnx::AttributeProto::i);
        let states = usize::try_from(count).ok().and_then(|count| inputs.len().checked_sub(count));
        let states = states.context("there are fewer inputs than num_scan_inputs")?;
        ensure!(body.outputs.len() >= states, "the body has too few outputs");
        let backwards = |name: &str, place: usize| list(name).get(place) == Some(&1);
        let mut parts = Vec::new();
        for place in states..inputs.len() {
            let whole = tensor(inputs, place)?;
            let place = place - states;
            let along = axis(list("scan_input_axes").get(place).copied().unwrap_or(0), whole.rank())?;
            parts.push((whole, along, backwards("scan_input_directions", place)));
        }
        let trips =
            parts.first().map(|&(whole, along, _)| whole.dims()[along]).context("nothing is scanned")?;
        let equal = parts.iter().all(|&(whole, along, _)| whole.dims()[along] == trips);
        ensure!(equal, "the scanned inputs have different lengths");
        let mut state: Vec<Value> = inputs[..states].to_vec();
        let mut scanned = vec![Vec::new(); body.outputs.len() - states];
        for trip in 0..trips {
            let part = parts.iter().map(|&(whole, along, back)| {
                let at = if back { trips - 1 - trip } else { trip };
                let data = map_data!(&whole.data, array => array.index_axis(Axis(along), at).to_shared());
                Value::from(Dense::new(whole.declared, data))
            });
            let given = state.drain(..).chain(part).collect();
            let mut outputs = self.plan(body, given, values, setting)?.into_iter();
            state = outputs.by_ref().take(states).collect();
            self.collect(&mut scanned, outputs)?;
        }
        for (place, mut scanned) in scanned.into_iter().enumerate() {
            if backwards("scan_output_directions", place) {
                scanned.reverse();
            }
            let along = list("scan_output_axes").get(place).copied().unwrap_or(0);
            state.push(stacked(&scanned, body, states + place, along)?);
        }
        self.alive = around;
        Ok(state)
    }

    /// Adds what a body has put out to each scan output; all parts are alive until the last iteration has ended.
    fn collect(&mut self, scanned: &mut [Vec<Dense>], outputs: impl Iterator<Item = Value>) -> Result<()> {
        for (scanned, value) in scanned.iter_mut().zip(outputs) {
            let Value::Tensor(part) = value else { bail!("a scan output is no tensor") };
            self.keep_alive(part.dims().iter().product::<usize>() + TENSOR)?;
            scanned.push(part);
        }
        Ok(())
    }
}

/// The parts of a scan output along a new axis; where there are none, an empty tensor of the type that the body declares.
fn stacked(parts: &[Dense], body: &Plan<'_>, output: usize, along: i64) -> Result<Value> {
    let Some(first) = parts.first() else { return none(body, output, along) };
    let along = axis(along, first.rank() + 1)?;
    let declared = first.declared;
    let mut data = Vec::with_capacity(parts.len());
    for part in parts {
        ensure!(part.declared == declared, "the parts of a scan output have different types");
        data.push(map_data!(&part.data, array => array.clone().insert_axis(Axis(along))));
    }
    Ok(Dense::new(declared, super::layout::joined(&data.iter().collect::<Vec<_>>(), along)?).into())
}

/// A scan output after no iterations.
fn none(body: &Plan<'_>, output: usize, along: i64) -> Result<Value> {
    let described = body.graph.and_then(|graph| graph.output.get(output));
    let element = described.and_then(|output| output.tensor_type()?.elem_type).filter(|&number| number != 0);
    let element = element.map_or(Ok(ElementType::F32), declared)?;
    let sizes = described.and_then(ValueInfoProto::dims).unwrap_or_default();
    let mut dims: Vec<usize> = sizes.iter().map(|size| size.size().unwrap_or(0)).collect();
    dims.insert(axis(along, dims.len() + 1)?, 0);
    super::value::elements(&dims)?;
    let empty = Data::Float(Array::from_shape_vec(IxDyn(&dims), Vec::new())?);
    Ok(Dense::new(element, empty.cast(element)).into())
}

fn graph<'p, 'a>(step: &'p Step<'a>, name: &str) -> Result<&'p Plan<'a>> {
    let graph = step.subgraphs.iter().find(|(own, _)| *own == name);
    graph.map(|(_, plan)| plan).with_context(|| format!("there is no graph `{name}`"))
}

fn tensor(values: &[Value], index: usize) -> Result<&Dense> {
    match values.get(index) {
        Some(Value::Tensor(tensor)) => Ok(tensor),
        _ => bail!("input {index} is no tensor"),
    }
}

fn single(tensor: &Dense) -> Result<i64> {
    let values = tensor.ints()?;
    ensure!(values.len() == 1, "{} trip counts", values.len());
    Ok(values.iter().copied().next().unwrap_or_default())
}
