//! The only door to storage. The query engine owns this trait; a local store, a remote shard and a
//! test's table of samples implement it alike.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use crate::CancelFlag;
use millrace_model::{Labels, Matcher, MetricMetadata, Offset, PartitionId, TenantId, TimeRange};

/// Series and samples, as the engine wants them. Called from the engine's own threads; calls may
/// block on disk or network.
pub trait SeriesSource: Send + Sync + fmt::Debug {
    /// The series that pass all matchers and may have samples in the range; in no special order.
    /// Each series comes once, whatever it is stored in.
    ///
    /// # Errors
    ///
    /// See [`SourceError`].
    fn select(&self, request: &Select<'_>) -> Result<Vec<Box<dyn StoredSeries>>, SourceError>;

    /// The same series; of each, a read tells the newest sample in the range and may leave out all
    /// others. Where it is not implemented, it is [`select`](Self::select).
    ///
    /// # Errors
    ///
    /// See [`SourceError`].
    fn newest(&self, request: &Select<'_>) -> Result<Vec<Box<dyn StoredSeries>>, SourceError> {
        self.select(request)
    }

    /// The label sets of such series, sorted. A source with an index answers from that; this and the
    /// two below it, where they are not implemented, go over what [`select`](Self::select) finds.
    ///
    /// # Errors
    ///
    /// See [`SourceError`].
    fn series(&self, request: &Select<'_>) -> Result<Vec<Labels>, SourceError> {
        let found = self.select(request)?;
        let mut series: Vec<_> = found.iter().map(|series| series.labels().clone()).collect();
        series.sort();
        Ok(series)
    }

    /// The label names of series that pass at least one of `matcher_sets` (all series if there is
    /// none), sorted.
    ///
    /// # Errors
    ///
    /// See [`SourceError`].
    fn label_names(&self, request: &LabelRequest<'_>) -> Result<Vec<String>, SourceError> {
        let mut names = BTreeSet::new();
        for labels in series_of_sets(self, request)? {
            names.extend(labels.iter().map(|(name, _)| name.to_owned()));
        }
        Ok(names.into_iter().collect())
    }

    /// The values of the label `name` of such series, sorted.
    ///
    /// # Errors
    ///
    /// See [`SourceError`].
    fn label_values(
        &self,
        name: &str,
        request: &LabelRequest<'_>,
    ) -> Result<Vec<String>, SourceError> {
        let mut values = BTreeSet::new();
        for labels in series_of_sets(self, request)? {
            values.extend(labels.get(name).map(str::to_owned));
        }
        Ok(values.into_iter().collect())
    }

    /// The metadata of one metric, or of all, in order of the metric's name. A source that does not
    /// implement it knows of none.
    ///
    /// # Errors
    ///
    /// See [`SourceError`].
    fn metadata(
        &self,
        tenant: &TenantId,
        metric: Option<&str>,
        context: &Arc<ReadContext>,
    ) -> Result<Vec<MetricMetadata>, SourceError> {
        let _ = (tenant, metric, context);
        Ok(Vec::new())
    }
}

/// The label sets of the series that pass one of the sets of matchers; one that passes several comes
/// several times.
fn series_of_sets<S: SeriesSource + ?Sized>(
    source: &S,
    request: &LabelRequest<'_>,
) -> Result<Vec<Labels>, SourceError> {
    let all = [Vec::new()];
    let sets = match request.matcher_sets {
        [] => &all[..],
        sets => sets,
    };
    let mut series = Vec::new();
    for matchers in sets {
        series.extend(source.series(&Select {
            tenant: request.tenant,
            matchers,
            range: request.range,
            context: request.context,
        })?);
    }
    Ok(series)
}

/// Which series, and which time.
#[derive(Clone, Copy, Debug)]
pub struct Select<'a> {
    /// Whose.
    pub tenant: &'a TenantId,
    /// All must pass.
    pub matchers: &'a [Matcher],
    /// Samples outside are not needed. Both ends inside.
    pub range: TimeRange,
    /// What the request allows, and what is learned on the way.
    pub context: &'a Arc<ReadContext>,
}

