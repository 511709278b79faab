//! The operators, by name.

use std::ops::{Add, Mul, Neg, Sub};

use anyhow::{Context, Result, bail};
use isqrt_cov_proto::onnx::NodeProto;

use super::call::{Bindings, Call};
use super::value::{Dense, Value};
use super::{einsum, elementwise, indexing, layout, logic, matrix, normalization, order};
use super::{reduction, run, scatter, sequence, slice, unary, unique};

/// How an operator is evaluated.
#[derive(Clone, Copy)]
pub(super) enum Operator {
    /// One with one output, a tensor.
    One(fn(&Call) -> Result<Dense>),
    /// One with several outputs, or with a sequence.
    Many(fn(&Call) -> Result<Vec<Value>>),
}

use Operator::{Many, One};

/// The operator of this name, if it is evaluated here.
pub(super) fn find(domain: &str, name: &str) -> Option<Operator> {
    match domain {
        "" => number(name).or_else(|| arrangement(name)).or_else(|| summary(name)),
        "com.microsoft" => microsoft(name),
        _ => None,
    }
}

/// Operators on numbers one by one.
fn number(name: &str) -> Option<Operator> {
    Some(match name {
        "Add" => One(|call| elementwise::arithmetic(call, f64::add, i64::wrapping_add)),
        "Sub" => One(|call| elementwise::arithmetic(call, f64::sub, i64::wrapping_sub)),
        "Mul" => One(|call| elementwise::arithmetic(call, f64::mul, i64::wrapping_mul)),
        "Div" => One(elementwise::div),
        "Mod" => One(elementwise::modulo),
        "Pow" => One(elementwise::pow),
        "PRelu" => One(|call| {
            elementwise::arithmetic(call, |x, slope| if x < 0.0 { slope * x } else { x }, unary::slope)
        }),
        "Min" => One(|call| elementwise::variadic(call, elementwise::min, i64::min)),
        "Max" => One(|call| elementwise::variadic(call, elementwise::max, i64::max)),
        "Sum" => One(|call| elementwise::variadic(call, f64::add, i64::wrapping_add)),
        "Mean" => One(elementwise::mean),
        "Clip" => One(elementwise::clip),
        "BitShift" => One(elementwise::shift),
        "Where" => One(logic::choose),
        "Equal" => One(logic::equal),
        "Greater" => One(|call| logic::compare(call, |a, b| a > b, |a, b| a > b)),
        "Less" => One(|call| logic::compare(call, |a, b| a < b, |a, b| a < b)),
        "GreaterOrEqual" => One(|call| logic::compare(call, |a, b| a >= b, |a, b| a >= b)),
        "LessOrEqual" => One(|call| logic::compare(call, |a, b| a <= b, |a, b| a <= b)),
        "And" => One(|call| logic::connect(call, |a, b| a && b)),
        "Or" => One(|call| logic::connect(call, |a, b| a || b)),
        "Xor" => One(|call| logic::connect(call, |a, b| a != b)),
        "Not" => One(logic::not),
        "IsNaN" => One(logic::is_nan),
        "IsInf" => One(logic::is_infinite),
        "Neg" => One(|call| unary::signed(call, f64::neg, i64::wrapping_neg)),
        "Abs" => One(|call| unary::signed(call, f64::abs, i64::wrapping_abs)),
        "Sign" => One(|call| unary::signed(call, unary::sign, i64::signum)),
        "Relu" => One(|call| unary::signed(call, |x| if x < 0.0 { 0.0 } else { x }, |x| x.max(0))),
        "Sqrt" => One(|call| unary::float(call, f64::sqrt)),
        "Reciprocal" => One(|call| unary::float(call, f64::recip)),
        "Exp" => One(|call| unary::float(call, f64::exp)),
        "Log" => One(|call| unary::float(call, f64::ln)),
        "Sin" => One(|call| unary::float(call, f64::sin)),
        "Cos" => One(|call| unary::float(call, f64::cos)),
        "Tan" => One(|call| unary::float(call, f64::tan)),
        "Tanh" => One(|call| unary::float(call, f64::tanh)),
        "Sigmoid" => One(|call| unary::float(call, unary::sigmoid)),
        "Softplus" => One(|call| unary::float(call, unary::softplus)),
        "Softsign" => One(|call| unary::float(call, |x| x / (1.0 + x.abs()))),
        "HardSwish" => One(|call| unary::float(call, |x| x * unary::clamp(x / 6.0 + 0.5, 0.0, 1.0))),
        "Mish" => One(|call| unary::float(call, |x| x * unary::softplus(x).tanh())),
        "Erf" => One(|call| unary::float(call, unary::erf)),
        "Floor" => One(|call| unary::float(call, f64::floor)),
        "Ceil" => One(|call| unary::float(call, f64::ceil)),
        "Round" => One(|call| unary::float(call, f64::round_ties_even)),
        "LeakyRelu" => One(unary::leaky_relu),
        "HardSigmoid" => One(unary::hard_sigmoid),
        "Elu" => One(unary::elu),
        "Gelu" => One(unary::gelu),
        "Cast" => One(unary::cast),
        "CastLike" => One(unary::cast_like),
        _ => return None,
    })
}

