//! Records and their positions.

use std::fmt;

use bytes::Bytes;
use millrace_model::TimestampMs;

/// A record's position in one log. Records are numbered without holes; the number of the first is
/// given when the log is created. As a watermark it is always the *next* one: all below is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[doc(alias = "offset")]
pub struct Lsn(pub u64);

impl Lsn {
    /// The position of the first record of most logs.
    pub const ZERO: Self = Self(0);

    /// The position `count` records behind this one, or `None` when the 64 bits run out.
    #[must_use]
    pub fn checked_add(self, count: u64) -> Option<Self> {
        self.0.checked_add(count).map(Self)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A record to append.
#[derive(Clone, Copy, Debug)]
pub struct NewRecord<'a> {
    /// When the log took it; what [`LogReader::seek_time`](crate::LogReader::seek_time) looks for.
    pub time: TimestampMs,
    /// The payload in pieces, which are stored joined, so that callers need not copy them together.
    pub parts: &'a [&'a [u8]],
}

impl NewRecord<'_> {
    /// Bytes of the joined payload.
    pub(crate) fn payload_bytes(&self) -> usize {
        self.parts.iter().map(|part| part.len()).sum()
    }
}

/// A record as it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord {
    /// Its position.
    pub lsn: Lsn,
    /// As it was appended.
    pub time: TimestampMs,
    /// As it was appended; a slice of the buffer that one read filled.
    pub payload: Bytes,
}
