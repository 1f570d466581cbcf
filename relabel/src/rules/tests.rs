use super::*;
use crate::{Action, RuleError};

type Pairs = &'static [(&'static str, &'static str)];

fn set(pairs: &[(&str, &str)]) -> LabelSet {
    pairs.iter().copied().collect()
}

fn source(labels: &[&str]) -> RuleConfig {
    RuleConfig {
        source_labels: labels.iter().map(|&name| name.to_owned()).collect(),
        ..RuleConfig::default()
    }
}

/// What the rules make of `a`, `b`, `c`; `None` if they drop it.
fn check(rules: &[RuleConfig], expect: Option<Pairs>) {
    let mut labels = set(&[("a", "foo"), ("b", "bar"), ("c", "baz")]);
    let kept = Rules::new(rules).unwrap().apply(&mut labels);
    let got = kept.then_some(&labels);
    assert_eq!(got, expect.map(set).as_ref(), "{rules:?}");
}

fn with(config: RuleConfig, change: impl FnOnce(&mut RuleConfig)) -> RuleConfig {
    let mut config = config;
    change(&mut config);
    config
}

fn replace(labels: &[&str], regex: &str, target: &str, replacement: &str) -> RuleConfig {
    with(source(labels), |rule| {
        rule.regex = regex.to_owned();
        rule.target_label = target.to_owned();
        rule.replacement = replacement.to_owned();
    })
}

fn of(action: Action, labels: &[&str], regex: &str, target: &str) -> RuleConfig {
    with(source(labels), |rule| {
        rule.action = action;
        rule.regex = regex.to_owned();
        rule.target_label = target.to_owned();
    })
}

#[test]
fn replace_writes_what_matched() {
    const ABC: Pairs = &[("a", "foo"), ("b", "bar"), ("c", "baz")];
    check(
        &[replace(&["a"], "f(.*)", "d", "ch${1}-ch$1")],
        Some(&[("a", "foo"), ("b", "bar"), ("c", "baz"), ("d", "choo-choo")]),
    );
    check(
        &[replace(&["a", "b"], "f(.*);(.*)r", "a", "b${1}${2}m")],
        Some(&[("a", "boobam"), ("b", "bar"), ("c", "baz")]),
    );
    // Anchored at both ends.
    check(&[replace(&["a"], "o", "d", "x")], Some(ABC));
    check(&[replace(&["a"], "f|x", "d", "x")], Some(ABC));
    // An empty result removes, a missing label is empty.
    check(
        &[replace(&["never"], "(.*)", "a", "$1")],
        Some(&[("b", "bar"), ("c", "baz")]),
    );
    check(
        &[replace(&["a"], "f.*", "b", "")],
        Some(&[("a", "foo"), ("c", "baz")]),
    );
    // `$1x` is a group of that name, `$$` a dollar.
    check(
        &[replace(&["a"], "(f)oo", "b", "[$1x][${1}x][$$1]")],
        Some(&[("a", "foo"), ("b", "[][fx][$1]"), ("c", "baz")]),
    );
    check(
        &[replace(&["a"], "(?P<first>.).*", "b", "${first}")],
        Some(&[("a", "foo"), ("b", "f"), ("c", "baz")]),
    );
    // The target may be a template too; one that comes out empty is none.
    check(
        &[replace(&["a"], "(.).*", "${1}_x", "y")],
        Some(&[("a", "foo"), ("b", "bar"), ("c", "baz"), ("f_x", "y")]),
    );
    check(&[replace(&["a"], "foo(.*)", "${1}", "y")], Some(ABC));
    // A fixed text needs no source.
    check(
        &[replace(&[], "(.*)", "c", "fixed")],
        Some(&[("a", "foo"), ("b", "bar"), ("c", "fixed")]),
    );
}

#[test]
fn keep_and_drop_look_at_joined_values() {
    const ABC: Option<Pairs> = Some(&[("a", "foo"), ("b", "bar"), ("c", "baz")]);
    check(&[of(Action::Keep, &["a", "b"], "foo;bar", "")], ABC);
    check(&[of(Action::Keep, &["a"], "fo", "")], None);
    check(&[of(Action::Drop, &["a"], "f.o", "")], None);
    check(&[of(Action::Drop, &["a"], "no", "")], ABC);
    check(&[of(Action::Drop, &["never"], "", "")], None);
    let joined = with(of(Action::Keep, &["a", "b"], "foo--bar", ""), |rule| {
        rule.separator = "--".to_owned();
    });
    check(&[joined], ABC);
}

#[test]
fn equality_is_that_of_values() {
    let same = replace(&["a"], "(.*)", "d", "$1");
    let of = |action, target| of(action, &["a"], "(.*)", target);
    let with_d: Option<Pairs> = Some(&[("a", "foo"), ("b", "bar"), ("c", "baz"), ("d", "foo")]);
    check(&[same.clone(), of(Action::KeepEqual, "d")], with_d);
    check(&[same.clone(), of(Action::KeepEqual, "b")], None);
    check(&[same.clone(), of(Action::DropEqual, "d")], None);
    check(&[same, of(Action::DropEqual, "b")], with_d);
}

