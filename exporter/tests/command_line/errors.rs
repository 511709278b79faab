//! Errors: broken files, bad usage, runtimes that are not there.

use super::*;

#[test]
fn broken_files_give_one_clear_line() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out.onnx");
    let whole = std::fs::read(graph(FUSE)).unwrap();
    let mut inputs = vec![("truncated", whole[..whole.len() / 2].to_vec()), ("empty", Vec::new())];
    inputs.push(("text", b"not a model at all, but text".to_vec()));
    for (name, content) in inputs {
        let input = folder.path().join(format!("{name}.onnx"));
        std::fs::write(&input, content).unwrap();
        for command in ["convert", "inspect", "validate", "expand"] {
            let mut line = arguments![command, input].to_vec();
            match command {
                "convert" | "expand" => line.extend(arguments!["-o", output]),
                "validate" => line.extend(arguments![graph(FUSE)]),
                _ => {}
            }
            let ran = isqrt_cov(&line);
            assert_eq!(status(&ran), 2, "{ran:?}");
            let text = error_text(&ran);
            assert!(text.starts_with("error: ") && text.contains(&format!("{name}.onnx")), "{text}");
            assert_eq!(text.lines().count(), 1, "{text}");
            assert!(ran.stdout.is_empty());
            line.extend(arguments!["--json"]);
            let ran = isqrt_cov(&line);
            let answer = object(&ran);
            assert_eq!((status(&ran), answer["status"].as_str()), (2, Some("error")));
            assert!(answer["message"].as_str().unwrap().contains(&format!("{name}.onnx")));
        }
        std::fs::remove_file(input).unwrap();
    }
    assert!(files(&folder).is_empty());
}

#[test]
fn the_input_is_never_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("model.onnx");
    std::fs::copy(graph(FUSE), &input).unwrap();
    let linked = folder.path().join("linked.onnx");
    std::fs::hard_link(&input, &linked).unwrap();
    for output in [&input, &linked] {
        let ran = isqrt_cov(&arguments!["convert", input, "-o", output]);
        assert_eq!(status(&ran), 2, "{ran:?}");
        assert!(error_text(&ran).contains("is also read, as"), "{ran:?}");
    }
    let data = folder.path().join("data.npz");
    std::fs::write(&data, b"the user's own").unwrap();
    let ran = isqrt_cov(&arguments!["convert", input, "-o", data, "--inputs", data]);
    assert!(status(&ran) == 2 && error_text(&ran).contains("is also read, as"), "{ran:?}");
    // Nor is a library, whether an option names it or the environment.
    let named = |command: &str, option: &str, variable: &str| {
        let mut ran = Command::new(env!("CARGO_BIN_EXE_isqrt-cov"));
        ran.args([command.as_ref(), input.as_os_str(), "-o".as_ref(), data.as_os_str()]);
        ran.env_remove("ORT_DYLIB_PATH").env_remove("ISQRT_COV_OP_LIBRARY");
        if option.is_empty() {
            ran.env(variable, &data)
        } else {
            ran.arg(option).arg(&data)
        };
        ran.output().unwrap()
    };
    for command in ["convert", "expand"] {
        for (option, variable) in [
            ("--onnxruntime", ""),
            ("--op-library", ""),
            ("", "ORT_DYLIB_PATH"),
            ("", "ISQRT_COV_OP_LIBRARY"),
        ] {
            let ran = named(command, option, variable);
            assert!(status(&ran) == 2 && error_text(&ran).contains("is also read, as"), "{ran:?}");
        }
    }
    assert_eq!(std::fs::read(&data).unwrap(), b"the user's own");
    assert_eq!(std::fs::read(&input).unwrap(), std::fs::read(graph(FUSE)).unwrap());
    assert_eq!(files(&folder), ["data.npz", "linked.onnx", "model.onnx"]);
}

