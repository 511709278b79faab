//! What goes wrong around a conversion: it is killed, the disk is full, an input is changed. The former output is
//! intact or the new one is whole, always, and nothing else is left.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use isqrt_cov_proto::Model;
use isqrt_cov_proto::onnx::tensor_proto::DataLocation;
use isqrt_cov_proto::onnx::{ModelProto, StringStringEntryProto, TensorProto};
use tempfile::TempDir;

use super::{SMALL, bash, corpus, error_text, files, graph, isqrt_cov, object, status};

/// What shortens the proof.
const QUICK: [&str; 2] = ["--seeds", "1"];

/// Conversions of two models to one place: what is there already, and what is to take its place.
struct Conversions {
    folder: TempDir,
    former: BTreeMap<String, Vec<u8>>,
    new: BTreeMap<String, Vec<u8>>,
}

/// What a folder held after a conversion that may not have come to its end.
struct Found {
    /// Whether the new model is there; else the former one is.
    new: bool,
    /// The names of the files that belong to neither.
    left: Vec<String>,
}

/// Writes to `path` the model `plain` with `bytes` of data in another file, filled with `value`.
fn with_external_data(plain: &Path, path: &Path, bytes: usize, value: u8) {
    let mut model = Model::load(plain).unwrap();
    let data = path.with_extension("bin");
    fs::write(&data, vec![value; bytes]).unwrap();
    let location = data.file_name().unwrap().to_str().unwrap().to_owned();
    let mut tensor = TensorProto { name: Some("large".to_owned()), data_type: Some(2), ..Default::default() };
    tensor.dims = vec![bytes as i64];
    tensor.set_data_location(DataLocation::External);
    tensor.external_data =
        vec![StringStringEntryProto { key: Some("location".to_owned()), value: Some(location) }];
    model.proto.graph.as_mut().unwrap().initializer.push(tensor);
    Model::new(model.proto, path).save(path).unwrap();
}

fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut contents = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        contents.insert(entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap());
    }
    contents
}

impl Conversions {
    /// Converts a model with `bytes` of external data, and another over it.
    fn new(bytes: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("out")).unwrap();
        let mut conversions = Self { folder, former: BTreeMap::new(), new: BTreeMap::new() };
        // Of all models this one converts soonest.
        let gram = corpus("../models/gram.onnx");
        let plain = conversions.folder.path().join("plain.onnx");
        let expanded = isqrt_cov(&arguments!["expand", gram, "-o", plain, "--seeds", "1"]);
        assert_eq!(status(&expanded), 0, "{expanded:?}");
        for (name, value) in [("former", 1), ("new", 2)] {
            let path = conversions.folder.path().join(name).with_extension("onnx");
            with_external_data(&plain, &path, bytes, value);
        }
        for name in ["former", "new"] {
            let ran = conversions.command(name).output().unwrap();
            assert_eq!(status(&ran), 0, "{ran:?}");
            let written = contents(&conversions.out());
            if name == "former" { conversions.former = written } else { conversions.new = written }
        }
        let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&conversions.former), ["out.onnx", "out.onnx.data"]);
        assert_eq!(names(&conversions.new), ["out.onnx", "out.onnx.2.data"]);
        conversions
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    /// What converts one of the two models.
    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_isqrt-cov"));
        command.arg("convert").arg(self.folder.path().join(name).with_extension("onnx")).args(QUICK);
        command.arg("-o").arg(self.out().join("out.onnx"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    /// Puts the former output in place, and nothing else.
    fn reset(&self) {
        fs::remove_dir_all(self.out()).unwrap();
        fs::create_dir(self.out()).unwrap();
        for (name, content) in &self.former {
            fs::write(self.out().join(name), content).unwrap();
        }
    }

    /// What the folder holds: one of the two outputs, whole, with its data, and perhaps whole files without a name of
    /// their own.
    fn judge(&self) -> Found {
        let mut found = contents(&self.out());
        let model = &found["out.onnx"];
        let new = *model == self.new["out.onnx"];
        let expected = if new { &self.new } else { &self.former };
        for (name, content) in expected {
            assert!(
                found.remove(name).as_ref() == Some(content),
                "`{name}` is neither what it was nor whole"
            );
        }
        for (name, content) in &found {
            let whole = self.new.values().chain(self.former.values()).any(|whole| whole == content);
            assert!(whole, "`{name}` is left and is not whole");
        }
        let left = found.into_keys().collect();
        Found { new, left }
    }
}

/// Whether a process holds a file open in `folder` that has no name there.
fn is_writing(process: &Child, folder: &Path) -> bool {
    let Ok(open) = fs::read_dir(format!("/proc/{}/fd", process.id())) else { return false };
    let mut paths = open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    paths.any(|path| path.starts_with(folder) && path.to_string_lossy().ends_with(" (deleted)"))
}

/// Waits until the process has begun to write, or has ended.
fn wait_for_writing(process: &mut Child, folder: &Path) {
    while !is_writing(process, folder) && process.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_micros(200));
    }
}

