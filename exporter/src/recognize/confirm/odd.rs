//! Inputs unlike those on which attributes are told apart: what limits, chooses or masks shows on one of them.

use isqrt_cov_op::{Layer, Layout, OperatorKind};

use crate::recognize::identify::probed::extreme;
use crate::recognize::probe::{Generator, PROBES, products};
use crate::tensor::{ElementType, Tensor};

/// A kind of input.
#[derive(Debug, Clone, Copy)]
pub enum Odd {
    /// A channel that is all.
    Dominated,
    /// A number that is all.
    Spike,
    /// Numbers of which a few are much larger than most.
    Heavy,
    /// Numbers of which most are 0, and positions where all are.
    Sparse,
    /// A channel that is the same everywhere, one that nearly is, and one that is 0.
    Still,
    /// Channels that are all made of two.
    Dependent,
    /// Channels as large as each other that have nothing in common.
    White,
    /// Numbers far from 0 that hardly differ.
    Offset,
    /// Numbers below 0.
    Negative,
    /// Large numbers.
    Large,
    /// Small numbers.
    Small,
}

impl Odd {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Dominated,
        Self::Spike,
        Self::Heavy,
        Self::Sparse,
        Self::Still,
        Self::Dependent,
        Self::White,
        Self::Offset,
        Self::Negative,
        Self::Large,
        Self::Small,
    ];

    /// What such inputs are, after "on inputs".
    pub fn words(self) -> &'static str {
        match self {
            Self::Dominated => "of which one channel is a thousand times as large as the others",
            Self::Spike => "of which one number is ten thousand times as large as the others",
            Self::Heavy => "of which some numbers are far larger than most",
            Self::Sparse => "of which most numbers are 0",
            Self::Still => "of which a channel is the same everywhere",
            Self::Dependent => "whose channels are all made of two",
            Self::White => "whose channels have nothing in common",
            Self::Offset => "that hardly differ from their mean",
            Self::Negative => "that are all below 0",
            Self::Large => "of about 1e4",
            Self::Small => "of about 1e-4",
        }
    }

    /// How much more than on ordinary inputs what a graph's own constants are rounded by tells: a centering matrix in float32
    /// leaves some of the mean.
    pub fn amplifies(self) -> f64 {
        if matches!(self, Self::Offset) { 1e2 } else { 1.0 }
    }

    /// A batch of shape `dims` of them.
    pub fn inputs(self, layer: &Layer, dims: &[usize]) -> Tensor {
        if layer.operator == OperatorKind::MatrixSqrt {
            // The matrices that such features make.
            let features = Layer::new(OperatorKind::IsqrtCov);
            let rows = self.inputs(&features, &[dims[0], dims[1], dims[1] + 2]).to_f64();
            return Tensor::from_f64(ElementType::F64, dims, &products(&rows, dims[1], dims[1] + 2));
        }
        let positions: usize = dims[2..].iter().product();
        let (channels, positions) = match layer.layout {
            Layout::ChannelsFirst => (dims[1], positions),
            Layout::ChannelsLast => {
                let channels = dims[dims.len() - 1];
                (channels, dims[1..dims.len() - 1].iter().product())
            }
        };
        // Where an element is: its channel and its position.
        let place = |index: usize| match layer.layout {
            Layout::ChannelsFirst => (index / positions % channels, index % positions),
            Layout::ChannelsLast => (index % channels, index / channels % positions),
        };
        let mut values = extreme(layer.operator, dims, &PROBES[0]).to_f64();
        let mut generator = Generator::new(13);
        let mixed: Vec<[f64; 2]> = (0..channels).map(|_| [generator.normal(), generator.normal()]).collect();
        let sample = channels * positions;
        let ordinary = values.clone();
        // The first two channels of the same sample at the same position.
        let base = |index: usize, channel: usize| {
            let (_, position) = place(index);
            let within = match layer.layout {
                Layout::ChannelsFirst => channel * positions + position,
                Layout::ChannelsLast => position * channels + channel,
            };
            ordinary[index / sample * sample + within]
        };
        for (index, value) in values.iter_mut().enumerate() {
            let (channel, position) = place(index);
            *value = match self {
                Self::Dominated if channel == 0 => *value * 1e3,
                Self::Spike if channel == channels / 2 && position == positions / 3 => 1e4,
                Self::Heavy => value.powi(5),
                Self::Sparse if position % 3 == 0 => 0.0,
                Self::Sparse => (*value - 0.8).max(0.0),
                Self::Still if channel == 1 => 0.5,
                Self::Still if channel == 2 => *value * 1e-4,
                Self::Still if channel == 3 => 0.0,
                Self::Dependent => {
                    let other = base(index, 1.min(channels - 1));
                    mixed[channel][0] * base(index, 0) + mixed[channel][1] * other
                }
                // Walsh functions are orthogonal and have no mean, and nothing of that is rounded.
                Self::White => {
                    let length = 1 << positions.ilog2();
                    let is_odd = ((channel + 1) & position).count_ones() % 2 == 1;
                    match channel + 1 < length && position < length {
                        true if is_odd => -1.0,
                        true => 1.0,
                        false => 0.0,
                    }
                }
                Self::Offset => 10.0 + 0.5 * *value,
                Self::Negative => -0.1 - value.abs(),
                Self::Large => *value * 1e4,
                Self::Small => *value * 1e-4,
                _ => *value,
            };
        }
        Tensor::from_f64(ElementType::F64, dims, &values)
    }
}
