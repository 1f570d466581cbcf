//! Group commit: what concurrent requests submit shares appends.
//!
//! Each partition has a *lane*, a thread that hands one append after another to the backend. What
//! is submitted while it does waits, and goes into the next append together: sections of one tenant
//! joined into one batch, several batches in one write and one sync. So the cost of a sync is
//! shared by as many requests as there are while it lasts, without a timer.
//!
//! Invariants:
//! - What is pending, waiting or in flight, never exceeds
//!   [`AppenderOptions::max_pending_bytes`]; what would is refused at once, nothing blocks.
//! - Sections of one tenant and partition reach the queue in the order in which they were submitted;
//!   between tenants an append is shared by turns, so that one that floods a lane delays the others by
//!   an append at most.
//! - Each submitted section is in exactly one batch, and each [`PendingAppend`] resolves exactly
//!   once, whatever the backend does.
//! - Nothing is done per sample.

use std::fmt;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use millrace_model::batch::{EncodedSection, HEADER_BYTES};
use millrace_model::{PartitionId, TenantId};
use parking_lot::Mutex;
use prometheus::Registry;

use crate::metrics::AppenderMetrics;
use crate::{AppendError, Position, Producer, QueueIdentity};

mod budget;
mod lane;
mod pending;

use budget::Budget;
use lane::{Lane, Submission};
pub use pending::PendingAppend;
use pending::Ticket;

/// What a batch takes besides its sections: the header and the tenant's name.
const BATCH_OVERHEAD_BYTES: usize = HEADER_BYTES + 2 + TenantId::MAX_BYTES;
/// What a section takes besides its content: kind, flags, length.
const SECTION_OVERHEAD_BYTES: usize = 12;

/// The bounds of an [`Appender`].
#[derive(Clone, Debug)]
pub struct AppenderOptions {
    /// Most bytes that may be pending over all partitions; beyond it submissions are refused.
    pub max_pending_bytes: usize,
    /// How long a lane waits for more before it appends what it has. The default is not at all:
    /// while one append is in flight the next one gathers, which is enough wherever it matters.
    pub linger: Duration,
    /// Longest batch that is made, in bytes; the backend's own limit applies as well. A section
    /// that does not fit in one is refused.
    pub max_batch_bytes: usize,
    /// Most appends of one partition that a backend may have unfinished, if it returns before they
    /// are durable.
    pub max_in_flight: usize,
}

impl Default for AppenderOptions {
    fn default() -> Self {
        Self {
            max_pending_bytes: 64 << 20,
            linger: Duration::ZERO,
            max_batch_bytes: 8 << 20,
            // What an idempotent Kafka producer keeps in order is five.
            max_in_flight: 5,
        }
    }
}

/// Joins what is submitted into appends. Cloning gives another handle; when the last one is dropped
/// the lanes finish what they have and stop.
#[derive(Clone)]
pub struct Appender {
    handle: Arc<Handle>,
}

struct Handle {
    core: Arc<Core>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What the lanes and the handles share.
struct Core {
    producer: Arc<dyn Producer>,
    max_batch_bytes: usize,
    linger: Duration,
    max_in_flight: usize,
    budget: Budget,
    metrics: AppenderMetrics,
    lanes: Vec<Lane>,
}

/// Why something was not even queued. Nothing of it was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// Too much is pending; it may be tried again soon.
    #[error(
        "{pending_bytes} bytes wait to become durable, {wanted_bytes} more would pass the limit of \
         {max_pending_bytes}"
    )]
    Overloaded {
        /// Bytes pending now.
        pending_bytes: usize,
        /// Bytes of this submission.
        wanted_bytes: usize,
        /// The limit.
        max_pending_bytes: usize,
    },
    /// The appender is closed.
    #[error("the queue is shutting down")]
    Closed,
    /// It would be refused at any time.
    #[error("{bytes} bytes for one append, the limit is {max_bytes}")]
    TooLarge {
        /// Bytes of the section, or of all sections together.
        bytes: usize,
        /// The limit that they pass.
        max_bytes: usize,
    },
}

impl Appender {
    /// Starts the lanes, one thread per partition.
    ///
    /// # Panics
    ///
    /// If threads cannot be started, if `max_in_flight` is 0, if batches are bounded so tightly
    /// that none has room for a section, or if `registry` has the metrics of another appender.
    #[must_use]
    pub fn new(producer: Arc<dyn Producer>, options: AppenderOptions, registry: &Registry) -> Self {
        let max_batch_bytes = options.max_batch_bytes.min(producer.max_batch_bytes());
        assert!(
            max_batch_bytes > BATCH_OVERHEAD_BYTES + SECTION_OVERHEAD_BYTES,
            "batches of at most {max_batch_bytes} bytes have no room for a section"
        );
        assert!(options.max_in_flight > 0, "no append may be in flight");
        let metrics = AppenderMetrics::new(registry);
        let partitions = (0..producer.identity().partitions).map(PartitionId);
        let lanes = partitions.map(|id| Lane::new(id, metrics.lane(&id.to_string())));
        let core = Arc::new(Core {
            lanes: lanes.collect(),
            max_batch_bytes,
            linger: options.linger,
            max_in_flight: options.max_in_flight,
            budget: Budget::new(options.max_pending_bytes, metrics.pending_bytes.clone()),
            metrics,
            producer,
        });
        let start = |index: usize| {
            let core = Arc::clone(&core);
            std::thread::Builder::new()
                .name(format!("append-{index}"))
                .spawn(move || lane::run(&core, index))
                .expect("the system starts a thread per partition")
        };
        let threads = (0..core.lanes.len()).map(start).collect();
        Self {
            handle: Arc::new(Handle {
                core,
                threads: Mutex::new(threads),
            }),
        }
    }

