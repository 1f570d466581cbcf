//! A source of series that is a table in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use millrace_model::{Labels, Matcher, MetricMetadata, TenantId, TimeRange};
use millrace_query::{ReadContext, SampleColumns, Select, SeriesSource, SourceError, StoredSeries};

/// Series of the anonymous tenant.
#[derive(Clone, Debug, Default)]
pub struct Table {
    pub series: BTreeMap<Labels, Vec<(i64, f64)>>,
    pub metadata: Vec<MetricMetadata>,
}

impl Table {
    /// Adds a series; timestamps must grow.
    pub fn with(mut self, pairs: &[(&str, &str)], samples: &[(i64, f64)]) -> Self {
        assert!(samples.is_sorted_by(|a, b| a.0 < b.0), "{samples:?}");
        let labels = Labels::from_pairs(pairs.iter().copied()).expect("labels of a test");
        self.series.insert(labels, samples.to_vec());
        self
    }

    fn matching<'a>(
        &'a self,
        matchers: &'a [Matcher],
        range: TimeRange,
    ) -> impl Iterator<Item = (&'a Labels, &'a [(i64, f64)])> {
        self.series.iter().filter_map(move |(labels, samples)| {
            let from = samples.partition_point(|(t, _)| *t < range.start.0);
            let to = samples.partition_point(|(t, _)| *t <= range.end.0);
            let passes = matchers
                .iter()
                .all(|matcher| matcher.matches_labels(labels));
            (passes && from < to).then(|| (labels, &samples[from..to]))
        })
    }
}

fn is_ours(tenant: &TenantId) -> bool {
    *tenant == TenantId::anonymous()
}

impl SeriesSource for Table {
    fn select(&self, request: &Select<'_>) -> Result<Vec<Box<dyn StoredSeries>>, SourceError> {
        assert!(is_ours(request.tenant), "{}", request.tenant);
        Ok(self
            .matching(request.matchers, request.range)
            .map(|(labels, samples)| {
                Box::new(Row {
                    labels: labels.clone(),
                    samples: samples.to_vec(),
                }) as Box<dyn StoredSeries>
            })
            .collect())
    }

    fn series(&self, request: &Select<'_>) -> Result<Vec<Labels>, SourceError> {
        assert!(is_ours(request.tenant), "{}", request.tenant);
        let found = self.matching(request.matchers, request.range);
        Ok(found.map(|(labels, _)| labels.clone()).collect())
    }

    fn metadata(
        &self,
        tenant: &TenantId,
        metric: Option<&str>,
        _: &Arc<ReadContext>,
    ) -> Result<Vec<MetricMetadata>, SourceError> {
        assert!(is_ours(tenant), "{tenant}");
        let wanted = |entry: &&MetricMetadata| metric.is_none_or(|name| entry.metric == name);
        let mut found: Vec<_> = self.metadata.iter().filter(wanted).cloned().collect();
        found.sort_by(|a, b| a.metric.cmp(&b.metric));
        Ok(found)
    }
}

struct Row {
    labels: Labels,
    samples: Vec<(i64, f64)>,
}

impl StoredSeries for Row {
    fn labels(&self) -> &Labels {
        &self.labels
    }

    fn read(&self, out: &mut SampleColumns) -> Result<(), SourceError> {
        for &(timestamp, value) in &self.samples {
            out.push(timestamp, value);
        }
        Ok(())
    }
}
