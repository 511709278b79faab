//! What is told of layers whose iteration the exporter dropped, and which of them can be put back.

use ndarray::{Array, ArrayD, Axis, Dimension, concatenate};
use ndarray_npy::NpzWriter;

use super::trained::array;
use super::*;

/// The published layer alone, from `input` to `output`, without its iteration.
const LAYER: &str = "layer/official_d16_hw7_it5_ts17_b2";

/// That graph, changed.
fn changed(folder: &TempDir, change: impl FnOnce(&mut GraphProto)) -> PathBuf {
    let mut model = Model::load(graph(LAYER)).unwrap();
    change(model.proto.graph.as_mut().unwrap());
    let path = folder.path().join("changed.onnx");
    model.save(&path).unwrap();
    path
}

/// What `inspect` says of the one layer that was lost.
fn lost(path: &Path) -> Value {
    let answer = object(&isqrt_cov(&arguments!["inspect", path, "--json"]));
    let lost = answer["lost_iterations"].as_array().unwrap();
    assert_eq!(lost.len(), 1, "{answer}");
    lost[0].clone()
}

fn repair(path: &Path, output: &Path, options: &[&str]) -> (i32, Value) {
    let mut line =
        arguments!["convert", path, "-o", output, "--json", "--repair", "--iterations", "5"].to_vec();
    line.extend(options.iter().map(Into::into));
    let run = isqrt_cov(&line);
    (status(&run), object(&run))
}

/// What a graph has in place of the matrix, of ones on the diagonal, that its covariance is multiplied by before the trace is taken.
fn in_place_of_the_diagonal(graph: &mut GraphProto, operand: &str) {
    let masked = graph.node.iter_mut().find(|node| node.output[0] == "/Mul_output_0").unwrap();
    assert_eq!(masked.input[0], "/MatMul_1_output_0");
    operand.clone_into(&mut masked.input[1]);
}

/// An archive of these maps and what should be made of them.
fn archive<D: Dimension>(folder: &TempDir, maps: &ArrayD<f32>, expected: &Array<f32, D>) -> PathBuf {
    let path = folder.path().join("expected.npz");
    let mut archive = NpzWriter::new(std::fs::File::create(&path).unwrap());
    archive.add_array("input", maps).unwrap();
    archive.add_array("expected", expected).unwrap();
    archive.finish().unwrap();
    path
}

/// What the layer gave for the corpus' input, behind the means of the channels.
fn behind_means(folder: &TempDir) -> PathBuf {
    let [maps, roots] = ["input", "expected"].map(|name| array(&corpus(&format!("{LAYER}.npz")), name));
    let means = maps.mean_axis(Axis(3)).unwrap().mean_axis(Axis(2)).unwrap();
    let features = concatenate![Axis(1), means, roots.index_axis(Axis(2), 0)];
    archive(folder, &maps, &features)
}

/// Puts the means of the channels in front of `triangle`, and both out.
fn join_means(graph: &mut GraphProto, triangle: &str) {
    graph.node.extend([
        NodeProto::new("ReduceMean", &["/Reshape_output_0"], &["means"])
            .with(AttributeProto::ints("axes", &[2]))
            .with(AttributeProto::int("keepdims", 0)),
        NodeProto::new("Flatten", &[triangle], &["triangle"]),
        NodeProto::new("Concat", &["means", "triangle"], &["features"]).with(AttributeProto::int("axis", 1)),
    ]);
    graph.output = vec![ValueInfoProto::of_any_shape("features", DataType::Float)];
}

#[test]
fn a_layer_beside_other_features_is_put_back() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("repaired.onnx");
    let broken = changed(&folder, |graph| join_means(graph, "output"));
    let data = behind_means(&folder);
    let lost = lost(&broken);
    assert_eq!((&lost["input"], &lost["output"]), (&"input".into(), &"output".into()), "{lost}");
    let refused = object(&isqrt_cov(&arguments!["convert", broken, "-o", output, "--json"]));
    assert_eq!(refused["reason"], "lost-iteration", "{refused}");
    let expected = data.to_str().unwrap();
    assert_eq!(repair(&broken, &output, &["--expected", expected, "--triangle", "upper_column_major"]).0, 1);
    let (done, answer) = repair(&broken, &output, &["--expected", expected]);
    assert_eq!(done, 0, "{answer}");
    assert_eq!(answer["layers"][0]["output"], "output", "{answer}");
}

