//! What scraped targets say, from an exposition to durable samples in the queue.
//!
//! The scraper owns targets, times and connections; this owns what a body means: text formats,
//! which series its lines become, which of them have gone, and the report series beside them. The
//! rules are Prometheus's (`docs/scraping.md`).
//!
//! **Invariants:**
//! - A scrape is stored whole or not at all, but for series beyond a limit of their tenant and samples at
//!   a time that is not taken, which are counted and named. One that fails, for whatever reason, stores
//!   staleness markers for all that the target had, and `up` as 0.
//! - A marker counts as written only when its append has succeeded; until then the next scrape
//!   writes it again.
//! - Per sample of a known series: one hash, one look-up, one copy. Rules are asked once per series.

mod append;
mod bounds;
mod options;
mod outcome;
mod state;
mod writer;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use millrace_model::{SeriesId, TenantId, TimestampMs};
use parking_lot::Mutex;

use crate::encoding::Encoding;
use crate::memory::Reservation;
use crate::series::Scratch;
use crate::service::not_submitted;
use crate::{Ingest, IngestError};
pub use append::ScrapeFailure;
pub use options::{ReportExtras, ScrapeLimits, TargetOptions};
pub use outcome::ScrapeOutcome;
pub use state::TargetSeries;
use state::Written;
pub(crate) use writer::ScrapeWriter;

/// Which text format a body is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScrapeFormat {
    /// Prometheus' text format 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

/// A body on its way in: its bytes count against the memory for decoding from the first one on.
#[derive(Debug)]
pub struct ScrapeBody {
    pub(crate) bytes: Vec<u8>,
    memory: Reservation,
    limit: usize,
    pub(crate) encoding: Encoding,
    pub(crate) format: ScrapeFormat,
}

impl ScrapeBody {
    /// Adds bytes as they came over the wire.
    ///
    /// # Errors
    ///
    /// [`IngestError::Overloaded`] if there is no memory for them, [`IngestError::TooLarge`] beyond
    /// what the body may have.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), IngestError> {
        if self.bytes.len() + bytes.len() > self.limit {
            return Err(IngestError::TooLarge {
                what: "body of the target (body_size_limit, or ingest.decode_memory_bytes)",
                reason: "decoded_too_large",
                got: None,
                limit: self.limit as u64,
                unit: " bytes",
            });
        }
        self.memory.grow(bytes.len())?;
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// Bytes so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing has come.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// One scrape, ready to be stored.
#[derive(Debug)]
pub struct Scrape {
    /// What the target said, or why it said nothing.
    pub body: Result<ScrapeBody, ScrapeFailure>,
    /// The time that its samples get.
    pub time: TimestampMs,
    /// When it began, by the monotonic clock.
    pub began: Duration,
}

/// What is to be stored of a target.
#[derive(Debug)]
enum Job {
    Scrape(Scrape),
    /// The target is no more: markers for all that it had, report series too, but for the series
    /// that are named.
    End {
        time: TimestampMs,
        elsewhere: HashSet<SeriesId>,
    },
}

impl Ingest {
    /// Begins to take the body of a target of at most `limit` bytes once it is decompressed; 0
    /// stands for what the memory for decoding allows.
    ///
    /// # Errors
    ///
    /// [`IngestError::UnsupportedEncoding`] if the content encoding is not known,
    /// [`IngestError::Overloaded`] if there are too many tenants.
    pub fn scrape_body(
        &self,
        tenant: &TenantId,
        format: ScrapeFormat,
        content_encoding: Option<&[u8]>,
        limit: usize,
    ) -> Result<ScrapeBody, IngestError> {
        let encoding = Encoding::parse(content_encoding)?.unwrap_or(Encoding::Identity);
        let most = self.options().decode_memory_bytes;
        let inner = self.inner();
        let tenant = inner.core.tenants().get(tenant, inner.clock.monotonic())?;
        Ok(ScrapeBody {
            bytes: Vec::new(),
            memory: self.reserve_memory(&tenant),
            limit: match limit {
                0 => most,
                limit => limit.min(most),
            },
            encoding,
            format,
        })
    }

