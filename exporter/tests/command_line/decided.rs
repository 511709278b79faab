//! Checkpoints: what the user's data decide of what weights do not tell, and when they decide nothing.

use std::fs::File;

use ndarray::ArrayD;
use ndarray_npy::{NpzWriter, ReadNpyExt};

use super::trained::{archive, checkpoint, computed, convert, npy, setting};
use super::*;

/// What a model gives of images.
fn logits_of(model: &Path, images: &ArrayD<f32>) -> ArrayD<f32> {
    let logits = computed(model, images);
    let numbers = logits.to_f64().into_iter().map(|number| number as f32).collect();
    ArrayD::from_shape_vec(logits.dims(), numbers).unwrap()
}

/// A file of images with their classes.
fn labeled(folder: &tempfile::TempDir, images: &ArrayD<f32>, labels: &ArrayD<i64>) -> PathBuf {
    let path = folder.path().join("labels.npz");
    let mut archive = NpzWriter::new(File::create(&path).unwrap());
    archive.add_array("input", images).unwrap();
    archive.add_array("labels", labels).unwrap();
    archive.finish().unwrap();
    path
}

/// Known outputs that no setting gives are a no, and so are labels that contradict what is told.
#[test]
fn outputs_that_are_not_those_expected_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("model.onnx");
    let file = checkpoint("digits/digits_isqrt.pth");
    let images = npy(&corpus("digits/test_images.npy"));
    let logits = npy(&corpus("digits/test_logits.npy"));
    let data = archive(&folder, &[("input", &images), ("expected", &logits)]);
    let data = data.to_str().unwrap();
    let run = convert(&file, &output, &["--expected", data, "--triangle", "upper_column_major"]);
    let answer = object(&run);
    assert_eq!((status(&run), &answer["reason"]), (1, &"expected-differs".into()), "{answer}");
    let message = answer["message"].as_str().unwrap();
    assert!(message.contains("as told were: triangle upper_column_major; leave that out"), "{message}");
    assert!(answer["checkpoint"]["trials"].as_array().unwrap().len() > 1, "other numbers of steps are tried");
    assert!(!output.exists());
    let told = convert(&file, &output, &["--expected", data]);
    assert_eq!(status(&told), 0, "{}", object(&told));
}

/// Labels that no order of the triangle explains decide nothing: the weights do.
#[test]
fn labels_that_fit_nothing_decide_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("model.onnx");
    let file = checkpoint("digits/digits_isqrt_colmajor_triangle.pth.tar");
    let images = npy(&corpus("digits/test_images.npy"));
    let labels = ArrayD::<i64>::read_npy(File::open(corpus("digits/test_labels.npy")).unwrap()).unwrap();
    let with = |change: fn(i64) -> i64| {
        let path = labeled(&folder, &images, &labels.mapv(change));
        let run = convert(&file, &output, &["--inputs", path.to_str().unwrap()]);
        (status(&run), object(&run))
    };
    for (change, by) in [((|label| label) as fn(i64) -> i64, "data"), (|label| (label + 1) % 10, "weights")] {
        let (status, answer) = with(change);
        assert_eq!(status, 0, "{answer}");
        let triangle = setting(&answer, "triangle");
        assert_eq!((&triangle["value"], &triangle["by"]), (&"upper_column_major".into(), &by.into()));
    }
    let (status, answer) = with(|label| label + 1);
    assert_eq!(status, 2, "{answer}");
    assert!(answer["message"].as_str().unwrap().contains("classes 0 to 9"), "{answer}");
}

/// What is told against the weights is warned of, and data that say otherwise than the weights are a no.
#[test]
fn what_contradicts_the_weights_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("model.onnx");
    let file = checkpoint("digits/digits_isqrt_colmajor_triangle.pth.tar");
    let images = npy(&corpus("digits/test_images.npy"));
    let warning = |order: &str| {
        object(&convert(&file, &output, &["--triangle", order]))["checkpoint"]["warning"].clone()
    };
    assert_eq!(warning("upper_column_major"), Value::Null);
    let said = warning("upper").to_string();
    assert!(said.contains("read as told, upper; the classifier's weights say upper_column_major"), "{said}");
    let wrong = logits_of(&output, &images);
    std::fs::remove_file(&output).unwrap();
    let data = archive(&folder, &[("input", &images), ("expected", &wrong)]);
    let run = convert(&file, &output, &["--inputs", data.to_str().unwrap()]);
    let answer = object(&run);
    assert_eq!((status(&run), &answer["reason"]), (1, &"triangle-contradicted".into()), "{answer}");
    assert!(!output.exists());
}