/// Where zeros are a product with data, they are so before they are multiplied by the root of the trace, which belongs to the layer.
#[test]
fn the_compensation_is_part_of_what_is_put_back() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("repaired.onnx");
    let broken = changed(&folder, |graph| {
        graph.initializer.extend([
            TensorProto::from_values("zeros", &[16, 16], &[0.0_f32; 256]),
            TensorProto::from_values("flat", &[2], &[-1_i64, 256]),
            TensorProto::from_values("one", &[3], &[-1_i64, 1, 1]),
        ]);
        let indices = graph.node.iter().find(|node| node.is("Gather")).unwrap().input[1].clone();
        graph.node.extend([
            NodeProto::new("MatMul", &["/MatMul_1_output_0", "zeros"], &["product"]),
            NodeProto::new("Reshape", &["product", "flat"], &["entries"]),
            NodeProto::new("Gather", &["entries", &indices], &["taken"]).with(AttributeProto::int("axis", 1)),
            NodeProto::new("Reshape", &["/Sqrt_output_0", "one"], &["compensation"]),
            NodeProto::new("Mul", &["taken", "compensation"], &["compensated"]),
        ]);
        join_means(graph, "compensated");
    });
    let data = behind_means(&folder);
    let (done, answer) = repair(&broken, &output, &["--expected", data.to_str().unwrap()]);
    assert_eq!(done, 0, "{answer}");
    assert_eq!(answer["layers"][0]["output"], "compensated", "{answer}");
}

/// The zeros are still multiplied by the root of what the covariance was divided by.
#[test]
fn a_lost_layer_is_put_back_with_the_norm_that_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("repaired.onnx");
    let (_, answer) = repair(&graph(LAYER), &output, &[]);
    assert_eq!(answer["layers"][0]["attributes"]["normalization"], "trace", "{answer}");
    assert_eq!(answer["repaired"][0]["assumed"], serde_json::json!(["iterations"]), "{answer}");
    let (_, answer) = repair(&graph(LAYER), &output, &["--triangle", "upper_column_major"]);
    assert_eq!(
        answer["repaired"][0]["assumed"],
        serde_json::json!(["iterations", "vectorization"]),
        "{answer}"
    );
    let squared = changed(&folder, |graph| in_place_of_the_diagonal(graph, "/MatMul_1_output_0"));
    let (done, answer) = repair(&squared, &output, &[]);
    assert_eq!(done, 0, "{answer}");
    assert_eq!(answer["layers"][0]["attributes"]["normalization"], "frobenius", "{answer}");
}

/// The broken graph gives zeros at every size, which says nothing against the one that was mended.
#[test]
fn a_lost_layer_is_put_back_where_sizes_are_open() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = Model::load(graph("layer/official_noDotData_d16_hw7_it5_ts17_dynbatch")).unwrap();
    let dims = ["batch".into(), 16.into(), "height".into(), "width".into()];
    model.proto.graph.as_mut().unwrap().input[0] = ValueInfoProto::tensor("input", DataType::Float, dims);
    let path = folder.path().join("open.onnx");
    model.save(&path).unwrap();
    let (done, answer) = repair(&path, &folder.path().join("repaired.onnx"), &[]);
    assert_eq!(done, 0, "{answer}");
}

#[test]
fn what_was_another_layer_is_not_put_back() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("repaired.onnx");
    let ones = TensorProto::from_values("ones", &[16, 16], &[1.0_f32; 256]);
    let summed = changed(&folder, |graph| {
        graph.initializer.push(ones);
        in_place_of_the_diagonal(graph, "ones");
    });
    let lost = lost(&summed);
    assert!(
        lost["reason"].as_str().unwrap().contains("no power of the covariance's trace or norm"),
        "{lost}"
    );
    let (refused, answer) = repair(&summed, &output, &[]);
    assert_eq!((refused, &answer["reason"]), (1, &"lost-iteration".into()), "{answer}");
    let message = answer["message"].as_str().unwrap();
    assert!(!message.contains("--repair") && message.contains("dynamo=True"), "{message}");
    assert!(!output.exists());
}

