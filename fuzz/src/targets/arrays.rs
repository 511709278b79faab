//! Arrays of `--inputs` and `--expected`: archives, single arrays, and how they are fitted to a model.

use std::io::Cursor;
use std::path::Path;

use isqrt_cov::data::Data;
use isqrt_cov::signature::{Dim, Port, Signature};
use isqrt_cov::tensor::ElementType;

use super::refused;

/// Reads arrays, and fits them to a model that classifies images.
pub fn run(input: &[u8]) {
    let path = if input.starts_with(b"\x93NUMPY") { "input.npy" } else { "input.npz" };
    let data = match Data::decode(Cursor::new(input), Path::new(path)) {
        Ok(data) => data,
        Err(error) => return refused(&format!("{error:#}")),
    };
    let port = |name: &str, dims: Vec<Dim>| Port {
        name: name.to_owned(),
        element: Some(ElementType::F32),
        dims: Some(dims),
        rows: None,
    };
    let batch = || Dim::Named("batch".to_owned());
    let signature = Signature {
        inputs: vec![port("input", vec![batch(), Dim::Fixed(1), Dim::Unknown, Dim::Unknown])],
        outputs: vec![port("output", vec![batch(), Dim::Fixed(10)])],
    };
    match data.fit(&signature) {
        Ok(samples) => {
            assert_eq!(samples.spread(3).count, samples.count.min(3));
            assert_eq!(samples.cut(samples.count - 1, 2)[0].dims()[0], 2);
        }
        Err(error) => refused(&format!("{error:#}")),
    }
}
