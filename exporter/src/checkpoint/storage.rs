//! From a view of a storage to the bytes of a tensor.

use bytes::Bytes;
use thiserror::Error;

use super::element::Element;
use isqrt_cov_proto::Printable;

/// What is wrong with a tensor.
#[derive(Debug, Error)]
pub enum ViewProblem {
    /// A type that weights of a network here do not have.
    #[error(
        "is of type {0}; expected float16, bfloat16, float32, float64, an integer type or bool: convert it first"
    )]
    Type(String),
    /// Something that holds numbers without being a plain tensor.
    #[error("is {0}; expected a plain tensor: convert it first")]
    Form(&'static str),
    /// The name is there twice.
    #[error("is in the state dict twice; expected each name once")]
    Duplicate,
    /// Dimensions below zero, or more elements than can be.
    #[error("dims are {0:?}; expected sizes of 0 or more whose product is below 2^63")]
    Dims(Vec<i64>),
    /// An offset or strides below zero.
    #[error("begins at element {offset} with strides {strides:?}; expected numbers of 0 or more")]
    Strides {
        /// The first element.
        offset: i64,
        /// The strides.
        strides: Vec<i64>,
    },
    /// The storage ends before the tensor does.
    #[error(
        "dims {dims:?}, strides {strides:?} and offset {offset} need {needed} elements; storage `{}` has {found}",
        Printable(storage)
    )]
    Short {
        /// The shape.
        dims: Vec<i64>,
        /// The strides.
        strides: Vec<i64>,
        /// The first element.
        offset: i64,
        /// What that makes; as a text, because it may be beyond any integer.
        needed: String,
        /// The storage's name in the file.
        storage: String,
        /// The elements it has.
        found: u64,
    },
    /// The storage's data is not there, or not all of it.
    #[error(
        "storage `{}` has {found} bytes; expected {expected}: {elements} elements of type {dtype}",
        Printable(storage)
    )]
    Storage {
        /// The storage's name in the file.
        storage: String,
        /// The bytes that are there.
        found: u64,
        /// The bytes that should be.
        expected: String,
        /// The elements it should have.
        elements: u64,
        /// Their type.
        dtype: &'static str,
    },
    /// The storage's data is not in the file.
    #[error("storage `{}` is not in the file; expected one of those that it lists", Printable(.0))]
    Missing(String),
    /// The storage's entry cannot be read.
    #[error("{0}")]
    Entry(super::archive::ArchiveProblem),
    /// Strides that repeat elements far beyond what the file holds.
    #[error(
        "dims {dims:?} with strides {strides:?} repeat elements; written out, such tensors would take more than {limit} bytes in all"
    )]
    Expanded {
        /// The shape.
        dims: Vec<i64>,
        /// The strides.
        strides: Vec<i64>,
        /// The most bytes that may be made of this file.
        limit: u64,
    },
}

/// A view of a storage.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a> {
    /// The storage's name in the file.
    pub(super) storage: &'a str,
    /// The first element.
    pub(super) offset: i64,
    pub(super) dims: &'a [i64],
    pub(super) strides: &'a [i64],
}

/// How many bytes may be copied where tensors do not lie in the file row by row.
///
/// Transposed tensors take what the storage has; only expanded ones take more, a few small ones in honest files.
#[derive(Debug)]
pub(super) struct Allowance {
    limit: u64,
    left: u64,
}

impl Allowance {
    /// For a file of that size.
    pub(super) fn of(file: u64) -> Self {
        let limit = file.saturating_mul(4).saturating_add(64 << 20);
        Self { limit, left: limit }
    }
}

