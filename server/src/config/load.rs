//! The layers, laid over one another.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::PathBuf;

use millrace_log::fs::{Fs, read_all};

use super::error::{ConfigError, Origin};
use super::file;
use super::kind::Raw;
use super::rules;
use super::settings::{ENVIRONMENT_PREFIX, Parsed, SETTINGS, find};

/// No config file is longer; a path to something else is told early.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Variables with our prefix that set something else than a setting: the config file, how commands ask
/// servers, and what the tests take.
const OTHER_VARIABLES: [&str; 9] = [
    "MILLRACE_CONFIG",
    "MILLRACE_TOKEN",
    "MILLRACE_TOKEN_FILE",
    "MILLRACE_CA_FILE",
    "MILLRACE_CERT_FILE",
    "MILLRACE_KEY_FILE",
    "MILLRACE_SERVER_NAME",
    "MILLRACE_SEED",
    "MILLRACE_KILLS",
];

/// Where values may come from.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    /// The config file.
    pub file: Option<PathBuf>,
    /// The environment: name and value.
    pub environment: Vec<(String, String)>,
    /// Flags in their order: the flag, the key, the value.
    pub flags: Vec<(&'static str, String, String)>,
}

/// A configuration that can be started with: all settings, checked against one another.
#[derive(Clone, Debug)]
pub struct Config {
    parsed: Parsed,
    origins: BTreeMap<&'static str, Origin>,
    ignored: Vec<String>,
}

impl Config {
    /// Where the value of that setting came from.
    #[must_use]
    pub fn origin(&self, key: &str) -> Origin {
        self.origins.get(key).cloned().unwrap_or(Origin::Default)
    }

    /// Environment variables that look like settings and are none. Not an error, since
    /// Kubernetes puts such (`MILLRACE_PORT`, ...) into every container beside a service of our
    /// name; they are logged, so that a misspelt one is not searched for long.
    #[must_use]
    pub fn ignored_variables(&self) -> &[String] {
        &self.ignored
    }

    /// Whether a part of this process reads or writes the queue. A process with only the role
    /// `query` does not.
    #[must_use]
    pub fn needs_queue(&self) -> bool {
        self.top.roles.ingest || self.top.roles.store
    }

    /// Where the tokens are.
    #[must_use]
    pub fn tokens_file(&self) -> PathBuf {
        let default = || self.top.data_dir.join("tokens.json");
        self.auth.tokens_file.clone().unwrap_or_else(default)
    }

    /// Where administrative acts are noted.
    #[must_use]
    pub fn audit_file(&self) -> PathBuf {
        let default = || self.top.data_dir.join("audit.jsonl");
        self.auth.audit_file.clone().unwrap_or_else(default)
    }

    /// Whether queries are answered by the stores of other processes.
    #[must_use]
    pub fn queries_fleet(&self) -> bool {
        let roles = self.top.roles;
        roles.query && !(roles.store && self.cluster.nodes == 1)
    }

    /// All settings.
    #[must_use]
    pub fn parsed(&self) -> &Parsed {
        &self.parsed
    }
}

impl Deref for Config {
    type Target = Parsed;

    fn deref(&self) -> &Parsed {
        &self.parsed
    }
}

/// Lays the layers over one another and checks the result.
///
/// # Errors
///
/// The first thing that is wrong, with its place.
pub fn load(fs: &dyn Fs, layers: &Layers) -> Result<Config, ConfigError> {
    let mut config = Config {
        parsed: Parsed::default(),
        origins: BTreeMap::new(),
        ignored: Vec::new(),
    };
    if let Some(path) = &layers.file {
        let bytes =
            read_all(fs, path, MAX_FILE_BYTES).map_err(|source| ConfigError::Unreadable {
                path: path.clone(),
                source,
            })?;
        let text = String::from_utf8(bytes).map_err(|error| ConfigError::Syntax {
            origin: Origin::File {
                path: path.clone(),
                line: 1,
                column: 1,
            },
            message: format!("not UTF-8: {}", error.utf8_error()),
        })?;
        for assignment in file::parse(path, &text)? {
            config.set(&assignment.key, &assignment.raw, assignment.origin)?;
        }
    }
    config.take_environment(&layers.environment)?;
    for (flag, key, value) in &layers.flags {
        config.set(key, &Raw::Text(value.clone()), Origin::Flag(flag))?;
    }
    rules::check(&config)?;
    Ok(config)
}

impl Config {
    fn take_environment(&mut self, environment: &[(String, String)]) -> Result<(), ConfigError> {
        for (name, value) in environment {
            let setting = SETTINGS.iter().find(|setting| setting.variable() == *name);
            match setting {
                Some(setting) => {
                    let origin = Origin::Environment(name.clone());
                    self.set(setting.key, &Raw::Text(value.clone()), origin)?;
                }
                None if OTHER_VARIABLES.contains(&name.as_str()) => {}
                None if name.starts_with(ENVIRONMENT_PREFIX) => self.ignored.push(name.clone()),
                None => {}
            }
        }
        Ok(())
    }

    fn set(&mut self, key: &str, raw: &Raw, origin: Origin) -> Result<(), ConfigError> {
        let Some(setting) = find(key) else {
            return Err(ConfigError::Unknown {
                origin,
                key: key.to_owned(),
                suggestion: nearest(key),
            });
        };
        (setting.set)(&mut self.parsed, raw).map_err(|reason| ConfigError::Value {
            origin: origin.clone(),
            key: key.to_owned(),
            value: if setting.secret {
                "***".to_owned()
            } else {
                raw.to_string()
            },
            reason,
        })?;
        self.origins.insert(setting.key, origin);
        Ok(())
    }
}

/// The key that was probably meant: the last word is right in another section, or few letters
/// differ.
fn nearest(key: &str) -> Option<&'static str> {
    let last = key.rsplit('.').next().unwrap_or(key);
    let same_word = SETTINGS.iter().find(|setting| setting.split().1 == last);
    if let Some(setting) = same_word {
        return Some(setting.key);
    }
    SETTINGS
        .iter()
        .map(|setting| (distance(key, setting.key), setting.key))
        .min()
        .filter(|(distance, _)| *distance <= (key.len() / 3).max(2))
        .map(|(_, key)| key)
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests;
