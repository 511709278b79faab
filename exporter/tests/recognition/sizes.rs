//! What is a layer at the sizes and on the numbers first tried, and another function elsewhere.

use isqrt_cov::recognize::{Findings, recognize};
use isqrt_cov::runtime::embedded::Embedded;
use isqrt_cov_op::OperatorKind;
use isqrt_cov_proto::onnx::tensor_proto::DataType;
use isqrt_cov_proto::onnx::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};

use super::changed::{ending_in_the_root, read_instead_of_input};
use super::common::{corpus, load};

fn found_in(model: &ModelProto) -> Findings {
    recognize(model, &Embedded::new()).unwrap()
}

/// Checks that the layer is found where it reads `input`, and not before.
fn check_layer_behind(model: &ModelProto, input: &str) {
    let findings = found_in(model);
    let [found] = &findings.layers[..] else { panic!("{:?}", findings.misses) };
    assert_eq!((found.layer.operator, &*found.input), (OperatorKind::IsqrtCov, input));
    assert!(findings.misses.iter().any(|miss| miss.reason.contains("depends on the shape")));
}

/// Scales the input by 1 for up to `most` of the sizes in `axis`, and by more from there on.
pub fn scaled_beyond(model: &mut ModelProto, axis: i64, most: i64) {
    let graph = model.graph.as_mut().unwrap();
    let input = read_instead_of_input(graph, "scaled");
    let numbers = [("axis", axis), ("most", most), ("all_but_one", most - 1)];
    graph.initializer.extend(numbers.map(|(name, number)| TensorProto::from_values(name, &[], &[number])));
    graph.node.extend([
        NodeProto::new("Shape", &[&input], &["sizes"]),
        NodeProto::new("Gather", &["sizes", "axis"], &["size"]),
        NodeProto::new("Max", &["size", "most"], &["large"]),
        NodeProto::new("Sub", &["large", "all_but_one"], &["beyond"]),
        NodeProto::new("Cast", &["beyond"], &["factor"])
            .with(AttributeProto::int("to", DataType::Float as i64)),
        NodeProto::new("Mul", &[&input, "factor"], &["scaled"]),
    ]);
}

/// The matrix of an unbiased covariance behind a convolution that makes one position of a small image, divided by one less than the
/// positions, and by no less than `least` where that is given.
fn unbiased(least: Option<i64>) -> ModelProto {
    let scalar = |name: &str, value: i64| TensorProto::from_values(name, &[], &[value]);
    let of = |operator: &str, inputs: &[&str], output: &str| NodeProto::new(operator, inputs, &[output]);
    let kernel: Vec<f32> = (0..16 * 16 * 9).map(|at| ((at * 37 % 101) as f32 - 50.0) / 300.0).collect();
    let graph = GraphProto {
        node: vec![
            of("Conv", &["x", "kernel"], "convolved")
                .with(AttributeProto::ints("strides", &[3, 3]))
                .with(AttributeProto::ints("pads", &[1, 1, 1, 1])),
            of("Relu", &["convolved"], "features"),
            of("Shape", &["convolved"], "sizes"),
            of("Gather", &["sizes", "two"], "h"),
            of("Gather", &["sizes", "three"], "w"),
            of("Mul", &["h", "w"], "positions"),
            of("Sub", &["positions", "one"], "but one"),
            of("Max", &["but one", "least"], "bounded"),
            of("Cast", &["bounded"], "divisor").with(AttributeProto::int("to", DataType::Float as i64)),
            of("Reshape", &["features", "matrix"], "r"),
            of("ReduceMean", &["r"], "mean").with(AttributeProto::ints("axes", &[2])),
            of("Sub", &["r", "mean"], "centered"),
            of("Transpose", &["centered"], "transposed").with(AttributeProto::ints("perm", &[0, 2, 1])),
            of("MatMul", &["centered", "transposed"], "product"),
            of("Div", &["product", "divisor"], "y"),
        ],
        initializer: vec![
            scalar("one", 1),
            scalar("two", 2),
            scalar("three", 3),
            scalar("least", least.unwrap_or(0)),
            TensorProto::from_values("kernel", &[16, 16, 3, 3], &kernel),
            TensorProto::from_values("matrix", &[3], &[0_i64, 16, -1]),
        ],
        input: vec![ValueInfoProto::tensor(
            "x",
            DataType::Float,
            ["n".into(), 16.into(), "h".into(), "w".into()],
        )],
        output: vec![ValueInfoProto::of_any_shape("y", DataType::Float)],
        ..GraphProto::default()
    };
    ModelProto::new(graph, 17)
}

