//! How far the store is.

use std::fmt;
use std::time::Duration;

use millrace_model::{Offset, PartitionId};
use millrace_queue::Position;

/// Knows what can be read by a query. The server implements it on the store.
pub trait Applied: Send + Sync + fmt::Debug {
    /// By partition that is here, the offset below which everything is applied.
    fn position(&self) -> Position;

    /// Blocks until `partition` has applied everything below `wanted`, or for `timeout`. The offset below
    /// which everything is applied now; `None` if the partition is not here.
    fn wait(&self, partition: PartitionId, wanted: Offset, timeout: Duration) -> Option<Offset>;
}
