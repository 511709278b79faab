//! Whether the iteration runs on the covariance or on the Gram matrix.

use crate::layer::{Extent, Layer, OperatorKind};
use crate::program::{Program, Target};

/// Matrices with fewer rows are no work, and what a sum of so few terms is rounded by is less than what a fitted program
/// is off by.
pub(crate) const SMALL: usize = 12;

/// The matrix that the iteration runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// The C×C covariance: S = √t · A q(A).
    Direct,
    /// The M×M Gram matrix G = X̄ᵀX̄/f, where f = (M−δ) t: S = √t · X̄ q(G) X̄ᵀ / f. It has the covariance's eigenvalues
    /// but for zeros, and so the same trace and Frobenius norm.
    Gram,
}

impl Form {
    /// The cheaper form by the cost of its products; the direct one of operators that have no other, which cost the same in both.
    ///
    /// With ε > 0 the covariance's zero eigenvalues become ε, which the Gram matrix knows nothing of.
    pub(crate) fn choose<C: Cost>(layer: &Layer, extent: Extent, programs: &Programs) -> Self {
        let cost = |form: Self| form.cost::<C>(layer, extent, programs);
        if layer.epsilon == 0.0 && cost(Self::Gram) < cost(Self::Direct) { Self::Gram } else { Self::Direct }
    }

    /// What the layer's products cost, those that its operator has.
    pub(crate) fn cost<C: Cost>(self, layer: &Layer, extent: Extent, programs: &Programs) -> f64 {
        let (c, m) = (extent.channels as f64, extent.positions as f64);
        let covariance = C::triangle(c, m);
        let iterate = programs.iterate.product_count() as f64 * C::triangle(c, c);
        match (layer.operator, self) {
            (OperatorKind::CovariancePooling, _) => covariance,
            (OperatorKind::MatrixSqrt, _) => iterate,
            (OperatorKind::IsqrtCov, Self::Direct) => covariance + iterate,
            (OperatorKind::IsqrtCov, Self::Gram) => {
                let q = programs.factor.product_count() as f64 * C::triangle(m, m);
                // G, q(G), q(G) X̄ᵀ, and X̄ times that.
                C::triangle(m, c) + q + C::product(m, c, m) + C::triangle(c, m)
            }
        }
    }
}

/// What a product costs on a processor, in a unit of its own.
pub(crate) trait Cost {
    /// `rows` by `columns` sums of so many terms.
    fn product(rows: f64, columns: f64, terms: f64) -> f64;
    /// Those of one triangle of `rows` by `rows`.
    fn triangle(rows: f64, terms: f64) -> f64;
}

/// The multiplications, of triangles half of them.
pub(crate) struct Multiplications;

impl Cost for Multiplications {
    fn product(rows: f64, columns: f64, terms: f64) -> f64 {
        rows * columns * terms
    }

    fn triangle(rows: f64, terms: f64) -> f64 {
        rows * rows * terms / 2.0
    }
}

/// The programs of one layer for one type.
#[derive(Debug)]
pub(crate) struct Programs {
    /// For the Gram form.
    pub factor: Program,
    /// For the direct form.
    pub iterate: Program,
}

impl Programs {
    /// Exact programs, for float64.
    pub(crate) fn exact(layer: &Layer) -> Self {
        Self {
            factor: Program::exact(layer.iterations, Target::Factor),
            iterate: Program::exact(layer.iterations, Target::Iterate),
        }
    }

    /// Programs that agree with the exact ones to float32 rounding.
    ///
    /// The matrix that `MatrixSqrt` is given need not be positive semi-definite, which is what fitted programs need.
    pub(crate) fn rounded(layer: &Layer) -> Self {
        let exact = Self::exact(layer);
        if layer.operator == OperatorKind::MatrixSqrt {
            return exact;
        }
        Self {
            factor: Program::fitted(layer.iterations, Target::Factor).unwrap_or(exact.factor),
            iterate: Program::fitted(layer.iterations, Target::Iterate).unwrap_or(exact.iterate),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gram_matrix_is_chosen_where_it_is_cheaper() {
        let mut layer = Layer::new(OperatorKind::IsqrtCov);
        let form = |layer: &Layer, channels, positions| {
            Form::choose::<Multiplications>(
                layer,
                Extent { samples: 1, channels, positions },
                &Programs::rounded(layer),
            )
        };
        assert_eq!(form(&layer, 256, 196), Form::Gram);
        assert_eq!(form(&layer, 2048, 49), Form::Gram);
        assert_eq!(form(&layer, 128, 196), Form::Direct);
        assert_eq!(form(&layer, 256, 250), Form::Direct);
        layer.epsilon = 1e-5;
        assert_eq!(form(&layer, 256, 49), Form::Direct);
    }

    #[test]
    #[allow(clippy::float_cmp)]
    fn an_operator_costs_the_products_that_it_has() {
        let cost = |operator, form: Form, channels, positions| {
            let (layer, extent) = (Layer::new(operator), Extent { samples: 1, channels, positions });
            form.cost::<Multiplications>(&layer, extent, &Programs::exact(&layer))
        };
        let (covariance, step) = (64.0 * 64.0 * 100.0 / 2.0, 64.0 * 64.0 * 64.0 / 2.0);
        assert_eq!(cost(OperatorKind::CovariancePooling, Form::Direct, 64, 100), covariance);
        // Five exact steps are ten products (`program/`).
        assert_eq!(cost(OperatorKind::MatrixSqrt, Form::Direct, 64, 64), 10.0 * step);
        assert_eq!(cost(OperatorKind::IsqrtCov, Form::Direct, 64, 100), covariance + 10.0 * step);
        // Of 10 positions: G, ten products of its size, one of them with X̄ᵀ, and X̄ times that.
        let (gram, step) = (10.0 * 10.0 * 64.0 / 2.0, 10.0 * 10.0 * 10.0 / 2.0);
        let behind = 64.0 * 10.0 * 10.0 + 64.0 * 64.0 * 10.0 / 2.0;
        assert_eq!(cost(OperatorKind::IsqrtCov, Form::Gram, 64, 10), gram + 10.0 * step + behind);
    }
}
