//! Outputs that are no ordinary files, names that are no text, and what can only be read.

use std::fs;
use std::io::Write as _;
use std::time::{Duration, Instant};

use super::*;

#[cfg(target_os = "linux")]
#[test]
fn an_answer_that_cannot_be_printed_is_an_error() {
    let input = graph(FUSE);
    for arguments in ["inspect \"$2\" --json", "inspect \"$2\"", "operators", "operators --json"] {
        let ran = bash(&format!("\"$1\" {arguments} > /dev/full"), &[input.as_os_str()]);
        assert_eq!(status(&ran), 2, "{arguments}: {ran:?}");
        assert!(error_text(&ran).contains("standard output"), "{ran:?}");
    }
    for arguments in ["--help", "-h", "--version", "help", "help convert", "convert --help"] {
        let ran = bash(&format!("\"$1\" {arguments} > /dev/full"), &[]);
        assert_eq!(status(&ran), 2, "{arguments}: {ran:?}");
        assert!(error_text(&ran).contains("standard output\n  cause: No space left"), "{ran:?}");
    }
    // A reader that has seen enough is none.
    for arguments in ["operators", "help convert", "completions bash"] {
        let ran = bash(&format!("\"$1\" {arguments} | head -1; exit ${{PIPESTATUS[0]}}"), &[]);
        assert_eq!((status(&ran), error_text(&ran)), (0, ""), "{ran:?}");
    }
    // What was written is there all the same.
    let folder = tempfile::tempdir().unwrap();
    let [model, report] = ["model.onnx", "report.json"].map(|name| folder.path().join(name));
    for json in ["", "--json"] {
        let ran = bash(
            &format!("\"$1\" convert \"$2\" -o \"$3\" --report \"$4\" --seeds 1 {json} > /dev/full"),
            &[input.as_os_str(), model.as_os_str(), report.as_os_str()],
        );
        let said = format!("though this was written: {}, {}", model.display(), report.display());
        assert_eq!((status(&ran), error_text(&ran).contains(&said)), (2, true), "{ran:?}");
        assert_eq!(files(&folder), ["model.onnx", "report.json"]);
    }
}

#[cfg(unix)]
#[test]
fn outputs_that_are_no_ordinary_files() {
    use std::os::unix::fs::symlink;

    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    fs::create_dir(place("folder")).unwrap();
    assert!(Command::new("mkfifo").arg(place("pipe")).status().unwrap().success());
    symlink("nowhere.onnx", place("dangling.onnx")).unwrap();
    symlink("/dev/null", place("null.onnx")).unwrap();
    symlink(graph(SMALL), place("input.onnx")).unwrap();
    let before = files(&folder);
    for (output, said) in [
        (place("folder"), "is a folder"),
        (place("pipe"), "is not a regular file"),
        (place("null.onnx"), "is not a regular file"),
        (PathBuf::from("/dev/null"), "is not a regular file"),
        (PathBuf::from("/dev/full"), "is not a regular file"),
        (PathBuf::from("/dev/stdout"), "is not a regular file"),
        (place("dangling.onnx"), "is a link to a file that does not exist"),
        (place("input.onnx"), "is also read, as"),
        (place("pipe/out.onnx"), "does not exist"),
        (place("nowhere/out.onnx"), "does not exist"),
    ] {
        let started = Instant::now();
        let ran = isqrt_cov(&arguments!["convert", graph(SMALL), "-o", output]);
        assert_eq!(status(&ran), 2, "{ran:?}");
        assert!(error_text(&ran).contains(said), "{said}: {ran:?}");
        assert_eq!(error_text(&ran).lines().count(), 1, "{ran:?}");
        assert!(started.elapsed() < Duration::from_secs(10));
        assert_eq!(files(&folder), before);
    }

    // The current folder has been removed.
    let script = "mkdir \"$3/gone\" && cd \"$3/gone\" && rmdir ../gone && \"$1\" convert \"$2\" -o out.onnx";
    let ran = bash(script, &[graph(SMALL).as_os_str(), folder.path().as_os_str()]);
    assert_eq!(
        (status(&ran), error_text(&ran)),
        (2, "error: out.onnx: the folder . does not exist\n"),
        "{ran:?}"
    );

    // Nobody writes into the pipe.
    let started = Instant::now();
    let ran = isqrt_cov(&arguments!["validate", graph(SMALL), graph(SMALL), "--inputs", place("pipe")]);
    assert!(error_text(&ran).contains("pipe: is not a regular file"), "{ran:?}");
    assert!(status(&ran) == 2 && started.elapsed() < Duration::from_secs(10));

    // A link is followed: what it leads to is replaced, in its own folder.
    fs::write(place("folder/target.onnx"), "former").unwrap();
    symlink("folder/target.onnx", place("link.onnx")).unwrap();
    let ran = isqrt_cov(&arguments!["convert", graph(SMALL), "-o", place("link.onnx")]);
    assert_eq!(status(&ran), 0, "{ran:?}");
    assert!(place("link.onnx").is_symlink() && Model::load(place("folder/target.onnx")).is_ok());
    assert_eq!(fs::read_dir(place("folder")).unwrap().count(), 1);

    // The other name of a file stays with what it was.
    fs::write(place("one.onnx"), "former").unwrap();
    fs::hard_link(place("one.onnx"), place("other.onnx")).unwrap();
    let ran = isqrt_cov(&arguments!["convert", graph(SMALL), "-o", place("one.onnx")]);
    assert_eq!(status(&ran), 0, "{ran:?}");
    assert!(Model::load(place("one.onnx")).is_ok());
    assert_eq!(fs::read(place("other.onnx")).unwrap(), b"former");

    // Where the program prints to, no model is written.
    let printed = place("printed.onnx");
    for output in ["/dev/stdout".as_ref(), printed.as_os_str()] {
        let ran = bash(
            "exec \"$1\" convert \"$2\" -o \"$3\" > \"$4\"",
            &[graph(SMALL).as_os_str(), output, printed.as_os_str()],
        );
        assert_eq!(status(&ran), 2, "{ran:?}");
        assert!(error_text(&ran).contains("is where this program prints to"), "{ran:?}");
    }
}

