//! Whole layers in one launch, for sizes of which a cluster of blocks computes a sample.

use super::arguments::{CLUSTER, FUSED_TILES, Fused, STEPS, Share, Tiles};
use super::element::ElementType;
use super::plan::{Launch, Launching, Plan};
use super::slab::{Slab, no_product};
use super::tier::Capabilities;
use crate::Error;
use crate::layer::{Normalization, OperatorKind};
use crate::program::Outcome;

/// The sizes of `kernels/fused.cuh`: threads of a block, the greatest side, bytes of shared memory, and the side of a tile.
pub(super) const THREADS: u32 = 384;
const SIDE: usize = 256;
pub(super) const SHARED: u32 = 208 << 10;
const TILE: usize = 32;

/// What a cluster does beside its blocks' shares, as a part of all that a sample takes.
const COMMON: f64 = 0.15;

/// The blocks of a sample's cluster for a slab of this many samples: the time is that of the clusters that a device has no room for at once. The
/// number changes no bit.
pub(super) fn cluster(samples: usize, capabilities: &Capabilities) -> usize {
    let time = |blocks: &usize| {
        let together = usize::from(capabilities.clusters[blocks - 1]);
        let turns = samples.div_ceil(together.max(1)) as f64;
        if together == 0 { f64::INFINITY } else { turns * (COMMON + 1.0 / *blocks as f64) }
    };
    (1..=CLUSTER).min_by(|a, b| time(a).total_cmp(&time(b))).unwrap_or(1)
}

/// Whether a plan's samples can be computed in one launch.
pub(super) fn fits(plan: &Plan) -> bool {
    let Capabilities { tier, shared, .. } = plan.capabilities;
    if !tier.clusters() || shared < SHARED {
        return false;
    }
    let Some(program) = &plan.program else { return false };
    let products = 1 + program.products.len() + usize::from(matches!(program.result, Outcome::Factor(_)));
    plan.layer.operator == OperatorKind::IsqrtCov
        && plan.layer.normalization == Normalization::Trace
        && plan.element != ElementType::Double
        && plan.extent.channels <= SIDE
        && products <= STEPS
}

impl Slab<'_> {
    /// Hands over the only launch.
    ///
    /// # Errors
    /// What it came to.
    pub(super) fn launch_fused(&self, cluster: usize, launch: Launching<'_>) -> Result<(), Error> {
        let Some(program) = &self.plan.program else { return Ok(()) };
        let [side, channels] = [self.side(), self.plan.extent.channels].map(|side| side.div_ceil(TILE));
        let mut fused = Fused {
            moments: self.moments(),
            center: self.center::<f32>(self.form()),
            write: self.result(program),
            square: square(tiles(side, side, true, cluster)),
            symmetric: tiles(side, side, true, cluster),
            rectangle: tiles(side, channels, false, cluster),
            last: tiles(channels, channels, true, cluster),
            steps: 0,
            products: [no_product(); STEPS],
        };
        let products = std::iter::once(self.gram(self.epilogue(program, None))).chain(self.products(program));
        for (step, product) in fused.products.iter_mut().zip(products) {
            *step = product;
            fused.steps += 1;
        }
        let function = match self.plan.element {
            ElementType::Float16 => "fused_f16",
            ElementType::BFloat16 => "fused_bf16",
            _ => "fused_f32",
        };
        let (blocks, cluster) = ((cluster * self.samples) as u32, cluster as u32);
        launch(Launch { function, blocks, threads: THREADS, shared: SHARED, cluster, arguments: &fused })
    }
}

/// Which tiles of a product the blocks of a cluster have: as many each, along a curve on which neighbors share rows and columns.
fn tiles(down: usize, across: usize, symmetric: bool, cluster: usize) -> Tiles {
    let mut tiles = Tiles { order: [0; FUSED_TILES], shares: [Share::default(); CLUSTER] };
    let mut count = 0;
    for place in 0..FUSED_TILES {
        // Bits of the column and of the row in turns.
        let bits = |from: usize| (0..3).map(|bit| (place >> (2 * bit + from) & 1) << bit).sum::<usize>();
        let (row, column) = (bits(1), bits(0));
        if row < down && column < across && (!symmetric || row <= column) {
            tiles.order[count] = (row * 8 + column) as u8;
            count += 1;
        }
    }
    for rank in 0..cluster {
        let (first, end) = (rank * count / cluster, (rank + 1) * count / cluster);
        let (rows, columns) = tiles.order[first..end]
            .iter()
            .fold((0, 0), |(rows, columns), tile| (rows | 1 << (tile / 8), columns | 1 << (tile % 8)));
        tiles.shares[rank] = Share {
            first: first as u8,
            count: (end - first) as u8,
            left: rows,
            right: columns,
            left_panels: listed(rows),
            right_panels: listed(columns),
        };
    }
    tiles
}

/// The same where both factors are one.
fn square(mut tiles: Tiles) -> Tiles {
    for share in &mut tiles.shares {
        share.left |= share.right;
        share.left_panels = listed(share.left);
    }
    tiles
}

/// The panels that have a bit, four bits each.
fn listed(panels: u8) -> u32 {
    (0..8).rev().filter(|panel| panels >> panel & 1 == 1).fold(0, |list, panel| list << 4 | panel)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::tier::Tier;

    #[test]
    fn every_tile_is_in_one_share_that_has_its_columns() {
        for (down, across, symmetric) in
            [(7, 7, true), (7, 8, false), (8, 8, true), (1, 1, true), (2, 8, false)]
        {
            for cluster in 1..=CLUSTER {
                let tiles = tiles(down, across, symmetric, cluster);
                let mut seen: Vec<u8> = Vec::new();
                for share in tiles.shares {
                    let own = &tiles.order[usize::from(share.first)..usize::from(share.first + share.count)];
                    assert!(
                        own.iter().all(|t| share.left >> (t / 8) & 1 == 1 && share.right >> (t % 8) & 1 == 1)
                    );
                    seen.extend(own);
                }
                let count = if symmetric { down * (down + 1) / 2 } else { down * across };
                assert_eq!(seen.len(), count);
                seen.sort_unstable();
                seen.dedup();
                assert_eq!(seen.len(), count);
            }
        }
    }

    #[test]
    fn clusters_are_as_large_as_there_is_room_for() {
        let capabilities = Capabilities {
            tier: Tier::Sm90,
            multiprocessors: 132,
            shared: SHARED,
            clusters: [132, 66, 43, 30, 24, 20, 16, 16],
        };
        assert_eq!(cluster(1, &capabilities), 8);
        assert_eq!(cluster(16, &capabilities), 8);
        assert_eq!(cluster(30, &capabilities), 4);
        assert_eq!(cluster(32, &capabilities), 3);
        assert_eq!(cluster(128, &capabilities), 1);
    }
}
