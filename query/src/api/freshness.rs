//! How fresh the data are.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use millrace_model::{Offset, PartitionId};

use crate::ReadPoint;

/// Knows what has been applied. The server implements it on the store; positions are opaque here.
pub trait Freshness: Send + Sync + fmt::Debug {
    /// Blocks until everything up to `position` (the text of a `Millrace-Position` header) can be
    /// read. With a `timeout` of zero it only looks, and does not block.
    ///
    /// # Errors
    ///
    /// See [`FreshnessError`].
    fn wait(&self, position: &str, timeout: Duration) -> Result<(), FreshnessError>;

    /// A position up to which everything can be read now, or `None` where there is no such thing.
    /// Never goes backwards.
    fn as_of(&self) -> Option<String>;

    /// For each partition of the queue the offset below which everything can be read now. Empty
    /// where there is no such thing.
    fn partitions(&self) -> BTreeMap<PartitionId, Offset> {
        BTreeMap::new()
    }

    /// The position up to which the reads of one request included everything; `None` where the
    /// source does not say so, and [`as_of`](Self::as_of) before the reads stands for it.
    fn included(&self, point: &ReadPoint) -> Option<String> {
        let _ = point;
        None
    }
}

/// Why a position cannot be read after.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FreshnessError {
    /// The text is no position of this queue (400).
    #[error("invalid Millrace-Read-After: {reason}")]
    Malformed {
        /// What is wrong with it.
        reason: String,
    },
    /// Not applied within the timeout (503, try again).
    #[error("position not applied within {waited:?}: {reason}")]
    NotReached {
        /// How long it was waited for.
        waited: Duration,
        /// How far the data are.
        reason: String,
    },
    /// The store stops, or has stopped (503, try again).
    #[error("store not ready: {reason}")]
    NotReady {
        /// Why.
        reason: String,
    },
}

/// For sources that change under nobody's eyes, such as a table in a test or a sealed archive: all
/// there is can be read, and there are no positions.
#[derive(Clone, Copy, Debug, Default)]
pub struct AlwaysFresh;

impl Freshness for AlwaysFresh {
    fn wait(&self, _position: &str, _timeout: Duration) -> Result<(), FreshnessError> {
        Err(FreshnessError::Malformed {
            reason: "this server has no queue whose positions it could know".to_owned(),
        })
    }

    fn as_of(&self) -> Option<String> {
        None
    }
}
