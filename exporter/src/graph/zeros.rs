//! Constants that are 0, or larger than any number, and comparisons: what keeps a divisor from 0 is the one choice by data that a formula may hold.

use isqrt_cov_proto::TensorData;
use isqrt_cov_proto::onnx::tensor_proto::DataType;
use isqrt_cov_proto::onnx::{AttributeProto, NodeProto, TensorProto};

use super::nodes::moves;

/// The largest number that counts as 0: what is compared with it is compared with 0, to all intents.
const NEXT_TO_ZERO: f64 = 1e-12;

/// The least number that is larger than those of networks.
const HUGE: f64 = 1e18;

/// Casts of true and false, one of the other, that are followed.
pub const MOST_CASTS: usize = 4;

/// Elements that a constant may have which something is compared with.
pub const MOST: usize = 1 << 12;

/// Whether a tensor is 0 throughout, or next to it.
#[must_use]
pub fn is_zero(tensor: &TensorProto) -> bool {
    every_number(tensor, |number| number.abs() <= NEXT_TO_ZERO)
}

/// Whether a tensor is larger throughout than any number of a network, or infinite: the sign that all of it has.
#[must_use]
pub fn huge(tensor: &TensorProto) -> Option<f64> {
    [1.0, -1.0].into_iter().find(|sign| every_number(tensor, |number| sign * number >= HUGE))
}

/// Whether a tensor has elements, and few.
#[must_use]
pub fn is_small(tensor: &TensorProto) -> bool {
    let elements = tensor.dims.iter().try_fold(1_i64, |product, &dim| product.checked_mul(dim));
    elements.is_some_and(|elements| (1..=MOST as i64).contains(&elements))
}

fn every_number(tensor: &TensorProto, is: impl Fn(f64) -> bool) -> bool {
    let numbers = || TensorData::inline(tensor).ok().and_then(|data| data.to_f64());
    is_small(tensor) && numbers().is_some_and(|numbers| numbers.into_iter().all(is))
}

/// Whether what a node makes is 0 throughout, or next to it, where the values that `is_known` tells are.
#[must_use]
pub fn makes_zero(node: &NodeProto, is_known: impl Fn(&str) -> bool) -> bool {
    match node.op_type() {
        "Constant" => node.constant().is_some_and(|tensor| is_zero(&tensor)),
        "ConstantOfShape" => node.find("value").and_then(|value| value.t.as_deref()).is_none_or(is_zero),
        "Expand" | "CastLike" => node.input.first().is_some_and(|name| is_known(name)),
        "Concat" => node.input.iter().all(|name| is_known(name)),
        _ if moves(node) => node.input.first().is_some_and(|name| is_known(name)) && node.input.len() <= 2,
        _ => false,
    }
}

/// Whether a node compares numbers.
#[must_use]
pub fn compares(node: &NodeProto) -> bool {
    matches!(node.op_type(), "Greater" | "GreaterOrEqual" | "Less" | "LessOrEqual" | "Equal")
}

/// Whether what a node makes is true or false.
#[must_use]
pub fn makes_bool(node: &NodeProto) -> bool {
    let to = node.find("to").map(AttributeProto::i);
    let casts = node.op_type() == "Cast" && to == Some(DataType::Bool as i64);
    casts || compares(node) || matches!(node.op_type(), "And" | "Or" | "Xor" | "Not" | "IsNaN" | "IsInf")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_told_however_they_are_written() {
        let tensor = |numbers: &[f32]| TensorProto::from_values("", &[numbers.len()], numbers);
        assert!(is_zero(&tensor(&[0.0])) && is_zero(&tensor(&[0.0, 1e-30])) && is_zero(&tensor(&[-0.0])));
        assert!(!is_zero(&tensor(&[0.0, 1e-6])) && !is_zero(&tensor(&[])) && !is_zero(&tensor(&[f32::NAN])));
        assert!(is_zero(&TensorProto::from_values("", &[1], &[0_i64])));
        assert!(!is_zero(&TensorProto::from_values("", &[1], &[1_i64])));
        assert!(!is_zero(&tensor(&vec![0.0; 1 << 13])), "nothing is compared with so much");

        let known = |name: &str| name == "zero";
        let node = |operator: &str, inputs: &[&str]| NodeProto::new(operator, inputs, &["y"]);
        for (operator, inputs) in [
            ("Cast", &["zero"][..]),
            ("CastLike", &["zero", "x"]),
            ("Expand", &["zero", "sizes"]),
            ("Unsqueeze", &["zero"]),
        ] {
            assert!(makes_zero(&node(operator, inputs), known), "{operator}");
        }
        assert!(makes_zero(&node("ConstantOfShape", &["sizes"]), known));
        assert!(!makes_zero(&node("Concat", &["zero", "x", "x"]), known));
        assert!(!makes_zero(&node("Concat", &["zero", "x"]), known));
        assert!(!makes_zero(&node("Exp", &["zero"]), known) && !makes_zero(&node("Cast", &["x"]), known));
    }
}
