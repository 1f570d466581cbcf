//! What indexes count, added up over several of them.

use hashbrown::HashMap;
use millrace_model::METRIC_NAME;

/// Series by metric and by label pair, and values by label.
#[derive(Debug, Default)]
pub(crate) struct IndexCounts {
    /// Series. One that is in two indexes counts twice.
    pub(crate) series: u64,
    pub(crate) metrics: HashMap<String, u64>,
    /// Of each label: its values with their series.
    labels: HashMap<String, HashMap<String, u64>>,
}

/// One label.
#[derive(Debug)]
pub(crate) struct LabelCount {
    pub(crate) name: String,
    pub(crate) values: u64,
    /// Of the texts of its values.
    pub(crate) bytes: u64,
    /// The values with the most series.
    pub(crate) top: Vec<(String, u64)>,
}

impl IndexCounts {
    pub(super) fn label<'a>(&mut self, name: &str, values: impl Iterator<Item = (&'a str, u64)>) {
        let counts = self.labels.entry_ref(name).or_default();
        for (value, series) in values {
            *counts.entry_ref(value).or_default() += series;
            if name == METRIC_NAME {
                *self.metrics.entry_ref(value).or_default() += series;
            }
        }
    }

    /// Each label, with at most `limit` of its values.
    pub(crate) fn labels(self, limit: usize) -> Vec<LabelCount> {
        let count = |(name, values): (String, HashMap<String, u64>)| {
            let bytes = values.keys().map(|text| text.len() as u64).sum();
            LabelCount {
                name,
                values: values.len() as u64,
                bytes,
                top: top(values, limit),
            }
        };
        self.labels.into_iter().map(count).collect()
    }
}

/// The entries with the highest counts; of equals, the first by name.
pub(crate) fn top(
    counts: impl IntoIterator<Item = (String, u64)>,
    limit: usize,
) -> Vec<(String, u64)> {
    let mut all: Vec<_> = counts.into_iter().collect();
    let order = |a: &(String, u64), b: &(String, u64)| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0));
    if all.len() > limit && limit > 0 {
        // The rest need not be sorted.
        all.select_nth_unstable_by(limit - 1, order);
    }
    all.truncate(limit);
    all.sort_unstable_by(order);
    all
}
