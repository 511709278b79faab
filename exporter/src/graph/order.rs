//! An order in which nodes can be evaluated.

use std::collections::BTreeSet;

use super::{NodeId, ValueId};

/// The nodes in an order in which every value is made before it is read, else as they stand: what each reads is in `reads`, and which
/// node makes each value in `producer`. Those of cycles, and what follows from them, are left out.
///
/// Kahn's algorithm: graphs in files need not be sorted, and hostile ones need not be acyclic.
#[must_use]
pub fn in_order(reads: &[Vec<ValueId>], producer: &[Option<NodeId>]) -> Vec<NodeId> {
    let mut readers = vec![Vec::new(); reads.len()];
    let mut missing = vec![0_usize; reads.len()];
    for (node, read) in reads.iter().enumerate() {
        for maker in read.iter().filter_map(|&value| producer[value]) {
            readers[maker].push(node);
            missing[node] += 1;
        }
    }
    let mut ready: BTreeSet<NodeId> = (0..reads.len()).filter(|&node| missing[node] == 0).collect();
    let mut order = Vec::with_capacity(reads.len());
    while let Some(node) = ready.pop_first() {
        order.push(node);
        for &reader in &readers[node] {
            missing[reader] -= 1;
            if missing[reader] == 0 {
                ready.insert(reader);
            }
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_made_before() {
        // Node 0 reads twice what node 2 makes, 1 nothing, 2 what 1 makes, and 3 and 4 each other; 5 reads what 4 makes.
        let reads = [vec![2, 2], vec![], vec![1, 6], vec![4], vec![3], vec![4]];
        let producer = [Some(0), Some(1), Some(2), Some(3), Some(4), Some(5), None];
        assert_eq!(in_order(&reads, &producer), [1, 2, 0]);
    }
}