#[test]
fn killed_at_random_the_former_output_is_intact_or_the_new_one_whole() {
    const KILLS: u32 = 200;
    const MOST_TURNS: u32 = 3 * KILLS;
    let conversions = Conversions::new(1 << 20);
    let out = conversions.out();
    let begins_to_write = cfg!(target_os = "linux");

    // How long it takes to begin to write, and from then on: at best, for other work may slow any of these.
    let (mut before, mut after) = (Duration::MAX, Duration::MAX);
    for _ in 0..3 {
        conversions.reset();
        let started = Instant::now();
        let mut process = conversions.command("new").spawn().unwrap();
        if begins_to_write {
            wait_for_writing(&mut process, &out);
        }
        let begun = if begins_to_write { started.elapsed() } else { Duration::ZERO };
        assert!(process.wait().unwrap().success());
        before = before.min(begun);
        after = after.min(started.elapsed().saturating_sub(begun));
    }

    let (mut killed, mut writing, mut replaced, mut left) = (0, 0, 0, Vec::new());
    for turn in 0..MOST_TURNS {
        if killed == KILLS {
            break;
        }
        conversions.reset();
        let mut process = conversions.command("new").spawn().unwrap();
        // The golden section spreads the moments evenly, however many there are.
        let moment = (f64::from(turn) * 0.618_033_988_749_895).fract();
        // One in four at any moment; the others while it writes, proves what it wrote, and names it.
        if turn % 4 == 0 || !begins_to_write {
            std::thread::sleep((before + after).mul_f64(moment));
        } else {
            wait_for_writing(&mut process, &out);
            std::thread::sleep(after.mul_f64(moment * 1.1));
        }
        let wrote = is_writing(&process, &out);
        process.kill().unwrap();
        if !process.wait().unwrap().success() {
            killed += 1;
            writing += u32::from(wrote);
        }
        let found = conversions.judge();
        replaced += u32::from(found.new);
        left.extend(found.left);
    }
    // Of a hundred thousand parts of a run, the one in which files get their names.
    let note = format!(
        "{killed} conversions killed, {writing} of them between the first byte written and the last; \
         {replaced} had replaced the former output; left over: {left:?}"
    );
    writeln!(std::io::stderr(), "{note}").unwrap();
    assert!(killed == KILLS && (writing >= KILLS / 8 || !begins_to_write), "{note}");
    assert!(left.len() <= 10, "{note}");
}

/// Every step of the naming, one after the other: strace kills the process as it enters the call.
#[test]
fn killed_at_any_step_the_former_output_is_intact_or_the_new_one_whole() {
    let traced = Command::new("strace").args(["-f", "-o", "/dev/null", "true"]).output();
    if !traced.is_ok_and(|traced| traced.status.success()) {
        writeln!(std::io::stderr(), "NOT TESTED: strace, which kills at a step, is missing or may not trace")
            .unwrap();
        return;
    }
    let conversions = Conversions::new(1 << 16);
    let mut steps = BTreeMap::new();
    let mut left = Vec::new();
    for calls in ["linkat", "rename,renameat,renameat2", "unlink,unlinkat", "fsync", "write,writev"] {
        for step in 1.. {
            conversions.reset();
            let command = conversions.command("new");
            let mut traced = Command::new("strace");
            traced.args(["-f", "-o", "/dev/null", "-e"]).arg(format!("trace={calls}"));
            traced.arg("-e").arg(format!("inject={calls}:signal=KILL:when={step}"));
            traced.arg(command.get_program()).args(command.get_args()).stdout(Stdio::null());
            let ran = traced.output().unwrap();
            let found = conversions.judge();
            left.extend(found.left.iter().map(|name| format!("{name} at {calls} {step}")));
            if ran.status.success() {
                assert!(found.new && found.left.is_empty());
                break;
            }
            *steps.entry(calls).or_insert(0) += 1;
        }
    }
    writeln!(std::io::stderr(), "killed at each of {steps:?} calls; left over: {left:?}").unwrap();
    assert!(steps["linkat"] == 3 && steps["rename,renameat,renameat2"] == 1, "{steps:?}");
    assert!(steps["fsync"] >= 2 && steps["write,writev"] >= 2, "{steps:?}");
}

