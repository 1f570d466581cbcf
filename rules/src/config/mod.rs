//! What is written: rule files, and of Prometheus's own configuration what rules and alerts need.

mod alerting;
mod rule_file;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use millrace_query::Engine;

use crate::{RuleFault, RulesError};

pub use alerting::{AlertingConfig, GlobalConfig};
pub(crate) use alerting::{AlertmanagerGroup, Discovery, Header, Secret, TargetGroup};
pub(crate) use rule_file::{AlertSpec, RuleKind};
pub use rule_file::{GroupSpec, RuleSpec};

/// Finds and reads files. The server does it; rules know no disk.
pub trait Files: Send + Sync + std::fmt::Debug {
    /// The files that a path, or a pattern in its last part, names, sorted, with their texts.
    ///
    /// # Errors
    ///
    /// In words.
    fn matching(&self, pattern: &Path) -> Result<Vec<(PathBuf, String)>, String>;
}

/// Everything that rules are made of, read and checked.
#[derive(Clone, Debug, Default)]
pub struct RulesConfig {
    /// What holds for all groups.
    pub global: GlobalConfig,
    /// The groups, in order of file and place.
    pub groups: Vec<GroupSpec>,
    /// Where alerts are sent.
    pub alerting: AlertingConfig,
}

impl RulesConfig {
    /// Reads the configuration file, if there is one, and the rule files that it and `patterns` name.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, with file, line, group and rule.
    pub fn read(
        files: &dyn Files,
        config_file: Option<&Path>,
        patterns: &[String],
        defaults: &GlobalConfig,
        engine: &Engine,
    ) -> Result<Self, RulesError> {
        let mut global = defaults.clone();
        let mut alerting = AlertingConfig::default();
        let mut all: Vec<PathBuf> = patterns.iter().map(PathBuf::from).collect();
        if let Some(path) = config_file {
            let found = alerting::read(files, path, defaults)?;
            (global, alerting) = (found.global, found.alerting);
            let dir = path.parent().unwrap_or_else(|| Path::new(""));
            all.extend(found.rule_files.iter().map(|pattern| dir.join(pattern)));
        }
        let mut texts: Vec<(PathBuf, String)> = Vec::new();
        for pattern in &all {
            let unreadable = |what| RulesError::Read {
                path: pattern.clone(),
                what,
            };
            for (path, text) in files.matching(pattern).map_err(unreadable)? {
                if !texts.iter().any(|(known, _)| *known == path) {
                    texts.push((path, text));
                }
            }
        }
        let (mut groups, mut faults) = (Vec::new(), Vec::new());
        for (path, text) in &texts {
            match check_file(path, text, &global, engine) {
                Ok(more) => groups.extend(more),
                Err(more) => faults.extend(more),
            }
        }
        match faults.is_empty() {
            true => Ok(Self {
                global,
                groups,
                alerting,
            }),
            false => Err(RulesError::Invalid(faults)),
        }
    }
}

/// Reads and checks one rule file.
///
/// # Errors
///
/// All that is wrong with it.
pub fn check_file(
    path: &Path,
    text: &str,
    global: &GlobalConfig,
    engine: &Engine,
) -> Result<Vec<GroupSpec>, Vec<RuleFault>> {
    rule_file::read(path, text, global, engine).map_err(|faults| {
        let fault = |what| RuleFault {
            path: path.to_owned(),
            what,
        };
        faults.into_iter().map(fault).collect()
    })
}

/// Reads YAML, strictly. An empty text is an empty mapping.
pub(crate) fn from_yaml<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    let blank = text
        .lines()
        .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'));
    serde_saphyr::from_str(if blank { "{}" } else { text }).map_err(|error| {
        let inner = error.without_snippet();
        let place = inner.location().map_or(String::new(), |at| {
            format!("{}:{}: ", at.line(), at.column())
        });
        format!("{place}{inner}")
    })
}
