//! The user's data: arrays from a `.npz` archive or a `.npy` file. Files are hostile until proven otherwise: sizes are
//! compared with the bytes there are before anything of that size is allocated.

mod npy;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use ndarray::{ArrayD, Axis};

use crate::signature::{Dim, Port, Signature};
use crate::tensor::{ElementType, Tensor};
use crate::with_array;

/// The name of the array in a `.npy` file, and the one that a model with a single input may always use.
const ONLY_INPUT: &str = "input";

/// How many times as large as an archive its arrays may be, together; what is packed tighter is packed to do harm.
const EXPANSION: u64 = 100;

/// Samples that a row of outputs may be of.
const MOST_PER_ROW: usize = 1 << 7;

/// What the arrays of the smallest archive may take, in bytes.
const SMALL: u64 = 1 << 26;

/// Arrays by name.
#[derive(Debug, Clone)]
pub struct Data {
    path: PathBuf,
    arrays: BTreeMap<String, Tensor>,
}

/// Data that fits a model.
#[derive(Debug, Clone)]
pub struct Samples {
    /// One tensor for each input of the model, of its element type; the first axis counts the samples.
    pub inputs: Vec<Tensor>,
    /// The number of samples.
    pub count: usize,
    /// How many samples, one behind another, each row of `expected` and `labels` is of: several where a model takes the frames of a
    /// clip as samples.
    pub per_row: usize,
    /// What the model's first output should be, if the user knows.
    pub expected: Option<Tensor>,
    /// The class of each row, if the user knows.
    pub labels: Option<Vec<i64>>,
    /// Arrays that the model has no use for.
    pub unused: Vec<String>,
}

impl Data {
    /// Reads every array of `path`.
    ///
    /// # Errors
    /// A file that is neither `.npz` nor `.npy`, is damaged, or holds arrays of other types than numbers and truth
    /// values.
    pub fn read(path: &Path) -> Result<Self> {
        let place = || format!("{}: cannot be read as arrays", path.display());
        // Looked at before it is opened, because opening a pipe waits for its other end.
        ensure!(
            std::fs::metadata(path).with_context(place)?.is_file(),
            "{}: is not a regular file; expected a .npz archive or a .npy file",
            path.display()
        );
        Self::decode(File::open(path).with_context(place)?, path)
    }

    /// Decodes arrays as if they had been read from `path`, whose ending says whether they are one or an archive.
    ///
    /// # Errors
    /// As [`Data::read`].
    pub fn decode(content: impl Read + Seek, path: &Path) -> Result<Self> {
        let place = || format!("{}: cannot be read as arrays", path.display());
        let arrays = match path.extension().and_then(|extension| extension.to_str()) {
            Some("npy") => {
                let array = npy::read(content).with_context(place)?;
                BTreeMap::from([(ONLY_INPUT.to_owned(), array)])
            }
            _ => read_archive(content).with_context(place)?,
        };
        Ok(Self { path: path.to_owned(), arrays })
    }

