//! What `inspect` is shown, and what it says before `convert` does.

use super::*;

/// A layer that runs at 7×7, and does not say so.
fn of_one_size(folder: &TempDir, has_rank: bool) -> PathBuf {
    let mut model = Model::load(graph("layer/official_noDotData_d16_hw7_it5_dyn18_dynbatch")).unwrap();
    let input = &mut model.proto.graph.as_mut().unwrap().input[0];
    let name = input.name().to_owned();
    *input = if has_rank {
        ValueInfoProto::tensor(&name, DataType::Float, ["n".into(), 16.into(), "h".into(), "w".into()])
    } else {
        ValueInfoProto::of_any_shape(&name, DataType::Float)
    };
    let path = folder.path().join("open.onnx");
    model.save(&path).unwrap();
    path
}

#[test]
fn data_show_what_sizes_a_model_takes() {
    let folder = tempfile::tempdir().unwrap();
    let data = graph("layer/official_noDotData_d16_hw7_it5_dyn18_dynbatch").with_extension("npz");
    for has_rank in [true, false] {
        let input = of_one_size(&folder, has_rank);
        for command in ["inspect", "convert"] {
            let output = folder.path().join("converted.onnx");
            let mut line = arguments![command, input, "--json"].to_vec();
            if command == "convert" {
                line.extend(arguments!["-o", output]);
            }
            let without = isqrt_cov(&line);
            // The usual sizes are tried; no number of axes is.
            assert_eq!(status(&without), if has_rank { 0 } else { 2 }, "{without:?}");
            let said = object(&without)["message"].to_string();
            assert!(has_rank || said.contains("--inputs"), "{said}");
            line.extend(arguments!["--inputs", data]);
            let with = isqrt_cov(&line);
            assert_eq!(status(&with), 0, "{with:?}");
            for answer in [&with, &without].into_iter().filter(|answer| status(answer) == 0) {
                let layers = &object(answer)["layers"];
                assert_eq!(
                    (layers.as_array().unwrap().len(), &layers[0]["operator"]),
                    (1, &"IsqrtCov".into())
                );
            }
        }
    }
}

#[test]
fn a_checkpoint_has_no_sizes_to_be_shown() {
    let checkpoint = corpus("checkpoints/digits/digits_isqrt.pth");
    let ran = isqrt_cov(&arguments!["inspect", checkpoint, "--inputs", corpus("digits/test_images.npy")]);
    assert_eq!(status(&ran), 2, "{ran:?}");
    assert!(error_text(&ran).contains("digits_isqrt.pth --dry-run --inputs "), "{ran:?}");
}

/// What a newer version of the format has is left out when a model is read, and so when it is written.
#[test]
fn a_newer_format_is_noted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("newer.onnx");
    let mut model = Model::load(graph(FUSE)).unwrap();
    for (version, is_noted) in [(14, false), (15, true)] {
        model.proto.ir_version = Some(version);
        model.save(&path).unwrap();
        let said = "IR version 15, and this program knows the format up to 14";
        let inspected = object(&isqrt_cov(&arguments!["inspect", path, "--json"]));
        assert_eq!(inspected["notes"].to_string().contains(said), is_noted, "{inspected}");
        let text = isqrt_cov(&arguments!["convert", path, "--dry-run", "--seeds", "1"]);
        let text = String::from_utf8(text.stdout).unwrap();
        assert_eq!(text.contains(said), is_noted, "{text}");
    }
}

#[test]
fn inspect_says_what_convert_would_refuse() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = Model::load(graph("own/plain_ts11_n")).unwrap();
    model.proto.opset_import[0].version = Some(10);
    let (old, output) = (folder.path().join("old.onnx"), folder.path().join("out.onnx"));
    model.save(&old).unwrap();
    let inspected = isqrt_cov(&arguments!["inspect", old, "--json"]);
    assert_eq!(status(&inspected), 0, "{inspected:?}");
    assert!(object(&inspected)["obstacle"].to_string().contains("version_converter"), "{inspected:?}");
    assert_eq!(status(&isqrt_cov(&arguments!["convert", old, "-o", output])), 2);
    let new = isqrt_cov(&arguments!["inspect", graph(FUSE), "--json"]);
    assert!(object(&new)["obstacle"].is_null(), "{new:?}");
}

/// Weights that are no numbers are noted, and do not keep anything from being looked at.
#[test]
fn weights_that_are_no_numbers_are_noted() {
    let folder = tempfile::tempdir().unwrap();
    let (broken, checkpoint) = (folder.path().join("broken.onnx"), folder.path().join("broken.safetensors"));
    let mut model = Model::load(graph(FUSE)).unwrap();
    let weights = &mut model.proto.graph.as_mut().unwrap().initializer;
    let bias = weights.iter_mut().find(|tensor| tensor.name() == "fc.bias").unwrap();
    *bias = TensorProto::from_values("fc.bias", &[10], &[f32::NAN; 10]);
    model.save(&broken).unwrap();
    let bytes = std::fs::read(corpus("checkpoints/digits/digits_isqrt.safetensors")).unwrap();
    let mut tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap().tensors();
    let nan = f32::NAN.to_le_bytes().repeat(10);
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![10], &nan).unwrap();
    tensors.iter_mut().find(|(name, _)| name == "fc.bias").unwrap().1 = view;
    std::fs::write(&checkpoint, safetensors::serialize(tensors, None).unwrap()).unwrap();

    let said = "`fc.bias` (NaN at element 0)";
    for (path, pointer) in [(&broken, "/notes/0"), (&checkpoint, "/checkpoint/notes/0")] {
        let ran = isqrt_cov(&arguments!["inspect", path, "--json"]);
        let answer = object(&ran);
        assert!(answer.pointer(pointer).unwrap().as_str().unwrap().contains(said), "{answer}");
        let ran = isqrt_cov(&arguments!["inspect", path]);
        assert_eq!(status(&ran), 0, "{ran:?}");
        assert!(String::from_utf8(ran.stdout).unwrap().contains(said));
    }
    let ran = isqrt_cov(&arguments!["convert", broken, "--dry-run", "--json"]);
    let notes = &object(&ran)["proof"]["notes"];
    assert!(notes.to_string().contains(said), "{notes}");
}