/// One position has no covariance where one is taken off: what divides by zero there is the layer, and what does not is another function.
#[test]
fn a_covariance_without_bias_needs_no_single_position() {
    let findings = found_in(&unbiased(None));
    let [found] = &findings.layers[..] else { panic!("{:?}", findings.misses) };
    assert_eq!((found.layer.operator, found.layer.correction), (OperatorKind::CovariancePooling, 1));
    let findings = found_in(&unbiased(Some(1)));
    assert!(findings.layers.is_empty(), "{:?}", findings.layers);
}

#[test]
fn what_many_samples_change_is_no_part_of_a_layer() {
    let mut model = load(&corpus().join("layer/official_noDotData_d16_hw7_it5_dyn18_dynbatch.onnx"));
    // At the sizes first tried there are up to 3.
    scaled_beyond(&mut model, 0, 3);
    check_layer_behind(&model, "scaled");
    // What the number of the model's samples changes, behind weights.
    let graph = model.graph.as_mut().unwrap();
    let input = graph.input[0].name().to_owned();
    let weights: Vec<f32> = (0..16 * 7).map(|index| 1.0 + (index as f32).sin() / 4.0).collect();
    graph.initializer.push(TensorProto::from_values("weights", &[16, 7, 1], &weights));
    let scaling = graph.node.iter_mut().find(|node| node.output[0] == "scaled").unwrap();
    "features".clone_into(&mut scaling.input[0]);
    graph.node.push(NodeProto::new("Mul", &[&input, "weights"], &["features"]));
    check_layer_behind(&model, "scaled");
}

#[test]
fn what_a_large_image_changes_is_no_part_of_a_layer() {
    let mut model = load(&corpus().join("own/dynamic_sizes_dyn18_hw.onnx"));
    scaled_beyond(&mut model, 2, 20);
    check_layer_behind(&model, "scaled");
}

#[test]
fn what_an_image_larger_than_any_tried_changes_is_no_part_of_a_layer() {
    let mut model = load(&corpus().join("own/dynamic_sizes_dyn18_hw.onnx"));
    scaled_beyond(&mut model, 2, 20_000);
    check_layer_behind(&model, "scaled");
}

/// A limit that was passed, and changed nothing.
#[test]
fn what_a_limit_does_not_change_is_a_part_of_a_layer() {
    for (most, is_tried) in [(60, true), (20_000, false)] {
        let mut model = load(&corpus().join("own/dynamic_sizes_dyn18_hw.onnx"));
        scaled_beyond(&mut model, 2, most);
        let graph = model.graph.as_mut().unwrap();
        let factor = graph.node.iter_mut().find(|node| node.output[0] == "beyond").unwrap();
        *factor = NodeProto::new("Div", &["large", "large"], &["beyond"]);
        let input = graph.input[0].name().to_owned();
        assert_eq!(found_in(&model).layers[0].input, if is_tried { &*input } else { "scaled" });
    }
}

/// As many positions are taken as the smaller images have, or more than any image that is tried.
#[test]
fn a_part_of_a_large_image_is_no_whole_one() {
    let all = 1_000_000_000;
    for (from, up_to, is_part) in [(0, 30, true), (0, 16_000, true), (-16_000, all, true), (0, all, false)] {
        let mut model = load(&corpus().join("own/dynamic_sizes_ts17_hw.onnx"));
        let graph = model.graph.as_mut().unwrap();
        let input = read_instead_of_input(graph, "part");
        let numbers = [("from", from), ("up_to", up_to), ("height", 2)];
        graph
            .initializer
            .extend(numbers.map(|(name, number)| TensorProto::from_values(name, &[1], &[number])));
        graph.node.insert(0, NodeProto::new("Slice", &[&input, "from", "up_to", "height"], &["part"]));
        if is_part {
            check_layer_behind(&model, "part");
        } else {
            assert_eq!(found_in(&model).layers[0].input, input);
        }
    }
}

