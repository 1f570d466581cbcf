//! A rule as it is written.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A rule of `relabel_configs` as it stands in YAML: Prometheus's fields with its defaults.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RuleConfig {
    /// Labels whose values, joined by `separator`, are looked at.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub source_labels: Vec<String>,
    /// Stands between the values.
    pub separator: String,
    /// What they must match, from end to end.
    pub regex: String,
    /// Of [`Action::HashMod`].
    #[serde(skip_serializing_if = "is_zero")]
    pub modulus: u64,
    /// The label that is written, or compared.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub target_label: String,
    /// What is written, with `$1` and `${name}` for what groups have matched.
    pub replacement: String,
    /// What is done.
    pub action: Action,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl RuleConfig {
    pub(crate) const SEPARATOR: &str = ";";
    pub(crate) const REGEX: &str = "(.*)";
    pub(crate) const REPLACEMENT: &str = "$1";
}

impl Default for RuleConfig {
    fn default() -> Self {
        Self {
            source_labels: Vec::new(),
            separator: Self::SEPARATOR.to_owned(),
            regex: Self::REGEX.to_owned(),
            modulus: 0,
            target_label: String::new(),
            replacement: Self::REPLACEMENT.to_owned(),
            action: Action::Replace,
        }
    }
}

macro_rules! actions {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)+) => {
        /// What a rule does.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Action {
            $($(#[$doc])* $name,)+
        }

        impl Action {
            /// Every action.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// Its word in YAML.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)+ }
            }
        }
    };
}

actions! {
    /// Writes `replacement` to `target_label` if the pattern matches.
    Replace = "replace",
    /// Drops what does not match.
    Keep = "keep",
    /// Drops what matches.
    Drop = "drop",
    /// Drops what has another value in `target_label`.
    KeepEqual = "keepequal",
    /// Drops what has the same value in `target_label`.
    DropEqual = "dropequal",
    /// Writes the values' hash modulo `modulus`.
    HashMod = "hashmod",
    /// Copies labels whose names match to names made by `replacement`.
    LabelMap = "labelmap",
    /// Removes labels whose names match.
    LabelDrop = "labeldrop",
    /// Removes labels whose names do not match.
    LabelKeep = "labelkeep",
    /// Writes the values in lower case.
    Lowercase = "lowercase",
    /// Writes the values in upper case.
    Uppercase = "uppercase",
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Action {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Action {
    /// In any case, as Prometheus takes it.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        let lower = word.to_lowercase();
        let found = Self::ALL.iter().find(|action| action.as_str() == lower);
        found.copied().ok_or_else(|| {
            let words: Vec<_> = Self::ALL.iter().map(|action| action.as_str()).collect();
            serde::de::Error::custom(format!(
                "unknown relabel action {word:?}, one of {}",
                words.join(", ")
            ))
        })
    }
}
