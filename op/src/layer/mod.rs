//! An operator with its attributes: checked against the declaration, able to say the shape of its output.

#[cfg(test)]
mod tests;

use std::iter;

use crate::declaration::{Domain, Operator};
use crate::error::Error;
use crate::vectorization::Vectorization;

/// Which operator of the domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OperatorKind {
    /// Covariance, matrix square root and triangle.
    IsqrtCov,
    /// Covariance alone.
    CovariancePooling,
    /// Matrix square root alone.
    MatrixSqrt,
}

/// What the matrix is divided by before the iteration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Normalization {
    /// t = tr Σ.
    Trace,
    /// t = ‖Σ‖_F.
    Frobenius,
}

/// Which axis holds the channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layout {
    /// [N, C, D₁…D_k].
    ChannelsFirst,
    /// [N, D₁…D_k, C].
    ChannelsLast,
}

/// The value of an attribute, as a graph holds it.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// An `INT`.
    Integer(i64),
    /// A `FLOAT`.
    Float(f32),
    /// A `STRING`.
    Word(String),
}

/// An operator with its attributes, all within what the declaration allows.
///
/// Attributes that the operator does not declare keep the value that leaves them without effect.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Layer {
    /// The operator.
    pub operator: OperatorKind,
    /// K, the number of Newton–Schulz steps.
    pub iterations: u32,
    /// Whether each channel's mean is subtracted.
    pub centered: bool,
    /// δ in the divisor M − δ.
    pub correction: u32,
    /// ε, added to the diagonal.
    pub epsilon: f32,
    /// What the matrix is divided by before the iteration.
    pub normalization: Normalization,
    /// Whether the iterate is multiplied by √t.
    pub compensated: bool,
    /// Which entries are written, in which order.
    pub vectorization: Vectorization,
    /// Factor on the entries off the diagonal.
    pub off_diagonal_scale: f32,
    /// Which axis holds the channels.
    pub layout: Layout,
}

/// The sizes of one call, read off the input's shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Extent {
    /// N, the samples.
    pub samples: usize,
    /// C, the channels (d for `MatrixSqrt`).
    pub channels: usize,
    /// M, the positions (d for `MatrixSqrt`).
    pub positions: usize,
}

impl Layer {
    /// The operator with every attribute at its default, the published value.
    #[must_use]
    pub fn new(operator: OperatorKind) -> Self {
        let mut layer = Self {
            operator,
            iterations: 5,
            centered: true,
            correction: 0,
            epsilon: 0.0,
            normalization: Normalization::Trace,
            compensated: true,
            vectorization: Vectorization::None,
            off_diagonal_scale: 1.0,
            layout: Layout::ChannelsFirst,
        };
        for attribute in Operator::of(operator).attributes {
            layer.assign(attribute.name, &attribute.domain.default());
        }
        layer
    }

    /// The operator called `name` with `attributes`, the rest at their defaults.
    ///
    /// # Errors
    /// An unknown operator, an unknown attribute, a value of the wrong type or outside the declared ones.
    pub fn from_attributes<'a>(
        name: &str,
        attributes: impl IntoIterator<Item = (&'a str, Value)>,
    ) -> Result<Self, Error> {
        let operator = Operator::named(name).ok_or_else(|| Error::UnknownOperator(name.to_owned()))?;
        let mut layer = Self::new(operator.kind);
        for (attribute, value) in attributes {
            let declared = operator.attribute(attribute).ok_or_else(|| Error::UnknownAttribute {
                operator: operator.name,
                attribute: attribute.to_owned(),
                expected: operator.attributes.iter().map(|a| a.name).collect::<Vec<_>>().join(", "),
            })?;
            if !declared.domain.allows(&value) {
                return Err(Error::Attribute {
                    operator: operator.name,
                    attribute: declared.name,
                    found: declared.domain.describe(&value),
                    expected: declared.domain.to_string(),
                });
            }
            layer.assign(declared.name, &value);
        }
        Ok(layer)
    }

    /// Every declared attribute with its value, in the order of the declaration.
    #[must_use]
    pub fn attributes(&self) -> Vec<(&'static str, Value)> {
        let declared = Operator::of(self.operator).attributes;
        declared.iter().map(|attribute| (attribute.name, self.attribute(attribute.name))).collect()
    }

    /// The attributes that differ from their defaults, in the order of the declaration.
    #[must_use]
    pub fn changed_attributes(&self) -> Vec<(&'static str, Value)> {
        let declared = Operator::of(self.operator).attributes;
        let given = self.attributes().into_iter().zip(declared);
        given
            .filter(|((_, value), declared)| *value != declared.domain.default())
            .map(|(given, _)| given)
            .collect()
    }

