//! Checkpoints: what `convert` makes of them against PyTorch's own logits, and what it refuses.

use std::fs::File;

use isqrt_cov::checkpoint::Checkpoint;
use isqrt_cov::data::Data;
use isqrt_cov::distance::relative_distance;
use isqrt_cov::runtime::Runtime as _;
use isqrt_cov::runtime::embedded::Embedded;
use isqrt_cov::signature::{Port, Signature};
use isqrt_cov::tensor::{ElementType, Tensor};
use isqrt_cov_models::Weights;
use isqrt_cov_models::triangle::Scores;
use isqrt_cov_op::Vectorization;
use isqrt_cov_proto::onnx::TensorProto;
use ndarray::ArrayD;
use ndarray_npy::{NpzReader, NpzWriter, ReadNpyExt};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use super::*;

pub fn checkpoint(name: &str) -> PathBuf {
    corpus("checkpoints").join(name)
}

fn cases(folder: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(checkpoint(folder).join("cases.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

pub fn array(path: &Path, name: &str) -> ArrayD<f32> {
    NpzReader::new(File::open(path).unwrap()).unwrap().by_name(name).unwrap()
}

pub fn npy(path: &Path) -> ArrayD<f32> {
    ArrayD::read_npy(File::open(path).unwrap()).unwrap()
}

/// What the model at `path` gives on `images`.
pub fn computed(path: &Path, images: &ArrayD<f32>) -> Tensor {
    let model = std::sync::Arc::new(Model::load(path).unwrap().inlined().unwrap());
    let values: Vec<f64> = images.iter().map(|&value| value.into()).collect();
    let input = Tensor::from_f64(ElementType::F32, images.shape(), &values);
    let session = Embedded::new().prepare(&model, &[images.shape().to_vec()]).unwrap();
    session.run(&[input]).unwrap().remove(0)
}

/// max|Δ| / max|expected| of the model at `path` on `images`.
fn distance(path: &Path, images: &ArrayD<f32>, expected: &ArrayD<f32>) -> f64 {
    let output = computed(path, images);
    assert_eq!(output.dims(), expected.shape());
    let expected: Vec<f64> = expected.iter().map(|&value| value.into()).collect();
    relative_distance(&output.to_f64(), &expected)
}

pub fn convert(input: &Path, output: &Path, options: &[&str]) -> Output {
    let mut line = arguments!["convert", input, "-o", output, "--json"].to_vec();
    line.extend(options.iter().map(Into::into));
    isqrt_cov(&line)
}

/// An archive of these arrays.
pub fn archive(folder: &TempDir, arrays: &[(&str, &ArrayD<f32>)]) -> PathBuf {
    let path = folder.path().join("data.npz");
    let mut archive = NpzWriter::new(File::create(&path).unwrap());
    arrays.iter().for_each(|(name, array)| archive.add_array(*name, *array).unwrap());
    archive.finish().unwrap();
    path
}

pub fn setting<'a>(answer: &'a Value, name: &str) -> &'a Value {
    let settings = answer["checkpoint"]["settings"].as_array().unwrap();
    settings.iter().find(|setting| setting["name"] == name).unwrap_or_else(|| panic!("no {name}: {answer}"))
}

/// Every architecture, layout and way of storing gives PyTorch's logits, on images of two sizes; the data decide what the
/// weights do not tell.
#[test]
fn every_checkpoint_computes_what_pytorch_computed() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("model.onnx");
    let cases = cases("own");
    assert!(cases.len() > 30);
    for case in cases {
        let file = case["file"].as_str().unwrap();
        let tensors = checkpoint("own").join(case["tensors"].as_str().unwrap());
        let (input, expected) = (array(&tensors, "input"), array(&tensors, "expected"));
        let data = archive(&folder, &[("input", &input), ("expected", &expected)]);
        let run = convert(
            &checkpoint("own").join(file),
            &output,
            &["--inputs", data.to_str().unwrap(), "--seeds", "1"],
        );
        let answer = object(&run);
        assert_eq!(status(&run), 0, "{file}: {answer}");
        let checkpoint = &answer["checkpoint"];
        assert_eq!(checkpoint["parameters"], case["parameters"], "{file}");
        let title = checkpoint["architecture"].as_str().unwrap().to_lowercase();
        assert!(title.contains(case["architecture"].as_str().unwrap()), "{file}: {title}");
        for name in ["triangle", "iterations"] {
            let told = case[name].as_str().map_or_else(|| case[name].to_string(), str::to_owned);
            assert_eq!(setting(&answer, name)["value"], told, "{file}");
        }
        assert_eq!(setting(&answer, "triangle")["by"], "data", "{file}");
        if case["block"] == "bottleneck" {
            let first = case["conv1_stride"] == true;
            assert_eq!(
                setting(&answer, "bottleneck-stride")["value"],
                if first { "first" } else { "second" }
            );
        }
        if let Some(stride) = case["last_stride"].as_u64() {
            assert_eq!(setting(&answer, "last-stride")["value"], stride.to_string(), "{file}");
        }
        for size in ["", "_b"] {
            let [images, logits] =
                ["input", "expected"].map(|name| array(&tensors, &format!("{name}{size}")));
            let far = distance(&output, &images, &logits);
            assert!(far < 1e-5, "{file}{size}: {far}");
        }
        std::fs::remove_file(&output).unwrap();
    }
}

