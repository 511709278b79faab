//! Tensors of a checkpoint that are no part of its network.

use super::trained::{changed, checkpoint, convert};
use super::*;

fn add(tensors: &mut Vec<TensorProto>, name: &str, dims: &[usize]) {
    tensors.push(TensorProto::from_values(name, dims, &vec![0.5_f32; dims.iter().product()]));
}

fn notes(answer: &Value) -> String {
    answer["checkpoint"]["notes"].to_string()
}

/// What training keeps for itself changes nothing of what the network computes.
#[test]
fn a_number_that_training_keeps_is_left_out_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = changed(&folder, |tensors| add(tensors, "ema_decay", &[]));
    let (model, clean) = (folder.path().join("model.onnx"), folder.path().join("clean.onnx"));
    let run = convert(&file, &model, &[]);
    let answer = object(&run);
    assert_eq!(status(&run), 0, "{answer}");
    assert!(notes(&answer).contains("as training keeps it for itself: `ema_decay`"), "{answer}");
    assert_eq!(status(&convert(&checkpoint("digits/digits_isqrt.safetensors"), &clean, &[])), 0);
    assert!(std::fs::read(model).unwrap() == std::fs::read(clean).unwrap());
    let ran = isqrt_cov(&arguments!["inspect", file]);
    assert_eq!(status(&ran), 0, "{ran:?}");
    assert!(String::from_utf8(ran.stdout).unwrap().contains("keeps it for itself: `ema_decay`"));
}

/// What may be a part of another network is left out only where that is told.
#[test]
fn other_tensors_are_left_out_where_that_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = changed(&folder, |tensors| {
        add(tensors, "extra_head.weight", &[7, 3]);
        add(tensors, "extra_head.bias", &[7]);
        add(tensors, "scale", &[]);
    });
    let model = folder.path().join("model.onnx");
    for (options, left) in [
        (
            &[][..],
            "`extra_head.bias` [7] belongs to nothing; `extra_head.weight` [7, 3] belongs to nothing; `scale` []",
        ),
        (&["--ignore", "extra_head"], "one thing does not fit: `scale` [] belongs to nothing"),
    ] {
        let run = convert(&file, &model, options);
        let answer = object(&run);
        assert_eq!((status(&run), &answer["reason"]), (1, &"unknown-architecture".into()), "{answer}");
        let message = answer["message"].as_str().unwrap();
        assert!(message.contains(left) && message.contains("--ignore NAME"), "{message}");
        assert!(message.contains("If it is a part of it: export the model"), "{message}");
    }
    let all = ["extra_head", "extra_head.weight", "scale"].map(|name| ["--ignore", name]).concat();
    let run = convert(&file, &model, &all);
    let answer = object(&run);
    assert_eq!(status(&run), 0, "{answer}");
    let said = notes(&answer);
    assert!(
        ["`extra_head.bias`", "`extra_head.weight`", "told: `", "`scale`"]
            .iter()
            .all(|left| said.contains(left)),
        "{said}"
    );
    for (ignored, expected, said) in
        [("extra", 2, "--ignore extra: no tensor of "), ("fc", 1, "`fc.weight` is missing")]
    {
        let run = convert(&file, &model, &["--ignore", ignored]);
        let answer = object(&run);
        assert_eq!(status(&run), expected, "{answer}");
        assert!(answer["message"].as_str().unwrap().contains(said), "{answer}");
    }
}
