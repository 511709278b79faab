//! Sums of products, as a formula says.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use ndarray::{Axis, IxDyn};

use super::call::Call;
use super::layout::permuted_array;
use super::matrix::product;
use super::value::{Array, Dense, elements, reshaped};

/// An index of the formula; an axis of an ellipsis is `256` plus its place from the right.
type Label = u32;

const ELLIPSIS: Label = 256;

/// A tensor with an index for each axis, each at most once.
struct Term {
    labels: Vec<Label>,
    values: Array<f64>,
}

/// The sum of products that the formula `equation` says.
pub(super) fn einsum(call: &Call) -> Result<Dense> {
    let equation: String =
        call.word("equation", "")?.chars().filter(|letter| !letter.is_whitespace()).collect();
    let (left, right) = match equation.split_once("->") {
        Some((left, right)) => (left, Some(right)),
        None => (equation.as_str(), None),
    };
    let formulas: Vec<&str> = left.split(',').collect();
    let count = call.inputs.len();
    ensure!(formulas.len() == count && count > 0, "`{equation}` with {count} inputs");
    let mut terms = Vec::with_capacity(count);
    let mut uses = BTreeMap::new();
    let mut widest = 0;
    for (index, formula) in formulas.iter().enumerate() {
        let values = call.input(index)?.data.to_f64();
        let (labels, wide) = labelled(formula, Some(values.ndim()), 0)?;
        ensure!(labels.len() == values.ndim(), "`{formula}` for a tensor with {} axes", values.ndim());
        labels.iter().for_each(|&label| *uses.entry(label).or_insert(0) += 1);
        widest = widest.max(wide);
        terms.push(diagonal(Term { labels, values })?);
    }
    let output = if let Some(right) = right {
        labelled(right, None, widest)?.0
    } else {
        let ellipsis = (0..widest).rev().map(|place| ELLIPSIS + place as Label);
        let once = uses.iter().filter(|&(&label, &uses)| label < ELLIPSIS && uses == 1);
        ellipsis.chain(once.map(|(&label, _)| label)).collect()
    };
    let distinct = output.iter().enumerate().all(|(at, label)| !output[..at].contains(label));
    ensure!(
        distinct && output.iter().all(|label| uses.contains_key(label)),
        "`{equation}` has no such output"
    );
    narrowed(&mut terms)?;
    let declared = call.input(0)?.declared;
    let mut terms = terms.into_iter();
    let mut sum = terms.next().context("there are no inputs")?;
    let rest: Vec<Term> = terms.collect();
    for (index, next) in rest.iter().enumerate() {
        let later = |label: &Label| {
            output.contains(label) || rest[index + 1..].iter().any(|term| term.labels.contains(label))
        };
        sum = contracted(sum, next, &later)?;
    }
    let sum = summed(sum, &|label| output.contains(label));
    let place = |label: &Label| sum.labels.iter().position(|own| own == label);
    let order: Option<Vec<usize>> = output.iter().map(place).collect();
    let values = permuted_array(&sum.values, &order.context("an index of the output is lost")?)?;
    let data = super::value::Data::Float(values);
    Ok(Dense::new(declared, if declared.is_float() { data } else { data.cast(declared) }))
}

/// The indices of a term, and how many axes its ellipsis has: what is left of `rank`, or `wide`.
fn labelled(formula: &str, rank: Option<usize>, wide: usize) -> Result<(Vec<Label>, usize)> {
    let letters = formula.replace("...", "");
    let wide = match (formula.contains("..."), rank) {
        (false, _) => 0,
        (true, None) => wide,
        (true, Some(rank)) => rank.checked_sub(letters.len()).context("there are more indices than axes")?,
    };
    let mut labels = Vec::new();
    for letter in formula.replacen("...", ".", 1).chars() {
        match letter {
            '.' => labels.extend((0..wide).rev().map(|place| ELLIPSIS + place as Label)),
            letter if letter.is_ascii_alphabetic() => labels.push(letter.into()),
            other => bail!("`{other}` is no index"),
        }
    }
    Ok((labels, wide))
}

/// An index that a term has twice runs along the diagonal.
fn diagonal(mut term: Term) -> Result<Term> {
    while let Some((first, second)) = (0..term.labels.len()).find_map(|second| {
        let first = term.labels[..second].iter().position(|label| *label == term.labels[second])?;
        Some((first, second))
    }) {
        let shape = term.values.shape();
        ensure!(shape[first] == shape[second], "an index has sizes {} and {}", shape[first], shape[second]);
        let length = shape[first];
        let mut dims = shape.to_vec();
        dims.remove(second);
        let mut made = ndarray::ArrayD::zeros(IxDyn(&dims));
        for at in 0..length {
            let plane = term.values.index_axis(Axis(second), at);
            made.index_axis_mut(Axis(first), at).assign(&plane.index_axis(Axis(first), at));
        }
        term.values = made.into_shared();
        term.labels.remove(second);
    }
    Ok(term)
}

