//! Our answers held against those of Prometheus's own engine; see `prometheus/README.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use millrace_model::{Labels, TenantId, TimestampMs};
use millrace_query::{
    CancelFlag, Engine, EngineOptions, QueryError, QueryRequest, QueryTime, QueryValue,
};
use serde::Deserialize;

use crate::memory::Memory;

#[derive(Deserialize)]
struct Series {
    l: Option<BTreeMap<String, String>>,
    t: Option<Vec<i64>>,
    v: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Query {
    q: String,
    start: i64,
    end: i64,
    step: i64,
}

#[derive(Debug, Default, Deserialize, PartialEq)]
struct Notes {
    warn: Option<Vec<String>>,
    info: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Answer {
    q: String,
    r#type: String,
    #[serde(default)]
    err: String,
    s: Option<Vec<Series>>,
    #[serde(flatten)]
    notes: Notes,
    #[serde(default)]
    str: String,
}

/// Samples by labels.
type Table = BTreeMap<Labels, Vec<(i64, f64)>>;

/// What a query comes to, in either engine.
struct Outcome {
    kind: &'static str,
    error: String,
    text: String,
    table: Table,
    warnings: BTreeSet<String>,
    infos: BTreeSet<String>,
}

/// Queries of which the answers differ, and why that is right or does not matter.
const DIFFERENCES: &[(&str, &str)] = &[
    ("5x", "how much of a bad number is shown"),
    ("1__0", "how much of a bad number is shown"),
    ("0b11", "how much of a bad number is shown"),
    ("0o17", "how much of a bad number is shown"),
    ("foo[1y1y]", "how much of a bad number is shown"),
    (
        "foo{a=~\"(\"}",
        "the words of another library for regular expressions",
    ),
    (
        "foo[step()]",
        "positions of errors found when the query's step is known",
    ),
    (
        "foo[step()*2:range()]",
        "positions of errors found when the query's step is known",
    ),
    ("foo offset NaN", "an offset that is no number is refused"),
    (
        "foo + fill_left(1) fill_left(2) bar",
        "the place of a word that is out of place",
    ),
];

fn value(bits: &str) -> f64 {
    f64::from_bits(u64::from_str_radix(bits, 16).expect("sixteen hexadecimal digits"))
}

fn labels(pairs: Option<&BTreeMap<String, String>>) -> Labels {
    let pairs = pairs.into_iter().flatten();
    Labels::from_pairs(pairs.map(|(n, v)| (n.as_str(), v.as_str()))).expect("label names differ")
}

fn samples(series: &Series) -> Vec<(i64, f64)> {
    let times = series.t.iter().flatten().copied();
    times
        .zip(series.v.iter().flatten().map(|v| value(v)))
        .collect()
}

fn lines<T: for<'de> Deserialize<'de>>(text: &str) -> Vec<T> {
    let parse = |line| serde_json::from_str(line).expect("a line of JSON");
    text.lines().map(parse).collect()
}

fn normalised(notes: Option<Vec<String>>) -> BTreeSet<String> {
    // Prometheus counts the samples of a forced histogram more than once.
    let count = regex::Regex::new(r"over \d+ samples").expect("a pattern");
    let notes = notes.unwrap_or_default();
    // Which of many are shown is left to chance.
    if notes.len() > 9 {
        return BTreeSet::from(["many".to_owned()]);
    }
    let strip = |note: String| count.replace(&note, "over N samples").into_owned();
    notes.into_iter().map(strip).collect()
}

fn theirs(answer: Answer) -> Outcome {
    let kind = match answer.r#type.as_str() {
        "parse" => "parse error",
        "exec" => "execution error",
        "scalar" => "scalar",
        "string" => "string",
        "vector" => "vector",
        "matrix" => "matrix",
        other => panic!("an answer of type {other:?}"),
    };
    let series = answer.s.unwrap_or_default();
    let rows = series.iter().map(|s| (labels(s.l.as_ref()), samples(s)));
    Outcome {
        kind,
        error: answer.err,
        text: answer.str,
        table: rows.filter(|(_, samples)| !samples.is_empty()).collect(),
        warnings: normalised(answer.notes.warn),
        infos: normalised(answer.notes.info),
    }
}

fn ours(engine: &Engine, query: &Query) -> Outcome {
    let (start, end) = (TimestampMs(query.start), TimestampMs(query.end));
    let time = match query.step {
        0 => QueryTime::Instant(start),
        step_ms => QueryTime::Range {
            start,
            end,
            step_ms,
        },
    };
    let result = engine.query(&QueryRequest {
        tenant: TenantId::anonymous(),
        text: query.q.clone(),
        time,
        lookback: None,
        timeout: None,
        cancel: CancelFlag::default(),
        partial: false,
        point: std::sync::Arc::default(),
    });
    let mut outcome = Outcome {
        kind: "",
        error: String::new(),
        text: String::new(),
        table: Table::new(),
        warnings: BTreeSet::new(),
        infos: BTreeSet::new(),
    };
    let found = match result {
        Err(error) => {
            outcome.kind = match error {
                QueryError::BadData(_) => "parse error",
                _ => "execution error",
            };
            outcome.error = error.to_string();
            return outcome;
        }
        Ok(found) => found,
    };
    outcome.warnings = normalised(Some(found.warnings));
    outcome.infos = normalised(Some(found.infos));
    match found.value {
        QueryValue::Scalar { timestamp, value } => {
            outcome.kind = "scalar";
            outcome
                .table
                .insert(Labels::empty(), vec![(timestamp.0, value)]);
        }
        QueryValue::String { value, .. } => {
            outcome.kind = "string";
            outcome.text = value;
        }
        QueryValue::Vector(samples) => {
            outcome.kind = "vector";
            let rows = samples
                .into_iter()
                .map(|s| (s.labels, vec![(s.timestamp.0, s.value)]));
            outcome.table = rows.collect();
        }
        QueryValue::Matrix(series) => {
            outcome.kind = "matrix";
            let rows = series
                .into_iter()
                .map(|s| (s.labels, s.timestamps.into_iter().zip(s.values).collect()));
            outcome.table = rows.collect();
        }
    }
    outcome
}

fn close(a: f64, b: f64) -> bool {
    if a.is_nan() || b.is_nan() {
        return a.is_nan() && b.is_nan();
    }
    a == b || (a - b).abs() <= 1e-9 * a.abs().max(b.abs()) || (a - b).abs() < 1e-12
}

fn same_table(a: &Table, b: &Table) -> bool {
    let same_sample = |(a, b): (&(i64, f64), &(i64, f64))| a.0 == b.0 && close(a.1, b.1);
    let same_row = |((la, a), (lb, b)): ((&Labels, &Vec<_>), (&Labels, &Vec<_>))| {
        la == lb && a.len() == b.len() && a.iter().zip(b).all(same_sample)
    };
    a.len() == b.len() && a.iter().zip(b).all(same_row)
}

/// What differs, if anything.
fn difference(theirs: &Outcome, ours: &Outcome) -> Option<String> {
    let show = |what: &str, a: &dyn std::fmt::Debug, b: &dyn std::fmt::Debug| {
        Some(format!("{what}: Prometheus {a:?}, here {b:?}"))
    };
    // Which pair of a larger group is named is left to chance.
    let ambiguous = |text: &str| text.starts_with("found duplicate series for the match group");
    let both_ambiguous = ambiguous(&theirs.error) && ambiguous(&ours.error);
    if theirs.kind != ours.kind {
        let (a, b) = ((theirs.kind, &theirs.error), (ours.kind, &ours.error));
        return show("type", &a, &b);
    }
    if theirs.error != ours.error && !both_ambiguous {
        return show("error", &theirs.error, &ours.error);
    }
    if theirs.text != ours.text {
        return show("text", &theirs.text, &ours.text);
    }
    if !same_table(&theirs.table, &ours.table) {
        return show("value", &theirs.table, &ours.table);
    }
    if theirs.warnings != ours.warnings {
        return show("warnings", &theirs.warnings, &ours.warnings);
    }
    if theirs.infos != ours.infos {
        return show("infos", &theirs.infos, &ours.infos);
    }
    None
}

#[test]
fn answers_are_those_of_prometheus() {
    let mut memory = Memory::default();
    for series in lines::<Series>(include_str!("prometheus/series.jsonl")) {
        let labels = labels(series.l.as_ref());
        for (timestamp, value) in samples(&series) {
            memory.insert(&labels, timestamp, value);
        }
    }
    let options = EngineOptions {
        delayed_name_removal: true,
        threads: 2,
        ..EngineOptions::default()
    };
    let engine = Engine::new(Arc::new(memory), options);
    let queries = lines::<Query>(include_str!("prometheus/queries.jsonl"));
    let answers = lines::<Answer>(include_str!("prometheus/answers.jsonl"));
    assert_eq!(queries.len(), answers.len());
    assert!(queries.len() > 2_000);
    let mut known = BTreeSet::new();
    let mut wrong = Vec::new();
    for (query, answer) in queries.iter().zip(answers) {
        assert_eq!(query.q, answer.q, "the files belong together");
        let Some(problem) = difference(&theirs(answer), &ours(&engine, query)) else {
            continue;
        };
        if DIFFERENCES.iter().any(|(text, _)| *text == query.q) {
            known.insert(query.q.as_str());
        } else {
            wrong.push(format!("{} at {}: {problem}", query.q, query.start));
        }
    }
    println!(
        "{} queries, {} known differences",
        queries.len(),
        known.len()
    );
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    for (text, reason) in DIFFERENCES {
        assert!(
            known.contains(text),
            "no longer differs: {text:?} ({reason})"
        );
    }
}
