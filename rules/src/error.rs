//! What can go wrong with rules.

use std::fmt;
use std::path::PathBuf;

/// Rules or an alerting configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// Files that cannot be read.
    #[error("{path}: {what}", path = path.display())]
    Read {
        /// The file, or the pattern.
        path: PathBuf,
        /// Why.
        what: String,
    },
    /// Rule files with errors: all of them.
    #[error("{}", Listed(.0))]
    Invalid(Vec<RuleFault>),
    /// Settings that do not fit together.
    #[error("{path}: {place}: {what}", path = path.display())]
    Alerting {
        /// The file.
        path: PathBuf,
        /// Section and field.
        place: String,
        /// What is wrong.
        what: String,
    },
    /// Metrics that the registry has already.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// One thing that is wrong with a rule file, as `promtool` words it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleFault {
    /// The file.
    pub path: PathBuf,
    /// What is wrong, with line and column, group and rule.
    pub what: String,
}

impl fmt::Display for RuleFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.what)
    }
}

struct Listed<'a>(&'a [RuleFault]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (fault, number) in self.0.iter().zip(0..) {
            let separator = if number == 0 { "" } else { "; " };
            write!(f, "{separator}{fault}")?;
        }
        Ok(())
    }
}
