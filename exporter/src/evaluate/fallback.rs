//! Operators that are left to a runtime, one node at a time.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use isqrt_cov_proto::onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, ValueInfoProto,
};
use isqrt_cov_proto::{TensorData, domain_of};
use prost::Message;

use super::call::{attribute, bound, size};
use super::convolution::Convolution;
use super::run::Setting;
use super::value::{Data, Dense, Value, elements};
use super::{Precision, table};
use crate::budget::spend;
use crate::extract::value_info;
use crate::runtime::{Runtime, Session};
use crate::tensor::{ElementType, Tensor};

/// Sessions that are kept, at most; a loop may bring a node another shape each time.
const KEPT: usize = 2048;

/// Bytes of weights in sessions that are kept, at most: a runtime copies and rearranges them.
const KEPT_BYTES: usize = 256 << 20;

/// Multiplications that take as long as making a node ready.
const PREPARATION: usize = 1 << 22;

/// The same for a step of a recurrent network.
const RECURRENCE: usize = 1 << 16;

/// The same for an element that is made of those around it.
const INTERPOLATION: usize = 1 << 9;

/// The same where each lies somewhere else.
const SAMPLING: usize = 1 << 12;

/// The same for an element of an attention's product, of which there is more than one, and for its exponential.
const EXPONENTIAL: usize = 1 << 5;

/// Integers up to so many are given to the runtime as constants: they are axes, sizes and the like.
const FEW: usize = 64;

/// The node by its address and its attributes, the shapes of its inputs, and those inputs that are fixed.
type Key = (usize, Vec<u8>, Vec<Vec<usize>>, Vec<u8>);

/// A runtime, and what it has made ready.
pub(super) struct Fallback<'a> {
    runtime: &'a dyn Runtime,
    pub sessions: Rc<Sessions>,
}

/// Nodes that a runtime has made ready. What there is no room for is made ready each time, so that the weights of a model
/// are never copied all at once.
#[derive(Default)]
pub struct Sessions {
    ready: RefCell<HashMap<Key, Box<dyn Session>>>,
    bytes: Cell<usize>,
}

/// The one node as a model, and what is fed to it.
struct Single {
    node: NodeProto,
    inputs: Vec<ValueInfoProto>,
    fed: Vec<Tensor>,
    fixed: Vec<TensorProto>,
    /// The type of the first floating-point input.
    element: Option<ElementType>,
}

impl<'a> Fallback<'a> {
    pub fn new(runtime: &'a dyn Runtime) -> Self {
        Self { runtime, sessions: Rc::default() }
    }

