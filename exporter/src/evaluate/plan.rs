//! A graph made ready: names are places, nodes stand in an order that works, and each value's last reader is known.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result, ensure};
use isqrt_cov_proto::onnx::{
    AttributeProto, FunctionProto, GraphProto, NodeProto, TensorProto, ValueInfoProto,
};
use isqrt_cov_proto::{DEEPEST, TensorData};
use prost::Message as _;

use super::value::{Dense, Value};
use crate::fused::place_of;
use crate::graph::{given, in_order};
use crate::scope::Scope;

/// Bytes of decoded constants that are kept, at most: in float64 a model's weights take twice their size.
const KEPT: usize = 64 << 20;

/// Bytes of decoded constants that are kept.
#[derive(Default)]
pub(super) struct Decoded(Cell<usize>);

/// A constant, decoded when it is needed, and kept while there is room.
pub(super) struct Constant<'a> {
    tensor: Cow<'a, TensorProto>,
    value: OnceLock<Value>,
}

impl<'a> Constant<'a> {
    fn new(tensor: Cow<'a, TensorProto>) -> Arc<Self> {
        Arc::new(Self { tensor, value: OnceLock::new() })
    }

    /// The tensor as the model stores it.
    pub fn proto(&self) -> &TensorProto {
        &self.tensor
    }

    /// The tensor as it is computed with.
    pub fn value(&self, decoded: &Decoded) -> Result<Value> {
        if let Some(value) = self.value.get() {
            return Ok(value.clone());
        }
        let tensor = Dense::decode(self.proto())?;
        let kept = decoded.0.get() + 8 * tensor.dims().iter().product::<usize>();
        let value = Value::from(tensor);
        if kept > KEPT {
            return Ok(value);
        }
        decoded.0.set(kept);
        Ok(self.value.get_or_init(|| value).clone())
    }
}

/// A node with its place in the data flow. Values are known by their place in [`Plan::names`].
pub(super) struct Step<'a> {
    /// The node.
    pub node: &'a NodeProto,
    /// Its place among the nodes of its graph.
    pub index: usize,
    /// What it reads, none where an optional input is left out.
    pub inputs: Vec<Option<usize>>,
    /// What it makes, none where an output is not wanted.
    pub outputs: Vec<Option<usize>>,
    /// The graphs in its attributes, by the attributes' names, in the order of [`crate::graph::subgraphs`].
    pub subgraphs: Vec<(&'a str, Plan<'a>)>,
    /// Values that nobody reads after this step.
    pub dead: Vec<usize>,
    /// How much there is to look at: names and attributes, long ones more often.
    pub length: usize,
}

/// Bytes of an attribute that take as long to look at as a name.
const LOOKED_AT: usize = 64;

/// How much there is to look at in a node.
fn length(node: &NodeProto) -> usize {
    // What is in graphs is looked at node by node.
    let plain =
        node.attribute.iter().filter(|attribute| attribute.g.is_none() && attribute.graphs.is_empty());
    let long = plain.map(|attribute| attribute.encoded_len() / LOOKED_AT).sum::<usize>();
    node.input.len() + node.output.len() + node.attribute.len() + long
}

/// A graph, or the body of a function, that is ready to be evaluated.
pub(super) struct Plan<'a> {
    /// Where it is in the model.
    pub scope: Scope,
    /// The names of the values.
    pub names: Vec<&'a str>,
    /// The inputs that are fed.
    pub inputs: Vec<usize>,
    /// The outputs.
    pub outputs: Vec<usize>,
    /// Initializers and `Constant` nodes of this graph, and those that it reads of the graphs around it.
    pub constants: HashMap<usize, Arc<Constant<'a>>>,
    /// Values of the graph around: their place here, and there.
    pub captured: Vec<(usize, usize)>,
    /// The nodes, in an order in which values are made before they are read; those in cycles last.
    pub steps: Vec<Step<'a>>,
    /// The graph; the body of a function is none.
    pub graph: Option<&'a GraphProto>,
}

