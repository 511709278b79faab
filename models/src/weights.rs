//! The weights of a trained network, by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use isqrt_cov_proto::onnx::TensorProto;
use isqrt_cov_proto::onnx::tensor_proto::DataType;
use isqrt_cov_proto::{Printable, TensorData, TensorError};
use thiserror::Error;

/// Components of names that wrappers add, for training on several devices and for compiling, and that say nothing.
const WRAPPERS: [&str; 2] = ["module", "_orig_mod"];

/// Numbers that training keeps beside the weights for itself, and no network computes with.
const KEPT: [&str; 5] = ["n_averaged", "ema_decay", "num_updates", "global_step", "epoch"];
/// The count that a batch normalization keeps, which belongs to it.
const TRACKED: &str = "num_batches_tracked";

/// Why weights cannot be used.
#[derive(Debug, Error)]
pub enum Error {
    /// Two names that differ only in what a wrapper for parallel training adds.
    #[error(
        "tensors `{}` and `{}` are both `{}` without `module.`; one of them has to go",
        Printable(first),
        Printable(second),
        Printable(name)
    )]
    Twice {
        /// The name without the wrapper's part.
        name: String,
        /// One of them.
        first: String,
        /// The other.
        second: String,
    },
    /// A tensor whose data does not fit its shape.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// A tensor with numbers that no network computes with.
    #[error(
        "tensor `{}`: {found} at element {place}; expected {expected}: no output would be a number",
        Printable(name)
    )]
    Number {
        /// Its name.
        name: String,
        /// The number.
        found: f64,
        /// Where it is.
        place: usize,
        /// What is expected.
        expected: &'static str,
    },
    /// A tensor that holds no numbers.
    #[error("tensor `{}` is {found}; expected floating-point numbers", Printable(name))]
    NotNumbers {
        /// Its name.
        name: String,
        /// Its type.
        found: String,
    },
}

/// A checkpoint's tensors and what else it says of itself.
#[derive(Debug, Clone, Default)]
pub struct Weights {
    tensors: BTreeMap<String, TensorProto>,
    /// The name in the file of each whose name was shortened.
    originals: BTreeMap<String, String>,
    /// The names in the file of tensors that hold no weights.
    left: Vec<String>,
    facts: Arc<[(String, String)]>,
}

impl Weights {
    /// The tensors of a state dict, and the words and numbers beside it. `module.`, which training on several devices adds
    /// anywhere in a name, is left out, and so is a single number that training keeps for itself.
    ///
    /// # Errors
    /// Two tensors that come to have the same name.
    pub fn new(
        tensors: impl IntoIterator<Item = TensorProto>,
        facts: Vec<(String, String)>,
    ) -> Result<Self, Error> {
        let mut weights = Self { facts: facts.into(), ..Self::default() };
        for tensor in tensors {
            let original = tensor.name().to_owned();
            if is_kept_by_training(&tensor) {
                weights.left.push(original);
                continue;
            }
            let name: Vec<&str> = original.split('.').filter(|part| !WRAPPERS.contains(part)).collect();
            let name = name.join(".");
            if weights.tensors.contains_key(&name) {
                let first = weights.original(&name).to_owned();
                return Err(Error::Twice { name, first, second: original });
            }
            if name != original {
                weights.originals.insert(name.clone(), original);
            }
            weights.tensors.insert(name, tensor);
        }
        Ok(weights)
    }

    /// The tensors of each module that at least `fewest` names begin with, under their names within it.
    #[must_use]
    pub fn modules(&self, fewest: usize) -> Vec<(String, Self)> {
        let split =
            || self.tensors.iter().filter_map(|(name, tensor)| Some((name.split_once('.')?, name, tensor)));
        let mut sizes: BTreeMap<&str, usize> = BTreeMap::new();
        split().for_each(|((module, _), ..)| *sizes.entry(module).or_default() += 1);
        let mut modules: BTreeMap<&str, Self> = BTreeMap::new();
        for ((module, rest), name, tensor) in split().filter(|((module, _), ..)| sizes[module] >= fewest) {
            let inner = modules
                .entry(module)
                .or_insert_with(|| Self { facts: Arc::clone(&self.facts), ..Self::default() });
            inner.originals.insert(rest.to_owned(), self.original(name).to_owned());
            inner.tensors.insert(rest.to_owned(), tensor.clone());
        }
        modules.into_iter().map(|(module, inner)| (module.to_owned(), inner)).collect()
    }

    /// The names, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The names in the file of tensors that were left out, as they hold no weights.
    #[must_use]
    pub fn left(&self) -> &[String] {
        &self.left
    }

    /// How many tensors there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// The name in the file of the tensor that is called `name` here.
    #[must_use]
    pub fn original<'a>(&'a self, name: &'a str) -> &'a str {
        self.originals.get(name).map_or(name, String::as_str)
    }

    /// The tensor called `name`.
    #[must_use]
    pub fn tensor(&self, name: &str) -> Option<&TensorProto> {
        self.tensors.get(name)
    }

