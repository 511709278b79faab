//! The numbers that a graph's initializers hold: as stored, or with a batch normalization folded in.

use half::f16;
use isqrt_cov_proto::onnx::TensorProto;
use isqrt_cov_proto::onnx::tensor_proto::DataType;

use crate::built::Storage;
use crate::weights::{Error, Weights};

/// The ε of batch normalization, PyTorch's default in every published network.
pub(crate) const EPSILON: f64 = 1e-5;

/// What an initializer is made of.
#[derive(Debug, Clone)]
pub(crate) enum Recipe {
    /// A tensor as it is.
    Stored(String),
    /// A convolution's weights w, each output channel times γ/√(σ²+ε) of the normalization behind it.
    FoldedWeight { weight: String, norm: String },
    /// The bias b that goes with them: (b − μ)·γ/√(σ²+ε) + β.
    FoldedBias { bias: Option<String>, norm: String },
    /// Whole numbers that the graph itself needs.
    Integers(Vec<i64>),
}

impl Recipe {
    /// The initializer called `name`: in float32 or, where that is the storage, folded numbers in float64.
    pub fn make(&self, name: &str, weights: &Weights, storage: Storage) -> Result<TensorProto, Error> {
        let folded = |dims: &[i64], values: &[f64]| match storage {
            Storage::Float64 => TensorProto::from_values(name, &sizes(dims), values),
            _ => float32(name, dims, values),
        };
        match self {
            Self::Integers(values) => Ok(TensorProto::from_values(name, &[values.len()], values)),
            Self::Stored(key) => stored(name, key, weights),
            Self::FoldedWeight { weight, norm } => {
                let (scale, _) = affine(norm, weights)?;
                let mut values = weights.values(weight)?;
                let each = (values.len() / scale.len().max(1)).max(1);
                for (channel, scale) in values.chunks_mut(each).zip(scale) {
                    channel.iter_mut().for_each(|value| *value *= scale);
                }
                Ok(folded(weights.dims(weight).unwrap_or_default(), &values))
            }
            Self::FoldedBias { bias, norm } => {
                let (scale, mut shift) = affine(norm, weights)?;
                if let Some(bias) = bias {
                    let biases = weights.values(bias)?;
                    let scaled = biases.iter().zip(scale).map(|(bias, scale)| bias * scale);
                    shift.iter_mut().zip(scaled).for_each(|(shift, bias)| *shift += bias);
                }
                Ok(folded(&[shift.len() as i64], &shift))
            }
        }
    }
}

/// A tensor in float32; its data is shared where that is what it is in.
fn stored(name: &str, key: &str, weights: &Weights) -> Result<TensorProto, Error> {
    match weights.tensor(key) {
        Some(tensor) if tensor.data_type() == i32::from(DataType::Float) => {
            Ok(TensorProto { name: Some(name.to_owned()), ..tensor.clone() })
        }
        _ => Ok(float32(name, weights.dims(key).unwrap_or_default(), &weights.values(key)?)),
    }
}

/// Batch normalization as x·scale + shift: γ/√(σ²+ε) and β − μ·γ/√(σ²+ε).
fn affine(norm: &str, weights: &Weights) -> Result<(Vec<f64>, Vec<f64>), Error> {
    let part = |part: &str| weights.values(&format!("{norm}.{part}"));
    let (gamma, beta, mean, variance) =
        (part("weight")?, part("bias")?, part("running_mean")?, part("running_var")?);
    let scale: Vec<f64> =
        gamma.iter().zip(&variance).map(|(gamma, variance)| gamma / (variance + EPSILON).sqrt()).collect();
    let shift = beta.iter().zip(mean.iter().zip(&scale)).map(|(beta, (mean, scale))| beta - mean * scale);
    Ok((scale.clone(), shift.collect()))
}

fn float32(name: &str, dims: &[i64], values: &[f64]) -> TensorProto {
    let values: Vec<f32> = values.iter().map(|&value| value as f32).collect();
    TensorProto::from_values(name, &sizes(dims), &values)
}

