//! The store as the query layer sees it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, SecondsFormat};
use millrace_model::{Labels, MetricMetadata, Offset, PartitionId, TenantId, TimestampMs};
use millrace_query::api::{Freshness, FreshnessError};
use millrace_query::{
    Digest, LabelRequest, ReadContext, ReadStats, SampleColumns, Select, SeriesSource, SourceError,
    StoredSeries,
};
use millrace_queue::{Position, PositionError};
use millrace_store::{Store, StoreError, StorePart, StoreSeries};

/// Series of some of the store's partitions, or of all.
#[derive(Clone, Debug)]
pub struct PartSource(pub StorePart);

impl PartSource {
    fn found(&self, request: &Select<'_>) -> Result<Vec<StoreSeries>, SourceError> {
        let begun = Instant::now();
        let found = self
            .0
            .select(request.tenant, request.matchers, request.range)
            .map_err(source_error)?;
        let (blocks, memtables) = self.0.places_in(request.range);
        let stats = &request.context.stats;
        ReadStats::add(&stats.blocks, blocks);
        ReadStats::add(&stats.memtables, memtables);
        ReadStats::add(&stats.select_nanos, nanos(begun));
        Ok(found)
    }
}

impl SeriesSource for PartSource {
    fn select(&self, request: &Select<'_>) -> Result<Vec<Box<dyn StoredSeries>>, SourceError> {
        let found = self.found(request)?;
        if let Some((until, bucket_ms)) = found.iter().find_map(StoreSeries::thinned) {
            request.context.warn(thinned(until, bucket_ms));
        }
        let stored = |series| Stored {
            series,
            context: Arc::clone(request.context),
        };
        Ok(found
            .into_iter()
            .map(|series| Box::new(stored(series)) as Box<dyn StoredSeries>)
            .collect())
    }

    fn newest(&self, request: &Select<'_>) -> Result<Vec<Box<dyn StoredSeries>>, SourceError> {
        let found = self.found(request)?.into_iter();
        Ok(found
            .map(|series| Box::new(Newest(series)) as Box<dyn StoredSeries>)
            .collect())
    }

    fn series(&self, request: &Select<'_>) -> Result<Vec<Labels>, SourceError> {
        self.0
            .series(request.tenant, request.matchers, request.range)
            .map_err(source_error)
    }

    fn label_names(&self, request: &LabelRequest<'_>) -> Result<Vec<String>, SourceError> {
        self.0
            .label_names(request.tenant, request.matcher_sets, request.range)
            .map_err(source_error)
    }

    fn label_values(
        &self,
        name: &str,
        request: &LabelRequest<'_>,
    ) -> Result<Vec<String>, SourceError> {
        self.0
            .label_values(request.tenant, name, request.matcher_sets, request.range)
            .map_err(source_error)
    }

    fn metadata(
        &self,
        tenant: &TenantId,
        metric: Option<&str>,
        _: &Arc<ReadContext>,
    ) -> Result<Vec<MetricMetadata>, SourceError> {
        Ok(self.0.metadata(tenant, metric))
    }
}

/// What an answer says that is not of all samples there were.
fn thinned(until: TimestampMs, bucket_ms: i64) -> String {
    let until = DateTime::from_timestamp_millis(until.0).map_or_else(
        || format!("{} ms", until.0),
        |time| time.to_rfc3339_opts(SecondsFormat::Secs, true),
    );
    format!(
        "samples before about {until} have expired: of each {} s the last one is left",
        bucket_ms / 1000
    )
}

fn nanos(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

struct Stored {
    series: StoreSeries,
    context: Arc<ReadContext>,
}

impl StoredSeries for Stored {
    fn labels(&self) -> &Labels {
        self.series.labels()
    }

    fn read(&self, out: &mut SampleColumns) -> Result<(), SourceError> {
        let begun = Instant::now();
        let read = self
            .series
            .read(&mut out.timestamps, &mut out.values)
            .map_err(source_error);
        let stats = &self.context.stats;
        ReadStats::add(&stats.read_nanos, nanos(begun));
        ReadStats::add(&stats.bytes, read?);
        Ok(())
    }

    fn read_digest(
        &self,
        grain_ms: i64,
        digest: Digest,
        out: &mut SampleColumns,
    ) -> Result<bool, SourceError> {
        let begun = Instant::now();
        let digest = match digest {
            Digest::Last => millrace_store::Digest::Last,
            Digest::Min => millrace_store::Digest::Min,
            Digest::Max => millrace_store::Digest::Max,
            Digest::Count => millrace_store::Digest::Count,
        };
        let read = self
            .series
            .read_digest(grain_ms, digest, &mut out.timestamps, &mut out.values)
            .map_err(source_error);
        let stats = &self.context.stats;
        ReadStats::add(&stats.read_nanos, nanos(begun));
        let Some(read) = read? else {
            return Ok(false);
        };
        ReadStats::add(&stats.bytes, read.bytes);
        *stats.rollups.lock().entry(read.resolution_ms).or_default() += 1;
        Ok(true)
    }
}

/// A series of which only the newest sample is wanted.
struct Newest(StoreSeries);

impl StoredSeries for Newest {
    fn labels(&self) -> &Labels {
        self.0.labels()
    }

    fn read(&self, out: &mut SampleColumns) -> Result<(), SourceError> {
        if let Some((moment, value)) = self.0.newest().map_err(source_error)? {
            out.push(moment, value);
        }
        Ok(())
    }
}

/// Every failure to read is an error of the answer, never a shorter answer.
pub fn source_error(error: StoreError) -> SourceError {
    match error {
        StoreError::Stopped { .. } => SourceError::NotReady {
            reason: error.to_string(),
        },
        error => SourceError::DataUnavailable {
            reason: error.to_string(),
        },
    }
}

/// How far the store is.
pub struct StoreFreshness(pub Arc<Store>);

impl fmt::Debug for StoreFreshness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreFreshness")
    }
}

impl Freshness for StoreFreshness {
    fn wait(&self, position: &str, timeout: Duration) -> Result<(), FreshnessError> {
        let position: Position =
            position
                .parse()
                .map_err(|error: PositionError| FreshnessError::Malformed {
                    reason: error.to_string(),
                })?;
        wait_applied(&self.0, &position, timeout)
    }

    fn partitions(&self) -> BTreeMap<PartitionId, Offset> {
        self.0.applied().next
    }

    fn as_of(&self) -> Option<String> {
        Some(self.0.applied().to_string())
    }
}

/// Waits until the store has applied everything before the position.
pub fn wait_applied(
    store: &Store,
    position: &Position,
    timeout: Duration,
) -> Result<(), FreshnessError> {
    store
        .wait_applied(position, timeout)
        .map_err(|error| match error {
            StoreError::ForeignPosition { .. } => FreshnessError::Malformed {
                reason: error.to_string(),
            },
            StoreError::WaitTimeout { .. } => FreshnessError::NotReached {
                waited: timeout,
                reason: error.to_string(),
            },
            error => FreshnessError::NotReady {
                reason: error.to_string(),
            },
        })
}
