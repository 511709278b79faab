//! Arrays in NumPy's format: a magic number, a version, a Python dictionary as header, the elements.
//!
//! Source: NumPy's `numpy/lib/format.py`. The header is read by its three keys, not as Python.

use std::io::Read;

use anyhow::{Context, Result, bail, ensure};
use half::f16;
use ndarray::{ArrayD, IxDyn, ShapeBuilder};

use crate::tensor::Tensor;

/// The most bytes that one array may hold once unpacked.
const LARGEST_ARRAY: u64 = 1 << 34;

/// The header's dictionary.
struct Header<'a> {
    /// The elements' type: byte order, kind, width.
    descriptor: &'a str,
    column_major: bool,
    shape: Vec<usize>,
}

/// Reads one array.
///
/// # Errors
/// Data that is not in NumPy's format or does not have the size that its header says, and types that no model takes.
pub fn read(reader: impl Read) -> Result<Tensor> {
    let mut bytes = Vec::new();
    reader.take(LARGEST_ARRAY + 1).read_to_end(&mut bytes).context("the data is damaged")?;
    ensure!(bytes.len() as u64 <= LARGEST_ARRAY, "the array is larger than {LARGEST_ARRAY} bytes");
    let (header, elements) = split(&bytes)?;
    let Header { descriptor, column_major, shape } = parse(header)?;
    let (order, kind) = descriptor.split_at_checked(1).unwrap_or_default();
    let width = match kind {
        "f8" | "i8" => 8,
        "f4" | "i4" | "u4" => 4,
        "f2" | "i2" | "u2" => 2,
        "u1" | "i1" | "b1" => 1,
        _ => bail!(
            "its type is `{descriptor}`; expected float32, float64, float16, int64, int32, int16, int8, uint32, uint16, uint8 or bool"
        ),
    };
    let size = shape.iter().try_fold(width, |size: usize, &dim| size.checked_mul(dim));
    ensure!(
        size == Some(elements.len()),
        "its header says shape {shape:?} of type `{descriptor}`, but {} bytes follow",
        elements.len()
    );
    ensure!(!shape.contains(&0), "its shape {shape:?} holds no elements");
    let shape = IxDyn(&shape).set_f(column_major);
    let big = order == ">";
    Ok(match kind {
        "f8" => Tensor::F64(array(elements, shape, big, f64::from_le_bytes)?),
        "f4" => Tensor::F32(array(elements, shape, big, f32::from_le_bytes)?),
        "f2" => Tensor::F16(array(elements, shape, big, f16::from_le_bytes)?),
        "i8" => Tensor::I64(array(elements, shape, big, i64::from_le_bytes)?),
        "i4" => Tensor::I32(array(elements, shape, big, i32::from_le_bytes)?),
        "i2" => Tensor::I16(array(elements, shape, big, i16::from_le_bytes)?),
        "u4" => Tensor::U32(array(elements, shape, big, u32::from_le_bytes)?),
        "u2" => Tensor::U16(array(elements, shape, big, u16::from_le_bytes)?),
        "u1" => Tensor::U8(array(elements, shape, big, u8::from_le_bytes)?),
        "i1" => Tensor::I8(array(elements, shape, big, i8::from_le_bytes)?),
        _ => Tensor::Bool(array(elements, shape, big, |[byte]: [u8; 1]| byte != 0)?),
    })
}

fn array<const N: usize, T: Clone>(
    bytes: &[u8],
    shape: ndarray::Shape<IxDyn>,
    big_endian: bool,
    value: impl Fn([u8; N]) -> T,
) -> Result<ArrayD<T>> {
    let values = bytes.as_chunks::<N>().0.iter().map(|&bytes| {
        let mut bytes = bytes;
        if big_endian {
            bytes.reverse();
        }
        value(bytes)
    });
    let array = ArrayD::from_shape_vec(shape, values.collect())?;
    Ok(array.as_standard_layout().into_owned())
}

/// The header's text and the elements' bytes.
fn split(bytes: &[u8]) -> Result<(&str, &[u8])> {
    let rest = bytes.strip_prefix(b"\x93NUMPY").context("it is not in NumPy's format")?;
    let (version, rest) = rest.split_first_chunk::<2>().context("it is cut short")?;
    let (length, rest) = match version[0] {
        1 => {
            let (length, rest) = rest.split_first_chunk::<2>().context("it is cut short")?;
            (usize::from(u16::from_le_bytes(*length)), rest)
        }
        2 | 3 => {
            let (length, rest) = rest.split_first_chunk::<4>().context("it is cut short")?;
            (u32::from_le_bytes(*length) as usize, rest)
        }
        other => bail!("its format has version {other}; expected 1, 2 or 3"),
    };
    let (header, elements) = rest.split_at_checked(length).context("its header is cut short")?;
    Ok((std::str::from_utf8(header).context("its header is damaged")?, elements))
}