    /// Finds the data of each of a model's inputs, and `expected` and `labels` where there are any.
    ///
    /// # Errors
    /// An input without an array; an array of another type or shape than the input; different numbers of samples, but that
    /// `expected` and `labels` may have a row for several.
    pub fn fit(mut self, signature: &Signature) -> Result<Samples> {
        let place = self.path.display().to_string();
        let held: Vec<String> = self.arrays.keys().map(|name| format!("`{name}`")).collect();
        let held = if held.is_empty() { "none".to_owned() } else { held.join(", ") };
        let mut inputs = Vec::new();
        for port in &signature.inputs {
            let mut array = self.arrays.remove(&port.name);
            if array.is_none() && signature.inputs.len() == 1 {
                array = self.arrays.remove(ONLY_INPUT);
            }
            let array = array.with_context(|| {
                format!("{place}: has no array for input `{}`; it holds {held}", port.name)
            })?;
            inputs.push(conform(array, port).with_context(|| format!("{place}: array `{}`", port.name))?);
        }
        let count = inputs.iter().find_map(|input| input.dims().first().copied());
        let count =
            count.with_context(|| format!("{place}: no input counts samples along its first axis"))?;
        ensure!(count > 0, "{place}: holds no samples");
        let expected = self.arrays.remove("expected");
        let labels = self.arrays.remove("labels").map(|labels| integers(&labels)).transpose();
        let labels = labels.with_context(|| format!("{place}: array `labels`"))?;
        let others = expected.iter().map(|expected| ("expected", expected.dims().first().copied()));
        let others = others.chain(labels.iter().map(|labels| ("labels", Some(labels.len()))));
        let others: Vec<_> = others.map(|(name, rows)| (name, rows.unwrap_or(0))).collect();
        // A row for several samples, or else one for each.
        let rows = others.first().map_or(count, |&(_, rows)| rows);
        let is_of_several = rows > 0 && count.is_multiple_of(rows) && count / rows <= MOST_PER_ROW;
        let rows = if is_of_several { rows } else { count };
        let given = signature.inputs.iter().zip(&inputs);
        let given =
            given.filter_map(|(port, input)| Some((port.name.as_str(), *input.dims().first()?, count)));
        for (name, samples, expected) in given.chain(others.iter().map(|&(name, found)| (name, found, rows)))
        {
            ensure!(
                samples == expected,
                "{place}: array `{name}` has {samples} samples; expected {expected}"
            );
        }
        let (per_row, unused) = (count / rows, self.arrays.into_keys().collect());
        Ok(Samples { inputs, count, per_row, expected, labels, unused })
    }
}

impl Samples {
    /// The shape of each input.
    #[must_use]
    pub fn shapes(&self) -> Vec<Vec<usize>> {
        self.inputs.iter().map(|input| input.dims().to_vec()).collect()
    }

    /// At most so many of the rows with their samples, evenly spread: files are often sorted by class.
    #[must_use]
    pub fn spread(&self, most: usize) -> Self {
        let (all, per_row) = (self.count / self.per_row, self.per_row);
        let kept = all.min(most);
        let rows: Vec<usize> = (0..kept).map(|row| row * all / kept).collect();
        let samples: Vec<usize> = rows.iter().flat_map(|row| row * per_row..(row + 1) * per_row).collect();
        let some = |input: &Tensor| {
            if input.dims().is_empty() { input.clone() } else { rows_of(input, &samples) }
        };
        Self {
            inputs: self.inputs.iter().map(some).collect(),
            count: samples.len(),
            per_row,
            expected: self.expected.as_ref().map(|expected| rows_of(expected, &rows)),
            labels: self.labels.as_ref().map(|labels| rows.iter().map(|&row| labels[row]).collect()),
            unused: self.unused.clone(),
        }
    }

    /// The inputs of `size` samples from `start` on, going round at the end.
    #[must_use]
    pub fn cut(&self, start: usize, size: usize) -> Vec<Tensor> {
        let rows: Vec<usize> = (start..start + size).map(|row| row % self.count).collect();
        let cut =
            |input: &Tensor| if input.dims().is_empty() { input.clone() } else { rows_of(input, &rows) };
        self.inputs.iter().map(cut).collect()
    }
}

/// The given rows along the first axis.
fn rows_of(tensor: &Tensor, rows: &[usize]) -> Tensor {
    with_array!(tensor, array => array.select(Axis(0), rows).into())
}

