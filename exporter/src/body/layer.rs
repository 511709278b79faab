//! The layer's formulas in standard operators.

use isqrt_cov_op::{Layer, Layout, Normalization, OperatorKind, Vectorization};
use isqrt_cov_proto::onnx::{AttributeProto, NodeProto};

use super::nodes::Body;

impl Body {
    /// Adds the nodes that compute `layer`. Returns the name of the last one's output, which is `output` behind the
    /// prefix.
    pub(super) fn compute(&mut self, layer: &Layer, input: &str, output: &str) -> String {
        let matrix = match layer.operator {
            OperatorKind::MatrixSqrt => input.to_owned(),
            OperatorKind::IsqrtCov | OperatorKind::CovariancePooling => self.covariance(layer, input),
        };
        let is_whole =
            layer.vectorization == Vectorization::None && (layer.off_diagonal_scale - 1.0).abs() == 0.0;
        if layer.operator == OperatorKind::CovariancePooling && layer.epsilon == 0.0 && is_whole {
            return self.add(output, "Identity", &[&matrix]);
        }
        let identity = Identity::new(self, &matrix);
        let matrix = match layer.operator {
            OperatorKind::MatrixSqrt => self.symmetric(&identity, &matrix),
            OperatorKind::IsqrtCov | OperatorKind::CovariancePooling => matrix,
        };
        let matrix = if layer.epsilon == 0.0 {
            matrix
        } else {
            let diagonal = identity.select(self, "epsilon_identity", f64::from(layer.epsilon), 0.0);
            self.add("regularized", "Add", &[&matrix, &diagonal])
        };
        let matrix = match layer.operator {
            OperatorKind::CovariancePooling => matrix,
            OperatorKind::IsqrtCov | OperatorKind::MatrixSqrt => self.root(layer, &identity, &matrix),
        };
        let matrix = if (layer.off_diagonal_scale - 1.0).abs() == 0.0 {
            matrix
        } else {
            let scale = f64::from(layer.off_diagonal_scale);
            let scale = identity.select(self, "off_diagonal_scale_matrix", 1.0, scale);
            self.add("scaled", "Mul", &[&matrix, &scale])
        };
        let mask = match layer.vectorization {
            Vectorization::None => {
                return self.add(output, "Identity", &[&matrix]);
            }
            Vectorization::Upper => identity.upper(self),
            // The lower triangle row by row is the upper one column by column: the matrix is symmetric.
            Vectorization::UpperColumnMajor => identity.lower(self),
        };
        self.triangle(&mask, &matrix, output)
    }

    /// Σ = (1/(M−δ)) X (I − 11ᵀ/M) Xᵀ.
    fn covariance(&mut self, layer: &Layer, input: &str) -> String {
        // M is computed, not left to Reshape as -1: that has no meaning where N is 0. For the same reason the shape's
        // head is sliced off: ONNX Runtime replaces [0, 0, M] by [0, 0, -1].
        let shape = self.add("shape", "Shape", &[input]);
        let first = layer.layout == Layout::ChannelsFirst;
        let start = self.integers("start", &[0]);
        let (from, to) = if first { (2, i64::MAX) } else { (1, -1) };
        let (from, to) = (self.integers("from", &[from]), self.integers("to", &[to]));
        let head = self.add("head", "Slice", &[&shape, &start, &from]);
        let spatial = self.add("spatial_sizes", "Slice", &[&shape, &from, &to]);
        let count = self.add("position_count", "ReduceProd", &[&spatial]);
        let samples = if first {
            self.concat("samples_shape", &[&head, &count])
        } else {
            let channels = self.add("channel_count", "Gather", &[&shape, &to]);
            self.concat("samples_shape", &[&head, &count, &channels])
        };
        let x = self.add("samples", "Reshape", &[input, &samples]);
        let positions = self.cast("positions", &count);

        let x = if layer.centered {
            let sum = self.sum("sum", &x, if first { &[2] } else { &[1] });
            let mean = self.add("mean", "Div", &[&sum, &positions]);
            self.add("centered_samples", "Sub", &[&x, &mean])
        } else {
            x
        };
        let divisor = if layer.correction == 0 {
            positions
        } else {
            let correction = self.number("correction_number", f64::from(layer.correction));
            self.add("divisor", "Sub", &[&positions, &correction])
        };
        // Divided before the product: older releases of ONNX Runtime merge a transpose into the product behind it
        // also in float64, for which they have no kernel.
        let transposed = self.transpose("transposed", &x);
        let divided = self.add("divided", "Div", &[&transposed, &divisor]);
        let (left, right) = if first { (x, divided) } else { (divided, x) };
        self.add("covariance", "MatMul", &[&left, &right])
    }

    /// The symmetric matrices whose upper triangles are those of `matrix`.
    fn symmetric(&mut self, identity: &Identity, matrix: &str) -> String {
        let transposed = self.transpose("transposed", matrix);
        let upper = identity.upper(self);
        self.add("symmetric", "Where", &[&upper, matrix, &transposed])
    }