/// Images that are no multiple of a window are none of the model's, and of one window all samples are whole images.
#[test]
fn a_window_is_no_sample() {
    let mut model = load(&corpus().join("own/dynamic_sizes_ts17_hw.onnx"));
    let graph = model.graph.as_mut().unwrap();
    let input = read_instead_of_input(graph, "image");
    let numbers = |name: &str, values: &[i64]| TensorProto::from_values(name, &[values.len()], values);
    let weights: Vec<f32> = (0..224).map(|index| 1.0 + (index as f32).sin() / 4.0).collect();
    graph.initializer.extend([
        numbers("side", &[224]),
        numbers("channels", &[8]),
        numbers("samples", &[-1]),
        numbers("window", &[-1, 8, 224, 224]),
        numbers("sides", &[2, 3]),
        TensorProto::from_values("weights", &[224], &weights),
    ]);
    let shape = |sizes: &[&str], name: &str| {
        NodeProto::new("Concat", sizes, &[name]).with(AttributeProto::int("axis", 0))
    };
    let ordered = |from: &str, to: &str, order: &[i64]| {
        NodeProto::new("Transpose", &[from], &[to]).with(AttributeProto::ints("perm", order))
    };
    graph.node.extend([
        NodeProto::new("Shape", &[&input], &["sizes"]),
        NodeProto::new("Gather", &["sizes", "sides"], &["height and width"]),
        NodeProto::new("Div", &["height and width", "side"], &["counts"]),
        NodeProto::new("Split", &["counts"], &["down", "across"]),
        shape(&["samples", "channels", "down", "side", "across", "side"], "apart"),
        NodeProto::new("Reshape", &[&input, "apart"], &["cut"]),
        ordered("cut", "windows first", &[0, 2, 4, 1, 3, 5]),
        NodeProto::new("Reshape", &["windows first", "window"], &["windows"]),
        NodeProto::new("Mul", &["windows", "weights"], &["weighted"]),
        shape(&["samples", "down", "across", "channels", "side", "side"], "in order"),
        NodeProto::new("Reshape", &["weighted", "in order"], &["side by side"]),
        ordered("side by side", "rows", &[0, 3, 1, 4, 2, 5]),
        shape(&["samples", "channels", "height and width"], "whole"),
        NodeProto::new("Reshape", &["rows", "whole"], &["image"]),
    ]);
    check_layer_behind(&model, "rows");
}

/// Steps are made for as long as their result says so, which it always does here.
#[test]
fn a_loop_that_data_may_end_is_no_formula() {
    let mut model = load(&corpus().join("own/handmade_loop.onnx"));
    assert_eq!(found_in(&model).layers.len(), 1);
    let graph = model.graph.as_mut().unwrap();
    let body = graph.node.iter_mut().find(|node| node.op_type() == "Loop").unwrap();
    let body = body.attribute.iter_mut().find_map(|attribute| attribute.g.as_deref_mut()).unwrap();
    let (carried, goes_on) = (body.output[1].name().to_owned(), body.output[0].name().to_owned());
    body.initializer.push(TensorProto::from_values("tiny", &[], &[1e-30_f32]));
    body.node.retain(|node| node.output[0] != goes_on);
    body.node.extend([
        NodeProto::new("ReduceMax", &[&carried], &["largest"]).with(AttributeProto::int("keepdims", 0)),
        NodeProto::new("Greater", &["largest", "tiny"], &[&goes_on]),
    ]);
    let findings = found_in(&model);
    let operators: Vec<_> = findings.layers.iter().map(|found| found.layer.operator).collect();
    assert_eq!(operators, [OperatorKind::CovariancePooling], "{findings:?}");
}

/// A root reads one triangle: both must be the same whatever the data are.
#[test]
fn a_matrix_that_large_numbers_make_asymmetric_has_no_root_of_ours() {
    let mut model = ending_in_the_root();
    let graph = model.graph.as_mut().unwrap();
    let limits = [("least", -20.0), ("most", 20.0)];
    graph
        .initializer
        .extend(limits.map(|(name, limit)| TensorProto::from_values(name, &[], &[limit as f32])));
    let product = graph.node.iter().position(|node| node.op_type() == "MatMul").unwrap() + 2;
    assert_eq!(graph.node[product].op_type(), "MatMul");
    let right = std::mem::replace(&mut graph.node[product].input[1], "limited".to_owned());
    graph.node.insert(product, NodeProto::new("Clip", &[&right, "least", "most"], &["limited"]));
    let findings = found_in(&model);
    assert!(findings.layers.is_empty(), "{findings:?}");
    assert!(findings.misses.iter().any(|miss| miss.reason.contains("is not symmetric")), "{findings:?}");
}

