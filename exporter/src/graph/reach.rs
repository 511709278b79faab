//! How far values go: who needs them, and through which nodes they come.

use std::collections::{BTreeSet, HashSet};

use super::{Flow, Kind, NodeId, ValueId, is_matrix_product, moves};

impl Flow<'_> {
    /// Whether a value is of use though some nodes are `gone`: it, or what others make of it, is an output or is read by a node
    /// with weights. What is made of `stops` does not count.
    #[must_use]
    pub fn leads_out(&self, value: ValueId, gone: &HashSet<NodeId>, stops: &HashSet<ValueId>) -> bool {
        let mut reached = HashSet::from([value]);
        let mut pending = vec![value];
        while let Some(value) = pending.pop() {
            let readers = self.consumers[value].iter().filter(|reader| !gone.contains(reader));
            if self.is_output[value] || readers.clone().any(|&reader| self.has_weights(reader)) {
                return true;
            }
            let made = readers.flat_map(|&reader| self.outputs(reader));
            pending.extend(made.filter(|output| {
                self.kind[*output] == Kind::Data && !stops.contains(output) && reached.insert(*output)
            }));
        }
        false
    }

    /// The nodes that would have nothing to do if nobody made `values`: those that make them, those that only they read, and
    /// those that read one of these for no output of the graph. `keep` stays needed, but for what is among the `values`.
    #[must_use]
    pub fn needed_only_for(&self, values: &[ValueId], keep: &[ValueId]) -> Vec<NodeId> {
        let [values, keep] = [values, keep].map(|ids| ids.iter().copied().collect::<HashSet<ValueId>>());
        let mut dead = BTreeSet::new();
        let mut pending: Vec<NodeId> = values.iter().filter_map(|&value| self.producer[value]).collect();
        while let Some(node) = pending.pop() {
            let needed = self.outputs(node).any(|output| {
                let needs = |&reader: &NodeId| self.useful[reader] && !dead.contains(&reader);
                !values.contains(&output)
                    && (keep.contains(&output)
                        || self.is_output[output]
                        || self.consumers[output].iter().any(needs))
            });
            if needed || !dead.insert(node) {
                continue;
            }
            pending.extend(self.reads(node).iter().filter_map(|&read| self.producer[read]));
        }
        pending.extend(&dead);
        while let Some(node) = pending.pop() {
            let gone = self.outputs(node).filter(|output| !values.contains(output) && !keep.contains(output));
            let readers = gone.flat_map(|output| &self.consumers[output]);
            pending.extend(readers.filter(|&&reader| dead.insert(reader)));
        }
        dead.into_iter().collect()
    }

    /// Whether a value, perhaps moved, is multiplied with other data as a matrix.
    #[must_use]
    pub fn is_multiplied(&self, value: ValueId) -> bool {
        let mut reached = HashSet::from([value]);
        let mut pending = vec![value];
        while let Some(value) = pending.pop() {
            for &reader in &self.consumers[value] {
                let node = &self.graph.node[reader];
                if is_matrix_product(node) && !self.has_weights(reader) {
                    return true;
                }
                if moves(node) {
                    pending.extend(self.outputs(reader).filter(|&output| reached.insert(output)));
                }
            }
        }
        false
    }

    /// The nodes on the ways of data from `input` to `output`.
    #[must_use]
    pub fn between(&self, input: ValueId, output: ValueId) -> HashSet<NodeId> {
        let mut nodes = HashSet::new();
        let mut pending = vec![output];
        while let Some(value) = pending.pop() {
            if value != input
                && let Some(node) = self.producer[value]
                && nodes.insert(node)
            {
                pending.extend(self.data_reads(node));
            }
        }
        nodes
    }
}
