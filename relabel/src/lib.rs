//! Relabelling: rules that keep, drop and rewrite label sets, in Prometheus's words and with its
//! results.
//!
//! One list of rules serves discovered targets, scraped series and pushed series. [`RuleConfig`] is
//! a rule as it stands in YAML, [`Rules`] are those that have been checked and compiled.
//!
//! **Invariants:**
//! - Rules apply in their order, each to what the one before it has left.
//! - Patterns are anchored at both ends and `.` matches line feeds.
//! - A label with an empty value is no label: setting one removes it.
//! - Nothing here reads a file, a clock or the network.

mod config;
mod error;
mod labels;
mod rule;
mod rules;

pub use config::{Action, RuleConfig};
pub use error::{RelabelError, RuleError};
pub use labels::LabelSet;
pub use rules::{Rules, Step};
