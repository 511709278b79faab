//! What a network computes and its weights do not tell: strides, the number of steps, the order of the triangle.

use std::collections::BTreeMap;

use isqrt_cov_op::STEPS;

/// Values that settings have been given, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    given: BTreeMap<String, (String, Source)>,
}

impl Settings {
    /// Sets `name`.
    pub fn set(&mut self, name: &str, value: &str, source: Source) {
        self.given.insert(name.to_owned(), (value.to_owned(), source));
    }

    /// The value of `name`, and who gave it.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<(&str, &Source)> {
        self.given.get(name).map(|(value, source)| (value.as_str(), source))
    }

    /// The names that were given.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.given.keys().map(String::as_str)
    }
}

/// Who says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The user.
    User,
    /// The user's data: of all values, this gives what they expect.
    Data,
    /// The weights themselves: their statistics.
    Weights,
    /// Nobody: it is what is usual, for the reason given.
    Assumed(String),
    /// Nobody, and nothing is usual: it has to be said.
    Open,
}

/// What was settled for one setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The setting's name, as on the command line.
    pub name: &'static str,
    /// What it is, for people.
    pub meaning: &'static str,
    /// The value.
    pub value: String,
    /// Values that are tried where data can decide: all that it can have. None where it is the number of steps.
    pub values: &'static [&'static str],
    /// Who says so.
    pub source: Source,
}

impl Choice {
    /// What is expected in place of its value, for people, unless that is one that it can have.
    #[must_use]
    pub fn expected(&self) -> Option<String> {
        match self.values {
            [] if steps(&self.value).is_some() => None,
            [] => Some(format!("a number from {} to {}", STEPS.start(), STEPS.end())),
            words if words.contains(&self.value.as_str()) => None,
            words => Some(format!("one of {}", words.join(", "))),
        }
    }
}

/// The number of steps that is meant, if the layer can take so many.
pub(crate) fn steps(value: &str) -> Option<u32> {
    value.parse().ok().filter(|&steps| STEPS.contains(&i64::from(steps)))
}