fn read_archive(mut content: impl Read + Seek) -> Result<BTreeMap<String, Tensor>> {
    let length = content.seek(SeekFrom::End(0)).context("its size cannot be told")?;
    let mut room = length.saturating_mul(EXPANSION).max(SMALL);
    let mut archive = zip::ZipArchive::new(content).context("it is not an .npz archive, or is damaged")?;
    let mut arrays = BTreeMap::new();
    let mut packed = 0_u64;
    for index in 0..archive.len() {
        let entry = archive.by_index(index).context("the archive is damaged")?;
        let Some(name) = entry.name().strip_suffix(".npy").map(str::to_owned) else {
            bail!("entry `{}` is not an array (its name does not end in .npy)", entry.name());
        };
        // Without sharing, an archive unpacks to no more than compression makes of its size.
        packed = packed.saturating_add(entry.compressed_size());
        ensure!(
            packed <= length,
            "entry `{}` shares its data with others; save the arrays again",
            entry.name()
        );
        let size = entry.size();
        room = room.checked_sub(size).with_context(|| {
            format!(
                "array `{name}`: would take {size} bytes, with which the archive grows to more than {EXPANSION} times its \
                 size; if it is yours, save it with numpy.savez"
            )
        })?;
        // What says less than it holds is cut off, and its checksum never looked at.
        let array = npy::read(entry.take(size)).with_context(|| format!("array `{name}`"))?;
        arrays.insert(name, array);
    }
    ensure!(!arrays.is_empty(), "the archive is empty");
    Ok(arrays)
}

/// `array` as the element type of `port`, if its shape fits.
fn conform(array: Tensor, port: &Port) -> Result<Tensor> {
    if let Some(dims) = &port.dims {
        let found = array.dims();
        // The first axis counts samples: they are cut into batches of the model's size.
        let fits = found.len() == dims.len()
            && found.iter().zip(dims).skip(1).all(|(found, dim)| match dim {
                Dim::Fixed(size) => found == size,
                Dim::Named(_) | Dim::Unknown => true,
            });
        ensure!(fits, "has shape {found:?}; the model expects {port}, with any number of samples first");
    }
    let Some(element) = port.element else { return Ok(array) };
    if element == array.element_type() {
        return Ok(array);
    }
    // NumPy makes float64 and int64 of whatever it is not told about; the model's own type is meant then.
    if element.is_float() && array.element_type() != ElementType::Bool {
        return Ok(Tensor::from_f64(element, array.dims(), &array.to_f64()));
    }
    if let (ElementType::I32, Tensor::I64(wide)) = (element, &array) {
        let narrow: Result<Vec<i32>, _> = wide.iter().map(|&value| i32::try_from(value)).collect();
        let narrow = narrow.context("holds numbers beyond int32, the model's type")?;
        return Ok(Tensor::I32(ArrayD::from_shape_vec(wide.raw_dim(), narrow)?));
    }
    if let (ElementType::I64, Tensor::I32(narrow)) = (element, &array) {
        return Ok(Tensor::I64(narrow.mapv(i64::from)));
    }
    bail!("is of type {}; the model expects {}", array.element_type().name(), element.name())
}

