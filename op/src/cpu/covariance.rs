//! Reading a sample: scaled, centered, and laid out as the operands of the covariance and of the Gram matrix.
#![allow(unsafe_code)]

use super::element::{Element, Real};
use super::executor::{Executor, for_each};
use super::product::{Side, Simd};
use super::shared::Shared;
use crate::layer::Layout;

/// The positions after which a sum in the kernel's type is put aside in float64.
const TERMS: usize = 64;

/// How a sample is stored and what is done to it on the way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading<R> {
    /// Which axis holds the channels.
    pub layout: Layout,
    /// Whether each channel's mean is subtracted.
    pub centered: bool,
    /// A power of two that every element is multiplied by.
    pub scale: R,
    /// C.
    pub channels: Side,
    /// M.
    pub positions: Side,
}

/// Writes X̄ᵀ (M rows in panels of channels) and, where it is wanted, X̄ (C rows in panels of positions). What pads
/// them is zero.
pub(super) fn read<T: Element, S: Simd<T::Real, W>, const W: usize>(
    simd: S,
    executor: &dyn Executor,
    reading: Reading<T::Real>,
    sample: &[T],
    transposed: &mut [[T::Real; W]],
    straight: Option<&mut [[T::Real; W]]>,
) {
    let Reading { channels, positions, .. } = reading;
    let transposed = Shared::new(transposed);
    let straight = straight.map(Shared::new);
    for_each(executor, channels.panels, &|panel| {
        simd.vectorize(
            #[inline(always)]
            || {
                let source = Source { reading, sample, panel };
                let means = if reading.centered { source.means() } else { [T::Real::default(); W] };
                let mut unused = [[T::Real::default(); W]; W];
                for block in 0..positions.panels {
                    let at = panel * positions.padded + block * W;
                    // SAFETY: a block of this panel of channels; every task has another panel.
                    let by_position = unsafe { transposed.range(at..at + W) }.first_chunk_mut();
                    let by_channel = match &straight {
                        Some(straight) => {
                            let at = block * channels.padded + panel * W;
                            // SAFETY: as above.
                            unsafe { straight.range(at..at + W) }.first_chunk_mut()
                        }
                        None => Some(&mut unused),
                    };
                    let (Some(by_position), Some(by_channel)) = (by_position, by_channel) else { return };
                    match reading.layout {
                        Layout::ChannelsFirst => {
                            source.channel_rows(block, &means, by_channel);
                            simd.transpose(by_channel, by_position);
                        }
                        Layout::ChannelsLast => {
                            source.position_rows(block, &means, by_position);
                            if straight.is_some() {
                                simd.transpose(by_position, by_channel);
                            }
                        }
                    }
                }
            },
        );
    });
}

/// The W channels of one panel in a sample.
struct Source<'a, T: Element> {
    reading: Reading<T::Real>,
    sample: &'a [T],
    panel: usize,
}

