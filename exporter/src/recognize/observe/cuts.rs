//! The values of a region that could be an operator's output, as they are when it is evaluated.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use isqrt_cov_proto::onnx::ModelProto;

use super::subject::Subject;
use crate::evaluate::Watcher;
use crate::graph::ValueId;
use crate::recognize::propose::region::Region;
use crate::runtime::Runtime;
use crate::scope::Scope;
use crate::tensor::{ElementType, Tensor};

/// A value of a region.
#[derive(Debug)]
pub struct Cut {
    /// The value.
    pub value: ValueId,
    /// What it was for each batch of probes, the samples first and groups among them.
    pub outputs: Vec<Tensor>,
    /// Its shape in the graph.
    pub dims: Vec<usize>,
    /// Whether something outside of the region reads it.
    pub leaves: bool,
}

/// Elements of a region's values that are kept, at most.
const MOST_KEPT: usize = 1 << 27;

/// The values of a region, with an input of the shape `input`, that were seen in all `runs`, in the order in which explanations
/// are tried, how many of them all goes through, and the matrices beside them.
pub fn in_order(
    region: &Region,
    input: &[usize],
    mut seen: HashMap<ValueId, Vec<Tensor>>,
    mut shapes: HashMap<ValueId, Vec<usize>>,
    runs: usize,
) -> (Vec<Cut>, usize, Vec<Cut>) {
    seen.retain(|_, outputs| outputs.len() == runs);
    let mut take = |values: &[ValueId]| -> Vec<Cut> {
        let cut = |&value: &ValueId| {
            let outputs = seen.remove(&value)?;
            let dims = shapes.remove(&value).unwrap_or_else(|| outputs[0].dims().to_vec());
            Some(Cut { value, outputs, dims, leaves: region.exits.contains(&value) })
        };
        values.iter().rev().filter_map(cut).collect()
    };
    let mut cuts = take(&region.cuts);
    let through = cuts.len();
    let others = take(&region.others).into_iter();
    let (triangles, matrices): (Vec<_>, Vec<_>) =
        others.partition(|cut| is_triangle(input, cut.outputs[0].dims()));
    cuts.extend(triangles);
    (cuts, through, matrices)
}

/// Keeps the values of a region that have the input's element type and could be an operator's output, and tells which have one
/// number a sample.
pub struct Cuts<'a> {
    subject: &'a Subject<'a>,
    /// Values through which all goes that leaves the region on some way.
    through: HashSet<ValueId>,
    wanted: HashMap<&'a str, ValueId>,
    /// Whether the matrices that are no cuts are done.
    done: HashMap<ValueId, bool>,
    /// Elements of what is kept.
    kept: usize,
    /// What is kept, for each batch of probes.
    pub seen: HashMap<ValueId, Vec<Tensor>>,
    /// The shapes of what is kept, as the graph has them.
    pub shapes: HashMap<ValueId, Vec<usize>>,
    /// The values of one number a sample.
    pub scalars: HashSet<ValueId>,
}

impl<'a> Cuts<'a> {
    /// Nothing seen yet of a region of this subject.
    pub fn new(subject: &'a Subject<'a>, region: &Region) -> Self {
        let names = &subject.place.flow.names;
        let values = region.cuts.iter().chain(&region.others);
        Self {
            subject,
            through: region.cuts.iter().copied().collect(),
            wanted: values.map(|&value| (names[value], value)).collect(),
            done: HashMap::new(),
            kept: 0,
            seen: HashMap::new(),
            shapes: HashMap::new(),
            scalars: HashSet::new(),
        }
    }

    /// Whether a value of these sizes is kept.
    fn keeps(&mut self, id: ValueId, dims: &[usize]) -> bool {
        let Self { subject, through, done, .. } = self;
        let input = subject.dims();
        let is_useful = could_be_output(&input, dims)
            && (through.contains(&id)
                || is_triangle(&input, dims)
                || *done.entry(id).or_insert_with(|| subject.is_done(id)));
        if is_useful {
            self.kept += dims.iter().product::<usize>();
        }
        is_useful && self.kept <= MOST_KEPT
    }
}

