//! Inputs of the tests, and layers.

use isqrt_cov_op::cuda::ElementType;
use isqrt_cov_op::reference;
use isqrt_cov_op::{Layer, Layout, Normalization, OperatorKind, Vectorization};

/// Every type.
pub const ELEMENTS: [ElementType; 4] =
    [ElementType::Float, ElementType::Double, ElementType::Float16, ElementType::BFloat16];

/// Numbers as activations are: some zero, none negative, channels of different size.
pub fn activations(count: usize, channels: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut uniform = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f64 / (1_u64 << 24) as f64
    };
    let mut next = |channel: usize| {
        let value = uniform() + uniform() + uniform() - 1.0;
        value.max(0.0) * (1.0 + (channel % 7) as f64)
    };
    (0..count).map(|i| next(i * channels / count.max(1))).collect()
}

/// An input of the layer for samples of C channels and M positions (of C×C for a root alone), and its shape.
pub fn input(layer: &Layer, (samples, channels, positions): (usize, usize, usize)) -> (Vec<f64>, Vec<usize>) {
    let elements = channels * positions;
    let features = (0..samples).flat_map(|sample| activations(elements, channels, sample as u64 + 1));
    let features: Vec<f64> = features.collect();
    if layer.operator != OperatorKind::MatrixSqrt {
        let dims = match layer.layout {
            Layout::ChannelsFirst => vec![samples, channels, positions],
            Layout::ChannelsLast => vec![samples, positions, channels],
        };
        return (features, dims);
    }
    let mut covariance = Layer::new(OperatorKind::CovariancePooling);
    covariance.vectorization = Vectorization::None;
    let mut matrices =
        reference::evaluate(&covariance, &features, &[samples, channels, positions]).expect("a sound shape");
    // What is below the diagonal does not count.
    for (index, entry) in matrices.iter_mut().enumerate() {
        if index / channels % channels > index % channels {
            *entry = f64::NAN;
        }
    }
    (matrices, vec![samples, channels, channels])
}

/// The operators with every attribute at a value that is not its default, one at a time, and with all of them.
pub fn layers() -> Vec<Layer> {
    let kinds = [OperatorKind::IsqrtCov, OperatorKind::CovariancePooling, OperatorKind::MatrixSqrt];
    let changes: [fn(&mut Layer); 11] = [
        |_| {},
        |layer| layer.iterations = 1,
        |layer| layer.iterations = 3,
        |layer| layer.centered = false,
        |layer| layer.correction = 1,
        |layer| layer.epsilon = 0.03,
        |layer| layer.normalization = Normalization::Frobenius,
        |layer| layer.compensated = false,
        |layer| layer.vectorization = Vectorization::UpperColumnMajor,
        |layer| layer.off_diagonal_scale = std::f32::consts::SQRT_2,
        |layer| layer.layout = Layout::ChannelsLast,
    ];
    let mut layers = Vec::new();
    for kind in kinds {
        let own = Layer::new(kind);
        let mut all = own;
        for change in changes {
            let mut layer = own;
            change(&mut layer);
            change(&mut all);
            layers.push(layer);
        }
        let mut whole = own;
        whole.vectorization = Vectorization::None;
        let mut triangle = own;
        triangle.vectorization = Vectorization::Upper;
        // Without a product between A and the output, and A known only when all of P is there.
        let few = Layer { iterations: 1, normalization: Normalization::Frobenius, ..own };
        layers.extend([whole, triangle, all, few]);
    }
    // Attributes that an operator does not have are back at their defaults, and what has become equal goes.
    for layer in &mut layers {
        *layer = Layer::from_attributes(layer.name(), layer.attributes()).expect("declared attributes");
    }
    let mut different: Vec<Layer> = Vec::new();
    for layer in layers {
        if !different.contains(&layer) {
            different.push(layer);
        }
    }
    different
}