#[test]
fn bad_usage_is_an_error_in_either_form() {
    let missing = isqrt_cov(&["convert", "model.onnx"]);
    assert_eq!(status(&missing), 2);
    assert!(error_text(&missing).contains("--output"), "{missing:?}");
    // Two paths are what many other commands take.
    for (line, told) in [
        (&["convert", "a.onnx", "b.onnx"][..], true),
        (&["--json", "expand", "a.onnx", "b.onnx"], true),
        (&["validate", "a.onnx", "b.onnx", "c.onnx"], false),
    ] {
        let ran = isqrt_cov(line);
        let text = String::from_utf8([&*ran.stdout, &ran.stderr].concat()).unwrap();
        assert_eq!((status(&ran), text.contains("named by an option: -o b.onnx")), (2, told), "{ran:?}");
    }
    for line in [
        vec!["convert", "model.onnx", "--json"],
        vec!["--json"],
        vec!["--json", "frobnicate"],
        vec!["inspect", "--json", "--runtime", "abacus", "model.onnx"],
        vec!["convert", "model.onnx", "-o", "out.onnx", "--tolerance", "-1", "--json"],
        vec!["convert", "model.onnx", "-o", "out.onnx", "--seeds", "0", "--json"],
    ] {
        let ran = isqrt_cov(&line);
        assert_eq!((status(&ran), &object(&ran)["reason"]), (2, &"usage".into()), "{line:?}");
    }
    let absent = isqrt_cov(&["inspect", "no-such-model.onnx", "--json"]);
    assert_eq!(status(&absent), 2);
    assert!(object(&absent)["message"].as_str().unwrap().contains("no-such-model.onnx"));
    let checkpoint = isqrt_cov(&["convert", "model.pth.tar", "-o", "out.onnx"]);
    assert_eq!(status(&checkpoint), 2);
    assert!(error_text(&checkpoint).contains("model.pth.tar: cannot be read"), "{checkpoint:?}");
    let mixed = isqrt_cov(&arguments!["inspect", graph(FUSE), "--runtime", "tract", "--op-library", "x.so"]);
    assert_eq!(status(&mixed), 2);
    assert!(error_text(&mixed).contains("for `--runtime ort`"), "{mixed:?}");
}

#[test]
fn a_runtime_that_is_not_there_is_named() {
    let ran = isqrt_cov(&arguments!["inspect", graph(FUSE), "--runtime", "ort"]);
    assert_eq!(status(&ran), 2);
    assert!(error_text(&ran).contains("--onnxruntime or ORT_DYLIB_PATH"), "{ran:?}");
    let ran = isqrt_cov(&arguments!["inspect", graph(FUSE), "--onnxruntime", "/nowhere/libonnxruntime.so"]);
    assert_eq!(status(&ran), 2);
    assert!(error_text(&ran).contains("/nowhere/libonnxruntime.so: no such file"), "{ran:?}");
    let ran = isqrt_cov(&arguments![
        "convert",
        graph(FUSE),
        "--dry-run",
        "--no-function",
        "--onnxruntime",
        "/nowhere/libonnxruntime.so",
        "--op-library",
        "/nowhere/libisqrt_cov_op.so",
        "--json"
    ]);
    assert_eq!(status(&ran), 2);
    let doctor = isqrt_cov(&["doctor", "--onnxruntime", "/nowhere/libonnxruntime.so", "--json"]);
    assert_eq!((status(&doctor), &object(&doctor)["reason"]), (1, &"not-working".into()));
}

/// Models that cannot be compared do not differ.

#[test]
fn a_candidate_that_does_not_run_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.onnx");
    let mut model = Model::load(graph(FUSE)).unwrap();
    let nodes = &mut model.proto.graph.as_mut().unwrap().node;
    nodes.iter_mut().find(|node| node.op_type() == "Relu").unwrap().op_type = Some("Rellu".to_owned());
    std::fs::write(&path, prost::Message::encode_to_vec(&model.proto)).unwrap();
    let ran = isqrt_cov(&arguments!["validate", graph(FUSE), path]);
    assert_eq!(status(&ran), 2, "{ran:?}");
    assert!(
        String::from_utf8_lossy(&ran.stderr).contains("other.onnx: cannot be compared: the candidate"),
        "{ran:?}"
    );
}

