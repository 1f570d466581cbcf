//! Configuration and target files: read within bounds, found by patterns.

use std::path::{Path, PathBuf};

use glob::Pattern;
use millrace_log::fs::{Fs, read_all};

use crate::ScrapeError;

/// A configuration or a list of targets is read whole; beyond this it is not one.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// The text of a file.
///
/// # Errors
///
/// A file that cannot be read, or is not UTF-8.
pub fn read_text(fs: &dyn Fs, path: &Path) -> Result<String, ScrapeError> {
    let named = |source| ScrapeError::Read {
        path: path.to_owned(),
        source,
    };
    let bytes = read_all(fs, path, MAX_FILE_BYTES).map_err(named)?;
    String::from_utf8(bytes).map_err(|_| ScrapeError::Yaml {
        path: path.to_owned(),
        what: "is not UTF-8".to_owned(),
    })
}

/// A file's text as a secret is read from it: without the line end that an editor adds.
pub(crate) fn read_secret(fs: &dyn Fs, path: &Path) -> Result<String, ScrapeError> {
    let text = read_text(fs, path)?;
    Ok(text.trim().to_owned())
}

/// The directory of a file.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or_else(|| Path::new(""))
}

/// The files that a path with `*` in its last part names, sorted; the path itself without one.
///
/// # Errors
///
/// A directory that cannot be read, or a pattern that is none.
pub fn matching(fs: &dyn Fs, pattern: &Path) -> Result<Vec<PathBuf>, ScrapeError> {
    let name = pattern.file_name().map(|name| name.to_string_lossy());
    let name = name.unwrap_or_default();
    if !name.contains(['*', '?', '[']) {
        return Ok(vec![pattern.to_owned()]);
    }
    let glob = Pattern::new(&name).map_err(|error| ScrapeError::Yaml {
        path: pattern.to_owned(),
        what: error.to_string(),
    })?;
    let dir = match parent(pattern) {
        dir if dir.as_os_str().is_empty() => Path::new("."),
        dir => dir,
    };
    let entries = match fs.list(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(source) => {
            let path = dir.to_owned();
            return Err(ScrapeError::Read { path, source });
        }
    };
    let files = entries.iter().filter(|entry| !entry.is_dir);
    let found = files.filter(|entry| glob.matches(&entry.name));
    Ok(found.map(|entry| dir.join(&entry.name)).collect())
}

/// Whether a path is one of `file_sd_configs`.
pub(crate) fn is_group_pattern(path: &Path) -> bool {
    let extension = path
        .extension()
        .map(|extension| extension.to_string_lossy());
    let known = extension.is_some_and(|extension| {
        ["json", "yml", "yaml"].contains(&extension.to_lowercase().as_str())
    });
    known && !parent(path).to_string_lossy().contains('*')
}
