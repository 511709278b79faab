//! The launches from the elements to X̄.

use super::arguments::{self, Center, Moments, Read};
use super::arithmetic::Arithmetic;
use super::plan::{Launch, Launching, Plan};
use super::real::Real;
use super::slab::{Slab, Stage, name};
use crate::Error;
use crate::layer::{Extent, Layout};

/// The sizes of `kernels/read.cuh`: threads of a block, and what it has a part of.
pub(super) const READ_THREADS: u32 = 256;
const MOMENTS_CHANNELS: usize = 8;
pub(super) const CENTER_CHANNELS: usize = 32;
pub(super) const CENTER_POSITIONS: usize = 128;
/// Shared memory, in bytes.
const MOMENTS_SHARED: u32 = 2048;
const CENTER_SHARED: u32 = 32 * 129 * 8;

/// The most positions that a block of `kernels/cluster_read.cuh` keeps in shared memory: two such blocks fit on a multiprocessor of Hopper's.
const READ_POSITIONS: usize = 800;

/// The most that it keeps where a block may ask for so much shared memory: 768 in the 99 KiB of consumers' GPUs.
pub(super) fn read_positions(shared: u32) -> usize {
    (0..=READ_POSITIONS).rev().find(|&positions| read_shared(positions) <= shared).unwrap_or(0)
}

/// The shared memory that it takes for so many.
pub(super) fn read_shared(positions: usize) -> u32 {
    64 + CENTER_CHANNELS as u32 * (positions.next_multiple_of(32) as u32 + 1) * 4
}

impl Slab<'_> {
    /// From the elements to X̄, in one launch where a sample is a cluster's.
    pub(super) fn read<R: Real>(&self, form: arguments::Form, launch: Launching<'_>) -> Result<(), Error> {
        let Extent { channels, positions, .. } = self.plan.extent;
        if let Some(blocks) = self.read_blocks() {
            return launch(Launch {
                function: name(Stage::Read, self.plan.arithmetic, self.plan.element),
                blocks: self.blocks(blocks),
                cluster: blocks as u32,
                threads: READ_THREADS,
                shared: read_shared(positions),
                arguments: &Read {
                    center: self.center::<R>(form),
                    centered: self.plan.layer.centered.into(),
                    blocks: blocks as i32,
                },
            });
        }
        launch(Launch {
            function: name(Stage::Moments, self.plan.arithmetic, self.plan.element),
            blocks: self.blocks(channels.div_ceil(MOMENTS_CHANNELS)),
            cluster: 1,
            threads: READ_THREADS,
            shared: MOMENTS_SHARED,
            arguments: &self.moments(),
        })?;
        launch(Launch {
            function: name(Stage::Center, self.plan.arithmetic, self.plan.element),
            blocks: self.blocks(channels.div_ceil(CENTER_CHANNELS) * positions.div_ceil(CENTER_POSITIONS)),
            cluster: 1,
            threads: READ_THREADS,
            shared: CENTER_SHARED,
            arguments: &self.center::<R>(form),
        })
    }

    /// The blocks of a cluster that reads a sample, if there is one for it. How many samples there are does not matter: no bit depends on them.
    fn read_blocks(&self) -> Option<usize> {
        let Extent { channels, positions, .. } = self.plan.extent;
        let blocks = channels.div_ceil(CENTER_CHANNELS);
        let there = self.plan.arithmetic == Arithmetic::Halves
            && self.plan.layer.layout == Layout::ChannelsFirst
            && positions <= read_positions(self.plan.target.shared)
            && blocks <= self.plan.target.clusters.read as usize;
        there.then_some(blocks)
    }

    /// The arguments of the kernel that sums over each channel.
    fn moments(&self) -> Moments {
        let Plan { layer, extent, parts, .. } = self.plan;
        Moments {
            x: self.addresses.input,
            means: self.at(parts.means),
            squares: self.at(parts.squares),
            samples: self.samples as i32,
            channels: extent.channels as i32,
            positions: extent.positions as i32,
            channels_last: arguments::channels_last(layer.layout),
            centered: layer.centered.into(),
        }
    }

    /// The arguments of the kernel that makes X̄ in the orders that are needed.
    fn center<R: Real>(&self, form: arguments::Form) -> Center {
        let Plan { layer, extent, parts, .. } = self.plan;
        let straight = self.matrix::<R>(parts.straight, extent.channels, extent.positions);
        let transposed = self.positions_by_channels::<R>(parts.transposed);
        let Moments { x, means, squares, samples, channels, positions, channels_last, .. } = self.moments();
        Center {
            x,
            means,
            squares,
            straight: if form == arguments::Form::Gram { straight.address } else { 0 },
            transposed: transposed.address,
            scale: self.at(parts.scales),
            divisor: self.divisor(),
            epsilon: layer.epsilon.into(),
            samples,
            channels,
            positions,
            channels_last,
            straight_ld: straight.ld as i32,
            transposed_ld: transposed.ld as i32,
            form,
            compensated: layer.compensated.into(),
            frobenius: self.frobenius(),
            raised: self.plan.arithmetic.raised(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_keeps_what_there_is_room_for() {
        assert_eq!(read_positions(227 << 10), READ_POSITIONS);
        assert_eq!(read_positions(99 << 10), 768);
        assert_eq!(read_positions(48 << 10), 352);
        assert_eq!(read_positions(1 << 10), 0);
    }
}
