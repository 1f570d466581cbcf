//! What a store process has to show of itself.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use millrace_model::{Offset, PartitionId};
use millrace_query::SeriesSource;
use millrace_query::api::FreshnessError;
use millrace_queue::{Position, QueueIdentity};

use crate::wire::messages::StoreStatus;

/// The shards of this process. The server implements it on the store.
///
/// All calls may block on disk; none is made on a thread of the runtime, but for
/// [`identity`](Self::identity) and [`applied`](Self::applied).
pub trait LocalShards: Send + Sync + fmt::Debug {
    /// The queue that they read.
    fn identity(&self) -> QueueIdentity;

    /// The name of this store, unlike that of any other.
    fn name(&self) -> String;

    /// Their state.
    fn status(&self) -> StoreStatus;

    /// Up to where the partition is applied; `None` if it is not one of ours. What it says can be
    /// read from any source that is made afterwards.
    fn applied(&self, partition: PartitionId) -> Option<Offset>;

    /// The series of these partitions; `None` if one of them is not ours.
    fn source(&self, partitions: &[PartitionId]) -> Option<Arc<dyn SeriesSource>>;

    /// Blocks until everything up to `position` can be read.
    ///
    /// # Errors
    ///
    /// See [`FreshnessError`].
    fn wait(&self, position: &Position, timeout: Duration) -> Result<(), FreshnessError>;
}
