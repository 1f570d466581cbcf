//! The control topic: what the processes around one topic tell one another, in a compacted topic
//! beside it (`<topic>.control`, one partition). Format: `docs/formats/control.md`.
//!
//! - **Claims** say what the queue is: the topic's id, its partitions and the shard key. The first
//!   process writes one; a process that finds another queue than the claim's, or was configured
//!   otherwise, is refused.
//! - **Announcements** say where stores are. Each is repeated; one that is not repeated within its
//!   time of life is forgotten by whoever reads. That time is measured while the topic can be read,
//!   so that nobody is forgotten because the brokers are away.
//!
//! **Invariants:**
//! - Of several claims the earliest in the topic holds. Each has a key of its own, so compaction
//!   keeps all of them until they are taken back, and whoever reads the topic from its beginning
//!   finds the same one: also of processes that start at the same moment only one wins.
//! - A claim that cannot be read is an error; an announcement that cannot be read is passed over.

mod claim;
mod follow;
mod records;
mod table;
mod topic;
mod writer;

pub use claim::Mismatch;
pub use follow::ControlFollower;
pub use records::Announcement;
pub use topic::ControlTopic;
pub use writer::Announcer;

/// The name of the control topic of a topic.
#[must_use]
pub fn control_topic(topic: &str) -> String {
    format!("{topic}.control")
}
