//! `docs/Json.md` says what is printed.

use std::collections::BTreeSet;

use super::*;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The words in code type in the part of the page under a heading.
fn documented(heading: &str) -> BTreeSet<String> {
    let page = std::fs::read_to_string(root().join("docs/Json.md")).unwrap();
    let parts: Vec<&str> = page.split("\n## ").collect();
    let part = if heading.is_empty() {
        parts[0]
    } else {
        parts
            .iter()
            .find(|part| part.starts_with(&format!("{heading}\n")))
            .unwrap_or_else(|| panic!("{heading}"))
    };
    part.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The names of all fields of an answer, at whatever depth.
fn fields(answer: &Value) -> BTreeSet<String> {
    // What is in these goes by the names of attributes, domains, checks, steps of the work, and what a file says.
    const OWN_NAMES: [&str; 6] = ["attributes", "closest_attributes", "opsets", "checks", "seconds", "facts"];
    let mut found = BTreeSet::new();
    match answer {
        Value::Object(fields) => {
            for (name, value) in fields {
                found.insert(name.clone());
                if !OWN_NAMES.contains(&name.as_str()) {
                    found.extend(self::fields(value));
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| found.extend(fields(value))),
        _ => {}
    }
    found
}

/// Every `reason` of an answer, in the sources.
fn reasons() -> BTreeSet<String> {
    fn of(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in folder.read_dir().unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                of(&path, found);
            } else {
                let text = std::fs::read_to_string(&path).unwrap();
                for mark in ["reason: \"", "\"reason\": \""] {
                    let rest = text.split(mark).skip(1).filter_map(|rest| rest.split_once('"'));
                    found.extend(rest.map(|(reason, _)| reason.to_owned()));
                }
            }
        }
    }
    let mut found = BTreeSet::new();
    of(&root().join("exporter/src"), &mut found);
    found
}

#[test]
fn every_reason_is_documented() {
    let page = std::fs::read_to_string(root().join("docs/Json.md")).unwrap();
    let rows = page.lines().filter(|line| line.contains("` | 1 |") || line.contains("` | 2 |"));
    let documented: BTreeSet<String> = rows.map(|row| row.split('`').nth(1).unwrap().to_owned()).collect();
    assert_eq!(documented, reasons());
}

#[test]
fn every_field_is_documented() {
    let folder = tempfile::tempdir().unwrap();
    let (fused, plain) = (folder.path().join("fused.onnx"), folder.path().join("plain.onnx"));
    let digits = root().join("models/digits");
    let (checkpoint, data) = (digits.join("digits.pth"), digits.join("test.npz"));
    let (network, page) = (folder.path().join("network.onnx"), folder.path().join("page.html"));
    let lines: [(&str, Vec<std::ffi::OsString>); 11] = [
        ("convert", arguments!["convert", graph(FUSE), "-o", fused].to_vec()),
        ("convert", arguments!["convert", graph(MISS), "--dry-run"].to_vec()),
        (
            "convert",
            arguments!["convert", checkpoint, "-o", network, "--inputs", data, "--report", page].to_vec(),
        ),
        ("inspect", arguments!["inspect", graph(LOST)].to_vec()),
        ("inspect", arguments!["inspect", checkpoint].to_vec()),
        ("validate", arguments!["validate", network, network, "--inputs", data].to_vec()),
        ("expand", arguments!["expand", network, "-o", plain, "--inputs", data].to_vec()),
        ("bench", arguments!["bench", network, plain, "--rounds", "1"].to_vec()),
        ("doctor", arguments!["doctor"].to_vec()),
        ("operators", arguments!["operators"].to_vec()),
        ("completions", arguments!["completions", "fish"].to_vec()),
    ];
    let everywhere = documented("");
    let mut printed: BTreeSet<(String, String)> = BTreeSet::new();
    for (command, mut line) in lines {
        line.push("--json".into());
        let answer = object(&isqrt_cov(&line));
        let mut here = documented(command);
        // To which other parts refer.
        here.extend(documented("convert"));
        if answer["checkpoint"].is_object() {
            here.extend(documented("inspect"));
        }
        let fields = fields(&answer);
        for field in &fields {
            assert!(
                everywhere.contains(field) || here.contains(field),
                "{command}: `{field}` is not documented"
            );
        }
        printed.extend(fields.into_iter().map(|field| (command.to_owned(), field)));
        let shared = ["status", "reason", "message"];
        assert!(
            answer["status"] != "error" && shared.iter().all(|field| everywhere.contains(*field)),
            "{answer}"
        );
    }
    // And the other way round: what a row is about stands in one answer at least.
    let text = std::fs::read_to_string(root().join("docs/Json.md")).unwrap();
    for part in text.split("\n## ").skip(1) {
        let command = part.lines().next().unwrap();
        let rows = part.lines().filter_map(|line| line.strip_prefix("| `")?.split_once(" |"));
        for field in rows.flat_map(|(names, _)| names.split('`').step_by(2)).filter(|field| !field.is_empty())
        {
            assert!(
                printed.contains(&(command.to_owned(), field.to_owned())),
                "{command}: `{field}` is not printed"
            );
        }
    }
}
