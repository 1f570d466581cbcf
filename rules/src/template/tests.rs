use millrace_model::Labels;
use serde::Deserialize;

use super::*;

/// What `tests/templates/main.go` has made of each line of `cases.txt`.
const EXPECTED: &str = include_str!("../../tests/templates/expected.jsonl");
const CASES: &str = include_str!("../../tests/templates/cases.txt");

/// What is an error in both, told in other words or at another column.
const OTHER_WORDS: [&str; 9] = [
    r#"{{ match "(" "x" }}"#,
    "{{ $labels.job.deeper }}",
    r#"{{ first "x" }}"#,
    "{{ toUpper 1 }}",
    "{{ 1 2 }}",
    r#"{{ $labels.job "x" }}"#,
    r#"{{ template "none" . }}"#,
    "{{ 08 }}",
    "{{ humanize $labels.missing }}",
];

#[derive(Deserialize)]
struct Expected {
    template: String,
    output: String,
    #[serde(default)]
    error: String,
}

/// The same world as in `main.go`.
struct World;

impl Environment for World {
    fn query(&self, text: &str) -> Result<Vector, String> {
        let up = |instance: &str| {
            let pairs = [("__name__", "up"), ("instance", instance), ("job", "node")];
            Labels::from_pairs(pairs).unwrap()
        };
        match text {
            "none" => Ok(Vec::new()),
            "bad" => Err("no such thing".to_owned()),
            _ => Ok(vec![(up("b:9100"), 1.0), (up("a:9100"), 0.25)]),
        }
    }

    fn external_url(&self) -> String {
        "http://localhost:9090/prefix".to_owned()
    }

    fn now_ms(&self) -> i64 {
        1_700_000_000_123
    }
}

fn expand(text: &str) -> Result<String, String> {
    let labels = [
        ("instance", "node.example.com:9100"),
        ("job", "node"),
        ("level", "3"),
    ];
    let labels = Labels::from_pairs(labels).unwrap();
    let external = [("region".to_owned(), "eu".to_owned())];
    let data = alert_data(&labels, &external, &World.external_url(), 1234.5678);
    let template =
        Template::parse("__alert_test", text).map_err(|error| format!("parse: {error}"))?;
    template.expand(data, &World)
}

#[test]
fn templates_expand_as_go_and_prometheus_expand_them() {
    let expected: Vec<Expected> = EXPECTED
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        expected.len(),
        CASES.lines().count(),
        "expected.jsonl is of another cases.txt"
    );
    let mut wrong = Vec::new();
    for Expected {
        template,
        output,
        error,
    } in &expected
    {
        let got = expand(template);
        let same = match &got {
            Ok(text) => error.is_empty() && text == output,
            Err(_) if OTHER_WORDS.contains(&template.as_str()) => !error.is_empty(),
            Err(text) => text == error,
        };
        if !same {
            wrong.push(format!(
                "{template:?}\n   want {output:?} {error:?}\n   got  {got:?}"
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn whatever_a_template_says_it_ends() {
    let deep = "{{ if true }}".repeat(1000);
    let calls = r#"{{ define "t" }}{{ template "t" . }}{{ end }}{{ template "t" . }}"#;
    let long = r#"{{ range 100000 }}{{ range 1000 }}{{ end }}{{ end }}"#;
    let wide = r#"{{ range 1000000 }}0123456789{{ end }}"#;
    let brackets = format!("{{{{ {}1{} }}}}", "(".repeat(500), ")".repeat(500));
    for text in [&deep, calls, long, wide, &brackets] {
        let error = expand(text).unwrap_err();
        assert!(error.contains("__alert_test:1:"), "{error}");
    }
}
