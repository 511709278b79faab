//! What must hold of a model before anybody follows its edges: tensors have the sizes that they say, every value is
//! written once, no value needs itself, and functions end.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use thiserror::Error;

use crate::error::TensorError;
use crate::onnx::tensor_proto::DataType;
use crate::onnx::{FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};
use crate::printable::Printable;
use crate::tensor::TensorData;
use crate::walk;

/// How deep functions may call each other, and graphs and functions be evaluated in each other. Exporters make one of a module, and modules are
/// nested some ten deep.
pub const DEEPEST: usize = 48;

/// How many nodes a model may have once every call is replaced by the function's nodes.
const MOST: usize = 1 << 20;

/// What is wrong with a model's structure.
#[derive(Debug, Error)]
pub enum StructureProblem {
    /// Two values with the same name in one graph, or two functions.
    #[error("two {what} are called `{}`; expected names that are there once", Printable(name))]
    Twice {
        /// What is there twice.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A node that needs, through others perhaps, what it writes itself.
    #[error("value `{}` is computed from itself; expected a graph without cycles", Printable(.0))]
    Cycle(String),
    /// A function that calls itself, through others perhaps.
    #[error("function `{}` calls itself; expected functions that end", Printable(.0))]
    Recursion(String),
    /// Functions that call functions that call functions.
    #[error("functions call each other more than {DEEPEST} deep")]
    Depth,
    /// Functions that are called so often that the model is larger than any.
    #[error("the model has more than {MOST} nodes once its functions are written out")]
    Size,
}

/// Why a message is not a model that can be worked with.
#[derive(Debug)]
pub(crate) enum Refusal {
    Tensor(TensorError),
    Structure(StructureProblem),
}

impl From<StructureProblem> for Refusal {
    fn from(problem: StructureProblem) -> Self {
        Self::Structure(problem)
    }
}

/// Checks a model. Data in other files is not looked at.
pub(crate) fn check(model: &mut ModelProto) -> Result<(), Refusal> {
    walk::tensors(model, &mut |tensor, _| {
        if tensor.data_type == Some(DataType::String.into()) {
            return Ok(());
        }
        TensorData::read(tensor, |_| Ok(Bytes::new())).map(drop).map_err(Refusal::Tensor)
    })?;
    let Some(graph) = &model.graph else { return Ok(()) };
    functions(graph, &model.functions)?;
    whole(graph)?;
    for function in &model.functions {
        let inputs = function.input.iter().map(String::as_str);
        values(inputs, &function.node, function.output.iter().map(String::as_str))?;
    }
    Ok(())
}

/// What a model has one function of, and what a node calls: the domain as it is looked up, the name, and the overload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FunctionKey<'a> {
    /// The domain; that of the standard operators is empty.
    pub domain: &'a str,
    name: &'a str,
    overload: &'a str,
}

impl FunctionProto {
    /// What the function is called by.
    #[must_use]
    pub fn key(&self) -> FunctionKey<'_> {
        FunctionKey { domain: domain_of(self.domain()), name: self.name(), overload: self.overload() }
    }
}

impl NodeProto {
    /// The function that the node calls, if the model has one of that key.
    #[must_use]
    pub fn called(&self) -> FunctionKey<'_> {
        FunctionKey { domain: domain_of(self.domain()), name: self.op_type(), overload: self.overload() }
    }
}

/// A domain of operators as it is looked up: the standard one has two names.
#[must_use]
pub fn domain_of(domain: &str) -> &str {
    if domain == "ai.onnx" { "" } else { domain }
}

/// Calls `visit` for every node in its order, those in its subgraphs after it.
pub fn each_node<'a>(nodes: &'a [NodeProto], visit: &mut impl FnMut(&'a NodeProto)) {
    for node in nodes {
        visit(node);
        subgraphs(node).for_each(|graph| each_node(&graph.node, visit));
    }
}

/// The graphs of a model that stand in no node: its own, and those for training.
pub fn whole_graphs(model: &ModelProto) -> impl Iterator<Item = &GraphProto> {
    let training = model.training_info.iter();
    model.graph.iter().chain(training.flat_map(|part| part.initialization.iter().chain(&part.algorithm)))
}

/// The graphs in a node's attributes.
pub fn subgraphs(node: &NodeProto) -> impl Iterator<Item = &GraphProto> {
    node.attribute.iter().flat_map(|attribute| attribute.g.as_deref().into_iter().chain(&attribute.graphs))
}