/// Which series' labels.
#[derive(Clone, Copy, Debug)]
pub struct LabelRequest<'a> {
    /// Whose.
    pub tenant: &'a TenantId,
    /// A series counts if it passes all matchers of one of the sets, or if there is no set.
    pub matcher_sets: &'a [Vec<Matcher>],
    /// Series without samples in the range may be left out. Both ends inside.
    pub range: TimeRange,
    /// What the request allows, and what is learned on the way.
    pub context: &'a Arc<ReadContext>,
}

/// What one request of a user allows to all its reads, and what these have to tell. Shared by the
/// threads that read for it.
#[derive(Debug, Default)]
pub struct ReadContext {
    /// Whether series of shards that cannot be reached may be left out (`partial_response=true`).
    /// Without it they are an error.
    pub partial: bool,
    /// Set once nobody waits for the answer any more.
    pub cancel: CancelFlag,
    /// When the answer is of no use any more.
    pub deadline: Option<Instant>,
    /// What was read.
    pub stats: ReadStats,
    /// What the reads must include, and what they included.
    pub point: Arc<ReadPoint>,
    warnings: Mutex<BTreeSet<String>>,
}

impl ReadContext {
    /// A context for one request.
    #[must_use]
    pub fn new(partial: bool, cancel: CancelFlag, deadline: Option<Instant>) -> Self {
        Self {
            partial,
            cancel,
            deadline,
            ..Self::default()
        }
    }

    /// The same, for a request that says what its reads must include.
    #[must_use]
    pub fn at(mut self, point: Arc<ReadPoint>) -> Self {
        self.point = point;
        self
    }

    /// Says that something is missing in the answer, and why. Each text is shown once.
    pub fn warn(&self, warning: impl Into<String>) {
        self.warnings.lock().insert(warning.into());
    }

    /// The warnings so far, sorted.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.lock().iter().cloned().collect()
    }
}

/// What holds for all reads of one request. First, up to which position of the queue they go: the one
/// that they must include, and the one that they were found to include. A source whose data cannot fall back behind what
/// [`Freshness`](crate::api::Freshness) has seen need not look at it; one that picks among replicas
/// must. Second, the labels that a series must have to be seen.
#[derive(Debug, Default)]
pub struct ReadPoint {
    after: Option<String>,
    samples_alone: bool,
    bound: Vec<Matcher>,
    included: Mutex<BTreeMap<PartitionId, Offset>>,
}

impl ReadPoint {
    /// For reads that must include everything up to `after` (the text of a `Millrace-Position`).
    #[must_use]
    pub fn after(after: impl Into<String>) -> Self {
        Self {
            after: Some(after.into()),
            ..Self::default()
        }
    }

    /// The same, for reads that may see only series that pass all of `matchers`, whatever else they
    /// select. [`ScopedSource`](crate::ScopedSource) sees to it.
    #[must_use]
    pub fn bound_to(mut self, matchers: Vec<Matcher>) -> Self {
        self.bound = matchers;
        self
    }

    /// The same, for reads of which nothing may stand for the samples themselves.
    #[must_use]
    pub fn of_samples_alone(mut self) -> Self {
        self.samples_alone = true;
        self
    }

    /// Whether nothing may stand for the samples themselves.
    #[must_use]
    pub fn is_of_samples_alone(&self) -> bool {
        self.samples_alone
    }

    /// What a series must pass to be seen; nothing, if the request may see all.
    #[must_use]
    pub fn bound(&self) -> &[Matcher] {
        &self.bound
    }

    /// The position that the reads must include, if the request names one.
    #[must_use]
    pub fn required(&self) -> Option<&str> {
        self.after.as_deref()
    }

    /// A read of `partition` included everything below `applied`.
    pub fn included_up_to(&self, partition: PartitionId, applied: Offset) {
        let mut included = self.included.lock();
        let least = included.entry(partition).or_insert(applied);
        *least = (*least).min(applied);
    }

    /// For each partition that was read the offset below which all its reads included everything.
    #[must_use]
    pub fn included(&self) -> BTreeMap<PartitionId, Offset> {
        self.included.lock().clone()
    }
}

