//! What an operator sees of its node: the inputs, and the attributes with those of the function around it filled in.

use std::collections::HashMap;

use anyhow::{Context, Result, bail, ensure};
use isqrt_cov_proto::onnx::{AttributeProto, NodeProto};

use super::value::{Data, Dense, Value, declared};
use crate::runtime::Mistake;
use crate::tensor::ElementType;

/// Why a node that trains is not evaluated.
pub(super) fn for_training() -> Mistake {
    let said =
        "the model was exported for training, which is not evaluated: export it again after model.eval()";
    Mistake::Said(said.to_owned())
}

/// The attributes that a function was called with, by name.
pub(super) type Bindings<'a> = HashMap<&'a str, &'a AttributeProto>;

/// An attribute of `node`; inside a function the one that the function was called with, if it is a reference.
pub(super) fn attribute<'a>(
    node: &'a NodeProto,
    bindings: &Bindings<'a>,
    name: &str,
) -> Option<&'a AttributeProto> {
    bound(node.find(name)?, bindings)
}

/// An attribute, or the one that the function around it was called with, if it is a reference.
pub(super) fn bound<'a>(
    attribute: &'a AttributeProto,
    bindings: &Bindings<'a>,
) -> Option<&'a AttributeProto> {
    match attribute.ref_attr_name() {
        "" => Some(attribute),
        outer => bindings.get(outer).copied(),
    }
}

/// A node that is to be evaluated.
pub(super) struct Call<'c> {
    /// The node.
    pub node: &'c NodeProto,
    /// The attributes of the function around it.
    pub bindings: &'c Bindings<'c>,
    /// Its inputs, as many as the node names.
    pub inputs: &'c [Value],
    /// The version of the standard operators.
    pub opset: i64,
}

impl<'c> Call<'c> {
    /// An attribute.
    pub fn attribute(&self, name: &str) -> Option<&'c AttributeProto> {
        attribute(self.node, self.bindings, name)
    }

    /// An integer attribute.
    pub fn int(&self, name: &str, default: i64) -> i64 {
        self.attribute(name).map_or(default, AttributeProto::i)
    }

    /// A floating-point attribute.
    pub fn float(&self, name: &str, default: f64) -> f64 {
        self.attribute(name).map_or(default, |attribute| attribute.f().into())
    }

    /// A list of integers.
    pub fn ints(&self, name: &str) -> Option<&'c [i64]> {
        self.attribute(name).map(|attribute| attribute.ints.as_slice())
    }

    /// A word.
    pub fn word(&self, name: &str, default: &'static str) -> Result<&'c str> {
        let Some(attribute) = self.attribute(name) else { return Ok(default) };
        std::str::from_utf8(attribute.s()).with_context(|| format!("attribute `{name}` is not UTF-8"))
    }

    /// An attribute that names an element type.
    pub fn element(&self, name: &str) -> Result<Option<ElementType>> {
        self.attribute(name).map(|attribute| declared(i32::try_from(attribute.i())?)).transpose()
    }

    /// An input that may be left out.
    pub fn optional(&self, index: usize) -> Result<Option<&'c Dense>> {
        match self.inputs.get(index) {
            Some(Value::Tensor(tensor)) => Ok(Some(tensor)),
            Some(Value::Sequence(_)) => bail!("input {index} is a sequence where a tensor is expected"),
            Some(Value::Absent) | None => Ok(None),
        }
    }

    /// An input.
    pub fn input(&self, index: usize) -> Result<&'c Dense> {
        self.optional(index)?.with_context(|| format!("input {index} is missing"))
    }

    /// A sequence.
    pub fn sequence(&self, index: usize) -> Result<&'c [Dense]> {
        match self.inputs.get(index) {
            Some(Value::Sequence(tensors)) => Ok(tensors),
            _ => bail!("input {index} is no sequence"),
        }
    }

    /// The elements of an integer input that may be left out, whatever its shape.
    pub fn optional_integers(&self, index: usize) -> Result<Option<Vec<i64>>> {
        let Some(tensor) = self.optional(index)? else { return Ok(None) };
        Ok(Some(tensor.ints().with_context(|| format!("input {index}"))?.iter().copied().collect()))
    }

    /// The elements of an integer input, whatever its shape.
    pub fn integers(&self, index: usize) -> Result<Vec<i64>> {
        self.optional_integers(index)?.with_context(|| format!("input {index} is missing"))
    }

    /// The one element of an integer input.
    pub fn integer(&self, index: usize) -> Result<i64> {
        let values = self.integers(index)?;
        ensure!(values.len() == 1, "input {index} has {} elements where one is expected", values.len());
        Ok(values[0])
    }

    /// The one element of a number that may be left out.
    pub fn optional_number(&self, index: usize) -> Result<Option<f64>> {
        let Some(tensor) = self.optional(index)? else { return Ok(None) };
        one(tensor).with_context(|| format!("input {index}")).map(Some)
    }

    /// A list of integers that later operator sets have as an input and earlier ones as an attribute.
    pub fn ints_or_input(&self, name: &str, index: usize) -> Result<Option<Vec<i64>>> {
        match self.optional_integers(index)? {
            Some(values) => Ok(Some(values)),
            None => Ok(self.ints(name).map(<[i64]>::to_vec)),
        }
    }

    /// An axis that an attribute names.
    pub fn axis(&self, default: i64, rank: usize) -> Result<usize> {
        axis(self.int("axis", default), rank)
    }
}

/// The one element of a tensor of any type.
pub(super) fn one(tensor: &Dense) -> Result<f64> {
    let values = tensor.data.to_f64();
    ensure!(values.len() == 1, "{} elements where one is expected", values.len());
    Ok(values.iter().copied().next().unwrap_or_default())
}

/// The one boolean of a tensor.
pub(super) fn truth(tensor: &Dense) -> Result<bool> {
    let Data::Bool(values) = &tensor.data else {
        bail!("a tensor of {} is where a boolean is expected", tensor.declared.name())
    };
    ensure!(values.len() == 1, "{} booleans where one is expected", values.len());
    Ok(values.iter().copied().next().unwrap_or_default())
}

/// An axis, counted from the end where negative.
pub(super) fn axis(axis: i64, rank: usize) -> Result<usize> {
    let counted = if axis < 0 { axis.saturating_add(rank as i64) } else { axis };
    let inside = usize::try_from(counted).ok().filter(|&axis| axis < rank);
    inside.with_context(|| format!("axis {axis} of a tensor with {rank} axes"))
}

/// Axes, each at most once, in ascending order.
pub(super) fn axes(given: &[i64], rank: usize) -> Result<Vec<usize>> {
    ensure!(given.len() <= rank, "{} axes are given of a tensor that has {rank}", given.len());
    let mut axes = given.iter().map(|&given| axis(given, rank)).collect::<Result<Vec<_>>>()?;
    axes.sort_unstable();
    ensure!(axes.windows(2).all(|pair| pair[0] != pair[1]), "an axis is given twice in {given:?}");
    Ok(axes)
}

/// A size, an extent or a count.
pub(super) fn size(value: i64) -> Result<usize> {
    usize::try_from(value).with_context(|| format!("{value} is no size"))
}
