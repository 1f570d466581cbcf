//! The way of a request: decoded and submitted on a decode thread, awaited on the runtime.
//!
//! Invariants:
//! - An answer that acknowledges samples is made only after their append has resolved well.
//! - From decoding on, a request no longer depends on its client: it runs in a task of its own, so
//!   a connection that breaks leaves no half-done append and no metadata noted as sent that is not.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use millrace_model::Clock;
use millrace_queue::{Appender, PendingAppend, Position, SubmitError};
use millrace_relabel::Rules;
use prometheus::Registry;

use crate::context::PushContext;
use crate::core::{Core, Decoded, Format, Input};
use crate::encoding::Encoding;
use crate::memory::{MemoryBudget, Reservation};
use crate::metadata::MetadataNews;
use crate::metrics::{Metrics, Protocol};
use crate::pool::DecodePool;
use crate::report::Report;
use crate::series::Scratch;
use crate::{IngestError, IngestOptions};

/// The push endpoint. Cloning gives another handle to it; its decode threads end with the last
/// one.
#[derive(Clone, Debug)]
pub struct Ingest {
    inner: Arc<Inner>,
    pool: Arc<DecodePool>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) core: Core,
    pub(crate) appender: Appender,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Metrics,
    memory: MemoryBudget,
    jitter: AtomicU64,
}

/// A request whose body has arrived.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) context: PushContext,
    /// As many refused items are described.
    pub(crate) details: usize,
    pub(crate) protocol: Protocol,
    pub(crate) format: Format,
    pub(crate) encoding: Encoding,
    pub(crate) body: Bytes,
    /// Holds the body's bytes.
    pub(crate) memory: Reservation,
}

/// A request that is done: stored as far as its items were good.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Samples stored.
    pub(crate) accepted: u64,
    /// Samples that the relabelling of this server drops.
    pub(crate) dropped: u64,
    pub(crate) report: Report,
    /// Data points of an OTLP request, refused ones included.
    pub(crate) points: u64,
    /// Whether nothing was stored because the client wants all or nothing.
    pub(crate) nothing_by_choice: bool,
    /// Where the queue stands behind it; `None` if there was nothing to store.
    pub(crate) position: Option<Position>,
}

/// A request whose samples are on their way to the queue.
struct Submitted {
    accepted: u64,
    dropped: u64,
    report: Report,
    points: u64,
    nothing_by_choice: bool,
    pending: Option<PendingAppend>,
    news: MetadataNews,
}

impl Ingest {
    /// Starts the decode threads.
    ///
    /// # Panics
    ///
    /// If `registry` already has the metrics of an ingest, or the operating system gives no
    /// threads: both at start, by whoever wires the process.
    #[must_use]
    pub fn new(
        options: IngestOptions,
        appender: Appender,
        clock: Arc<dyn Clock>,
        registry: &Registry,
    ) -> Self {
        let metrics = Metrics::new(registry);
        let pool = DecodePool::start(options.decode_threads, options.decode_queue);
        let inner = Inner {
            memory: MemoryBudget::new(options.decode_memory_bytes, metrics.decode_memory.clone()),
            core: Core::new(
                options,
                appender.identity().clone(),
                appender.max_section_bytes(),
                &metrics,
            ),
            jitter: AtomicU64::new(0),
            appender,
            clock,
            metrics,
        };
        Self {
            inner: Arc::new(inner),
            pool: Arc::new(pool),
        }
    }

    /// Applies other rules to whatever is pushed from now on: drop, keep, rename, add labels. They
    /// are asked once per series. Metadata is not relabelled.
    pub fn set_relabel(&self, rules: Rules) {
        self.inner.core.set_relabel(rules);
    }

    pub(crate) fn inner(&self) -> Arc<Inner> {
        Arc::clone(&self.inner)
    }

    pub(crate) fn pool(&self) -> &DecodePool {
        &self.pool
    }

    pub(crate) fn options(&self) -> &IngestOptions {
        self.inner.core.options()
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    pub(crate) fn reserve_memory(&self) -> Reservation {
        self.inner.memory.reserve_none()
    }

    /// What an acknowledgement survives.
    pub(crate) fn durability(&self) -> &'static str {
        self.inner.appender.producer().durability().as_str()
    }

    /// Seconds after which a client may try again: spread, so that those refused together do not
    /// come back together.
    pub(crate) fn retry_after_seconds(&self) -> u64 {
        let n = self.inner.jitter.fetch_add(1, Ordering::Relaxed);
        1 + xxhash_rust::xxh3::xxh3_64(&n.to_le_bytes()) % 5
    }

