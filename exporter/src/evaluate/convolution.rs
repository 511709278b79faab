//! Convolutions, as products of their weights with what the kernels read. A runtime takes longer to make most of them
//! ready, and more room for their weights, than it takes here to compute them.

use std::ops::Range;

use anyhow::{Context, Result, ensure};
use isqrt_cov_proto::onnx::NodeProto;
use ndarray::Array2;

use super::call::{Bindings, attribute, size};
use super::value::{Dense, array, elements, flat};
use super::weights::{Number, Weights};

/// Elements of what kernels read that are in memory at once, about.
const PIECE: usize = 1 << 20;

/// Pads, strides and dilations beyond this are no one's.
const LARGEST_STEP: usize = 1 << 20;

/// A convolution of known sizes.
pub(super) struct Convolution {
    samples: usize,
    channels: usize,
    groups: usize,
    kernels: usize,
    axes: Vec<Axis>,
}

/// An axis along which the kernel moves.
struct Axis {
    input: usize,
    kernel: usize,
    output: usize,
    stride: usize,
    dilation: usize,
    pad: usize,
}

impl Convolution {
    /// The convolution that a node asks for.
    ///
    /// # Errors
    /// Sizes that do not fit each other.
    pub fn of(node: &NodeProto, bindings: &Bindings, input: &[usize], weight: &[usize]) -> Result<Self> {
        let rank = input.len();
        ensure!(rank > 2 && weight.len() == rank, "{input:?} and {weight:?} are no convolution");
        elements(input)?;
        elements(weight)?;
        let groups = attribute(node, bindings, "group").map_or(Ok(1), |group| size(group.i()))?;
        // Where there are no channels, any number of groups would fit.
        let divides = (1..=input[1].max(1)).contains(&groups) && weight[0].is_multiple_of(groups);
        let fits = divides && groups.checked_mul(weight[1]) == Some(input[1]);
        ensure!(fits, "{input:?} and {weight:?} do not fit in {groups} groups");
        let list = |name: &str, count: usize, default: usize| -> Result<Vec<usize>> {
            let Some(list) = attribute(node, bindings, name) else { return Ok(vec![default; count]) };
            let steps = list.ints.iter().map(|&step| size(step)).collect::<Result<Vec<_>>>()?;
            ensure!(
                steps.len() == count && steps.iter().all(|&step| step <= LARGEST_STEP),
                "`{name}` is {steps:?}"
            );
            Ok(steps)
        };
        let spatial = rank - 2;
        let (strides, dilations) = (list("strides", spatial, 1)?, list("dilations", spatial, 1)?);
        ensure!(!strides.contains(&0) && !dilations.contains(&0), "a stride or a dilation is 0");
        let pads = list("pads", 2 * spatial, 0)?;
        let automatic = attribute(node, bindings, "auto_pad").map_or(&b"NOTSET"[..], |word| word.s());
        let mut axes = Vec::with_capacity(spatial);
        for at in 0..spatial {
            let (size, kernel) = (input[2 + at], weight[2 + at]);
            let (stride, dilation) = (strides[at], dilations[at]);
            ensure!(kernel > 0, "a kernel has no elements");
            let reach = dilation * (kernel - 1) + 1;
            let same = size.div_ceil(stride);
            let missing = (same.saturating_sub(1) * stride + reach).saturating_sub(size);
            let (before, after) = match automatic {
                b"NOTSET" => (pads[at], pads[spatial + at]),
                b"VALID" => (0, 0),
                b"SAME_UPPER" => (missing / 2, missing.div_ceil(2)),
                b"SAME_LOWER" => (missing.div_ceil(2), missing / 2),
                _ => anyhow::bail!("`auto_pad` is unknown"),
            };
            let padded = size + before + after;
            let moves = padded.checked_sub(reach).with_context(|| {
                format!(
                    "the kernel reaches over {reach} elements of {padded}, those around the input counted"
                )
            })?;
            let output = moves / stride + 1;
            axes.push(Axis { input: size, kernel, output, stride, dilation, pad: before });
        }
        Ok(Self { samples: input[0], channels: input[1], groups, kernels: weight[0], axes })
    }

