//! Rule files: groups of rules in YAML, checked as `promtool check rules` does.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use millrace_model::{METRIC_NAME, Matcher, TenantId, parse_duration_ms};
use millrace_query::{Engine, Selection};
use serde::{Deserialize, Deserializer};
use serde_saphyr::Spanned;

use super::GlobalConfig;
use super::from_yaml;
use crate::template::Template;

/// A group of rules that was checked.
#[derive(Clone, Debug)]
pub struct GroupSpec {
    /// Its name, unique in its file.
    pub name: String,
    /// Where it is written.
    pub file: PathBuf,
    /// Whose data it reads and writes.
    pub tenant: TenantId,
    /// Time between two evaluations.
    pub interval: Duration,
    /// How far before its evaluation a rule looks, and writes.
    pub query_offset: Duration,
    /// Most series, or alerts, that a rule may make; 0 for no limit.
    pub limit: u64,
    /// In order of evaluation.
    pub rules: Vec<RuleSpec>,
}

/// A rule that was checked.
#[derive(Clone, Debug)]
pub struct RuleSpec {
    /// The metric, or the alert.
    pub name: String,
    /// The expression on one line, as Prometheus prints it.
    pub query: String,
    /// Labels of rule and group, not expanded.
    pub labels: BTreeMap<String, String>,
    pub(crate) kind: RuleKind,
    pub(crate) selections: Vec<Selection>,
    /// Whether a rule before it in its group may have made what it reads.
    pub(crate) reads_group: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum RuleKind {
    Recording,
    Alerting(Box<AlertSpec>),
}

#[derive(Clone, Debug)]
pub(crate) struct AlertSpec {
    pub(crate) hold: Duration,
    pub(crate) keep_firing: Duration,
    /// Not expanded.
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) label_templates: Vec<(String, Template)>,
    pub(crate) annotation_templates: Vec<(String, Template)>,
}

impl PartialEq for RuleSpec {
    /// Whether both are written alike; what is made of that is the same then.
    fn eq(&self, other: &Self) -> bool {
        let kind = match (&self.kind, &other.kind) {
            (RuleKind::Recording, RuleKind::Recording) => true,
            (RuleKind::Alerting(a), RuleKind::Alerting(b)) => {
                a.hold == b.hold && a.keep_firing == b.keep_firing && a.annotations == b.annotations
            }
            (RuleKind::Recording, RuleKind::Alerting(_))
            | (RuleKind::Alerting(_), RuleKind::Recording) => false,
        };
        kind && self.name == other.name && self.query == other.query && self.labels == other.labels
    }
}

impl GroupSpec {
    /// Whether both are evaluated alike.
    pub(crate) fn same(&self, other: &Self) -> bool {
        self.name == other.name
            && self.file == other.file
            && self.tenant == other.tenant
            && self.interval == other.interval
            && self.query_offset == other.query_offset
            && self.limit == other.limit
            && self.rules == other.rules
    }
}