    /// Stores a scrape and waits until it is durable. What came of it for the target is in the
    /// outcome; that the target failed is no error here.
    ///
    /// # Errors
    ///
    /// If the scrape is lost: nothing of it was stored, or it is not known what was. The next one
    /// goes on as if it had not been.
    pub async fn scrape(
        &self,
        target: &Arc<Mutex<TargetSeries>>,
        scrape: Scrape,
    ) -> Result<ScrapeOutcome, IngestError> {
        self.store_target(target, Job::Scrape(scrape)).await
    }

    /// Stores staleness markers for all series of a target that is no more, but for those in
    /// `elsewhere`, which another target has by now.
    ///
    /// # Errors
    ///
    /// As [`scrape`](Self::scrape).
    pub async fn end_target(
        &self,
        target: &Arc<Mutex<TargetSeries>>,
        time: TimestampMs,
        elsewhere: HashSet<SeriesId>,
    ) -> Result<ScrapeOutcome, IngestError> {
        let end = Job::End { time, elsewhere };
        self.store_target(target, end).await
    }

    async fn store_target(
        &self,
        target: &Arc<Mutex<TargetSeries>>,
        job: Job,
    ) -> Result<ScrapeOutcome, IngestError> {
        let (this, target) = (self.clone(), Arc::clone(target));
        // IMPORTANT: a task of its own, as for a request: whoever scrapes may be stopped meanwhile,
        // and what is submitted has to be noted.
        let task = tokio::spawn(async move { this.run_target(target, job).await });
        task.await.unwrap_or(Err(IngestError::Panicked))
    }

    async fn run_target(
        &self,
        target: Arc<Mutex<TargetSeries>>,
        job: Job,
    ) -> Result<ScrapeOutcome, IngestError> {
        let (inner, series) = (self.inner(), Arc::clone(&target));
        let tenant = target.lock().tenant().clone();
        let bytes = match &job {
            Job::Scrape(scrape) => scrape.body.as_ref().map_or(0, ScrapeBody::len),
            Job::End { .. } => 0,
        };
        let written = self
            .pool()
            .run(&tenant, bytes, move |scratch: &mut Scratch| {
                let start = inner.clock.monotonic();
                let mut series = series.lock();
                let written = match job {
                    Job::Scrape(scrape) => {
                        series.scrape(&inner.core, &*inner.clock, scrape, scratch)
                    }
                    Job::End { time, elsewhere } => {
                        Ok(series.end(&inner.core, time, &elsewhere, scratch))
                    }
                };
                scratch.trim();
                let written = written?;
                let metrics = &inner.metrics.scraped;
                let elapsed = inner.clock.monotonic().saturating_sub(start);
                metrics.decode_seconds.observe(elapsed.as_secs_f64());
                metrics.body_bytes.inc_by(written.wire_bytes);
                metrics.decoded_bytes.inc_by(written.decoded_bytes);
                inner.metrics.cache_hits.inc_by(written.hits);
                inner
                    .metrics
                    .cache_misses
                    .inc_by(written.outcome.series_new);
                inner
                    .metrics
                    .ignored_exemplars
                    .inc_by(written.ignored_exemplars);
                let Written {
                    number,
                    sections,
                    outcome,
                    news,
                    rejected,
                    ..
                } = written;
                let pending = match sections.is_empty() {
                    true => None,
                    false => {
                        let submitted = inner.appender.submit(series.tenant(), sections);
                        Some(submitted.map_err(|error| {
                            series.not_submitted();
                            not_submitted(error)
                        })?)
                    }
                };
                Ok::<_, IngestError>((number, pending, outcome, news, rejected))
            })
            .await?;
        let (number, pending, outcome, news, rejected) = written?;
        if let Some(pending) = pending {
            pending.await?;
        }
        // IMPORTANT: only now are the markers and the metadata in the queue for certain.
        target.lock().written(number);
        let inner = self.inner();
        inner.core.metadata_sent(&news);
        inner.metrics.scraped.samples.inc_by(outcome.stored);
        inner.metrics.count_rejected(&rejected);
        Ok(outcome)
    }
}

#[cfg(test)]
mod tests;