/// A value may have fewer axes for more samples: it is no map then, and nothing that stops the search.
#[test]
fn a_map_that_loses_its_axes_is_none() {
    let mut model = load(&corpus().join("layer/official_noDotData_d16_hw7_it5_dyn18_dynbatch.onnx"));
    let graph = model.graph.as_mut().unwrap();
    let input = read_instead_of_input(graph, "map");
    let numbers =
        [("axis", &[0_i64][..]), ("none", &[0]), ("whole", &[-1, 16, 7, 7]), ("seven", &[7]), ("two", &[2])];
    graph
        .initializer
        .extend(numbers.map(|(name, values)| TensorProto::from_values(name, &[values.len()], values)));
    // Of N samples the first 7 − 2 N sizes of [−1, 16, 7, 7].
    graph.node.extend([
        NodeProto::new("Shape", &[&input], &["sizes"]),
        NodeProto::new("Gather", &["sizes", "axis"], &["samples"]),
        NodeProto::new("Mul", &["samples", "two"], &["twice"]),
        NodeProto::new("Sub", &["seven", "twice"], &["axes"]),
        NodeProto::new("Add", &["axes", "axis"], &["end"]),
        NodeProto::new("Slice", &["whole", "none", "end"], &["shape"]),
        NodeProto::new("Reshape", &[&input, "shape"], &["map"]),
    ]);
    assert!(found_in(&model).layers.iter().all(|found| found.input != "map"));
}

/// A network makes an image smaller: the sizes first tried leave one position, whose covariance is 0.
#[test]
fn a_layer_is_found_behind_large_strides() {
    for name in ["own/dynamic_sizes_dyn18_hw.onnx", "own/dynamic_sizes_ts17_hw.onnx"] {
        // How often, by what, and what is added around: the last leaves no position at all of a small image.
        for (times, stride, pad) in [(2, 2, 1), (4, 2, 1), (5, 2, 1), (1, 8, 0)] {
            let mut model = load(&corpus().join(name));
            let graph = model.graph.as_mut().unwrap();
            let mut from = read_instead_of_input(graph, "small");
            for time in 1..=times {
                let to = if time == times { "small".to_owned() } else { format!("small{time}") };
                let size = stride + pad;
                let pool = NodeProto::new("MaxPool", &[&from], &[&to])
                    .with(AttributeProto::ints("kernel_shape", &[size, size]))
                    .with(AttributeProto::ints("strides", &[stride, stride]))
                    .with(AttributeProto::ints("pads", &[pad; 4]));
                graph.node.push(pool);
                from = to;
            }
            let findings = found_in(&model);
            let [found] = &findings.layers[..] else { panic!("{name}, {times} × {stride}: {findings:?}") };
            assert_eq!((found.layer.operator, &*found.input), (OperatorKind::IsqrtCov, "small"));
            assert!(
                found.layer.centered && findings.misses.is_empty(),
                "{name}, {times} × {stride}: {findings:?}"
            );
        }
    }
}

/// Data of other sizes help only where sizes are what a model does not run with.
#[test]
fn other_sizes_are_asked_for_where_they_may_help() {
    let flat = [("flat", vec![-1_i64, 5])];
    for (node, helps, said) in [
        (NodeProto::new("Dropout", &["input", "", "yes"], &["seen"]), false, "model.eval()"),
        (NodeProto::new("Reshape", &["input", "flat"], &["seen"]), true, "--inputs"),
    ] {
        let mut model = load(&corpus().join("own/dynamic_sizes_dyn18_hw.onnx"));
        let graph = model.graph.as_mut().unwrap();
        let input = read_instead_of_input(graph, "seen");
        graph.initializer.push(TensorProto::from_values("yes", &[], &[true]));
        graph.initializer.extend(flat.iter().map(|(name, dims)| TensorProto::from_values(name, &[2], dims)));
        graph.node.push(NodeProto { input: [&[input], &node.input[1..]].concat(), ..node });
        let failure = found_in(&model).not_evaluated.unwrap_or_default();
        assert!(failure.contains(said) && failure.contains("--inputs") == helps, "{failure}");
    }
}
