//! A graph as data flow: who makes a value, who reads it, and through which values all of its data comes.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use isqrt_cov_proto::FunctionKey;
use isqrt_cov_proto::onnx::{GraphProto, TensorProto};

use super::calls::Functions;
use super::decisions::{bends, chooses, holds, holds_nodes, sizing_inputs};
use super::dominators::Dominators;
use super::nodes::{asks_caller, captured, holds_operator, holds_weights, multiplies, reads_shape_only};
use super::order::in_order;
use super::zeros::{is_zero, makes_zero};
use super::{Kind, NodeId, ValueId, subgraphs};
use crate::constants::Constants;

/// The data flow of one graph.
#[derive(Debug)]
pub struct Flow<'a> {
    /// The graph.
    pub graph: &'a GraphProto,
    /// Every value's name.
    pub names: Vec<&'a str>,
    ids: HashMap<&'a str, ValueId>,
    /// How many values, the first ones, are initializers and inputs.
    declared: usize,
    /// The node that makes each value, none for graph inputs, initializers and values from outside.
    pub producer: Vec<Option<NodeId>>,
    /// The nodes that read each value, each once, in graph order.
    pub consumers: Vec<Vec<NodeId>>,
    /// Whether each value is an output of the graph.
    pub is_output: Vec<bool>,
    /// What each value depends on.
    pub kind: Vec<Kind>,
    /// Whether a trained weight goes into the making of each [`Kind::Constant`] value.
    trained: Vec<bool>,
    /// Whether each [`Kind::Constant`] or [`Kind::Shape`] value is 0 throughout, or next to it.
    zero: Vec<bool>,
    /// Whether each node holds trained weights in its own graphs or function, or something there decides by data.
    closed: Vec<bool>,
    /// Whether data decide what each node with others inside computes.
    decided: Vec<bool>,
    /// Whether each node is more than sums, products, quotients and powers of data: see [`bends`].
    bent: Vec<bool>,
    /// Whether data decide how many elements each value has.
    sized: Vec<bool>,
    /// The values through which all of each value's data comes.
    dominators: Dominators,
    /// What each node reads, including what its subgraphs read from this graph.
    reads: Vec<Vec<ValueId>>,
    /// Whether anything that each node makes goes into an output of the graph. Exporters leave nodes behind that do not.
    pub useful: Vec<bool>,
    /// The nodes in an order in which every value is made before it is read.
    pub order: Vec<NodeId>,
}

/// What a graph inside a model needs to know of what is around it.
#[derive(Debug, Default)]
pub struct Around<'a> {
    /// Values from outside, the arguments of a function among them, with what they depend on and whether a trained weight
    /// went into them. What is not here is data.
    pub known: HashMap<&'a str, (Kind, bool)>,
    /// Functions that cannot be part of a formula: see [`super::closed_functions`].
    pub closed_functions: Rc<HashSet<FunctionKey<'a>>>,
    /// The model's functions.
    pub functions: Rc<Functions<'a>>,
}

impl<'a> Flow<'a> {
    /// Reads the data flow off a graph that stands for itself.
    #[must_use]
    pub fn new(graph: &'a GraphProto) -> Self {
        Self::within(graph, &Around::default())
    }

