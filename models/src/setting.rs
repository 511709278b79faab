//! What a network computes and its weights do not tell: strides, the number of steps, the order of the triangle.

use std::collections::BTreeMap;

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
    /// Values that are tried where data can decide.
    pub values: &'static [&'static str],
    /// Who says so.
    pub source: Source,
}
