//! What is found once other layers are operators, told of the model as it was before.
//!
//! A node that serves two layers gives way to neither until one of them is an operator. So what is left of a layer is searched
//! again: a converted model holds nothing that could be converted. And what one layer gives is not computed by another.

use std::collections::{HashMap, HashSet};

use isqrt_cov_op::DOMAIN;
use isqrt_cov_proto::onnx::{ModelProto, NodeProto};

use super::findings::{Findings, Miss};
use super::propose::places::{Place, places};
use super::tell::explain;
use crate::budget::spend;
use crate::found::Found;
use crate::graph::{NodeId, ValueId};
use crate::rewrite;
use crate::scope::{Scope, bodies};

/// How often what is left of layers is searched.
const MOST_PASSES: usize = 8;

/// Adds to `findings`, of the graphs `here` of `model`, the layers that `search` finds once these are operators, and takes out
/// those that another one nearly gives, and those whose iteration something else needs.
pub fn complete(
    model: &ModelProto,
    here: &[Place],
    findings: &mut Findings,
    search: impl Fn(&ModelProto, &[Place]) -> Option<Vec<Found>>,
) {
    let layers = &mut findings.layers;
    if leaves_products(here, layers) {
        let mut more = rest(model, layers.clone(), search);
        // What reads or makes a value that the model itself has not stands in no place of it.
        more.retain(|found| {
            here.iter().any(|place| !values_of(place, std::slice::from_ref(found)).is_empty())
        });
        layers.extend(more);
    }
    share(here, layers);
    let costly = take_costly(here, layers);
    // What is computed of the others as before may need nodes that would have gone.
    for place in here {
        let freed = freed(place, &values_of(place, layers));
        for found in layers.iter_mut().filter(|found| found.scope == place.scope) {
            found.nodes.retain(|node| freed.contains(node));
        }
    }
    let misses = costly.into_iter().filter_map(|found| {
        let reason = explain::costly(&found);
        Miss::of(found, reason)
    });
    findings.misses.extend(misses);
}

/// What `search` finds once these layers of `original` are operators, and what it found then, and so on.
fn rest(
    original: &ModelProto,
    mut layers: Vec<Found>,
    search: impl Fn(&ModelProto, &[Place]) -> Option<Vec<Found>>,
) -> Vec<Found> {
    let mut model = original.clone();
    let mut all = Vec::new();
    for _ in 0..MOST_PASSES {
        if rewrite::apply(&mut model, &layers, false).is_err() {
            break;
        }
        let Some(graph) = &model.graph else { break };
        let bodies = bodies(&model);
        let places = places(&model, graph, &bodies);
        let Some(found) = search(&model, &places) else { break };
        all.extend(found.iter().filter_map(|found| told_of(original, &model, found)));
        if !leaves_products(&places, &found) {
            break;
        }
        layers = found;
    }
    all
}

/// The layers that are in a graph, with their inputs and outputs.
fn values_of<'f>(place: &Place, layers: &'f [Found]) -> Vec<(&'f Found, ValueId, ValueId)> {
    let here = layers.iter().filter(|found| found.scope == place.scope);
    here.filter_map(|found| Some((found, place.flow.id(&found.input)?, place.flow.id(&found.output)?)))
        .collect()
}

/// The nodes of a graph that nothing needs once these layers are operators.
fn freed(place: &Place, layers: &[(&Found, ValueId, ValueId)]) -> HashSet<NodeId> {
    let inputs: Vec<ValueId> = layers.iter().map(|&(_, input, _)| input).collect();
    let outputs: Vec<ValueId> = layers.iter().map(|&(_, _, output)| output).collect();
    place.flow.needed_only_for(&outputs, &inputs).into_iter().collect()
}

/// Whether products on the way to a layer stay though it is an operator: something else needs them.
fn leaves_products(places: &[Place], layers: &[Found]) -> bool {
    places.iter().any(|place| {
        let here = values_of(place, layers);
        if here.is_empty() {
            return false;
        }
        let freed = freed(place, &here);
        here.iter().any(|&(_, input, output)| {
            let way = place.flow.between(input, output);
            place.products.iter().any(|product| way.contains(product) && !freed.contains(product))
        })
    })
}

