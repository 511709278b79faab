//! What does not fit between a checkpoint and an architecture.

use std::fmt;

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
            Self::Missing { name } => write!(out, "`{name}` is missing"),
            Self::Surplus { name, found } => write!(out, "`{name}` {found:?} belongs to nothing"),
            Self::Shape { name, expected, found } => {
                let expected: Vec<String> = expected
                    .iter()
                    .map(|size| size.map_or_else(|| "any".to_owned(), |size| size.to_string()))
                    .collect();
                write!(out, "`{name}` has shape {found:?}; expected [{}]", expected.join(", "))
            }
            Self::Type { name, found } => {
                write!(out, "`{name}` is {found}; expected float32, float64, float16 or bfloat16")
            }
            Self::Unknown { what } => out.write_str(what),
        }
    }
}