    /// The multiplications that it takes.
    pub fn multiplications(&self) -> usize {
        self.times([self.kernels, self.channels / self.groups])
    }

    /// The elements that its kernels read, all of a group at once.
    pub fn reads(&self) -> usize {
        self.times([self.channels, 1])
    }

    /// The lines that those are in: what follows the first along the last axis is found with less.
    pub fn lines(&self) -> usize {
        let along = self.axes.last().map_or(1, |axis| axis.output.max(1));
        self.reads() / along
    }

    /// So many for each element of a kernel at each position.
    fn times(&self, factors: [usize; 2]) -> usize {
        let axes = self.axes.iter().flat_map(|axis| [axis.output, axis.kernel]);
        factors.into_iter().chain(axes).fold(self.samples, usize::saturating_mul)
    }

    /// The convolution: what every kernel position reads goes side by side into a matrix, a piece at a time, and the
    /// weights are multiplied with that.
    pub fn apply<T: Number>(&self, input: &Dense, weights: &Weights, bias: Option<&Dense>) -> Result<Dense> {
        let values = flat(input.floats()?);
        let bias = bias.map(Dense::floats).transpose()?.map(flat);
        if let Some(bias) = &bias {
            ensure!(bias.len() == self.kernels, "{} biases for {} kernels", bias.len(), self.kernels);
        }
        let dims: Vec<usize> = [self.samples, self.kernels]
            .into_iter()
            .chain(self.axes.iter().map(|axis| axis.output))
            .collect();
        let mut made = vec![0.0; elements(&dims)?];
        let positions: usize = dims[2..].iter().product();
        let count = self.samples * positions;
        let step = (PIECE / (self.channels / self.groups * self.taps()).max(1)).max(1);
        let kernels = self.kernels / self.groups;
        for group in 0..self.groups {
            let own = group * kernels..(group + 1) * kernels;
            for from in (0..count).step_by(step) {
                let places = from..(from + step).min(count);
                let read = self.read::<T>(&values, group, &places);
                let product = weights.times(own.clone(), &read.view())?;
                for (kernel, row) in own.clone().zip(product.outer_iter()) {
                    let bias = bias.as_ref().map_or(0.0, |bias| bias[kernel]);
                    let mut row = row.iter();
                    for (sample, own) in by_sample(&places, positions) {
                        let made = &mut made[(sample * self.kernels + kernel) * positions..][own];
                        made.iter_mut()
                            .zip(&mut row)
                            .for_each(|(made, value)| *made = value.widened() + bias);
                    }
                }
            }
        }
        Ok(Dense::float(input.declared, array(&dims, made)?))
    }

    /// Elements of a kernel along all axes.
    fn taps(&self) -> usize {
        self.axes.iter().map(|axis| axis.kernel).product()
    }

    /// What a group's kernels are multiplied with at some of the output's places, samples counted through: a row for each
    /// channel and element of the kernel, a column for each place.
    fn read<T: Number>(&self, values: &[f64], group: usize, places: &Range<usize>) -> Array2<T> {
        let size: usize = self.axes.iter().map(|axis| axis.input).product();
        let positions: usize = self.axes.iter().map(|axis| axis.output).product();
        let (channels, taps) = (self.channels / self.groups, self.taps());
        let mut read = vec![T::zero(); channels * taps * places.len()];
        for (row, made) in read.chunks_exact_mut(places.len()).enumerate() {
            let (channel, tap) = (group * channels + row / taps, row % taps);
            let mut rest = made;
            for (sample, own) in by_sample(places, positions) {
                let values = &values[(sample * self.channels + channel) * size..][..size];
                let (made, others) = rest.split_at_mut(own.len());
                self.read_tap(values, tap, own, made);
                rest = others;
            }
        }
        Array2::from_shape_vec((channels * taps, places.len()), read).expect("as many as the shape says")
    }