/// Finds the value that a name means in the graphs around: its place there, and the constant that it is.
type Outside<'o, 'a> = dyn FnMut(&'a str) -> Option<(usize, Option<Arc<Constant<'a>>>)> + 'o;

struct Builder<'a> {
    plan: Plan<'a>,
    ids: HashMap<&'a str, usize>,
    made: Vec<bool>,
}

impl<'a> Plan<'a> {
    /// The main graph of a model.
    pub fn of_graph(graph: &'a GraphProto) -> Result<Self> {
        Self::inner(graph, Scope::default(), &mut |_| None)
    }

    /// The main graph with some of its values as its only outputs, and no node that is not needed for them.
    pub fn showing(graph: &'a GraphProto, values: &'a [String]) -> Result<Self> {
        let builder = Builder::begun(graph, Scope::default())?;
        builder.finish(&graph.node, values.iter().map(String::as_str), Keep::Needed, &mut |_| None)
    }

    /// The body of a function.
    pub fn of_function(function: &'a FunctionProto, index: usize) -> Result<Self> {
        let mut builder = Builder::new(Scope::of_function(index), None);
        for name in &function.input {
            let id = builder.make(name)?;
            builder.plan.inputs.push(id);
        }
        let outputs = function.output.iter().map(String::as_str);
        builder.finish(&function.node, outputs, Keep::All, &mut |_| None)
    }

    fn inner(graph: &'a GraphProto, scope: Scope, outside: &mut Outside<'_, 'a>) -> Result<Self> {
        ensure!(scope.path.len() <= DEEPEST, "graphs are nested more than {DEEPEST} deep");
        let builder = Builder::begun(graph, scope)?;
        builder.finish(&graph.node, graph.output.iter().map(ValueInfoProto::name), Keep::All, outside)
    }
}

/// Which nodes are steps of a plan.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    All,
    /// Those that the outputs need.
    Needed,
}

impl<'a> Builder<'a> {
    fn new(scope: Scope, graph: Option<&'a GraphProto>) -> Self {
        let plan = Plan {
            scope,
            names: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            constants: HashMap::new(),
            captured: Vec::new(),
            steps: Vec::new(),
            graph,
        };
        Self { plan, ids: HashMap::new(), made: Vec::new() }
    }

    /// With a graph's initializers and inputs.
    fn begun(graph: &'a GraphProto, scope: Scope) -> Result<Self> {
        let mut builder = Builder::new(scope, Some(graph));
        for tensor in &graph.initializer {
            let id = builder.make(tensor.name())?;
            builder.plan.constants.insert(id, Constant::new(Cow::Borrowed(tensor)));
        }
        for input in given(graph) {
            let id = builder.make(input.name())?;
            builder.plan.inputs.push(id);
        }
        Ok(builder)
    }

    fn id(&mut self, name: &'a str) -> usize {
        let next = self.plan.names.len();
        let id = *self.ids.entry(name).or_insert(next);
        if id == next {
            self.plan.names.push(name);
            self.made.push(false);
        }
        id
    }

    fn make(&mut self, name: &'a str) -> Result<usize> {
        let id = self.id(name);
        ensure!(!std::mem::replace(&mut self.made[id], true), "two values are called `{name}`");
        Ok(id)
    }

    /// What a name means at this place; one that is not made here is looked for outside.
    fn read(&mut self, name: &'a str, outside: &mut Outside<'_, 'a>) -> usize {
        let known = self.ids.contains_key(name);
        let id = self.id(name);
        if !known && let Some((outer, constant)) = outside(name) {
            match constant {
                Some(constant) => {
                    self.plan.constants.insert(id, constant);
                }
                None => self.plan.captured.push((id, outer)),
            }
        }
        id
    }