/// Checks that functions end, and soon.
fn functions(graph: &GraphProto, functions: &[FunctionProto]) -> Result<(), StructureProblem> {
    let mut places: HashMap<FunctionKey<'_>, usize> = HashMap::new();
    for (place, function) in functions.iter().enumerate() {
        if places.insert(function.key(), place).is_some() {
            let name = function.name().to_owned();
            return Err(StructureProblem::Twice { what: "functions", name });
        }
    }
    let look = |nodes| {
        let (mut own, mut calls) = (0_usize, Vec::new());
        each_node(nodes, &mut |node| {
            own += 1;
            calls.extend(places.get(&node.called()).copied());
        });
        (own, calls)
    };
    let bodies: Vec<(usize, Vec<usize>)> = functions.iter().map(|function| look(&function.node)).collect();
    // How deep a function goes and how many nodes it comes to, once that is known of all that it calls.
    let mut known: Vec<Option<(usize, usize)>> = vec![None; functions.len()];
    let sum = |known: &[Option<(usize, usize)>], (own, calls): &(usize, Vec<usize>)| {
        let called = calls.iter().filter_map(|&call| known[call]);
        called.fold((1, *own), |(depth, nodes), (inner, more)| {
            (depth.max(inner.saturating_add(1)), nodes.saturating_add(more))
        })
    };
    for first in 0..functions.len() {
        let mut open = vec![(first, 0)];
        let mut is_open = HashSet::from([first]);
        while let Some((place, next)) = open.last_mut() {
            let place = *place;
            if let Some(&call) = bodies[place].1.get(*next) {
                *next += 1;
                if known[call].is_none() {
                    if !is_open.insert(call) {
                        return Err(StructureProblem::Recursion(functions[call].name().to_owned()));
                    }
                    open.push((call, 0));
                }
            } else {
                known[place] = Some(sum(&known, &bodies[place]));
                is_open.remove(&place);
                open.pop();
            }
        }
    }
    let (depth, nodes) = sum(&known, &look(&graph.node));
    // Those that nothing calls are looked at as well.
    let deepest = known.iter().flatten().map(|&(depth, _)| depth).max().unwrap_or(0);
    if depth.max(deepest + 1) > DEEPEST + 1 {
        Err(StructureProblem::Depth)
    } else if nodes > MOST {
        Err(StructureProblem::Size)
    } else {
        Ok(())
    }
}

/// Checks a graph and the graphs in it. Returns the names that it reads and does not define.
fn whole(graph: &GraphProto) -> Result<HashSet<&str>, StructureProblem> {
    let mut inputs: Vec<&str> = graph.input.iter().map(ValueInfoProto::name).collect();
    let with_default: HashSet<&str> = inputs.iter().copied().collect();
    let sparse = graph.sparse_initializer.iter().filter_map(|tensor| Some(tensor.values.as_ref()?.name()));
    let constants = graph.initializer.iter().map(TensorProto::name).chain(sparse);
    let mut seen = HashSet::new();
    for name in constants {
        if !seen.insert(name) {
            return Err(StructureProblem::Twice { what: "initializers", name: name.to_owned() });
        }
        // An initializer with the name of an input is what that is where it is not given.
        if !with_default.contains(name) {
            inputs.push(name);
        }
    }
    values(inputs.into_iter(), &graph.node, graph.output.iter().map(ValueInfoProto::name))
}

/// Checks the values of nodes that may read `given`. Returns the names that they read, or that are `put_out`, and nobody here defines.
fn values<'a>(
    given: impl Iterator<Item = &'a str>,
    nodes: &'a [NodeProto],
    put_out: impl Iterator<Item = &'a str>,
) -> Result<HashSet<&'a str>, StructureProblem> {
    // Where a name is from: nowhere here, which is to say given, or a node.
    let mut defined: HashMap<&str, Option<usize>> = HashMap::new();
    let written = nodes
        .iter()
        .enumerate()
        .flat_map(|(place, node)| node.output.iter().map(move |output| (output.as_str(), Some(place))));
    for (name, place) in given.map(|name| (name, None)).chain(written).filter(|(name, _)| !name.is_empty()) {
        if defined.insert(name, place).is_some() {
            return Err(StructureProblem::Twice { what: "values", name: name.to_owned() });
        }
    }
    let mut free: HashSet<&str> =
        put_out.filter(|name| !name.is_empty() && !defined.contains_key(name)).collect();
    let mut waits = vec![0_usize; nodes.len()];
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    for (place, node) in nodes.iter().enumerate() {
        let mut reads: HashSet<&str> = node.input.iter().map(String::as_str).collect();
        for graph in subgraphs(node) {
            reads.extend(whole(graph)?);
        }
        for name in reads.into_iter().filter(|name| !name.is_empty()) {
            match defined.get(name) {
                None => _ = free.insert(name),
                Some(None) => {}
                Some(&Some(writer)) => {
                    waits[place] += 1;
                    readers[writer].push(place);
                }
            }
        }
    }
    let mut ready: Vec<usize> = (0..nodes.len()).filter(|&place| waits[place] == 0).collect();
    while let Some(place) = ready.pop() {
        for &reader in &readers[place] {
            waits[reader] -= 1;
            if waits[reader] == 0 {
                ready.push(reader);
            }
        }
    }
    match waits.iter().position(|&waits| waits > 0) {
        Some(place) => Err(StructureProblem::Cycle(nodes[place].output.first().cloned().unwrap_or_default())),
        None => Ok(free),
    }
}
