//! The bugs of this crate that tests plant, see [`millrace_log::planted`].

use millrace_log::planted::Bug;

/// An append is acknowledged after the write and before the sync.
pub const ACK_BEFORE_SYNC: Bug = Bug("queue: acknowledged before sync");
/// Retention goes by age and size alone.
pub const RETENTION_PASSES_RELEASE: Bug = Bug("queue: retention passes the released offset");
/// The identity file is written without being synced, nor is its name.
pub const IDENTITY_NOT_SYNCED: Bug = Bug("queue: identity not synced");
/// A new identity is made up where the old one is missing, whatever the partitions hold.
pub const IDENTITY_MADE_UP: Bug = Bug("queue: lost identity replaced by a new one");
/// The bound on pending bytes is looked at, but what is submitted is not added to it.
pub const PENDING_NOT_COUNTED: Bug = Bug("queue: pending bytes not counted");
/// A reader goes on without looking whether the record before its position is the one it read.
pub const FINGERPRINT_UNCHECKED: Bug = Bug("queue: fingerprint of the last record not compared");