/// What the reads of one request took, for `explain`. Sources count what applies to them.
#[derive(Debug, Default)]
pub struct ReadStats {
    /// Blocks whose index was looked into.
    pub blocks: AtomicU64,
    /// Memtables that were looked into.
    pub memtables: AtomicU64,
    /// Bytes of columns and chunks that were decoded.
    pub bytes: AtomicU64,
    /// Requests to other processes.
    pub remote_calls: AtomicU64,
    /// Nanoseconds that were spent finding series, of all threads.
    pub select_nanos: AtomicU64,
    /// Nanoseconds that were spent reading samples, of all threads.
    pub read_nanos: AtomicU64,
    /// By the width of the widest buckets that stood for their samples, in ms, how many series.
    pub rollups: Mutex<BTreeMap<i64, u64>>,
}

impl ReadStats {
    /// Adds to one of the counters.
    pub fn add(counter: &AtomicU64, amount: u64) {
        counter.fetch_add(amount, Ordering::Relaxed);
    }
}

/// One selected series. Reading is lazy, so that series can be decoded in parallel and dropped one
/// by one.
pub trait StoredSeries: Send + Sync {
    /// Its labels.
    fn labels(&self) -> &Labels;

    /// Appends its samples inside the selected range to `out`: timestamps strictly growing, each
    /// once, staleness markers among them.
    ///
    /// # Errors
    ///
    /// See [`SourceError`]. `out` is then of no use.
    fn read(&self, out: &mut SampleColumns) -> Result<(), SourceError>;

    /// Appends few samples that stand for many: in any window `(t − w, t]` of which `t` and `w` are multiples
    /// of `grain_ms`, `digest` of them is that of the samples, bit for bit. `false`, and nothing appended, from a
    /// source that knows of none; then [`read`](Self::read) is the way.
    ///
    /// # Errors
    ///
    /// See [`SourceError`]. `out` is then of no use.
    fn read_digest(
        &self,
        grain_ms: i64,
        digest: Digest,
        out: &mut SampleColumns,
    ) -> Result<bool, SourceError> {
        let _ = (grain_ms, digest, out);
        Ok(false)
    }
}

/// A function of a window for which few samples can stand for many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Digest {
    /// The last value, or whether there is one.
    Last,
    /// The lowest value: of equal ones the first, and NaN only where there is nothing else.
    Min,
    /// The highest value, likewise.
    Max,
    /// How many samples there are: values that stand for others are counts, to be added up.
    Count,
}

/// Samples of one series as two columns of equal length.
#[derive(Clone, Debug, Default)]
pub struct SampleColumns {
    /// Milliseconds since the epoch, strictly growing.
    pub timestamps: Vec<i64>,
    /// The values, bit for bit as they were sent.
    pub values: Vec<f64>,
}

impl SampleColumns {
    /// Forgets the samples, keeps the memory.
    pub fn clear(&mut self) {
        self.timestamps.clear();
        self.values.clear();
    }

    /// Number of samples.
    #[must_use]
    pub fn len(&self) -> usize {
        self.timestamps.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.timestamps.is_empty()
    }

    /// Adds one sample.
    pub fn push(&mut self, timestamp: i64, value: f64) {
        self.timestamps.push(timestamp);
        self.values.push(value);
    }
}

/// Why the source cannot answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SourceError {
    /// Data in the range are damaged. An error rather than a shorter answer.
    #[error("data unavailable: {reason}")]
    DataUnavailable {
        /// Which block, which time, what is wrong.
        reason: String,
    },
    /// A bound was reached.
    #[error("{what} over the limit of {limit}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// The bound.
        limit: u64,
    },
    /// Nobody who has these partitions of the queue can be reached, or is fresh enough.
    #[error(
        "no store answers for partition{} {}: {tried}",
        if .partitions.len() == 1 { "" } else { "s" },
        list(.partitions)
    )]
    Unreachable {
        /// Whose series are missing.
        partitions: Vec<PartitionId>,
        /// Which stores were asked, and what came of it.
        tried: String,
    },
    /// The store is starting, stopping or out of reach.
    #[error("store not ready: {reason}")]
    NotReady {
        /// What it is waiting for.
        reason: String,
    },
}

fn list(partitions: &[PartitionId]) -> String {
    let numbers: Vec<String> = partitions.iter().map(ToString::to_string).collect();
    numbers.join(", ")
}
