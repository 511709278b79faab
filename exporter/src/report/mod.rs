//! Reports as files: pages to read in a browser, which need nothing but themselves, or JSON.

pub mod chart;
pub mod html;
pub mod picture;

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};
use isqrt_cov_proto::{Draft, Finished};

/// What a report is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One HTML page.
    Page,
    /// One JSON object.
    Json,
}

impl Format {
    /// The format that a file's name asks for.
    ///
    /// # Errors
    /// A name that ends in neither `.html` nor `.json`.
    pub fn of(path: &Path) -> Result<Self> {
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        match extension.to_lowercase().as_str() {
            "html" | "htm" => Ok(Self::Page),
            "json" => Ok(Self::Json),
            _ => bail!("{}: a report's name ends in .html or .json", path.display()),
        }
    }
}

/// Writes `content` for `path`, where it is not seen before the draft is committed.
///
/// # Errors
/// A file that cannot be written.
pub fn stage(path: &Path, content: &str) -> Result<Finished> {
    let attempt = || {
        let mut draft = Draft::new(path)?;
        draft.write_all(content.as_bytes())?;
        draft.finish()
    };
    attempt().with_context(|| format!("{}: cannot be written", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_says_the_format() {
        assert_eq!(Format::of(Path::new("a/report.HTML")).unwrap(), Format::Page);
        assert_eq!(Format::of(Path::new("report.json")).unwrap(), Format::Json);
        for name in ["report", "report.pdf", ".html"] {
            assert!(Format::of(Path::new(name)).unwrap_err().to_string().contains(".html or .json"));
        }
    }
}
