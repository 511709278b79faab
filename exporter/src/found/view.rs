//! How an operator reads a value of a graph: with its axes in another order, or with several of them, or none, counting samples.

use crate::tensor::Tensor;

/// Views that are tried of one value, at most, beyond the usual ones.
const MOST: usize = 4;

/// Axes of a value that is viewed in other orders, at most.
const MOST_AXES: usize = 8;

/// How an operator reads a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// The value's axes as the operator has them; none where that is their own order.
    pub order: Option<Vec<usize>>,
    /// How many of the first axes, in that order, count samples: the operator reads them as one. Without any, all is one sample.
    pub samples: usize,
}

/// The value itself.
pub static AS_IS: View = View { order: None, samples: 1 };

impl View {
    /// The second axis counts samples as well.
    #[must_use]
    pub fn grouped() -> Self {
        Self { order: None, samples: 2 }
    }

    /// Whether the operator reads the value itself.
    #[must_use]
    pub fn is_as_is(&self) -> bool {
        *self == AS_IS
    }

    /// Whether a value of this shape can be viewed so.
    #[must_use]
    pub fn takes(&self, dims: &[usize]) -> bool {
        self.samples <= dims.len() && self.order.as_ref().is_none_or(|order| order.len() == dims.len())
    }

    /// A shape in the operator's order.
    #[must_use]
    pub fn ordered(&self, dims: &[usize]) -> Vec<usize> {
        match &self.order {
            Some(order) => order.iter().map(|&axis| dims[axis]).collect(),
            None => dims.to_vec(),
        }
    }

    /// The sizes of the axes that count samples.
    #[must_use]
    pub fn counts(&self, dims: &[usize]) -> Vec<usize> {
        let mut sizes = self.ordered(dims);
        sizes.truncate(self.samples);
        sizes
    }

    /// The sizes of those beside the first, where there are such.
    #[must_use]
    pub fn groups(&self, dims: &[usize]) -> Option<Vec<usize>> {
        (self.samples > 1).then(|| self.counts(dims).split_off(1))
    }

    /// The first axis of a value that counts samples, as the graph has it.
    #[must_use]
    pub fn batch_axis(&self) -> Option<usize> {
        (self.samples > 0).then(|| self.order.as_ref().map_or(0, |order| order[0]))
    }

    /// The shape of what the operator reads where the graph has a value of this one.
    #[must_use]
    pub fn own_dims(&self, dims: &[usize]) -> Vec<usize> {
        self.merged(&self.ordered(dims))
    }

    /// What the operator reads where the graph has this.
    #[must_use]
    pub fn own(&self, value: Tensor) -> Tensor {
        if self.is_as_is() || !self.takes(value.dims()) {
            return value;
        }
        let value = match &self.order {
            Some(order) => value.permuted(order),
            None => value,
        };
        value.reshaped(&self.merged(value.dims()))
    }

    /// What the graph has, of shape `dims`, where the operator reads this.
    #[must_use]
    pub fn given(&self, own: &Tensor, dims: &[usize]) -> Tensor {
        let ordered = own.reshaped(&self.ordered(dims));
        self.order_back().map_or_else(|| ordered.clone(), |order| ordered.permuted(&order))
    }

    /// The order that makes the value's own of the operator's; none where they are the same.
    #[must_use]
    pub fn order_back(&self) -> Option<Vec<usize>> {
        let order = self.order.as_ref()?;
        let mut back = vec![0; order.len()];
        order.iter().enumerate().for_each(|(at, &axis)| back[axis] = at);
        Some(back)
    }

    /// A shape in the operator's order with the axes that count samples as one.
    #[must_use]
    pub fn merged(&self, ordered: &[usize]) -> Vec<usize> {
        let (samples, rest) = ordered.split_at(self.samples.min(ordered.len()));
        [&[samples.iter().product()], rest].concat()
    }

    /// Whether a value of shape `output` has the axes that count samples in an input of shape `input` apart from one another, or has
    /// none, as the input.
    #[must_use]
    pub fn is_apart(&self, input: &[usize], output: &[usize]) -> bool {
        self.samples != 1 && output.len() > self.samples && output[..self.samples] == self.counts(input)
    }
}