    /// Pre-normalisation, K Newton–Schulz steps, post-compensation.
    ///
    /// Y is carried halved, H = Y/2, which saves a node a step and changes no bit: T = (3/2)I − ZH; H ← HT; Z ← TZ from
    /// H₀ = Σ/(2t), Z₀ = I; S = 2√t·H.
    fn root(&mut self, layer: &Layer, identity: &Identity, matrix: &str) -> String {
        let t = match layer.normalization {
            Normalization::Trace => {
                let one = identity.select(self, "identity", 1.0, 0.0);
                let diagonal = self.add("diagonal", "Mul", &[matrix, &one]);
                self.sum("t", &diagonal, &[1, 2])
            }
            Normalization::Frobenius => {
                let squares = self.add("squares", "Mul", &[matrix, matrix]);
                let sum = self.sum("sum_of_squares", &squares, &[1, 2]);
                self.add("t", "Sqrt", &[&sum])
            }
        };
        let zero = self.number("zero", 0.0);
        let two = self.number("two", 2.0);
        let is_zero = self.add("t_is_zero", "Equal", &[&t, &zero]);
        let twice = self.add("twice_t", "Mul", &[&t, &two]);
        let quotient = self.add("quotient", "Div", &[matrix, &twice]);
        let mut h = self.add("H0", "Where", &[&is_zero, &zero, &quotient]);

        let three_halves = identity.select(self, "three_halves_identity", 1.5, 0.0);
        let mut z = String::new();
        for step in 1..=layer.iterations {
            let next = |value: &str| format!("{value}{step}");
            let factor = if step == 1 {
                self.add(&next("T"), "Sub", &[&three_halves, &h])
            } else {
                let product = self.add(&next("ZH"), "MatMul", &[&z, &h]);
                self.add(&next("T"), "Sub", &[&three_halves, &product])
            };
            h = self.add(&next("H"), "MatMul", &[&h, &factor]);
            if step == 1 {
                z = factor;
            } else if step < layer.iterations {
                z = self.add(&next("Z"), "MatMul", &[&factor, &z]);
            }
        }
        let scale = if layer.compensated {
            let root = self.add("root_of_t", "Sqrt", &[&t]);
            self.add("compensation", "Mul", &[&root, &two])
        } else {
            two
        };
        self.add("root", "Mul", &[&h, &scale])
    }

    /// The entries of each matrix where `mask` holds, row by row.
    fn triangle(&mut self, mask: &str, matrix: &str, output: &str) -> String {
        let flat = self.integers("flat", &[-1]);
        let mask = self.add("entry_mask", "Reshape", &[mask, &flat]);
        // Not Compress, which tract takes only with a mask that is a constant of the model.
        let places = self.add("entry_places", "NonZero", &[&mask]);
        let places = self.add("entry_indices", "Reshape", &[&places, &flat]);
        let rows = self.add("entries", "Flatten", &[matrix]);
        let axis = AttributeProto::int("axis", 1);
        self.push(output, NodeProto::new("Gather", &[&rows, &places], &[]).with(axis))
    }
}

/// Row and column numbers of a matrix, from which masks are made.
struct Identity {
    /// [C].
    columns: String,
    /// [C, 1].
    rows: String,
}

impl Identity {
    /// For matrices [N, C, C].
    fn new(body: &mut Body, matrix: &str) -> Self {
        let shape = body.add("matrix_shape", "Shape", &[matrix]);
        let one = body.constant("first_axis", &[], &[1_i64]);
        let side = body.add("side", "Gather", &[&shape, &one]);
        let zero = body.constant("first", &[], &[0_i64]);
        let columns = body.add("columns", "Range", &[&zero, &side, &one]);
        let upright = body.integers("upright", &[-1, 1]);
        let rows = body.add("rows", "Reshape", &[&columns, &upright]);
        Self { columns, rows }
    }

    /// [C, C] with one number on the diagonal and another off it.
    fn select(&self, body: &mut Body, name: &str, on: f64, off: f64) -> String {
        let diagonal = body.add("diagonal_mask", "Equal", &[&self.rows, &self.columns]);
        let on = body.number(&format!("{name}_on"), on);
        let off = body.number(&format!("{name}_off"), off);
        body.add(name, "Where", &[&diagonal, &on, &off])
    }

    /// [C, C], true where column ≥ row.
    fn upper(&self, body: &mut Body) -> String {
        let below = body.add("below_diagonal", "Less", &[&self.columns, &self.rows]);
        body.add("upper_mask", "Not", &[&below])
    }

    /// [C, C], true where column ≤ row.
    fn lower(&self, body: &mut Body) -> String {
        let above = body.add("above_diagonal", "Less", &[&self.rows, &self.columns]);
        body.add("lower_mask", "Not", &[&above])
    }
}
