//! The way of a request: decoded and submitted on a decode thread, awaited on the runtime.
//!
//! Invariants:
//! - An answer that acknowledges samples is made only after their append has resolved well.
//! - What a request may take is asked of its tenant first: its rate before its body is read, its shares
//!   of memory and of the queue before they are used.
//! - From decoding on, a request no longer depends on its client: it runs in a task of its own, so
//!   a connection that breaks leaves no half-done append and no metadata noted as sent that is not.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use millrace_model::batch::EncodedSection;
use millrace_model::{Clock, PartitionId, TenantId};
use millrace_queue::{Appender, PendingAppend, Position, SubmitError};
use millrace_relabel::Rules;
use prometheus::Registry;

use crate::context::PushContext;
use crate::core::{Core, Decoded, Format, Input};
use crate::encoding::Encoding;
use crate::keep::{self, KeepRejected};
use crate::memory::{DECODING, MemoryBudget, PENDING, Reservation};
use crate::metadata::MetadataNews;
use crate::metrics::{Metrics, Protocol};
use crate::options::TenantLimits;
use crate::pool::DecodePool;
use crate::report::Report;
use crate::series::{Scratch, Submit};
use crate::tenants::{LimitsReport, Tenant};
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
    pub(crate) memory: MemoryBudget,
    /// What waits to become durable. The appender has the same bound, and knows no shares.
    pending: MemoryBudget,
    keeper: OnceLock<Arc<dyn KeepRejected>>,
    jitter: AtomicU64,
}

