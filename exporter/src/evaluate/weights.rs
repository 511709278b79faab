//! Products with matrices of weights, which are read piece by piece: decoded whole, they would take twice the room that
//! the model takes for them.

use std::borrow::Cow;
use std::ops::Range;

use anyhow::{Context, Result, ensure};
use isqrt_cov_proto::TensorData;
use isqrt_cov_proto::onnx::TensorProto;
use ndarray::linalg::{general_mat_mul, general_mat_vec_mul};
use ndarray::{Array2, ArrayView2, Ix2, LinalgScalar, s};

use super::Precision;
use super::call::Call;
use super::matrix::{gemm_of, turned};
use super::value::{Array, Dense, Value, array, declared, elements, flat, reshaped};
use crate::budget::spend;
use crate::tensor::ElementType;

/// Elements from which on a matrix counts as large.
const LARGE: usize = 1 << 20;

/// Elements of a piece, about: what a core keeps near.
const PIECE: usize = 1 << 18;

/// Columns up to which a product is made column by column: rearranging the weights for a product of matrices would take
/// longer than the product.
const FEW: usize = 4;

/// What products are computed in.
pub(super) trait Number: LinalgScalar {
    /// The nearest number.
    fn nearest(value: f64) -> Self;

    /// The same number.
    fn widened(self) -> f64;

    /// Weights, where they lie if they are stored so.
    fn read(data: &TensorData) -> Option<Cow<'_, [Self]>>;
}

impl Number for f32 {
    fn nearest(value: f64) -> Self {
        value as Self
    }

    fn widened(self) -> f64 {
        self.into()
    }

    fn read(data: &TensorData) -> Option<Cow<'_, [Self]>> {
        let rounded = || Some(data.to_f64()?.into_iter().map(Self::nearest).collect());
        data.in_place().map(Cow::Borrowed).or_else(|| data.values().or_else(rounded).map(Cow::Owned))
    }
}

impl Number for f64 {
    fn nearest(value: f64) -> Self {
        value
    }

    fn widened(self) -> f64 {
        self
    }

    fn read(data: &TensorData) -> Option<Cow<'_, [Self]>> {
        data.in_place().map(Cow::Borrowed).or_else(|| data.to_f64().map(Cow::Owned))
    }
}

/// Whether products of values of this type are rounded to float32 as runtimes round them, in less than half the time.
pub(super) fn in_float32(precision: Precision, element: ElementType) -> bool {
    precision == Precision::Declared && element != ElementType::F64
}

/// Weights as a matrix: the first axis are the rows, all others the columns.
pub(super) struct Weights<'a> {
    rows: usize,
    columns: usize,
    elements: Elements<'a>,
}

enum Elements<'a> {
    Stored(TensorData),
    Computed(Cow<'a, [f64]>),
}

impl<'a> Weights<'a> {
    /// Of a constant.
    pub fn stored(tensor: &TensorProto) -> Result<Self> {
        let data = TensorData::inline(tensor)?;
        let (&rows, columns) = data.dims().split_first().context("a scalar is no matrix")?;
        Ok(Self { rows, columns: columns.iter().product(), elements: Elements::Stored(data) })
    }

    /// Of a value.
    pub fn computed(values: &'a Array<f64>) -> Result<Self> {
        let (&rows, columns) = values.shape().split_first().context("a scalar is no matrix")?;
        Ok(Self { rows, columns: columns.iter().product(), elements: Elements::Computed(flat(values)) })
    }

    /// Some rows · `right`.
    pub fn times<T: Number>(&self, rows: Range<usize>, right: &ArrayView2<T>) -> Result<Array2<T>> {
        let mut made = Array2::zeros((rows.len(), right.ncols()));
        let first = rows.start;
        self.by_pieces(rows, |at, piece| {
            let mut made = made.slice_mut(s![at.start - first..at.end - first, ..]);
            if right.ncols() > FEW {
                general_mat_mul(T::one(), &piece, right, T::zero(), &mut made);
                return;
            }
            for (column, mut made) in right.columns().into_iter().zip(made.columns_mut()) {
                general_mat_vec_mul(T::one(), &piece, &column, T::zero(), &mut made);
            }
        })?;
        Ok(made)
    }

    /// All rows, transposed, · `right`.
    fn transposed_times<T: Number>(&self, right: &ArrayView2<T>) -> Result<Array2<T>> {
        let mut made = Array2::zeros((self.columns, right.ncols()));
        self.by_pieces(0..self.rows, |at, piece| {
            general_mat_mul(T::one(), &piece.t(), &right.slice(s![at, ..]), T::one(), &mut made);
        })?;
        Ok(made)
    }

    fn by_pieces<T: Number>(
        &self,
        rows: Range<usize>,
        mut take: impl FnMut(Range<usize>, ArrayView2<T>),
    ) -> Result<()> {
        let step = (PIECE / self.columns.max(1)).max(1);
        for from in rows.clone().step_by(step) {
            let at = from..(from + step).min(rows.end);
            let stored;
            let piece = match &self.elements {
                Elements::Stored(data) => {
                    stored = data.rows(at.clone());
                    stored.as_ref().and_then(T::read)
                }
                Elements::Computed(values) => {
                    let values = &values[at.start * self.columns..at.end * self.columns];
                    Some(values.iter().copied().map(T::nearest).collect())
                }
            };
            let piece = piece.context("weights cannot be read")?;
            let shape = (at.len(), self.columns);
            take(at, ArrayView2::from_shape(shape, &piece)?);
        }
        Ok(())
    }
}

