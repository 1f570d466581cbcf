//! Answers of two systems, held against each other.

use std::collections::BTreeMap;

use serde_json::Value;

use super::corpus::{Query, Sameness};
use crate::support::Client;

/// How far a value of ours may be from Prometheus's, relative to it.
pub const TOLERANCE: f64 = 1e-9;

/// When a query is asked for.
#[derive(Clone, Debug)]
pub enum When {
    Instant {
        at: String,
    },
    Range {
        start: String,
        end: String,
        step: String,
    },
}

/// What a system said.
#[derive(Debug)]
pub struct Said {
    pub status: u16,
    pub json: Value,
}

impl Said {
    /// Whether it is an answer with a value in it.
    pub fn has_values(&self) -> bool {
        match &self.json["data"]["result"] {
            Value::Array(items) => !items.is_empty(),
            _ => false,
        }
    }

    pub fn error_type(&self) -> &str {
        self.json["errorType"].as_str().unwrap_or_default()
    }

    pub fn error(&self) -> &str {
        self.json["error"].as_str().unwrap_or_default()
    }

    /// Warnings and infos.
    pub fn notes(&self) -> Vec<String> {
        let lists = ["warnings", "infos"].map(|name| self.json[name].as_array());
        let texts = lists.into_iter().flatten().flatten();
        texts
            .map(|text| text.as_str().unwrap_or_default().to_owned())
            .collect()
    }
}

pub fn ask(client: &Client, text: &str, when: &When) -> Said {
    let query = crate::support::escape(text);
    let (path, form) = match when {
        When::Instant { at } => ("/api/v1/query", format!("query={query}&time={at}")),
        When::Range { start, end, step } => (
            "/api/v1/query_range",
            format!("query={query}&start={start}&end={end}&step={step}"),
        ),
    };
    let kind = [("content-type", "application/x-www-form-urlencoded")];
    let answer = client.post(path, &kind, form);
    Said {
        status: answer.status,
        json: answer.json(),
    }
}

/// What is wrong with our answer, if anything.
pub fn difference(query: &Query, when: &When, theirs: &Said, ours: &Said) -> Option<String> {
    if theirs.status != ours.status || theirs.error_type() != ours.error_type() {
        return Some(format!(
            "status {} {:?} and {} {:?}",
            theirs.status,
            theirs.error(),
            ours.status,
            ours.error()
        ));
    }
    if ours.status != 200 {
        return None;
    }
    let kinds = [theirs, ours].map(|said| said.json["data"]["resultType"].clone());
    if kinds[0] != kinds[1] {
        return Some(format!("{} and {}", kinds[0], kinds[1]));
    }
    let results = [theirs, ours].map(|said| &said.json["data"]["result"]);
    match kinds[0].as_str() {
        Some("string") => (results[0] != results[1]).then(|| format!("{results:?}")),
        Some("scalar") => points(&[results[0].clone()], &[results[1].clone()]),
        _ => {
            let ordered = query.sameness == Sameness::Order && matches!(when, When::Instant { .. });
            if ordered && let Some(text) = in_order(results) {
                return Some(text);
            }
            match query.sameness {
                Sameness::Series | Sameness::Order => by_series(results),
                Sameness::Values => by_values(results),
            }
        }
    }
}

type Table = BTreeMap<String, Vec<Value>>;

fn table(result: &Value) -> Table {
    let items = result.as_array().expect("a list");
    items
        .iter()
        .map(|item| (item["metric"].to_string(), samples(item)))
        .collect()
}

/// The points of a series, of which a vector has one.
fn samples(item: &Value) -> Vec<Value> {
    match &item["values"] {
        Value::Array(points) => points.clone(),
        _ => vec![item["value"].clone()],
    }
}

fn by_series(results: [&Value; 2]) -> Option<String> {
    let [theirs, ours] = results.map(table);
    if !theirs.keys().eq(ours.keys()) {
        let missing = theirs.keys().find(|key| !ours.contains_key(*key));
        let extra = ours.keys().find(|key| !theirs.contains_key(*key));
        return Some(format!("missing {missing:?}, not expected {extra:?}"));
    }
    theirs.iter().find_map(|(series, theirs)| {
        points(theirs, &ours[series]).map(|text| format!("{series}: {text}"))
    })
}

fn points(theirs: &[Value], ours: &[Value]) -> Option<String> {
    if theirs.len() != ours.len() {
        return Some(format!("{} points and {}", theirs.len(), ours.len()));
    }
    let pairs = theirs.iter().zip(ours);
    let mut wrong = pairs.filter(|(t, o)| t[0] != o[0] || !close(number(&t[1]), number(&o[1])));
    wrong.next().map(|(t, o)| format!("{t} and {o}"))
}

/// Per moment the values, sorted.
fn by_values(results: [&Value; 2]) -> Option<String> {
    let [theirs, ours] = results.map(|result| {
        let mut moments: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for point in result.as_array().expect("a list").iter().flat_map(samples) {
            let values = moments.entry(point[0].to_string()).or_default();
            values.push(number(&point[1]));
        }
        for values in moments.values_mut() {
            values.sort_by(f64::total_cmp);
        }
        moments
    });
    let same = theirs.len() == ours.len()
        && theirs.iter().zip(&ours).all(|((t, a), (u, b))| {
            t == u && a.len() == b.len() && a.iter().zip(b).all(|(a, b)| close(*a, *b))
        });
    (!same).then(|| format!("{theirs:?} and {ours:?}"))
}

fn in_order(results: [&Value; 2]) -> Option<String> {
    let [theirs, ours] = results.map(|result| -> Vec<f64> {
        let items = result.as_array().expect("a list").iter();
        items.map(|item| number(&item["value"][1])).collect()
    });
    let same = theirs.len() == ours.len() && theirs.iter().zip(&ours).all(|(a, b)| close(*a, *b));
    (!same).then(|| format!("in order {theirs:?} and {ours:?}"))
}

fn close(theirs: f64, ours: f64) -> bool {
    theirs == ours
        || (theirs.is_nan() && ours.is_nan())
        || (theirs - ours).abs() <= TOLERANCE * theirs.abs().max(1.0)
}

fn number(value: &Value) -> f64 {
    match value.as_str().expect("values are texts") {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        text => text.parse().expect("a number"),
    }
}
