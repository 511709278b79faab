//! Blocks that wait for each other within a launch: how many of them a device takes.

use super::arguments::TURN;
use super::arithmetic::Arithmetic;
use super::element::ElementType;
use super::module::Module;
use super::read::{READ_THREADS, read_positions, read_shared};
use super::slab::{PRODUCT_THREADS, Stage, name, product_shared};
use super::tier::Target;

/// The most blocks that a cluster has on any device.
const MOST_BLOCKS: usize = 16;

/// The clusters that a device has room for at a time; none without them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Clusters {
    /// How many of so many blocks of `cluster_halves_T`, with few stages in a block's shared memory and with many.
    products: [[u32; 2]; MOST_BLOCKS + 1],
    /// The most blocks of `read_halves_T` that there may be in one.
    pub read: u32,
}

impl Clusters {
    /// Those that `products` tells of: how many there is room for, of so many blocks, and with as many stages as a block has that is alone on its
    /// multiprocessor, or with fewer; and `read`, of so many blocks. Clusters of one block need not run at a time.
    fn ask(
        multiprocessors: u32,
        mut products: impl FnMut(u32, bool) -> u32,
        mut read: impl FnMut(u32) -> u32,
    ) -> Self {
        let products = std::array::from_fn(|blocks| match blocks {
            0 => [0; 2],
            1 => [u32::MAX, multiprocessors],
            _ => [false, true].map(|alone| products(blocks as u32, alone)),
        });
        let read = (1..=MOST_BLOCKS as u32).rev().find(|&blocks| read(blocks) > 0).unwrap_or(0);
        Self { products, read }
    }

    /// Those of the current context's device, a `target` whose clusters are not known yet; none that the driver does not know of.
    pub(super) fn of(module: &Module, target: Target) -> Self {
        let kernel = |stage| name(stage, Arithmetic::Halves, ElementType::Float);
        let products = |blocks, alone| {
            let (_, shared) = product_shared::<f32>(Arithmetic::Halves, alone);
            module.clusters(kernel(Stage::Cluster), blocks, PRODUCT_THREADS, shared + TURN).unwrap_or(0)
        };
        let read = |blocks| {
            // What is the most that a block keeps there: with less, there is room for no fewer.
            let shared = read_shared(read_positions(target.shared));
            module.clusters(kernel(Stage::Read), blocks, READ_THREADS, shared).unwrap_or(0)
        };
        Self::ask(target.multiprocessors, products, read)
    }

    /// The most blocks of a cluster of products that there is room for.
    pub(super) fn most(&self) -> u32 {
        self.products.iter().rposition(|&[few, _]| few > 0).unwrap_or(0) as u32
    }

    /// Whether the blocks of `samples` clusters of so many `blocks` have as many stages as if they were alone; none where not all of the
    /// clusters run at a time: those left over would take as long again.
    pub(super) fn alone(&self, blocks: usize, samples: usize) -> Option<bool> {
        let [few, many] = *self.products.get(blocks)?;
        [(many, true), (few, false)]
            .into_iter()
            .find(|(room, _)| samples <= *room as usize)
            .map(|(_, alone)| alone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_are_used_where_all_of_them_have_room() {
        let room = |blocks, alone| if blocks > 8 { 0 } else { 24 / (1 + u32::from(alone)) };
        let clusters = Clusters::ask(20, room, |blocks| 12_u32.saturating_sub(blocks));
        assert_eq!((clusters.read, clusters.most()), (11, 8));
        let unread = Clusters::ask(20, room, |_| 0);
        assert_eq!((unread.read, unread.most()), (0, 8));
        assert_eq!(clusters.alone(3, 12), Some(true));
        assert_eq!(clusters.alone(3, 13), Some(false));
        assert_eq!(clusters.alone(3, 25), None);
        assert_eq!(clusters.alone(1, 20), Some(true));
        assert_eq!(clusters.alone(1, 1000), Some(false));
        for blocks in [0, 10, 16, 17] {
            assert_eq!(clusters.alone(blocks, 1), None, "{blocks}");
        }
        assert_eq!(Clusters::default().alone(1, 1), None);
    }
}
