use std::sync::Arc;

use millrace_query::{EngineOptions, Select, SeriesSource, SourceError, StoredSeries};

use super::*;

#[derive(Debug)]
struct Nothing;

impl SeriesSource for Nothing {
    fn select(&self, _: &Select<'_>) -> Result<Vec<Box<dyn StoredSeries>>, SourceError> {
        Ok(Vec::new())
    }
}

fn engine() -> Engine {
    let options = EngineOptions {
        threads: 1,
        ..EngineOptions::default()
    };
    Engine::new(Arc::new(Nothing), options)
}

fn check(text: &str) -> Result<Vec<GroupSpec>, Vec<String>> {
    let checked = check_file(
        Path::new("r.yml"),
        text,
        &GlobalConfig::default(),
        &engine(),
    );
    checked.map_err(|faults| faults.iter().map(ToString::to_string).collect())
}

#[test]
fn groups_have_their_fields_and_what_global_says() {
    let groups = check(
        "groups:\n\
         - name: a\n  interval: 15s\n  query_offset: 1m\n  limit: 7\n  labels: {team: x, kind: group}\n  \
           tenant: other\n  rules:\n  - {record: 'a:b', expr: 'sum(  up )', labels: {kind: rule}}\n  \
           - {alert: A, expr: 'a:b>1', for: 5m, keep_firing_for: 1m, annotations: {s: '{{ $value }}'}}\n  \
           - {record: c, expr: 1}\n\
         - name: b\n",
    )
    .unwrap();
    let [a, b] = groups.as_slice() else {
        panic!("{groups:?}")
    };
    assert_eq!(
        (a.interval.as_secs(), a.query_offset.as_secs(), a.limit),
        (15, 60, 7)
    );
    assert_eq!(a.tenant.as_str(), "other");
    assert_eq!(
        (b.interval.as_secs(), b.tenant.as_str(), b.rules.len()),
        (60, "anonymous", 0)
    );
    let queries: Vec<_> = a.rules.iter().map(|rule| rule.query.as_str()).collect();
    assert_eq!(queries, ["sum(up)", "a:b > 1", "1"]);
    assert_eq!(a.rules[0].labels["kind"], "rule");
    assert_eq!(a.rules[0].labels["team"], "x");
    let reads: Vec<_> = a.rules.iter().map(|rule| rule.reads_group).collect();
    assert_eq!(reads, [false, true, false]);
    assert_eq!(check("").unwrap().len(), 0);
}

#[test]
fn errors_name_line_group_and_rule() {
    let rule = |rule: &str| format!("groups:\n  - name: g\n    rules:\n      - {rule}\n");
    for (text, expected) in [
        (
            rule("{record: 'a:b', expr: 'sum('}"),
            "r.yml: 4:31: group \"g\", rule 1, \"a:b\": could not parse expression: 1:5: parse error: unclosed left parenthesis",
        ),
        (
            rule("{record: q, expr: up, for: 5m}"),
            "r.yml: 4:18: group \"g\", rule 1, \"q\": invalid field 'for' in recording rule",
        ),
        (
            rule("{record: q, alert: s, expr: up}"),
            "r.yml: 4:18: group \"g\", rule 1, \"q\": only one of 'record' and 'alert' must be set",
        ),
        (
            rule("{expr: up}"),
            "r.yml: group \"g\", rule 1, \"\": one of 'record' or 'alert' must be set",
        ),
        (
            rule("{record: q}"),
            "r.yml: 4:18: group \"g\", rule 1, \"q\": field 'expr' must be set in rule",
        ),
        (
            rule("{record: q, expr: up, annotations: {a: b}}"),
            "r.yml: 4:18: group \"g\", rule 1, \"q\": invalid field 'annotations' in recording rule",
        ),
        (
            rule("{alert: X, expr: up, labels: {x: '{{ nope }}'}}"),
            "r.yml: 4:17: group \"g\", rule 1, \"X\": label \"x\": template: __alert_X:1: function \"nope\" not defined",
        ),
        (
            rule("{alert: X, expr: up, labels: {__name__: x}}"),
            "r.yml: 4:17: group \"g\", rule 1, \"X\": invalid label name: __name__",
        ),
        (
            rule("{record: q, expr: 'up[5m]'}"),
            "r.yml: 4:27: group \"g\", rule 1, \"q\": could not parse expression: an expression of type range vector is no rule",
        ),
        (
            "groups:\n  - name: g\n  - name: g\n".to_owned(),
            "r.yml: 3:11: groupname: \"g\" is repeated in the same file",
        ),
        (
            "groups:\n  - rules: []\n".to_owned(),
            "r.yml: Groupname must not be empty",
        ),
    ] {
        let faults = check(&text).unwrap_err();
        assert_eq!(faults, [expected], "{text}");
    }
    for (text, parts) in [
        (
            "groups:\n  - name: a\n    intervall: 5s\n",
            ["r.yml: 3:", "intervall"],
        ),
        (
            "groups:\n  - name: a\n    interval: 5\n",
            ["r.yml: 3:", "not a valid duration string: \"5\""],
        ),
        ("group: []\n", ["r.yml: 1:", "group"]),
    ] {
        let faults = check(text).unwrap_err().join("");
        for part in parts {
            assert!(faults.contains(part), "{part}: {faults}");
        }
    }
}