/// What replaces a file is for the same people, and a file that may not be written is not replaced.
#[cfg(unix)]
#[test]
fn permissions_of_what_is_replaced_are_kept() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    let (model, report, plain) = (place("model.onnx"), place("report.html"), place("plain.onnx"));
    let write = |mode: u32| {
        for path in [&model, &report, &plain] {
            let _ = fs::remove_file(path);
            fs::write(path, "former").unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
    };
    let lines = [
        (arguments!["convert", graph(SMALL), "-o", model, "--seeds", "1"].to_vec(), &model, "-o"),
        (
            arguments!["convert", graph(SMALL), "--dry-run", "--report", report, "--seeds", "1"].to_vec(),
            &report,
            "--report",
        ),
        (arguments!["expand", graph(SMALL), "-o", plain, "--seeds", "1"].to_vec(), &plain, "-o"),
    ];
    for mode in [0o600, 0o640] {
        write(mode);
        for (line, path, _) in &lines[..2] {
            let ran = isqrt_cov(line);
            assert_eq!(status(&ran), 0, "{ran:?}");
            assert_ne!(fs::read(path).unwrap(), b"former");
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, mode, "{}", path.display());
        }
    }
    write(0o444);
    for (line, path, option) in &lines {
        let ran = isqrt_cov(line);
        assert_eq!(status(&ran), 2, "{ran:?}");
        let said =
            format!("{}: exists and is read-only; name another file with {option}, or ", path.display());
        assert!(error_text(&ran).contains(&said), "{ran:?}");
        assert_eq!(fs::read(path).unwrap(), b"former");
    }
    assert_eq!(files(&folder).len(), 3);
}

/// A path is bytes, and an answer is Unicode.
#[cfg(target_os = "linux")]
#[test]
fn paths_need_not_be_unicode() {
    use std::os::unix::ffi::OsStrExt as _;

    let folder = tempfile::tempdir().unwrap();
    let place = |name: &[u8]| folder.path().join(std::ffi::OsStr::from_bytes(name));
    let (input, output, plain) = (place(b"n\xff.onnx"), place(b"o\xff.onnx"), place(b"p\xff.onnx"));
    let report = place(b"r\xff.json");
    fs::copy(graph(SMALL), &input).unwrap();
    for line in [
        &arguments!["convert", input, "-o", output, "--report", report, "--seeds", "1"][..],
        &arguments!["inspect", output],
        &arguments!["validate", input, output, "--seeds", "1"],
        &arguments!["expand", output, "-o", plain, "--seeds", "1"],
        &arguments!["bench", input, output, "--rounds", "1"],
        &arguments!["doctor", "--op-library", input],
    ] {
        let ran = isqrt_cov(&[line, &["--json".into()]].concat());
        // No library has such a name here.
        assert!(status(&ran) == 0 || line[0] == "doctor", "{ran:?}");
        assert!(object(&ran).to_string().contains("\u{fffd}."), "{ran:?}");
    }
    assert!(fs::read_to_string(report).unwrap().contains("r\u{fffd}.json"));
}

#[cfg(unix)]
#[test]
fn a_folder_that_is_only_read_is_named() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o555)).unwrap();
    let mut outputs = vec![PathBuf::from("/proc/out.onnx"), PathBuf::from("/proc/report.json")];
    if fs::write(folder.path().join("probe"), "").is_err() {
        outputs.push(folder.path().join("out.onnx"));
    } else {
        writeln!(
            std::io::stderr(),
            "NOT TESTED: permissions of a folder, which bind everybody but this user"
        )
        .unwrap();
    }
    if !Path::new("/proc/self").exists() {
        outputs.drain(..2);
    }
    for output in outputs {
        let ran = if output.ends_with("report.json") {
            isqrt_cov(&arguments!["convert", graph(SMALL), "--dry-run", "--report", output])
        } else {
            isqrt_cov(&arguments!["convert", graph(SMALL), "-o", output])
        };
        assert_eq!(status(&ran), 2, "{ran:?}");
        assert!(error_text(&ran).contains("cannot be written to"), "{ran:?}");
    }
}