/// A request whose body has arrived.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) context: PushContext,
    pub(crate) tenant: Arc<Tenant>,
    /// The limits that are in force for it.
    pub(crate) limits: Arc<TenantLimits>,
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
    /// Holds the memory of the report and of what will be made of it.
    pub(crate) memory: Reservation,
    /// Refused samples that are kept.
    pub(crate) kept: u64,
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
    memory: Reservation,
    kept: u64,
    points: u64,
    nothing_by_choice: bool,
    pending: Option<(PendingAppend, Reservation)>,
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
        let (threads, queue) = (options.decode_threads, options.decode_queue);
        let memory = options.decode_memory_bytes;
        let identity = appender.identity().clone();
        let core = Core::new(options, identity, appender.max_section_bytes(), &metrics);
        let several = core.tenants().several();
        let pool = DecodePool::start(threads, queue, Arc::clone(&several));
        let gauge = Some(metrics.decode_memory.clone());
        let inner = Inner {
            memory: MemoryBudget::new(memory, Arc::clone(&several), DECODING, gauge),
            pending: MemoryBudget::new(appender.max_pending_bytes(), several, PENDING, None),
            core,
            keeper: OnceLock::new(),
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

    pub(crate) fn reserve_memory(&self, tenant: &Tenant) -> Reservation {
        self.inner.memory.reserve_none(&tenant.decoding)
    }

    /// The tenant of that name, and its limits.
    ///
    /// # Errors
    ///
    /// [`IngestError::Overloaded`] if there are too many, [`IngestError::RateLimited`].
    pub(crate) fn tenant(
        &self,
        id: &TenantId,
    ) -> Result<(Arc<Tenant>, Arc<TenantLimits>), IngestError> {
        let now = self.inner.clock.monotonic();
        let tenant = self.inner.core.tenants().get(id, now)?;
        let limits = tenant.limits();
        tenant.take_samples(&limits, 0, now)?;
        Ok((tenant, limits))
    }

    /// From now on, what is refused for a limit goes there. Only the first call counts.
    pub fn keep_rejected(&self, keeper: Arc<dyn KeepRejected>) {
        if self.inner.keeper.set(keeper).is_err() {
            tracing::error!("there is a keeper of refused samples already: a bug");
        }
    }

    /// Puts other limits of single tenants in force, in place of all that were before. Requests in
    /// hand end under those that they began with.
    pub fn set_overrides(&self, overrides: BTreeMap<TenantId, TenantLimits>) {
        let metrics = &self.inner.metrics;
        metrics
            .overrides
            .set(i64::try_from(overrides.len()).unwrap_or(i64::MAX));
        self.inner.core.tenants().set_overrides(overrides);
    }

    /// What a tenant, or all of them, use of their limits in this process, with the `top` worst
    /// metrics and labels of each.
    #[must_use]
    pub fn limits_report(&self, of: Option<&TenantId>, top: usize) -> LimitsReport {
        let now = self.inner.clock.monotonic();
        self.inner.core.tenants().report(of, top, now)
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
        let (tenant, bytes) = (request.context.tenant.clone(), request.body.len());
        let submitted = self
            .pool
            .run(&tenant, bytes, move |scratch| {
                inner.decode_and_submit(request, scratch)
            })
            .await??;
        let Submitted {
            accepted,
            dropped,
            report,
            memory,
            kept,
            points,
            nothing_by_choice,
            pending,
            news,
        } = submitted;
        let position = match pending {
            Some((pending, _held)) => Some(pending.await?),
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
            memory,
            kept,
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
        let mut submitted = Ok(None);
        let result = self.decode(&request, scratch, &mut |sections, samples| {
            submitted = self.submit(&request.tenant, &request.limits, sections, samples);
            submitted.is_ok()
        });
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
            | Format::Csv(_)
            | Format::Computed(_) => false,
        };
        let pending = submitted?;
        let kept = self.keep(request.tenant.id(), &collected.rejected, &collected.report);
        // Unlike bodies these wait until the client has read them, which is up to the client.
        let mut report = collected.report;
        let mut memory = request.memory.share();
        if memory.grow(2 * report.detail_bytes()).is_err() {
            report.shorten();
        }
        Ok(Submitted {
            accepted: collected.accepted,
            dropped: collected.dropped,
            report,
            memory,
            kept,
            points: collected.points,
            nothing_by_choice,
            pending,
            news,
        })
    }

    /// Submits what is good of a request. What its tenant may take is charged last, so that a request
    /// that is refused for anything else costs nothing.
    pub(crate) fn submit(
        &self,
        tenant: &Tenant,
        limits: &TenantLimits,
        sections: Vec<(PartitionId, EncodedSection)>,
        samples: u64,
    ) -> Result<Option<(PendingAppend, Reservation)>, IngestError> {
        if sections.is_empty() {
            return Ok(None);
        }
        let bytes = sections.iter().map(|(_, s)| s.bytes_len()).sum();
        let mut held = self.pending.reserve_none(&tenant.pending);
        held.grow_or_leave(bytes)?;
        tenant.take_samples(limits, samples, self.clock.monotonic())?;
        match self.appender.submit(tenant.id(), sections) {
            Ok(pending) => Ok(Some((pending, held))),
            Err(error) => {
                tenant.give_back_samples(samples);
                Err(not_submitted(error))
            }
        }
    }

    /// Hands over what was refused for a limit. Samples that are kept.
    fn keep(
        &self,
        tenant: &TenantId,
        rejected: &[(PartitionId, EncodedSection)],
        report: &Report,
    ) -> u64 {
        let Some(keeper) = self.keeper.get().filter(|_| !rejected.is_empty()) else {
            return 0;
        };
        let reasons = report.by_reason();
        let reasons = reasons.map(|(reason, count)| format!("{} {count}", reason.id()));
        let reasons = reasons.collect::<Vec<_>>().join(", ");
        let batches = keep::batches(tenant, rejected, &reasons);
        let kept = batches.filter_map(|batch| {
            let samples = batch.samples;
            keeper.keep(batch).then_some(samples)
        });
        kept.sum()
    }

    fn decode(
        &self,
        request: &Request,
        scratch: &mut Scratch,
        submit: &mut Submit<'_>,
    ) -> Result<Decoded, IngestError> {
        let input = Input {
            tenant: &request.tenant,
            limits: &request.limits,
            forced: &request.context.forced_labels,
            details: request.details,
            keep_rejected: self.keeper.get().is_some(),
            format: &request.format,
            encoding: request.encoding,
            body: &request.body,
            arrival: self.clock.now(),
            monotonic: self.clock.monotonic(),
        };
        let mut memory = request.memory.share();
        let decoded = self.core.decode(&input, &mut memory, scratch, submit)?;
        let metrics = &self.metrics;
        let tenants = self.core.tenants();
        let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        metrics.tracked_series.set(count(tenants.tracked_series()));
        metrics.tenants.set(count(tenants.len() as u64));
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