/// An axis of size 1 against a longer one of the same index is as good as none.
fn narrowed(terms: &mut [Term]) -> Result<()> {
    let mut sizes: BTreeMap<Label, usize> = BTreeMap::new();
    for term in terms.iter() {
        for (&label, &size) in term.labels.iter().zip(term.values.shape()) {
            let known = sizes.entry(label).or_insert(size);
            ensure!(*known == size || *known == 1 || size == 1, "an index has sizes {known} and {size}");
            if *known == 1 {
                *known = size;
            }
        }
    }
    for term in terms {
        for at in (0..term.labels.len()).rev() {
            if term.values.shape()[at] == 1 && sizes[&term.labels[at]] != 1 {
                term.values = term.values.index_axis(Axis(at), 0).to_shared();
                term.labels.remove(at);
            }
        }
    }
    Ok(())
}

/// The term summed over the indices that are not to stay.
fn summed(mut term: Term, stays: &dyn Fn(&Label) -> bool) -> Term {
    for at in (0..term.labels.len()).rev() {
        if !stays(&term.labels[at]) {
            term.values = term.values.sum_axis(Axis(at)).into_shared();
            term.labels.remove(at);
        }
    }
    term
}

/// The product of two terms, summed over the indices that nobody needs later, as a batch of matrix products.
fn contracted(left: Term, right: &Term, later: &dyn Fn(&Label) -> bool) -> Result<Term> {
    let left = summed(left, &|label| later(label) || right.labels.contains(label));
    let right = Term { labels: right.labels.clone(), values: right.values.clone() };
    let right = summed(right, &|label| later(label) || left.labels.contains(label));
    let both = |label: &Label| left.labels.contains(label) && right.labels.contains(label);
    let pick = |from: &Term, keep: &dyn Fn(&Label) -> bool| -> Vec<Label> {
        from.labels.iter().copied().filter(|label| keep(label)).collect()
    };
    let batch = pick(&left, &|label| both(label) && later(label));
    let inner = pick(&left, &|label| both(label) && !later(label));
    let rows = pick(&left, &|label| !both(label));
    let columns = pick(&right, &|label| !both(label));
    let size = |term: &Term, labels: &[Label]| -> usize {
        let along =
            |label| term.labels.iter().position(|own| own == label).map_or(1, |at| term.values.shape()[at]);
        labels.iter().map(along).product()
    };
    let arranged = |term: &Term, groups: [&[Label]; 3]| -> Result<Array<f64>> {
        let order: Vec<usize> = groups
            .concat()
            .iter()
            .filter_map(|label| term.labels.iter().position(|own| own == label))
            .collect();
        reshaped(&permuted_array(&term.values, &order)?, &groups.map(|group| size(term, group)))
    };
    let labels = [&batch[..], &rows, &columns].concat();
    let dims: Vec<usize> = labels
        .iter()
        .map(
            |&label| {
                if left.labels.contains(&label) { size(&left, &[label]) } else { size(&right, &[label]) }
            },
        )
        .collect();
    elements(&dims)?;
    let made =
        product(&arranged(&left, [&batch, &rows, &inner])?, &arranged(&right, [&batch, &inner, &columns])?)?;
    Ok(Term { labels, values: reshaped(&made, &dims)? })
}

#[cfg(test)]
mod tests {
    use isqrt_cov_proto::onnx::{AttributeProto, NodeProto};

    use crate::evaluate::tests::{floats, one};
    use crate::tensor::Tensor;

    fn einsum(equation: &str, inputs: &[Tensor]) -> anyhow::Result<Tensor> {
        let names: Vec<&str> = ["a", "b", "c"][..inputs.len()].to_vec();
        let node =
            NodeProto::new("Einsum", &names, &["y"]).with(AttributeProto::string("equation", equation));
        one(node, 12, inputs)
    }

    #[test]
    fn indices_are_summed_kept_and_repeated() {
        let a = || floats(&[2, 2], &[1.0, 2.0, 3.0, 4.0]);
        let b = || floats(&[2, 2], &[5.0, 6.0, 7.0, 8.0]);
        assert_eq!(einsum("ii", &[a()]).unwrap().to_f64(), [5.0]);
        assert_eq!(einsum("ii->i", &[a()]).unwrap().to_f64(), [1.0, 4.0]);
        assert_eq!(einsum("ij->ji", &[a()]).unwrap().to_f64(), [1.0, 3.0, 2.0, 4.0]);
        assert_eq!(einsum("ij, jk -> ik", &[a(), b()]).unwrap().to_f64(), [19.0, 22.0, 43.0, 50.0]);
        // Without an output: the indices that are there once, in alphabetical order.
        assert_eq!(einsum("ba", &[a()]).unwrap().to_f64(), [1.0, 3.0, 2.0, 4.0]);
        assert_eq!(einsum("...ij,...kj->...ik", &[a(), b()]).unwrap().to_f64(), [17.0, 23.0, 39.0, 53.0]);
        assert_eq!(einsum("ij,ij,ij->", &[a(), b(), a()]).unwrap().to_f64(), [220.0]);
    }

    #[test]
    fn formulas_that_do_not_fit_are_refused() {
        let a = || floats(&[2, 3], &[0.0; 6]);
        for wrong in ["ii", "ij->k", "ij->ii", "i", "ijk", "ij,jk", "", "1j", "...ijk", "->", "i....j"] {
            assert!(einsum(wrong, &[a()]).is_err(), "{wrong}");
        }
    }
}
