//! The fleet as the query engine sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use millrace_model::{Labels, MetricMetadata, TenantId};
use millrace_query::{LabelRequest, ReadContext, Select, SeriesSource, SourceError, StoredSeries};

use crate::answer::{LabelsAnswer, MetadataAnswer, SeriesAnswer, TextsAnswer};
use crate::fleet::Fleet;
use crate::gather::Part;
use crate::wire::messages::{Ask, wire_matchers};

/// Series of all partitions, from whichever stores have them.
///
/// A call blocks on the network, so it must not be made on a thread of the runtime. `select`
/// returns when the answers of all stores have come to their ends; they are in memory then, as
/// compressed as they came, within the bounds of [`FleetOptions`](crate::FleetOptions), and are
/// decoded series by series.
#[derive(Clone, Debug)]
pub struct FleetSource(Arc<Fleet>);

impl FleetSource {
    /// Reads the stores of that fleet.
    #[must_use]
    pub fn new(fleet: Arc<Fleet>) -> Self {
        Self(fleet)
    }

    /// The series that stores answer with.
    fn answered(
        &self,
        ask: Ask,
        request: &Select<'_>,
    ) -> Result<Vec<Box<dyn StoredSeries>>, SourceError> {
        let gathered = self.0.gather(request.tenant, ask, request.context)?;
        let mut series = Vec::new();
        for Part { store, answer, .. } in gathered {
            let answer: SeriesAnswer = answer;
            answer.series(&store, request.context, &mut series);
        }
        Ok(series)
    }

    fn texts(
        &self,
        tenant: &TenantId,
        ask: Ask,
        context: &Arc<ReadContext>,
    ) -> Result<Vec<String>, SourceError> {
        let parts: Vec<Part<TextsAnswer>> = self.0.gather(tenant, ask, context)?;
        let texts = parts.into_iter().flat_map(|part| part.answer.items);
        let texts: BTreeSet<String> = texts.collect();
        Ok(texts.into_iter().collect())
    }
}

impl SeriesSource for FleetSource {
    fn select(&self, request: &Select<'_>) -> Result<Vec<Box<dyn StoredSeries>>, SourceError> {
        let ask = Ask::Select {
            matchers: wire_matchers(request.matchers),
            start: request.range.start.0,
            end: request.range.end.0,
        };
        self.answered(ask, request)
    }

    fn newest(&self, request: &Select<'_>) -> Result<Vec<Box<dyn StoredSeries>>, SourceError> {
        let ask = Ask::Newest {
            matchers: wire_matchers(request.matchers),
            start: request.range.start.0,
            end: request.range.end.0,
        };
        self.answered(ask, request)
    }

    fn series(&self, request: &Select<'_>) -> Result<Vec<Labels>, SourceError> {
        let ask = Ask::Series {
            matchers: wire_matchers(request.matchers),
            start: request.range.start.0,
            end: request.range.end.0,
        };
        let parts: Vec<Part<LabelsAnswer>> = self.0.gather(request.tenant, ask, request.context)?;
        let mut labels: Vec<_> = parts
            .into_iter()
            .flat_map(|part| part.answer.items)
            .collect();
        labels.sort_unstable();
        Ok(labels)
    }

    fn label_names(&self, request: &LabelRequest<'_>) -> Result<Vec<String>, SourceError> {
        let sets = request.matcher_sets.iter();
        let ask = Ask::LabelNames {
            matcher_sets: sets.map(|set| wire_matchers(set)).collect(),
            start: request.range.start.0,
            end: request.range.end.0,
        };
        self.texts(request.tenant, ask, request.context)
    }

    fn label_values(
        &self,
        name: &str,
        request: &LabelRequest<'_>,
    ) -> Result<Vec<String>, SourceError> {
        let sets = request.matcher_sets.iter();
        let ask = Ask::LabelValues {
            name: name.to_owned(),
            matcher_sets: sets.map(|set| wire_matchers(set)).collect(),
            start: request.range.start.0,
            end: request.range.end.0,
        };
        self.texts(request.tenant, ask, request.context)
    }

    /// Where stores differ, the one of the lowest partition is right.
    fn metadata(
        &self,
        tenant: &TenantId,
        metric: Option<&str>,
        context: &Arc<ReadContext>,
    ) -> Result<Vec<MetricMetadata>, SourceError> {
        let ask = Ask::Metadata {
            metric: metric.map(str::to_owned),
        };
        let parts: Vec<Part<MetadataAnswer>> = self.0.gather(tenant, ask, context)?;
        let mut merged = BTreeMap::new();
        for entry in parts.into_iter().flat_map(|part| part.answer.items) {
            merged.entry(entry.metric.clone()).or_insert(entry);
        }
        Ok(merged.into_values().collect())
    }
}
