//! Recording and alerting rules: Prometheus's rule files, evaluated on time, and its alerts, sent to
//! Alertmanagers.
//!
//! What is written is read and checked by `config`, labels and annotations are expanded by `template`, `group`
//! evaluates the rules of a group in their order and `manager` knows when. `alert` is what becomes of an
//! alerting rule's answers, `notify` tells Alertmanagers. Where a doubt is, Prometheus's own behaviour is the
//! specification (`docs/rules.md` says where this differs).
//!
//! **Invariants:**
//! - This crate knows neither queue nor store, disk nor network: data come through the query engine, results
//!   leave through [`Sink`], files and requests through [`Files`] and [`Transport`].
//! - Rules with an error change nothing: those before go on.
//! - The same evaluation made twice writes the same samples at the same moments.

mod alert;
mod config;
mod correct;
mod error;
mod group;
mod manager;
mod metrics;
mod notify;
mod status;
mod template;
mod world;

pub use config::{
    AlertingConfig, Files, GlobalConfig, GroupSpec, RuleSpec, RulesConfig, check_file,
};
pub use error::{RuleFault, RulesError};
pub use manager::{RuleFiles, RuleManager};
pub use notify::{Post, Transport};
pub use world::{Appended, RulesOptions, RulesWorld, Sink};