/// Outputs that are as far from what one order of the triangle gives as from what the other does.
fn between_the_orders(file: &Path, images: &ArrayD<f32>) -> ArrayD<f32> {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("model.onnx");
    let [upper, column_major] = ["upper", "upper_column_major"].map(|order| {
        assert_eq!(status(&convert(file, &output, &["--triangle", order])), 0);
        logits_of(&output, images)
    });
    (upper + column_major) / 2.0
}

/// Outputs that several settings give as well decide none of them; how far they may be off does not make them.
#[test]
fn outputs_that_do_not_decide_are_not_said_to() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("model.onnx");
    let images = npy(&corpus("digits/test_images.npy"));
    let logits = npy(&corpus("digits/test_logits.npy"));
    let file = checkpoint("digits/digits_isqrt_colmajor_triangle.pth.tar");
    for (expected, by) in [(between_the_orders(&file, &images), "weights"), (logits, "data")] {
        let data = archive(&folder, &[("input", &images), ("expected", &expected)]);
        let line = ["--inputs", data.to_str().unwrap(), "--tolerance", "0.99"];
        let answer = object(&convert(&file, &output, &line));
        let triangle = setting(&answer, "triangle");
        assert_eq!(
            (&triangle["value"], &triangle["by"]),
            (&"upper_column_major".into(), &by.into()),
            "{answer}"
        );
    }
}

/// Of the numbers of steps all are tried, also where the usual one or an earlier one would do, and one is only said to be decided
/// where the others are clearly farther off.
#[test]
fn no_number_of_steps_is_said_to_be_decided_before_all_were_tried() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("model.onnx");
    let file = checkpoint("digits/digits_isqrt.pth");
    let images = npy(&corpus("digits/test_images.npy"));
    for (steps, rounded, tolerance, by, reason) in [
        ("4", 0.0, "5e-2", "data", None),
        ("8", 0.0, "2e-2", "data", None),
        ("4", 0.1, "5e-2", "assumed", Some("the data do not part it from 5")),
    ] {
        assert_eq!(status(&convert(&file, &output, &["--iterations", steps])), 0);
        let round = |value: f32| if rounded > 0.0 { (value / rounded).round() * rounded } else { value };
        let logits = logits_of(&output, &images).mapv(round);
        let data = archive(&folder, &[("input", &images), ("expected", &logits)]);
        let run = convert(&file, &output, &["--expected", data.to_str().unwrap(), "--tolerance", tolerance]);
        let answer = object(&run);
        assert_eq!(status(&run), 0, "{answer}");
        let found = setting(&answer, "iterations");
        assert_eq!((&found["value"], &found["by"]), (&steps.into(), &by.into()), "{found}");
        assert_eq!(
            found["reason"].as_str().is_some_and(|said| said.contains(reason.unwrap_or("?"))),
            reason.is_some()
        );
        assert_eq!(setting(&answer, "triangle")["by"], "data");
    }
}

/// Where data were given and decide nothing, that is said, and which would.
#[test]
fn data_that_leave_the_order_open_are_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("model.onnx");
    let file = checkpoint("nets/newmodel_scratch.pth.tar");
    let images =
        ArrayD::from_shape_fn(vec![3, 3, 64, 64], |at| ((at[0] + 3 * at[2] + 5 * at[3]) % 17) as f32 / 17.0);
    let path = labeled(&folder, &images, &ArrayD::zeros(vec![3]));
    let expected = archive(&folder, &[("input", &images), ("expected", &between_the_orders(&file, &images))]);
    for (data, tolerance, said, advice) in [
        (
            &path,
            "1e-4",
            "The labels given were tried and do not decide: upper is ",
            "the logits that they should give",
        ),
        (
            &expected,
            "0.99",
            "The outputs expected were tried and do not decide: upper is ",
            "of other samples",
        ),
    ] {
        let run = convert(&file, &output, &["--inputs", data.to_str().unwrap(), "--tolerance", tolerance]);
        let answer = object(&run);
        assert_eq!((status(&run), &answer["reason"]), (1, &"triangle-unsure".into()), "{answer}");
        let message = answer["message"].as_str().unwrap();
        assert!(message.contains(said) && message.contains(advice), "{message}");
    }
}
