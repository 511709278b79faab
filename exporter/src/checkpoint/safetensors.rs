//! Safetensors: a length, a JSON header of that length, and the tensors' bytes.

use std::path::Path;

use bytes::Bytes;
use isqrt_cov_proto::onnx::TensorProto;
use isqrt_cov_proto::onnx::tensor_proto::DataType;
use safetensors::{Dtype, SafeTensors};

use super::Error;
use super::pairs::Pairs;
use super::state_dict::{Contents, bounded, word};
use super::storage::ViewProblem;
use isqrt_cov_proto::Printable;

/// The longest header that is read, as in the library.
const HEADER: u64 = 100_000_000;

/// Reads the file `content`.
pub(super) fn read(path: &Path, content: &Bytes) -> Result<Contents, Error> {
    let wrong = |problem| Error::Header { path: path.to_owned(), problem };
    let Some((length, rest)) = content.split_first_chunk::<8>() else {
        return Err(wrong(format!("the file has {} bytes; expected at least 8", content.len())));
    };
    let length = u64::from_le_bytes(*length);
    if length > HEADER || length > rest.len() as u64 {
        return Err(wrong(format!(
            "its length is {length} bytes, with {} to the end of the file; expected at most those, and at most \
             {HEADER}; the file is truncated or damaged",
            rest.len()
        )));
    }
    // The library keeps one of two equal names, others the other one.
    let header = &rest[..length as usize];
    let pairs: Pairs<serde::de::IgnoredAny> = serde_json::from_slice(header).map_err(|source| {
        wrong(format!("is not a JSON object: {source}; expected tensors by their names"))
    })?;
    if let Some(name) = pairs.duplicate() {
        return Err(wrong(format!("has `{}` twice; expected each name once", Printable(name))));
    }
    let (length, metadata) = SafeTensors::read_metadata(content).map_err(|source| {
        let source = source.to_string();
        wrong(format!(
            "{}; expected offsets that follow each other and cover the file, and sizes that fit them",
            Printable(&source)
        ))
    })?;
    bounded(path, metadata.offset_keys().len())?;
    let mut tensors = Vec::new();
    for name in metadata.offset_keys() {
        let problem = |problem| Error::tensor(path, &name, problem);
        let Some(info) = metadata.info(&name) else { continue };
        let data_type =
            data_type(info.dtype).ok_or_else(|| problem(ViewProblem::Type(info.dtype.to_string())))?;
        let dims: Vec<i64> = info.shape.iter().map(|&dim| dim as i64).collect();
        if dims.iter().any(|&dim| dim < 0) {
            return Err(problem(ViewProblem::Dims(dims)));
        }
        // The library has held them against the file's length.
        let (start, end) = info.data_offsets;
        let data = content.slice(8 + length + start..8 + length + end);
        tensors.push(TensorProto {
            name: Some(name),
            dims,
            data_type: Some(data_type.into()),
            raw_data: Some(data),
            ..TensorProto::default()
        });
    }
    let facts = metadata.metadata().iter().flatten();
    let facts = facts.filter_map(|(name, fact)| Some((word(name)?, word(fact)?)));
    let mut facts: Vec<(String, String)> = facts.collect();
    facts.sort();
    Ok(Contents { tensors, facts, notes: Vec::new() })
}

fn data_type(dtype: Dtype) -> Option<DataType> {
    Some(match dtype {
        Dtype::F16 => DataType::Float16,
        Dtype::BF16 => DataType::Bfloat16,
        Dtype::F32 => DataType::Float,
        Dtype::F64 => DataType::Double,
        Dtype::I64 => DataType::Int64,
        Dtype::I32 => DataType::Int32,
        Dtype::I16 => DataType::Int16,
        Dtype::I8 => DataType::Int8,
        Dtype::U8 => DataType::Uint8,
        Dtype::BOOL => DataType::Bool,
        _ => return None,
    })
}
