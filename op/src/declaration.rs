//! The one declaration of each operator. Registration, shape inference, checks, the function body and
//! `docs/Operators.md` are all derived from the tables below.

use std::ops::RangeInclusive;

use crate::layer::OperatorKind;

/// The operators' ONNX domain.
pub const DOMAIN: &str = "ai.isqrtcov";

/// The version of the domain that this library implements.
pub const VERSION: i64 = 1;

/// The numbers of Newton–Schulz steps that an operator can take.
pub const STEPS: RangeInclusive<i64> = 1..=100;

/// The element types that every operator takes, as `onnx.proto` names them.
///
/// Sums run in float32 at least, whatever the type of the input.
pub const ELEMENT_TYPES: [&str; 4] = ["float", "double", "float16", "bfloat16"];

/// An operator as `ONNX`'s `Operators.md` would describe it.
#[derive(Debug)]
pub struct Operator {
    /// Which operator this is, for code that must tell them apart.
    pub kind: OperatorKind,
    /// The operator's name in graphs.
    pub name: &'static str,
    /// What it computes, in a few sentences.
    pub doc: &'static str,
    /// Its one input.
    pub input: Port,
    /// Its one output.
    pub output: Port,
    /// The attributes it takes, in the order in which they are documented.
    pub attributes: &'static [Attribute],
}

/// An input or output of an operator.
#[derive(Debug)]
pub struct Port {
    /// Its formal name.
    pub name: &'static str,
    /// Its shape and meaning.
    pub doc: &'static str,
}

/// An attribute with its default and the values it may take.
#[derive(Debug)]
pub struct Attribute {
    /// The attribute's name in graphs.
    pub name: &'static str,
    /// What it does.
    pub doc: &'static str,
    /// Its type, its default and the values it may take.
    pub domain: Domain,
}

/// The type of an attribute, its default and its legal values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Domain {
    /// An integer between `least` and `most`, both included.
    Integer {
        /// The default.
        default: i64,
        /// The least legal value.
        least: i64,
        /// The greatest legal value.
        most: i64,
    },
    /// A finite float32 that is at least `least`.
    Float {
        /// The default.
        default: f32,
        /// The least legal value.
        least: f32,
    },
    /// One of a few words; the first is the default.
    Word(&'static [&'static str]),
}

const ITERATIONS: Attribute = Attribute {
    name: "iterations",
    doc: "Number K of Newton–Schulz steps. The output is the K-step iterate, not the exact root: the network behind \
          it was trained on that iterate. Where the matrix has eigenvalues of 0, as the centered covariance of at most C \
          positions has, rounding errors grow by half with each step, and faster in the end. In float32 sums they are some \
          3·10⁻⁷ of the greatest entry at K = 5, 3·10⁻⁵ at 15 and 3·10⁻⁴ at 20, and from 25 on all may be lost; in float64 \
          5·10⁻¹³ at 20 and 2·10⁻⁹ at 40, and all is lost at 60.",
    domain: Domain::Integer { default: 5, least: *STEPS.start(), most: *STEPS.end() },
};
const CENTERED: Attribute = Attribute {
    name: "centered",
    doc: "1 subtracts each channel's mean over the positions; 0 does not (bilinear pooling).",
    domain: Domain::Integer { default: 1, least: 0, most: 1 },
};
const CORRECTION: Attribute = Attribute {
    name: "correction",
    doc: "δ in the divisor M − δ of the covariance: 0 as published, 1 for the unbiased estimate. M must exceed it.",
    domain: Domain::Integer { default: 0, least: 0, most: 1 },
};
const EPSILON: Attribute = Attribute {
    name: "epsilon",
    doc: "ε is added to the diagonal of the matrix before anything else.",
    domain: Domain::Float { default: 0.0, least: 0.0 },
};
const NORMALIZATION: Attribute = Attribute {
    name: "normalization",
    doc: "What the matrix is divided by before the iteration: its trace or its Frobenius norm.",
    domain: Domain::Word(&["trace", "frobenius"]),
};
const COMPENSATED: Attribute = Attribute {
    name: "compensated",
    doc: "1 multiplies the iterate by √t, undoing the pre-normalisation; 0 leaves it out.",
    domain: Domain::Integer { default: 1, least: 0, most: 1 },
};
const OFF_DIAGONAL_SCALE: Attribute = Attribute {
    name: "off_diagonal_scale",
    doc: "Factor on the entries off the diagonal; √2 makes the triangle's Euclidean norm equal the matrix's \
          Frobenius norm.",
    domain: Domain::Float { default: 1.0, least: 0.0 },
};
const LAYOUT: Attribute = Attribute {
    name: "layout",
    doc: "`channels_first`: X is [N, C, D₁…D_k]; `channels_last`: X is [N, D₁…D_k, C].",
    domain: Domain::Word(&["channels_first", "channels_last"]),
};

