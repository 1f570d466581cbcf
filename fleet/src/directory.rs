//! Where stores are.

use std::collections::BTreeSet;
use std::fmt;

use millrace_queue::QueueIdentity;

/// Knows the stores that there may be.
pub trait Directory: Send + Sync + fmt::Debug {
    /// Their addresses as `host:port`. Asked before each round of polls; does not block.
    fn stores(&self) -> BTreeSet<String>;

    /// The queue that they must read; `None` for whichever the first one reads.
    fn identity(&self) -> Option<QueueIdentity>;
}

/// A list from the configuration.
#[derive(Clone, Debug)]
pub struct StaticDirectory {
    stores: BTreeSet<String>,
    identity: Option<QueueIdentity>,
}

impl StaticDirectory {
    /// Stores at these addresses, of that queue.
    #[must_use]
    pub fn new(stores: impl IntoIterator<Item = String>, identity: Option<QueueIdentity>) -> Self {
        Self {
            stores: stores.into_iter().collect(),
            identity,
        }
    }
}

impl Directory for StaticDirectory {
    fn stores(&self) -> BTreeSet<String> {
        self.stores.clone()
    }

    fn identity(&self) -> Option<QueueIdentity> {
        self.identity.clone()
    }
}
