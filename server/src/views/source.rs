//! Views as series: `view:<name>:<aggregate>`, the labels those of a group, one sample for each bucket
//! at its end.
//!
//! Invariants:
//! - A selection that does not ask for a name that begins with `view:` is answered as if there were no
//!   views: `sum({job="x"})` counts nothing twice.
//! - A test of a label is a test of the group's label. So a request that is bound to a label
//!   ([`ScopedSource`](millrace_query::ScopedSource) adds it to every selection) sees only groups that
//!   have it; a view that groups it away shows such a request nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use millrace_model::{
    Clock, Labels, LabelsBuilder, METRIC_NAME, MatchOp, Matcher, MetricMetadata, TenantId,
};
use millrace_query::{
    LabelRequest, ReadContext, ReadStats, SampleColumns, Select, SeriesSource, SourceError,
    StoredSeries,
};
use millrace_store::{Store, ViewRead, ViewSeries};
use millrace_views::{Aggregate, ViewDefinition};

use crate::source::source_error;

/// What all names of views' series begin with.
const PREFIX: &str = "view:";
/// The label of a quantile.
const QUANTILE: &str = "quantile";

/// Stored series, and views beside them.
#[derive(Debug)]
pub struct ViewSource {
    /// The stored series.
    pub inner: Arc<dyn SeriesSource>,
    /// Who has the views.
    pub store: Arc<Store>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
}

/// Whether only names of views can pass.
fn asks_for_views(matchers: &[Matcher]) -> bool {
    matchers.iter().any(|m| {
        m.name() == METRIC_NAME
            && match m.op() {
                MatchOp::Equal => m.value().starts_with(PREFIX),
                // Each alternative; what is in brackets begins with a bracket.
                MatchOp::Regex => m.value().split('|').all(|of| of.starts_with(PREFIX)),
                MatchOp::NotEqual | MatchOp::NotRegex => false,
            }
    })
}

impl ViewSource {
    fn names<'a>(
        &self,
        view: &'a ViewDefinition,
        matchers: &[Matcher],
    ) -> impl Iterator<Item = (Aggregate, String)> + use<'a> {
        let tests: Vec<Matcher> = matchers
            .iter()
            .filter(|m| m.name() == METRIC_NAME)
            .cloned()
            .collect();
        let aggregates = view.aggregates.iter();
        let named = aggregates.map(|aggregate| (*aggregate, view.series_name(*aggregate)));
        named.filter(move |(_, name)| tests.iter().all(|m| m.matches(name)))
    }

    fn select_views(
        &self,
        request: &Select<'_>,
    ) -> Result<Vec<Box<dyn StoredSeries>>, SourceError> {
        let mut found: Vec<Box<dyn StoredSeries>> = Vec::new();
        let is_group = |m: &&Matcher| m.name() != METRIC_NAME;
        let groups: Vec<Matcher> = request.matchers.iter().filter(is_group).cloned().collect();
        let (of_quantile, of_group): (Vec<Matcher>, Vec<Matcher>) =
            groups.iter().cloned().partition(|m| m.name() == QUANTILE);
        for view in self.store.views().of(request.tenant) {
            let (quantiles, others): (Vec<_>, Vec<_>) = self
                .names(&view, request.matchers)
                .partition(|(aggregate, _)| *aggregate == Aggregate::Quantile);
            let asked = [(others, &groups), (quantiles, &of_group)];
            for (names, groups) in asked.into_iter().filter(|(names, _)| !names.is_empty()) {
                let read = ViewRead {
                    view: &view,
                    range: request.range,
                    groups,
                    now_ms: self.clock.now().0,
                };
                let (series, bytes) = self.store.all().view(&read).map_err(source_error)?;
                ReadStats::add(&request.context.stats.bytes, bytes);
                for group in &series {
                    for (aggregate, name) in &names {
                        self.push(&view, group, (*aggregate, name), &of_quantile, &mut found)?;
                    }
                }
            }
        }
        Ok(found)
    }

    /// The series of one aggregate of one group.
    fn push(
        &self,
        view: &ViewDefinition,
        group: &ViewSeries,
        (aggregate, name): (Aggregate, &str),
        of_quantile: &[Matcher],
        found: &mut Vec<Box<dyn StoredSeries>>,
    ) -> Result<(), SourceError> {
        let quantiles: &[f64] = match aggregate {
            Aggregate::Quantile => &view.quantiles,
            _ => &[0.0],
        };
        for &quantile in quantiles {
            let mut builder = LabelsBuilder::from_labels(&group.labels);
            builder.set(METRIC_NAME, name);
            if aggregate == Aggregate::Quantile {
                let text = quantile.to_string();
                if !of_quantile.iter().all(|m| m.matches(&text)) {
                    continue;
                }
                builder.set(QUANTILE, &text);
            }
            let mut columns = SampleColumns::default();
            for bucket in &group.buckets {
                let value = bucket.partial.value(aggregate, view.width_ms, quantile);
                if let Some(value) = value {
                    columns.push(bucket.end, value);
                }
            }
            if columns.is_empty() {
                continue;
            }
            let labels = builder
                .build()
                .map_err(|error| SourceError::DataUnavailable {
                    reason: format!("view {}: {error}", view.name),
                })?;
            found.push(Box::new(Column { labels, columns }));
        }
        Ok(())
    }

    /// The sets that ask for views, and the others.
    fn split(sets: &[Vec<Matcher>]) -> (Vec<Vec<Matcher>>, Vec<Vec<Matcher>>) {
        sets.iter().cloned().partition(|set| asks_for_views(set))
    }

    /// The labels of views' series that pass one of the sets.
    fn labels(
        &self,
        sets: &[Vec<Matcher>],
        request: &LabelRequest<'_>,
    ) -> Result<Vec<Labels>, SourceError> {
        let mut all = Vec::new();
        for matchers in sets {
            all.extend(self.series(&Select {
                tenant: request.tenant,
                matchers,
                range: request.range,
                context: request.context,
            })?);
        }
        Ok(all)
    }
}