    fn finish(
        mut self,
        nodes: &'a [NodeProto],
        outputs: impl Iterator<Item = &'a str>,
        keep: Keep,
        outside: &mut Outside<'_, 'a>,
    ) -> Result<Plan<'a>> {
        let mut steps = Vec::with_capacity(nodes.len());
        for (index, node) in nodes.iter().enumerate() {
            let made = node.output.iter().map(|name| match name.as_str() {
                "" => Ok(None),
                name => self.make(name).map(Some),
            });
            let outputs =
                made.collect::<Result<Vec<_>>>().with_context(|| format!("node `{}`", place_of(node)))?;
            if let (Some(&Some(output)), Some(tensor)) = (outputs.first(), node.constant()) {
                self.plan.constants.insert(output, Constant::new(tensor));
            }
            steps.push(Step {
                node,
                index,
                inputs: Vec::new(),
                outputs,
                subgraphs: Vec::new(),
                dead: Vec::new(),
                length: length(node),
            });
        }
        let mut reads = Vec::with_capacity(steps.len());
        for step in &mut steps {
            step.inputs = step
                .node
                .input
                .iter()
                .map(|name| (!name.is_empty()).then(|| self.read(name, outside)))
                .collect();
            let mut read: Vec<usize> = step.inputs.iter().copied().flatten().collect();
            let attributes = step.node.attribute.iter();
            let graphs = attributes.flat_map(|attribute| {
                attribute
                    .g
                    .as_deref()
                    .into_iter()
                    .chain(&attribute.graphs)
                    .map(|graph| (attribute.name(), graph))
            });
            for (place, (name, graph)) in graphs.enumerate() {
                let scope = self.plan.scope.inside(step.index, place);
                let subgraph = Plan::inner(graph, scope, &mut |name| {
                    let id = self.read(name, outside);
                    Some((id, self.plan.constants.get(&id).cloned()))
                })?;
                read.extend(subgraph.captured.iter().map(|&(_, outer)| outer));
                step.subgraphs.push((name, subgraph));
            }
            reads.push(read);
        }
        self.plan.outputs = outputs.map(|name| self.read(name, outside)).collect();
        let steps = sorted(steps, &mut reads, self.plan.names.len());
        let mut seen: BTreeSet<usize> = self.plan.outputs.iter().copied().collect();
        for (mut step, read) in steps.into_iter().zip(&reads).rev() {
            if keep == Keep::All || step.outputs.iter().flatten().any(|value| seen.contains(value)) {
                let ours = read.iter().copied().chain(step.outputs.iter().copied().flatten());
                step.dead = ours.filter(|&value| seen.insert(value)).collect();
                self.plan.steps.push(step);
            }
        }
        self.plan.steps.reverse();
        Ok(self.plan)
    }
}

/// The steps in an order in which they can be evaluated, those that cannot be last.
fn sorted<'a>(steps: Vec<Step<'a>>, reads: &mut Vec<Vec<usize>>, values: usize) -> Vec<Step<'a>> {
    let mut producer = vec![None; values];
    for (index, step) in steps.iter().enumerate() {
        step.outputs.iter().flatten().for_each(|&value| producer[value] = Some(index));
    }
    let mut order = in_order(reads, &producer);
    let placed: BTreeSet<usize> = order.iter().copied().collect();
    order.extend((0..steps.len()).filter(|index| !placed.contains(index)));
    let mut steps: Vec<Option<Step>> = steps.into_iter().map(Some).collect();
    *reads = order.iter().map(|&index| std::mem::take(&mut reads[index])).collect();
    order.into_iter().filter_map(|index| steps[index].take()).collect()
}

/// The value of a `Constant` node whose attribute is the one that the function around it was called with.
pub(super) fn bound_constant(name: &str, attribute: &AttributeProto) -> Result<Dense> {
    let tensor = attribute.constant(name).with_context(|| format!("attribute `{name}` holds no number"))?;
    TensorData::inline(&tensor)?;
    Dense::decode(&tensor)
}