    /// Reads the data flow off a graph. Cyclic parts, which no runtime can evaluate, are left out of `order`.
    #[must_use]
    pub fn within(graph: &'a GraphProto, around: &Around) -> Self {
        let mut flow = Self {
            graph,
            names: Vec::new(),
            ids: HashMap::new(),
            declared: 0,
            producer: Vec::new(),
            consumers: Vec::new(),
            is_output: Vec::new(),
            kind: Vec::new(),
            trained: Vec::new(),
            zero: Vec::new(),
            closed: Vec::new(),
            decided: vec![false; graph.node.len()],
            bent: Vec::new(),
            sized: Vec::new(),
            dominators: Dominators::default(),
            reads: Vec::with_capacity(graph.node.len()),
            useful: vec![false; graph.node.len()],
            order: Vec::new(),
        };
        let constants = Constants::new(graph);
        for tensor in &graph.initializer {
            let id = flow.intern(tensor.name());
            flow.kind[id] = Kind::Constant;
            flow.trained[id] = constants.looks_trained(tensor.name());
            flow.zero[id] = is_zero(tensor);
        }
        for value in &graph.input {
            flow.intern(value.name());
        }
        flow.declared = flow.names.len();
        for (index, node) in graph.node.iter().enumerate() {
            for name in node.output.iter().filter(|name| !name.is_empty()) {
                let id = flow.intern(name);
                flow.producer[id] = Some(index);
            }
        }
        for node in &graph.node {
            let mut reads: Vec<ValueId> =
                node.input.iter().filter(|name| !name.is_empty()).map(|name| flow.intern(name)).collect();
            for subgraph in subgraphs(node) {
                captured(subgraph, &mut |name| reads.push(flow.intern(name)));
            }
            reads.sort_unstable();
            reads.dedup();
            flow.reads.push(reads);
        }
        for (index, reads) in flow.reads.iter().enumerate() {
            reads.iter().for_each(|&value| flow.consumers[value].push(index));
        }
        for value in &graph.output {
            let id = flow.intern(value.name());
            flow.is_output[id] = true;
        }
        for (id, name) in flow.names.iter().enumerate() {
            if let Some(&(kind, trained)) = around.known.get(name) {
                (flow.kind[id], flow.trained[id]) = (kind, trained);
            }
        }
        flow.order = in_order(&flow.reads, &flow.producer);
        flow.mark_useful();
        flow.classify(&constants, around);
        flow.closed = (0..graph.node.len()).map(|node| flow.is_closed(node, around)).collect();
        flow.bent = (0..graph.node.len()).map(|node| flow.is_bent(node, around)).collect();
        flow
    }

    fn intern(&mut self, name: &'a str) -> ValueId {
        let next = self.names.len();
        let id = *self.ids.entry(name).or_insert(next);
        if id == next {
            self.names.push(name);
            self.producer.push(None);
            self.consumers.push(Vec::new());
            self.is_output.push(false);
            self.kind.push(Kind::Data);
            self.trained.push(false);
            self.zero.push(false);
            self.sized.push(false);
            self.dominators.push();
        }
        id
    }

    fn mark_useful(&mut self) {
        let outputs = (0..self.names.len()).filter(|&value| self.is_output[value]);
        let mut pending: Vec<NodeId> = outputs.filter_map(|value| self.producer[value]).collect();
        while let Some(node) = pending.pop() {
            if !std::mem::replace(&mut self.useful[node], true) {
                pending.extend(self.reads[node].iter().filter_map(|&read| self.producer[read]));
            }
        }
    }

    fn classify(&mut self, constants: &Constants, around: &Around) {
        for position in 0..self.order.len() {
            let node = self.order[position];
            let proto = &self.graph.node[node];
            let own_constant = proto.is("Constant")
                && proto.output.first().is_some_and(|name| constants.looks_trained(name));
            let mut kind = Kind::Constant;
            let mut trained = own_constant;
            let mut dominator: Option<Option<ValueId>> = None;
            let decided = holds(proto, &around.functions, &|name| self.kind_of(name), chooses);
            let mut sized = decided || self.sizes(node);
            let inputs = proto.input.iter().enumerate();
            let by_shape: Vec<ValueId> = inputs
                .filter(|&(input, _)| reads_shape_only(proto, input))
                .filter_map(|(_, name)| self.id(name))
                .collect();
            for &value in &self.reads[node] {
                let by_shape = by_shape.contains(&value);
                if by_shape && self.kind[value] == Kind::Data && !self.sized[value] {
                    kind = kind.max(Kind::Shape);
                    continue;
                }
                kind = kind.max(self.kind[value]);
                sized |= self.sized[value] && !by_shape;
                match self.kind[value] {
                    Kind::Data => {
                        dominator = Some(match dominator {
                            None => Some(value),
                            Some(other) => other.and_then(|other| self.dominators.common(other, value)),
                        });
                    }
                    Kind::Constant | Kind::Shape => trained |= self.trained[value],
                }
            }
            self.decided[node] = decided;
            let zero = makes_zero(proto, |name| self.is_zero(name));
            let outputs: Vec<ValueId> = self.outputs(node).collect();
            for value in outputs {
                self.kind[value] = kind;
                self.zero[value] = zero && kind != Kind::Data;
                self.trained[value] = trained && kind != Kind::Data;
                self.sized[value] = sized && kind == Kind::Data;
                if kind == Kind::Data {
                    self.dominators.set(value, dominator.flatten());
                }
            }
        }
    }

