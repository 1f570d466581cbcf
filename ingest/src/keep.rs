//! What was refused for a limit, kept for the case that the limit is raised.

use std::fmt;

use bytes::Bytes;
use millrace_model::batch::{EncodedSection, encode_batch};
use millrace_model::{PartitionId, TenantId};

/// Keeps what [`Ingest`](crate::Ingest) refuses for a limit that may be another one tomorrow: series beyond their
/// tenant's limits, and timestamps out of range.
pub trait KeepRejected: Send + Sync + fmt::Debug {
    /// Takes a batch, or drops it if there is no room. Called on a decode thread, so it must not
    /// block. Whether it was taken.
    fn keep(&self, rejected: RejectedBatch) -> bool;
}

/// Refused samples of one request and partition, as they would have gone to the queue.
#[derive(Clone, Debug)]
pub struct RejectedBatch {
    /// Where they belong.
    pub partition: PartitionId,
    /// The batch.
    pub payload: Bytes,
    /// For people: tenant and reasons.
    pub reason: String,
    /// How many samples.
    pub samples: u64,
}

/// Batches of refused sections.
pub(crate) fn batches(
    tenant: &TenantId,
    sections: &[(PartitionId, EncodedSection)],
    reasons: &str,
) -> impl Iterator<Item = RejectedBatch> {
    sections
        .iter()
        .map(move |(partition, section)| RejectedBatch {
            partition: *partition,
            payload: Bytes::from(encode_batch(tenant, None, [section])),
            reason: format!("refused when it was pushed by tenant {tenant}: {reasons}"),
            samples: u64::from(section.samples()),
        })
}
