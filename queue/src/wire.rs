//! Records of a partition as one process sends them to another: `docs/formats/records.md`.
//!
//! Invariants: every byte is covered by a checksum; a page that was cut short is an error, never
//! fewer records; no count is believed before it was compared with the bytes that are left.

use bytes::Bytes;
use millrace_model::{Offset, TimestampMs};

use crate::traits::Record;

/// A page's first bytes.
const MAGIC: [u8; 4] = *b"MRRP";
const VERSION: u8 = 1;
const HEADER_BYTES: usize = 32;
const RECORD_HEADER_BYTES: usize = 24;

/// Some records of one partition, and where it ends.
#[derive(Clone, Debug)]
pub struct RecordPage {
    /// In order of their offsets.
    pub records: Vec<Record>,
    /// Where to read on.
    pub next: Offset,
    /// The offset behind the partition's newest record.
    pub end: Offset,
}

/// Why bytes are no page of records.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// Fewer bytes than there should be.
    #[error("page of records is cut short at byte {at}")]
    Truncated {
        /// Where more was expected.
        at: usize,
    },
    /// Something else, or another version of it.
    #[error("not a page of records of version {VERSION}")]
    Foreign,
    /// Not what was sent.
    #[error("page of records at byte {at}: crc32c {got:#010x}, stored {stored:#010x}")]
    Checksum {
        /// Where the checked bytes begin.
        at: usize,
        /// Computed.
        got: u32,
        /// Read.
        stored: u32,
    },
    /// Bytes behind the last record.
    #[error("{bytes} bytes behind the last record of a page")]
    Trailing {
        /// How many.
        bytes: usize,
    },
}

impl RecordPage {
    /// The page as bytes.
    ///
    /// # Panics
    ///
    /// If there are more than 2^32 records, or a record is longer than 4 GiB; no queue has such.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let payloads: usize = self.records.iter().map(|r| r.payload.len()).sum();
        let mut out =
            Vec::with_capacity(HEADER_BYTES + payloads + self.records.len() * RECORD_HEADER_BYTES);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[VERSION, 0, 0, 0]);
        let count = u32::try_from(self.records.len()).expect("fewer than 2^32 records in a page");
        out.extend_from_slice(&count.to_le_bytes());
        out.extend_from_slice(&self.next.0.to_le_bytes());
        out.extend_from_slice(&self.end.0.to_le_bytes());
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        for record in &self.records {
            let from = out.len();
            out.extend_from_slice(&record.offset.0.to_le_bytes());
            out.extend_from_slice(&record.appended_at.0.to_le_bytes());
            let len = u32::try_from(record.payload.len()).expect("records are shorter than 4 GiB");
            out.extend_from_slice(&len.to_le_bytes());
            let crc = crc32c::crc32c_append(crc32c::crc32c(&out[from..]), &record.payload);
            out.extend_from_slice(&crc.to_le_bytes());
            out.extend_from_slice(&record.payload);
        }
        out
    }

    /// Reads a page. The records share its memory.
    ///
    /// # Errors
    ///
    /// See [`PageError`].
    pub fn decode(page: &Bytes) -> Result<Self, PageError> {
        let header = page
            .get(..HEADER_BYTES)
            .ok_or(PageError::Truncated { at: page.len() })?;
        if header[..4] != MAGIC || header[4..8] != [VERSION, 0, 0, 0] {
            return Err(PageError::Foreign);
        }
        check(0, crc32c::crc32c(&header[..28]), word32(header, 28))?;
        let count = word32(header, 8);
        let mut records = Vec::new();
        let mut at = HEADER_BYTES;
        for _ in 0..count {
            let truncated = PageError::Truncated { at };
            let head = page.get(at..at + RECORD_HEADER_BYTES);
            let head = head.ok_or(truncated.clone())?;
            let start = at + RECORD_HEADER_BYTES;
            let len = word32(head, 16) as usize;
            let end = start.checked_add(len).ok_or(truncated.clone())?;
            let payload = page.get(start..end).ok_or(truncated)?;
            let crc = crc32c::crc32c_append(crc32c::crc32c(&head[..20]), payload);
            check(at, crc, word32(head, 20))?;
            records.push(Record {
                offset: Offset(word64(head, 0)),
                appended_at: TimestampMs(word64(head, 8).cast_signed()),
                payload: page.slice(start..end),
            });
            at = end;
        }
        if at != page.len() {
            return Err(PageError::Trailing {
                bytes: page.len() - at,
            });
        }
        Ok(Self {
            records,
            next: Offset(word64(header, 12)),
            end: Offset(word64(header, 20)),
        })
    }
}

fn check(at: usize, got: u32, stored: u32) -> Result<(), PageError> {
    if got == stored {
        Ok(())
    } else {
        Err(PageError::Checksum { at, got, stored })
    }
}

fn word32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(
        bytes[at..at + 4]
            .try_into()
            .expect("four bytes of a header"),
    )
}

fn word64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(
        bytes[at..at + 8]
            .try_into()
            .expect("eight bytes of a header"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> RecordPage {
        let record = |offset, time, payload: &'static [u8]| Record {
            offset: Offset(offset),
            appended_at: TimestampMs(time),
            payload: Bytes::from_static(payload),
        };
        RecordPage {
            records: vec![
                record(7, -1, b"seven"),
                record(9, 1_700_000_000_000, b""),
                record(u64::MAX - 1, i64::MAX, b"\0\xff"),
            ],
            next: Offset(u64::MAX),
            end: Offset(u64::MAX),
        }
    }

    fn golden() -> &'static [u8] {
        include_bytes!("../testdata/records-v1")
    }

    #[test]
    fn the_golden_page_is_what_is_written_and_reads_back() {
        assert_eq!(page().encode(), golden());
        let read = RecordPage::decode(&Bytes::from_static(golden())).unwrap();
        assert_eq!((read.next, read.end), (Offset(u64::MAX), Offset(u64::MAX)));
        let flat = |page: &RecordPage| -> Vec<_> {
            let records = page.records.iter();
            records
                .map(|r| (r.offset, r.appended_at, r.payload.clone()))
                .collect()
        };
        assert_eq!(flat(&read), flat(&page()));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_an_error() {
        for bit in 0..golden().len() * 8 {
            let mut bytes = golden().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(RecordPage::decode(&bytes.into()).is_err(), "bit {bit}");
        }
        for len in 0..golden().len() {
            let cut = Bytes::copy_from_slice(&golden()[..len]);
            assert!(RecordPage::decode(&cut).is_err(), "{len} bytes");
        }
        let mut longer = golden().to_vec();
        longer.push(0);
        let error = RecordPage::decode(&longer.into()).unwrap_err();
        assert_eq!(error, PageError::Trailing { bytes: 1 });
    }
}
