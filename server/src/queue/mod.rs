//! The queue as the server sees it, whichever it is: opened, watched, closed.
//!
//! **Invariants:**
//! - a queue that gives less durability than is asked is refused at the start, with the setting that
//!   is short; one that is only away is waited for, and `/-/ready` says so;
//! - everything here may block, and is called from threads that may.

mod embedded;
#[cfg(feature = "kafka")]
pub mod kafka;
mod report;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use millrace_log::fs::Fs;
use millrace_model::{Offset, PartitionId, TimestampMs};
use millrace_queue::{Consumer, HeldQueue, Producer, QueueIdentity, RecordSource};
use millrace_store::Store;

use crate::app::App;
use crate::config::Config;
use crate::config::kind::QueueBackend;
use crate::failure::Failure;
use crate::letters::{Letters, Standing};

pub use report::{DurabilityMetrics, DurabilityReport, status as durability};
#[cfg(feature = "kafka")]
use report::{LettersFacts, Short, TopicFacts};

/// What a partition holds: the oldest record, and the offset that the next one will have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The oldest record.
    pub first: Offset,
    /// Behind the newest.
    pub end: Offset,
}

/// An open queue.
pub trait Queue: Send + Sync + fmt::Debug {
    /// What queue this is.
    fn identity(&self) -> &QueueIdentity;

    /// The writing side, a new one with each call; one per process is enough.
    ///
    /// # Errors
    ///
    /// If there cannot be one.
    fn producer(&self) -> Result<Arc<dyn Producer>, Failure>;

    /// The reading side of one partition, which was not told yet where to begin. Asks nobody.
    ///
    /// # Errors
    ///
    /// If there cannot be one.
    fn reader(&self, partition: PartitionId) -> Result<Box<dyn Consumer>, Failure>;

    /// The queue for those who look at its records.
    fn records(&self) -> Arc<dyn RecordSource>;

    /// What these partitions hold.
    ///
    /// # Errors
    ///
    /// In words, why the queue does not tell.
    fn bounds(&self, partitions: &[PartitionId]) -> Result<BTreeMap<PartitionId, Bounds>, String>;

    /// Whether [`bounds`](Self::bounds) asks somebody far away.
    fn is_remote(&self) -> bool;

    /// What an acknowledged append survives, and what that is made of: as it was last looked at.
    fn durability(&self) -> DurabilityReport;

    /// Looks again at what durability is made of, where others may change it.
    ///
    /// # Errors
    ///
    /// In words, why it could not be looked at.
    fn look_again(&self) -> Result<(), String>;

    /// Why appends of this process fail at present, in words.
    fn trouble(&self) -> Option<String>;

    /// Lets the queue forget what it may, where that is our business.
    ///
    /// # Errors
    ///
    /// In words, what could not be removed.
    fn retain(&self, now: TimestampMs) -> Result<(), String>;

    /// Where the dead letters of this queue are looked after, if not in each store's own directory.
    fn letters(&self) -> Option<Arc<dyn Letters>>;

    /// From now on brings the dead letters of the store's directory there.
    ///
    /// # Errors
    ///
    /// If it cannot begin.
    fn forward_letters(&self, store: &Store, app: &App) -> Result<(), Failure>;

    /// How far that is.
    fn letters_standing(&self) -> Standing;

    /// Runs `first`, and then takes hold of what the queue has, if it is kept in the data directory. In
    /// between it forgets nothing.
    ///
    /// # Errors
    ///
    /// In words, what cannot be read.
    fn hold_behind(&self, first: &mut dyn FnMut()) -> Result<Option<HeldQueue>, String>;

    /// Takes no more appends, and ends the consumers.
    fn close(&self);
}

/// Opens the configured queue. Waits for brokers that are away.
///
/// # Errors
///
/// A queue that is damaged, or that is not what the configuration asks for.
pub fn open(app: &App, fs: &Arc<dyn Fs>, config: &Config) -> Result<Arc<dyn Queue>, Failure> {
    match config.queue.backend {
        QueueBackend::Embedded => embedded::open(app, fs, config),
        #[cfg(feature = "kafka")]
        QueueBackend::Kafka => kafka::open(app, &**fs, config),
        #[cfg(not(feature = "kafka"))]
        QueueBackend::Kafka => Err(Failure::Data(
            "this millrace was built without Kafka".to_owned(),
        )),
    }
}
