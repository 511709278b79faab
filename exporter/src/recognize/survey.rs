//! One look at the whole model with concrete input shapes: the sizes that its values have there.

use std::collections::HashMap;

use anyhow::{Context, Result};
use isqrt_cov_proto::onnx::tensor_shape_proto::dimension;
use isqrt_cov_proto::onnx::{ModelProto, TensorProto, ValueInfoProto};

use super::probe::Generator;
use crate::extract::{Entry, extract};
use crate::graph::{Flow, Kind, ValueId};
use crate::runtime::Runtime;
use crate::tensor::{ElementType, Tensor};

/// What was seen.
#[derive(Debug)]
pub struct Survey {
    /// The values looked at, as they came out.
    pub values: HashMap<ValueId, Tensor>,
    /// Values that depend on the shapes of data, as constants: a region that is cut out needs them from outside.
    pub frozen: Vec<TensorProto>,
}

/// Sizes tried for a batch axis of unknown size: two samples show whether a region mixes them.
const BATCH: usize = 2;

/// Sizes tried for the other axes of unknown size: (the first such axis, the others). Different sizes first: equal ones
/// hide a transposition.
const SIZES: [(usize, usize); 8] =
    [(9, 7), (14, 12), (32, 32), (64, 64), (224, 224), (8, 8), (16, 16), (128, 128)];

/// Evaluates `wanted` and every shape-dependent value with the first input sizes that the model takes.
///
/// # Errors
/// A model that the runtime evaluates with none of the sizes.
pub fn survey(model: &ModelProto, flow: &Flow, wanted: &[ValueId], runtime: &dyn Runtime) -> Result<Survey> {
    let shape_leaves: Vec<ValueId> = flow
        .order
        .iter()
        .filter(|&&node| flow.data_reads(node).next().is_some())
        .flat_map(|&node| flow.outputs(node))
        .filter(|&value| flow.kind[value] == Kind::Shape)
        .collect();
    let mut first_error = None;
    let mut tried: Vec<Vec<Entry>> = Vec::new();
    for size in SIZES {
        let entries = entries(flow, size)?;
        if tried.iter().any(|other| other.iter().zip(&entries).all(|(a, b)| a.dims == b.dims)) {
            continue;
        }
        match look(model, flow, &entries, &shape_leaves, wanted, runtime) {
            Ok(survey) => return Ok(survey),
            Err(error) => first_error = first_error.or(Some(error)),
        }
        tried.push(entries);
    }
    let shapes: Vec<String> = tried
        .first()
        .into_iter()
        .flatten()
        .map(|entry| format!("`{}` {:?}", flow.names[entry.value], entry.dims))
        .collect();
    let context =
        format!("{} could not evaluate the model, with inputs {}", runtime.name(), shapes.join(", "));
    Err(first_error.map_or_else(|| anyhow::anyhow!("no input sizes to try"), |error| error.context(context)))
}

fn look(
    model: &ModelProto,
    flow: &Flow,
    entries: &[Entry],
    shape_leaves: &[ValueId],
    wanted: &[ValueId],
    runtime: &dyn Runtime,
) -> Result<Survey> {
    let mut generator = Generator::new(0);
    let inputs: Vec<Tensor> =
        entries.iter().map(|entry| random(&mut generator, entry.element, &entry.dims)).collect();
    let mut values: HashMap<ValueId, Tensor> =
        entries.iter().map(|entry| entry.value).zip(inputs.iter().cloned()).collect();
    let outputs: Vec<ValueId> = shape_leaves
        .iter()
        .chain(wanted)
        .copied()
        .filter(|value| !values.contains_key(value))
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect();
    if !outputs.is_empty() {
        let part = extract(model, flow, entries, &[], &outputs);
        let shapes: Vec<Vec<usize>> = entries.iter().map(|entry| entry.dims.clone()).collect();
        let results = runtime.prepare(&part, &shapes)?.run(&inputs)?;
        values.extend(outputs.into_iter().zip(results));
    }
    let frozen = shape_leaves.iter().map(|value| values[value].to_proto(flow.names[*value])).collect();
    Ok(Survey { values, frozen })
}

/// Normally distributed numbers, or 0 and 1 for types that are not floating-point.
fn random(generator: &mut Generator, element: ElementType, dims: &[usize]) -> Tensor {
    if !element.is_float() {
        return Tensor::zeros(element, dims);
    }
    let values: Vec<f64> = (0..dims.iter().product()).map(|_| generator.normal()).collect();
    Tensor::from_f64(element, dims, &values)
}

/// The graph's inputs, initializers left out, with sizes for the axes that have none.
fn entries(flow: &Flow, size: (usize, usize)) -> Result<Vec<Entry>> {
    let initialized =
        |value: &&ValueInfoProto| flow.id(value.name()).is_some_and(|id| flow.kind[id] == Kind::Data);
    let mut symbols: HashMap<String, usize> = HashMap::new();
    let inputs = flow.graph.input.iter().filter(initialized);
    inputs.map(|value| entry(flow, value, size, &mut symbols)).collect()
}

fn entry(
    flow: &Flow,
    value: &ValueInfoProto,
    (first, others): (usize, usize),
    symbols: &mut HashMap<String, usize>,
) -> Result<Entry> {
    let name = value.name();
    let tensor = value.tensor_type().with_context(|| format!("graph input `{name}` is not a tensor"))?;
    let element = ElementType::from_onnx(tensor.elem_type());
    let element =
        element.with_context(|| format!("graph input `{name}` has element type {}", tensor.elem_type()))?;
    let shape = tensor.shape.as_ref().with_context(|| format!("graph input `{name}` has no rank"))?;
    let mut unknown = 0;
    let mut dims = Vec::with_capacity(shape.dim.len());
    for (axis, dim) in shape.dim.iter().enumerate() {
        let fresh = if axis == 0 {
            BATCH
        } else {
            unknown += 1;
            if unknown == 1 { first } else { others }
        };
        dims.push(match &dim.value {
            Some(dimension::Value::DimValue(value)) if *value > 0 => usize::try_from(*value)
                .with_context(|| format!("graph input `{name}` has size {value} in axis {axis}"))?,
            Some(dimension::Value::DimParam(symbol)) if !symbol.is_empty() => {
                *symbols.entry(symbol.clone()).or_insert(fresh)
            }
            _ => fresh,
        });
    }
    let id = flow.id(name).context("the graph's inputs are among its values")?;
    Ok(Entry { value: id, element, dims })
}