#[test]
fn asked_to_end_it_leaves_nothing() {
    let conversions = Conversions::new(1 << 16);
    for signal in ["-INT", "-TERM", "-HUP"] {
        conversions.reset();
        let mut process = conversions.command("new").spawn().unwrap();
        if cfg!(target_os = "linux") {
            wait_for_writing(&mut process, &conversions.out());
        }
        let sent = Command::new("kill").arg(signal).arg(process.id().to_string()).status().unwrap();
        assert!(sent.success() || process.try_wait().unwrap().is_some());
        process.wait().unwrap();
        assert!(conversions.judge().left.is_empty());
    }
}

#[test]
fn beyond_a_limit_for_files_nothing_is_written() {
    let conversions = Conversions::new(1 << 18);
    let folder = conversions.folder.path();
    let (input, out) = (folder.join("new.onnx"), conversions.out());
    let [output, report, page] = ["out.onnx", "report.json", "page.html"].map(|name| out.join(name));
    let inline = folder.join("inline.onnx");
    let mut model = Model::load(&input).unwrap().inlined().unwrap();
    enlarge(&mut model);
    Model::new(model, "").save(&inline).unwrap();
    let limited = "trap '' XFSZ; ulimit -f \"$2\"; exec \"$1\" convert \"$3\" -o \"$4\" --seeds 1 ${5:+--report \"$5\"}";
    let none = PathBuf::new();
    // In units of 1024 bytes: what is limited is the data, the model, the model that has a larger one after it, or a report.
    for (limit, input, report, named) in [
        ("4", &input, &none, "out.onnx.data"),
        ("128", &input, &none, "out.onnx.data"),
        ("1", &graph(SMALL), &none, "out.onnx"),
        ("128", &inline, &none, "out.onnx"),
        ("16", &graph(SMALL), &page, "page.html"),
        ("1", &input, &report, "out.onnx"),
    ] {
        conversions.reset();
        let arguments = [limit.as_ref(), input.as_ref(), output.as_ref(), report.as_ref()];
        let ran = bash(limited, &arguments);
        assert_eq!(status(&ran), 2, "{limit}: {ran:?}");
        let text = error_text(&ran);
        assert!(text.starts_with("error: ") && text.contains(named), "{limit}: {text}");
        assert!(text.contains("File too large"), "{limit}: {text}");
        assert_eq!(contents(&out), conversions.former, "{limit}");
    }
    // Where the signal is not ignored, the system ends the process.
    let ended =
        bash(&limited.replace("trap '' XFSZ; ", ""), &["4".as_ref(), input.as_ref(), output.as_ref()]);
    assert_eq!(ended.status.code(), None, "{ended:?}");
    assert_eq!(contents(&out), conversions.former);
}

/// Adds a tensor that makes a file of the model larger than any other here.
fn enlarge(model: &mut ModelProto) {
    let tensor = TensorProto::from_values("larger", &[1 << 17], &vec![1.0_f32; 1 << 17]);
    model.graph.as_mut().unwrap().initializer.push(tensor);
}