    /// The value called `name`.
    #[must_use]
    pub fn id(&self, name: &str) -> Option<ValueId> {
        self.ids.get(name).copied()
    }

    /// Whether a value is the graph's own: an initializer, an input, or made by a node.
    pub(crate) fn is_own(&self, value: ValueId) -> bool {
        value < self.declared || self.producer[value].is_some()
    }

    /// The tensor of a value that is an initializer.
    pub(crate) fn initializer(&self, value: ValueId) -> Option<&'a TensorProto> {
        // They are the first values, in their order.
        self.graph.initializer.get(value).filter(|tensor| tensor.name() == self.names[value])
    }

    /// The values that a node makes.
    pub fn outputs(&self, node: NodeId) -> impl Iterator<Item = ValueId> + '_ {
        let names = self.graph.node[node].output.iter();
        names.filter(|name| !name.is_empty()).map(|name| self.ids[name.as_str()])
    }

    /// The values that a node reads, including what its subgraphs read from this graph.
    #[must_use]
    pub fn reads(&self, node: NodeId) -> &[ValueId] {
        &self.reads[node]
    }

    /// The data values that a node reads.
    pub fn data_reads(&self, node: NodeId) -> impl Iterator<Item = ValueId> + '_ {
        self.reads[node].iter().copied().filter(|&value| self.kind[value] == Kind::Data)
    }

    /// Whether a node uses a trained weight, or cannot be part of a formula for another reason: what is an operator of ours
    /// already is not explained again.
    #[must_use]
    pub fn has_weights(&self, node: NodeId) -> bool {
        self.closed[node] || self.reads[node].iter().any(|&value| self.trained[value])
    }

    /// What is known of a value: what it depends on, and whether a trained weight went into it.
    #[must_use]
    pub fn known(&self, name: &str) -> Option<(Kind, bool)> {
        let id = self.id(name)?;
        Some((self.kind[id], self.trained[id]))
    }

    fn is_closed(&self, node: NodeId, around: &Around) -> bool {
        let proto = &self.graph.node[node];
        if around.closed_functions.contains(&proto.called()) || asks_caller(proto) {
            return true;
        }
        // What is multiplied for one shape and not for another is no formula.
        let by_shape = proto.op_type() == "If" && subgraphs(proto).any(multiplies);
        by_shape && self.kind_of(proto.input.first().map_or("", |condition| condition)) == Kind::Shape
            || holds_weights(std::slice::from_ref(proto))
            || holds_operator(proto)
            || self.decided[node]
    }

    fn is_bent(&self, node: NodeId, around: &Around) -> bool {
        let (proto, kind) = (&self.graph.node[node], |name: &str| self.kind_of(name));
        if holds_nodes(proto, &around.functions) {
            holds(proto, &around.functions, &kind, bends)
        } else {
            bends(proto, &kind)
        }
    }

    /// Whether a node makes as many elements as data say.
    fn sizes(&self, node: NodeId) -> bool {
        let inputs = &self.graph.node[node].input;
        sizing_inputs(&self.graph.node[node])
            .any(|index| inputs.get(index).is_some_and(|name| self.kind_of(name) == Kind::Data))
    }

    /// What the value called `name` depends on; no name is a constant.
    #[must_use]
    pub fn kind_of(&self, name: &str) -> Kind {
        self.id(name).map_or(Kind::Constant, |id| self.kind[id])
    }

    /// Whether a node is more than sums, products, quotients and powers of data: see [`bends`].
    #[must_use]
    pub fn bends(&self, node: NodeId) -> bool {
        self.bent[node]
    }

    /// Whether a value is 0 throughout, or next to it.
    #[must_use]
    pub fn is_zero(&self, name: &str) -> bool {
        self.id(name).is_some_and(|id| self.zero[id])
    }

    /// The values through which all data of `value` comes, nearest first.
    pub fn dominators(&self, value: ValueId) -> impl Iterator<Item = ValueId> + '_ {
        self.dominators.above(value)
    }

    /// Whether all data of `value` comes through `above`, or it is that.
    #[must_use]
    pub fn comes_through(&self, value: ValueId, above: ValueId) -> bool {
        self.dominators.is_within(value, above)
    }

    /// How many values all data of `value` comes through.
    #[must_use]
    pub fn depth(&self, value: ValueId) -> usize {
        self.dominators.depth(value)
    }
}

