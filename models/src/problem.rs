//! What does not fit between a checkpoint and an architecture.

use std::fmt;

use isqrt_cov_proto::Printable;

/// One thing that does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// A tensor that the architecture needs.
    Missing {
        /// Its name in the checkpoint.
        name: String,
    },
    /// A tensor that the architecture does not have.
    Surplus {
        /// Its name in the checkpoint.
        name: String,
        /// Its shape.
        found: Vec<i64>,
    },
    /// A tensor of another shape.
    Shape {
        /// Its name in the checkpoint.
        name: String,
        /// What the architecture says; nothing where any size will do.
        expected: Vec<Option<usize>>,
        /// Its shape.
        found: Vec<i64>,
    },
    /// A tensor whose elements are no floating-point numbers.
    Type {
        /// Its name in the checkpoint.
        name: String,
        /// Their type.
        found: String,
    },
    /// Something that the names leave unsaid.
    Unknown {
        /// What, for people.
        what: String,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { name } => write!(out, "`{}` is missing", Printable(name)),
            Self::Surplus { name, found } => {
                write!(out, "`{}` {found:?} belongs to nothing", Printable(name))
            }
            Self::Shape { name, expected, found } => {
                let expected: Vec<String> = expected
                    .iter()
                    .map(|size| size.map_or_else(|| "any".to_owned(), |size| size.to_string()))
                    .collect();
                write!(out, "`{}` has shape {found:?}; expected [{}]", Printable(name), expected.join(", "))
            }
            Self::Type { name, found } => {
                write!(
                    out,
                    "`{}` is {found}; expected float32, float64, float16 or bfloat16",
                    Printable(name)
                )
            }
            Self::Unknown { what } => out.write_str(what),
        }
    }
}