    /// The operator's name in graphs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        Operator::of(self.operator).name
    }

    /// The sizes of a call on an input of shape `dims`.
    ///
    /// # Errors
    /// A rank or a size that the operator does not take; M ≤ `correction`.
    pub fn extent(&self, dims: &[usize]) -> Result<Extent, Error> {
        let known = known(dims);
        self.output_tail(&known)?;
        let (samples, rest) = (dims[0], &dims[1..]);
        let channels = match self.layout {
            Layout::ChannelsFirst => rest[0],
            Layout::ChannelsLast => rest[rest.len() - 1],
        };
        let elements = rest.iter().try_fold(1_usize, |product, &dim| product.checked_mul(dim));
        let elements = elements.ok_or_else(|| self.shape_error(&known, "fewer elements in a sample"))?;
        Ok(Extent { samples, channels, positions: elements / channels })
    }

    /// The output's shape for an input of shape `dims`.
    ///
    /// # Errors
    /// As [`Layer::extent`].
    pub fn output_dims(&self, dims: &[usize]) -> Result<Vec<usize>, Error> {
        let extent = self.extent(dims)?;
        let tail = self.output_tail(&known(dims))?;
        Ok(iter::once(extent.samples).chain(tail.into_iter().flatten()).collect())
    }

    /// The output's shape after the batch axis, for an input of which some sizes may be unknown; the batch axis itself
    /// is the input's first.
    ///
    /// # Errors
    /// A rank or a size that the operator does not take, as far as it is known.
    pub fn output_tail(&self, dims: &[Option<usize>]) -> Result<Vec<Option<usize>>, Error> {
        if self.operator == OperatorKind::MatrixSqrt {
            if dims.len() != 3 {
                return Err(self.shape_error(dims, "rank 3: [N, d, d]"));
            }
            if let (Some(rows), Some(columns)) = (dims[1], dims[2])
                && rows != columns
            {
                return Err(self.shape_error(dims, "square matrices: [N, d, d]"));
            }
        } else if dims.len() < 3 {
            let expected = match self.layout {
                Layout::ChannelsFirst => "rank 3 or more: [N, C, D₁…D_k]",
                Layout::ChannelsLast => "rank 3 or more: [N, D₁…D_k, C]",
            };
            return Err(self.shape_error(dims, expected));
        }
        if dims[1..].contains(&Some(0)) {
            return Err(self.shape_error(dims, "at least 1 in every axis but the first"));
        }
        let channel_axis = match self.layout {
            Layout::ChannelsFirst => 1,
            Layout::ChannelsLast => dims.len() - 1,
        };
        let positions = (1..dims.len())
            .filter(|&axis| axis != channel_axis)
            .try_fold(1_usize, |product, axis| dims[axis].map(|dim| product.saturating_mul(dim)));
        if self.operator != OperatorKind::MatrixSqrt
            && positions.is_some_and(|positions| positions <= self.correction as usize)
        {
            return Err(self.shape_error(dims, "more positions than `correction`"));
        }
        let side = match self.operator {
            OperatorKind::MatrixSqrt => dims[1].or(dims[2]),
            _ => dims[channel_axis],
        };
        if side.is_some_and(|side| side.checked_add(1).and_then(|next| side.checked_mul(next)).is_none()) {
            return Err(self.shape_error(dims, "fewer channels"));
        }
        Ok(match self.vectorization {
            Vectorization::None => vec![side, side],
            Vectorization::Upper | Vectorization::UpperColumnMajor => {
                vec![side.map(|side| side * (side + 1) / 2)]
            }
        })
    }

    /// The number of elements that one sample's output has.
    #[must_use]
    pub fn output_elements(&self, channels: usize) -> usize {
        match self.vectorization {
            Vectorization::None => channels * channels,
            Vectorization::Upper | Vectorization::UpperColumnMajor => channels * (channels + 1) / 2,
        }
    }

    fn shape_error(&self, dims: &[Option<usize>], expected: &str) -> Error {
        let operator = Operator::of(self.operator);
        let found: Vec<_> =
            dims.iter().map(|dim| dim.map_or_else(|| "?".to_owned(), |dim| dim.to_string())).collect();
        Error::Shape {
            operator: operator.name,
            input: operator.input.name,
            found: format!("[{}]", found.join(", ")),
            expected: expected.to_owned(),
        }
    }

    fn attribute(&self, name: &str) -> Value {
        match name {
            "iterations" => Value::Integer(self.iterations.into()),
            "centered" => Value::Integer(self.centered.into()),
            "correction" => Value::Integer(self.correction.into()),
            "epsilon" => Value::Float(self.epsilon),
            "normalization" => Value::Word(self.normalization.word().to_owned()),
            "compensated" => Value::Integer(self.compensated.into()),
            "vectorization" => Value::Word(self.vectorization.word().to_owned()),
            "off_diagonal_scale" => Value::Float(self.off_diagonal_scale),
            "layout" => Value::Word(self.layout.word().to_owned()),
            _ => unreachable!("`{name}` is declared but has no field"),
        }
    }

    /// Sets a declared attribute to a value that its domain allows.
    fn assign(&mut self, name: &str, value: &Value) {
        match (name, value) {
            ("iterations", &Value::Integer(value)) => self.iterations = value as u32,
            ("centered", &Value::Integer(value)) => self.centered = value == 1,
            ("correction", &Value::Integer(value)) => self.correction = value as u32,
            ("epsilon", &Value::Float(value)) => self.epsilon = value,
            ("normalization", Value::Word(word)) => {
                self.normalization =
                    Normalization::ALL.into_iter().find(|v| v.word() == word).unwrap_or(self.normalization);
            }
            ("compensated", &Value::Integer(value)) => self.compensated = value == 1,
            ("vectorization", Value::Word(word)) => {
                self.vectorization =
                    Vectorization::ALL.into_iter().find(|v| v.word() == word).unwrap_or(self.vectorization);
            }
            ("off_diagonal_scale", &Value::Float(value)) => self.off_diagonal_scale = value,
            ("layout", Value::Word(word)) => {
                self.layout = Layout::ALL.into_iter().find(|v| v.word() == word).unwrap_or(self.layout);
            }
            _ => unreachable!("`{name}` = {value} passed the declaration's check"),
        }
    }
}