    /// What one element of a kernel is multiplied with in one channel, of which these are the `values`; zeros, which pad,
    /// are left as they are.
    fn read_tap<T: Number>(&self, values: &[f64], tap: usize, positions: Range<usize>, made: &mut [T]) {
        let Some((last, outer)) = self.axes.split_last() else { return };
        let (outer_tap, last_tap) = (tap / last.kernel, tap % last.kernel);
        let mut from = positions.start;
        while from < positions.end {
            let (line, start) = (from / last.output, from % last.output);
            let end = last.output.min(start + positions.end - from);
            let (mut line, mut tap, mut stride) = (line, outer_tap, last.input);
            let offset = outer.iter().rev().try_fold(0, |offset, axis| {
                let input = axis.read(line % axis.output, tap % axis.kernel)?;
                let along = input * stride;
                (line, tap, stride) = (line / axis.output, tap / axis.kernel, stride * axis.input);
                Some(offset + along)
            });
            if let Some(offset) = offset {
                let made = &mut made[from - positions.start..][..end - start];
                for (made, output) in made.iter_mut().zip(start..end) {
                    if let Some(input) = last.read(output, last_tap) {
                        *made = T::nearest(values[offset + input]);
                    }
                }
            }
            from += end - start;
        }
    }
}

/// The samples that `places` are in, each of so many positions, and the positions of each.
fn by_sample(places: &Range<usize>, positions: usize) -> impl Iterator<Item = (usize, Range<usize>)> {
    let (start, end) = (places.start, places.end);
    (start / positions..end.div_ceil(positions)).map(move |sample| {
        let first = sample * positions;
        (sample, start.max(first) - first..end.min(first + positions) - first)
    })
}

