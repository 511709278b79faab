//! One evaluation: node by node, through subgraphs and functions.

use anyhow::{Context, Result, bail, ensure};
use isqrt_cov_op::DOMAIN;
use isqrt_cov_proto::onnx::NodeProto;
use isqrt_cov_proto::{DEEPEST, domain_of};

use super::call::{Bindings, Call, bound};
use super::convolution::Convolution;
use super::layer;
use super::plan::{Decoded, Plan, Step, bound_constant};
use super::table::{self, Operator};
use super::value::{self, Dense, Value, bounded, declared, elements, most};
use super::weights::{self, Weights};
use super::{Evaluator, Precision, Watcher};
use crate::budget::{at_most_of_model, spend, spend_node};
use crate::fused::place_of;
use crate::tensor::Tensor;

/// Nodes that one evaluation may come to, those in loops each time: a file must not keep us for ever.
const NODES: usize = 1_000_000;

/// Multiplications of the largest convolution that is computed in float64: one of a hundred bytes may ask for any number.
const LARGEST_EXACT: usize = 1 << 33;

/// Multiplications that take as long as a convolution's kernel takes to find an element.
const READ: usize = 16;

/// The same for a line of them.
const READ_LINE: usize = 256;

/// Multiplications that take as long as looking a name up, or binding an attribute of a function.
const NAME: usize = 1 << 12;

/// The values of a graph that are alive, by their place in its plan.
pub(super) type Values = Vec<Option<Value>>;

/// What is the same for all nodes of a function's body, or of the main graph, subgraphs included.
#[derive(Clone, Copy)]
pub(super) struct Setting<'s, 'a> {
    /// The attributes that the function was called with.
    pub bindings: &'s Bindings<'a>,
    /// The version of the standard operators.
    pub opset: i64,
}

/// An evaluation that is under way.
pub(super) struct Run<'r, 'a> {
    pub evaluator: &'r Evaluator<'a>,
    watcher: Option<&'r mut dyn Watcher>,
    pub nodes_left: usize,
    /// Elements of the values that are alive. One that two names stand for counts twice.
    pub alive: usize,
    depth: usize,
}

impl<'r, 'a> Run<'r, 'a> {
    pub fn new(evaluator: &'r Evaluator<'a>, watcher: Option<&'r mut dyn Watcher>) -> Self {
        Self { evaluator, watcher, nodes_left: NODES, alive: 0, depth: 0 }
    }

    /// Multiplications of the largest convolution that is not left to a runtime, which rounds to the declared type.
    fn largest_convolution(&self) -> usize {
        match self.evaluator.precision {
            Precision::Exact => LARGEST_EXACT,
            Precision::Declared => usize::MAX,
        }
    }

    /// Whether somebody looks at what is made.
    pub fn is_watched(&self) -> bool {
        self.watcher.is_some()
    }

    /// Evaluates the main graph.
    pub fn main(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let fed: usize = inputs.iter().map(|input| input.dims().iter().product::<usize>()).sum();
        let shapes = inputs.iter().map(Tensor::dims);
        bounded(fed.saturating_add(self.evaluator.weights), || {
            at_most_of_model(self.evaluator.model, shapes, || self.whole(inputs))
        })
    }

    fn whole(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let Evaluator { main, precision, opset, .. } = self.evaluator;
        let wanted = main.inputs.len();
        ensure!(inputs.len() == wanted, "the model has {wanted} inputs, {} are given", inputs.len());
        let mut values = Vec::with_capacity(wanted);
        for (&id, tensor) in main.inputs.iter().zip(inputs) {
            let name = main.names[id];
            let described =
                main.graph.and_then(|graph| graph.input.iter().find(|input| input.name() == name));
            let element =
                described.and_then(|input| input.tensor_type()?.elem_type).filter(|&number| number != 0);
            let element = element.map_or(Ok(tensor.element_type()), declared);
            let value = element.and_then(|element| Dense::from_tensor(tensor, element));
            values.push(value.with_context(|| format!("input `{name}`"))?.into());
        }
        let setting = Setting { bindings: &Bindings::new(), opset: *opset };
        let outputs = self.plan(main, values, &Values::new(), setting)?;
        let tensor = |(value, &id): (Value, &usize)| match value {
            Value::Tensor(tensor) => Ok(tensor.to_tensor(*precision)),
            _ => bail!("output `{}` is no tensor", main.names[id]),
        };
        outputs.into_iter().zip(&main.outputs).map(tensor).collect()
    }

