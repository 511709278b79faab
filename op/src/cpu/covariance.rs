//! Reading a sample: scaled, centered, and laid out as the operands of the covariance and of the Gram matrix, or row by row.
#![allow(unsafe_code)]

use super::element::{Convert, Element, Real};
use super::executor::{Executor, Order, for_each_piece, worthwhile};
use super::product::{Side, Simd};
use super::shared::Shared;
use crate::layer::Layout;

/// The multiplications that take as long as reading an element.
const ELEMENT: usize = 16;

/// The rows whose means are taken before any is centered: all are near then, and none waits for its mean.
const TOGETHER: usize = 4;

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
pub(super) fn read<T: Element + Convert<R>, R: Real, S: Simd<R, W>, const W: usize, const MR: usize>(
    simd: S,
    executor: &dyn Executor,
    reading: Reading<R>,
    sample: &[T],
    transposed: &mut [[R; W]],
    straight: Option<&mut [[R; W]]>,
) {
    let Reading { channels, positions, .. } = reading;
    let straight = straight.map(Shared::new);
    let executor = worthwhile(executor, sample.len().saturating_mul(ELEMENT));
    let bound = |panel: usize| panel * positions.padded;
    for_each_piece(executor, transposed, (channels.panels, Order::Forward), &bound, &|panel, lines| {
        simd.vectorize(
            #[inline(always)]
            || {
                let source = Source { reading, sample, panel };
                let straight = straight.as_ref();
                match reading.layout {
                    Layout::ChannelsFirst => source.load_channels::<S, W, MR>(simd, lines, straight),
                    Layout::ChannelsLast => source.load_positions(simd, lines, straight),
                }
            },
        );
    });
}

/// Writes X̄ row by row, each filled up with zeros. The channels are first.
pub(super) fn read_rows<T: Element + Convert<R>, R: Real, S: Simd<R, W>, const W: usize>(
    simd: S,
    executor: &dyn Executor,
    reading: Reading<R>,
    sample: &[T],
    rows: &mut [[R; W]],
) {
    let channels = reading.channels;
    let executor = worthwhile(executor, sample.len().saturating_mul(ELEMENT));
    let bound = |panel: usize| (panel * W).saturating_sub(channels.pad) * reading.positions.panels;
    for_each_piece(executor, rows, (channels.panels, Order::Forward), &bound, &|panel, rows| {
        simd.vectorize(
            #[inline(always)]
            || Source { reading, sample, panel }.center_rows(simd, rows),
        );
    });
}

/// The W channels of one panel in a sample.
struct Source<'a, T, R> {
    reading: Reading<R>,
    sample: &'a [T],
    panel: usize,
}