    /// Evaluates a node. Inputs are constants of the model as it stores them, or values.
    pub fn evaluate<'m>(
        &self,
        model: &ModelProto,
        node: &'m NodeProto,
        inputs: &[(Option<&TensorProto>, Value)],
        setting: Setting<'_, 'm>,
    ) -> Result<Vec<Value>> {
        // A runtime may go on with no positions where the kernel reaches beyond the input.
        if let ("Conv" | "FusedConv", [input, weight, ..]) = (node.op_type(), inputs) {
            Convolution::of(node, setting.bindings, &dims(input), &dims(weight))?;
        }
        spend(&cost(node, inputs, setting))?;
        elements(&gathered(node, inputs))?;
        let mut resolved = NodeProto { attribute: Vec::new(), ..node.clone() };
        for own in &node.attribute {
            if let Some(value) = bound(own, setting.bindings) {
                resolved.attribute.push(AttributeProto {
                    name: own.name.clone(),
                    ref_attr_name: None,
                    ..value.clone()
                });
            }
        }
        let fused = node.domain() == "com.microsoft" && node.op_type() == "FusedConv";
        let activation = if fused { Some(unfused(&mut resolved)?) } else { None };
        let residual = if fused { inputs.get(3) } else { None };
        let inputs = if fused { &inputs[..inputs.len().min(3)] } else { inputs };
        let refers = node.attribute.iter().any(|attribute| !attribute.ref_attr_name().is_empty());
        let attributes = if refers { resolved.encode_to_vec() } else { Vec::new() };
        let single = single(resolved, inputs)?;
        let made = self.run(model, setting.opset, std::ptr::from_ref(node).addr(), attributes, &single)?;
        let Some(activation) = activation else { return Ok(made) };
        let sum = match residual {
            Some((None, value @ Value::Tensor(_))) => {
                vec![made.into_iter().next().context("no output")?, value.clone()]
            }
            Some((Some(tensor), _)) => {
                vec![made.into_iter().next().context("no output")?, Dense::decode(tensor)?.into()]
            }
            _ => made,
        };
        table::activated(&activation, &sum, setting.opset)
    }

    fn run(
        &self,
        model: &ModelProto,
        opset: i64,
        address: usize,
        attributes: Vec<u8>,
        single: &Single,
    ) -> Result<Vec<Value>> {
        let shapes: Vec<Vec<usize>> = single.fed.iter().map(|tensor| tensor.dims().to_vec()).collect();
        // Weights are the same at every visit of a node; small integers may be computed.
        let small = single.fixed.iter().filter(|tensor| tensor.raw_data().len() <= FEW * 8);
        let fixed = small.flat_map(Message::encode_to_vec).collect();
        let key = (address, attributes, shapes, fixed);
        let ready = self.sessions.ready.borrow();
        let each = match single.node.op_type() {
            "Resize" | "Upsample" => INTERPOLATION,
            "GridSample" | "RoiAlign" => SAMPLING,
            _ => 0,
        };
        let run = |session: &dyn Session| {
            spend(&[session.largest(), each])?;
            session.run(&single.fed)
        };
        let made = if let Some(session) = ready.get(&key) {
            run(&**session)?
        } else {
            spend(&[PREPARATION])?;
            let session = self.prepare(model, opset, single, &key.2)?;
            let made = run(&*session)?;
            drop(ready);
            self.sessions.keep(key, session, single.fixed.iter().map(|tensor| tensor.raw_data().len()).sum());
            made
        };
        let mut made = made.into_iter();
        let mut outputs = Vec::with_capacity(single.node.output.len());
        for name in &single.node.output {
            if name.is_empty() {
                outputs.push(Value::Absent);
                continue;
            }
            let tensor = made.next().context("the runtime makes fewer outputs than there are")?;
            let declared = match (tensor.element_type(), single.element) {
                (ElementType::F32, Some(element)) => element,
                (other, _) => other,
            };
            outputs.push(Dense::from_tensor(&tensor, declared)?.into());
        }
        Ok(outputs)
    }

    /// Makes the one node ready, as a model with the standard operators of that version: a function may have its own.
    fn prepare(
        &self,
        model: &ModelProto,
        opset: i64,
        single: &Single,
        shapes: &[Vec<usize>],
    ) -> Result<Box<dyn Session>> {
        let output = |name: &String| ValueInfoProto::named(name.clone());
        let graph = GraphProto {
            name: Some("node".to_owned()),
            node: vec![single.node.clone()],
            input: single.inputs.clone(),
            initializer: single.fixed.clone(),
            output: single.node.output.iter().filter(|name| !name.is_empty()).map(output).collect(),
            ..GraphProto::default()
        };
        let others = model.opset_import.iter().filter(|import| !domain_of(import.domain()).is_empty());
        let standard = OperatorSetIdProto::new("", opset);
        let model = ModelProto {
            ir_version: model.ir_version,
            opset_import: std::iter::once(standard).chain(others.cloned()).collect(),
            graph: Some(graph),
            ..ModelProto::default()
        };
        let session = self.runtime.prepare(&Arc::new(model), shapes);
        let session =
            session.with_context(|| format!("not evaluated here, but by {}", self.runtime.name()))?;
        elements(&[session.largest()])?;
        Ok(session)
    }
}

impl Sessions {
    fn keep(&self, key: Key, session: Box<dyn Session>, bytes: usize) {
        let mut ready = self.ready.borrow_mut();
        if ready.len() < KEPT && self.bytes.get() + bytes <= KEPT_BYTES {
            self.bytes.set(self.bytes.get() + bytes);
            ready.insert(key, session);
        }
    }
}

/// Factors of the multiplications, or comparisons, that a node takes, so far as it can be told from its inputs: a kernel at
/// every element of the input that it does not step over, or all weights of each of an input's channels.
fn cost(node: &NodeProto, inputs: &[(Option<&TensorProto>, Value)], setting: Setting<'_, '_>) -> Vec<usize> {
    let mut factors = inputs.first().map(dims).unwrap_or_default();
    let list = |name: &str| -> Vec<usize> {
        let list = attribute(node, setting.bindings, name).map_or(&[][..], |list| &list.ints);
        list.iter().map(|&step| size(step).unwrap_or(0)).collect()
    };
    let operator = node.op_type();
    if operator == "LRN" {
        let size = attribute(node, setting.bindings, "size").map_or(1, |width| size(width.i()).unwrap_or(1));
        factors.push(size.min(factors.get(1).copied().unwrap_or(1)));
    } else if operator == "NonMaxSuppression" {
        factors.push(factors.get(1).copied().unwrap_or(1));
    } else if ["DFT", "STFT"].contains(&operator) {
        factors.push(factors.iter().copied().max().unwrap_or(1));
    } else if operator == "Multinomial" {
        let count = attribute(node, setting.bindings, "sample_size");
        factors.push(count.map_or(1, |count| size(count.i()).unwrap_or(1)));
    } else if operator.ends_with("Attention") {
        // Each query with each key.
        factors.push(inputs.iter().skip(1).flat_map(dims).max().unwrap_or(1));
        factors.push(EXPONENTIAL);
    } else if ["Conv", "MatMul", "LSTM", "GRU", "RNN"].iter().any(|kind| operator.contains(kind)) {
        let weights = inputs.iter().skip(1).map(|input| dims(input).iter().skip(1).product::<usize>());
        let steps = if ["LSTM", "GRU", "RNN"].contains(&operator) { RECURRENCE } else { 1 };
        factors.push(weights.max().unwrap_or(1).max(steps));
    } else {
        let (kernel, strides, pads) = (list("kernel_shape"), list("strides"), list("pads"));
        let spatial = factors.len().saturating_sub(2);
        for (axis, &width) in kernel.iter().enumerate().take(spatial) {
            let pad = [axis, spatial + axis].map(|at| pads.get(at).copied().unwrap_or(0));
            factors[2 + axis] = pad.into_iter().fold(factors[2 + axis], usize::saturating_add);
            factors.push(width.div_ceil(strides.get(axis).copied().unwrap_or(1).max(1)));
        }
    }
    factors
}