/// Operators that move elements, make them or find them.
fn arrangement(name: &str) -> Option<Operator> {
    Some(match name {
        "Constant" => One(run::constant),
        "Identity" => Many(|call| Ok(vec![call.inputs.first().context("there is no input")?.clone()])),
        "Dropout" => Many(layout::dropout),
        "Reshape" => One(layout::reshape),
        "Transpose" => One(layout::transpose),
        "Squeeze" => One(layout::squeeze),
        "Unsqueeze" => One(layout::unsqueeze),
        "Flatten" => One(layout::flatten),
        "Expand" => One(layout::expand),
        "Concat" => One(layout::concat),
        "Tile" => One(layout::tile),
        "Split" => Many(layout::split),
        "DepthToSpace" => One(layout::depth_to_space),
        "SpaceToDepth" => One(layout::space_to_depth),
        "Slice" => One(slice::slice),
        "Pad" => One(slice::pad),
        "Range" => One(layout::range),
        "ConstantOfShape" => One(layout::constant_of_shape),
        "Shape" => One(layout::shape),
        "Size" => One(layout::size_of),
        "EyeLike" => One(matrix::eye_like),
        "Trilu" => One(matrix::trilu),
        "Gather" => One(indexing::gather),
        "GatherND" => One(indexing::gather_nd),
        "GatherElements" => One(indexing::gather_elements),
        "Scatter" | "ScatterElements" => One(scatter::elements),
        "ScatterND" => One(scatter::nd),
        "Compress" => One(indexing::compress),
        "NonZero" => One(indexing::non_zero),
        "OneHot" => One(indexing::one_hot),
        "SequenceEmpty" => Many(sequence::empty),
        "SequenceConstruct" => Many(sequence::construct),
        "SequenceInsert" => Many(sequence::insert),
        "SequenceErase" => Many(sequence::erase),
        "SequenceAt" => One(sequence::at),
        "SequenceLength" => One(sequence::length),
        "ConcatFromSequence" => One(sequence::concat),
        "SplitToSequence" => Many(sequence::split),
        _ => return None,
    })
}

/// Operators that sum over elements, or order them.
fn summary(name: &str) -> Option<Operator> {
    Some(match name {
        "MatMul" => One(matrix::matmul),
        "Gemm" => One(matrix::gemm),
        "Einsum" => One(einsum::einsum),
        "ReduceSum" => One(|call| reduction::reduce(call, reduction::sum, Some(reduction::int_sum))),
        "ReduceMean" => One(|call| reduction::reduce(call, reduction::mean, Some(reduction::int_mean))),
        "ReduceMax" => One(|call| reduction::reduce(call, reduction::max, Some(reduction::int_max))),
        "ReduceMin" => One(|call| reduction::reduce(call, reduction::min, Some(reduction::int_min))),
        "ReduceProd" => One(|call| reduction::reduce(call, reduction::product, Some(reduction::int_product))),
        "ReduceSumSquare" => One(|call| reduction::reduce(call, reduction::sum_square, None)),
        "ReduceL1" => One(|call| reduction::reduce(call, reduction::l1, None)),
        "ReduceL2" => One(|call| reduction::reduce(call, reduction::l2, None)),
        "ReduceLogSum" => One(|call| reduction::reduce(call, |row| reduction::sum(row).ln(), None)),
        "ReduceLogSumExp" => One(|call| reduction::reduce(call, reduction::log_sum_exp, None)),
        "GlobalAveragePool" => One(|call| reduction::pool(call, reduction::mean)),
        "GlobalMaxPool" => One(|call| reduction::pool(call, reduction::max)),
        "ArgMax" => One(|call| order::extreme(call, |best, next| next > best)),
        "ArgMin" => One(|call| order::extreme(call, |best, next| next < best)),
        "CumSum" => One(order::cumulative_sum),
        "ReverseSequence" => One(order::reverse_sequence),
        "TopK" => Many(order::top_k),
        "Unique" => Many(unique::unique),
        "Softmax" => One(|call| normalization::along(call, normalization::softmax)),
        "LogSoftmax" => One(|call| normalization::along(call, normalization::log_softmax)),
        "LpNormalization" => One(normalization::lp),
        "LayerNormalization" => Many(normalization::layer),
        "InstanceNormalization" => One(normalization::instance),
        "BatchNormalization" => Many(normalization::batch),
        "MeanVarianceNormalization" => One(normalization::mean_variance),
        _ => return None,
    })
}

/// Operators that ONNX Runtime's optimizer writes.
fn microsoft(name: &str) -> Option<Operator> {
    Some(match name {
        "Range" => One(layout::range),
        "FusedMatMul" | "TransposeMatMul" => One(matrix::fused_matmul),
        "FusedGemm" => Many(matrix::fused_gemm),
        "Gelu" => One(unary::gelu),
        "Trilu" => One(matrix::trilu),
        _ => return None,
    })
}

/// The sum of `values` after the operator `activation`.
pub(super) fn activated(activation: &NodeProto, values: &[Value], opset: i64) -> Result<Vec<Value>> {
    let bindings = Bindings::new();
    let call = |inputs| Call { node: activation, bindings: &bindings, inputs, opset };
    let sum = Value::from(elementwise::variadic(&call(values), f64::add, i64::wrapping_add)?);
    match find("", activation.op_type()) {
        Some(One(operator)) => Ok(vec![operator(&call(&[sum]))?.into()]),
        Some(Many(operator)) => operator(&call(&[sum])),
        None => bail!("the activation {} is not evaluated", activation.op_type()),
    }
}
