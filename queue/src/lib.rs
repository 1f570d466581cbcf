//! The queue between ingest and store: what both sides may rely on, and the embedded backend.
//!
//! A queue has a fixed number of partitions. A record of a partition is one batch
//! (`docs/formats/batch.md`) and has an offset; offsets grow, and may leave gaps. Whoever appends
//! is told when the record is durable; whoever consumes keeps the position, not the queue.

mod traits;

pub use traits::{
    AppendDone, AppendError, ConsumeError, Consumer, Durability, Position, Producer, QueueIdentity,
    Record,
};
