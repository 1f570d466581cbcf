//! Materialized views: derived from the samples that are in blocks, kept in files of their own, and
//! computed on the fly where a file does not have the last word.
//!
//! ```text
//! blocks ──derive──→ sheets (rows of a day) ─→ cover (what is derived, from what) ─┐
//! blocks, memtables ───────────── fold what is not covered ────────────────────────┴→ read
//! ```
//!
//! No sample marks anything as it is applied. What a piece of a view was derived from is written down
//! beside it: the last seal of any block that was there ([`Segment::sequence`]), and the deletes that
//! were applied. A bucket holds for true as long as no block of a later seal, no memtable and no other
//! delete reaches into its time. So the mark that a bucket is touched *is* the data: the WAL's records
//! in the memtable, and then the block that the manifest's edit lists, with its first and last time.
//!
//! Invariants:
//! - A cover names only seals whose blocks the manifest had, durably, when it was written. Compaction
//!   changes blocks and not what they hold, so it touches nothing.
//! - A bucket depends on the samples alone (`millrace_views`): derived or computed on the fly, it is the
//!   same to the bit.
//! - Sheets are durable before the cover that names them; what no cover names is removed by the next
//!   open. A cover is replaced whole, by a rename.
//! - A sheet is removed when no reader holds a cover that names it.
//! - Where retention lets samples go, buckets are derived and *frozen* before: they stay as they are,
//!   and no later sample changes them.
//!
//! Format: `docs/formats/views.md`.

mod cover;
mod derive;
mod fold;
mod freeze;
mod list;
mod read;
mod sheet;
mod shelf;
mod stale;
mod status;
mod tend;
#[cfg(test)]
mod tests;

pub(crate) use cover::{Cover, SheetEntry, decode as decode_cover};
pub(crate) use list::decode as decode_list;
pub use list::{ViewListError, Views};
pub use read::{ViewBucket, ViewRead, ViewSeries};
pub(crate) use sheet::verify as verify_sheet;
pub(crate) use shelf::Shelf;
pub use status::ViewStatus;
pub(crate) use tend::Tender;