/// That graph with other entries of the root taken.
fn taking(folder: &TempDir, entries: &[i64]) -> PathBuf {
    changed(folder, |graph| {
        graph.initializer.push(TensorProto::from_values("entries", &[entries.len()], entries));
        let taken = graph.node.iter_mut().find(|node| node.is("Gather")).unwrap();
        "entries".clone_into(&mut taken.input[1]);
    })
}

/// Triangles without their diagonal are taken from the whole matrix, which has no order.
#[test]
fn a_matrix_is_put_back_whatever_is_said_of_triangles() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("repaired.onnx");
    let strict: Vec<i64> =
        (0..16).flat_map(|row| (row + 1..16).map(move |column| 16 * row + column)).collect();
    // So many numbers as a triangle over another axis has are none.
    let few: Vec<i64> = (0..28).collect();
    for (entries, options) in [(&strict, &[][..]), (&strict, &["--triangle", "upper"]), (&few, &[])] {
        let broken = taking(&folder, entries);
        let (done, answer) = repair(&broken, &output, options);
        assert_eq!(done, 0, "{answer}");
        assert_eq!(answer["layers"][0]["attributes"]["vectorization"], "none", "{answer}");
        assert_eq!(answer["repaired"][0]["assumed"], serde_json::json!(["iterations"]), "{answer}");
        let notes = answer["proof"]["notes"].to_string();
        assert_eq!(notes.contains("--triangle says nothing of"), !options.is_empty(), "{notes}");
    }
}

/// What the layer gave for the corpus' input, with `change` made to each entry of the triangle by its row and column.
fn expected(
    folder: &TempDir,
    change: impl Fn(usize, usize, f32) -> f32,
    order: impl Fn(&mut Vec<f32>),
) -> PathBuf {
    let [maps, mut roots] = ["input", "expected"].map(|name| array(&corpus(&format!("{LAYER}.npz")), name));
    let entries: Vec<(usize, usize)> =
        (0..16).flat_map(|row| (row..16).map(move |column| (row, column))).collect();
    for mut sample in roots.axis_iter_mut(Axis(0)) {
        let values =
            entries.iter().zip(sample.iter()).map(|(&(row, column), &value)| change(row, column, value));
        let mut values: Vec<f32> = values.collect();
        order(&mut values);
        sample.iter_mut().zip(values).for_each(|(entry, value)| *entry = value);
    }
    archive(folder, &maps, &roots)
}

/// The file's own indices take a triangle in an order that no operator has.
#[test]
fn an_order_of_the_file_s_own_stays() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("repaired.onnx");
    let entries: Vec<i64> =
        (0..16).flat_map(|row| (row..16).map(move |column| 16 * row + column)).rev().collect();
    let broken = taking(&folder, &entries);
    let data = expected(&folder, |_, _, value| value, |values| values.reverse());
    let (done, answer) = repair(&broken, &output, &["--expected", data.to_str().unwrap()]);
    assert_eq!(done, 0, "{answer}");
    assert_eq!(answer["layers"][0]["attributes"]["vectorization"], "none", "{answer}");
}

/// A weight on what is off the diagonal is the file's own, and still there.
#[test]
fn what_stands_between_root_and_triangle_stays() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("repaired.onnx");
    let weights: Vec<f32> = (0..256).map(|at| if at % 17 == 0 { 1.0 } else { 2.0_f32.sqrt() }).collect();
    let broken = changed(&folder, |graph| {
        graph.initializer.push(TensorProto::from_values("weights", &[16, 16], &weights));
        let at = graph.node.iter().position(|node| node.output[0] == "/Reshape_2_output_0").unwrap();
        let root = std::mem::replace(&mut graph.node[at].input[0], "weighted".to_owned());
        graph.node.insert(at, NodeProto::new("Mul", &[&root, "weights"], &["weighted"]));
    });
    let weigh = |row, column, value: f32| if row == column { value } else { value * 2.0_f32.sqrt() };
    let data = expected(&folder, weigh, |_| {});
    let (done, answer) = repair(&broken, &output, &["--expected", data.to_str().unwrap()]);
    assert_eq!(done, 0, "{answer}");
    assert_eq!(answer["layers"][0]["attributes"]["vectorization"], "none", "{answer}");
}
