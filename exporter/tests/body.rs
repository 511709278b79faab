//! The bodies compute what the operators compute: every attribute, run in tract, against the float64 reference.

use half::{bf16, f16};
use isqrt_cov::expand;
use isqrt_cov::fused::node_of;
use isqrt_cov_op::{DOMAIN, Layer, Layout, Normalization, OperatorKind, VERSION, Vectorization, reference};
use isqrt_cov_proto::Element;
use isqrt_cov_proto::onnx::tensor_proto::DataType;
use isqrt_cov_proto::onnx::tensor_shape_proto::Dimension;
use isqrt_cov_proto::onnx::{GraphProto, ModelProto, NodeProto, ValueInfoProto};
use prost::Message as _;
use tract_onnx::prelude::*;

/// A model of one node.
fn model(layer: &Layer, element: DataType, opset: i64, rank: usize) -> ModelProto {
    let dims = (0..rank).map(|axis| Dimension::from(format!("d{axis}").as_str()));
    let graph = GraphProto {
        name: Some("layer".to_owned()),
        node: vec![node_of(layer, "input", "output")],
        input: vec![ValueInfoProto::tensor("input", element, dims)],
        output: vec![ValueInfoProto::of_any_shape("output", element)],
        ..GraphProto::default()
    };
    ModelProto::new(graph, opset).importing(DOMAIN, VERSION)
}

/// Runs the layer's body in tract on `input`, whose elements are of type `T`.
fn run<T: Element + Datum>(
    layer: &Layer,
    opset: i64,
    input: &[f64],
    dims: &[usize],
    from: fn(f64) -> T,
    to: fn(&T) -> f64,
) -> Vec<f64> {
    let expanded = expand::inline(&model(layer, T::DATA_TYPE, opset, dims.len())).unwrap();
    let elements: Vec<T> = input.iter().map(|&value| from(value)).collect();
    let tensor = Tensor::from_shape(dims, &elements).unwrap();
    let outputs = tract_onnx::onnx()
        .model_for_read(&mut &expanded.encode_to_vec()[..])
        .and_then(|model| model.with_input_fact(0, T::fact(dims).into()))
        .and_then(|model| model.into_optimized()?.into_runnable()?.run(tvec!(tensor.into())))
        .unwrap_or_else(|error| panic!("{layer:?}, operator set {opset}: {error:?}"));
    assert_eq!(outputs[0].shape(), layer.output_dims(dims).unwrap(), "{layer:?}");
    outputs[0].to_plain_array_view::<T>().unwrap().iter().map(to).collect()
}

/// Numbers without a pattern, the same in every run.
fn numbers(count: usize) -> Vec<f64> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        // Multiples of 1/64 are the same number in every element type.
        f64::from((state >> 40) as i32 % 97) / 64.0
    };
    (0..count).map(next).collect()
}

/// The largest error relative to the largest element; NaN must be where the reference has it.
fn error(found: &[f64], expected: &[f64]) -> f64 {
    let pairs = || found.iter().zip(expected);
    assert!(pairs().all(|(found, expected)| found.is_nan() == expected.is_nan()), "{found:?}\n{expected:?}");
    let largest = |values: &mut dyn Iterator<Item = f64>| values.filter(|v| !v.is_nan()).fold(0.0, f64::max);
    let difference = largest(&mut pairs().map(|(found, expected)| (found - expected).abs()));
    difference / largest(&mut expected.iter().map(|value| value.abs())).max(1e-300)
}

fn check<T: Element + Datum>(
    layer: &Layer,
    opset: i64,
    dims: &[usize],
    tolerance: f64,
    from: fn(f64) -> T,
    to: fn(&T) -> f64,
) {
    let mut input = numbers(dims.iter().product());
    let sample = dims[1..].iter().product::<usize>();
    if dims[0] >= 3 {
        // A constant sample, and one with a NaN, which must stay in it.
        input[sample..2 * sample].fill(0.0);
        input[2 * sample] = f64::NAN;
    }
    let expected = reference::evaluate(layer, &input, dims).unwrap();
    let found = error(&run(layer, opset, &input, dims, from, to), &expected);
    assert!(found <= tolerance, "{found:e} exceeds {tolerance:e}: {layer:?}, operator set {opset}");
}

fn check_f32(layer: &Layer, opset: i64, dims: &[usize]) {
    check::<f32>(layer, opset, dims, 1e-5, |value| value as f32, |&value| value.into());
}

