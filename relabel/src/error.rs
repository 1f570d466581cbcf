//! What is wrong with rules.

use crate::Action;

/// A rule that cannot be applied, and which one it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rule {number}: {error}")]
pub struct RelabelError {
    /// Its place in the list; the first is 1.
    pub number: usize,
    /// What is wrong with it.
    pub error: RuleError,
}

/// What is wrong with a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// A field that the action needs is missing.
    #[error("{field}: the action {action} needs it")]
    Missing {
        /// The action.
        action: Action,
        /// The field.
        field: &'static str,
    },
    /// A field that the action has no use for.
    #[error("{field}: the action {action} takes only {takes}")]
    Superfluous {
        /// The action.
        action: Action,
        /// The field.
        field: &'static str,
        /// What it takes.
        takes: &'static str,
    },
    /// A pattern that does not compile.
    #[error("regex: {reason}: {pattern:?}")]
    Pattern {
        /// As it was written.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
}