fn dims((constant, value): &(Option<&TensorProto>, Value)) -> Vec<usize> {
    match (constant, value) {
        (Some(constant), _) => constant.dims.iter().map(|&dim| size(dim).unwrap_or(0)).collect(),
        (None, Value::Tensor(tensor)) => tensor.dims().to_vec(),
        _ => Vec::new(),
    }
}

/// The sizes of what a runtime may put together of a convolution's input: what the kernel reads at each place.
fn gathered(node: &NodeProto, inputs: &[(Option<&TensorProto>, Value)]) -> Vec<usize> {
    if !node.op_type().contains("Conv") {
        return Vec::new();
    }
    let taps = inputs.iter().map(|input| dims(input).iter().skip(2).product::<usize>());
    let input = inputs.first().map(dims).unwrap_or_default();
    vec![input.iter().product(), taps.skip(1).max().unwrap_or(1)]
}

/// Puts a node's inputs under names of their own. Short floating-point types go as float32, which every runtime has.
fn single(node: NodeProto, inputs: &[(Option<&TensorProto>, Value)]) -> Result<Single> {
    let mut single = Single { inputs: Vec::new(), fed: Vec::new(), fixed: Vec::new(), element: None, node };
    single.node.input.clear();
    let is_few =
        |value: &Dense| matches!(value.data, Data::Int(_)) && value.dims().iter().product::<usize>() <= FEW;
    // A runtime computes a node of constants while it makes it ready, before it can be told that it is too large.
    let any_fed = inputs.iter().any(|(constant, value)| {
        constant.is_none() && matches!(value, Value::Tensor(value) if !is_few(value))
    });
    for (index, (constant, value)) in inputs.iter().enumerate() {
        let name = format!("input_{index}");
        let may_fix = any_fed || index > 0;
        let decoded;
        let value = match (constant, value) {
            (Some(constant), _) if !may_fix => {
                decoded = Dense::decode(constant)?;
                &decoded
            }
            (Some(constant), _) => {
                let short = ElementType::from_onnx(constant.data_type())
                    .filter(|element| matches!(element, ElementType::F16 | ElementType::BF16));
                single.fixed.push(match short {
                    Some(element) => {
                        single.element.get_or_insert(element);
                        let values =
                            TensorData::inline(constant)?.to_f64().context("a constant cannot be read")?;
                        let dims: Vec<usize> = constant.dims.iter().map(|&dim| dim as usize).collect();
                        Tensor::from_f64(ElementType::F32, &dims, &values).to_proto(&name)
                    }
                    None => TensorProto { name: Some(name.clone()), ..(*constant).clone() },
                });
                single.node.input.push(name);
                continue;
            }
            (None, Value::Absent) => {
                single.node.input.push(String::new());
                continue;
            }
            (None, Value::Sequence(_)) => bail!("a sequence cannot go to the runtime"),
            (None, Value::Tensor(value)) => value,
        };
        let element = match (value.declared, &value.data) {
            (ElementType::F16 | ElementType::BF16, _) => ElementType::F32,
            (element, _) => element,
        };
        if value.declared.is_float() {
            single.element.get_or_insert(value.declared);
        }
        let tensor = Dense::new(element, value.data.clone()).to_tensor(Precision::Declared);
        if may_fix && is_few(value) {
            single.fixed.push(tensor.to_proto(&name));
        } else {
            single.inputs.push(value_info(&name, element, tensor.dims()));
            single.fed.push(tensor);
        }
        single.node.input.push(name);
    }
    Ok(single)
}

/// Makes a plain convolution of ONNX Runtime's fused one; returns its activation as a node.
fn unfused(node: &mut NodeProto) -> Result<NodeProto> {
    node.domain = None;
    node.op_type = Some("Conv".to_owned());
    let attributes = std::mem::take(&mut node.attribute);
    let mut name = String::from("Identity");
    let mut parameters = Vec::new();
    for attribute in attributes {
        match attribute.name() {
            "activation" => {
                name = String::from_utf8(attribute.s().to_vec()).context("`activation` is not UTF-8")?;
            }
            "activation_params" => parameters.clone_from(&attribute.floats),
            _ => node.attribute.push(attribute),
        }
    }
    let mut activation = NodeProto::new(&name, &["sum"], &["activated"]);
    let names: &[&str] = match name.as_str() {
        "Clip" => &["min", "max"],
        "HardSigmoid" => &["alpha", "beta"],
        _ => &["alpha"],
    };
    activation.attribute =
        names.iter().zip(&parameters).map(|(name, &value)| AttributeProto::float(name, value)).collect();
    Ok(activation)
}
