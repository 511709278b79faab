//! What the commands say of themselves and of where they run.

use super::*;

#[test]
fn the_doctor_checks_tract_where_there_is_nothing_else() {
    let ran = isqrt_cov(&["doctor", "--json"]);
    assert_eq!(status(&ran), 0, "{ran:?}");
    let answer = object(&ran);
    assert_eq!((&answer["checks"]["tract"]["works"], &answer["onnxruntime"]), (&true.into(), &Value::Null));
    assert!(!answer["checks"]["tract"]["result"].as_str().unwrap().contains("tract"), "{answer}");
    // A library is looked for though nothing loads it, whatever names it. A variable that is empty names nothing.
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("op.so");
    std::fs::write(&library, b"not looked into").unwrap();
    for by_option in [true, false] {
        for (path, expected, said) in [
            (Path::new("/nowhere/op.so"), 1, "/nowhere/op.so: there is no such file"),
            (&library, 0, "op.so: not checked: there is no ONNX Runtime"),
        ] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_isqrt-cov"));
            command.args(["doctor", "--json"]).env("ORT_DYLIB_PATH", "").env_remove("ISQRT_COV_OP_LIBRARY");
            if by_option {
                command.arg("--op-library").arg(path);
            } else {
                command.env("ISQRT_COV_OP_LIBRARY", path);
            }
            let ran = command.output().unwrap();
            assert_eq!(status(&ran), expected, "{ran:?}");
            let check = &object(&ran)["checks"]["operator library"];
            assert!(check["result"].as_str().unwrap().contains(said), "{ran:?}");
            let works = if expected == 0 { Value::Null } else { false.into() };
            assert_eq!((&check["works"], &object(&ran)["checks"]["ONNX Runtime"]), (&works, &Value::Null));
        }
    }
    assert_eq!(answer["checks"]["CUDA"]["works"].is_null(), answer["gpu"].is_null());
    // Where there is a GPU it has a name; elsewhere it is said why none is used.
    let said = answer["checks"]["CUDA"]["result"].as_str().unwrap();
    match answer["gpu"]["name"].as_str() {
        Some(name) => assert!(said.starts_with(name) && said.contains("load"), "{said}"),
        None => assert!(said.starts_with("not used: "), "{said}"),
    }
}

#[test]
fn every_command_explains_itself() {
    for command in ["convert", "inspect", "validate", "expand", "bench", "doctor", "operators", "completions"]
    {
        let ran = isqrt_cov(&[command, "--help"]);
        assert_eq!(status(&ran), 0);
        let text = String::from_utf8(ran.stdout).unwrap();
        assert!(text.contains("Examples:") && text.contains(&format!("isqrt-cov {command}")), "{text}");
        assert!(text.contains("--json"), "{text}");
    }
    // What a command cannot do without stands in its first lines.
    let convert = isqrt_cov(&["help", "convert"]);
    assert!(String::from_utf8(convert.stdout).unwrap().contains("<INPUT> --output <OUTPUT>\n"));
    let inspect = isqrt_cov(&["inspect", "--help"]);
    assert!(String::from_utf8(inspect.stdout).unwrap().contains("isqrt-cov inspect model.onnx --inputs"));
    let ran = isqrt_cov(&["--help"]);
    assert!(String::from_utf8(ran.stdout).unwrap().contains("Exit status"));
    let version = isqrt_cov(&["--version"]);
    assert_eq!(version.stdout, format!("isqrt-cov {}\n", env!("CARGO_PKG_VERSION")).as_bytes());
    let page = String::from_utf8(isqrt_cov(&["operators"]).stdout).unwrap();
    assert!(
        page.contains("# Operators") && page.contains("IsqrtCov") && page.contains("off_diagonal_scale"),
        "{page}"
    );
    let script = isqrt_cov(&["completions", "bash"]);
    assert!(String::from_utf8(script.stdout).unwrap().contains("complete -F"));
}

/// Bash completes what stands behind a command, too: options, and files where the script offers nothing.
#[test]
fn bash_completes_options_and_files() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("completion");
    std::fs::write(&script, isqrt_cov(&["completions", "bash"]).stdout).unwrap();
    let ask = "source \"$1\"; shift; COMP_WORDS=(isqrt-cov \"$@\"); COMP_CWORD=$#; \
               _isqrt__cov isqrt-cov \"${@: -1}\" \"${COMP_WORDS[COMP_CWORD - 1]}\"; echo \"${COMPREPLY[@]}\"; \
               complete -p isqrt-cov | grep -c -- '-o default'";
    for (words, offered) in [
        (&["convert", "--tri"][..], "--triangle"),
        (&["convert", ""], ""),
        (&["convert", "model.onnx", ""], ""),
        (&["bench", "model.onnx", "fu"], ""),
        (&["convert", "model.onnx", "--triangle", "upper_"], "upper_column_major"),
        (&["completions", "f"], "fish"),
        (&["he"], "help"),
    ] {
        let asked = Command::new("bash").args(["-c", ask, "bash"]).arg(&script).args(words).output();
        let Ok(asked) = asked else { return };
        assert_eq!(String::from_utf8_lossy(&asked.stdout), format!("{offered}\n1\n"), "{words:?}: {asked:?}");
    }
}
