//! The values through which all data of a value comes, in steps that grow with the logarithm of how many there are: the file says how deep the
//! tree of them is.

use super::ValueId;

/// A forest of values, each below the nearest value through which all of its data comes.
#[derive(Debug, Default)]
pub(super) struct Dominators {
    /// That value, if there is one.
    parent: Vec<Option<ValueId>>,
    /// How many there are above each value.
    depth: Vec<usize>,
    /// A value far above, itself for a root: as far for all values of a depth. Myers, "An applicative random-access stack", 1983.
    jump: Vec<ValueId>,
}

impl Dominators {
    /// Adds a value below none.
    pub fn push(&mut self) {
        self.jump.push(self.parent.len());
        self.parent.push(None);
        self.depth.push(0);
    }

    /// Puts a value, below which there is none as yet, below `parent`.
    pub fn set(&mut self, value: ValueId, parent: Option<ValueId>) {
        self.parent[value] = parent;
        let Some(parent) = parent else { return };
        self.depth[value] = self.depth[parent] + 1;
        let jump = self.jump[parent];
        let height = |from: ValueId, to: ValueId| self.depth[from] - self.depth[to];
        let twice = height(parent, jump) == height(jump, self.jump[jump]);
        self.jump[value] = if twice { self.jump[jump] } else { parent };
    }

    /// The values above `value`, nearest first.
    pub fn above(&self, value: ValueId) -> impl Iterator<Item = ValueId> + '_ {
        std::iter::successors(self.parent[value], |&value| self.parent[value])
    }

    /// How many they are.
    pub fn depth(&self, value: ValueId) -> usize {
        self.depth[value]
    }

    /// Whether `value` is `above`, or below it.
    pub fn is_within(&self, value: ValueId, above: ValueId) -> bool {
        self.depth[value] >= self.depth[above] && self.at_depth(value, self.depth[above]) == above
    }

    /// The nearest value that both are or are below.
    pub fn common(&self, left: ValueId, right: ValueId) -> Option<ValueId> {
        let depth = self.depth[left].min(self.depth[right]);
        let (mut left, mut right) = (self.at_depth(left, depth), self.at_depth(right, depth));
        while left != right {
            let jumps = (self.jump[left], self.jump[right]);
            (left, right) = if jumps.0 == jumps.1 || jumps.0 == left {
                (self.parent[left]?, self.parent[right]?)
            } else {
                jumps
            };
        }
        Some(left)
    }

    /// What of `value` and those above it has so many above it, no more than `value` has.
    fn at_depth(&self, mut value: ValueId, depth: usize) -> ValueId {
        while self.depth[value] > depth {
            let jump = self.jump[value];
            let nearer = self.parent[value].unwrap_or(value);
            value = if self.depth[jump] >= depth { jump } else { nearer };
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recognize::probe::Generator;

    /// Compared with lists of all that is above.
    #[test]
    fn jumps_lead_where_single_steps_do() {
        let mut random = Generator::new(3);
        let mut below = |bound: usize| (random.uniform() * bound as f64) as usize;
        for (count, reach) in [(300_usize, 300), (300, 3), (300, 1)] {
            let mut tree = Dominators::default();
            for value in 0..count {
                tree.push();
                let parent = value.checked_sub(1 + below(reach)).filter(|_| below(60) > 0);
                tree.set(value, parent);
            }
            let up = |value| std::iter::once(value).chain(tree.above(value)).collect::<Vec<_>>();
            for _ in 0..3000 {
                let (left, right) = (below(count), below(count));
                let (above_left, above_right) = (up(left), up(right));
                let common = above_left.iter().find(|value| above_right.contains(value));
                assert_eq!(tree.common(left, right), common.copied(), "{above_left:?} {above_right:?}");
                assert_eq!(tree.is_within(left, right), above_left.contains(&right));
                assert_eq!(tree.depth(left), above_left.len() - 1);
            }
        }
    }

    #[test]
    fn a_long_chain_takes_few_steps() {
        let count = 1_usize << 20;
        let mut tree = Dominators::default();
        for value in 0..count {
            tree.push();
            tree.set(value, value.checked_sub(1));
        }
        // Step by step, a few days.
        for value in 0..count {
            assert_eq!(tree.common(value, count - 1 - value), Some(value.min(count - 1 - value)));
        }
    }
}
