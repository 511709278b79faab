//! Models that take the frames of clips as samples, and give a row for each clip.

use std::fs::File;

use ndarray::{Array, Array2, Array4, Axis};
use ndarray_npy::NpzWriter;

use super::*;

const CHANNELS: usize = 4;
const POSITIONS: [usize; 2] = [3, 5];

/// The covariance of each of any number of frames, on the average over the frames of a clip.
fn pooled(frames: usize) -> ModelProto {
    let of = |operator: &str, inputs: &[&str], output: &str| NodeProto::new(operator, inputs, &[output]);
    let mean = |input: &str, output: &str, axis: i64, keeps: i64| {
        let keeps = AttributeProto::int("keepdims", keeps);
        of("ReduceMean", &[input], output).with(AttributeProto::ints("axes", &[axis])).with(keeps)
    };
    let integers = |name: &str, values: &[i64]| TensorProto::from_values(name, &[values.len()], values);
    let (channels, frames) = (CHANNELS as i64, frames as i64);
    let graph = GraphProto {
        node: vec![
            of("Relu", &["x"], "features"),
            of("Reshape", &["features", "matrix"], "r"),
            mean("r", "mean", 2, 1),
            of("Sub", &["r", "mean"], "centered"),
            of("Transpose", &["centered"], "transposed").with(AttributeProto::ints("perm", &[0, 2, 1])),
            of("MatMul", &["centered", "transposed"], "product"),
            of("Mul", &["product", "factor"], "covariance"),
            of("Reshape", &["covariance", "clips"], "of each"),
            mean("of each", "y", 1, 0),
        ],
        initializer: vec![
            integers("matrix", &[0, channels, -1]),
            integers("clips", &[-1, frames, channels * channels]),
            TensorProto::from_values("factor", &[], &[1.0 / POSITIONS.iter().product::<usize>() as f32]),
        ],
        input: vec![ValueInfoProto::tensor(
            "x",
            DataType::Float,
            ["frames".into(), CHANNELS.into(), POSITIONS[0].into(), POSITIONS[1].into()],
        )],
        output: vec![ValueInfoProto::of_any_shape("y", DataType::Float)],
        ..GraphProto::default()
    };
    ModelProto::new(graph, 17)
}

/// So many clips of so many frames, with what is to come of them: outputs, and the greatest entry of each.
fn clips(clips: usize, frames: usize) -> (Array4<f32>, Array2<f32>, Array<i64, ndarray::Ix1>) {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 0.7
    };
    let x = Array4::from_shape_simple_fn((clips * frames, CHANNELS, POSITIONS[0], POSITIONS[1]), &mut next);
    let mut y = Array2::zeros((clips, CHANNELS * CHANNELS));
    for (frame, x) in x.axis_iter(Axis(0)).enumerate() {
        let positions = POSITIONS.iter().product::<usize>();
        let features = x.mapv(|value| value.max(0.0)).into_shape_with_order((CHANNELS, positions)).unwrap();
        let centered = &features - &features.mean_axis(Axis(1)).unwrap().insert_axis(Axis(1));
        let covariance = centered.dot(&centered.t()) / (positions * frames) as f32;
        let mut row = y.row_mut(frame / frames);
        row += &covariance.into_shape_with_order(CHANNELS * CHANNELS).unwrap();
    }
    let greatest = |row: ndarray::ArrayView1<f32>| {
        (0..row.len()).max_by(|&one, &other| row[one].total_cmp(&row[other])).unwrap() as i64
    };
    let labels = y.axis_iter(Axis(0)).map(greatest).collect();
    (x, y, labels)
}

struct Files {
    folder: TempDir,
}

impl Files {
    fn new(model: &ModelProto) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("model.onnx"), prost::Message::encode_to_vec(model)).unwrap();
        Self { folder }
    }

    fn convert(&self, options: &[&str]) -> (i32, Value) {
        let mut line =
            arguments!["convert", self.folder.path().join("model.onnx"), "--dry-run", "--json"].to_vec();
        line.extend(options.iter().map(|&option| {
            if option == "DATA" { self.folder.path().join("data.npz").into() } else { option.into() }
        }));
        let run = isqrt_cov(&line);
        (status(&run), object(&run))
    }

    fn archive(&self, x: &Array4<f32>, expected: &Array2<f32>, labels: &Array<i64, ndarray::Ix1>) {
        let mut archive = NpzWriter::new(File::create(self.folder.path().join("data.npz")).unwrap());
        archive.add_array("x", x).unwrap();
        archive.add_array("expected", expected).unwrap();
        archive.add_array("labels", labels).unwrap();
        archive.finish().unwrap();
    }
}

#[test]
fn clips_of_any_number_of_frames_are_proven_as_wholes() {
    // Of two or five frames, one of the usual batches is a clip.
    for frames in [6, 2, 5] {
        let (done, answer) = Files::new(&pooled(frames)).convert(&[]);
        assert_eq!(done, 0, "{answer}");
        let layer = &answer["layers"][0];
        assert_eq!(
            (&layer["operator"], &layer["input"], &layer["output"]),
            (&"CovariancePooling".into(), &"features".into(), &"covariance".into())
        );
        let proof = &answer["proof"];
        assert_eq!(proof["batches"], Value::from(vec![frames, 2 * frames, 5 * frames]), "{proof}");
        let notes = proof["notes"].to_string();
        assert!(notes.contains(&format!("multiples of {frames}, which the model puts together")), "{notes}");
        assert!(!notes.contains("left out"), "{notes}");
    }
    // One of a single frame is a sample.
    let (done, answer) = Files::new(&pooled(1)).convert(&[]);
    assert_eq!((done, &answer["proof"]["batches"]), (0, &Value::from(vec![1, 2, 5])), "{answer}");
}

