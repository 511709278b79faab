//! Reports as files: pages to read in a browser, which need nothing but themselves, or JSON.

pub mod chart;
pub mod html;
pub mod picture;

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};

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

/// Writes `content` to `path` by a temporary file, so that nobody ever reads half of it.
///
/// # Errors
/// A file that cannot be written.
pub fn write(path: &Path, content: &str) -> Result<()> {
    let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    let attempt = || -> std::io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(".isqrt-cov-").tempfile_in(folder)?;
        file.write_all(content.as_bytes())?;
        file.as_file().sync_all()?;
        share(file.as_file())?;
        file.persist(path)?;
        Ok(())
    };
    attempt().with_context(|| format!("{}: cannot be written", path.display()))
}

/// Temporary files are private; a report is as readable as any new file under the usual mask.
#[cfg(unix)]
fn share(file: &std::fs::File) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn share(_: &std::fs::File) -> std::io::Result<()> {
    Ok(())
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

    #[test]
    fn a_report_replaces_an_earlier_one_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.html");
        write(&path, "first").unwrap();
        write(&path, "second").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "second");
        assert!(write(&folder.path().join("nowhere/report.html"), "").is_err());
        assert_eq!(folder.path().read_dir().unwrap().count(), 1);
    }
}