impl View<'_> {
    /// The tensor's bytes, row by row. A tensor that lies so in the storage shares its bytes.
    pub(super) fn bytes(
        &self,
        storage: &Bytes,
        element: &Element,
        allowance: &mut Allowance,
    ) -> Result<Bytes, ViewProblem> {
        let elements = self.elements()?;
        let offset = self.offset as usize;
        let size = element.bytes as usize;
        let found = storage.len() as u64 / element.bytes;
        if elements == 0 {
            return Ok(Bytes::new());
        }
        let needed = self.needed();
        let inside = needed.filter(|&needed| needed <= found);
        if inside.is_none() {
            return Err(ViewProblem::Short {
                dims: self.dims.to_vec(),
                strides: self.strides.to_vec(),
                offset: self.offset,
                needed: needed.map_or("more than 2^64".to_owned(), |needed| needed.to_string()),
                storage: self.storage.to_owned(),
                found,
            });
        }
        if self.is_contiguous() {
            // The last element is inside, so all of these are.
            return Ok(storage.slice(offset * size..(offset + elements as usize) * size));
        }
        let bytes = elements.checked_mul(element.bytes).filter(|&bytes| bytes <= allowance.left);
        let bytes = bytes.ok_or_else(|| ViewProblem::Expanded {
            dims: self.dims.to_vec(),
            strides: self.strides.to_vec(),
            limit: allowance.limit,
        })?;
        allowance.left -= bytes;
        Ok(self.copy(&storage[offset * size..], size, bytes as usize))
    }

    /// The number of elements.
    fn elements(&self) -> Result<u64, ViewProblem> {
        let dims = || ViewProblem::Dims(self.dims.to_vec());
        let mut empty = false;
        let mut product = 1_i64;
        for &dim in self.dims {
            match dim {
                ..0 => return Err(dims()),
                // Whoever multiplies must not overflow on the way to nothing.
                0 => empty = true,
                _ => product = product.checked_mul(dim).ok_or_else(dims)?,
            }
        }
        if self.offset < 0 || self.strides.iter().any(|&stride| stride < 0) {
            let strides = self.strides.to_vec();
            return Err(ViewProblem::Strides { offset: self.offset, strides });
        }
        Ok(if empty { 0 } else { product as u64 })
    }

    /// The elements that the storage must have; none if they are beyond counting.
    fn needed(&self) -> Option<u64> {
        let mut needed = (self.offset as u64).checked_add(1)?;
        for (&dim, &stride) in self.dims.iter().zip(self.strides) {
            needed = needed.checked_add((dim as u64 - 1).checked_mul(stride as u64)?)?;
        }
        Some(needed)
    }

    /// Whether the elements lie row by row without a gap.
    fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        self.dims.iter().zip(self.strides).rev().all(|(&dim, &stride)| {
            let fits = dim == 1 || stride == expected;
            expected *= dim;
            fits
        })
    }

    /// The elements row by row, `size` bytes each, `total` in all.
    fn copy(&self, storage: &[u8], size: usize, total: usize) -> Bytes {
        // Without dimensions of one element, each step is a constant amount of work on average.
        let axes = self.dims.iter().zip(self.strides).filter(|(dim, _)| **dim > 1);
        let axes: Vec<(usize, usize)> = axes.map(|(&dim, &stride)| (dim as usize, stride as usize)).collect();
        let mut index = vec![0; axes.len()];
        let mut at = 0;
        let mut bytes = Vec::with_capacity(total);
        while bytes.len() < total {
            bytes.extend_from_slice(&storage[at * size..(at + 1) * size]);
            for (index, &(dim, stride)) in index.iter_mut().zip(&axes).rev() {
                *index += 1;
                if *index < dim {
                    at += stride;
                    break;
                }
                at -= stride * (dim - 1);
                *index = 0;
            }
        }
        bytes.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(dims: &[i64], strides: &[i64], offset: i64, storage: &[u8]) -> Result<Bytes, ViewProblem> {
        let element = Element::of_dtype("int8").unwrap();
        let view = View { storage: "0", offset, dims, strides };
        view.bytes(&Bytes::copy_from_slice(storage), element, &mut Allowance::of(storage.len() as u64))
    }

    #[test]
    fn views_are_written_out_row_by_row() {
        let storage: Vec<u8> = (0..12).collect();
        let bytes = |dims: &[i64], strides: &[i64], offset| read(dims, strides, offset, &storage).unwrap();
        assert_eq!(&bytes(&[2, 3], &[3, 1], 6)[..], [6, 7, 8, 9, 10, 11]);
        assert_eq!(&bytes(&[3, 2], &[1, 3], 0)[..], [0, 3, 1, 4, 2, 5]);
        assert_eq!(&bytes(&[2, 3], &[0, 2], 1)[..], [1, 3, 5, 1, 3, 5]);
        assert_eq!(&bytes(&[2, 1, 2], &[2, 77, 1], 8)[..], [8, 9, 10, 11]);
        assert_eq!(&bytes(&[], &[], 11)[..], [11]);
        assert!(bytes(&[0, 5], &[5, 1], 400).is_empty());
    }

    #[test]
    fn a_row_by_row_view_shares_the_storage() {
        let storage = Bytes::from(vec![0; 64]);
        let element = Element::of_dtype("float32").unwrap();
        // The step along an axis of one element is never taken.
        for (dims, strides) in [(&[3, 4][..], &[4, 1][..]), (&[3, 1, 4], &[4, 77, 1])] {
            let view = View { storage: "0", offset: 2, dims, strides };
            let bytes = view.bytes(&storage, element, &mut Allowance::of(0)).unwrap();
            assert_eq!((bytes.as_ptr(), bytes.len()), (storage[8..].as_ptr(), 48));
        }
        let view = View { storage: "0", offset: 0, dims: &[2], strides: &[1] };
        let short = view.bytes(&storage.slice(..7), element, &mut Allowance::of(0)).unwrap_err();
        assert!(short.to_string().contains("need 2 elements; storage `0` has 1"), "{short}");
    }

    #[test]
    fn what_is_repeated_is_bounded_together() {
        let element = Element::of_dtype("int8").unwrap();
        let view = View { storage: "0", offset: 0, dims: &[40 << 20], strides: &[0] };
        let (storage, mut allowance) = (Bytes::from(vec![0]), Allowance::of(0));
        assert!(view.bytes(&storage, element, &mut allowance).is_ok());
        let second = view.bytes(&storage, element, &mut allowance).unwrap_err().to_string();
        assert!(second.contains("repeat elements"), "{second}");
    }

    #[test]
    fn views_beyond_the_storage_are_refused() {
        let error = |dims: &[i64], strides: &[i64], offset| {
            read(dims, strides, offset, &[0; 12]).unwrap_err().to_string()
        };
        assert!(error(&[13], &[1], 0).contains("need 13 elements; storage `0` has 12"));
        assert!(error(&[2, 6], &[6, 1], 1).contains("need 13 elements"));
        assert!(error(&[2], &[i64::MAX], 0).contains("need 9223372036854775808 elements"));
        assert!(error(&[3, 2], &[i64::MAX, i64::MAX], 0).contains("need more than 2^64 elements"));
        assert!(error(&[1 << 62, 4], &[0, 0], 0).contains("product is below 2^63"));
        assert!(error(&[0, 1 << 62, 4], &[0, 0, 0], 0).contains("product is below 2^63"));
        assert!(error(&[-1], &[1], 0).contains("dims are [-1]"));
        assert!(error(&[1], &[-1], 0).contains("strides [-1]"));
        assert!(error(&[1], &[1], -1).contains("begins at element -1"));
        assert!(error(&[1 << 40], &[0], 0).contains("repeat elements"));
    }
}
