//! Samples that the server itself computes - what rules record - on the way that pushed data take: the
//! tenant's limits, the cache of known series, the queue. Only the rules that relabel pushed series do not
//! apply to them.

use millrace_model::{Labels, Sample, TenantId};
use millrace_queue::Position;

use crate::core::{Format, Input};
use crate::decode::computed::BATCH;
use crate::encoding::Encoding;
use crate::series::Scratch;
use crate::service::Inner;
use crate::{Ingest, IngestError};

/// What became of computed samples.
#[derive(Clone, Debug, Default)]
pub struct Computed {
    /// Samples that are durable.
    pub accepted: u64,
    /// Samples that were refused.
    pub refused: u64,
    /// Why the first of them was.
    pub reason: Option<String>,
    /// Where the queue stands behind them; `None` if there was nothing to store.
    pub position: Option<Position>,
}

impl Ingest {
    /// Stores samples of a tenant, each of the series with its labels, and waits until they are durable.
    /// Samples of one series take effect in their order.
    ///
    /// # Errors
    ///
    /// If it is not known of all of them that they are durable, or that they are refused. Writing the same
    /// again is safe.
    pub async fn write(
        &self,
        tenant: &TenantId,
        samples: Vec<(Labels, Sample)>,
    ) -> Result<Computed, IngestError> {
        let mut done = Computed::default();
        // A request is bounded, and what a rule makes is not.
        let most = self.options().limits.request.samples.clamp(1, BATCH);
        let mut rest = samples;
        while !rest.is_empty() {
            let later = rest.split_off(rest.len().min(most));
            let some = std::mem::replace(&mut rest, later);
            let (this, tenant) = (self.clone(), tenant.clone());
            // IMPORTANT: a task of its own, as for a request: whoever waits may be stopped meanwhile.
            let task = tokio::spawn(async move { this.write_some(tenant, some).await });
            let one = task.await.unwrap_or(Err(IngestError::Panicked))?;
            done.accepted += one.accepted;
            done.refused += one.refused;
            done.reason = done.reason.or(one.reason);
            done.position = one.position.or(done.position);
        }
        Ok(done)
    }

    async fn write_some(
        &self,
        tenant: TenantId,
        samples: Vec<(Labels, Sample)>,
    ) -> Result<Computed, IngestError> {
        let inner = self.inner();
        let bytes = samples
            .iter()
            .map(|(labels, _)| labels.canonical().len() + 16)
            .sum();
        let of = tenant.clone();
        let submitting = move |scratch: &mut Scratch| inner.submit_computed(&of, samples, scratch);
        let (mut done, pending) = self.pool().run(&tenant, bytes, submitting).await??;
        if let Some((pending, _held)) = pending {
            done.position = Some(pending.await?);
        }
        self.metrics().computed.samples.inc_by(done.accepted);
        Ok(done)
    }
}

type Submitted = (
    Computed,
    Option<(millrace_queue::PendingAppend, crate::memory::Reservation)>,
);

impl Inner {
    fn submit_computed(
        &self,
        tenant: &TenantId,
        samples: Vec<(Labels, Sample)>,
        scratch: &mut Scratch,
    ) -> Result<Submitted, IngestError> {
        let monotonic = self.clock.monotonic();
        let tenant = self.core.tenants().get(tenant, monotonic)?;
        let limits = tenant.limits();
        let mut memory = self.memory.reserve_none(&tenant.decoding);
        let format = Format::Computed(samples);
        let input = Input {
            tenant: &tenant,
            limits: &limits,
            forced: &[],
            details: 1,
            keep_rejected: false,
            format: &format,
            encoding: Encoding::Identity,
            body: &[],
            arrival: self.clock.now(),
            monotonic,
        };
        let mut submitted = Ok(None);
        let mut submit = |sections, samples| {
            submitted = self.submit(&tenant, &limits, sections, samples);
            submitted.is_ok()
        };
        let decoded = self.core.decode(&input, &mut memory, scratch, &mut submit);
        scratch.trim();
        let collected = decoded?.collected;
        let spent = self.clock.monotonic().saturating_sub(monotonic);
        let metrics = &self.metrics;
        metrics.computed.decode_seconds.observe(spent.as_secs_f64());
        metrics.cache_hits.inc_by(collected.cache_hits);
        metrics.cache_misses.inc_by(collected.cache_misses);
        metrics.count_rejected(&collected.report);
        let done = Computed {
            accepted: collected.accepted,
            refused: collected.report.samples(),
            reason: collected.report.details().first().map(ToString::to_string),
            position: None,
        };
        Ok((done, submitted?))
    }
}
