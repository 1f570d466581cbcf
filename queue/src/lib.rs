//! The queue between ingest and store: what both sides may rely on, and the embedded backend.
//!
//! A queue has a fixed number of partitions. A record of a partition is one batch
//! (`docs/formats/batch.md`) and has an offset; offsets grow, and may leave gaps. Whoever appends
//! is told when the record is durable; whoever consumes keeps the position, not the queue.
//!
//! - [`Producer`] and [`Consumer`] are what a backend gives; [`EmbeddedQueue`] is one, on the
//!   segmented log of `millrace-log`, with its directory described in `docs/formats/queue.md`.
//! - `kafka`, behind the feature of that name, is the other: one topic of Apache Kafka.
//! - [`Appender`] stands before a producer and joins what concurrent requests submit into few
//!   large appends (group commit), within a bound in bytes. Tenants take turns in it
//!   ([`FairQueue`]).
//!
//! **Invariants:**
//! - An append is acknowledged only after it is durable; a partition whose disk failed takes no
//!   more appends until a restart.
//! - Retention removes whole segments, and never one that holds a record which the store has not
//!   released.
//! - This crate knows no runtime. What waits, waits on a condition or is a plain
//!   [`Future`].

mod address;
mod appender;
mod dead_letter;
mod embedded;
mod error;
mod fair;
#[cfg(feature = "kafka")]
pub mod kafka;
mod look;
mod metrics;
pub mod planted;
mod resume;
mod traits;
pub mod wire;

pub use address::is_address;
pub use appender::{Appender, AppenderOptions, PendingAppend, SubmitError};
pub use dead_letter::{DeadLetter, LetterEntry, LetterError, LetterHead, Origin, OriginError};
pub use embedded::{EmbeddedOptions, EmbeddedQueue, HeldPartition, HeldQueue, MAX_PARTITIONS};
pub use error::{IdentityDamage, QueueError};
pub use fair::FairQueue;
pub use look::RecordSource;
pub use resume::ResumePoint;
pub use traits::{
    AppendDone, AppendError, ConsumeError, Consumer, Durability, Fingerprint, Position,
    PositionError, Producer, QueueIdentity, Record,
};
