//! What can be wrong with a configuration. Every message is one line that names the place.

use std::fmt;
use std::path::PathBuf;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Built in.
    Default,
    /// The config file.
    File {
        /// As it was named.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Counted from 1, in characters.
        column: usize,
    },
    /// An environment variable.
    Environment(String),
    /// A flag of the command line.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line, column } => {
                write!(f, "{}:{line}:{column}", path.display())
            }
            Self::Environment(variable) => write!(f, "environment variable {variable}"),
            Self::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

/// Why there is no configuration to start with.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("config file {path:?} cannot be read: {source}")]
    Unreadable {
        /// As it was named.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file is no TOML.
    #[error("{origin}: {message}")]
    Syntax {
        /// Where.
        origin: Origin,
        /// What the parser says.
        message: String,
    },
    /// There is no such setting.
    #[error("{origin}: there is no setting {key:?}{}; `millrace config` lists them all", hint(.suggestion))]
    Unknown {
        /// Where.
        origin: Origin,
        /// The key as it was written.
        key: String,
        /// The nearest one that there is.
        suggestion: Option<&'static str>,
    },
    /// A value is not of its setting's type.
    #[error("{origin}: {key} = {value}: {reason}")]
    Value {
        /// Where.
        origin: Origin,
        /// The setting.
        key: String,
        /// The value as it was written.
        value: String,
        /// The end of the sentence.
        reason: String,
    },
    /// `--set` without `=`.
    #[error("flag --set {text:?}: must be key=value, such as --set ingest.max_age=7d")]
    Assignment {
        /// The flag's value.
        text: String,
    },
    /// Two settings, or a setting and the machine, do not go together.
    #[error("{key} = {value} ({origin}): {reason}")]
    Rule {
        /// The setting to change.
        key: &'static str,
        /// Its value.
        value: String,
        /// Where that came from.
        origin: Origin,
        /// The end of the sentence.
        reason: String,
    },
}

fn hint(suggestion: &Option<&'static str>) -> String {
    suggestion.map_or_else(String::new, |key| format!(", did you mean {key:?}?"))
}