impl<T: Element + Convert<R>, R: Real> Source<'_, T, R> {
    /// Every position's line, and every channel's lines, of a sample whose channels are first.
    #[inline(always)]
    fn load_channels<S: Simd<R, W>, const W: usize, const MR: usize>(
        &self,
        simd: S,
        lines: &mut [[R; W]],
        straight: Option<&Shared<'_, [R; W]>>,
    ) {
        let Reading { channels, positions, scale, .. } = self.reading;
        // The padding repeats the first channel.
        let channel: [usize; W] =
            std::array::from_fn(|i| (self.panel * W + i).saturating_sub(channels.pad) * positions.len);
        let minus_mean = self.row_means(simd, channel).map(|mean| R::default() - mean);
        let scale = simd.splat(scale);
        for (block, lines) in lines.as_chunks_mut::<W>().0.iter_mut().enumerate() {
            let pad = padding(positions, block);
            let position = block * W + pad - positions.pad;
            let row =
                |elements: S::Vector, i: usize| simd.multiply_add(scale, elements, simd.splat(minus_mean[i]));
            let straight = straight.map(|straight| {
                let at = block * channels.padded + self.panel * W;
                // SAFETY: a block of this panel's channels; every task has another panel.
                unsafe { straight.range(at..at + W) }
            });
            let mut straight = straight.map(<[_]>::iter_mut);
            // As many lines at a time as stay in registers.
            for group in (0..W).step_by(MR) {
                let mut rows = [simd.splat(R::default()); MR];
                if channel[0] + position < pad {
                    for i in 0..MR {
                        let at = channel[group + i] + position;
                        rows[i] = row(self.load(simd, at, pad), group + i);
                    }
                } else {
                    for i in 0..MR {
                        let at = channel[group + i] + position - pad;
                        let mut line = [R::default(); W];
                        T::load(&self.sample[at..at + W], &mut line);
                        rows[i] = row(simd.load(&line), group + i);
                    }
                }
                if let Some(lines) = &mut straight {
                    for (row, line) in rows.into_iter().zip(lines) {
                        simd.store(row, line);
                    }
                }
                simd.transpose(rows, lines, group);
            }
        }
    }

    /// Every channel's row, of a sample whose channels are first.
    #[inline(always)]
    fn center_rows<S: Simd<R, W>, const W: usize>(&self, simd: S, rows: &mut [[R; W]]) {
        let Reading { channels, positions, scale, centered, .. } = self.reading;
        let first = (self.panel * W).saturating_sub(channels.pad);
        let zero = simd.splat(R::default());
        for (group, rows) in rows.chunks_mut(TOGETHER * positions.panels).enumerate() {
            let mut minus_means = [zero; TOGETHER];
            if centered {
                for i in 0..TOGETHER {
                    minus_means[i] = minus_mean(simd, self.row(first + group * TOGETHER + i), scale);
                }
            }
            for (i, row) in rows.chunks_exact_mut(positions.panels).enumerate() {
                let elements = self.row(first + group * TOGETHER + i);
                let scale = simd.splat(scale);
                let distance = |line: &[R; W]| simd.multiply_add(scale, simd.load(line), minus_means[i]);
                let (whole, rest) = elements.as_chunks::<W>();
                for k in 0..whole.len() {
                    simd.store(distance(&loaded(&whole[k])), &mut row[k]);
                }
                if !rest.is_empty() {
                    let mut line = [R::default(); W];
                    T::load(rest, &mut line[..rest.len()]);
                    simd.store(simd.join(rest.len(), distance(&line), zero), &mut row[whole.len()]);
                }
            }
        }
    }

    /// The elements of a channel, or the last one's.
    #[inline(always)]
    fn row(&self, channel: usize) -> &[T] {
        let Reading { channels, positions, .. } = self.reading;
        &self.sample[channel.min(channels.len - 1) * positions.len..][..positions.len]
    }

    /// The means of the rows that begin at these elements, scaled; zeros where nothing is centered.
    ///
    /// What is summed is the distance from the first element, so that the mean of a constant channel is that constant
    /// exactly. An error δ in a mean comes back in the covariance as δ² only.
    #[inline(always)]
    fn row_means<S: Simd<R, W>, const W: usize>(&self, simd: S, starts: [usize; W]) -> [R; W] {
        let Reading { positions, scale, centered, .. } = self.reading;
        let mut means = [R::default(); W];
        if !centered {
            return means;
        }
        let rows = starts.map(|start| &self.sample[start..start + positions.len]);
        let first = rows.map(|row| first::<_, R>(row) * scale);
        let (scale, last) = (simd.splat(scale), counted(simd, positions.len));
        let mut sums = [simd.splat(R::default()); W];
        for i in 0..W {
            let minus_first = simd.splat(R::default() - first[i]);
            sums[i] = distances(simd, rows[i], [scale, minus_first, last]);
        }
        let share = simd.splat(R::from_f64(1.0 / positions.len as f64));
        simd.store(simd.multiply_add(share, simd.totals(sums), simd.load(&first)), &mut means);
        means
    }

    /// Every position's line, and every channel's lines, of a sample whose channels are last.
    #[inline(always)]
    fn load_positions<S: Simd<R, W>, const W: usize>(
        &self,
        simd: S,
        lines: &mut [[R; W]],
        straight: Option<&Shared<'_, [R; W]>>,
    ) {
        let Reading { channels, positions, scale, centered, .. } = self.reading;
        let pad = padding(channels, self.panel);
        let channel = self.panel * W + pad - channels.pad;
        let (scale, zero) = (simd.splat(scale), simd.splat(R::default()));
        for (position, line) in lines[positions.pad..].iter_mut().enumerate() {
            let elements = self.load(simd, position * channels.len + channel, pad);
            simd.store(simd.multiply_add(scale, elements, zero), line);
        }
        if centered {
            center(simd, &mut lines[positions.pad..]);
        }
        let Some(straight) = straight else { return };
        for (block, lines) in lines.as_chunks::<W>().0.iter().enumerate() {
            let at = block * channels.padded + self.panel * W;
            // SAFETY: as in `load_channels`.
            let to = unsafe { straight.range(at..at + W) };
            simd.transpose(simd.lines(lines), to, 0);
        }
    }

    /// The elements from `index` on, after `pad` others.
    #[inline(always)]
    fn load<S: Simd<R, W>, const W: usize>(&self, simd: S, index: usize, pad: usize) -> S::Vector {
        let mut line = [R::default(); W];
        match index.checked_sub(pad) {
            // A length known beforehand is copied without a call.
            Some(start) => T::load(&self.sample[start..start + W], &mut line),
            None => T::load(&self.sample[index..index + W - pad], &mut line[pad..]),
        }
        simd.load(&line)
    }
}