/// Without data, trained classifiers tell the order of their triangle, and every digit is read.
#[test]
fn digits_are_read_without_being_told_anything() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("model.onnx");
    let images = npy(&corpus("digits/test_images.npy"));
    let logits = npy(&corpus("digits/test_logits.npy"));
    let of_float16 = npy(&checkpoint("own/digits_fp16_logits.npy"));
    let mut read = 0;
    for file in checkpoint("digits").read_dir().unwrap() {
        let file = file.unwrap().path();
        let name = file.file_name().unwrap().to_str().unwrap();
        let run = convert(&file, &output, &[]);
        let answer = object(&run);
        assert_eq!(status(&run), 0, "{name}: {answer}");
        let order = if name.contains("colmajor") { "upper_column_major" } else { "upper" };
        let triangle = setting(&answer, "triangle");
        assert_eq!((&triangle["value"], &triangle["by"]), (&order.into(), &"weights".into()), "{name}");
        assert_eq!(answer["layers"][0]["attributes"]["vectorization"], order, "{name}");
        assert_eq!(answer["proof"]["passed"], true);
        let expected = if name.contains("fp16") { &of_float16 } else { &logits };
        let far = distance(&output, &images, expected);
        assert!(far < 1e-5, "{name}: {far}");
        read += 1;
    }
    assert_eq!(read, 7);
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/digits");
    let data = own.join("test.npz");
    let run = convert(&own.join("digits.pth"), &output, &["--inputs", data.to_str().unwrap()]);
    let answer = object(&run);
    assert_eq!(status(&run), 0, "{answer}");
    assert_eq!(answer["accuracy"]["correct_after"], 359);
}

/// The checkpoints that the exported graphs of the corpus are of.
#[test]
fn small_networks_compute_what_their_exports_should() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("model.onnx");
    let exported = corpus("nets/small18_official_noDotData_dyn18_dynbatch.npz");
    let [images, logits] = ["input", "expected"].map(|name| array(&exported, name));
    for name in ["small18_dataparallel.pth.tar", "small18.safetensors"] {
        let file = checkpoint("nets").join(name);
        if !file.exists() {
            continue;
        }
        let run = convert(&file, &output, &["--triangle", "upper"]);
        assert_eq!(status(&run), 0, "{}", object(&run));
        let far = distance(&output, &images, &logits);
        assert!(far < 1e-4, "{name}: {far}");
    }
}

