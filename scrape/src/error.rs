//! What can go wrong.

use std::io;
use std::path::PathBuf;

/// A configuration that cannot be used, or a scraper that cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ScrapeError {
    /// A file that cannot be read.
    #[error("{path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// A file that is not what it should be.
    #[error("{path}: {what}", path = path.display())]
    Yaml {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        what: String,
    },
    /// Settings that do not fit together.
    #[error("{path}: {place}: {what}", path = path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Job, field and rule.
        place: String,
        /// What is wrong.
        what: String,
    },
    /// Metrics that the registry has already.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}