/// Sizes that are all known.
fn known(dims: &[usize]) -> Vec<Option<usize>> {
    dims.iter().copied().map(Some).collect()
}

impl Normalization {
    /// Every value.
    pub const ALL: [Self; 2] = [Self::Trace, Self::Frobenius];

    /// The attribute's value in graphs.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Frobenius => "frobenius",
        }
    }
}

impl Layout {
    /// Every value.
    pub const ALL: [Self; 2] = [Self::ChannelsFirst, Self::ChannelsLast];

    /// The attribute's value in graphs.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::ChannelsFirst => "channels_first",
            Self::ChannelsLast => "channels_last",
        }
    }
}

impl Domain {
    /// The value an attribute has where the graph does not give one.
    #[must_use]
    pub fn default(&self) -> Value {
        match *self {
            Self::Integer { default, .. } => Value::Integer(default),
            Self::Float { default, .. } => Value::Float(default),
            Self::Word(words) => Value::Word(words[0].to_owned()),
        }
    }

    /// Whether an attribute may have this value.
    #[must_use]
    pub fn allows(&self, value: &Value) -> bool {
        match (self, value) {
            (&Self::Integer { least, most, .. }, &Value::Integer(value)) => (least..=most).contains(&value),
            (&Self::Float { least, .. }, &Value::Float(value)) => value.is_finite() && value >= least,
            (Self::Word(words), Value::Word(word)) => words.contains(&word.as_str()),
            _ => false,
        }
    }

    /// A value that is not allowed, for a message: an integer for a float is one that would be allowed but for its type.
    fn describe(&self, value: &Value) -> String {
        match (self, value) {
            (Self::Float { .. }, Value::Integer(value)) => format!("the integer {value}"),
            _ => value.to_string(),
        }
    }
}

impl std::fmt::Display for Domain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Integer { least, most, .. } => write!(f, "an integer from {least} to {most}"),
            Self::Float { least, .. } => write!(f, "a finite float, at least {least}"),
            Self::Word(words) => write!(f, "one of \"{}\"", words.join("\", \"")),
        }
    }
}

/// The operator with the attributes that differ from their defaults: `IsqrtCov(iterations=3)`, or `IsqrtCov` where none does.
impl std::fmt::Display for Layer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let changed = self.changed_attributes();
        let listed: Vec<String> = changed.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if listed.is_empty() {
            return f.write_str(self.name());
        }
        write!(f, "{}({})", self.name(), listed.join(", "))
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Integer(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value:?}"),
            Self::Word(word) => write!(f, "\"{word}\""),
        }
    }
}