/// Of several files, and of one in a script, an error says which it is about, and everything once.

#[test]
fn errors_name_their_file_once() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    let model = |name: &str, change: &dyn Fn(&mut GraphProto)| {
        let mut model = Model::load(corpus("../models/iterations_of_zero.onnx")).unwrap().proto;
        change(model.graph.as_mut().unwrap());
        Model::new(model, "").save(place(name)).unwrap();
    };
    model("none.onnx", &|_| ());
    model("good.onnx", &|graph| graph.node[0].attribute.clear());
    model("text.onnx", &|graph| {
        graph.node[0].attribute.clear();
        let port = graph.input[0].r#type.as_mut().unwrap().value.as_mut().unwrap();
        let type_proto::Value::TensorType(tensor) = port else { panic!("{port:?}") };
        tensor.elem_type = Some(DataType::String.into());
    });
    let [good, none, text] = ["good.onnx", "none.onnx", "text.onnx"].map(place);
    let has_type = "has element type string, 8 (as onnx.proto numbers them)";
    for (line, file, said) in [
        (
            &arguments!["expand", none, "-o", place("out.onnx")][..],
            "none.onnx",
            "`iterations` is 0; expected",
        ),
        (&arguments!["validate", good, none], "none.onnx", "`iterations` is 0; expected"),
        (&arguments!["validate", text, text], "text.onnx", has_type),
        (&arguments!["validate", good, text], "text.onnx", has_type),
        (&arguments!["inspect", text], "text.onnx", has_type),
        (&arguments!["convert", text, "--dry-run"], "text.onnx", has_type),
        (&arguments!["expand", text, "-o", place("out.onnx")], "text.onnx", has_type),
    ] {
        let ran = isqrt_cov(line);
        assert_eq!(status(&ran), 2, "{ran:?}");
        let text = error_text(&ran);
        assert!(text.lines().next().unwrap().contains(&format!("{file}: cannot be ")), "{text}");
        assert_eq!(text.matches(said).count(), 1, "{text}");
    }
}

/// A model under a checkpoint's name would not be read again.

#[test]
fn no_model_is_written_as_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("model.pth");
    let ran = isqrt_cov(&arguments!["convert", graph(FUSE), "-o", output]);
    assert_eq!(status(&ran), 2, "{ran:?}");
    assert!(
        String::from_utf8_lossy(&ran.stderr).contains("name a file with -o that ends in .onnx"),
        "{ran:?}"
    );
    assert!(!output.exists());
}

/// What a file is that is not what it was taken for.

#[test]
fn other_files_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let (archive, named, index) =
        (folder.path().join("data.npz"), folder.path().join("model.pth"), folder.path().join("i.json"));
    std::fs::write(&archive, b"").unwrap();
    std::fs::copy(graph(FUSE), &named).unwrap();
    std::fs::write(&index, br#"{"metadata": {}, "weight_map": {"w": "w.bin"}}"#).unwrap();
    std::fs::write(folder.path().join("w.bin"), b"PK\x03\x04 and so on").unwrap();
    for (line, said) in [
        (arguments!["bench", archive], "holds arrays, not a model"),
        (arguments!["inspect", named], "begins as an ONNX model does"),
        (arguments!["inspect", index], "`w.bin` is a file of torch.save; expected safetensors"),
    ] {
        let ran = isqrt_cov(&line);
        assert_eq!(status(&ran), 2, "{ran:?}");
        assert!(String::from_utf8_lossy(&ran.stderr).contains(said), "{ran:?}");
    }
}