    /// What queue is appended to.
    #[must_use]
    pub fn identity(&self) -> &QueueIdentity {
        self.handle.core.producer.identity()
    }

    /// The backend.
    #[must_use]
    pub fn producer(&self) -> &Arc<dyn Producer> {
        &self.handle.core.producer
    }

    /// Most bytes that may be pending, over all partitions.
    #[must_use]
    pub fn max_pending_bytes(&self) -> usize {
        self.handle.core.budget.max()
    }

    /// Longest section that is taken, in bytes ([`EncodedSection::bytes_len`]). Whoever encodes
    /// splits before it.
    #[must_use]
    pub fn max_section_bytes(&self) -> usize {
        self.handle.core.max_section_bytes()
    }

    /// Hands over sections of one tenant to be appended to their partitions. Never blocks. What
    /// was accepted is appended even if the [`PendingAppend`] is dropped.
    ///
    /// # Errors
    ///
    /// [`SubmitError`]; nothing of it was accepted then.
    ///
    /// # Panics
    ///
    /// If the queue has no such partition.
    pub fn submit(
        &self,
        tenant: &TenantId,
        parts: Vec<(PartitionId, EncodedSection)>,
    ) -> Result<PendingAppend, SubmitError> {
        self.handle.core.submit(tenant, parts)
    }

    /// Refuses further submissions, waits until everything accepted is durable or has failed, and
    /// stops the lanes. Blocks; may be called again.
    pub fn close(&self) {
        self.handle.core.close();
        // Under the lock, so that a second caller returns no earlier than the first.
        let mut threads = self.handle.threads.lock();
        for thread in threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("an append lane had panicked");
            }
        }
    }
}

impl fmt::Debug for Appender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Appender")
            .field("producer", &self.handle.core.producer)
            .finish_non_exhaustive()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.core.close();
    }
}

impl Core {
    fn max_section_bytes(&self) -> usize {
        self.max_batch_bytes - BATCH_OVERHEAD_BYTES - SECTION_OVERHEAD_BYTES
    }

    fn submit(
        &self,
        tenant: &TenantId,
        parts: Vec<(PartitionId, EncodedSection)>,
    ) -> Result<PendingAppend, SubmitError> {
        self.metrics.submissions.inc();
        let bytes = self.checked_bytes(&parts)?;
        if self.lanes.iter().any(Lane::is_closed) {
            return Err(SubmitError::Closed);
        }
        if let Err(pending_bytes) = self.budget.take(bytes) {
            self.metrics.overloads.inc();
            return Err(SubmitError::Overloaded {
                pending_bytes,
                wanted_bytes: bytes,
                max_pending_bytes: self.budget.max(),
            });
        }
        let position = Position::new(self.producer.identity().id);
        let ticket = Ticket::new(position, parts.len());
        for (partition, section) in parts {
            let submission = Submission::new(tenant.clone(), section, Arc::clone(&ticket));
            // A lane that was closed meanwhile: part of the request may be on its way, so it is
            // the append that fails, not the submission.
            if let Err(refused) = self.lanes[partition.index()].push(submission) {
                self.budget.give_back(refused.bytes());
                ticket.resolve(partition, Err(AppendError::Closed));
            }
        }
        Ok(PendingAppend::new(ticket))
    }

    /// What the parts take of the budget.
    fn checked_bytes(&self, parts: &[(PartitionId, EncodedSection)]) -> Result<usize, SubmitError> {
        let max_bytes = self.max_section_bytes();
        let mut total = 0;
        for (partition, section) in parts {
            assert!(
                partition.index() < self.lanes.len(),
                "partition {partition} of a queue with {}",
                self.lanes.len()
            );
            let bytes = section.bytes_len();
            if bytes > max_bytes {
                return Err(SubmitError::TooLarge { bytes, max_bytes });
            }
            total += bytes + SECTION_OVERHEAD_BYTES;
        }
        if total > self.budget.max() {
            return Err(SubmitError::TooLarge {
                bytes: total,
                max_bytes: self.budget.max(),
            });
        }
        Ok(total)
    }

    fn close(&self) {
        self.lanes.iter().for_each(Lane::close);
    }
}

#[cfg(test)]
mod tests;
