//! What of all data a request may see.
//!
//! Invariant: a label that a request is bound to stands in every selection that reaches the storage,
//! whatever endpoint or expression asked for it: [`ScopedSource`] adds it, below everything that selects.

use std::collections::HashSet;
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::Extensions;
use http::request::Parts;
use millrace_model::{Labels, METRIC_NAME, Matcher, MetricMetadata, TenantId, TimeRange};

use crate::source::{LabelRequest, ReadContext, Select, SeriesSource, SourceError, StoredSeries};

/// Whose data a request may see, and which of it: whoever authenticates requests in front of the API
/// puts one into the request's extensions. A request without one is of the anonymous tenant, and sees
/// all of its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadScope {
    /// Whose.
    pub tenant: TenantId,
    /// Labels that a series must have to be seen.
    pub labels: Arc<[(String, String)]>,
}

impl Default for ReadScope {
    fn default() -> Self {
        Self {
            tenant: TenantId::anonymous(),
            labels: Arc::new([]),
        }
    }
}

impl ReadScope {
    /// That of a request.
    #[must_use]
    pub fn of(extensions: &Extensions) -> Self {
        extensions.get().cloned().unwrap_or_default()
    }

    /// The labels as tests.
    #[must_use]
    pub fn matchers(&self) -> Vec<Matcher> {
        let labels = self.labels.iter();
        labels
            .map(|(name, value)| Matcher::equal(name, value))
            .collect()
    }
}

impl<S: Sync> FromRequestParts<S> for ReadScope {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.extensions))
    }
}

/// A source that lets each request see only the series that have the labels that it is bound to
/// ([`ReadPoint::bound_to`](crate::ReadPoint::bound_to)).
pub struct ScopedSource(Arc<dyn SeriesSource>);

impl ScopedSource {
    /// What `inner` has.
    #[must_use]
    pub fn new(inner: Arc<dyn SeriesSource>) -> Self {
        Self(inner)
    }
}

impl fmt::Debug for ScopedSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ScopedSource").field(&self.0).finish()
    }
}

fn with(matchers: &[Matcher], forced: &[Matcher]) -> Vec<Matcher> {
    [matchers, forced].concat()
}

/// Each of the sets with the forced tests; no set stands for all series.
fn sets_with(sets: &[Vec<Matcher>], forced: &[Matcher]) -> Vec<Vec<Matcher>> {
    match sets {
        [] => vec![forced.to_vec()],
        sets => sets.iter().map(|set| with(set, forced)).collect(),
    }
}

impl SeriesSource for ScopedSource {
    fn select(&self, request: &Select<'_>) -> Result<Vec<Box<dyn StoredSeries>>, SourceError> {
        let forced = request.context.point.bound();
        if forced.is_empty() {
            return self.0.select(request);
        }
        self.0.select(&Select {
            matchers: &with(request.matchers, forced),
            ..*request
        })
    }

    fn newest(&self, request: &Select<'_>) -> Result<Vec<Box<dyn StoredSeries>>, SourceError> {
        let forced = request.context.point.bound();
        if forced.is_empty() {
            return self.0.newest(request);
        }
        self.0.newest(&Select {
            matchers: &with(request.matchers, forced),
            ..*request
        })
    }

    fn series(&self, request: &Select<'_>) -> Result<Vec<Labels>, SourceError> {
        let forced = request.context.point.bound();
        if forced.is_empty() {
            return self.0.series(request);
        }
        self.0.series(&Select {
            matchers: &with(request.matchers, forced),
            ..*request
        })
    }

    fn label_names(&self, request: &LabelRequest<'_>) -> Result<Vec<String>, SourceError> {
        let forced = request.context.point.bound();
        if forced.is_empty() {
            return self.0.label_names(request);
        }
        self.0.label_names(&LabelRequest {
            matcher_sets: &sets_with(request.matcher_sets, forced),
            ..*request
        })
    }

    fn label_values(
        &self,
        name: &str,
        request: &LabelRequest<'_>,
    ) -> Result<Vec<String>, SourceError> {
        let forced = request.context.point.bound();
        if forced.is_empty() {
            return self.0.label_values(name, request);
        }
        let sets = sets_with(request.matcher_sets, forced);
        self.0.label_values(
            name,
            &LabelRequest {
                matcher_sets: &sets,
                ..*request
            },
        )
    }

    /// That of metrics of which the request sees series.
    fn metadata(
        &self,
        tenant: &TenantId,
        metric: Option<&str>,
        context: &Arc<ReadContext>,
    ) -> Result<Vec<MetricMetadata>, SourceError> {
        let mut found = self.0.metadata(tenant, metric, context)?;
        if context.point.bound().is_empty() {
            return Ok(found);
        }
        let seen = self.label_values(
            METRIC_NAME,
            &LabelRequest {
                tenant,
                matcher_sets: &[],
                range: TimeRange::ALL,
                context,
            },
        )?;
        let seen: HashSet<&str> = seen.iter().flat_map(|name| families(name)).collect();
        found.retain(|metadata| seen.contains(metadata.metric.as_str()));
        Ok(found)
    }
}

/// The families that a series of this name may belong to.
fn families(name: &str) -> impl Iterator<Item = &str> {
    let suffixes = ["_bucket", "_sum", "_count", "_total", "_created"].into_iter();
    let without = suffixes.filter_map(move |suffix| name.strip_suffix(suffix));
    std::iter::once(name).chain(without)
}