    /// The shape of the tensor called `name`.
    #[must_use]
    pub fn dims(&self, name: &str) -> Option<&[i64]> {
        self.tensor(name).map(|tensor| tensor.dims.as_slice())
    }

    /// What the checkpoint says of itself under `key`.
    #[must_use]
    pub fn fact(&self, key: &str) -> Option<&str> {
        self.facts.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// The numbers of the tensor called `name`, in float64.
    ///
    /// # Errors
    /// No such tensor, or one that is damaged or holds no numbers.
    pub fn values(&self, name: &str) -> Result<Vec<f64>, Error> {
        let data = self.data(name)?;
        let mut values = Vec::with_capacity(data.dims().iter().product());
        self.show(name, &data, |_, value| values.push(value))?;
        Ok(values)
    }

    /// Checks that every number of the tensor called `name` is finite in float32 and at least `least`.
    ///
    /// # Errors
    /// One that is not; as [`Weights::values`].
    pub fn check(&self, name: &str, least: f64, expected: &'static str) -> Result<(), Error> {
        let mut wrong = None;
        self.each(name, |place, value| {
            let fits = value.abs() <= f64::from(f32::MAX) && value >= least;
            if !fits && wrong.is_none() {
                wrong = Some((place, value));
            }
        })?;
        match wrong {
            None => Ok(()),
            Some((place, found)) => {
                Err(Error::Number { name: self.original(name).to_owned(), found, place, expected })
            }
        }
    }

    /// Shows the numbers of the tensor called `name` one after the other, with their places.
    ///
    /// # Errors
    /// As [`Weights::values`].
    pub fn each(&self, name: &str, show: impl FnMut(usize, f64)) -> Result<(), Error> {
        self.show(name, &self.data(name)?, show)
    }

    fn data(&self, name: &str) -> Result<TensorData, Error> {
        let tensor = self.tensor(name).ok_or_else(|| self.not_numbers(name, "missing"))?;
        Ok(TensorData::inline(tensor)?)
    }

    fn show(&self, name: &str, data: &TensorData, show: impl FnMut(usize, f64)) -> Result<(), Error> {
        data.each_float(show).ok_or_else(|| self.not_numbers(name, data.data_type().as_str_name()))
    }

    fn not_numbers(&self, name: &str, found: &str) -> Error {
        Error::NotNumbers { name: self.original(name).to_owned(), found: found.to_owned() }
    }
}

/// Whether a tensor is a single number that is called as training calls its own, or a count: no integers are trained.
fn is_kept_by_training(tensor: &TensorProto) -> bool {
    let last = tensor.name().rsplit('.').next().unwrap_or_default();
    let is_count = || matches!(DataType::try_from(tensor.data_type()), Ok(DataType::Int32 | DataType::Int64));
    tensor.dims.iter().all(|&dim| dim == 1) && last != TRACKED && (KEPT.contains(&last) || is_count())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> TensorProto {
        TensorProto::from_values(name, &[1], &[1.0_f32])
    }

    #[test]
    fn the_wrapper_is_left_out_wherever_it_stands() {
        let tensors = ["module.conv1.weight", "features.module.0.weight", "my.modules.weight"].map(named);
        let weights = Weights::new(tensors, vec![]).unwrap();
        let names: Vec<&str> = weights.names().collect();
        assert_eq!(names, ["conv1.weight", "features.0.weight", "my.modules.weight"]);
        assert_eq!(weights.original("features.0.weight"), "features.module.0.weight");
        assert_eq!(weights.original("my.modules.weight"), "my.modules.weight");
    }

    #[test]
    fn modules_are_taken_out_of_what_is_around_them() {
        let names = ["net.conv1.weight", "net.module.fc.bias", "loss.weight", "scale"];
        let weights = Weights::new(names.map(named), vec![]).unwrap();
        let modules = weights.modules(2);
        let [(module, inner)] = &modules[..] else { panic!("{modules:?}") };
        assert_eq!(module, "net");
        assert_eq!(inner.names().collect::<Vec<_>>(), ["conv1.weight", "fc.bias"]);
        assert_eq!(inner.original("fc.bias"), "net.module.fc.bias");
        assert_eq!(weights.modules(1).len(), 2);
    }

    #[test]
    fn counts_of_averaged_steps_are_no_weights() {
        let matrix = TensorProto::from_values("b.n_averaged", &[2], &[1.0_f32, 2.0]);
        let tensors = ["n_averaged", "a.n_averaged", "a.weight"].map(named).into_iter().chain([matrix]);
        let weights = Weights::new(tensors, vec![]).unwrap();
        assert_eq!(weights.names().collect::<Vec<_>>(), ["a.weight", "b.n_averaged"]);
    }

    #[test]
    fn names_that_become_one_are_refused() {
        let error = Weights::new(["a.module.b", "module.a.b"].map(named), vec![]).unwrap_err().to_string();
        assert!(error.contains("`a.module.b` and `module.a.b` are both `a.b`"), "{error}");
    }
}