impl<T: Element> Source<'_, T> {
    /// Loads the elements at `index`, scaled, into the end of `to` after its first `pad`.
    #[inline(always)]
    fn load<const W: usize>(&self, index: usize, pad: usize, to: &mut [T::Real; W]) {
        if pad == 0 {
            // A length known beforehand is copied without a call.
            T::load(&self.sample[index..index + W], to);
        } else {
            T::load(&self.sample[index..index + W - pad], &mut to[pad..]);
            to[..pad].fill(T::Real::default());
        }
        to.iter_mut().for_each(|value| *value *= self.reading.scale);
    }

    /// The padding in front of a panel's or block's first column.
    #[inline(always)]
    fn pad(side: Side, panel: usize) -> usize {
        if panel == 0 { side.pad } else { 0 }
    }

    /// Sample[channel][position] for the panel's channels and the block's positions, less the means.
    #[inline(always)]
    fn channel_rows<const W: usize>(&self, block: usize, means: &[T::Real; W], rows: &mut [[T::Real; W]; W]) {
        let Reading { channels, positions, .. } = self.reading;
        let pad = Self::pad(positions, block);
        let skipped = Self::pad(channels, self.panel);
        rows[..skipped].fill([T::Real::default(); W]);
        for i in skipped..W {
            let channel = self.panel * W + i - channels.pad;
            let position = block * W + pad - positions.pad;
            self.load(channel * positions.len + position, pad, &mut rows[i]);
            rows[i].iter_mut().for_each(|value| *value = *value - means[i]);
            rows[i][..pad].fill(T::Real::default());
        }
    }

    /// Sample[position][channel] for the block's positions and the panel's channels, less the means.
    #[inline(always)]
    fn position_rows<const W: usize>(
        &self,
        block: usize,
        means: &[T::Real; W],
        rows: &mut [[T::Real; W]; W],
    ) {
        let skipped = Self::pad(self.reading.positions, block);
        rows[..skipped].fill([T::Real::default(); W]);
        for i in skipped..W {
            rows[i] = self.position(block * W + i - self.reading.positions.pad);
            for (value, mean) in rows[i].iter_mut().zip(means) {
                *value = *value - *mean;
            }
        }
    }

    /// The panel's channels at one position of a sample whose channels are last.
    #[inline(always)]
    fn position<const W: usize>(&self, position: usize) -> [T::Real; W] {
        let channels = self.reading.channels;
        let pad = Self::pad(channels, self.panel);
        let mut row = [T::Real::default(); W];
        self.load(position * channels.len + self.panel * W + pad - channels.pad, pad, &mut row);
        row
    }

    /// The channels' means.
    ///
    /// What is summed is the distance from the channel's first element, so that the mean of a constant channel is that
    /// constant exactly.
    #[inline(always)]
    fn means<const W: usize>(&self) -> [T::Real; W] {
        match self.reading.layout {
            Layout::ChannelsFirst => self.means_of_channel_rows(),
            Layout::ChannelsLast => self.means_of_position_rows(),
        }
    }

    #[inline(always)]
    fn means_of_channel_rows<const W: usize>(&self) -> [T::Real; W] {
        let Reading { channels, positions, .. } = self.reading;
        let mut means = [T::Real::default(); W];
        for i in Self::pad(channels, self.panel)..W {
            let channel = self.panel * W + i - channels.pad;
            let row = &self.sample[channel * positions.len..][..positions.len];
            let mut first = [T::Real::default()];
            T::load(&row[..1], &mut first);
            let first = first[0] * self.reading.scale;
            let mut sum = 0.0;
            for terms in row.chunks(TERMS * W) {
                let mut sums = [T::Real::default(); W];
                let (whole, rest) = terms.as_chunks::<W>();
                for elements in whole {
                    let mut values = [T::Real::default(); W];
                    T::load(elements, &mut values);
                    for (sum, value) in sums.iter_mut().zip(values) {
                        *sum += value * self.reading.scale - first;
                    }
                }
                let mut values = [T::Real::default(); W];
                T::load(rest, &mut values[..rest.len()]);
                for (sum, value) in sums.iter_mut().zip(&values[..rest.len()]) {
                    *sum += *value * self.reading.scale - first;
                }
                let mut width = W;
                while width > 1 {
                    width /= 2;
                    for i in 0..width {
                        sums[i] += sums[i + width];
                    }
                }
                sum += sums[0].to_f64();
            }
            means[i] = T::Real::from_f64(first.to_f64() + sum / positions.len as f64);
        }
        means
    }

    #[inline(always)]
    fn means_of_position_rows<const W: usize>(&self) -> [T::Real; W] {
        let positions = self.reading.positions.len;
        let first: [T::Real; W] = self.position(0);
        let mut sum = [0.0; W];
        for start in (0..positions).step_by(TERMS) {
            let mut sums = [T::Real::default(); W];
            for position in start..positions.min(start + TERMS) {
                let row: [T::Real; W] = self.position(position);
                for ((sum, value), first) in sums.iter_mut().zip(row).zip(first) {
                    *sum += value - first;
                }
            }
            sum.iter_mut().zip(sums).for_each(|(sum, part)| *sum += part.to_f64());
        }
        std::array::from_fn(|i| T::Real::from_f64(first[i].to_f64() + sum[i] / positions as f64))
    }
}
