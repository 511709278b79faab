//! Products with large matrices of weights, which are decoded piece by piece: whole, they would take twice the room that
//! the model takes for them.

use anyhow::{Context, Result, ensure};
use isqrt_cov_proto::TensorData;
use isqrt_cov_proto::onnx::TensorProto;
use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView2, Ix2, s};

use super::call::Call;
use super::matrix::{gemm_of, turned};
use super::value::{Array, Dense, Value, declared, elements, reshaped};

/// Elements from which on a matrix counts as large.
const LARGE: usize = 1 << 20;

/// Elements of a piece, about: what a core keeps near.
const PIECE: usize = 1 << 17;

/// Whether a product of `left` with a constant is one of these.
pub(super) fn are_large(left: &Value, right: &TensorProto) -> bool {
    let count = right.dims.iter().try_fold(1_i64, |count, &dim| count.checked_mul(dim));
    matches!(left, Value::Tensor(left) if left.declared.is_float() && left.rank() > 1)
        && declared(right.data_type()).is_ok_and(crate::tensor::ElementType::is_float)
        && right.dims.len() == 2
        && count.is_some_and(|count| count >= LARGE as i64)
}

/// A MatMul or a Gemm whose second input is `weight`.
pub(super) fn product(call: &Call, weight: &TensorProto) -> Result<Dense> {
    let left = call.input(0)?;
    if call.node.is("Gemm") {
        ensure!(left.rank() == 2, "{:?} is no matrix", left.dims());
        let left = turned(left, call.int("transA", 0) != 0, false)?;
        let product = by_pieces(left.floats()?, weight, call.int("transB", 0) != 0)?;
        return gemm_of(call, Dense::float(left.declared, product));
    }
    Ok(Dense::float(left.declared, by_pieces(left.floats()?, weight, false)?))
}

fn by_pieces(left: &Array<f64>, weight: &TensorProto, transposed: bool) -> Result<Array<f64>> {
    let data = TensorData::inline(weight)?;
    let &[rows, columns] = data.dims() else { anyhow::bail!("{:?} is no matrix", data.dims()) };
    let (inner, outer) = if transposed { (columns, rows) } else { (rows, columns) };
    let (&last, batch) = left.shape().split_last().context("a scalar is no matrix")?;
    ensure!(last == inner, "{:?} times {:?}", left.shape(), [inner, outer]);
    let dims = [batch, &[outer]].concat();
    elements(&dims)?;
    let tall = reshaped(left, &[batch.iter().product(), inner])?;
    let tall: ArrayView2<f64> = tall.view().into_dimensionality::<Ix2>()?;
    let mut made = Array2::zeros((tall.nrows(), outer));
    let step = (PIECE / columns).max(1);
    let width = data.bytes().len() / rows;
    for from in (0..rows).step_by(step) {
        let to = (from + step).min(rows);
        let piece = TensorProto {
            data_type: weight.data_type,
            dims: vec![(to - from) as i64, columns as i64],
            raw_data: Some(data.bytes().slice(from * width..to * width)),
            ..TensorProto::default()
        };
        let piece = TensorData::inline(&piece)?.to_f64().context("a constant cannot be read")?;
        let piece = ArrayView2::from_shape((to - from, columns), &piece)?;
        if transposed {
            general_mat_mul(1.0, &tall, &piece.t(), 0.0, &mut made.slice_mut(s![.., from..to]));
        } else {
            general_mat_mul(1.0, &tall.slice(s![.., from..to]), &piece, 1.0, &mut made);
        }
    }
    reshaped(&made.into_dyn().into_shared(), &dims)
}

#[cfg(test)]
mod tests {
    use isqrt_cov_proto::onnx::{AttributeProto, NodeProto};

    use super::*;
    use crate::evaluate::call::Bindings;
    use crate::evaluate::matrix::{gemm, matmul};
    use crate::evaluate::value::array;
    use crate::recognize::probe::Generator;
    use crate::tensor::ElementType;

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
            let pieces = product(&call(&inputs), &weight).unwrap();
            let mut whole = inputs.clone();
            whole[1] = Dense::decode(&weight).unwrap().into();
            let whole = call(&whole);
            let whole = if name == "Gemm" { gemm(&whole) } else { matmul(&whole) };
            let (pieces, whole) = (pieces.data.to_f64(), whole.unwrap().data.to_f64());
            assert_eq!(pieces.shape(), whole.shape());
            assert!(pieces.iter().zip(&whole).all(|(one, other)| (one - other).abs() < 1e-9));
        }
    }
}
