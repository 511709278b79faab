//! Reading a sample: scaled, centered, and laid out as the operands of the covariance and of the Gram matrix.
#![allow(unsafe_code)]

use super::element::{Element, Real};
use super::executor::{Executor, for_each_piece};
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
/// them is unspecified: it reaches nothing but the padding of products.
pub(super) fn read<T: Element, S: Simd<T::Real, W>, const W: usize>(
    simd: S,
    executor: &dyn Executor,
    reading: Reading<T::Real>,
    sample: &[T],
    transposed: &mut [[T::Real; W]],
    straight: Option<&mut [[T::Real; W]]>,
) {
    let Reading { channels, positions, .. } = reading;
    let straight = straight.map(Shared::new);
    let bound = |panel: usize| panel * positions.padded;
    for_each_piece(executor, transposed, channels.panels, &bound, &|panel, lines| {
        simd.vectorize(
            #[inline(always)]
            || {
                let source = Source { reading, sample, panel };
                match reading.layout {
                    Layout::ChannelsFirst => source.load_channels(simd, lines),
                    Layout::ChannelsLast => source.load_positions(simd, lines),
                }
                if reading.centered {
                    center(simd, &mut lines[positions.pad..]);
                }
                let Some(straight) = &straight else { return };
                for (block, lines) in lines.as_chunks::<W>().0.iter().enumerate() {
                    let at = block * channels.padded + panel * W;
                    // SAFETY: a block of this panel's channels; every task has another panel.
                    let to = unsafe { straight.range(at..at + W) };
                    simd.transpose(simd.lines(lines), to, 0);
                }
            },
        );
    });
}

/// Subtracts the mean of the lines from each of them.
///
/// What is summed is the distance from the first line, so that the mean of a constant channel is that constant exactly.
#[inline(always)]
fn center<R: Real, S: Simd<R, W>, const W: usize>(simd: S, lines: &mut [[R; W]]) {
    let (one, minus_one) = (simd.splat(R::from_f64(1.0)), simd.splat(R::from_f64(-1.0)));
    let first = simd.load(&lines[0]);
    let mut sum = [0.0; W];
    for lines in lines.chunks(TERMS) {
        // Several sums, so that no addition waits for the one before.
        let mut parts = [simd.splat(R::default()); 4];
        let (quads, rest) = lines.as_chunks::<4>();
        for quad in quads {
            for i in 0..4 {
                let distance = simd.multiply_add(minus_one, first, simd.load(&quad[i]));
                parts[i] = simd.multiply_add(one, distance, parts[i]);
            }
        }
        for line in rest {
            let distance = simd.multiply_add(minus_one, first, simd.load(line));
            parts[0] = simd.multiply_add(one, distance, parts[0]);
        }
        for part in parts {
            let mut numbers = [R::default(); W];
            simd.store(part, &mut numbers);
            for i in 0..W {
                sum[i] += numbers[i].to_f64();
            }
        }
    }
    let mut mean = lines[0];
    for i in 0..W {
        mean[i] = R::from_f64(mean[i].to_f64() + sum[i] / lines.len() as f64);
    }
    let mean = simd.load(&mean);
    for line in lines {
        simd.store(simd.multiply_add(minus_one, mean, simd.load(line)), line);
    }
}

/// The W channels of one panel in a sample.
struct Source<'a, T: Element> {
    reading: Reading<T::Real>,
    sample: &'a [T],
    panel: usize,
}

impl<T: Element> Source<'_, T> {
    /// Every position's line of a sample whose channels are first.
    #[inline(always)]
    fn load_channels<S: Simd<T::Real, W>, const W: usize>(&self, simd: S, lines: &mut [[T::Real; W]]) {
        let Reading { channels, positions, .. } = self.reading;
        for (block, lines) in lines.as_chunks_mut::<W>().0.iter_mut().enumerate() {
            let pad = padding(positions, block);
            let position = block * W + pad - positions.pad;
            let mut rows = [simd.splat(T::Real::default()); W];
            for i in 0..W {
                // The padding repeats the first channel.
                let channel = (self.panel * W + i).saturating_sub(channels.pad);
                rows[i] = self.load(simd, channel * positions.len + position, pad);
            }
            simd.transpose(rows, lines, 0);
        }
    }

    /// Every position's line of a sample whose channels are last.
    #[inline(always)]
    fn load_positions<S: Simd<T::Real, W>, const W: usize>(&self, simd: S, lines: &mut [[T::Real; W]]) {
        let Reading { channels, positions, .. } = self.reading;
        let pad = padding(channels, self.panel);
        let channel = self.panel * W + pad - channels.pad;
        for (position, line) in lines[positions.pad..].iter_mut().enumerate() {
            simd.store(self.load(simd, position * channels.len + channel, pad), line);
        }
    }

    /// The elements from `index` on, scaled, after `pad` others.
    #[inline(always)]
    fn load<S: Simd<T::Real, W>, const W: usize>(&self, simd: S, index: usize, pad: usize) -> S::Vector {
        let mut line = [T::Real::default(); W];
        match index.checked_sub(pad) {
            // A length known beforehand is copied without a call.
            Some(start) => T::load(&self.sample[start..start + W], &mut line),
            None => T::load(&self.sample[index..index + W - pad], &mut line[pad..]),
        }
        simd.multiply_add(simd.splat(self.reading.scale), simd.load(&line), simd.splat(T::Real::default()))
    }
}

/// The padding in front of a panel's first column, or a block's first row.
#[inline(always)]
fn padding(side: Side, panel: usize) -> usize {
    if panel == 0 { side.pad } else { 0 }
}
