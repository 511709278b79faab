//! Every graph of a model with its data flow: the main graph, those inside nodes, the bodies of functions.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use isqrt_cov_op::DOMAIN;
use isqrt_cov_proto::onnx::{GraphProto, ModelProto, OperatorSetIdProto};
use isqrt_cov_proto::{FunctionKey, each_node};

use super::region::{multiplying_functions, products};
use crate::graph::{Around, Flow, Functions, Kind, NodeId, captured, closed_functions, subgraphs};
use crate::scope::Scope;

/// Graphs looked into, at most: functions that call each other can spell more of them than there are nodes.
const MOST_PLACES: usize = 10_000;

/// A graph of a model.
#[derive(Debug)]
pub struct Place<'a> {
    /// Where it is.
    pub scope: Scope,
    /// Its data flow.
    pub flow: Flow<'a>,
    /// The place that its nodes also read from; none for the main graph and for functions.
    pub outer: Option<usize>,
    /// The operator sets that hold in it.
    pub opsets: &'a [OperatorSetIdProto],
    /// Its nodes that are [`products`] of data with data, or have them inside.
    pub products: Vec<NodeId>,
}

/// The model's graphs, each after those that it is in or called from. `bodies` are those of the model's functions.
///
/// Functions that nothing calls, and the operators' own, are left out.
#[must_use]
pub fn places<'a>(model: &'a ModelProto, graph: &'a GraphProto, bodies: &'a [GraphProto]) -> Vec<Place<'a>> {
    let closed_functions = closed_functions(&model.functions);
    let by_key: HashMap<FunctionKey, usize> =
        model.functions.iter().enumerate().map(|(index, function)| (function.key(), index)).collect();
    let mut calls: HashMap<usize, usize> = HashMap::new();
    for graph in std::iter::once(graph).chain(bodies) {
        each_node(&graph.node, &mut |node| {
            if let Some(&called) = by_key.get(&node.called()) {
                *calls.entry(called).or_default() += 1;
            }
        });
    }
    // The operators' own are no formula here.
    let others = by_key.iter().filter(|(key, _)| key.domain != DOMAIN);
    let functions: Functions = others.map(|(&key, &index)| (key, &model.functions[index])).collect();
    let (closed_functions, functions) = (Rc::new(closed_functions), Rc::new(functions));
    let around = |known| {
        let (closed_functions, functions) = (Rc::clone(&closed_functions), Rc::clone(&functions));
        Around { known, closed_functions, functions }
    };
    let multiplying = multiplying_functions(&model.functions);
    let place = |scope, flow, outer, opsets| {
        let products = products(&flow, &multiplying);
        Place { scope, flow, outer, opsets, products }
    };
    let flow = Flow::within(graph, &around(HashMap::new()));
    let mut places = vec![place(Scope::default(), flow, None, &model.opset_import)];
    let mut entered = HashSet::new();
    let mut next = 0;
    while next < places.len() && places.len() < MOST_PLACES {
        let mut found = Vec::new();
        let here = &places[next];
        for (node, proto) in here.flow.graph.node.iter().enumerate() {
            for (index, subgraph) in subgraphs(proto).enumerate() {
                let mut known = HashMap::new();
                captured(subgraph, &mut |name| {
                    known.extend(here.flow.known(name).map(|known| (name, known)));
                });
                let flow = Flow::within(subgraph, &around(known));
                let scope = here.scope.inside(node, index);
                found.push(place(scope, flow, Some(next), here.opsets));
            }
            let called = by_key.get(&proto.called()).copied();
            let Some(called) = called.filter(|_| proto.domain() != DOMAIN) else { continue };
            if !entered.insert(called) {
                continue;
            }
            let function = &model.functions[called];
            // Another call may give other constants, or data.
            let only = calls.get(&called) == Some(&1);
            let arguments = function.input.iter().zip(&proto.input).filter(|_| only);
            let known = arguments.filter_map(|(parameter, argument)| {
                let known = here.flow.known(argument).filter(|(kind, _)| *kind != Kind::Data)?;
                Some((parameter.as_str(), known))
            });
            let flow = Flow::within(&bodies[called], &around(known.collect()));
            found.push(place(Scope::of_function(called), flow, None, &function.opset_import));
        }
        places.extend(found);
        next += 1;
    }
    places
}