/// Where frames are put together before the layer, it is seen on whole clips alone.
#[test]
fn a_covariance_over_the_frames_of_a_clip_is_found() {
    const FRAMES: usize = 6;
    let mut model = pooled(FRAMES);
    let graph = model.graph.as_mut().unwrap();
    let positions = POSITIONS.iter().product::<usize>();
    let shape = |name: &str, sizes: &[usize]| {
        let sizes: Vec<i64> = std::iter::once(-1).chain(sizes.iter().map(|&size| size as i64)).collect();
        TensorProto::from_values(name, &[sizes.len()], &sizes)
    };
    graph.initializer.retain(|tensor| !["clips", "matrix"].contains(&tensor.name()));
    graph.initializer.push(shape("clips", &[FRAMES, CHANNELS, positions]));
    graph.initializer.push(shape("matrix", &[CHANNELS, FRAMES * positions]));
    let of_each = [
        NodeProto::new("Reshape", &["features", "clips"], &["frames"]),
        NodeProto::new("Transpose", &["frames"], &["channels"])
            .with(AttributeProto::ints("perm", &[0, 2, 1, 3])),
    ];
    graph.node.splice(1..1, of_each);
    graph.node[3].input[0] = "channels".to_owned();
    graph.node.truncate(graph.node.len() - 2);
    graph.node.last_mut().unwrap().output[0] = "y".to_owned();
    let factor = TensorProto::from_values("factor", &[], &[1.0 / (FRAMES * positions) as f32]);
    graph.initializer.retain(|tensor| tensor.name() != "factor");
    graph.initializer.push(factor);
    let (done, answer) = Files::new(&model).convert(&[]);
    assert_eq!(done, 0, "{answer}");
    let layer = &answer["layers"][0];
    assert_eq!(
        (&layer["operator"], &layer["output"]),
        (&"CovariancePooling".into(), &"y".into()),
        "{answer}"
    );
    assert_eq!(answer["proof"]["batches"], Value::from(vec![FRAMES, 2 * FRAMES, 5 * FRAMES]), "{answer}");
}

/// The first sample of each class is a support, and of the others there are none in the smallest episode.
#[test]
fn episodes_are_proven_where_there_is_something_to_compare() {
    let mut model = pooled(5);
    let graph = model.graph.as_mut().unwrap();
    let integers = |name: &str, values: &[i64]| TensorProto::from_values(name, &[values.len()], values);
    graph.initializer.retain(|tensor| tensor.name() != "clips");
    graph.initializer.push(integers("clips", &[5, -1, (CHANNELS * CHANNELS) as i64]));
    graph.initializer.extend([integers("one", &[1]), integers("all", &[i64::MAX])]);
    graph.node.pop();
    graph.node.push(NodeProto::new("Slice", &["of each", "one", "all", "one"], &["y"]));
    let (done, answer) = Files::new(&model).convert(&[]);
    assert_eq!(done, 0, "{answer}");
    assert_eq!(answer["proof"]["batches"], Value::from(vec![5, 10, 25]), "{answer}");
}

#[test]
fn data_may_have_a_row_for_each_clip() {
    for frames in [6, 2] {
        let files = Files::new(&pooled(frames));
        // More than are run at once, so that rows are looked for where they are.
        let count = 23;
        let (x, expected, mut labels) = clips(count, frames);
        labels[count - 1] += 1;
        labels[3] = (labels[3] + 1) % 16;
        files.archive(&x, &expected, &labels);
        let (done, answer) = files.convert(&["--expected", "DATA"]);
        assert_eq!(done, 0, "{answer}");
        let error = answer["expected"]["error_after"].as_f64().unwrap();
        assert!(error < 1e-6, "{error}");
        assert_eq!(answer["proof"]["samples"], count * frames);
        let accuracy = &answer["accuracy"];
        assert_eq!((&accuracy["samples"], &accuracy["correct_after"]), (&count.into(), &(count - 2).into()));

        let mut other = expected.clone();
        other.row_mut(17)[5] += 0.5;
        files.archive(&x, &other, &labels);
        assert_eq!(files.convert(&["--expected", "DATA"]).0, 1);
    }
}

#[test]
fn rows_that_are_none_of_the_model_s_are_an_error() {
    let (x, expected, labels) = clips(4, 6);
    // A model of single frames.
    let files = Files::new(&pooled(1));
    files.archive(&x, &expected, &labels);
    let (done, answer) = files.convert(&["--expected", "DATA"]);
    assert!(done == 2 && answer.to_string().contains("have a row for every 6 samples"), "{answer}");
    // Rows of which there is no whole number of samples, or that are not as many.
    let five = clips(5, 6).1;
    for (expected, name) in [(&five, "expected"), (&expected, "labels")] {
        files.archive(&x, expected, &labels.iter().take(3).copied().collect());
        let (done, answer) = files.convert(&["--expected", "DATA"]);
        assert!(done == 2 && answer.to_string().contains(&format!("array `{name}` has")), "{answer}");
    }
}
