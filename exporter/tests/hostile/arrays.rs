//! Arrays that mean harm, given as the user's data to an honest model.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use super::{Case, Given, corpus};

/// An array in NumPy's format, whose header says what it likes.
fn array(descriptor: &str, shape: &str, elements: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': {descriptor}, 'fortran_order': False, 'shape': {shape}, }}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(elements);
    bytes
}

/// An archive of one array.
fn archive(array: &[u8]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    zip.start_file("x.npy", zip::write::SimpleFileOptions::default()).unwrap();
    zip.write_all(array).unwrap();
    zip.finish().unwrap().into_inner()
}

/// An archive of one array of a gibibyte of zeroes, a thousandth of that packed.
fn bomb(to: &Path) {
    const LENGTH: u64 = 1 << 30;
    let mut zip = zip::ZipWriter::new(File::create(to).unwrap());
    let options = zip::write::SimpleFileOptions::default().large_file(true).compression_level(Some(1));
    zip.start_file("x.npy", options).unwrap();
    zip.write_all(&array("'<f4'", &format!("({}, 24, 9)", LENGTH / 864), &[])).unwrap();
    let zeroes = vec![0; 1 << 20];
    for _ in 0..(LENGTH >> 20) {
        zip.write_all(&zeroes).unwrap();
    }
    zip.finish().unwrap();
}

pub fn cases() -> Vec<Case> {
    let case = |item, name: &'static str, said: &str, content: Vec<u8>| Case {
        item,
        name: name.to_owned(),
        said: said.to_owned(),
        make: Box::new(move |folder| {
            let hostile = folder.join(name);
            fs::write(&hostile, &content).unwrap();
            given(hostile)
        }),
    };
    let four = [0; 4];
    let huge = "(4611686018427387904, 24, 9)";
    let object = array("'|O'", "(1,)", b"\x80\x02cos\nsystem\nX\x0a\0\0\0touch harm\x85R.");
    let honest = archive(&array("'<f4'", "(1, 24, 9)", &[0; 864]));
    let mut cases = vec![
        case("pickle gadgets", "object.npy", "its type is `|O`", object.clone()),
        case("pickle gadgets", "object.npz", "its type is `|O`", archive(&object)),
        case(
            "huge lengths",
            "header.npy",
            "its header is cut short",
            b"\x93NUMPY\x02\x00\xff\xff\xff\xff".to_vec(),
        ),
        case("overflowing dimensions", "huge.npy", "but 4 bytes follow", array("'<f4'", huge, &four)),
        case(
            "overflowing dimensions",
            "huge.npz",
            "but 4 bytes follow",
            archive(&array("'<f4'", huge, &four)),
        ),
        case("negative dimensions", "negative.npy", "holds no sizes", array("'<f4'", "(-1, 24, 9)", &four)),
        case("truncated", "truncated.npz", "is damaged", honest[..honest.len() - 30].to_vec()),
        case("truncated", "truncated.npy", "bytes follow", array("'<f4'", "(1, 24, 9)", &[0; 863])),
        case("truncated", "empty.npy", "not in NumPy's format", Vec::new()),
        case("truncated", "empty.npz", "is damaged", Vec::new()),
    ];
    cases.push(Case {
        item: "compression bombs",
        name: "bomb.npz".to_owned(),
        said: "more than 100 times its size".to_owned(),
        make: Box::new(|folder| {
            let hostile = folder.join("bomb.npz");
            bomb(&hostile);
            given(hostile)
        }),
    });
    cases
}

/// An honest model, with `hostile` for its data.
fn given(hostile: std::path::PathBuf) -> Given {
    let options = vec!["--inputs".into(), hostile.clone().into()];
    Given { hostile, input: corpus().join("../models/gram.onnx"), options }
}