impl RuleSpec {
    /// Whether it is an alert.
    #[must_use]
    pub fn is_alert(&self) -> bool {
        matches!(self.kind, RuleKind::Alerting(_))
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FileYaml {
    groups: Option<Vec<GroupYaml>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupYaml {
    name: Option<Spanned<String>>,
    #[serde(default)]
    interval: PromDuration,
    query_offset: Option<PromDuration>,
    limit: Option<i64>,
    labels: Option<BTreeMap<String, String>>,
    /// Ours: whose data, if not those of the setting.
    tenant: Option<Spanned<String>>,
    rules: Option<Vec<RuleYaml>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleYaml {
    record: Option<Spanned<String>>,
    alert: Option<Spanned<String>>,
    expr: Option<Spanned<String>>,
    #[serde(rename = "for", default)]
    hold: PromDuration,
    #[serde(default)]
    keep_firing_for: PromDuration,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
}

/// A duration as Prometheus writes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PromDuration(pub(super) Duration);

impl<'de> Deserialize<'de> for PromDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let ms = match text.as_str() {
            "0" => Some(0),
            text => parse_duration_ms(text),
        };
        ms.map(|ms| Self(Duration::from_millis(ms))).ok_or_else(|| {
            serde::de::Error::custom(format!("not a valid duration string: {text:?}"))
        })
    }
}

pub(super) fn read(
    path: &Path,
    text: &str,
    global: &GlobalConfig,
    engine: &Engine,
) -> Result<Vec<GroupSpec>, Vec<String>> {
    let file: FileYaml = from_yaml(text).map_err(|error| vec![error])?;
    let (mut groups, mut faults) = (Vec::new(), Vec::new());
    let mut names = BTreeSet::new();
    for yaml in file.groups.unwrap_or_default() {
        let Some(name) = yaml.name.as_ref().filter(|name| !name.value.is_empty()) else {
            let at = yaml.name.as_ref().map_or(String::new(), place);
            faults.push(format!("{at}Groupname must not be empty"));
            continue;
        };
        if !names.insert(name.value.clone()) {
            let at = place(name);
            faults.push(format!(
                "{at}groupname: {:?} is repeated in the same file",
                name.value
            ));
        }
        groups.extend(group(path, &yaml, &name.value, global, engine, &mut faults));
    }
    if faults.is_empty() {
        Ok(groups)
    } else {
        Err(faults)
    }
}

fn place<T>(spanned: &Spanned<T>) -> String {
    let at = &spanned.referenced;
    format!("{}:{}: ", at.line(), at.column())
}

fn group(
    path: &Path,
    yaml: &GroupYaml,
    name: &str,
    global: &GlobalConfig,
    engine: &Engine,
    faults: &mut Vec<String>,
) -> Option<GroupSpec> {
    let before = faults.len();
    let tenant = match &yaml.tenant {
        None => global.tenant.clone(),
        Some(tenant) => match tenant.value.parse() {
            Ok(tenant) => tenant,
            Err(error) => {
                faults.push(format!("{}group {name:?}: tenant: {error}", place(tenant)));
                global.tenant.clone()
            }
        },
    };
    let none = BTreeMap::new();
    let group_labels = yaml.labels.as_ref().unwrap_or(&none);
    for what in label_faults(group_labels) {
        faults.push(format!("group {name:?}: {what}"));
    }
    let limit = u64::try_from(yaml.limit.unwrap_or(0)).unwrap_or(0);
    let mut rules: Vec<RuleSpec> = Vec::new();
    for (rule, number) in yaml.rules.iter().flatten().zip(1..) {
        let found = rule_spec(rule, group_labels, engine);
        match found {
            Ok(mut rule) => {
                rule.reads_group = reads_any(&rule.selections, &rules);
                rules.push(rule);
            }
            Err(wrong) => {
                let named = rule.record.as_ref().or(rule.alert.as_ref());
                let of_rule = named.map_or("", |name| &name.value);
                faults.extend(wrong.into_iter().map(|(at, what)| {
                    let at = at.or_else(|| named.map(place)).unwrap_or_default();
                    format!("{at}group {name:?}, rule {number}, {of_rule:?}: {what}")
                }));
            }
        }
    }
    (faults.len() == before).then(|| GroupSpec {
        name: name.to_owned(),
        file: path.to_owned(),
        tenant,
        interval: match yaml.interval.0 {
            Duration::ZERO => global.evaluation_interval,
            interval => interval,
        },
        query_offset: yaml
            .query_offset
            .map_or(global.query_offset, |offset| offset.0),
        limit,
        rules,
    })
}

/// Whether selections may find what rules make.
fn reads_any(selections: &[Selection], rules: &[RuleSpec]) -> bool {
    let may_be = |matchers: &[Matcher], name: &str| {
        let named = |m: &&Matcher| m.name() == METRIC_NAME;
        matchers.iter().filter(named).all(|m| m.matches(name))
    };
    selections.iter().any(|selection| {
        rules.iter().any(|rule| match rule.kind {
            RuleKind::Recording => may_be(&selection.matchers, &rule.name),
            RuleKind::Alerting(_) => {
                may_be(&selection.matchers, crate::alert::ALERTS)
                    || may_be(&selection.matchers, crate::alert::ALERTS_FOR_STATE)
            }
        })
    })
}

fn label_faults(labels: &BTreeMap<String, String>) -> Vec<String> {
    let bad = |name: &&String| name.is_empty() || *name == METRIC_NAME;
    let names = labels.keys().filter(bad);
    names
        .map(|name| format!("invalid label name: {name}"))
        .collect()
}

type Faults = Vec<(Option<String>, String)>;

fn rule_spec(
    yaml: &RuleYaml,
    group_labels: &BTreeMap<String, String>,
    engine: &Engine,
) -> Result<RuleSpec, Faults> {
    let mut faults: Faults = Vec::new();
    let mut wrong = |what: String| faults.push((None, what));
    let set = |name: &Option<Spanned<String>>| {
        name.as_ref()
            .map(|name| name.value.clone())
            .filter(|name| !name.is_empty())
    };
    let (record, alert) = (set(&yaml.record), set(&yaml.alert));
    match (&record, &alert) {
        (Some(_), Some(_)) => wrong("only one of 'record' and 'alert' must be set".to_owned()),
        (None, None) => wrong("one of 'record' or 'alert' must be set".to_owned()),
        (Some(_), None) | (None, Some(_)) => {}
    }
    let mut labels = group_labels.clone();
    labels.extend(yaml.labels.clone().unwrap_or_default());
    label_faults(&labels).into_iter().for_each(&mut wrong);
    let annotations = yaml.annotations.clone().unwrap_or_default();
    if record.is_some() && alert.is_none() {
        for (there, field) in [
            (!annotations.is_empty(), "annotations"),
            (!yaml.hold.0.is_zero(), "for"),
            (!yaml.keep_firing_for.0.is_zero(), "keep_firing_for"),
        ] {
            if there {
                wrong(format!("invalid field '{field}' in recording rule"));
            }
        }
    }
    if annotations.keys().any(String::is_empty) {
        wrong("invalid annotation name: ".to_owned());
    }
    let mut kind = RuleKind::Recording;
    if let (Some(alert), None) = (&alert, &record) {
        let mut templates = |what: &str, texts: &BTreeMap<String, String>| {
            let mut parsed = Vec::new();
            for (name, text) in texts {
                match Template::parse(&format!("__alert_{alert}"), text) {
                    Ok(template) => parsed.push((name.clone(), template)),
                    Err(error) => wrong(format!("{what} {name:?}: {error}")),
                }
            }
            parsed
        };
        let label_templates = templates("label", &labels);
        let annotation_templates = templates("annotation", &annotations);
        kind = RuleKind::Alerting(Box::new(AlertSpec {
            hold: yaml.hold.0,
            keep_firing: yaml.keep_firing_for.0,
            annotations,
            label_templates,
            annotation_templates,
        }));
    }
    let outline = match yaml
        .expr
        .as_ref()
        .filter(|expr| !expr.value.trim().is_empty())
    {
        None => {
            faults.push((None, "field 'expr' must be set in rule".to_owned()));
            None
        }
        Some(expr) => match engine.outline(&expr.value) {
            Ok(outline) if outline.is_rule => Some(outline),
            Ok(outline) => {
                let what = format!(
                    "could not parse expression: an expression of type {} is no rule",
                    outline.value_type
                );
                faults.push((Some(place(expr)), what));
                None
            }
            Err(error) => {
                let what = format!("could not parse expression: {error}");
                faults.push((Some(place(expr)), what));
                None
            }
        },
    };
    match outline {
        Some(outline) if faults.is_empty() => Ok(RuleSpec {
            name: record.or(alert).unwrap_or_default(),
            query: outline.line,
            labels,
            kind,
            selections: outline.selections,
            reads_group: false,
        }),
        _ => Err(faults),
    }
}
