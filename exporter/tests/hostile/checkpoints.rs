//! The committed files: checkpoints of `torch.save` and safetensors.

use std::fs;
use std::fs::File;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{Case, Given, corpus};

fn folder() -> PathBuf {
    corpus().join("checkpoints/hostile")
}

/// What files stand for, by the beginnings of their names; the first that fits counts.
const BEGINNINGS: &[(&str, &str)] = &[
    (
        "path traversal",
        "storage_outside sharded/parent sharded/dot sharded/back sharded/below sharded/slash \
         sharded/nameless",
    ),
    ("absolute paths", "storage_of_root sharded/absolute"),
    (
        "negative dimensions",
        "dims_negative stride_negative offset_negative storage_negative legacy_negative \
         shape_negative offsets_negative offsets_backwards",
    ),
    (
        "overflowing dimensions",
        "dims_ stride_overflow expanded many_dims shape_ legacy_view legacy_beyond \
         tensor_beyond offset_beyond few_strides",
    ),
    (
        "huge lengths",
        "length_ storage_of_2 legacy_huge text_of_2 bytes_of_2 long_of text_beyond \
         frame_beyond offsets_beyond beyond_file header_beyond directory_beyond",
    ),
    ("deep nesting", "deep_ list_of_itself dict_of_itself zip_in_zip"),
    (
        "duplicate names",
        "duplicate twice two_names two_pickles same_offsets legacy_storage_twice \
         sharded/twice sharded/two_maps sharded/in_two",
    ),
    ("names that control the terminal, or have no end", "harm_escape endless_name"),
    ("pickle gadgets", "harm_ legacy_harm listed_ whole_module extension call_ script program id_of"),
    ("compression bombs", "compressed memo_bomb overlapping"),
    (
        "truncated",
        "truncated_ legacy_truncated header_truncated data_truncated empty. no_stop \
         legacy_short storage_short sharded/missing absent_storage no_data legacy_no_storage",
    ),
    (
        "archives that say two things",
        "header_ two_sizes zip64_ fewer more_entries other_disk directory_ comment checksum \
         encrypted magic nothing_in_it arrays tar big_endian zip_as legacy_ sharded/ not_json \
         json_then data_surplus hole float8 unknown_type",
    ),
];

/// What a file stands for.
fn item(file: &str) -> &'static str {
    let fits = |names: &str| names.split_whitespace().any(|name| file.starts_with(name));
    BEGINNINGS.iter().find(|(_, names)| fits(names)).map_or("pickles that are damaged", |(item, _)| item)
}

pub fn cases() -> Vec<Case> {
    let said: Map<String, Value> =
        serde_json::from_reader(File::open(folder().join("cases.json")).unwrap()).unwrap();
    assert!(said.len() > 150);
    let mut cases = Vec::new();
    for (file, said) in said {
        let said = said.as_str().unwrap().to_owned();
        let item = item(&file);
        let name = file.clone();
        // In a folder of its own, where it is seen what else is there afterwards.
        let make = move |to: &Path| {
            let from = folder().join(&file);
            for shard in fs::read_dir(folder().join("sharded")).unwrap().map(|entry| entry.unwrap().path()) {
                if file.starts_with("sharded/") {
                    fs::copy(&shard, to.join(shard.file_name().unwrap())).unwrap();
                }
            }
            let input = to.join(from.file_name().unwrap());
            fs::copy(from, &input).unwrap();
            Given::input(input)
        };
        cases.push(Case { item, name, said, make: Box::new(make) });
    }
    cases.push(linked_shard("symlinked parents", "leads out of the folder", |to, at| {
        std::os::unix::fs::symlink(to, at)
    }));
    cases.push(linked_shard("hard links", "is a hard link", |to, at| fs::hard_link(to, at)));
    cases
}

/// An index whose shard is made by `link`, which leads to a file in another folder.
fn linked_shard(item: &'static str, said: &str, link: fn(&Path, &Path) -> std::io::Result<()>) -> Case {
    Case {
        item,
        name: format!("shard among {item}"),
        said: format!("file `one.safetensors` {said}"),
        make: Box::new(move |to| {
            let (inside, shard) = (to.join("inside"), to.join("one.safetensors"));
            fs::create_dir(&inside).unwrap();
            fs::copy(folder().join("sharded/one.safetensors"), &shard).unwrap();
            link(&shard, &inside.join("one.safetensors")).unwrap();
            let index = inside.join("model.safetensors.index.json");
            fs::write(&index, r#"{"weight_map": {"one": "one.safetensors"}}"#).unwrap();
            Given::input(index)
        }),
    }
}

/// Files of some hundred kilobytes whose names have modules in modules without end. Of no known architecture is one of two
/// right answers.
pub fn nested_names() -> Vec<Case> {
    let nested = |name: &str, tensors: usize, modules: usize| Case {
        item: "little that computes for long",
        name: name.to_owned(),
        said: String::new(),
        make: Box::new(move |to| {
            let path = to.join("nested.safetensors");
            let entry = |index: usize| {
                let at = [4 * index, 4 * index + 4];
                let name = "a.".repeat(modules);
                format!(r#""{name}w{index}": {{"dtype": "F32", "shape": [1], "data_offsets": {at:?}}}"#)
            };
            let header = format!("{{{}}}", (0..tensors).map(entry).collect::<Vec<_>>().join(", "));
            let mut file = (header.len() as u64).to_le_bytes().to_vec();
            file.extend(header.as_bytes());
            file.resize(file.len() + 4 * tensors, 0);
            fs::write(&path, file).unwrap();
            Given::input(path)
        }),
    };
    vec![
        nested("one name of 50000 modules", 1, 50_000),
        nested("100 names of 2000 modules", 100, 2000),
        nested("16000 names of 20 modules", 16_000, 20),
    ]
}

#[test]
fn every_file_is_a_case() {
    let cases = cases();
    for entry in fs::read_dir(folder()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let helper = matches!(name.as_str(), "make.py" | "cases.json" | "sharded");
        assert!(helper || cases.iter().any(|case| case.name == name), "{name}");
    }
}