/// Takes out the layers that would add work: most products on the way to them stay, since something else needs them. They are
/// returned.
fn take_costly(places: &[Place], layers: &mut Vec<Found>) -> Vec<Found> {
    let mut costly = Vec::new();
    for place in places {
        let products = &place.products;
        loop {
            let here = values_of(place, layers);
            if here.is_empty() {
                break;
            }
            // A search for each of them through the graph.
            if spend(&[place.flow.graph.node.len(), here.len() + 1, here.len() + 1]).is_err() {
                break;
            }
            let all = freed(place, &here);
            let first = here.iter().enumerate().find_map(|(index, &(found, input, output))| {
                let way = place.flow.between(input, output);
                let way: Vec<&NodeId> = products.iter().filter(|product| way.contains(product)).collect();
                if way.iter().all(|node| all.contains(node)) {
                    return None;
                }
                let mut others = here.clone();
                others.remove(index);
                let others = freed(place, &others);
                let own = products.iter().filter(|node| all.contains(node) && !others.contains(node)).count();
                (2 * own < way.len()).then(|| found.output.clone())
            });
            let Some(output) = first else { break };
            costly
                .extend(layers.extract_if(.., |found| found.scope == place.scope && found.output == output));
        }
    }
    costly
}

/// Takes out the layers that are made of what another one gives without any product: a triangle of a matrix that is needed
/// as well.
fn share(places: &[Place], layers: &mut Vec<Found>) {
    for place in places {
        let here = values_of(place, layers);
        if here.len() < 2 {
            continue;
        }
        let flow = &place.flow;
        let outputs: HashSet<ValueId> = here.iter().map(|&(_, _, output)| output).collect();
        let is_given = |output: ValueId| {
            let nearest = flow.dominators(output).find(|value| outputs.contains(value));
            nearest.is_some_and(|value| {
                let way = flow.between(value, output);
                !place.products.iter().any(|product| way.contains(product))
            })
        };
        let given: HashSet<String> = here
            .iter()
            .filter(|(_, _, output)| is_given(*output))
            .map(|(found, ..)| found.output.clone())
            .collect();
        layers.retain(|found| found.scope != place.scope || !given.contains(&found.output));
    }
}

/// What was found in a model, told of the `original` that it was before. None where that is not possible.
fn told_of(original: &ModelProto, changed: &ModelProto, found: &Found) -> Option<Found> {
    let scope = scope_of(original, changed, &found.scope)?;
    let (before, after) = (Origins::of(scope.nodes(original)?), found.scope.nodes(changed)?);
    let nodes = found.nodes.iter().filter_map(|&node| before.get(after.get(node)?)).collect();
    Some(Found { scope, nodes, ..found.clone() })
}

/// The same graph in the `original`.
fn scope_of(original: &ModelProto, changed: &ModelProto, scope: &Scope) -> Option<Scope> {
    let function = match scope.function {
        None => None,
        Some(function) => {
            let function = changed.functions.get(function)?;
            Some(original.functions.iter().position(|other| other.key() == function.key())?)
        }
    };
    let mut here = Scope { function: scope.function, path: Vec::new() };
    let mut there = Scope { function, path: Vec::new() };
    for &(node, subgraph) in &scope.path {
        let origin = Origins::of(there.nodes(original)?).get(here.nodes(changed)?.get(node)?)?;
        (here, there) = (here.inside(node, subgraph), there.inside(origin, subgraph));
    }
    Some(there)
}

/// Where the nodes of a graph are, by the values that they make.
struct Origins<'a>(HashMap<&'a str, NodeId>);

impl<'a> Origins<'a> {
    fn of(nodes: &'a [NodeProto]) -> Self {
        let made = nodes.iter().enumerate();
        Self(made.filter_map(|(index, node)| Some((made_by(node)?, index))).collect())
    }

    /// Where a node was; none for an operator of ours, which was another one.
    fn get(&self, node: &NodeProto) -> Option<NodeId> {
        (node.domain() != DOMAIN).then(|| self.0.get(made_by(node)?).copied()).flatten()
    }
}

fn made_by(node: &NodeProto) -> Option<&str> {
    node.output.iter().map(String::as_str).find(|name| !name.is_empty())
}