#[cfg(test)]
mod tests {
    use isqrt_cov_proto::onnx::{NodeProto, TensorProto, ValueInfoProto};

    use super::*;

    fn graph(nodes: Vec<NodeProto>, input: &str, output: &str) -> GraphProto {
        GraphProto {
            node: nodes,
            input: vec![ValueInfoProto::named(input)],
            output: vec![ValueInfoProto::named(output)],
            ..GraphProto::default()
        }
    }

    /// x → (mean, x − mean) → centered → product, with a Shape on the side.
    fn diamond() -> GraphProto {
        graph(
            vec![
                NodeProto::new("ReduceMean", &["x"], &["mean"]),
                NodeProto::new("Sub", &["x", "mean"], &["centered"]),
                NodeProto::new("Transpose", &["centered"], &["transposed"]),
                NodeProto::new("Shape", &["x"], &["shape"]),
                NodeProto::new("Reshape", &["transposed", "shape"], &["reshaped"]),
                NodeProto::new("MatMul", &["centered", "reshaped"], &["product"]),
            ],
            "x",
            "product",
        )
    }

    #[test]
    fn all_data_of_a_value_comes_through_its_dominators() {
        let graph = diamond();
        let flow = Flow::new(&graph);
        let names = |value: &str| -> Vec<&str> {
            flow.dominators(flow.id(value).unwrap()).map(|dominator| flow.names[dominator]).collect()
        };
        assert_eq!(names("product"), ["centered", "x"]);
        assert_eq!(names("mean"), ["x"]);
        assert_eq!(flow.kind[flow.id("shape").unwrap()], Kind::Shape);
        assert_eq!(flow.kind[flow.id("reshaped").unwrap()], Kind::Data);
    }

    #[test]
    fn what_only_one_value_needs_is_dead_without_it() {
        let graph = diamond();
        let flow = Flow::new(&graph);
        let (x, product) = (flow.id("x").unwrap(), flow.id("product").unwrap());
        assert_eq!(flow.needed_only_for(&[product], &[x]), [0, 1, 2, 3, 4, 5]);
        // `centered` is also read by `transposed`, which stays.
        let reshaped = flow.id("reshaped").unwrap();
        assert_eq!(flow.needed_only_for(&[reshaped], &[x]), [2, 3, 4]);
    }

    #[test]
    fn what_serves_no_output_keeps_nothing_alive() {
        let mut graph = diamond();
        graph.node.extend([
            NodeProto::new("Neg", &["transposed"], &["idle"]),
            NodeProto::new("Abs", &["idle"], &["idle_too"]),
            NodeProto::new("Abs", &["mean"], &["other"]),
            NodeProto::new("Neg", &["product"], &["behind"]),
        ]);
        let flow = Flow::new(&graph);
        let [x, centered, product] = ["x", "centered", "product"].map(|name| flow.id(name).unwrap());
        assert_eq!(flow.needed_only_for(&[product], &[x]), [0, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(flow.needed_only_for(&[product], &[centered]), [2, 3, 4, 5, 6, 7], "`mean` stays");
    }

    #[test]
    fn weights_are_told_from_formulas() {
        let weights: Vec<f32> = (0..64).map(|index| index as f32 * 0.3).collect();
        let identity: Vec<f32> = (0..64).map(|index| f32::from(u8::from(index % 9 == 0))).collect();
        let nodes = vec![
            NodeProto::new("MatMul", &["x", "weights"], &["y"]),
            NodeProto::new("Mul", &["y", "identity"], &["z"]),
        ];
        let mut graph = graph(nodes, "x", "z");
        graph.initializer = vec![
            TensorProto::from_values("weights", &[8, 8], &weights),
            TensorProto::from_values("identity", &[8, 8], &identity),
        ];
        let flow = Flow::new(&graph);
        assert!(flow.has_weights(0));
        assert!(!flow.has_weights(1));
    }

    #[test]
    fn a_cycle_is_left_out_of_the_order() {
        let nodes = vec![
            NodeProto::new("Add", &["x", "b"], &["a"]),
            NodeProto::new("Add", &["x", "a"], &["b"]),
            NodeProto::new("Relu", &["x"], &["c"]),
        ];
        let graph = graph(nodes, "x", "c");
        assert_eq!(Flow::new(&graph).order, [2]);
    }
}