/// Weights that were never trained do not tell the order: nothing is written, and both scores are said.
#[test]
fn an_order_that_nothing_tells_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("model.onnx");
    let file = checkpoint("nets/newmodel_scratch.pth.tar");
    let run = convert(&file, &output, &[]);
    let answer = object(&run);
    assert_eq!((status(&run), &answer["reason"]), (1, &"triangle-unsure".into()), "{answer}");
    let scores = &answer["checkpoint"]["triangle_scores"];
    assert!(scores["upper"].is_f64() && scores["upper_column_major"].is_f64() && scores["order"].is_null());
    let message = answer["message"].as_str().unwrap();
    assert!(message.contains("--triangle") && message.contains("--inputs"), "{message}");
    assert!(files(&folder).is_empty());
    let told = object(&convert(&file, &output, &["--triangle", "upper_column_major"]));
    assert_eq!(setting(&told, "triangle")["by"], "user");
    assert_eq!(told["layers"][0]["attributes"]["vectorization"], "upper_column_major");
    let inspected = isqrt_cov(&arguments!["inspect", file, "--json"]);
    assert_eq!(status(&inspected), 0);
    let inspected = object(&inspected);
    assert_eq!(inspected["checkpoint"]["facts"]["arch"], "mpncovresnet50");
    assert_eq!(inspected["problems"], serde_json::json!([]));
    let tensors = inspected["tensors"].as_array().unwrap();
    let is_first = |tensor: &&Value| tensor["name"] == "features.module.0.weight";
    assert_eq!(tensors.iter().find(is_first).unwrap()["shape"], serde_json::json!([8, 3, 7, 7]));
}

/// The rule that reads the order off a classifier, on classifiers that were trained and on some that were not.
#[test]
fn trained_classifiers_tell_their_order() {
    for case in cases("orders") {
        let path = checkpoint("orders").join(case["weights"].as_str().unwrap());
        let weight =
            Port { name: "weight".to_owned(), element: Some(ElementType::F16), dims: None, rows: None };
        let signature = Signature { inputs: vec![weight], outputs: vec![] };
        let weight = Data::read(&path).unwrap().fit(&signature).unwrap().inputs.remove(0);
        let tensor = TensorProto::from_values("weight", weight.dims(), &weight.to_f64());
        let weights = Weights::new([tensor], vec![]).unwrap();
        let channels = case["channels"].as_u64().unwrap() as usize;
        let scores = Scores::of(&weights, "weight", channels).unwrap();
        assert_eq!(scores.order().map(Vectorization::word), case["decided"].as_str(), "{case}");
        let difference = scores.row_major - scores.column_major;
        assert!((difference - case["difference"].as_f64().unwrap()).abs() < 1e-3, "{case}: {difference}");
    }
}

/// The digit classifier in safetensors, with a change.
pub fn changed(folder: &TempDir, change: impl Fn(&mut Vec<TensorProto>)) -> PathBuf {
    let mut tensors = Checkpoint::load(checkpoint("digits/digits_isqrt.safetensors")).unwrap().tensors;
    change(&mut tensors);
    let views = tensors.iter().filter(|tensor| tensor.data_type() == 1).map(|tensor| {
        let dims = tensor.dims.iter().map(|&dim| dim as usize).collect();
        (tensor.name(), TensorView::new(Dtype::F32, dims, tensor.raw_data()).unwrap())
    });
    let path = folder.path().join("changed.safetensors");
    std::fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    path
}

