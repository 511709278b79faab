//! Pieces of an HTML page. Whatever comes as text is escaped here; what is markup already has a type of its own.

use std::fmt::{self, Display, Write};

/// Markup: tags that are closed, and text that is escaped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Markup(pub String);

impl Display for Markup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Extend<Markup> for Markup {
    fn extend<I: IntoIterator<Item = Markup>>(&mut self, parts: I) {
        parts.into_iter().for_each(|part| self.0.push_str(&part.0));
    }
}

impl FromIterator<Markup> for Markup {
    fn from_iter<I: IntoIterator<Item = Markup>>(parts: I) -> Self {
        let mut all = Self::default();
        all.extend(parts);
        all
    }
}

/// `text` as it stands between tags or in an attribute's quotes. Characters that no page may hold, or that turn the
/// direction of what follows them, are spelled out.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fffe}'
            | '\u{ffff}' => escaped.extend(character.escape_unicode()),
            _ if character.is_control() => escaped.extend(character.escape_default()),
            _ => escaped.push(character),
        }
    }
    escaped
}

/// `<tag class="…">content</tag>`; without a class, none is written.
#[must_use]
pub fn element(tag: &str, class: &str, content: &Markup) -> Markup {
    let class = if class.is_empty() { String::new() } else { format!(" class=\"{}\"", escape(class)) };
    Markup(format!("<{tag}{class}>{content}</{tag}>\n"))
}

/// Text on its own.
#[must_use]
pub fn text(text: &str) -> Markup {
    Markup(escape(text))
}

/// A paragraph.
#[must_use]
pub fn paragraph(class: &str, content: &str) -> Markup {
    element("p", class, &text(content))
}

/// A part of the page under a heading.
#[must_use]
pub fn section(heading: &str, content: &Markup) -> Markup {
    let heading = element("h2", "", &text(heading));
    element("section", "", &[heading, content.clone()].into_iter().collect())
}

/// Names and values, a row each.
#[must_use]
pub fn pairs<N: AsRef<str>, V: AsRef<str>>(rows: &[(N, V)]) -> Markup {
    let row = |(name, value): &(N, V)| {
        Markup(format!("<tr><th>{}</th><td>{}</td></tr>\n", escape(name.as_ref()), escape(value.as_ref())))
    };
    element("div", "wide", &element("table", "pairs", &rows.iter().map(row).collect()))
}

/// A table under headings.
#[must_use]
pub fn table(headings: &[&str], rows: &[Vec<String>]) -> Markup {
    let mut body = String::from("<tr>");
    // Writing to a string does not fail.
    headings.iter().for_each(|heading| write!(body, "<th>{}</th>", escape(heading)).unwrap_or_default());
    body.push_str("</tr>\n");
    for row in rows {
        body.push_str("<tr>");
        row.iter().for_each(|cell| write!(body, "<td>{}</td>", escape(cell)).unwrap_or_default());
        body.push_str("</tr>\n");
    }
    element("div", "wide", &element("table", "", &Markup(body)))
}

/// A picture with what it shows below it.
#[must_use]
pub fn figure(picture: &Markup, caption: &str) -> Markup {
    let caption = element("figcaption", "", &text(caption));
    let picture = element("div", "wide", picture);
    element("figure", "", &[picture, caption].into_iter().collect())
}

/// A whole page, which refers to nothing outside it.
#[must_use]
pub fn page(title: &str, body: &Markup) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n<meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\"/>\n<meta name=\"color-scheme\" content=\"light dark\"/>\n\
         <title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n",
        escape(title)
    )
}

/// Colors are named once, for light and for dark; a printer gets the light ones.
const STYLE: &str = include_str!("page.css");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_models_cannot_leave_their_place() {
        let hostile = "</td><script>alert('x' & \"y\")</script>\u{1b}[2J\u{0}\u{202e}\u{ffff}ü";
        let escaped = escape(hostile);
        assert_eq!(
            escaped,
            "&lt;/td&gt;&lt;script&gt;alert(&#39;x&#39; &amp; &quot;y&quot;)&lt;/script&gt;\\u{1b}[2J\\u{0}\\u{202e}\
             \\u{ffff}ü"
        );
        let page = page(hostile, &pairs(&[(hostile, hostile)]));
        assert!(!page.contains("<script") && page.matches("&lt;script&gt;").count() == 3);
    }

    #[test]
    fn a_page_refers_to_nothing_outside_it() {
        let page = page("t", &section("h", &paragraph("", "p")));
        for reference in ["http", "src=", "href=", "url(", "@import", "<script", "<link"] {
            assert!(!page.contains(reference), "{reference}");
        }
    }
}