/// The shards are those that Prometheus' own test of `hashmod` has for these values.
#[test]
fn hashmod_is_the_low_half_of_md5() {
    let rule = |labels: &[&str], modulus| {
        with(of(Action::HashMod, labels, "(.*)", "d"), |rule| {
            rule.modulus = modulus
        })
    };
    check(
        &[rule(&["c"], 1000)],
        Some(&[("a", "foo"), ("b", "bar"), ("c", "baz"), ("d", "976")]),
    );
    let mut labels = set(&[("a", "foo\nbar")]);
    assert!(
        Rules::new(&[rule(&["a"], 1000)])
            .unwrap()
            .apply(&mut labels)
    );
    assert_eq!(labels.get("d"), "734");
}

#[test]
fn names_are_mapped_dropped_and_kept() {
    let map = |regex: &str, replacement: &str| {
        with(of(Action::LabelMap, &[], regex, ""), |rule| {
            rule.replacement = replacement.to_owned();
        })
    };
    check(
        &[map("(b.*|c)", "${1}_x")],
        Some(&[
            ("a", "foo"),
            ("b", "bar"),
            ("b_x", "bar"),
            ("c", "baz"),
            ("c_x", "baz"),
        ]),
    );
    check(
        &[of(Action::LabelDrop, &[], "(b.*)", "")],
        Some(&[("a", "foo"), ("c", "baz")]),
    );
    check(
        &[of(Action::LabelKeep, &[], "(b.*)", "")],
        Some(&[("b", "bar")]),
    );
}

#[test]
fn case_is_changed() {
    check(
        &[
            of(Action::Uppercase, &["a"], "(.*)", "A"),
            of(Action::Lowercase, &["A", "b"], "(.*)", "d"),
        ],
        Some(&[
            ("A", "FOO"),
            ("a", "foo"),
            ("b", "bar"),
            ("c", "baz"),
            ("d", "foo;bar"),
        ]),
    );
}

#[test]
fn rules_behind_a_drop_are_not_asked() {
    let rules = [
        replace(&["a"], "(.*)", "d", "$1"),
        of(Action::Drop, &["d"], "foo", ""),
        replace(&["a"], "(.*)", "e", "$1"),
    ];
    let steps = Rules::new(&rules).unwrap().steps(set(&[("a", "foo")]));
    assert_eq!(steps.len(), 2);
    assert!(steps[0].keep && !steps[1].keep);
    assert_eq!(steps[1].output, set(&[("a", "foo"), ("d", "foo")]));
}

#[test]
fn what_is_wrong_is_named_with_rule_and_field() {
    let good = replace(&["a"], "(.*)", "d", "$1");
    let bad = [
        (
            with(good.clone(), |r| r.target_label.clear()),
            "rule 2: target_label: ",
        ),
        (
            of(Action::HashMod, &["a"], "(.*)", "d"),
            "rule 2: modulus: ",
        ),
        (
            of(Action::Lowercase, &["a"], "(.*)", ""),
            "rule 2: target_label: ",
        ),
        (
            of(Action::LabelDrop, &["a"], "x", ""),
            "rule 2: source_labels: ",
        ),
        (
            of(Action::LabelKeep, &[], "x", "y"),
            "rule 2: target_label: ",
        ),
        (of(Action::KeepEqual, &["a"], "x", "y"), "rule 2: regex: "),
        (of(Action::Keep, &["a"], "(", ""), "rule 2: regex: "),
        (
            with(of(Action::Uppercase, &["a"], "(.*)", "d"), |r| {
                r.replacement = "x".to_owned()
            }),
            "rule 2: replacement: ",
        ),
        (
            with(of(Action::LabelMap, &[], "(.*)", ""), |r| {
                r.replacement.clear()
            }),
            "rule 2: replacement: ",
        ),
    ];
    for (rule, says) in bad {
        let error = Rules::new(&[good.clone(), rule.clone()]).unwrap_err();
        assert!(error.to_string().starts_with(says), "{rule:?}: {error}");
    }
    let missing = Rules::new(&[with(good, |r| r.target_label.clear())]).unwrap_err();
    let error = RuleError::Missing {
        action: Action::Replace,
        field: "target_label",
    };
    assert_eq!(missing, RelabelError { number: 1, error });
}

#[test]
fn other_rules_have_another_fingerprint() {
    let rules = |regex: &str| Rules::new(&[of(Action::Drop, &["a"], regex, "")]).unwrap();
    assert_eq!(rules("x").fingerprint(), rules("x").fingerprint());
    assert_ne!(rules("x").fingerprint(), rules("y").fingerprint());
}