/// The elements of an integer array of rank 1 (or [N, 1]).
fn integers(array: &Tensor) -> Result<Vec<i64>> {
    let dims = array.dims();
    ensure!(
        matches!(dims, [_] | [_, 1]) && !array.element_type().is_float(),
        "is {} of shape {dims:?}; expected one integer for each sample",
        array.element_type().name()
    );
    Ok(array.to_f64().into_iter().map(|value| value as i64).collect())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn archive(arrays: &[(&str, Vec<u8>)]) -> tempfile::NamedTempFile {
        let file = tempfile::Builder::new().suffix(".npz").tempfile().unwrap();
        let mut zip = zip::ZipWriter::new(file.reopen().unwrap());
        for (name, bytes) in arrays {
            zip.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
            zip.write_all(bytes).unwrap();
        }
        zip.finish().unwrap();
        file
    }

    fn floats(shape: &str, values: &[f64]) -> Vec<u8> {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        npy::tests::write("'<f8'", false, shape, &bytes)
    }

    fn integers(shape: &str, values: &[i64]) -> Vec<u8> {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        npy::tests::write("'<i8'", false, shape, &bytes)
    }

    fn signature() -> Signature {
        let dims = vec![Dim::Named("batch".into()), Dim::Fixed(1), Dim::Fixed(2), Dim::Fixed(2)];
        let input =
            Port { name: "image".into(), element: Some(ElementType::F32), dims: Some(dims), rows: None };
        Signature { inputs: vec![input], outputs: vec![] }
    }

    #[test]
    fn arrays_are_fitted_to_the_model() {
        let images: Vec<f64> = (0..12).map(|position| f64::from(position / 4)).collect();
        let labels = integers("(3,)", &[4, 5, 6]);
        let file = archive(&[
            ("input.npy", floats("(3, 1, 2, 2)", &images)),
            ("labels.npy", labels.clone()),
            ("more.npy", labels),
        ]);
        let samples = Data::read(file.path()).unwrap().fit(&signature()).unwrap();
        assert_eq!(samples.count, 3);
        assert_eq!(samples.labels.as_deref(), Some([4, 5, 6].as_slice()));
        assert_eq!(samples.unused, ["more"]);
        let cut = samples.cut(2, 2);
        assert_eq!(cut[0].element_type(), ElementType::F32);
        assert_eq!(cut[0].to_f64(), [2.0, 2.0, 2.0, 2.0, 0.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn a_row_may_be_of_several_samples() {
        let images: Vec<f64> = (0..48).map(|position| f64::from(position / 4)).collect();
        let file = archive(&[
            ("input.npy", floats("(12, 1, 2, 2)", &images)),
            ("labels.npy", integers("(6,)", &[0, 1, 2, 3, 4, 5])),
            ("expected.npy", floats("(6, 1)", &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0])),
        ]);
        let samples = Data::read(file.path()).unwrap().fit(&signature()).unwrap();
        assert_eq!((samples.count, samples.per_row), (12, 2));
        let some = samples.spread(3);
        assert_eq!((some.count, some.per_row, some.labels.as_deref()), (6, 2, Some(&[0, 2, 4][..])));
        assert_eq!(some.expected.unwrap().to_f64(), [0.0, 2.0, 4.0]);
        let firsts: Vec<f64> = some.inputs[0].to_f64().into_iter().step_by(4).collect();
        assert_eq!(firsts, [0.0, 1.0, 4.0, 5.0, 8.0, 9.0]);
    }

    #[test]
    fn misfits_are_named() {
        let error = |arrays: &[(&str, Vec<u8>)]| {
            let file = archive(arrays);
            format!("{:#}", Data::read(file.path()).unwrap().fit(&signature()).unwrap_err())
        };
        let images = floats("(3, 1, 2, 2)", &[0.0; 12]);
        let message = error(&[("img.npy", images.clone())]);
        assert!(message.contains("has no array for input `image`; it holds `img`"), "{message}");
        let message = error(&[("image.npy", floats("(3, 2, 2, 1)", &[0.0; 12]))]);
        assert!(
            message.contains("has shape [3, 2, 2, 1]; the model expects float [batch, 1, 2, 2]"),
            "{message}"
        );
        let message = error(&[("image.npy", images.clone()), ("labels.npy", integers("(2,)", &[1, 2]))]);
        assert!(message.contains("array `labels` has 2 samples; expected 3"), "{message}");
        let message = error(&[("image.npy", images), ("labels.npy", floats("(3,)", &[1.0; 3]))]);
        assert!(message.contains("expected one integer for each sample"), "{message}");
    }

    #[test]
    fn a_damaged_array_is_named() {
        let mut bytes = floats("(3, 1, 2, 2)", &[0.0; 12]);
        bytes.pop();
        let file = archive(&[("input.npy", bytes)]);
        let message = format!("{:#}", Data::read(file.path()).unwrap_err());
        assert!(message.contains("array `input`") && message.contains("but 95 bytes follow"), "{message}");
    }

    #[test]
    fn a_file_that_is_no_archive_is_named() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"no archive").unwrap();
        let message = format!("{:#}", Data::read(file.path()).unwrap_err());
        assert!(
            message.contains(&file.path().display().to_string()) && message.contains("not an .npz"),
            "{message}"
        );
    }
}