    /// Decodes a request, stores what is good of it, and waits until that is durable.
    ///
    /// # Errors
    ///
    /// If nothing of it was acknowledged.
    pub(crate) async fn ingest(&self, request: Request) -> Result<Answer, IngestError> {
        let this = self.clone();
        // IMPORTANT: a task of its own. The caller's future is dropped when the client leaves.
        let task = tokio::spawn(async move { this.run(request).await });
        task.await.unwrap_or(Err(IngestError::Panicked))
    }

    async fn run(&self, request: Request) -> Result<Answer, IngestError> {
        let protocol = request.protocol;
        let inner = Arc::clone(&self.inner);
        let submitted = self
            .pool
            .run(move |scratch| inner.decode_and_submit(request, scratch))
            .await??;
        let Submitted {
            accepted,
            dropped,
            report,
            points,
            nothing_by_choice,
            pending,
            news,
        } = submitted;
        let position = match pending {
            Some(pending) => Some(pending.await?),
            None => None,
        };
        // IMPORTANT: only now are they in the queue for certain.
        self.inner.core.metadata_sent(&news);
        let metrics = &self.inner.metrics;
        metrics.of(protocol).samples.inc_by(accepted);
        metrics.count_rejected(&report);
        Ok(Answer {
            accepted,
            dropped,
            report,
            points,
            nothing_by_choice,
            position,
        })
    }
}

impl Inner {
    /// Runs on a decode thread. Submitting does not block and is atomic, so it belongs here: no
    /// moment lies between decoded and submitted in which the request could be dropped.
    fn decode_and_submit(
        &self,
        request: Request,
        scratch: &mut Scratch,
    ) -> Result<Submitted, IngestError> {
        let start = self.clock.monotonic();
        let result = self.decode(&request, scratch);
        scratch.trim();
        let elapsed = self.clock.monotonic().saturating_sub(start);
        let metrics = self.metrics.of(request.protocol);
        metrics.decode_seconds.observe(elapsed.as_secs_f64());
        let Decoded {
            collected, news, ..
        } = result?;
        let nothing_by_choice = match &request.format {
            Format::Line { all_or_nothing, .. } => *all_or_nothing && !collected.report.is_empty(),
            Format::Json(_)
            | Format::RemoteWrite
            | Format::RemoteWrite2
            | Format::Otlp { .. }
            | Format::Text(_)
            | Format::VmJson
            | Format::Csv(_) => false,
        };
        let pending = if collected.sections.is_empty() {
            None
        } else {
            let submitted = self
                .appender
                .submit(&request.context.tenant, collected.sections);
            Some(submitted.map_err(not_submitted)?)
        };
        Ok(Submitted {
            accepted: collected.accepted,
            dropped: collected.dropped,
            report: collected.report,
            points: collected.points,
            nothing_by_choice,
            pending,
            news,
        })
    }

    fn decode(&self, request: &Request, scratch: &mut Scratch) -> Result<Decoded, IngestError> {
        let input = Input {
            tenant: &request.context.tenant,
            forced: &request.context.forced_labels,
            details: request.details,
            format: &request.format,
            encoding: request.encoding,
            body: &request.body,
            arrival: self.clock.now(),
            monotonic: self.clock.monotonic(),
        };
        let mut memory = request.memory.share();
        let decoded = self.core.decode(&input, &mut memory, scratch)?;
        let metrics = &self.metrics;
        let bytes = &metrics.of(request.protocol).decoded_bytes;
        bytes.inc_by(decoded.body_bytes as u64);
        let collected = &decoded.collected;
        metrics.cache_hits.inc_by(collected.cache_hits);
        metrics.cache_misses.inc_by(collected.cache_misses);
        metrics.relabel_dropped.inc_by(collected.dropped);
        let ignored = &metrics.ignored_exemplars;
        ignored.inc_by(collected.ignored_exemplars);
        let ignored = &metrics.ignored_string_fields;
        ignored.inc_by(collected.ignored_string_fields);
        Ok(decoded)
    }
}

pub(crate) fn not_submitted(error: SubmitError) -> IngestError {
    match error {
        SubmitError::Overloaded { .. } => IngestError::Overloaded {
            what: "too many bytes wait to become durable (queue.max_pending_bytes)",
        },
        SubmitError::Closed => IngestError::Closed,
        SubmitError::TooLarge { bytes, max_bytes } => IngestError::TooLarge {
            what: "encoded samples of the request (queue.max_batch_bytes, queue.max_pending_bytes; on \
                   Kafka queue.kafka.max_batch_bytes)",
            reason: "batch_too_large",
            got: Some(bytes as u64),
            limit: max_bytes as u64,
            unit: " bytes",
        },
    }
}