    /// Evaluates a graph or a function's body; `outer` are the values of the graph around.
    pub fn plan(
        &mut self,
        plan: &'r Plan<'a>,
        inputs: Vec<Value>,
        outer: &Values,
        setting: Setting<'_, 'a>,
    ) -> Result<Vec<Value>> {
        self.depth += 1;
        let around = self.alive;
        // The main graph is none of them.
        let done = if self.depth <= DEEPEST + 1 {
            self.visited().and_then(|()| self.steps(plan, inputs, outer, setting))
        } else {
            Err(anyhow::anyhow!("functions and graphs are nested more than {DEEPEST} deep"))
        };
        self.depth -= 1;
        self.alive = around;
        done
    }

    /// Counts a node or a graph.
    fn visited(&mut self) -> Result<()> {
        let left = self.nodes_left.checked_sub(1);
        self.nodes_left = left.with_context(|| {
            format!("the graph comes to more than {NODES} nodes, loops counted each time")
        })?;
        Ok(())
    }

    fn steps(
        &mut self,
        plan: &'r Plan<'a>,
        inputs: Vec<Value>,
        outer: &Values,
        setting: Setting<'_, 'a>,
    ) -> Result<Vec<Value>> {
        let wanted = plan.inputs.len();
        ensure!(inputs.len() == wanted, "{wanted} inputs are declared, {} are given", inputs.len());
        spend_node(plan.names.len())?;
        let mut values: Values = vec![None; plan.names.len()];
        for &(here, there) in &plan.captured {
            if let Some(Some(value)) = outer.get(there) {
                self.hold(&mut values, here, value.clone())?;
            }
        }
        for (&id, value) in plan.inputs.iter().zip(inputs) {
            let value = value.settled(self.evaluator.precision);
            self.show(plan, id, &value);
            self.hold(&mut values, id, value)?;
        }
        for step in &plan.steps {
            let place = || format!("node `{}` ({})", place_of(step.node), step.node.op_type());
            self.visited().with_context(place)?;
            self.step(plan, step, &mut values, setting).with_context(place)?;
            let dead = step.dead.iter().filter_map(|&dead| values[dead].take());
            self.alive -= dead.map(|value| value.elements()).sum::<usize>();
        }
        plan.outputs.iter().map(|&id| fetch(plan, &self.evaluator.decoded, &values, id)).collect()
    }

    fn step(
        &mut self,
        plan: &'r Plan<'a>,
        step: &'r Step<'a>,
        values: &mut Values,
        setting: Setting<'_, 'a>,
    ) -> Result<()> {
        if let Some(&Some(output)) = step.outputs.first()
            && let Some(constant) = plan.constants.get(&output)
        {
            let wants = |watcher: &dyn Watcher| watcher.wants(&plan.scope, plan.names[output]);
            if self.watcher.as_deref().is_some_and(wants) {
                self.show(plan, output, &constant.value(&self.evaluator.decoded)?);
            }
            return Ok(());
        }
        spend(&[step.length, NAME])?;
        spend_node(read(plan, step, values))?;
        let outputs = self.outputs(plan, step, values, setting)?;
        let (wanted, made) = (step.outputs.len(), outputs.len());
        ensure!(wanted <= made, "{wanted} outputs are named, {made} are made");
        spend_node(outputs.iter().map(Value::weight).fold(0, usize::saturating_add))?;
        for (id, value) in step.outputs.iter().zip(outputs) {
            if let Some(id) = *id {
                let value = value.settled(self.evaluator.precision);
                self.show(plan, id, &value);
                self.hold(values, id, value)?;
            }
        }
        Ok(())
    }

    /// Keeps a value until it is dead. All that are alive have together no more elements than one may have.
    fn hold(&mut self, values: &mut Values, id: usize, value: Value) -> Result<()> {
        if let Value::Tensor(tensor) = &value {
            elements(tensor.dims())?;
        }
        self.keep_alive(value.elements())?;
        values[id] = Some(value);
        Ok(())
    }

    /// Counts elements that are alive from now on.
    pub fn keep_alive(&mut self, elements: usize) -> Result<()> {
        self.alive = self.alive.saturating_add(elements);
        let most = most();
        ensure!(
            self.alive <= most,
            "the values that are needed here have more than {most} elements together"
        );
        Ok(())
    }