impl Axis {
    /// The input that an element of the kernel is multiplied with for an output; none in the padding.
    fn read(&self, output: usize, element: usize) -> Option<usize> {
        let input = (output * self.stride + element * self.dilation).checked_sub(self.pad)?;
        (input < self.input).then_some(input)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use isqrt_cov_proto::onnx::{AttributeProto, GraphProto, ModelProto, TensorProto, ValueInfoProto};

    use super::*;
    use crate::evaluate::{Evaluator, Precision};
    use crate::extract::value_info;
    use crate::recognize::probe::Generator;
    use crate::runtime::Runtime as _;
    use crate::runtime::tract::Tract;
    use crate::tensor::{ElementType, Tensor};

    fn numbers(generator: &mut Generator, dims: &[usize]) -> Vec<f32> {
        (0..dims.iter().product()).map(|_| generator.normal() as f32).collect()
    }

    /// max|Δ| between what is evaluated here, without any runtime, and what tract gives.
    fn error(input: &[usize], weight: &[usize], attributes: Vec<AttributeProto>) -> f64 {
        let mut generator = Generator::new(3);
        let mut node = NodeProto::new("Conv", &["x", "w", "b"], &["y"]);
        node.attribute = attributes;
        let graph = GraphProto {
            name: Some("convolution".to_owned()),
            node: vec![node],
            initializer: vec![
                TensorProto::from_values("w", weight, &numbers(&mut generator, weight)),
                TensorProto::from_values("b", &weight[..1], &numbers(&mut generator, &weight[..1])),
            ],
            input: vec![value_info("x", ElementType::F32, input)],
            output: vec![ValueInfoProto::named("y")],
            ..GraphProto::default()
        };
        let model = Arc::new(ModelProto::new(graph, 17));
        let values: Vec<f64> = numbers(&mut generator, input).into_iter().map(f64::from).collect();
        let x = [Tensor::from_f64(ElementType::F32, input, &values)];
        let here = Evaluator::new(&model, Precision::Declared, None).unwrap().run(&x).unwrap();
        let there = Tract::new().prepare(&model, &[input.to_vec()]).unwrap().run(&x).unwrap();
        assert_eq!(here[0].dims(), there[0].dims());
        let pairs = here[0].to_f64().into_iter().zip(there[0].to_f64());
        pairs.map(|(one, other)| (one - other).abs()).fold(0.0, f64::max)
    }

    #[test]
    fn convolutions_are_those_of_tract() {
        let ints = AttributeProto::ints;
        let automatic = |word| vec![AttributeProto::string("auto_pad", word), ints("strides", &[2, 3])];
        let cases = [
            (&[2, 4, 5, 6][..], &[3, 4, 1, 1][..], vec![]),
            (
                &[2, 4, 5, 6],
                &[6, 2, 3, 2],
                vec![AttributeProto::int("group", 2), ints("pads", &[1, 0, 2, 1])],
            ),
            (&[1, 4, 9, 8], &[4, 1, 3, 3], vec![AttributeProto::int("group", 4), ints("strides", &[2, 1])]),
            (&[1, 3, 9, 8], &[2, 3, 2, 3], vec![ints("dilations", &[3, 2]), ints("pads", &[2, 2, 2, 2])]),
            (&[1, 3, 9, 8], &[2, 3, 4, 3], automatic("SAME_UPPER")),
            (&[1, 3, 9, 8], &[2, 3, 4, 3], automatic("SAME_LOWER")),
            (&[1, 3, 9, 8], &[2, 3, 4, 3], automatic("VALID")),
            (&[2, 3, 7], &[2, 3, 3], vec![ints("pads", &[1, 1])]),
            (&[1, 2, 4, 5, 3], &[2, 2, 2, 3, 1], vec![ints("strides", &[1, 2, 1])]),
        ];
        for (input, weight, attributes) in cases {
            let found = error(input, weight, attributes.clone());
            assert!(found < 1e-5, "{input:?} by {weight:?} with {attributes:?}: {found:.1e}");
        }
    }

    #[test]
    fn what_does_not_fit_is_no_convolution() {
        let convolution = |attribute: AttributeProto, input: &[usize], weight: &[usize]| {
            let node = NodeProto::new("Conv", &["x", "w"], &["y"]).with(attribute);
            Convolution::of(&node, &Bindings::new(), input, weight).ok()
        };
        let any = |attribute: AttributeProto, weight: &[usize]| {
            convolution(attribute, &[1, 2, 8, 8], weight).is_some()
        };
        let group = |count| AttributeProto::int("group", count);
        let ints = AttributeProto::ints;
        assert!(any(group(1), &[2, 2, 3, 3]));
        assert!(!any(group(0), &[2, 2, 3, 3]));
        assert!(!any(group(2), &[2, 2, 3, 3]));
        assert!(convolution(group(1 << 62), &[1, 0, 8, 8], &[0, 0, 1, 1]).is_none());
        assert!(convolution(group(1 << 62), &[1, 0, 8, 8], &[0, 4, 1, 1]).is_none());
        assert!(!any(group(1), &[2, 2, 9, 3]));
        assert!(!any(ints("strides", &[0, 1]), &[2, 2, 3, 3]));
        assert!(!any(ints("pads", &[1 << 40; 4]), &[2, 2, 3, 3]));
        let convolution = convolution(group(1), &[1, 2, 8, 8], &[2, 2, 3, 3]).unwrap();
        assert_eq!(convolution.multiplications(), 2 * 2 * 9 * 6 * 6);
    }

    #[test]
    fn pieces_make_the_whole() {
        // 3 samples of 10,000 places, of which a piece holds about 7,000.
        let found = error(&[3, 16, 102, 102], &[4, 16, 3, 3], vec![]);
        assert!(found < 1e-4, "{found:.1e}");
    }
}