fn layers() -> Vec<Layer> {
    let mut layers = Vec::new();
    for bits in 0..3 * 256_u32 {
        let bit = |index: u32| ((bits / 3) >> index) & 1 == 1;
        let layer = Layer {
            iterations: [5, 1, 2, 3][bits as usize % 4],
            centered: bit(0),
            correction: bit(1).into(),
            epsilon: if bit(2) { 0.125 } else { 0.0 },
            normalization: Normalization::ALL[usize::from(bit(3))],
            compensated: bit(4),
            vectorization: Vectorization::ALL[bits as usize % 3],
            off_diagonal_scale: if bit(5) { 2_f32.sqrt() } else { 1.0 },
            layout: Layout::ALL[usize::from(bit(6))],
            operator: if bit(7) { OperatorKind::IsqrtCov } else { OperatorKind::CovariancePooling },
        };
        // Attributes that the operator does not declare go back to what leaves them without effect.
        let layer = Layer::from_attributes(
            layer.name(),
            layer.attributes().iter().map(|(name, value)| (*name, value.clone())),
        )
        .unwrap();
        if !layers.contains(&layer) {
            layers.push(layer);
        }
    }
    layers
}

#[test]
fn every_combination_of_attributes() {
    let layers = layers();
    assert!(layers.len() > 400, "{}", layers.len());
    for layer in layers {
        let dims = if layer.layout == Layout::ChannelsFirst { [3, 4, 2, 3] } else { [3, 2, 3, 4] };
        check_f32(&layer, 17, &dims);
    }
}

#[test]
fn roots_of_matrices() {
    for (iterations, epsilon) in [(1, 0.0), (2, 0.5), (5, 0.0)] {
        for normalization in Normalization::ALL {
            for compensated in [true, false] {
                let root = Layer::new(OperatorKind::MatrixSqrt);
                let layer = Layer { iterations, epsilon, normalization, compensated, ..root };
                // Below the diagonal is what must not be read; the last matrix has neither trace nor norm, or
                // only entries that cancel in the trace.
                let mut input = vec![4.0, 1.0, 99.0, 3.0, 0.5, 0.25, f64::NAN, 0.5, 0.0, 0.0, 99.0, 0.0];
                if normalization == Normalization::Trace && epsilon == 0.0 {
                    input[9] = 7.0;
                }
                let expected = reference::evaluate(&layer, &input, &[3, 2, 2]).unwrap();
                let found =
                    run::<f32>(&layer, 17, &input, &[3, 2, 2], |value| value as f32, |&value| value.into());
                assert!(error(&found, &expected) < 1e-6, "{layer:?}: {found:?} {expected:?}");
            }
        }
    }
}

#[test]
fn every_operator_set_and_type() {
    for kind in [OperatorKind::IsqrtCov, OperatorKind::CovariancePooling, OperatorKind::MatrixSqrt] {
        let layer = Layer { epsilon: 0.25, ..Layer::new(kind) };
        for opset in [11, 12, 13, 17, 18, 21, 23] {
            check_f32(&layer, opset, &[2, 4, 4]);
            check::<f64>(&layer, opset, &[2, 4, 4], 1e-13, |value| value, |&value| value);
            check::<f16>(&layer, opset, &[2, 4, 4], 1e-3, f16::from_f64, |value| value.to_f64());
        }
    }
    // tract has no bfloat16 to check with; its body differs from float16's in the types of two casts.
    let half = expand::inline(&model(&Layer::new(OperatorKind::IsqrtCov), DataType::Float16, 17, 4)).unwrap();
    let brain = expand::inline(&model(&Layer::new(OperatorKind::IsqrtCov), bf16::DATA_TYPE, 17, 4)).unwrap();
    let nodes = |model: ModelProto| -> Vec<NodeProto> { model.graph.unwrap().node };
    let differing = nodes(half).into_iter().zip(nodes(brain)).filter(|(half, brain)| half != brain);
    let casts: Vec<String> = differing.map(|(half, _)| half.op_type().to_owned()).collect();
    assert_eq!(casts, ["Cast"]);
}

#[test]
fn every_rank_and_size() {
    let layer = Layer::new(OperatorKind::IsqrtCov);
    for dims in [&[1, 1, 1][..], &[2, 7, 3], &[1, 3, 2, 2, 2], &[4, 2, 1, 9], &[2, 1, 5, 1]] {
        check_f32(&layer, 13, dims);
    }
}