    /// What a node makes of the values.
    fn outputs(
        &mut self,
        plan: &'r Plan<'a>,
        step: &'r Step<'a>,
        values: &Values,
        setting: Setting<'_, 'a>,
    ) -> Result<Vec<Value>> {
        let node = step.node;
        let decoded = &self.evaluator.decoded;
        let domain = domain_of(node.domain());
        let called = self.evaluator.by_key.get(&node.called());
        if let Some(&function) = called.filter(|_| domain != DOMAIN) {
            let inputs = fetch_all(plan, decoded, step, values)?;
            return self.function(function, node, inputs, setting);
        }
        if !step.subgraphs.is_empty() {
            let inputs = fetch_all(plan, decoded, step, values)?;
            return self.control(step, &inputs, values, setting);
        }
        let operator = table::find(domain, node.op_type());
        if node.is("Conv")
            && let Some(convolution) = sized_convolution(plan, step, values, setting)
        {
            let multiplications = convolution.multiplications();
            spend(&[multiplications])?;
            spend(&[convolution.reads(), READ])?;
            spend(&[convolution.lines(), READ_LINE])?;
            if multiplications <= self.largest_convolution() {
                return Ok(vec![self.convolved(&convolution, plan, step, values)?.into()]);
            }
        }
        if (node.is("MatMul") || node.is("Gemm"))
            && let Some(&[Some(left), Some(right)]) = step.inputs.get(..2)
            && let Some(weight) = plan.constants.get(&right)
            && let Some(value) = &values[left]
            && weights::are_large(value, weight.proto())
        {
            let mut inputs = vec![value.clone(), Value::Absent];
            for id in &step.inputs[2..] {
                inputs.push(id.map_or(Ok(Value::Absent), |id| fetch(plan, decoded, values, id))?);
            }
            let call = Call { node, bindings: setting.bindings, inputs: &inputs, opset: setting.opset };
            return Ok(vec![weights::product(&call, weight.proto(), self.evaluator.precision)?.into()]);
        }
        if operator.is_none() && domain != DOMAIN {
            let Some(fallback) = &self.evaluator.fallback else {
                bail!("the operator {} of domain `{domain}` is not evaluated", node.op_type());
            };
            // Weights go as the model stores them.
            let inputs = step.inputs.iter().map(|id| match *id {
                None => Ok((None, Value::Absent)),
                Some(id) => match plan.constants.get(&id) {
                    Some(constant) => Ok((Some(constant.proto()), Value::Absent)),
                    None => Ok((None, fetch(plan, decoded, values, id)?)),
                },
            });
            let inputs = inputs.collect::<Result<Vec<_>>>()?;
            return fallback.evaluate(self.evaluator.model, node, &inputs, setting);
        }
        let inputs = fetch_all(plan, decoded, step, values)?;
        let call = Call { node, bindings: setting.bindings, inputs: &inputs, opset: setting.opset };
        match operator {
            Some(Operator::One(operator)) => Ok(vec![operator(&call)?.into()]),
            Some(Operator::Many(operator)) => operator(&call),
            None => Ok(vec![layer::apply(&call, self.evaluator.precision)?.into()]),
        }
    }

    /// Evaluates a convolution, its weights as the model stores them.
    fn convolved(
        &self,
        convolution: &Convolution,
        plan: &Plan<'a>,
        step: &Step<'a>,
        values: &Values,
    ) -> Result<Dense> {
        let value = |index: usize| -> Result<Option<Dense>> {
            let Some(&Some(id)) = step.inputs.get(index) else { return Ok(None) };
            match fetch(plan, &self.evaluator.decoded, values, id)? {
                Value::Tensor(tensor) => Ok(Some(tensor)),
                _ => bail!("input {index} is no tensor"),
            }
        };
        let (input, bias) = (value(0)?.context("input 0 is missing")?, value(2)?);
        let constant = step.inputs.get(1).copied().flatten().and_then(|id| plan.constants.get(&id));
        let computed = if constant.is_none() { value(1)? } else { None };
        let weights = match (constant, &computed) {
            (Some(constant), _) => Weights::stored(constant.proto())?,
            (None, Some(computed)) => Weights::computed(computed.floats()?)?,
            (None, None) => bail!("input 1 is missing"),
        };
        if weights::in_float32(self.evaluator.precision, input.declared) {
            convolution.apply::<f32>(&input, &weights, bias.as_ref())
        } else {
            convolution.apply::<f64>(&input, &weights, bias.as_ref())
        }
    }

