//! Matrix products, and matrices made.

use std::num::Wrapping;

use anyhow::{Context, Result, bail, ensure};
use ndarray::{ArrayView2, Axis, Ix2, IxDyn, LinalgScalar};

use super::call::Call;
use super::elementwise::{binary, common_shape};
use super::layout::permuted_array;
use super::value::{Array, Data, Dense, Value, array, elements, full, map_data, reshaped};
use crate::budget::spend;

/// A batch of matrices as one axis of matrices.
fn stacked<T: LinalgScalar>(values: &Array<T>, batch: &[usize]) -> Result<Array<T>> {
    let (rows, columns) = (values.shape()[values.ndim() - 2], values.shape()[values.ndim() - 1]);
    let whole = [batch, &[rows, columns]].concat();
    let wide = if values.shape() == whole {
        values.clone()
    } else {
        elements(&whole)?;
        values.broadcast(IxDyn(&whole)).context("batches do not broadcast")?.to_owned().into_shared()
    };
    let flat = [batch.iter().product(), rows, columns];
    // Transposed matrices can stay views where there is one batch axis at most.
    match batch.len() {
        0 => Ok(wide.insert_axis(Axis(0))),
        1 => Ok(wide),
        _ => reshaped(&wide, &flat),
    }
}

/// Multiplications that take as long as beginning with a matrix.
const MATRIX: usize = 1 << 11;

/// Products of matrices whose batches are broadcast; vectors are a row on the left, a column on the right.
pub(super) fn product<T: LinalgScalar>(left: &Array<T>, right: &Array<T>) -> Result<Array<T>> {
    ensure!(left.ndim() > 0 && right.ndim() > 0, "a scalar is no matrix");
    let a = if left.ndim() == 1 { left.clone().insert_axis(Axis(0)) } else { left.clone() };
    let b = if right.ndim() == 1 { right.clone().insert_axis(Axis(1)) } else { right.clone() };
    let (a_batch, a_matrix) = a.shape().split_at(a.ndim() - 2);
    let (b_batch, b_matrix) = b.shape().split_at(b.ndim() - 2);
    ensure!(a_matrix[1] == b_matrix[0], "{:?} times {:?}", left.shape(), right.shape());
    let batch = common_shape([a_batch, b_batch])?;
    let (rows, columns) = (a_matrix[0], b_matrix[1]);
    let mut dims = [&batch[..], &[rows, columns]].concat();
    let count = elements(&dims)?;
    spend(&[count, a_matrix[1]])?;
    spend(&[batch.iter().product(), MATRIX])?;
    // Many matrices with one: all of their rows at once.
    let made = if b_batch.iter().all(|&dim| dim == 1) && !a_batch.is_empty() && batch == a_batch {
        let tall = reshaped(&a, &[a_batch.iter().product::<usize>() * rows, a_matrix[1]])?;
        let one = reshaped(&b, b_matrix)?;
        let made = matrix(&tall)?.dot(&matrix(&one)?);
        made.into_dyn().into_shared()
    } else {
        let (a, b) = (stacked(&a, &batch)?, stacked(&b, &batch)?);
        let mut made = Vec::with_capacity(count);
        for (a, b) in a.outer_iter().zip(b.outer_iter()) {
            let one = a.into_dimensionality::<Ix2>()?.dot(&b.into_dimensionality::<Ix2>()?);
            made.extend(one.iter().copied());
        }
        array(&dims, made)?
    };
    if right.ndim() == 1 {
        dims.pop();
    }
    if left.ndim() == 1 {
        dims.remove(batch.len());
    }
    reshaped(&made, &dims)
}

fn matrix<T>(values: &Array<T>) -> Result<ArrayView2<'_, T>> {
    Ok(values.view().into_dimensionality::<Ix2>()?)
}