/// Whether a product of `left` with a constant is by large weights.
pub(super) fn are_large(left: &Value, right: &TensorProto) -> bool {
    let count = right.dims.iter().try_fold(1_i64, |count, &dim| count.checked_mul(dim));
    matches!(left, Value::Tensor(left) if left.declared.is_float() && left.rank() > 1)
        && declared(right.data_type()).is_ok_and(ElementType::is_float)
        && right.dims.len() == 2
        && count.is_some_and(|count| count >= LARGE as i64)
}

/// A MatMul or a Gemm whose second input is `weight`.
pub(super) fn product(call: &Call, weight: &TensorProto, precision: Precision) -> Result<Dense> {
    let left = call.input(0)?;
    let weights = Weights::stored(weight)?;
    let by = |left: &Dense, transposed: bool| {
        let values = left.floats()?;
        let made = if in_float32(precision, left.declared) {
            multiplied::<f32>(values, &weights, transposed)
        } else {
            multiplied::<f64>(values, &weights, transposed)
        };
        Ok(Dense::float(left.declared, made?))
    };
    if !call.node.is("Gemm") {
        return by(left, false);
    }
    ensure!(left.rank() == 2, "{:?} is no matrix", left.dims());
    let left = turned(left, call.int("transA", 0) != 0, false)?;
    gemm_of(call, by(&left, call.int("transB", 0) != 0)?)
}

/// `left` · weights, or · weightsᵀ.
fn multiplied<T: Number>(left: &Array<f64>, weights: &Weights, transposed: bool) -> Result<Array<f64>> {
    let (rows, columns) = (weights.rows, weights.columns);
    let (inner, outer) = if transposed { (columns, rows) } else { (rows, columns) };
    let (&last, batch) = left.shape().split_last().context("a scalar is no matrix")?;
    ensure!(last == inner, "{:?} times {:?}", left.shape(), [inner, outer]);
    let dims = [batch, &[outer]].concat();
    spend(&[elements(&dims)?, inner])?;
    let tall = reshaped(left, &[batch.iter().product(), inner])?.mapv(T::nearest);
    let tall = tall.view().into_dimensionality::<Ix2>()?;
    let made =
        if transposed { weights.times(0..rows, &tall.t())? } else { weights.transposed_times(&tall.t())? };
    array(&dims, made.t().iter().map(|value| value.widened()).collect())
}

#[cfg(test)]
mod tests {
    use isqrt_cov_proto::onnx::{AttributeProto, NodeProto};

    use super::*;
    use crate::evaluate::call::Bindings;
    use crate::evaluate::matrix::{gemm, matmul};
    use crate::recognize::probe::Generator;

    #[test]
    fn pieces_make_the_whole_product() {
        let mut generator = Generator::new(5);
        let mut numbers =
            |count: usize| -> Vec<f32> { (0..count).map(|_| generator.normal() as f32).collect() };
        let (inner, outer) = (1031, 1033);
        let left: Vec<f64> = numbers(2 * 3 * inner).into_iter().map(f64::from).collect();
        let bias = Dense::float(ElementType::F32, array(&[outer], vec![0.5; outer]).unwrap());
        for (name, transposed) in [("MatMul", false), ("Gemm", false), ("Gemm", true)] {
            let dims = if transposed { [outer, inner] } else { [inner, outer] };
            let weight = TensorProto::from_values("w", &dims, &numbers(inner * outer));
            let shape = if name == "Gemm" { vec![6, inner] } else { vec![2, 3, inner] };
            let left = Dense::float(ElementType::F32, array(&shape, left.clone()).unwrap());
            let mut node = NodeProto::new(name, &["x", "w"], &["y"]);
            let mut inputs = vec![Value::from(left), Value::Absent];
            if name == "Gemm" {
                node = node.with(AttributeProto::int("transB", transposed.into()));
                node = node.with(AttributeProto::float("alpha", 0.25));
                inputs.push(bias.clone().into());
            }
            assert!(are_large(&inputs[0], &weight));
            let bindings = Bindings::new();
            let call = |inputs| Call { node: &node, bindings: &bindings, inputs, opset: 17 };
            let pieces = [Precision::Exact, Precision::Declared]
                .map(|precision| product(&call(&inputs), &weight, precision).unwrap());
            let mut whole = inputs.clone();
            whole[1] = Dense::decode(&weight).unwrap().into();
            let whole = call(&whole);
            let whole = if name == "Gemm" { gemm(&whole) } else { matmul(&whole) };
            let whole = whole.unwrap().data.to_f64();
            for (pieces, rounding) in pieces.iter().zip([1e-9, 1e-4]) {
                let pieces = pieces.data.to_f64();
                assert_eq!(pieces.shape(), whole.shape());
                assert!(pieces.iter().zip(&whole).all(|(one, other)| (one - other).abs() < rounding));
            }
        }
    }
}