/// −mean of a row, scaled, as in [`Source::row_means`]. What lies behind the row is the next one, if any, and wanted soon.
#[inline(always)]
fn minus_mean<T: Element + Convert<R>, R: Real, S: Simd<R, W>, const W: usize>(
    simd: S,
    row: &[T],
    scale: R,
) -> S::Vector {
    simd.prefetch(row.as_ptr_range().end, row.len());
    let minus_first = simd.splat(R::default() - first::<_, R>(row) * scale);
    let sum = simd.total(distances(simd, row, [simd.splat(scale), minus_first, counted(simd, row.len())]));
    simd.multiply_add(simd.splat(R::from_f64(-1.0 / row.len() as f64)), sum, minus_first)
}

/// The first element of a row.
#[inline(always)]
fn first<T: Element + Convert<R>, R: Real>(row: &[T]) -> R {
    let mut first = [R::default()];
    T::load(&row[..1], &mut first);
    first[0]
}

/// One for those of a row's last W elements that W does not divide off, and zero for those before.
#[inline(always)]
fn counted<R: Real, S: Simd<R, W>, const W: usize>(simd: S, len: usize) -> S::Vector {
    let line: [R; W] = std::array::from_fn(|i| R::from_f64(f64::from(u8::from(i >= W - len % W))));
    simd.load(&line)
}

/// Σ (scale x + minus_first) over a row, in W parts. `last` is what [`counted`] says of the row.
#[inline(always)]
fn distances<T: Element + Convert<R>, R: Real, S: Simd<R, W>, const W: usize>(
    simd: S,
    row: &[T],
    [scale, minus_first, last]: [S::Vector; 3],
) -> S::Vector {
    let one = simd.splat(R::from_f64(1.0));
    // Several sums, so that no addition waits for the one before.
    let mut parts = [simd.splat(R::default()); 4];
    let distance = |line: &[R; W]| simd.multiply_add(scale, simd.load(line), minus_first);
    let (vectors, rest) = row.as_chunks::<W>();
    let (quads, singles) = vectors.as_chunks::<4>();
    for quad in quads {
        for part in 0..4 {
            parts[part] = simd.multiply_add(one, distance(&loaded(&quad[part])), parts[part]);
        }
    }
    for single in singles {
        parts[0] = simd.multiply_add(one, distance(&loaded(single)), parts[0]);
    }
    if !rest.is_empty() {
        // Elements that were counted already are read again: copies of a length known beforehand need no call.
        let line = row.last_chunk().map_or_else(
            || {
                let mut line = [R::default(); W];
                T::load(rest, &mut line[W - rest.len()..]);
                line
            },
            loaded,
        );
        parts[1] = simd.multiply_add(last, distance(&line), parts[1]);
    }
    let [a, b, c, d] = parts;
    let (a, c) = (simd.multiply_add(one, a, b), simd.multiply_add(one, c, d));
    simd.multiply_add(one, a, c)
}

/// A line of elements. A value of its own stays in a register, where one variable for all lines would not.
#[inline(always)]
fn loaded<T: Element + Convert<R>, R: Real, const W: usize>(elements: &[T; W]) -> [R; W] {
    let mut line = [R::default(); W];
    T::load(elements, &mut line);
    line
}

/// Subtracts the mean of the lines from each of them: of the distances from the first line, as in [`Source::row_means`].
#[inline(always)]
fn center<R: Real, S: Simd<R, W>, const W: usize>(simd: S, lines: &mut [[R; W]]) {
    let (one, minus_one) = (simd.splat(R::from_f64(1.0)), simd.splat(R::from_f64(-1.0)));
    let first = simd.load(&lines[0]);
    let mut parts = [simd.splat(R::default()); 4];
    let distance = |line: &[R; W]| simd.multiply_add(minus_one, first, simd.load(line));
    let (quads, singles) = lines.as_chunks::<4>();
    for quad in quads {
        for part in 0..4 {
            parts[part] = simd.multiply_add(one, distance(&quad[part]), parts[part]);
        }
    }
    for single in singles {
        parts[0] = simd.multiply_add(one, distance(single), parts[0]);
    }
    let [a, b, c, d] = parts;
    let sum = simd.multiply_add(one, simd.multiply_add(one, a, b), simd.multiply_add(one, c, d));
    let share = simd.splat(R::from_f64(1.0 / lines.len() as f64));
    let mean = simd.multiply_add(share, sum, first);
    for line in lines {
        simd.store(simd.multiply_add(minus_one, mean, simd.load(line)), line);
    }
}

/// The padding in front of a panel's first column, or a block's first row.
#[inline(always)]
fn padding(side: Side, panel: usize) -> usize {
    if panel == 0 { side.pad } else { 0 }
}
