//! Models that leave open what their weights decide, or take long inputs only.

use isqrt_cov_proto::onnx::tensor_shape_proto::Dimension;

use super::*;

/// The covariance of what a convolution with this kernel makes of an input all of whose axes are open.
fn pooled(kernel: &[usize], strides: &[i64]) -> ModelProto {
    let of = |operator: &str, inputs: &[&str], output: &str| NodeProto::new(operator, inputs, &[output]);
    let weights: Vec<f32> =
        (0..kernel.iter().product()).map(|at: usize| ((at * 37 % 101) as f32 - 50.0) / 300.0).collect();
    let axes = (0..kernel.len()).map(|axis| Dimension::from(&*format!("axis {axis}")));
    let graph = GraphProto {
        node: vec![
            of("Conv", &["x", "kernel"], "convolved").with(AttributeProto::ints("strides", strides)),
            of("Relu", &["convolved"], "features"),
            of("Reshape", &["features", "matrix"], "r"),
            of("Shape", &["r"], "sizes"),
            of("Gather", &["sizes", "two"], "positions"),
            of("Cast", &["positions"], "divisor").with(AttributeProto::int("to", DataType::Float as i64)),
            of("ReduceMean", &["r"], "mean").with(AttributeProto::ints("axes", &[2])),
            of("Sub", &["r", "mean"], "centered"),
            of("Transpose", &["centered"], "transposed").with(AttributeProto::ints("perm", &[0, 2, 1])),
            of("MatMul", &["centered", "transposed"], "product"),
            of("Div", &["product", "divisor"], "y"),
        ],
        initializer: vec![
            TensorProto::from_values("two", &[], &[2_i64]),
            TensorProto::from_values("kernel", kernel, &weights),
            TensorProto::from_values("matrix", &[3], &[0, kernel[0] as i64, -1]),
        ],
        input: vec![ValueInfoProto::tensor("x", DataType::Float, axes)],
        output: vec![ValueInfoProto::of_any_shape("y", DataType::Float)],
        ..GraphProto::default()
    };
    ModelProto::new(graph, 17)
}

fn convert(model: &ModelProto) -> (i32, Value) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    std::fs::write(&path, prost::Message::encode_to_vec(model)).unwrap();
    let run = isqrt_cov(&arguments!["convert", path, "--dry-run", "--json"]);
    (status(&run), object(&run))
}

fn check(model: &ModelProto) {
    let (done, answer) = convert(model);
    assert_eq!(done, 0, "{answer}");
    let layer = &answer["layers"][0];
    assert_eq!(
        (&layer["operator"], &layer["input"]),
        (&"CovariancePooling".into(), &"features".into()),
        "{answer}"
    );
    assert_eq!(layer["attributes"]["centered"], 1, "{answer}");
}

/// Time first, as recurrent networks have it: of a single position the covariance is 0.
#[test]
fn an_open_first_axis_may_hold_positions() {
    let of = |operator: &str, inputs: &[&str], output: &str| NodeProto::new(operator, inputs, &[output]);
    let turned = |input: &str, output: &str, order: &[i64]| {
        of("Transpose", &[input], output).with(AttributeProto::ints("perm", order))
    };
    let dims = ["time".into(), "batch".into(), 12.into()];
    let graph = GraphProto {
        node: vec![
            turned("x", "features", &[1, 2, 0]),
            of("ReduceMean", &["features"], "mean").with(AttributeProto::ints("axes", &[2])),
            of("Sub", &["features", "mean"], "centered"),
            turned("centered", "transposed", &[0, 2, 1]),
            of("MatMul", &["centered", "transposed"], "product"),
            of("Shape", &["x"], "time").with(AttributeProto::int("end", 1)),
            of("Cast", &["time"], "divisor").with(AttributeProto::int("to", DataType::Float as i64)),
            of("Div", &["product", "divisor"], "y"),
        ],
        input: vec![ValueInfoProto::tensor("x", DataType::Float, dims)],
        output: vec![ValueInfoProto::of_any_shape("y", DataType::Float)],
        ..GraphProto::default()
    };
    check(&ModelProto::new(graph, 17));
}

/// Three channels, which none of the sizes that are tried is.
#[test]
fn weights_tell_how_many_channels_there_are() {
    check(&pooled(&[6, 3, 3, 3], &[1, 1]));
}

/// A window of 25 ms of sound is longer than an image is wide.
#[test]
fn sequences_are_tried_up_to_those_that_sound_has() {
    check(&pooled(&[6, 1, 400], &[160]));
}

/// A runtime may go on with no positions.
#[test]
fn an_input_smaller_than_the_kernel_is_refused() {
    let mut model = pooled(&[6, 3, 30, 30], &[1, 1]);
    let graph = model.graph.as_mut().unwrap();
    let sizes = [1_usize, 3, 29, 29].map(Dimension::from);
    graph.input = vec![ValueInfoProto::tensor("x", DataType::Float, sizes)];
    let (refused, answer) = convert(&model);
    assert_eq!((refused, &answer["reason"]), (1, &"no-layer-found".into()), "{answer}");
    let message = answer["message"].as_str().unwrap();
    assert!(message.contains("the kernel reaches over 30 elements of 29"), "{message}");
}

/// A pool whose window reaches beyond its input has one position.
#[test]
fn a_window_in_part_is_enough_for_a_pool() {
    let mut model = pooled(&[6, 3, 1, 1], &[1, 1]);
    let graph = model.graph.as_mut().unwrap();
    let pool = NodeProto::new("MaxPool", &["x"], &["pooled"])
        .with(AttributeProto::ints("kernel_shape", &[3, 3]))
        .with(AttributeProto::ints("strides", &[2, 2]))
        .with(AttributeProto::int("ceil_mode", 1));
    graph.node.insert(0, pool);
    graph.node[1].input[0] = "pooled".to_owned();
    let sizes = [1_usize, 3, 2, 41].map(Dimension::from);
    graph.input = vec![ValueInfoProto::tensor("x", DataType::Float, sizes)];
    check(&model);
}