    /// Calls a function of the model.
    fn function(
        &mut self,
        index: usize,
        node: &'a NodeProto,
        mut inputs: Vec<Value>,
        setting: Setting<'_, 'a>,
    ) -> Result<Vec<Value>> {
        let function = &self.evaluator.functions[index];
        let declaration = &self.evaluator.model.functions[index];
        let wanted = function.body.inputs.len();
        ensure!(inputs.len() <= wanted, "the function has {wanted} inputs, {} are given", inputs.len());
        inputs.resize(wanted, Value::Absent);
        spend(&[declaration.attribute_proto.len(), NAME])?;
        let defaults = declaration.attribute_proto.iter().map(|default| (default.name(), default));
        let given = node.attribute.iter().filter_map(|own| Some((own.name(), bound(own, setting.bindings)?)));
        let bindings: Bindings<'a> = defaults.chain(given).collect();
        let setting = Setting { bindings: &bindings, opset: function.opset };
        self.plan(&function.body, inputs, &Values::new(), setting)
    }

    fn show(&mut self, plan: &Plan<'_>, id: usize, value: &Value) {
        if let (Some(watcher), Value::Tensor(tensor)) = (self.watcher.as_deref_mut(), value) {
            let name = plan.names[id];
            if watcher.wants(&plan.scope, name) {
                watcher.saw(&plan.scope, name, &tensor.to_tensor(self.evaluator.precision), tensor.declared);
            }
        }
    }
}

/// The value of a name.
fn fetch(plan: &Plan<'_>, decoded: &Decoded, values: &Values, id: usize) -> Result<Value> {
    if let Some(constant) = plan.constants.get(&id) {
        return constant.value(decoded);
    }
    values[id].clone().with_context(|| format!("nothing makes `{}` before it is read", plan.names[id]))
}

fn fetch_all(plan: &Plan<'_>, decoded: &Decoded, step: &Step<'_>, values: &Values) -> Result<Vec<Value>> {
    step.inputs.iter().map(|id| id.map_or(Ok(Value::Absent), |id| fetch(plan, decoded, values, id))).collect()
}

/// What a node reads, in elements that are read once.
fn read(plan: &Plan<'_>, step: &Step<'_>, values: &Values) -> usize {
    // How often the first input is gone through, where it is laid out row by row and where it is not; and the others.
    let (first, moved, others) = match step.node.op_type() {
        "If" | "Loop" | "Scan" | "Shape" | "Size" | "Identity" | "Squeeze" | "Unsqueeze" => (0, 0, 0),
        "Slice" | "Split" => (0, 0, 1),
        "Reshape" | "Flatten" | "Gather" | "GatherElements" | "GatherND" => (0, 4, 1),
        // What is sorted is looked at again and again.
        "TopK" | "Unique" => (32, 32, 32),
        _ => (1, 4, 1),
    };
    let mut sum = 0_usize;
    for (index, &id) in step.inputs.iter().enumerate() {
        let Some(id) = id else { continue };
        let (weight, in_rows) = match (plan.constants.get(&id), &values[id]) {
            (Some(constant), _) => {
                let dims = constant.proto().dims.iter().map(|&dim| usize::try_from(dim).unwrap_or(0));
                (value::weight(&dims.collect::<Vec<_>>()), true)
            }
            (None, Some(value)) => (value.weight(), value.is_in_rows()),
            (None, None) => continue,
        };
        let times = match (index, in_rows) {
            (0, true) => first,
            (0, false) => moved,
            _ => others,
        };
        sum = sum.saturating_add(weight.saturating_mul(times));
    }
    sum
}

/// The convolution that a node asks for, where its sizes fit each other.
fn sized_convolution(
    plan: &Plan<'_>,
    step: &Step<'_>,
    values: &Values,
    setting: Setting<'_, '_>,
) -> Option<Convolution> {
    let dims = |input: usize| -> Option<Vec<usize>> {
        let id = (*step.inputs.get(input)?)?;
        match (plan.constants.get(&id), &values[id]) {
            (Some(constant), _) => {
                constant.proto().dims.iter().map(|&dim| usize::try_from(dim).ok()).collect()
            }
            (None, Some(Value::Tensor(tensor))) => Some(tensor.dims().to_vec()),
            _ => None,
        }
    };
    Convolution::of(step.node, setting.bindings, &dims(0)?, &dims(1)?).ok()
}

/// A `Constant` node that the function around it fills in.
pub(super) fn constant(call: &Call) -> Result<Dense> {
    let named = call.node.attribute.iter().find(|attribute| attribute.name().starts_with("value"));
    let name = named.context("there is no value")?.name();
    bound_constant(name, call.attribute(name).with_context(|| format!("attribute `{name}` is not bound"))?)
}