/// Files that are only texts.
#[derive(Debug)]
struct Texts(Vec<(&'static str, &'static str)>);

impl Files for Texts {
    fn matching(&self, pattern: &Path) -> Result<Vec<(PathBuf, String)>, String> {
        let fits = |name: &str| glob_like(&pattern.to_string_lossy(), name);
        let found = self.0.iter().filter(|(name, _)| fits(name));
        Ok(found
            .map(|(name, text)| (PathBuf::from(name), (*text).to_owned()))
            .collect())
    }
}

fn glob_like(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        Some((before, after)) => name.starts_with(before) && name.ends_with(after),
        None => pattern == name,
    }
}

#[test]
fn prometheus_own_file_says_where_rules_are_and_where_alerts_go() {
    let files = Texts(vec![
        (
            "dir/prometheus.yml",
            "global: {scrape_interval: 1s, evaluation_interval: 30s, external_labels: {region: eu}}\n\
             scrape_configs: [{job_name: x}]\n\
             rule_files: ['r*.yml']\n\
             alerting:\n  alertmanagers:\n  - static_configs: [{targets: ['a:9093']}]\n    path_prefix: /p\n",
        ),
        ("dir/r1.yml", "groups: [{name: a}]"),
        ("dir/r2.yml", "groups: [{name: b, interval: 5s}]"),
        ("more.yml", "groups: [{name: c}]"),
    ]);
    let config = RulesConfig::read(
        &files,
        Some(Path::new("dir/prometheus.yml")),
        &["more.yml".to_owned()],
        &GlobalConfig::default(),
        &engine(),
    )
    .unwrap();
    let groups: Vec<_> = config
        .groups
        .iter()
        .map(|group| (group.name.as_str(), group.interval.as_secs()))
        .collect();
    assert_eq!(groups, [("c", 30), ("a", 30), ("b", 5)]);
    assert_eq!(
        config.global.external_labels,
        [("region".to_owned(), "eu".to_owned())]
    );
    assert_eq!(config.alerting.groups.len(), 1);
    let bad = Texts(vec![(
        "p.yml",
        "alerting: {alertmanagers: [{scheme: ftp, static_configs: [{targets: [a]}]}]}",
    )]);
    let defaults = GlobalConfig::default();
    let error = RulesConfig::read(&bad, Some(Path::new("p.yml")), &[], &defaults, &engine());
    assert_eq!(
        error.unwrap_err().to_string(),
        "p.yml: alerting, alertmanagers, item 1, scheme: \"ftp\" is neither http nor https"
    );
}