impl Watcher for Cuts<'_> {
    fn wants(&self, scope: &Scope, name: &str) -> bool {
        scope.is_main() && self.wanted.contains_key(name)
    }

    fn saw(&mut self, _: &Scope, name: &str, value: &Tensor, declared: ElementType) {
        let Some(&id) = self.wanted.get(name) else { return };
        if declared == self.subject.seen.element {
            let dims = self.subject.own_dims(value.dims());
            if self.keeps(id, &dims) {
                self.shapes.insert(id, value.dims().to_vec());
                self.seen.entry(id).or_default().push(self.subject.own_output(value.clone()));
            }
        }
        if value.dims().iter().product::<usize>() == self.subject.dims()[0] {
            self.scalars.insert(id);
        }
    }
}

/// What a runtime gives of the `cuts` that could be an operator's output, in the input's element type.
pub fn evaluate_in(
    runtime: &dyn Runtime,
    part: &Arc<ModelProto>,
    cuts: &[ValueId],
    element: ElementType,
    probes: &[Tensor],
) -> Option<HashMap<ValueId, Vec<Tensor>>> {
    let input = probes[0].dims();
    let session = runtime.prepare(part, &[input.to_vec()]).ok()?;
    let mut seen: HashMap<ValueId, Vec<Tensor>> = HashMap::new();
    for probe in probes {
        let outputs = session.run(std::slice::from_ref(probe)).ok()?;
        for (&cut, output) in cuts.iter().zip(outputs) {
            if output.element_type() == element && could_be_output(input, output.dims()) {
                seen.entry(cut).or_default().push(output);
            }
        }
    }
    Some(seen)
}

/// How many rows a matrix over some axis of `input` may have.
fn sides(input: &[usize]) -> [usize; 2] {
    [input[1], input[input.len() - 1]]
}

/// Whether an output of shape `output` has as many numbers a sample as a triangle over some axis of `input`, and not as a matrix.
pub fn is_triangle(input: &[usize], output: &[usize]) -> bool {
    let per_sample: usize = output.iter().skip(1).product();
    may_be_triangle(input, per_sample) && !sides(input).iter().any(|side| per_sample == side * side)
}

/// Whether a triangle over some axis of `input` has so many numbers.
fn may_be_triangle(input: &[usize], numbers: usize) -> bool {
    sides(input).iter().any(|side| numbers == side * (side + 1) / 2)
}

/// Whether an output of shape `output` is triangles, one in each column.
pub fn has_samples_last(input: &[usize], output: &[usize]) -> bool {
    let [entries, samples] = output[..] else { return false };
    !could_be_output(input, output) && samples == input[0] && may_be_triangle(input, entries)
}

/// Whether an output of shape `output` has as many numbers a sample as a matrix or a triangle over some axis of `input`.
fn could_be_output(input: &[usize], output: &[usize]) -> bool {
    let per_sample: usize = output.iter().skip(1).product();
    output.first() == input.first()
        && (may_be_triangle(input, per_sample) || sides(input).iter().any(|side| per_sample == side * side))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_triangle_may_have_as_many_numbers_as_another_matrix() {
        // 36 are the triangle of 8 channels, and a matrix of 6.
        assert!(is_triangle(&[2, 8, 5, 7], &[2, 36]));
        assert!(!is_triangle(&[2, 8, 5, 6], &[2, 36]));
        assert!(!is_triangle(&[2, 8, 5, 7], &[2, 64]));
        assert!(has_samples_last(&[2, 8, 5, 6], &[36, 2]));
        assert!(!has_samples_last(&[2, 8, 5, 6], &[2, 36]) && !has_samples_last(&[2, 8, 5, 6], &[37, 2]));
    }
}