struct Column {
    labels: Labels,
    columns: SampleColumns,
}

impl StoredSeries for Column {
    fn labels(&self) -> &Labels {
        &self.labels
    }

    fn read(&self, out: &mut SampleColumns) -> Result<(), SourceError> {
        out.timestamps.extend_from_slice(&self.columns.timestamps);
        out.values.extend_from_slice(&self.columns.values);
        Ok(())
    }
}

impl SeriesSource for ViewSource {
    fn select(&self, request: &Select<'_>) -> Result<Vec<Box<dyn StoredSeries>>, SourceError> {
        if asks_for_views(request.matchers) {
            return self.select_views(request);
        }
        self.inner.select(request)
    }

    fn series(&self, request: &Select<'_>) -> Result<Vec<Labels>, SourceError> {
        if !asks_for_views(request.matchers) {
            return self.inner.series(request);
        }
        let found = self.select_views(request)?;
        let mut labels: Vec<_> = found.iter().map(|series| series.labels().clone()).collect();
        labels.sort();
        Ok(labels)
    }

    fn label_names(&self, request: &LabelRequest<'_>) -> Result<Vec<String>, SourceError> {
        let (views, others) = Self::split(request.matcher_sets);
        let mut names = BTreeSet::new();
        if views.is_empty() || !others.is_empty() {
            let matcher_sets = &others;
            names.extend(self.inner.label_names(&LabelRequest {
                matcher_sets,
                ..*request
            })?);
        }
        for labels in self.labels(&views, request)? {
            names.extend(labels.iter().map(|(name, _)| name.to_owned()));
        }
        Ok(names.into_iter().collect())
    }

    fn label_values(
        &self,
        name: &str,
        request: &LabelRequest<'_>,
    ) -> Result<Vec<String>, SourceError> {
        let (views, others) = Self::split(request.matcher_sets);
        let mut values = BTreeSet::new();
        if views.is_empty() || !others.is_empty() {
            let matcher_sets = &others;
            let of_inner = LabelRequest {
                matcher_sets,
                ..*request
            };
            values.extend(self.inner.label_values(name, &of_inner)?);
        }
        if request.matcher_sets.is_empty() && name == METRIC_NAME {
            // So that whoever looks for a name finds those of views.
            for view in self.store.views().of(request.tenant) {
                values.extend(self.names(&view, &[]).map(|(_, name)| name));
            }
        }
        for labels in self.labels(&views, request)? {
            values.extend(labels.get(name).map(str::to_owned));
        }
        Ok(values.into_iter().collect())
    }

    fn metadata(
        &self,
        tenant: &TenantId,
        metric: Option<&str>,
        context: &Arc<ReadContext>,
    ) -> Result<Vec<MetricMetadata>, SourceError> {
        self.inner.metadata(tenant, metric, context)
    }
}