/// The triangle's orders. For a symmetric matrix `upper_column_major` is also the row-major lower triangle.
const VECTORIZATION_DOC: &str = "`upper`: the upper triangle with the diagonal, row by row; `upper_column_major`: the same, column by column, \
     which for a symmetric matrix is also the lower triangle row by row; `none`: the whole matrix.";

const FEATURES: Port = Port {
    name: "X",
    doc: "Feature map [N, C, D₁…D_k], k ≥ 1, or [N, D₁…D_k, C] where `layout` is `channels_last`. N may be 0; C and \
          M = D₁·…·D_k are at least 1.",
};

/// Every operator of the domain.
pub static OPERATORS: [Operator; 3] = [
    Operator {
        kind: OperatorKind::IsqrtCov,
        name: "IsqrtCov",
        doc: "Covariance pooling normalised by an iterative matrix square root: the whole iSQRT-COV layer. Each \
              sample X of C channels and M positions gives Σ = X(I − 11ᵀ/M)Xᵀ/(M − δ) + εI, A = Σ/t with t = tr Σ or \
              ‖Σ‖_F, K coupled Newton–Schulz steps Y ← YT, Z ← TZ with T = ½(3I − ZY) from Y = A, Z = I, and \
              S = √t·Y, of which the upper triangle is written. A sample with t = 0 gives zeros. A NaN or an \
              infinity in one sample stays in that sample.",
        input: FEATURES,
        output: Port { name: "Y", doc: "[N, C(C+1)/2], or [N, C, C] where `vectorization` is `none`." },
        attributes: &[
            ITERATIONS,
            CENTERED,
            CORRECTION,
            EPSILON,
            NORMALIZATION,
            COMPENSATED,
            Attribute {
                name: "vectorization",
                doc: VECTORIZATION_DOC,
                domain: Domain::Word(&["upper", "upper_column_major", "none"]),
            },
            OFF_DIAGONAL_SCALE,
            LAYOUT,
        ],
    },
    Operator {
        kind: OperatorKind::CovariancePooling,
        name: "CovariancePooling",
        doc: "The covariance Σ = X(I − 11ᵀ/M)Xᵀ/(M − δ) + εI of each sample's channels, without normalisation: plain \
              covariance pooling, bilinear pooling (`centered` = 0), and the covariance blocks of GSoP networks.",
        input: FEATURES,
        output: Port {
            name: "Y",
            doc: "[N, C, C], or [N, C(C+1)/2] where `vectorization` asks for a triangle.",
        },
        attributes: &[
            CENTERED,
            CORRECTION,
            EPSILON,
            Attribute {
                name: "vectorization",
                doc: VECTORIZATION_DOC,
                domain: Domain::Word(&["none", "upper", "upper_column_major"]),
            },
            OFF_DIAGONAL_SCALE,
            LAYOUT,
        ],
    },
    Operator {
        kind: OperatorKind::MatrixSqrt,
        name: "MatrixSqrt",
        doc: "The K-step Newton–Schulz iterate for the square root of symmetric positive semi-definite matrices: \
              pre-normalisation by the trace or the Frobenius norm, K coupled steps, post-compensation. Only the \
              upper triangle of each matrix is read. A matrix with t = 0 gives zeros.",
        input: Port { name: "A", doc: "Symmetric matrices [N, d, d], d ≥ 1. N may be 0." },
        output: Port { name: "Y", doc: "[N, d, d]." },
        attributes: &[ITERATIONS, EPSILON, NORMALIZATION, COMPENSATED],
    },
];

impl Operator {
    /// The operator called `name`, if the domain has one.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        OPERATORS.iter().find(|operator| operator.name == name)
    }

    /// The declaration of an operator.
    #[must_use]
    pub fn of(kind: OperatorKind) -> &'static Self {
        &OPERATORS[kind as usize]
    }

    /// The declaration of one of its attributes.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&'static Attribute> {
        self.attributes.iter().find(|attribute| attribute.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_kinds() {
        for operator in &OPERATORS {
            assert_eq!(Operator::of(operator.kind).name, operator.name);
        }
    }
}
