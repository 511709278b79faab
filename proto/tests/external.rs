//! Data in other files: read where it is honest, refused where it reaches out.

use std::fs::{self, File};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use isqrt_cov_proto::onnx::{GraphProto, ModelProto, StringStringEntryProto, TensorProto};
use isqrt_cov_proto::{Error, Model};
use prost::Message as _;
use tempfile::{TempDir, tempdir};

/// A tensor's dims and its entries of `external_data`.
type External<'a> = (&'a [i64], &'a [(&'a str, &'a str)]);

/// A model of float32 tensors with the given dims and `external_data` entries, as if at `folder/model.onnx`.
fn model(folder: &Path, tensors: &[External<'_>]) -> Model {
    let entry = |(key, value): &(&str, &str)| StringStringEntryProto {
        key: Some((*key).to_owned()),
        value: Some((*value).to_owned()),
    };
    let tensor = |(index, (dims, entries)): (usize, &External<'_>)| TensorProto {
        name: Some(format!("w{index}")),
        dims: dims.to_vec(),
        data_type: Some(1),
        data_location: Some(1),
        external_data: entries.iter().map(entry).collect(),
        ..TensorProto::default()
    };
    let graph =
        GraphProto { initializer: tensors.iter().enumerate().map(tensor).collect(), ..GraphProto::default() };
    let proto = ModelProto::new(graph, 17);
    Model::new(proto, folder.join("model.onnx"))
}

fn read(model: &Model, index: usize) -> Result<Vec<f32>, Error> {
    let tensor = &model.proto.graph.as_ref().unwrap().initializer[index];
    model.tensor(tensor).map(|data| data.values().unwrap())
}

/// A folder `models` with a data file of the numbers 0 to 2047, beside a `secret` outside it.
fn folder() -> (TempDir, PathBuf) {
    let outside = tempdir().unwrap();
    fs::write(outside.path().join("secret"), [7; 8192]).unwrap();
    let folder = outside.path().join("models");
    fs::create_dir(&folder).unwrap();
    let numbers: Vec<u8> = (0..2048).flat_map(|number| (number as f32).to_le_bytes()).collect();
    fs::write(folder.join("weights"), numbers).unwrap();
    (outside, folder)
}

/// What reading a tensor of two numbers with these entries says.
fn refusal(folder: &Path, entries: &[(&str, &str)]) -> String {
    read(&model(folder, &[(&[2], entries)]), 0).unwrap_err().to_string()
}

#[test]
fn ranges_are_read_from_where_they_are() {
    let (_outside, folder) = folder();
    fs::create_dir(folder.join("sub")).unwrap();
    fs::copy(folder.join("weights"), folder.join("sub/weights")).unwrap();
    let model = model(
        &folder,
        &[
            (&[2], &[("location", "weights"), ("offset", "4096"), ("length", "8")]),
            (&[2, 1], &[("location", "sub/weights"), ("checksum", "abc"), ("prepacked_0", "x|1|2")]),
            (&[0], &[("location", "weights"), ("offset", "8192"), ("length", "0")]),
        ],
    );
    assert_eq!(read(&model, 0).unwrap(), [1024.0, 1025.0]);
    assert_eq!(read(&model, 1).unwrap(), [0.0, 1.0]);
    assert_eq!(read(&model, 2).unwrap(), [0.0; 0]);
    let inlined = model.inlined().unwrap().graph.unwrap();
    assert_eq!(inlined.initializer[0].raw_data().len(), 8);
    assert!(inlined.initializer[0].external_data.is_empty());
}

#[test]
fn locations_that_reach_out_are_refused() {
    let (outside, folder) = folder();
    let absolute = outside.path().join("secret");
    let absolute = absolute.to_str().unwrap();
    for location in ["../secret", "sub/../../secret", "./weights", "..", "", "/", absolute] {
        let error = refusal(&folder, &[("location", location)]);
        assert!(error.contains("model.onnx: tensor `w0`"), "{error}");
        assert!(error.contains("is not a plain relative path"), "{location}: {error}");
    }
    for location in ["missing", "weights/", "sub\0weights", "weights/deeper"] {
        let error = refusal(&folder, &[("location", location)]);
        assert!(error.contains("cannot be read"), "{location}: {error}");
    }
    fs::create_dir(folder.join("directory")).unwrap();
    assert!(refusal(&folder, &[("location", "directory")]).contains("is not a regular file"));
}

#[cfg(unix)]
#[test]
fn links_out_are_refused() {
    use std::os::unix::fs::symlink;

    let (outside, folder) = folder();
    symlink(outside.path().join("secret"), folder.join("absolute")).unwrap();
    symlink("../secret", folder.join("relative")).unwrap();
    symlink(outside.path(), folder.join("up")).unwrap();
    symlink("absolute", folder.join("twice")).unwrap();
    for location in ["absolute", "relative", "up/secret", "twice"] {
        let error = refusal(&folder, &[("location", location)]);
        assert!(error.contains("leads out of the folder"), "{location}: {error}");
    }
    symlink("loop", folder.join("loop")).unwrap();
    assert!(refusal(&folder, &[("location", "loop")]).contains("cannot be read"));

    fs::hard_link(outside.path().join("secret"), folder.join("hard")).unwrap();
    assert!(refusal(&folder, &[("location", "hard")]).contains("is a hard link"));

    symlink("weights", folder.join("alias")).unwrap();
    assert_eq!(read(&model(&folder, &[(&[2], &[("location", "alias")])]), 0).unwrap(), [0.0, 1.0]);
}

#[cfg(unix)]
#[test]
fn pipes_and_devices_are_refused_without_waiting() {
    let (_outside, folder) = folder();
    let made = std::process::Command::new("mkfifo").arg(folder.join("pipe")).status().unwrap();
    assert!(made.success());
    assert!(refusal(&folder, &[("location", "pipe")]).contains("is not a regular file"));
}

#[test]
fn ranges_stay_inside_the_file() {
    let (_outside, folder) = folder();
    let at = |offset: &str, length: &str| {
        refusal(&folder, &[("location", "weights"), ("offset", offset), ("length", length)])
    };
    assert!(at("8188", "8").contains("offset 8188 and length 8 end outside the file; it has 8192 bytes"));
    assert!(at("18446744073709551615", "8").contains("end outside the file"));
    assert!(
        at("18446744073709551616", "8")
            .contains("offset is `18446744073709551616`; expected a decimal number")
    );
    for offset in ["-8", "+8", " 8", "0x8", "8.0", ""] {
        assert!(at(offset, "8").contains("expected a decimal number"), "{offset}");
    }
    assert!(at("0", "4").contains("external_data holds 4 bytes; expected 8 for FLOAT [2]"));
    assert!(at("0", "8192").contains("external_data holds 8192 bytes; expected 8 for FLOAT [2]"));
    assert!(refusal(&folder, &[("offset", "0")]).contains("location is missing"));
    let twice = refusal(&folder, &[("location", "weights"), ("location", "../secret")]);
    assert!(twice.contains("location is given twice"), "{twice}");
    let huge = model(&folder, &[(&[1 << 40], &[("location", "weights")])]);
    assert!(read(&huge, 0).unwrap_err().to_string().contains("end outside the file"));
}

#[test]
fn files_beyond_two_gibibytes_are_mapped() {
    let (_outside, folder) = folder();
    let offset = (5_u64 << 30) + 4096;
    let mut file = File::create(folder.join("large")).unwrap();
    file.set_len(offset + 8).unwrap();
    file.seek(SeekFrom::Start(offset)).unwrap();
    file.write_all(&[0, 0, 0x80, 0x3f, 0, 0, 0, 0x40]).unwrap();
    drop(file);
    let offset = offset.to_string();
    let elements = (3_i64 << 30) / 4;
    let model = model(
        &folder,
        &[
            (&[2], &[("location", "large"), ("offset", &offset), ("length", "8")]),
            (&[elements], &[("location", "large")]),
        ],
    );
    assert_eq!(read(&model, 0).unwrap(), [1.0, 2.0]);
    let tensor = &model.proto.graph.as_ref().unwrap().initializer[1];
    assert_eq!(model.tensor(tensor).unwrap().bytes().len() as u64, 3 << 30);
}

#[test]
fn external_data_stays_external() {
    let (outside, folder) = folder();
    let first: &[(&str, &str)] = &[("location", "weights"), ("offset", "4096")];
    let original = model(&folder, &[(&[2], first), (&[3], &[("location", "weights")]), (&[2], first)]);
    let output = outside.path().join("out.onnx");
    original.save(&output).unwrap();

    let copy = Model::load(&output).unwrap();
    for index in 0..3 {
        assert_eq!(read(&copy, index).unwrap(), read(&original, index).unwrap());
    }
    let tensors = &copy.proto.graph.as_ref().unwrap().initializer;
    let entries = |index: usize| -> Vec<&str> {
        tensors[index].external_data.iter().map(StringStringEntryProto::value).collect()
    };
    assert_eq!(entries(0), ["out.onnx.data", "0", "8"]);
    assert_eq!(entries(1), ["out.onnx.data", "64", "12"]);
    assert_eq!(entries(2), entries(0), "a range that two tensors share is written once");
    assert_eq!(fs::metadata(outside.path().join("out.onnx.data")).unwrap().len(), 64 + 12);
}

#[test]
fn a_staged_model_is_whole_and_vanishes_unless_committed() {
    let (outside, folder) = folder();
    let original = model(&folder, &[(&[2], &[("location", "weights")])]);
    let before = names(outside.path());
    let staged = original.stage(outside.path().join("out.onnx")).unwrap();
    let found = staged.read_back().unwrap();
    assert_eq!(found, original.inlined().unwrap());
    assert_eq!(names(outside.path()), before);
    drop(staged);
    assert_eq!(names(outside.path()), before);
}

#[test]
fn the_input_is_never_written_over() {
    let (_outside, folder) = folder();
    let output = folder.join("model.onnx");
    model(&folder, &[(&[2], &[("location", "weights")])]).save(&output).unwrap();
    let before = names(&folder);

    let loaded = Model::load(&output).unwrap();
    for same in ["model.onnx", "../models/model.onnx", "model.onnx.data"] {
        let error = loaded.save(folder.join(same)).unwrap_err();
        assert!(matches!(error, Error::OverInput { .. }), "{error}");
    }
    assert_eq!(names(&folder), before);
}

#[test]
fn data_never_takes_the_place_of_other_data() {
    let (_outside, folder) = folder();
    let output = folder.join("out.onnx");
    let tensor: &[(&str, &str)] = &[("location", "weights"), ("length", "8")];
    let other: &[(&str, &str)] = &[("location", "weights"), ("offset", "4096")];
    let save = |entries: &[(&str, &str)]| model(&folder, &[(&[2], entries)]).save(&output).unwrap();
    let numbers = || read(&Model::load(&output).unwrap(), 0).unwrap();
    save(tensor);
    let first = fs::read(&output).unwrap();
    save(tensor);
    assert_eq!(fs::read(&output).unwrap(), first, "the same data is not written twice");
    assert_eq!(names(&folder), ["out.onnx", "out.onnx.data", "weights"]);
    // What is replaced goes with its data, whichever of the names that has.
    save(other);
    assert_eq!(numbers(), [1024.0, 1025.0]);
    assert_eq!(names(&folder), ["out.onnx", "out.onnx.2.data", "weights"]);
    save(tensor);
    assert_eq!(numbers(), [0.0, 1.0]);
    assert_eq!(names(&folder), ["out.onnx", "out.onnx.data", "weights"]);

    // Data that the model there does not refer to is somebody else's.
    fs::write(folder.join("out.onnx.2.data"), "own").unwrap();
    save(other);
    assert_eq!(numbers(), [1024.0, 1025.0]);
    assert_eq!(names(&folder), ["out.onnx", "out.onnx.2.data", "out.onnx.3.data", "weights"]);
    fs::write(folder.join("out.onnx.data"), "own").unwrap();
    model(&folder, &[]).save(&output).unwrap();
    assert_eq!(names(&folder), ["out.onnx", "out.onnx.2.data", "out.onnx.data", "weights"]);
}

/// Of what has the name already, only the same data is as good as one's own.
#[test]
fn only_the_same_data_is_shared() {
    let numbers = |count: u16| (0..count).map(f32::from).flat_map(f32::to_le_bytes).collect::<Vec<u8>>();
    let tensor: &[(&str, &str)] = &[("location", "weights"), ("length", "8")];
    let (_outside, folder) = folder();
    let (output, data) = (folder.join("out.onnx"), folder.join("out.onnx.data"));
    // Something takes the name while the model is written.
    for (found, is_same) in [(numbers(2), true), (numbers(3), false), (vec![1; 8], false)] {
        let staged = model(&folder, &[(&[2], tensor)]).stage(&output).unwrap();
        fs::write(&data, &found).unwrap();
        assert_eq!(staged.commit().is_ok(), is_same);
        assert_eq!((output.exists(), fs::read(&data).unwrap()), (is_same, found));
        fs::remove_file(&data).unwrap();
        let _ = fs::remove_file(&output);
    }
    fs::write(&data, numbers(3)).unwrap();
    model(&folder, &[(&[2], tensor)]).save(&output).unwrap();
    assert_eq!(names(&folder), ["out.onnx", "out.onnx.2.data", "out.onnx.data", "weights"]);
    #[cfg(unix)]
    {
        fs::write(folder.join("samesame"), numbers(2)).unwrap();
        fs::remove_file(&data).unwrap();
        std::os::unix::fs::symlink("samesame", &data).unwrap();
        fs::remove_file(folder.join("out.onnx.2.data")).unwrap();
        model(&folder, &[(&[2], tensor)]).save(&output).unwrap();
        assert!(folder.join("out.onnx.2.data").exists(), "a link is no data of one's own");
    }
}

/// A page for each would make of a small pair of files a large one.
#[test]
fn small_tensors_share_a_page() {
    let (_outside, folder) = folder();
    let offsets: Vec<String> = (0..1000).map(|index| (4 * index).to_string()).collect();
    let entries: Vec<[(&str, &str); 2]> =
        offsets.iter().map(|offset| [("location", "weights"), ("offset", offset)]).collect();
    let tensors: Vec<External<'_>> = entries.iter().map(|entries| (&[1][..], &entries[..])).collect();
    let output = folder.join("out.onnx");
    model(&folder, &tensors).save(&output).unwrap();
    assert_eq!(folder.join("out.onnx.data").metadata().unwrap().len(), 64 * 999 + 4);
    let saved = Model::load(&output).unwrap();
    assert!((0..1000).all(|index| read(&saved, index).unwrap() == [index as f32]));
}

/// Nor what a file says is its own though nothing here would have called it so.
#[test]
fn a_mark_gives_no_leave_to_remove_other_files() {
    for location in ["weights", "out.onnx.02.data"] {
        let (_outside, folder) = folder();
        let (output, data) = (folder.join("out.onnx"), folder.join(location));
        fs::write(&data, [0; 8]).unwrap();
        let mut theirs = model(&folder, &[(&[2], &[("location", location)])]).proto;
        theirs.metadata_props.push(StringStringEntryProto {
            key: Some("isqrt_cov.data".to_owned()),
            value: Some(location.to_owned()),
        });
        fs::write(&output, theirs.encode_to_vec()).unwrap();
        let staged = model(&folder, &[]).stage(&output).unwrap();
        assert_eq!(staged.leaves(), std::slice::from_ref(&data));
        staged.commit().unwrap();
        assert!(data.exists(), "{location}");
    }
}

/// Whoever wrote it may have given it to other models, too.
#[test]
fn data_that_was_not_written_here_is_left() {
    let (_outside, folder) = folder();
    let (output, data) = (folder.join("out.onnx"), folder.join("out.onnx.data"));
    fs::copy(folder.join("weights"), &data).unwrap();
    let entries: &[(&str, &str)] = &[("location", "out.onnx.data"), ("length", "8")];
    let theirs = model(&folder, &[(&[2], entries), (&[2], entries)]);
    fs::write(&output, theirs.proto.encode_to_vec()).unwrap();
    fs::copy(&output, folder.join("backup.onnx")).unwrap();
    // What the input needs is not left over.
    let backup = Model::load(folder.join("backup.onnx")).unwrap();
    assert_eq!(backup.stage(&output).unwrap().leaves(), [] as [PathBuf; 0]);
    let ours = model(&folder, &[(&[2], &[("location", "weights"), ("offset", "4096")])]);
    let staged = ours.stage(&output).unwrap();
    assert_eq!(staged.leaves(), [data]);
    staged.commit().unwrap();
    assert_eq!(read(&Model::load(folder.join("backup.onnx")).unwrap(), 0).unwrap(), [0.0, 1.0]);
    // So is what was written here where a copy names it.
    fs::copy(&output, folder.join("copy.onnx")).unwrap();
    let own = folder.join("out.onnx.2.data");
    let next = model(&folder, &[(&[2], &[("location", "weights"), ("offset", "64")])]);
    assert_eq!(next.stage(&output).unwrap().leaves(), std::slice::from_ref(&own));
    fs::write(folder.join("copy.onnx"), "may be a model").unwrap();
    assert_eq!(next.stage(&output).unwrap().leaves(), [own]);
    fs::remove_file(folder.join("copy.onnx")).unwrap();
    fs::copy(&output, folder.join("out.onnx.bak")).unwrap();
    assert_eq!(next.stage(&output).unwrap().leaves(), [folder.join("out.onnx.2.data")]);
    fs::remove_file(folder.join("out.onnx.bak")).unwrap();
    fs::write(folder.join("notes.txt"), "no model").unwrap();
    assert_eq!(next.stage(&output).unwrap().leaves(), [] as [PathBuf; 0]);
    fs::remove_file(folder.join("notes.txt")).unwrap();
    // Else it goes, and is not told of; and what a model without data says of none is gone.
    let staged = ours.stage(&output).unwrap();
    assert_eq!(staged.leaves(), [] as [PathBuf; 0]);
    staged.commit().unwrap();
    let loaded = Model::load(&output).unwrap();
    assert_eq!(loaded.proto.metadata_props.len(), 1);
    loaded.save(folder.join("again.onnx")).unwrap();
    let again = Model::load(folder.join("again.onnx")).unwrap().proto.metadata_props;
    assert_eq!((again.len(), again[0].value()), (1, "again.onnx.data"));
    for name in ["again.onnx", "again.onnx.data"] {
        fs::remove_file(folder.join(name)).unwrap();
    }
    let inlined = Model::new(loaded.inlined().unwrap(), "inlined.onnx");
    inlined.save(&output).unwrap();
    assert_eq!(Model::load(&output).unwrap().proto.metadata_props, []);
    assert_eq!(names(&folder), ["backup.onnx", "out.onnx", "out.onnx.data", "weights"]);
}

#[test]
fn data_that_the_input_needs_stays() {
    let (_outside, folder) = folder();
    let output = folder.join("out.onnx");
    model(&folder, &[(&[2], &[("location", "weights")])]).save(&output).unwrap();
    fs::copy(&output, folder.join("copy.onnx")).unwrap();
    let copy = Model::load(folder.join("copy.onnx")).unwrap();
    copy.save(&output).unwrap();
    assert_eq!(names(&folder), ["copy.onnx", "out.onnx", "out.onnx.2.data", "out.onnx.data", "weights"]);
    for name in ["copy.onnx", "out.onnx"] {
        assert_eq!(read(&Model::load(folder.join(name)).unwrap(), 0).unwrap(), [0.0, 1.0], "{name}");
    }
}

#[test]
fn a_failure_leaves_nothing_behind() {
    let (outside, folder) = folder();
    let before = names(outside.path());
    let good: &[(&str, &str)] = &[("location", "weights")];
    let bad = model(&folder, &[(&[2], good), (&[2], &[("location", "missing")])]);
    assert!(bad.save(outside.path().join("out.onnx")).is_err());
    assert_eq!(names(outside.path()), before);

    // The data can take its place, the model cannot.
    let destination = outside.path().join("directory");
    fs::create_dir(&destination).unwrap();
    fs::write(destination.join("full"), "").unwrap();
    fs::write(outside.path().join("directory.data"), "former").unwrap();
    let before = names(outside.path());
    let error = model(&folder, &[(&[2], good)]).save(&destination).unwrap_err().to_string();
    assert!(error.contains("directory: cannot be written"), "{error}");
    assert_eq!(names(outside.path()), before);
    assert_eq!(fs::read(outside.path().join("directory.data")).unwrap(), b"former");

    let error = model(&folder, &[]).save(outside.path().join("no/such/folder.onnx")).unwrap_err();
    assert!(matches!(error, Error::Write { .. }));
}

#[test]
fn overlapping_ranges_cannot_fill_the_disk() {
    let (outside, folder) = folder();
    let offsets: Vec<String> = (0..100).map(|index| (index * 4).to_string()).collect();
    let entries: Vec<[(&str, &str); 2]> =
        offsets.iter().map(|offset| [("location", "weights"), ("offset", offset.as_str())]).collect();
    let tensors: Vec<External<'_>> = entries.iter().map(|entries| (&[1900][..], &entries[..])).collect();
    let error = model(&folder, &tensors).save(outside.path().join("out.onnx")).unwrap_err().to_string();
    assert!(error.contains("overlaps"), "{error}");
}

fn names(folder: &Path) -> Vec<std::ffi::OsString> {
    let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}
