//! What there is to ask about: metrics with all of their samples in both systems.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::support::Client;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A metric that was there the whole time.
#[derive(Clone, Debug)]
pub struct Metric {
    /// Of a histogram, without `_bucket`.
    pub name: String,
    pub kind: Kind,
    /// A label in which its series differ, and one of the values.
    pub label: Option<(String, String)>,
    /// Number of series.
    pub series: usize,
}

impl Metric {
    /// The name of its series.
    pub fn stored_name(&self) -> String {
        match self.kind {
            Kind::Histogram => format!("{}_bucket", self.name),
            Kind::Counter | Kind::Gauge => self.name.clone(),
        }
    }
}

/// The metrics of `client` that have at least `samples` samples in every series in the window
/// before `at`, those with many series first.
pub fn metrics(client: &Client, at: &str, window: &str, samples: usize) -> Vec<Metric> {
    let types = types(client);
    let selector = "{job=~\".+\"}";
    // Per series; the name is kept as another label, since functions drop it.
    let query = format!(
        "label_replace(last_over_time({selector}[{window}]), \"was\", \"$1\", \"__name__\", \"(.*)\")"
    );
    let mut found: BTreeMap<String, Vec<BTreeMap<String, String>>> = BTreeMap::new();
    let data = client.query(&query, Some(at));
    for item in data["result"].as_array().expect("a vector") {
        let labels = pairs(&item["metric"]);
        let name = labels["was"].clone();
        found.entry(name).or_default().push(labels);
    }
    let mut metrics = Vec::new();
    for (name, kind) in types {
        let stored = match kind {
            Kind::Histogram => format!("{name}_bucket"),
            Kind::Counter | Kind::Gauge => name.clone(),
        };
        let Some(series) = found.get(&stored) else {
            continue;
        };
        let whole = format!("min(count_over_time({stored}[{window}]))");
        let counted = client.query(&whole, Some(at));
        let least = counted["result"][0]["value"][1].as_str();
        let least = least.and_then(|text| text.parse::<f64>().ok());
        if least.is_none_or(|least| least < samples as f64) {
            continue;
        }
        metrics.push(Metric {
            label: varying(series),
            series: series.len(),
            name,
            kind,
        });
    }
    // Many series first, but no monsters: each query is asked four times.
    metrics.sort_by_key(|m| std::cmp::Reverse(m.series.min(200)));
    metrics
}

fn types(client: &Client) -> BTreeMap<String, Kind> {
    let json = client.get("/api/v1/metadata").json();
    let object = json["data"].as_object().expect("an object").clone();
    let kind = |entry: &Value| match entry[0]["type"].as_str()? {
        "counter" => Some(Kind::Counter),
        "gauge" => Some(Kind::Gauge),
        "histogram" => Some(Kind::Histogram),
        _ => None,
    };
    let kinds = object.iter();
    kinds
        .filter_map(|(name, entry)| Some((name.clone(), kind(entry)?)))
        .collect()
}

fn pairs(metric: &Value) -> BTreeMap<String, String> {
    let object = metric.as_object().expect("labels");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let pairs = object.iter();
    pairs
        .map(|(name, value)| (name.clone(), text(value)))
        .collect()
}

/// A label with several values that need no escape, neither in a string nor in a pattern.
fn varying(series: &[BTreeMap<String, String>]) -> Option<(String, String)> {
    let names: BTreeSet<&String> = series.iter().flat_map(|labels| labels.keys()).collect();
    let plain = |text: &str| {
        !text.is_empty()
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "_-/:".contains(c))
    };
    for name in names {
        if ["was", "__name__", "le"].contains(&name.as_str()) {
            continue;
        }
        let values: BTreeSet<&String> = series.iter().filter_map(|l| l.get(name)).collect();
        if let (true, Some(value)) = (values.len() > 1, values.iter().find(|v| plain(v))) {
            return Some((name.clone(), (*value).clone()));
        }
    }
    None
}
