//! What stores and query processes say to each other. Format: `docs/formats/fleet.md`.
//!
//! Invariants:
//! - Every decoder here is total: any bytes end in a value or a [`WireError`], and no count is
//!   believed before it was compared with the bytes that are left.
//! - A stream that does not end with the end frame, with the counts of that frame, is an error.

pub mod columns;
pub mod frame;
pub mod items;
pub mod messages;
pub mod series;

use millrace_model::read_varint;

/// Version of the protocol; it stands in the path and in each stream's first frame.
pub const VERSION: u8 = 1;

/// Why bytes are no message of this protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The bytes end inside of something.
    #[error("cut short in {what}")]
    Short {
        /// Where.
        what: &'static str,
    },
    /// A frame's checksum is not that of its bytes.
    #[error("a frame's checksum is {found:#010x}, it says {stored:#010x}")]
    Checksum {
        /// Of the bytes.
        found: u32,
        /// As it came.
        stored: u32,
    },
    /// A frame is longer than any may be.
    #[error("a frame of {bytes} bytes, the limit is {limit}")]
    FrameTooLong {
        /// As it says.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
    /// The other side speaks another version.
    #[error("protocol version {found}, this program speaks {supported}")]
    Version {
        /// Theirs.
        found: u8,
        /// Ours.
        supported: u8,
    },
    /// A value that may not stand where it does.
    #[error("{what} is not valid")]
    Invalid {
        /// What.
        what: &'static str,
    },
    /// The end frame counts other things than have come.
    #[error("the end frame counts {told} {what}, {came} have come")]
    Count {
        /// What is counted.
        what: &'static str,
        /// As the end frame says.
        told: u64,
        /// As was received.
        came: u64,
    },
}

/// Bytes that are read front to back.
#[derive(Clone, Debug)]
pub(crate) struct Input<'a> {
    bytes: &'a [u8],
    pos: usize,
}

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, pos: 0 }
    }

    pub(crate) fn at(bytes: &'a [u8], pos: usize) -> Self {
        Self { bytes, pos }
    }

    pub(crate) fn pos(&self) -> usize {
        self.pos
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pos >= self.bytes.len()
    }

    pub(crate) fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], WireError> {
        let end = self.pos.checked_add(len);
        let taken = end.and_then(|end| self.bytes.get(self.pos..end));
        let taken = taken.ok_or(WireError::Short { what })?;
        self.pos += len;
        Ok(taken)
    }

    pub(crate) fn u8(&mut self, what: &'static str) -> Result<u8, WireError> {
        self.take(1, what).map(|byte| byte[0])
    }

    pub(crate) fn array<const N: usize>(
        &mut self,
        what: &'static str,
    ) -> Result<[u8; N], WireError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N, what)?);
        Ok(array)
    }

    pub(crate) fn varint(&mut self, what: &'static str) -> Result<u64, WireError> {
        read_varint(self.bytes, &mut self.pos).ok_or(WireError::Short { what })
    }

    pub(crate) fn zigzag(&mut self, what: &'static str) -> Result<i64, WireError> {
        self.varint(what).map(millrace_model::unzigzag)
    }

    /// A number that must fit the narrower type.
    pub(crate) fn number<T: TryFrom<u64>>(&mut self, what: &'static str) -> Result<T, WireError> {
        T::try_from(self.varint(what)?).map_err(|_| WireError::Invalid { what })
    }

    /// Bytes behind their length.
    pub(crate) fn counted(&mut self, what: &'static str) -> Result<&'a [u8], WireError> {
        let len = self.number(what)?;
        self.take(len, what)
    }

    pub(crate) fn text(&mut self, what: &'static str) -> Result<&'a str, WireError> {
        std::str::from_utf8(self.counted(what)?).map_err(|_| WireError::Invalid { what })
    }
}