/// A filesystem of a few pages, of which the former output takes a part.
#[test]
fn out_of_disk_the_former_output_is_intact() {
    // $1 the program, $2 the size, $3 where, $4 a folder with what is there before, $5 the input, $6 the output, $7 a report.
    let script = r#"exec unshare -rm bash -c '
        mount -t tmpfs -o size="$2" none "$3" && cp "$4"/* "$3" || exit 99
        if [[ $5 ]]; then "$1" convert "$5" -o "$6" --seeds 1 ${7:+--report "$7"}; fi
        code=$?
        ls -A "$3"
        for file in "$4"/*; do cmp -s "$file" "$3/${file##*/}" || echo "changed: $file"; done
        exit $code' bash "$@""#;
    let conversions = Conversions::new(1 << 16);
    let folder = conversions.folder.path();
    let (former, disk) = (conversions.out(), folder.join("disk"));
    fs::create_dir(&disk).unwrap();
    conversions.reset();
    let run = |pages: usize, input: &Path, output: &Path, report: &Path| {
        let size = format!("{}k", 4 * pages);
        bash(script, &[Path::new(&size), &disk, &former, input, output, report].map(Path::as_os_str))
    };
    let none = Path::new("");
    if !run(1000, none, none, none).status.success() {
        writeln!(std::io::stderr(), "NOT TESTED: out of disk, because no small filesystem can be mounted")
            .unwrap();
        return;
    }
    let (external, elsewhere) = (folder.join("new.onnx"), folder.join("elsewhere.onnx"));
    let (on_disk, page) = (disk.join("out.onnx"), disk.join("page.html"));
    let pages_of = |files: &BTreeMap<String, Vec<u8>>| -> usize {
        files.values().map(|content| content.len().div_ceil(4096)).sum::<usize>()
    };
    let (full, enough) = (pages_of(&conversions.former), pages_of(&conversions.new) + 16);
    let mut refused = Vec::new();
    for room in [1, 8, 15, 16, enough] {
        let ran = run(full + room, &external, &on_disk, none);
        let listed = String::from_utf8_lossy(&ran.stdout).into_owned();
        let text = error_text(&ran);
        if room == enough {
            assert_eq!(status(&ran), 0, "{ran:?}");
            assert!(listed.contains("\nout.onnx\nout.onnx.2.data\n"), "{listed}");
            continue;
        }
        assert_eq!(status(&ran), 2, "{room}: {ran:?}");
        assert_eq!(listed, "out.onnx\nout.onnx.data\n", "{room}");
        assert!(text.starts_with("error: ") && text.contains("No space left on device"), "{room}: {text}");
        refused.extend(["out.onnx.data: ", "out.onnx: "].into_iter().find(|name| text.contains(name)));
    }
    refused.dedup();
    assert_eq!(refused, ["out.onnx.data: ", "out.onnx: "], "the data did not fit, then the model did not");

    let ran = run(full + 2, &graph(SMALL), &elsewhere, &page);
    assert_eq!(status(&ran), 2, "{ran:?}");
    assert!(error_text(&ran).contains("page.html: cannot be written"), "{ran:?}");
    assert_eq!(String::from_utf8_lossy(&ran.stdout).lines().count(), 2, "{ran:?}");
    assert!(!elsewhere.exists(), "without its report the model is not written either");
    assert!(
        files(&conversions.folder).iter().all(|name| !name.starts_with('.')),
        "{:?}",
        files(&conversions.folder)
    );
}

/// Runs `command`, and does `change` as soon as it has mapped the file of this name.
#[cfg(target_os = "linux")]
fn changed_while_read(mut command: Command, mapped: &str, change: impl FnOnce()) -> Output {
    let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
    let maps = format!("/proc/{}/maps", process.id());
    let is_mapped = || fs::read_to_string(&maps).is_ok_and(|maps| maps.contains(mapped));
    while !is_mapped() && process.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_micros(200));
    }
    // The layer is looked for before the weights are looked at.
    change();
    process.wait_with_output().unwrap()
}

