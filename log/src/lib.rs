//! A segmented append-only log with checksums. It serves the embedded queue and the store's WAL.
//!
//! **Invariants:** this crate is synchronous and knows no series, no tenant and no runtime. All
//! file access goes through [`fs::Fs`]. The bytes on disk are described in
//! `docs/formats/log.md`, which also holds the recovery table.

mod clock;
mod error;
mod examine;
mod format;
pub mod fs;
mod held;
mod index;
mod log;
mod paths;
pub mod planted;
mod reader;
mod record;
mod recovery;
mod scan;
mod segment;

pub use clock::SystemClock;
pub use error::{Damage, LogError};
pub use examine::{Examined, ExaminedSegment, examine};
pub use held::HeldSegment;
pub use log::{Log, LogOptions};
pub use reader::LogReader;
pub use record::{LogRecord, Lsn, NewRecord};
pub use recovery::Recovery;
pub use segment::SegmentInfo;