fn sizes(dims: &[i64]) -> Vec<usize> {
    dims.iter().map(|&dim| dim as usize).collect()
}

/// A float32 tensor in float16. None where that would lose more than precision: vectors, which are small, and numbers
/// beyond its range.
pub(crate) fn halved(tensor: &TensorProto, name: &str) -> Option<TensorProto> {
    if tensor.data_type() != i32::from(DataType::Float) || tensor.dims.len() < 2 {
        return None;
    }
    let bytes = tensor.raw_data().chunks_exact(4);
    let values = bytes.map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
    let values: Vec<f16> = values
        .map(|value| Some(f16::from_f32(value)).filter(|half| half.is_finite() || !value.is_finite()))
        .collect::<Option<_>>()?;
    Some(TensorProto::from_values(name, &sizes(&tensor.dims), &values))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights() -> Weights {
        let vector = |name: &str, values: [f32; 2]| TensorProto::from_values(name, &[2], &values);
        let tensors = [
            TensorProto::from_values("conv.weight", &[2, 1, 1, 1], &[3.0_f32, 5.0]),
            vector("conv.bias", [1.0, -2.0]),
            vector("bn.weight", [2.0, 0.5]),
            vector("bn.bias", [0.25, 4.0]),
            vector("bn.running_mean", [1.5, -1.0]),
            vector("bn.running_var", [4.0, 0.25]),
        ];
        Weights::new(tensors, vec![]).unwrap()
    }

    /// A convolution of one pixel with the folded numbers is the convolution and its normalization, one after the other.
    #[test]
    fn folded_numbers_compute_the_same() {
        let weights = weights();
        let numbers = |recipe: Recipe| {
            let made = recipe.make("it", &weights, Storage::Float32).unwrap();
            Weights::new([made], vec![]).unwrap().values("it").unwrap()
        };
        let weight = numbers(Recipe::FoldedWeight { weight: "conv.weight".into(), norm: "bn".into() });
        for bias in [None, Some("conv.bias".to_owned())] {
            let shift = numbers(Recipe::FoldedBias { bias: bias.clone(), norm: "bn".into() });
            let b = if bias.is_some() { [1.0, -2.0] } else { [0.0; 2] };
            for x in [-2.0, 0.0, 7.0] {
                let expected = [
                    (3.0 * x + b[0] - 1.5) / (4.0_f64 + 1e-5).sqrt() * 2.0 + 0.25,
                    (5.0 * x + b[1] + 1.0) / (0.25_f64 + 1e-5).sqrt() * 0.5 + 4.0,
                ];
                for channel in 0..2 {
                    let found = weight[channel] * x + shift[channel];
                    assert!((found - expected[channel]).abs() < 1e-5 * expected[channel].abs().max(1.0));
                }
            }
        }
    }

    #[test]
    fn float32_is_shared_and_other_types_are_widened() {
        let half = TensorProto::from_values("h", &[1, 2], &[f16::from_f32(0.1), f16::ONE]);
        let weights = Weights::new([half, TensorProto::from_values("f", &[1, 2], &[1.0_f32, 2.0])], vec![]);
        let weights = weights.unwrap();
        let made = |key: &str| Recipe::Stored(key.to_owned()).make("it", &weights, Storage::Float32).unwrap();
        let shared = made("f");
        let address = |tensor: &TensorProto| tensor.raw_data().as_ptr();
        assert_eq!(address(&shared), address(weights.tensor("f").unwrap()));
        assert_eq!(made("h"), TensorProto::from_values("it", &[1, 2], &[f16::from_f32(0.1).to_f32(), 1.0]));
    }

    #[test]
    fn what_float16_cannot_hold_stays() {
        let matrix = |value: f32| TensorProto::from_values("m", &[1, 2], &[value, 1.0]);
        assert!(halved(&matrix(1e5), "h").is_none());
        assert!(halved(&TensorProto::from_values("v", &[2], &[1.0_f32, 2.0]), "h").is_none());
        assert_eq!(halved(&matrix(0.5), "h").unwrap().raw_data().len(), 4);
    }
}