/// What does not fit is named, all of it, under the file's names; nothing is left.
#[test]
fn what_does_not_fit_is_named() {
    type Change = fn(&mut Vec<TensorProto>);
    let changes: [(Change, &[&str]); 7] = [
        (
            |tensors| tensors.retain(|tensor| !["bn1.bias", "fc.weight"].contains(&tensor.name())),
            &[
                "most like digit classifier",
                "`bn1.bias` is missing",
                "`fc.weight` is missing",
                "torch.onnx.export",
            ],
        ),
        (
            |tensors| tensors.push(TensorProto::from_values("fc.extra", &[2], &[1.0_f32; 2])),
            &["but one thing does not fit: `fc.extra` [2] belongs to nothing", "--ignore NAME"],
        ),
        (
            |tensors| {
                tensors.retain(|tensor| tensor.name() != "layer2.0.weight");
                tensors.push(TensorProto::from_values("layer2.0.weight", &[64, 48, 1, 1], &[1.0_f32; 3072]));
            },
            &["`layer2.0.weight` has shape [64, 48, 1, 1]; expected [any, 48, 3, 3]"],
        ),
        (
            |tensors| tensors.retain(|tensor| tensor.name() == "fc.bias"),
            &["those of no known architecture", "ResNet with iSQRT-COV", "torch.onnx.export"],
        ),
        (
            |tensors| {
                let numbered = tensors.iter_mut().zip(0..);
                numbered.for_each(|(tensor, number)| tensor.name = Some(format!("x{number:02}")));
            },
            &[", …) are those of no known architecture"],
        ),
        (
            |tensors| tensors.push(TensorProto::from_values("module.fc.weight_g", &[2], &[1.0_f32; 2])),
            &["`module.fc.weight_g` is of a weight norm"],
        ),
        (
            |tensors| {
                let copy = |of: &TensorProto, module: &str| TensorProto {
                    name: Some(format!("{module}.{}", of.name())),
                    ..of.clone()
                };
                *tensors = ["one", "two"]
                    .iter()
                    .flat_map(|module| tensors.iter().map(|of| copy(of, module)))
                    .collect();
            },
            &[
                "several of its modules are networks: `one`, `two`: save the state dict of the one that is meant",
            ],
        ),
    ];
    for (change, said) in changes {
        let folder = tempfile::tempdir().unwrap();
        let file = changed(&folder, change);
        let report = folder.path().join("report.html");
        let output = folder.path().join("model.onnx");
        let run = convert(&file, &output, &["--report", report.to_str().unwrap()]);
        let answer = object(&run);
        assert_eq!((status(&run), &answer["reason"]), (1, &"unknown-architecture".into()), "{answer}");
        assert_eq!((&answer["layers"], &answer["proof"]), (&serde_json::json!([]), &Value::Null));
        let page = std::fs::read_to_string(&report).unwrap();
        assert!(page.contains("No (unknown-architecture)"), "{page}");
        std::fs::remove_file(report).unwrap();
        let message = answer["message"].as_str().unwrap();
        assert!(message.contains("changed.safetensors"), "{message}");
        said.iter().for_each(|said| assert!(message.contains(said), "{said}: {message}"));
        assert_eq!(files(&folder), ["changed.safetensors"]);
        let inspected = isqrt_cov(&arguments!["inspect", file, "--json"]);
        assert_eq!(
            (status(&inspected), &object(&inspected)["message"]),
            (1, &message.into()),
            "{inspected:?}"
        );
    }
}

/// How the graph is written is the user's to say.
#[test]
fn graphs_are_written_as_asked() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("model.onnx");
    let file = checkpoint("digits/digits_isqrt.pth");
    let images = npy(&corpus("digits/test_images.npy"));
    let logits = npy(&corpus("digits/test_logits.npy"));
    let written = |options: &[&str]| {
        let run = convert(&file, &output, options);
        assert_eq!(status(&run), 0, "{options:?}: {}", object(&run));
        let size = output.metadata().unwrap().len();
        (Model::load(&output).unwrap().proto, size, distance(&output, &images, &logits))
    };
    let count = |model: &ModelProto, op_type: &str| {
        model.graph.as_ref().unwrap().node.iter().filter(|node| node.op_type() == op_type).count()
    };
    let (usual, size, far) = written(&[]);
    assert_eq!((count(&usual, "BatchNormalization"), usual.opset_import[0].version()), (0, 17));
    assert!(far < 1e-5);
    let input = &usual.graph.as_ref().unwrap().input[0];
    let open = input.dims().unwrap().iter().filter(|dim| dim.size().is_none()).count();
    assert_eq!(open, 3, "batch, height and width are open");

    let (kept, _, far) = written(&["--keep-batch-norm", "--opset", "13"]);
    assert_eq!((count(&kept, "BatchNormalization"), kept.opset_import[0].version()), (5, 13));
    assert!(far < 1e-5);
    let (newest, _, far) = written(&["--opset", "23"]);
    assert_eq!(newest.opset_import[0].version(), 23);
    assert!(far < 1e-5);
    let (half, half_size, far) = written(&["--half"]);
    assert_eq!(count(&half, "Cast"), 6);
    assert!(5 * half_size < 3 * size, "{half_size} of {size} bytes");
    assert!(far > 1e-6 && far < 1e-3, "{far}");
    let (bare, _, _) = written(&["--no-function", "--iterations", "3"]);
    assert!(bare.functions.is_empty());
}

