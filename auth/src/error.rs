//! What can go wrong.

use std::io;
use std::path::PathBuf;

/// Why tokens, certificates or the audit log are not as they should be.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// A file cannot be read or written.
    #[error("{path:?}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path:?}: {reason}")]
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong in it.
        reason: String,
    },
    /// Another process changes the file right now.
    #[error("{path:?} is being changed by another process; try again")]
    Busy {
        /// Which.
        path: PathBuf,
    },
    /// There is no such token.
    #[error("there is no token {id:?}; `millrace token list` shows which there are")]
    UnknownToken {
        /// What was asked for.
        id: String,
    },
    /// A token cannot be made or changed so.
    #[error("{0}")]
    Invalid(String),
    /// No server can have that name.
    #[error("{name:?} is no name of a server: {reason}")]
    Name {
        /// What was given.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    NoRandomness,
}

impl AuthError {
    pub(crate) fn file(path: &std::path::Path, source: io::Error) -> Self {
        Self::File {
            path: path.to_owned(),
            source,
        }
    }

    pub(crate) fn content(path: &std::path::Path, reason: impl ToString) -> Self {
        Self::Content {
            path: path.to_owned(),
            reason: reason.to_string(),
        }
    }
}
