//! Which nodes choose by data.

use std::borrow::Cow;

use isqrt_cov_proto::onnx::{NodeProto, TensorProto};

use super::decisions::chooses;
use super::{Flow, NodeId, ValueId, zeros};

impl Flow<'_> {
    /// Whether a node chooses by data, and cannot be part of a formula: see [`chooses`]. What is compared with 0 may be kept from
    /// being a divisor, and true is made of true.
    #[must_use]
    pub fn chooses(&self, node: NodeId) -> bool {
        let proto = &self.graph.node[node];
        let is_true =
            || self.data_reads(node).all(|value| self.made_by(value).is_some_and(zeros::makes_bool));
        chooses(proto, &|name| self.kind_of(name))
            && !(zeros::compares(proto) && proto.input.iter().any(|name| self.is_zero(name)))
            && !(proto.op_type() == "Cast" && is_true())
    }

    /// Whether a node compares data with 0, and what comes of it is not for infinite numbers alone.
    #[must_use]
    pub fn compares_with_zero(&self, node: NodeId) -> bool {
        let proto = &self.graph.node[node];
        zeros::compares(proto)
            && self.data_reads(node).next().is_some()
            && !self.outputs(node).all(|output| self.is_of_infinite(output))
    }

    /// A constant that is made here and of few elements.
    #[must_use]
    pub fn small_constant(&self, value: ValueId) -> Option<Cow<'_, TensorProto>> {
        // A list is made a tensor each time.
        let is_short = |node: &&NodeProto| {
            node.attribute.iter().all(|list| list.floats.len().max(list.ints.len()) <= zeros::MOST)
        };
        let made = || self.made_by(value).filter(is_short).and_then(NodeProto::constant);
        let constant = self.initializer(value).map(Cow::Borrowed).or_else(made);
        constant.filter(|tensor| zeros::is_small(tensor))
    }

    /// Whether a constant is larger than any number of a network, or infinite: with that sign. None where it is no such thing.
    #[must_use]
    pub fn huge(&self, value: ValueId) -> Option<f64> {
        self.small_constant(value).and_then(|tensor| zeros::huge(&tensor))
    }

    /// Whether a truth is asked for only together with whether something is infinite or no number.
    fn is_of_infinite(&self, mut value: ValueId) -> bool {
        for _ in 0..zeros::MOST_CASTS {
            let [reader] = self.consumers[value][..] else { return false };
            match self.graph.node[reader].op_type() {
                "Cast" => {}
                "And" => {
                    let mut others = self.data_reads(reader).filter(|&other| other != value);
                    return others.any(|other| self.asks_for_infinite(other));
                }
                _ => return false,
            }
            let Some(output) = self.outputs(reader).next() else { return false };
            value = output;
        }
        false
    }

    fn asks_for_infinite(&self, mut value: ValueId) -> bool {
        for _ in 0..zeros::MOST_CASTS {
            let Some(node) = self.producer[value] else { return false };
            match self.graph.node[node].op_type() {
                "IsInf" | "IsNaN" => return true,
                "Cast" => {}
                _ => return false,
            }
            let Some(read) = self.data_reads(node).next() else { return false };
            value = read;
        }
        false
    }

    fn made_by(&self, value: ValueId) -> Option<&NodeProto> {
        Some(&self.graph.node[self.producer[value]?])
    }
}