/// Who replaces a file, as this program does, leaves those who read it the old one; who writes into it does not.
#[cfg(target_os = "linux")]
#[test]
fn an_input_that_is_replaced_is_read_as_it_was() {
    let conversions = Conversions::new(1 << 20);
    let weights = conversions.folder.path().join("new.onnx.data");
    let (whole, other) = (fs::read(&weights).unwrap(), vec![3; 1 << 20]);
    conversions.reset();
    let replacement = conversions.folder.path().join("replacement");
    fs::write(&replacement, &other).unwrap();
    let replace = || fs::rename(&replacement, &weights).unwrap();
    let ran = changed_while_read(conversions.command("new"), "new.onnx.data", replace);
    assert_eq!(status(&ran), 0, "{ran:?}");
    assert!(conversions.judge().new);

    conversions.reset();
    fs::write(&weights, &whole).unwrap();
    let ran = changed_while_read(conversions.command("new"), "new.onnx.data", || {
        std::os::unix::fs::FileExt::write_all_at(
            &fs::OpenOptions::new().write(true).open(&weights).unwrap(),
            &other,
            0,
        )
        .unwrap();
    });
    if status(&ran) == 0 {
        // Each byte is one that was there.
        let model = Model::load(conversions.out().join("out.onnx")).unwrap().inlined().unwrap();
        let large = model.graph.unwrap().initializer.into_iter().find(|tensor| tensor.name() == "large");
        assert!(large.unwrap().raw_data().iter().all(|byte| [2, 3].contains(byte)));
    } else {
        assert_eq!(status(&ran), 2, "{ran:?}");
        assert_eq!(contents(&conversions.out()), conversions.former);
    }
}

/// Weights are mapped: what is cut off of their file while they are read would end the process with a signal.
#[cfg(target_os = "linux")]
#[test]
fn an_input_that_becomes_shorter_is_an_error() {
    let conversions = Conversions::new(1 << 20);
    let weights = conversions.folder.path().join("new.onnx.data");
    let whole = fs::read(&weights).unwrap();
    for json in [false, true] {
        conversions.reset();
        fs::write(&weights, &whole).unwrap();
        let mut command = conversions.command("new");
        if json {
            command.arg("--json");
        }
        let ran = changed_while_read(command, "new.onnx.data", || {
            fs::OpenOptions::new().write(true).open(&weights).unwrap().set_len(4096).unwrap();
        });
        assert_eq!(status(&ran), 2, "{ran:?}");
        let said = if json {
            object(&ran)["message"].as_str().unwrap().to_owned()
        } else {
            error_text(&ran).to_owned()
        };
        assert!(said.contains("new.onnx.data: became shorter while it was read"), "{said}");
        assert_eq!(contents(&conversions.out()), conversions.former);
    }
}

#[test]
fn the_same_conversion_again_leaves_the_model_its_data() {
    let conversions = Conversions::new(1 << 16);
    for name in ["out.onnx", "./out.onnx"] {
        for _ in 0..2 {
            let mut command = Command::new(env!("CARGO_BIN_EXE_isqrt-cov"));
            command.current_dir(conversions.out()).arg("convert").arg("../former.onnx").args(QUICK);
            let ran = command.args(["-o", name]).output().unwrap();
            assert_eq!(status(&ran), 0, "{ran:?}");
            let data = contents(&conversions.out()).into_iter().filter(|(name, _)| name.contains("data"));
            let data: Vec<_> = data.map(|(_, content)| content).collect();
            assert_eq!(data, [vec![1; 1 << 16]], "-o {name}");
            Model::load(conversions.out().join(name)).unwrap().inlined().unwrap();
        }
    }
}

/// Nobody writes to a filesystem that is only read, whoever they are.
#[test]
fn a_disk_that_is_only_read_stays_as_it_is() {
    // $1 the program, $2 where, $3 a folder with what is there before, $4 the input.
    let script = r#"exec unshare -rm bash -c '
        mount -t tmpfs none "$2" && cp "$3"/* "$2" && mount -o remount,ro "$2" || exit 99
        "$1" convert "$4" -o "$2/out.onnx" --seeds 1
        code=$?
        diff -r "$2" "$3" || exit 98
        exit $code' bash "$@""#;
    let conversions = Conversions::new(1 << 16);
    let (former, disk) = (conversions.out(), conversions.folder.path().join("disk"));
    fs::create_dir(&disk).unwrap();
    conversions.reset();
    let input = conversions.folder.path().join("new.onnx");
    let ran = bash(script, &[&disk, &former, &input].map(|path| path.as_os_str()));
    if [Some(99), Some(1)].contains(&ran.status.code()) {
        writeln!(std::io::stderr(), "NOT TESTED: a disk that is only read, because none can be mounted")
            .unwrap();
        return;
    }
    assert_eq!(status(&ran), 2, "{ran:?}");
    let text = error_text(&ran);
    assert!(text.contains("out.onnx") && text.contains("Read-only file system"), "{text}");
}
