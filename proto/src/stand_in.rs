//! Files that stand where another one was meant.

/// What a file is that was put in the place of a model or a checkpoint, and what to do, as far as its beginning tells. No model
/// and no checkpoint begins so.
#[must_use]
pub fn stand_in(content: &[u8]) -> Option<&'static str> {
    if content.starts_with(b"version https://git-lfs") {
        Some("it is a pointer of git-lfs, not the file that it stands for: fetch that with git lfs pull")
    } else if content.starts_with(b"\x1f\x8b") {
        Some("it is compressed with gzip: unpack it with gunzip")
    } else if is_page(content) {
        Some("it is a web page, such as a server gives instead of a file: download it again")
    } else if is_of_onnx_runtime(content) {
        Some("it is in ONNX Runtime's own format (.ort): give the .onnx file that it was made from")
    } else {
        as_text(content)
    }
}

/// Whether a text begins as a web page does.
fn is_page(content: &[u8]) -> bool {
    let content = content.trim_ascii_start();
    let begins = |tag: &[u8]| content.get(..tag.len()).is_some_and(|head| head.eq_ignore_ascii_case(tag));
    begins(b"<!doctype html") || begins(b"<html")
}

/// Whether a file begins as a `FlatBuffer` of ONNX Runtime's does: where its first table is, which is near the beginning, and the
/// format's name. The two zeros tell it from an ONNX model whose producer has such a name.
fn is_of_onnx_runtime(content: &[u8]) -> bool {
    content.get(2..8).is_some_and(|name| name == b"\0\0ORTM")
}

/// What is said of a model that is written as text.
fn as_text(content: &[u8]) -> Option<&'static str> {
    let content = after_comments(content);
    let opens_with = |bracket: u8, mark: &[u8], end: u8| {
        let inside = content.strip_prefix(&[bracket]).map(after_comments);
        inside.and_then(|inside| inside.strip_prefix(mark)).is_some_and(|inside| is_field(inside, &[end]))
    };
    if is_field(content, b":{") {
        Some(
            "it is in ONNX's text format, not in the binary one: rewrite it with \
             onnx.save(onnx.load(FILE, format=\"textproto\"), \"model.onnx\") in Python",
        )
    } else if opens_with(b'<', b"", b':') {
        Some(
            "it is in ONNX's text format, not in the binary one: rewrite it with \
             onnx.save(onnx.parser.parse_model(open(FILE).read()), \"model.onnx\") in Python",
        )
    } else if opens_with(b'{', b"\"", b'"') {
        Some(
            "it is in ONNX's JSON format, not in the binary one: rewrite it with \
             onnx.save(onnx.load(FILE, format=\"json\"), \"model.onnx\") in Python",
        )
    } else {
        None
    }
}

/// Whether a text begins with the name of a model's field, and one of `ends` behind it.
fn is_field(content: &[u8], ends: &[u8]) -> bool {
    const FIELDS: [&str; 5] = ["ir_version", "irVersion", "opset_import", "producer_name", "graph"];
    let end = |field: &str| content.strip_prefix(field.as_bytes())?.trim_ascii_start().first();
    FIELDS.iter().filter_map(|field| end(field)).any(|end| ends.contains(end))
}

/// What follows spaces and lines of comments.
fn after_comments(content: &[u8]) -> &[u8] {
    let mut content = content.trim_ascii_start();
    while content.starts_with(b"#") {
        let line = content.iter().position(|&byte| byte == b'\n').unwrap_or(content.len());
        content = content[line..].trim_ascii_start();
    }
    content
}