/// The views, simple ones first, in which a value of shape `dims` may be features whose product with themselves is of shape
/// `product`: its first axes count samples, the others channels.
///
/// The order of positions makes no difference, and the axes that count samples stay in theirs.
#[must_use]
pub fn views(dims: &[usize], product: &[usize]) -> Vec<View> {
    let [samples @ .., rows, columns] = product else { return Vec::new() };
    if rows != columns || dims.len() > MOST_AXES {
        return Vec::new();
    }
    let mut views: Vec<View> = Vec::new();
    for counted in 0..1_usize << dims.len() {
        let (counts, others): (Vec<usize>, Vec<usize>) =
            (0..dims.len()).partition(|axis| counted >> axis & 1 == 1);
        let number = |sizes: &[usize]| sizes.iter().product::<usize>();
        let sizes: Vec<usize> = counts.iter().map(|&axis| dims[axis]).collect();
        if counts.is_empty() != samples.is_empty() || number(&sizes) != number(samples) || others.len() < 2 {
            continue;
        }
        for &channels in others.iter().filter(|&&axis| dims[axis] == *rows) {
            let positions: Vec<usize> = others.iter().copied().filter(|&axis| axis != channels).collect();
            let is_last = channels + 1 == dims.len();
            let rest = if is_last { [positions, vec![channels]] } else { [vec![channels], positions] };
            let order = [counts.clone(), rest.concat()].concat();
            let is_own = order.iter().copied().eq(0..dims.len());
            let view = View { order: (!is_own).then_some(order), samples: counts.len() };
            if !views.contains(&view) {
                views.push(view);
            }
        }
    }
    // Axes of the same sizes as the product's are rather those than others of which as many samples come.
    views.sort_by_key(|view| (view.order.is_some(), view.counts(dims) != samples, view.samples));
    views.retain(|view| !view.is_as_is() && *view != View::grouped());
    views.truncate(MOST);
    views
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::ElementType;

    fn ordered(order: &[usize], samples: usize) -> View {
        View { order: Some(order.to_vec()), samples }
    }

    #[test]
    fn products_tell_which_axes_count_samples_and_which_channels() {
        // Heads behind tokens, frames in front of channels, interleaved groups, tokens in front of the batch.
        assert_eq!(views(&[3, 16, 2, 8], &[3, 2, 8, 8]), [ordered(&[0, 2, 1, 3], 2)]);
        assert_eq!(views(&[2, 3, 8, 5, 4], &[2, 8, 8]), [ordered(&[0, 2, 1, 3, 4], 1)]);
        assert_eq!(views(&[2, 4, 3, 30], &[2, 3, 4, 4]), [ordered(&[0, 2, 1, 3], 2)]);
        assert_eq!(views(&[16, 2, 8], &[2, 8, 8]), [ordered(&[1, 0, 2], 1)]);
        // Two more axes, or none.
        assert_eq!(views(&[3, 2, 5, 10, 16], &[3, 2, 5, 10, 10]), [View { order: None, samples: 3 }]);
        assert_eq!(views(&[12, 30], &[12, 12]), [View { order: None, samples: 0 }]);
        assert_eq!(views(&[30, 12], &[12, 12]), [View { order: None, samples: 0 }]);
        // What is tried in any case, and what is none.
        assert_eq!(views(&[2, 12, 30], &[2, 12, 12]), []);
        assert_eq!(views(&[2, 3, 12, 30], &[2, 3, 12, 12]), []);
        assert_eq!(views(&[2, 12, 30], &[2, 12, 30]), []);
        assert_eq!(views(&[2, 12, 30], &[2, 7, 7]), []);
    }

    #[test]
    fn what_an_operator_reads_is_made_back_to_what_the_graph_has() {
        let dims = [2, 3, 2, 4];
        let numbers: Vec<f64> = (0..48).map(f64::from).collect();
        let value = Tensor::from_f64(ElementType::F64, &dims, &numbers);
        for view in
            [AS_IS.clone(), View::grouped(), View { order: None, samples: 0 }, ordered(&[0, 2, 1, 3], 2)]
        {
            let own = view.own(value.clone());
            assert_eq!(own.dims(), view.own_dims(&dims));
            assert_eq!(view.given(&own, &dims).to_f64(), numbers);
        }
        // An order that is not its own reverse.
        let turned = ordered(&[3, 0, 2, 1], 2);
        let own = turned.own(value.clone());
        assert_eq!((own.dims(), turned.order_back()), (&[8, 2, 3][..], Some(vec![1, 3, 2, 0])));
        assert_eq!(turned.given(&own, &dims).to_f64(), numbers);
        let own = ordered(&[0, 2, 1, 3], 2).own(value);
        assert_eq!(own.dims(), [4, 3, 4]);
        assert_eq!(own.to_f64()[..8], [0., 1., 2., 3., 8., 9., 10., 11.]);
    }

    #[test]
    fn a_view_is_of_as_many_axes_as_it_orders_or_counts() {
        assert!(View::grouped().takes(&[2, 3]) && !View::grouped().takes(&[2]));
        let order = ordered(&[1, 0, 2], 1);
        assert!(order.takes(&[2, 3, 4]) && !order.takes(&[2, 3]) && !order.takes(&[2, 3, 4, 5]));
    }

    #[test]
    fn the_batch_is_the_first_axis_that_counts_samples_and_groups_are_the_others() {
        let counting = |view: &View| (view.batch_axis(), view.groups(&[2, 3, 5, 4]));
        assert_eq!(counting(&View { order: None, samples: 0 }), (None, None));
        assert_eq!(counting(&AS_IS), (Some(0), None));
        assert_eq!(counting(&ordered(&[3, 0, 2, 1], 2)), (Some(3), Some(vec![2])));
    }

    #[test]
    fn samples_are_apart_where_the_output_has_their_axes() {
        let grouped = View::grouped();
        assert!(grouped.is_apart(&[2, 3, 8, 5], &[2, 3, 36]));
        assert!(!grouped.is_apart(&[2, 3, 8, 5], &[3, 2, 36]) && !grouped.is_apart(&[2, 3, 8, 5], &[6, 36]));
        assert!(!grouped.is_apart(&[2, 3, 8, 5], &[2, 3]), "nothing is left for a sample");
        assert!(!AS_IS.is_apart(&[2, 8, 5], &[2, 36]));
        assert!(View { order: None, samples: 0 }.is_apart(&[8, 5], &[36]));
    }
}