/// The product of two tensors of one kind.
fn multiplied(left: &Dense, right: &Dense) -> Result<Dense> {
    let data = match (&left.data, &right.data) {
        (Data::Int(a), Data::Int(b)) => {
            let wrapping = |array: &Array<i64>| array.mapv(Wrapping).into_shared();
            Data::Int(product(&wrapping(a), &wrapping(b))?.mapv(|value| value.0).into_shared())
        }
        _ => Data::Float(product(left.floats()?, right.floats()?)?),
    };
    Ok(Dense::new(left.declared, data))
}

/// The product of two tensors.
pub(super) fn matmul(call: &Call) -> Result<Dense> {
    multiplied(call.input(0)?, call.input(1)?)
}

#[allow(clippy::float_cmp)]
fn scaled(input: Dense, factor: f64) -> Dense {
    if factor == 1.0 {
        return input;
    }
    let data = match input.data {
        Data::Float(values) => Data::Float(values.mapv(|value| value * factor).into_shared()),
        Data::Int(values) => Data::Int(values.mapv(|value| (value as f64 * factor) as i64).into_shared()),
        other @ Data::Bool(_) => other,
    };
    Dense::new(input.declared, data)
}

/// The input with its last two axes swapped, and before that the first of them moved to the front of the matrix.
pub(super) fn turned(input: &Dense, transposed: bool, batch_transposed: bool) -> Result<Dense> {
    let rank = input.rank();
    if rank < 2 || !(transposed || batch_transposed) {
        return Ok(input.clone());
    }
    let mut order: Vec<usize> = (0..rank).collect();
    if batch_transposed {
        // The batch lies between the rows and the columns: [rows, batch…, columns].
        order.remove(0);
        order.insert(rank - 2, 0);
    }
    if transposed {
        order.swap(rank - 1, rank - 2);
    }
    Ok(Dense::new(input.declared, map_data!(&input.data, values => permuted_array(values, &order)?)))
}

/// α·A'·B' + β·C.
pub(super) fn gemm(call: &Call) -> Result<Dense> {
    let (a, b) = (call.input(0)?, call.input(1)?);
    ensure!(a.rank() == 2 && b.rank() == 2, "{:?} times {:?}", a.dims(), b.dims());
    let a = turned(a, call.int("transA", 0) != 0, false)?;
    let b = turned(b, call.int("transB", 0) != 0, false)?;
    gemm_of(call, multiplied(&a, &b)?)
}

/// The same of the product A'·B'.
pub(super) fn gemm_of(call: &Call, product: Dense) -> Result<Dense> {
    let product = scaled(product, call.float("alpha", 1.0));
    let Some(c) = call.optional(2)? else { return Ok(product) };
    let shape = common_shape([product.dims(), c.dims()])?;
    ensure!(shape == product.dims(), "{:?} does not broadcast to {:?}", c.dims(), product.dims());
    binary(&product, &scaled(c.clone(), call.float("beta", 1.0)), |a, b| a + b, i64::wrapping_add)
}

/// ONNX Runtime's product with transposes and a factor.
pub(super) fn fused_matmul(call: &Call) -> Result<Dense> {
    let set = |name| call.int(name, 0) != 0;
    let a = turned(call.input(0)?, set("transA"), set("transBatchA"))?;
    let b = turned(call.input(1)?, set("transB"), set("transBatchB"))?;
    Ok(scaled(multiplied(&a, &b)?, call.float("alpha", 1.0)))
}

/// ONNX Runtime's Gemm with an activation.
pub(super) fn fused_gemm(call: &Call) -> Result<Vec<Value>> {
    use isqrt_cov_proto::onnx::{AttributeProto, NodeProto};
    let mut activation = NodeProto::new(call.word("activation", "Identity")?, &["sum"], &["activated"]);
    for (given, own) in
        [("activation_alpha", "alpha"), ("activation_beta", "beta"), ("activation_gamma", "gamma")]
    {
        if let Some(value) = call.attribute(given) {
            activation.attribute.push(AttributeProto::float(own, value.f()));
        }
    }
    super::table::activated(&activation, &[gemm(call)?.into()], call.opset)
}

