//! A layer as an ONNX function: its arithmetic in standard operators, for runtimes without the operator library.
//!
//! The body knows neither N, C nor M, only the layer's attributes, the element type and the operator set. Operators are
//! chosen that kept one meaning from operator set 11 on; only `ReduceSum` must be spelled in two ways.

use isqrt_cov_op::declaration::Attribute;
use isqrt_cov_op::layer::Value;
use isqrt_cov_op::{DOMAIN, Layer, Layout, Normalization, Operator, OperatorKind, Vectorization};
use isqrt_cov_proto::Element;
use isqrt_cov_proto::onnx::tensor_proto::DataType;
use isqrt_cov_proto::onnx::{AttributeProto, FunctionProto, NodeProto, OperatorSetIdProto, TensorProto};
use thiserror::Error;

/// The oldest operator set in which the layer can be written: `Range` and general `Equal` came with it.
pub const OLDEST_OPSET: i64 = 11;

/// The operator set with `CastLike`.
const CAST_LIKE: i64 = 15;

/// Why a layer has no body.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Error {
    /// The operators do not take this type.
    #[error("element type {}; expected FLOAT, DOUBLE, FLOAT16 or BFLOAT16", .0.as_str_name())]
    ElementType(DataType),
    /// The operator set lacks what the body needs.
    #[error("operator set {found}; expected {least} or later: convert the model with onnx.version_converter")]
    Opset {
        /// The model's operator set.
        found: i64,
        /// The oldest that would do.
        least: i64,
    },
}

/// The function `layer.name()` of the operators' domain that computes `layer` on elements of type `element` in
/// standard operators of version `opset`.
///
/// Where `element` is not known, the body computes in float64 and casts back to whatever came; that takes operator
/// set 15. Half-precision types are computed in float32.
///
/// # Errors
/// An element type that the operators do not take, an operator set that is too old.
pub fn function_for(layer: &Layer, element: Option<DataType>, opset: i64) -> Result<FunctionProto, Error> {
    let least = if element.is_none() { CAST_LIKE } else { OLDEST_OPSET };
    if opset < least {
        return Err(Error::Opset { found: opset, least });
    }
    let wide = match element {
        Some(DataType::Float | DataType::Float16 | DataType::Bfloat16) => DataType::Float,
        Some(DataType::Double) | None => DataType::Double,
        Some(other) => return Err(Error::ElementType(other)),
    };
    let operator = Operator::of(layer.operator);
    let mut body = Body { nodes: Vec::new(), opset, wide };
    let (input, output) = (operator.input.name, operator.output.name);
    if element == Some(wide) {
        body.compute(layer, input, output);
    } else {
        let wide_input = body.cast("input", input);
        body.compute(layer, &wide_input, "output");
        match element {
            Some(element) => {
                let to = AttributeProto::int("to", i32::from(element).into());
                body.push(output, NodeProto::new("Cast", &["output"], &[]).with(to));
            }
            None => {
                body.add(output, "CastLike", &["output", input]);
            }
        }
    }
    Ok(FunctionProto {
        name: Some(operator.name.to_owned()),
        domain: Some(DOMAIN.to_owned()),
        input: vec![input.to_owned()],
        output: vec![output.to_owned()],
        attribute_proto: operator.attributes.iter().map(default_of).collect(),
        node: body.nodes,
        opset_import: vec![OperatorSetIdProto::new("", opset)],
        ..FunctionProto::default()
    })
}

/// The attributes of a node that computes `layer`: all of them, so that a reader need not know the defaults.
#[must_use]
pub fn attributes_of(layer: &Layer) -> Vec<AttributeProto> {
    layer.attributes().iter().map(|(name, value)| attribute(name, value)).collect()
}

fn default_of(declared: &Attribute) -> AttributeProto {
    attribute(declared.name, &declared.domain.default())
}

fn attribute(name: &str, value: &Value) -> AttributeProto {
    match value {
        Value::Integer(value) => AttributeProto::int(name, *value),
        Value::Float(value) => AttributeProto::float(name, *value),
        Value::Word(word) => AttributeProto::string(name, word),
    }
}

/// A function's nodes as they are added. Values are known by their names.
struct Body {
    nodes: Vec<NodeProto>,
    opset: i64,
    /// The type in which the body computes.
    wide: DataType,
}

impl Body {
    fn compute(&mut self, layer: &Layer, input: &str, output: &str) {
        let matrix = match layer.operator {
            OperatorKind::MatrixSqrt => input.to_owned(),
            OperatorKind::IsqrtCov | OperatorKind::CovariancePooling => self.covariance(layer, input),
        };
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
                self.add(output, "Identity", &[&matrix]);
                return;
            }
            Vectorization::Upper => identity.upper(self),
            // The lower triangle row by row is the upper one column by column: the matrix is symmetric.
            Vectorization::UpperColumnMajor => identity.lower(self),
        };
        self.triangle(&mask, &matrix, output);
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
    fn triangle(&mut self, mask: &str, matrix: &str, output: &str) {
        let flat = self.integers("flat", &[-1]);
        let mask = self.add("entry_mask", "Reshape", &[mask, &flat]);
        let rows = self.push("entries", NodeProto::new("Flatten", &[matrix], &[]));
        let axis = AttributeProto::int("axis", 1);
        self.push(output, NodeProto::new("Compress", &[&rows, &mask], &[]).with(axis));
    }

    /// The sum over `axes`, which stay as 1.
    fn sum(&mut self, name: &str, of: &str, axes: &[i64]) -> String {
        if self.opset < 13 {
            let axes = AttributeProto::ints("axes", axes);
            return self.push(name, NodeProto::new("ReduceSum", &[of], &[]).with(axes));
        }
        let axes = self.integers(&format!("{name}_axes"), axes);
        self.add(name, "ReduceSum", &[of, &axes])
    }

    fn transpose(&mut self, name: &str, of: &str) -> String {
        let perm = AttributeProto::ints("perm", &[0, 2, 1]);
        self.push(name, NodeProto::new("Transpose", &[of], &[]).with(perm))
    }

    fn cast(&mut self, name: &str, input: &str) -> String {
        let to = AttributeProto::int("to", i32::from(self.wide).into());
        self.push(name, NodeProto::new("Cast", &[input], &[]).with(to))
    }

    fn concat(&mut self, name: &str, inputs: &[&str]) -> String {
        self.push(name, NodeProto::new("Concat", inputs, &[]).with(AttributeProto::int("axis", 0)))
    }

    /// A scalar of the type in which the body computes.
    fn number(&mut self, name: &str, value: f64) -> String {
        match self.wide {
            DataType::Double => self.constant(name, &[], &[value]),
            _ => self.constant(name, &[], &[value as f32]),
        }
    }

    fn integers(&mut self, name: &str, values: &[i64]) -> String {
        self.constant(name, &[values.len()], values)
    }

    fn constant<T: Element>(&mut self, name: &str, dims: &[usize], values: &[T]) -> String {
        let value = TensorProto { name: None, ..TensorProto::from_values("", dims, values) };
        self.push(name, NodeProto::new("Constant", &[], &[]).with(AttributeProto::tensor("value", value)))
    }

    fn add(&mut self, name: &str, op_type: &str, inputs: &[&str]) -> String {
        self.push(name, NodeProto::new(op_type, inputs, &[]))
    }

    /// Adds `node` with `name` as its output, unless the same value is there already. Returns the name.
    fn push(&mut self, name: &str, mut node: NodeProto) -> String {
        node.output = vec![name.to_owned()];
        if !self.nodes.contains(&node) {
            self.nodes.push(node);
        }
        name.to_owned()
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