/// Reads a header such as `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`.
fn parse(header: &str) -> Result<Header<'_>> {
    let value = |key: &str| {
        let (_, rest) = header
            .split_once(&format!("'{key}':"))
            .with_context(|| format!("its header has no `{key}`; expected descr, fortran_order and shape"))?;
        anyhow::Ok(rest.trim_start())
    };
    let descriptor = value("descr")?.strip_prefix('\'').and_then(|rest| rest.split_once('\''));
    let (descriptor, _) = descriptor.context("it holds records; expected numbers")?;
    let order = value("fortran_order")?;
    let column_major = order.starts_with("True");
    ensure!(
        column_major || order.starts_with("False"),
        "its header's `fortran_order` is neither True nor False"
    );
    let shape = value("shape")?.strip_prefix('(').and_then(|rest| rest.split_once(')'));
    let (shape, _) = shape.context("its header's `shape` is no tuple")?;
    let sizes = shape.split(',').map(str::trim).filter(|size| !size.is_empty());
    let shape =
        sizes.map(str::parse).collect::<Result<_, _>>().context("its header's `shape` holds no sizes")?;
    Ok(Header { descriptor, column_major, shape })
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// An array in NumPy's format.
    pub fn write(descriptor: &str, column_major: bool, shape: &str, elements: &[u8]) -> Vec<u8> {
        let order = if column_major { "True" } else { "False" };
        let header = format!("{{'descr': {descriptor}, 'fortran_order': {order}, 'shape': {shape}, }}\n");
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(elements);
        bytes
    }

    fn message(bytes: &[u8]) -> String {
        format!("{:#}", read(bytes).unwrap_err())
    }

    #[test]
    fn every_type_is_read() {
        let numbers = |descriptor: &str, elements: &[u8]| {
            read(write(descriptor, false, "(2,)", elements).as_slice()).unwrap()
        };
        let floats: Vec<u8> = [1.5_f32, -2.0].iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(numbers("'<f4'", &floats).to_f64(), [1.5, -2.0]);
        let big: Vec<u8> = [1.5_f64, -2.0].iter().flat_map(|value| value.to_be_bytes()).collect();
        assert_eq!(numbers("'>f8'", &big).to_f64(), [1.5, -2.0]);
        assert_eq!(numbers("'<f2'", &[0, 0x3c, 0, 0xc0]).to_f64(), [1.0, -2.0]);
        assert_eq!(numbers("'|i1'", &[255, 1]).to_f64(), [-1.0, 1.0]);
        assert_eq!(numbers("'<u2'", &[1, 2, 255, 255]).to_f64(), [513.0, 65_535.0]);
        assert_eq!(numbers("'>i2'", &[255, 254, 1, 0]).to_f64(), [-2.0, 256.0]);
        assert_eq!(numbers("'|b1'", &[0, 1]).to_f64(), [0.0, 1.0]);
        assert_eq!(read(write("'|u1'", false, "()", &[7]).as_slice()).unwrap().dims(), [0_usize; 0]);
    }

    #[test]
    fn column_major_arrays_are_read_in_order() {
        let tensor = read(write("'|u1'", true, "(2, 3)", &[1, 4, 2, 5, 3, 6]).as_slice()).unwrap();
        assert_eq!(tensor.to_f64(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let Tensor::U8(array) = tensor else { panic!("uint8 stays uint8") };
        assert!(array.is_standard_layout());
    }

    #[test]
    fn hostile_arrays_give_clear_errors() {
        let huge = write("'<f4'", false, "(9999999999, 9999999999)", &[0; 16]);
        assert!(message(&huge).contains("but 16 bytes follow"));
        assert!(
            message(&write("'<f4'", false, "(1000000000000,)", &[0; 16])).contains("but 16 bytes follow")
        );
        assert!(message(&write("'<f4'", false, "(-4,)", &[0; 16])).contains("holds no sizes"));
        assert!(message(&write("'|O'", false, "(1,)", &[0; 8])).contains("type is `|O`"));
        assert!(message(&write("'é'", false, "(1,)", &[0; 8])).contains("type is `é`"));
        assert!(message(&write("[('a', '<f4')]", false, "(1,)", &[0; 4])).contains("records"));
        assert!(message(b"\x93NUMPY\x02\x00\xff\xff\xff\xff").contains("cut short"));
        assert!(message(b"\x93NUMPY\x01\x00\x10\x00{").contains("cut short"));
        assert!(message(b"\x93NUMPY\x01\x00\x02\x00{}").contains("no `descr`"));
        assert!(message(b"PK").contains("not in NumPy's format"));
    }
}
