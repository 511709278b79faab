//! `--report`: what the page holds, that it holds together, and when it is written.

use super::selection::two_layers_called;
use super::*;

/// Fails unless every tag is closed where it should be and every attribute stands in quotes.
fn check_markup(page: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = page.strip_prefix("<!DOCTYPE html>").unwrap();
    while let Some(start) = rest.find('<') {
        assert!(!rest[..start].contains('>'), "a stray > in {:?}", &rest[..start]);
        let end = start + rest[start..].find('>').unwrap();
        let tag = &rest[start + 1..end];
        assert!(!tag.contains('<'), "{tag:?}");
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
        assert!(name.chars().all(|letter| letter.is_ascii_alphanumeric()) && !name.is_empty(), "{tag:?}");
        assert!(tag.matches('"').count() == 2 * tag.matches("=\"").count(), "{tag:?}");
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "closed out of turn");
        } else if !tag.ends_with('/') {
            open.push(name);
        }
        rest = &rest[end + 1..];
    }
    assert!(open.is_empty(), "not closed: {open:?}");
    for reference in ["http", "src=", "href=", "url(", "<script", "<link"] {
        assert!(!page.contains(reference), "{reference}");
    }
    let hidden = |letter: char| letter.is_control() && letter != '\n';
    assert!(!page.contains(hidden) && !page.contains("NaN"), "characters that no page may hold");
}

fn page(path: &Path) -> String {
    let page = std::fs::read_to_string(path).unwrap();
    check_markup(&page);
    page
}

#[test]
fn the_page_has_the_proof_and_every_layer() {
    let folder = tempfile::tempdir().unwrap();
    let input = two_layers_called(&folder, ["a/", "b/"]);
    let (output, report) = (folder.path().join("out.onnx"), folder.path().join("report.html"));
    std::fs::write(&report, "an earlier one").unwrap();
    let ran = isqrt_cov(&arguments!["convert", input, "-o", output, "--report", report, "--json"]);
    assert_eq!(status(&ran), 0, "{ran:?}");
    let latency = &object(&ran)["latency"];
    assert!(latency["before_ms"].as_f64() > latency["after_ms"].as_f64(), "{latency}");
    let page = page(&report);
    for expected in [
        "2 layers are now a single node each",
        "Layer 1: IsqrtCov at a/output",
        "Layer 2: IsqrtCov at b/output",
        "same function",
        "next best",
        "iterations",
        "Error against float64",
        "Latency",
        "tract",
        "Before: ",
        "After: 2 nodes",
    ] {
        assert!(page.contains(expected), "`{expected}` is missing in:\n{page}");
    }
    // Two outputs and two layers are drawn as histograms; each layer's graph twice.
    assert_eq!(page.matches("Histogram of errors").count(), 4);
    assert_eq!(page.matches("aria-label=\"Graph of").count(), 4);
    assert_eq!(files(&folder), ["out.onnx", "report.html", "two.onnx"]);
}

#[test]
fn names_from_the_model_are_text_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let hostile = ["<script>alert(1)</script>\u{1b}[2J", "\"'/><b onclick=x&amp;\u{0}\u{202e}"];
    let input = two_layers_called(&folder, hostile);
    let report = folder.path().join("report.html");
    let ran = isqrt_cov(&arguments!["convert", input, "--dry-run", "--report", report]);
    assert_eq!(status(&ran), 0, "{ran:?}");
    let page = page(&report);
    for expected in [
        "&lt;script&gt;alert(1)&lt;/script&gt;\\u{1b}[2Joutput",
        "&quot;&#39;/&gt;&lt;b onclick=x&amp;amp;\\u{0}\\u{202e}",
    ] {
        assert!(page.contains(expected), "`{expected}` is missing in:\n{page}");
    }
}

#[test]
fn the_report_in_json_is_what_is_printed() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.json");
    let ran = isqrt_cov(&arguments!["convert", graph(FUSE), "--dry-run", "--report", report, "--json"]);
    assert_eq!(status(&ran), 0, "{ran:?}");
    assert_eq!(std::fs::read(&report).unwrap(), ran.stdout);
    assert_eq!(files(&folder), ["report.json"]);
}

#[test]
fn a_no_is_reported_too() {
    let folder = tempfile::tempdir().unwrap();
    let (output, report) = (folder.path().join("out.onnx"), folder.path().join("report.html"));
    let failed = arguments!["convert", graph(FUSE), "-o", output, "--report", report, "--tolerance", "1e-30"];
    assert_eq!(status(&isqrt_cov(&failed)), 1);
    let text = page(&report);
    assert!(text.contains("No (proof-failed): ") && text.contains("DIFFERENT") && text.contains("Layer 1"));
    let lost = arguments!["convert", graph(LOST), "-o", output, "--report", report];
    assert_eq!(status(&isqrt_cov(&lost)), 1);
    let text = page(&report);
    assert!(text.contains("No (lost-iteration): ") && text.contains("Not converted"));
    assert_eq!(files(&folder), ["report.html"]);
}

#[test]
fn a_report_never_takes_the_place_of_another_file() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("model.html");
    std::fs::copy(graph(FUSE), &input).unwrap();
    let other = folder.path().join(".").join("model.html");
    for report in [&input, &other] {
        let ran = isqrt_cov(&arguments!["convert", input, "--dry-run", "--report", report]);
        assert_eq!(status(&ran), 2, "{ran:?}");
        assert!(
            error_text(&ran).contains("is also read, as") && error_text(&ran).contains("--report"),
            "{ran:?}"
        );
    }
    assert_eq!(std::fs::read(&input).unwrap(), std::fs::read(graph(FUSE)).unwrap());
    let output = folder.path().join("out.html");
    let ran = isqrt_cov(&arguments!["convert", graph(FUSE), "-o", output, "--report", output]);
    assert!(status(&ran) == 2 && error_text(&ran).contains("is where the model goes"), "{ran:?}");
    let ran = isqrt_cov(&arguments!["convert", graph(FUSE), "--dry-run", "--report", "report.pdf"]);
    assert!(status(&ran) == 2 && error_text(&ran).contains(".html or .json"), "{ran:?}");
    assert_eq!(files(&folder), ["model.html"]);
}