/// Zeros with ones on a diagonal, of the input's shape.
pub(super) fn eye_like(call: &Call) -> Result<Dense> {
    let input = call.input(0)?;
    let &[rows, columns] = input.dims() else { bail!("a matrix is expected") };
    let element = call.element("dtype")?.unwrap_or(input.declared);
    let shift = call.int("k", 0);
    let mut ones = full(&[rows, columns], 0.0)?;
    for row in 0..rows {
        let column = (row as i64).saturating_add(shift);
        if let Some(column) = usize::try_from(column).ok().filter(|&column| column < columns) {
            ones[[row, column].as_slice()] = 1.0;
        }
    }
    Ok(Dense::new(element, Data::Float(ones).cast(element)))
}

/// The upper or lower triangles of matrices, zero elsewhere.
pub(super) fn trilu(call: &Call) -> Result<Dense> {
    fn triangle<T: Clone>(values: &Array<T>, upper: bool, shift: i64, zero: &T) -> Array<T> {
        let mut made = values.to_owned();
        let rank = made.ndim();
        for (index, value) in made.indexed_iter_mut() {
            let index = ndarray::Dimension::slice(&index);
            let (row, column) = (index[rank - 2] as i64, index[rank - 1] as i64);
            let edge = row.saturating_add(shift);
            if if upper { column < edge } else { column > edge } {
                *value = zero.clone();
            }
        }
        made.into_shared()
    }
    let input = call.input(0)?;
    ensure!(input.rank() >= 2, "a matrix is expected");
    let shift = if call.optional(1)?.is_some() { call.integer(1)? } else { 0 };
    let upper = call.int("upper", 1) != 0;
    let data = match &input.data {
        Data::Float(values) => Data::Float(triangle(values, upper, shift, &0.0)),
        Data::Int(values) => Data::Int(triangle(values, upper, shift, &0)),
        Data::Bool(values) => Data::Bool(triangle(values, upper, shift, &false)),
    };
    Ok(Dense::new(input.declared, data))
}

#[cfg(test)]
mod tests {
    use isqrt_cov_proto::onnx::{AttributeProto, NodeProto};

    use crate::evaluate::tests::{floats, ints, one};

    #[test]
    fn batches_broadcast_and_vectors_are_rows_or_columns() {
        let product = || NodeProto::new("MatMul", &["a", "b"], &["y"]);
        let a = || floats(&[2, 1, 1, 2], &[1.0, 2.0, 3.0, 4.0]);
        let b = || floats(&[2, 2, 1], &[1.0, 1.0, 10.0, 10.0]);
        let made = one(product(), 13, &[a(), b()]).unwrap();
        assert_eq!((made.dims(), made.to_f64()), (&[2, 2, 1, 1][..], vec![3.0, 30.0, 7.0, 70.0]));
        let vector = one(product(), 13, &[floats(&[2], &[1.0, 2.0]), b()]).unwrap();
        assert_eq!((vector.dims(), vector.to_f64()), (&[2, 1][..], vec![3.0, 30.0]));
        let scalar = one(product(), 13, &[ints(&[1, 2]), ints(&[3, 4])]).unwrap();
        assert_eq!((scalar.dims(), scalar.to_f64()), (&[][..], vec![11.0]));
        assert!(one(product(), 13, &[floats(&[3], &[0.0; 3]), b()]).is_err());
        assert!(one(product(), 13, &[floats(&[], &[0.0]), b()]).is_err());
    }

    #[test]
    fn products_are_fused_with_transposes() {
        let node = NodeProto::new("FusedMatMul", &["a", "a"], &["y"])
            .in_domain("com.microsoft")
            .with(AttributeProto::int("transB", 1))
            .with(AttributeProto::float("alpha", 0.5));
        let made = one(node, 17, &[floats(&[2, 2], &[1.0, 2.0, 3.0, 4.0])]).unwrap();
        assert_eq!(made.to_f64(), [2.5, 5.5, 5.5, 12.5]);
    }
}
