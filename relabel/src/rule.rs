//! One rule, checked and compiled.

use md5::{Digest as _, Md5};
use regex::{Captures, Regex, RegexBuilder};

use crate::{Action, LabelSet, RuleConfig, RuleError};

/// A compiled pattern takes this much at most, so that no rule takes the machine.
const MAX_PATTERN_BYTES: usize = 10 << 20;

/// A rule that can be applied.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    source: Vec<String>,
    separator: String,
    regex: Regex,
    /// Whether the pattern matches everything, so that it need not be asked.
    matches_all: bool,
    modulus: u64,
    target: String,
    replacement: String,
    action: Action,
}

impl Rule {
    pub(crate) fn new(config: &RuleConfig) -> Result<Self, RuleError> {
        check(config)?;
        Ok(Self {
            source: config.source_labels.clone(),
            separator: config.separator.clone(),
            regex: compile(&config.regex)?,
            matches_all: config.regex == RuleConfig::REGEX,
            modulus: config.modulus,
            target: config.target_label.clone(),
            replacement: config.replacement.clone(),
            action: config.action,
        })
    }

    /// Applies the rule; whether the label set is kept.
    pub(crate) fn apply(&self, labels: &mut LabelSet) -> bool {
        match self.action {
            Action::Replace => self.replace(labels),
            Action::Keep => return self.regex.is_match(&self.value(labels)),
            Action::Drop => return !self.regex.is_match(&self.value(labels)),
            Action::KeepEqual => return labels.get(&self.target) == self.value(labels),
            Action::DropEqual => return labels.get(&self.target) != self.value(labels),
            Action::HashMod => {
                let hash = Md5::digest(self.value(labels).as_bytes());
                // The low half alone, as Prometheus has it since its first versions.
                let mut low = [0; 8];
                low.copy_from_slice(&hash[8..]);
                let shard = u64::from_be_bytes(low) % self.modulus;
                labels.set(&self.target, &shard.to_string());
            }
            Action::LabelMap => self.map_names(labels),
            Action::LabelDrop => labels.retain(|name, _| !self.regex.is_match(name)),
            Action::LabelKeep => labels.retain(|name, _| self.regex.is_match(name)),
            Action::Lowercase => {
                let value = self.value(labels).to_lowercase();
                labels.set(&self.target, &value);
            }
            Action::Uppercase => {
                let value = self.value(labels).to_uppercase();
                labels.set(&self.target, &value);
            }
        }
        true
    }

    fn value(&self, labels: &LabelSet) -> String {
        let mut value = String::new();
        for (i, name) in self.source.iter().enumerate() {
            if i > 0 {
                value.push_str(&self.separator);
            }
            value.push_str(labels.get(name));
        }
        value
    }

    fn replace(&self, labels: &mut LabelSet) {
        let value = self.value(labels);
        if self.matches_all && !self.target.contains('$') {
            match self.replacement.as_str() {
                "$1" | "${1}" => return labels.set(&self.target, &value),
                text if !text.contains('$') => return labels.set(&self.target, text),
                _ => {}
            }
        }
        let Some(groups) = self.regex.captures(&value) else {
            return;
        };
        let target = expand(&groups, &self.target);
        if !target.is_empty() {
            labels.set(&target, &expand(&groups, &self.replacement));
        }
    }

    fn map_names(&self, labels: &mut LabelSet) {
        let mapped = |(name, value): (&str, &str)| {
            let name = expand(&self.regex.captures(name)?, &self.replacement);
            (!name.is_empty()).then(|| (name, value.to_owned()))
        };
        let mapped: Vec<_> = labels.iter().filter_map(mapped).collect();
        for (name, value) in mapped {
            labels.set(&name, &value);
        }
    }
}

fn expand(groups: &Captures<'_>, template: &str) -> String {
    let mut out = String::new();
    groups.expand(template, &mut out);
    out
}

fn compile(pattern: &str) -> Result<Regex, RuleError> {
    RegexBuilder::new(&format!("^(?s:{pattern})$"))
        .size_limit(MAX_PATTERN_BYTES)
        .build()
        .map_err(|error| RuleError::Pattern {
            pattern: pattern.to_owned(),
            // The last line says what it is, those before it show where.
            reason: error
                .to_string()
                .lines()
                .last()
                .unwrap_or_default()
                .to_owned(),
        })
}

/// Prometheus's checks of a rule's fields.
fn check(config: &RuleConfig) -> Result<(), RuleError> {
    let action = config.action;
    let missing = |field| Err(RuleError::Missing { action, field });
    let needs_target = match action {
        Action::Replace
        | Action::KeepEqual
        | Action::DropEqual
        | Action::HashMod
        | Action::Lowercase
        | Action::Uppercase => true,
        Action::Keep | Action::Drop | Action::LabelMap | Action::LabelDrop | Action::LabelKeep => {
            false
        }
    };
    if needs_target && config.target_label.is_empty() {
        return missing("target_label");
    }
    if action == Action::HashMod && config.modulus == 0 {
        return missing("modulus");
    }
    if action == Action::LabelMap && config.replacement.is_empty() {
        return missing("replacement");
    }
    let changed = [
        ("source_labels", !config.source_labels.is_empty()),
        ("separator", config.separator != RuleConfig::SEPARATOR),
        ("regex", config.regex != RuleConfig::REGEX),
        ("modulus", config.modulus != 0),
        ("target_label", !config.target_label.is_empty()),
        ("replacement", config.replacement != RuleConfig::REPLACEMENT),
    ];
    let (refused, takes): (&[&str], _) = match action {
        Action::KeepEqual | Action::DropEqual => (
            &["separator", "regex", "modulus", "replacement"],
            "source_labels and target_label",
        ),
        Action::LabelDrop | Action::LabelKeep => (
            &[
                "source_labels",
                "separator",
                "modulus",
                "target_label",
                "replacement",
            ],
            "regex",
        ),
        Action::Lowercase | Action::Uppercase => (
            &["replacement"],
            "source_labels, separator and target_label",
        ),
        Action::Replace | Action::Keep | Action::Drop | Action::HashMod | Action::LabelMap => {
            (&[], "")
        }
    };
    let found = changed
        .iter()
        .find(|(field, changed)| *changed && refused.contains(field));
    match found {
        Some((field, _)) => Err(RuleError::Superfluous {
            action,
            field,
            takes,
        }),
        None => Ok(()),
    }
}
