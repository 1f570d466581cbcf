//! The file of retention rules (`store.retention.rules_file`).

use std::path::Path;
use std::time::Duration;

use millrace_log::fs::{Fs, read_all};
use millrace_model::{MatchOp, Matcher, TenantId};
use millrace_store::RetentionRule;
use serde::Deserialize;

use crate::config::kind::{Kind as _, Raw};

/// A file of rules is read whole; beyond this it is not one.
const MAX_FILE_BYTES: u64 = 1 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    rule: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    tenant: Option<String>,
    #[serde(default)]
    matchers: Vec<String>,
    age: String,
}

/// Reads the rules, in their order.
///
/// # Errors
///
/// A file that cannot be read, or a rule that makes no sense; both are named.
pub fn rules(fs: &dyn Fs, path: &Path) -> Result<Vec<RetentionRule>, String> {
    let named = |error: String| format!("{}: {error}", path.display());
    let bytes = read_all(fs, path, MAX_FILE_BYTES).map_err(|error| named(error.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|error| named(error.to_string()))?;
    parse(&text).map_err(named)
}

fn parse(text: &str) -> Result<Vec<RetentionRule>, String> {
    let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
    let numbered = file.rule.iter().zip(1..);
    numbered
        .map(|(of_file, number)| rule(of_file).map_err(|error| format!("rule {number}: {error}")))
        .collect()
}

fn rule(rule: &Rule) -> Result<RetentionRule, String> {
    let tenant = rule.tenant.as_ref().map(|name| name.parse::<TenantId>());
    let age = Option::<Duration>::read(&Raw::Text(rule.age.clone()))?;
    Ok(RetentionRule {
        tenant: tenant.transpose().map_err(|error| error.to_string())?,
        matchers: rule
            .matchers
            .iter()
            .map(|text| matcher(text))
            .collect::<Result<_, _>>()?,
        age,
    })
}

/// `name=value`, `name!=value`, `name=~pattern`, `name!~pattern`.
fn matcher(text: &str) -> Result<Matcher, String> {
    let at = text.find(['=', '!']).filter(|at| *at > 0);
    let (name, rest) = text.split_at(at.unwrap_or(0));
    let ops = [
        ("!=", MatchOp::NotEqual),
        ("!~", MatchOp::NotRegex),
        ("=~", MatchOp::Regex),
        ("=", MatchOp::Equal),
    ];
    let found = ops
        .into_iter()
        .find_map(|(sign, op)| rest.strip_prefix(sign).map(|value| (op, value)));
    let Some((op, value)) = found.filter(|_| !name.is_empty()) else {
        return Err(format!("{text:?} is no matcher such as job=node"));
    };
    Matcher::new(name.trim(), op, value).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_in_their_order() {
        let rules = parse(
            "[[rule]]\ntenant = 'acme'\nage = 'none'\n\n[[rule]]\nmatchers = ['job=node', 'path!~/a.*']\nage = '30d'\n",
        )
        .unwrap();
        assert_eq!(rules.len(), 2);
        assert_eq!((rules[0].age, rules[0].matchers.len()), (None, 0));
        assert_eq!(rules[1].age, Some(Duration::from_secs(30 * 24 * 3600)));
        assert_eq!(rules[1].matchers[1].to_string(), "path!~\"/a.*\"");
    }

    #[test]
    fn what_is_wrong_is_named_with_its_rule() {
        for (text, says) in [
            ("[[rule]]\nage = '1d'\n[[rule]]\nage = 'soon'\n", "rule 2"),
            ("[[rule]]\nage = '1d'\nmatchers = ['job']\n", "no matcher"),
            ("[[rule]]\nage = '1d'\nmatchers = ['a=~(']\n", "regexp"),
            ("[[rule]]\ntenant = '../x'\nage = '1d'\n", "tenant"),
            ("[[rule]]\nages = '1d'\n", "ages"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
