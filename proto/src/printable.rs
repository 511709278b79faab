use std::fmt::{self, Display};

/// Text from a file as it may stand in a message: of bounded length, and without characters that control, break or
/// turn round the text, with which a hostile name could rewrite what the terminal shows.
#[derive(Debug, Clone, Copy)]
pub struct Printable<'a>(pub &'a str);

impl Printable<'_> {
    /// Whether a character controls or turns round the text.
    #[must_use]
    pub fn is_refused(character: char) -> bool {
        character.is_control()
            || matches!(
                character,
                '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            )
    }
}

impl Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 120;
        for character in self.0.chars().take(SHOWN) {
            if Self::is_refused(character) {
                write!(f, "{}", character.escape_unicode())?;
            } else {
                write!(f, "{character}")?;
            }
        }
        if self.0.chars().nth(SHOWN).is_some() { f.write_str("…") } else { Ok(()) }
    }
}

/// The same for the sizes of a tensor, of which a file may claim any number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape<'a>(pub(crate) &'a [i64]);

impl Display for Shape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 16;
        match self.0.split_at_checked(SHOWN) {
            Some((shown, [_, ..])) => write!(f, "{shown:?} and {} more", self.0.len() - SHOWN),
            _ => write!(f, "{:?}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_bounded_and_controls_nothing() {
        assert_eq!(Printable("layer.0/weight é").to_string(), "layer.0/weight é");
        assert_eq!(Printable("a\x1b[2J\r\n\u{202e}b").to_string(), r"a\u{1b}[2J\u{d}\u{a}\u{202e}b");
        assert_eq!(Printable(&"w".repeat(1000)).to_string(), "w".repeat(120) + "…");
        assert_eq!(Shape(&[2, -3]).to_string(), "[2, -3]");
        assert!(Shape(&[1; 1000]).to_string().ends_with("1] and 984 more"));
    }
}