#[test]
fn options_that_mean_nothing_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("model.onnx");
    let file = checkpoint("digits/digits_isqrt.pth");
    let graph = graph(FUSE);
    for (input, options, said) in [
        (
            &file,
            &["--assume", "last-stride=2"][..],
            "no such setting in digit classifier; expected one of iterations, triangle",
        ),
        (&file, &["--assume", "last-stride"], "expected NAME=VALUE"),
        (&file, &["--assume", "triangle=lower"], "expected one of upper, upper_column_major"),
        (&file, &["--assume", "iterations=0"], "expected a number from 1 to 100"),
        (&file, &["--assume", "iterations=five"], "expected a number from 1 to 100"),
        (&file, &["--repair", "--iterations", "5"], "are for graphs"),
        (&file, &["--only", "fc"], "are for graphs"),
        (&graph, &["--half"], "--half is for checkpoints"),
        (&graph, &["--iterations", "5"], "are for checkpoints"),
    ] {
        let run = convert(input, &output, options);
        assert_eq!(status(&run), 2, "{options:?}");
        let answer = object(&run);
        assert!(answer["message"].as_str().unwrap().contains(said), "{answer}");
    }
    for command in [&["validate"][..], &["bench"], &["expand", "-o", "x.onnx"]] {
        let mut line: Vec<_> = command.iter().map(std::ffi::OsString::from).collect();
        line.extend(arguments![file, file][..if command == ["validate"] { 2 } else { 1 }].iter().cloned());
        let run = isqrt_cov(&line);
        assert_eq!(status(&run), 2, "{command:?}");
        assert!(error_text(&run).contains("isqrt-cov convert"), "{}", error_text(&run));
    }
    assert!(files(&folder).is_empty());
}

/// The files of a sharded checkpoint are read, and none of them is written over, under whatever name.
#[test]
#[cfg(unix)]
fn shards_are_not_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let mut shards = Vec::new();
    for file in checkpoint("own").read_dir().unwrap() {
        let file = file.unwrap();
        let name = file.file_name().into_string().unwrap();
        if name.starts_with("released_sharded") && name.contains("safetensors") {
            std::fs::copy(file.path(), folder.path().join(&name)).unwrap();
            shards.push(name);
        }
    }
    let index = folder.path().join("released_sharded.safetensors.index.json");
    for name in &shards {
        let target = folder.path().join(name);
        let before = std::fs::read(&target).unwrap();
        let output = folder.path().join("model.onnx");
        std::os::unix::fs::symlink(&target, &output).unwrap();
        let run = convert(&index, &output, &["--triangle", "upper"]);
        assert_eq!(status(&run), 2, "{name}");
        assert!(object(&run)["message"].as_str().unwrap().contains("is also read"), "{name}: {run:?}");
        assert_eq!(std::fs::read(&target).unwrap(), before);
        std::fs::remove_file(output).unwrap();
    }
    assert_eq!(files(&folder).len(), shards.len());
}

/// Weights that no output can be computed from are named.
#[test]
fn weights_that_are_no_numbers_are_named() {
    let bad = |tensors: &mut Vec<TensorProto>, name: &str, value: f32| {
        let tensor = tensors.iter_mut().find(|tensor| tensor.name() == name).unwrap();
        let dims: Vec<usize> = tensor.dims.iter().map(|&dim| dim as usize).collect();
        let mut values = vec![1.0_f32; dims.iter().product()];
        values[3] = value;
        *tensor = TensorProto::from_values(name, &dims, &values);
    };
    for (name, value, said) in [
        ("fc.bias", f32::NAN, "tensor `fc.bias`: NaN at element 3"),
        ("conv1.weight", f32::INFINITY, "tensor `conv1.weight`: inf at element 3"),
        ("bn1.running_var", -1.0, "`bn1.running_var`: -1 at element 3; expected a variance of 0 or more"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let file = changed(&folder, |tensors| bad(tensors, name, value));
        let run = convert(&file, &folder.path().join("model.onnx"), &[]);
        assert_eq!(status(&run), 2);
        let answer = object(&run);
        assert!(answer["message"].as_str().unwrap().contains(said), "{answer}");
        assert_eq!(files(&folder), ["changed.safetensors"]);
    }
}
