//! What a query may take: time, samples, memory.
//!
//! Samples and bytes count while they are held: a [`Lease`] gives them back when it is dropped, so
//! that a sum over many series costs what its answer costs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::watch::StepCounts;
use crate::{CancelFlag, QueryError};

/// Bytes that a sample in a column takes.
const SAMPLE_BYTES: u64 = 8;

/// Bytes that a series takes beside its samples: labels, bookkeeping. An estimate; labels are
/// shared with the source most of the time.
const SERIES_BYTES: u64 = 128;

#[derive(Debug)]
pub(super) struct Budget {
    cancel: CancelFlag,
    deadline: Instant,
    timeout: Duration,
    max_samples: u64,
    max_bytes: u64,
    samples: AtomicU64,
    bytes: AtomicU64,
    read: AtomicU64,
    series: AtomicU64,
    /// Most samples held at once.
    peak: AtomicU64,
    /// Where they are asked for.
    pub(super) counts: Option<StepCounts>,
    sort_nanos: AtomicU64,
}

impl Budget {
    pub(super) fn new(
        cancel: CancelFlag,
        start: Instant,
        timeout: Duration,
        max_samples: u64,
        max_bytes: u64,
        counts: Option<StepCounts>,
    ) -> Arc<Self> {
        Arc::new(Self {
            cancel,
            // A timeout beyond what the clock can say is none.
            deadline: start
                .checked_add(timeout)
                .unwrap_or_else(|| start + Duration::from_secs(86_400 * 365)),
            timeout,
            max_samples,
            max_bytes,
            samples: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            read: AtomicU64::new(0),
            series: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            counts,
            sort_nanos: AtomicU64::new(0),
        })
    }

    /// Whether the query may go on.
    pub(super) fn check(&self) -> Result<(), QueryError> {
        if self.cancel.is_cancelled() {
            let message = "query was canceled in expression evaluation";
            return Err(QueryError::Canceled(message.to_owned()));
        }
        if Instant::now() >= self.deadline {
            let message = format!(
                "query timed out in expression evaluation (limit {:?})",
                self.timeout
            );
            return Err(QueryError::Timeout(message));
        }
        Ok(())
    }

    /// Notes that a series was read.
    pub(super) fn series_read(&self, samples: usize) {
        self.series.fetch_add(1, Ordering::Relaxed);
        self.read.fetch_add(samples as u64, Ordering::Relaxed);
    }

    /// Series and samples read so far.
    pub(super) fn totals(&self) -> (u64, u64) {
        (
            self.series.load(Ordering::Relaxed),
            self.read.load(Ordering::Relaxed),
        )
    }

    /// Most samples that were held at once.
    pub(super) fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }

    /// Sorts the answer, and notes how long that took.
    pub(super) fn sorting(&self, sort: impl FnOnce()) {
        let start = Instant::now();
        sort();
        let nanos = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.sort_nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    pub(super) fn sort_time(&self) -> Duration {
        Duration::from_nanos(self.sort_nanos.load(Ordering::Relaxed))
    }

    /// Takes room for `samples` in `series`, until the lease is dropped.
    pub(super) fn lease(
        self: &Arc<Self>,
        series: usize,
        samples: usize,
    ) -> Result<Lease, QueryError> {
        let mut lease = Lease {
            budget: Arc::clone(self),
            samples: 0,
            bytes: 0,
        };
        lease.grow(series, samples)?;
        Ok(lease)
    }
}

/// Room taken from a [`Budget`].
#[derive(Debug)]
pub(super) struct Lease {
    budget: Arc<Budget>,
    samples: u64,
    bytes: u64,
}

impl Lease {
    /// Takes more room.
    pub(super) fn grow(&mut self, series: usize, samples: usize) -> Result<(), QueryError> {
        let samples = samples as u64;
        let bytes = samples
            .saturating_mul(SAMPLE_BYTES)
            .saturating_add((series as u64).saturating_mul(SERIES_BYTES));
        let budget = &self.budget;
        if budget
            .samples
            .load(Ordering::Relaxed)
            .saturating_add(samples)
            > budget.max_samples
        {
            let message = format!(
                "query processing would load too many samples into memory in query execution (limit {} samples)",
                budget.max_samples
            );
            return Err(QueryError::Execution(message));
        }
        if budget.bytes.load(Ordering::Relaxed).saturating_add(bytes) > budget.max_bytes {
            let message = format!(
                "query processing would take too much memory in query execution (limit {} bytes)",
                budget.max_bytes
            );
            return Err(QueryError::Execution(message));
        }
        // Two threads may both pass the tests: the bound is then passed by a chunk, not more.
        let before = budget.samples.fetch_add(samples, Ordering::Relaxed);
        budget.peak.fetch_max(before + samples, Ordering::Relaxed);
        budget.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.samples += samples;
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.budget
            .samples
            .fetch_sub(self.samples, Ordering::Relaxed);
        self.budget.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Asks the budget every so many samples of work; one per thread.
#[derive(Debug)]
pub(super) struct Meter<'b> {
    budget: &'b Budget,
    work: usize,
}

impl<'b> Meter<'b> {
    /// Between two looks at clock and flag: tens of microseconds.
    const INTERVAL: usize = 16_384;

    pub(super) fn new(budget: &'b Budget) -> Self {
        Self { budget, work: 0 }
    }

    #[inline]
    pub(super) fn add(&mut self, work: usize) -> Result<(), QueryError> {
        self.work += work;
        if self.work < Self::INTERVAL {
            return Ok(());
        }
        self.work = 0;
        self.budget.check()
    }
}
