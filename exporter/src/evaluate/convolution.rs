//! Convolutions. A runtime takes longer to make a small one ready than it takes here to compute it, and a large graph may
//! have tens of thousands of them. Large ones are left to the runtime, unless they are to be computed in float64.

use anyhow::{Context, Result, ensure};
use isqrt_cov_proto::onnx::NodeProto;

use super::call::{Bindings, Call, attribute, size};
use super::value::{Dense, array, elements, flat};

/// Multiplications up to which a convolution counts as small.
pub(super) const SMALL: usize = 1 << 18;

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
    /// The convolution that a node asks for, where it takes no more than so many multiplications; none where its sizes do not
    /// fit each other.
    pub fn within(
        most: usize,
        node: &NodeProto,
        bindings: &Bindings,
        input: &[usize],
        weight: &[usize],
    ) -> Option<Self> {
        let convolution = Self::of(node, bindings, input, weight).ok()?;
        let taps = convolution.axes.iter().map(|axis| axis.kernel).product::<usize>();
        let positions = convolution.axes.iter().map(|axis| axis.output);
        let factors =
            [convolution.samples, convolution.kernels, convolution.channels / convolution.groups, taps];
        let count = factors.into_iter().chain(positions).try_fold(1_usize, usize::checked_mul)?;
        (count <= most).then_some(convolution)
    }

    fn of(node: &NodeProto, bindings: &Bindings, input: &[usize], weight: &[usize]) -> Result<Self> {
        let rank = input.len();
        ensure!(rank > 2 && weight.len() == rank, "{input:?} and {weight:?} are no convolution");
        elements(input)?;
        elements(weight)?;
        let groups = attribute(node, bindings, "group").map_or(Ok(1), |group| size(group.i()))?;
        let fits = groups > 0 && input[1] == groups * weight[1] && weight[0].is_multiple_of(groups);
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
            let moves =
                (size + before + after).checked_sub(reach).context("the kernel is larger than the input")?;
            let output = moves / stride + 1;
            axes.push(Axis { input: size, kernel, output, stride, dilation, pad: before });
        }
        Ok(Self { samples: input[0], channels: input[1], groups, kernels: weight[0], axes })
    }

    /// The convolution of the call's inputs.
    pub fn apply(&self, call: &Call) -> Result<Dense> {
        let input = call.input(0)?;
        let (values, weights) = (flat(input.floats()?), flat(call.input(1)?.floats()?));
        let bias = call.optional(2)?.map(Dense::floats).transpose()?.map(flat);
        let dims: Vec<usize> = [self.samples, self.kernels]
            .into_iter()
            .chain(self.axes.iter().map(|axis| axis.output))
            .collect();
        let positions: usize = dims[2..].iter().product();
        let size: usize = self.axes.iter().map(|axis| axis.input).product();
        let (per_group, kernels) = (self.channels / self.groups, self.kernels / self.groups);
        let mut made = vec![0.0; elements(&dims)?];
        if let Some(bias) = bias {
            ensure!(bias.len() == self.kernels, "{} biases for {} kernels", bias.len(), self.kernels);
            for (place, row) in made.chunks_exact_mut(positions.max(1)).enumerate() {
                row.fill(bias[place % self.kernels]);
            }
        }
        let taps = self.taps();
        for (place, row) in made.chunks_exact_mut(positions.max(1)).enumerate() {
            let (sample, kernel) = (place / self.kernels, place % self.kernels);
            for channel in 0..per_group {
                let from = sample * self.channels + kernel / kernels * per_group + channel;
                let read = &values[from * size..][..size];
                let weights = &weights[(kernel * per_group + channel) * taps.len()..][..taps.len()];
                for (weight, tap) in weights.iter().zip(&taps) {
                    tap.iter().for_each(|&(output, input)| row[output] += weight * read[input]);
                }
            }
        }
        Ok(Dense::float(input.declared, array(&dims, made)?))
    }

    /// For each element of the kernel the outputs that it goes into, with the inputs that it is multiplied with there:
    /// both by their place in a channel.
    fn taps(&self) -> Vec<Vec<(usize, usize)>> {
        let mut taps = vec![vec![(0, 0)]];
        for axis in &self.axes {
            let along = |element: usize| {
                (0..axis.output).filter_map(move |output| {
                    let input = (output * axis.stride + element * axis.dilation).checked_sub(axis.pad)?;
                    (input < axis.input).then_some((output, input))
                })
            };
            let extended = |tap: &Vec<(usize, usize)>, element: usize| {
                let pairs = tap.iter().flat_map(|&(output, input)| {
                    along(element).map(move |(o, i)| (output * axis.output + o, input * axis.input + i))
                });
                pairs.collect::<Vec<_>>()
            };
            taps = taps
                .iter()
                .flat_map(|tap| (0..axis.kernel).map(move |element| extended(tap, element)))
                .collect();
        }
        taps
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use isqrt_cov_proto::onnx::{
        AttributeProto, GraphProto, ModelProto, OperatorSetIdProto, TensorProto, ValueInfoProto,
    };

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
            output: vec![ValueInfoProto { name: Some("y".to_owned()), ..ValueInfoProto::default() }],
            ..GraphProto::default()
        };
        let model = Arc::new(ModelProto {
            ir_version: Some(8),
            opset_import: vec![OperatorSetIdProto::new("", 17)],
            graph: Some(graph),
            ..ModelProto::default()
        });
        let values: Vec<f64> = numbers(&mut generator, input).into_iter().map(f64::from).collect();
        let x = [Tensor::from_f64(ElementType::F32, input, &values)];
        let here = Evaluator::new(&model, Precision::Declared, None).unwrap().run(&x).unwrap();
        let there = Tract::new().prepare(&model, &[input.to_vec()]).unwrap().run(&x).unwrap();
        assert_eq!(here[0].dims(), there[0].dims());
        let pairs = here[0].to_f64().into_iter().zip(there[0].to_f64());
        pairs.map(|(one, other)| (one - other).abs()).fold(0.0, f64::max)
    }

    #[test]
    fn small_convolutions_are_those_of_tract() {
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
    fn what_does_not_fit_or_is_large_is_left_to_others() {
        let small = |attribute: AttributeProto, input: &[usize], weight: &[usize]| {
            let node = NodeProto::new("Conv", &["x", "w"], &["y"]).with(attribute);
            Convolution::within(SMALL, &node, &Bindings::new(), input, weight).is_some()
        };
        let group = |count| AttributeProto::int("group", count);
        let ints = AttributeProto::ints;
        assert!(small(group(1), &[1, 2, 8, 8], &[2, 2, 3, 3]));
        assert!(!small(group(0), &[1, 2, 8, 8], &[2, 2, 3, 3]));
        assert!(!small(group(2), &[1, 2, 8, 8], &[2, 2, 3, 3]));
        assert!(!small(ints("strides", &[0, 1]), &[1, 2, 8, 8], &[2, 2, 3, 3]));
        assert!(!small(ints("pads", &[1 << 40; 4]), &[1, 2, 8, 8], &[2, 2, 3, 3]));
        assert!(!small(ints("pads", &[1 << 20; 4]), &[1, 2, 8, 8], &[2, 2, 3, 3]));
        assert!(!small(group(1), &[1, 2, 2, 2], &[2, 2, 3, 3]));
        assert!(!small(group(1), &[1, 64, 56, 56], &[64, 64, 3, 3]));
    }
}
