//! A list of rules.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use crate::rule::Rule;
use crate::{LabelSet, RelabelError, RuleConfig};

/// Rules in their order, ready to be applied. The empty list keeps everything as it is.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    configs: Vec<RuleConfig>,
    rules: Vec<Rule>,
}

/// What one rule made of a label set.
#[derive(Clone, Debug)]
pub struct Step {
    /// The rule.
    pub rule: RuleConfig,
    /// What it left.
    pub output: LabelSet,
    /// Whether it kept the set. If not, the rules behind it were not asked.
    pub keep: bool,
}

impl Rules {
    /// Checks and compiles rules.
    ///
    /// # Errors
    ///
    /// The first rule that cannot be applied.
    pub fn new(configs: &[RuleConfig]) -> Result<Self, RelabelError> {
        let rules = configs.iter().zip(1..).map(|(config, number)| {
            Rule::new(config).map_err(|error| RelabelError { number, error })
        });
        Ok(Self {
            rules: rules.collect::<Result<_, _>>()?,
            configs: configs.to_vec(),
        })
    }

    /// Whether there is no rule.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The rules as they were written.
    #[must_use]
    pub fn configs(&self) -> &[RuleConfig] {
        &self.configs
    }

    /// Applies the rules. Whether the label set is kept; if not, it is left as it was then.
    #[must_use]
    pub fn apply(&self, labels: &mut LabelSet) -> bool {
        self.rules.iter().all(|rule| rule.apply(labels))
    }

    /// Applies the rules and tells what each has done, up to the one that drops the set.
    #[must_use]
    pub fn steps(&self, mut labels: LabelSet) -> Vec<Step> {
        let mut steps = Vec::new();
        for (rule, config) in self.rules.iter().zip(&self.configs) {
            let keep = rule.apply(&mut labels);
            steps.push(Step {
                rule: config.clone(),
                output: labels.clone(),
                keep,
            });
            if !keep {
                break;
            }
        }
        steps
    }

    /// A number that differs from list to list, within this process.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.configs.hash(&mut hasher);
        hasher.finish()
    }
}

#[cfg(test)]
mod tests;
