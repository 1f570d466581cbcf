//! The store: what the queue delivers becomes series that can be read by label and time.
//!
//! One partition of the queue is one [`shard::Shard`], with its own WAL, memtable, blocks, manifest
//! and applied offset; [`Store`] opens them all, runs one thread for each and answers reads over
//! all of them.
//!
//! ```text
//! Consumer ─poll→ WAL ─→ memtable ─freeze→ frozen memtable ─seal→ blocks
//!                  │         │                   │                  │
//!                  │         └───── read ────────┴────── read ──────┤
//!                  └─ removed behind the manifest edit ←─ manifest ─┘
//! ```
//!
//! Invariants:
//! - The state is the fold of the queue's records below the applied offset W, in queue order, and W
//!   stands in the same checksummed frame as the data that it covers: WAL record, block, manifest
//!   edit. There is no other place that holds an offset.
//! - A record below W is dropped, whoever delivers it again; a gap above W is legal.
//! - Of two samples of one series and timestamp the one later in the queue is read; one of a record
//!   that was queued again only where no ordinary record wrote it (`layer.rs`).
//! - The engine is synchronous: a test drives a shard step by step on one thread. `runtime.rs` is the
//!   thin wrapper with threads. All files go through [`millrace_log::fs::Fs`], all time through
//!   [`millrace_model::Clock`].
//! - The first failed write or sync stops the shard, and nothing retries it.
//!
//! Formats: `docs/formats/wal.md`, `docs/formats/backup.md`, `docs/formats/manifest.md`, `docs/formats/block.md`, `docs/formats/views.md`.

pub mod backup;
pub mod block;
pub mod chunk;
mod compact;
mod dead_letters;
mod decode;
mod digest;
mod error;
pub mod examine;
#[cfg(test)]
mod golden;
pub mod index;
mod label_order;
mod layer;
mod maintain;
mod manifest;
mod memtable;
mod merge;
mod metrics;
mod missing;
mod newest;
mod options;
mod part;
mod paths;
mod planted;
mod read;
mod retain;
mod retain_bound;
mod runtime;
pub mod shard;
mod sorted;
mod statistics;
mod store;
#[cfg(test)]
mod testing;
mod tombstone;
mod views;
mod wal;
mod whole;

pub use compact::CompactionOptions;
pub use dead_letters::{DEAD_LETTER_WINDOW, DeadLetterBox};
pub use digest::{Digest, Digested};
pub use error::StoreError;
pub use manifest::{Gap, GapCause};
pub use metrics::StoreMetrics;
pub use missing::{Missing, RecordKind};
pub use options::{StoreOptions, WalSync};
pub use part::StorePart;
pub use paths::BlockId;
pub use read::StoreSeries;
pub use retain::{
    RetentionItem, RetentionOptions, RetentionPart, RetentionReason, RetentionReport, RetentionRule,
};
pub use statistics::StoreStatistics;
pub use store::Store;
pub use tombstone::{Tombstone, TombstoneState};
pub use views::{ViewBucket, ViewListError, ViewRead, ViewSeries, ViewStatus, Views};
