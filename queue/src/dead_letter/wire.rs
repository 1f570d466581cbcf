//! Letters as they travel and stay outside of a store's directory: `docs/formats/dead-letters.md`.
//!
//! Invariants: every byte is covered by the checksum; decoding is total; no length is believed before it
//! was compared with the bytes that are left.

use bytes::Bytes;
use millrace_model::{Offset, PartitionId, QueueId, TimestampMs};

use super::{DeadLetter, Origin};

const MAGIC: [u8; 4] = *b"MRDL";
const VERSION: u8 = 1;
const KIND_LETTER: u8 = 1;
const KIND_PURGE: u8 = 2;
/// Magic, version, kind, reserved.
const CHECKED_HEAD: usize = 8;
/// Head, checksum, origin, one time.
const PURGE_BYTES: usize = CHECKED_HEAD + 4 + 28 + 8;
/// The same, a second time, and the reason's length.
const LETTER_BYTES: usize = PURGE_BYTES + 8 + 4;

/// One entry of a list of dead letters that only grows. A letter is there if it was entered and never
/// purged, in whichever order the two arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LetterEntry {
    /// There is this letter.
    Letter(DeadLetter),
    /// The letter of this origin was dealt with, for good.
    Purge {
        /// Which one.
        origin: Origin,
        /// When.
        at: TimestampMs,
    },
}

/// Why bytes are no entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LetterError {
    /// Fewer bytes than there should be, or more.
    #[error("a dead letter of {bytes} bytes: cut short, or too long")]
    Length {
        /// How many there are.
        bytes: usize,
    },
    /// Something else, or another version of it.
    #[error("no dead letter of version {VERSION}")]
    Foreign,
    /// Not what was written.
    #[error("dead letter: crc32c {got:#010x}, stored {stored:#010x}")]
    Checksum {
        /// Computed.
        got: u32,
        /// Read.
        stored: u32,
    },
    /// The reason is no text.
    #[error("the reason of a dead letter is not UTF-8")]
    Reason,
}

impl LetterEntry {
    /// Whose letter it is about.
    #[must_use]
    pub fn origin(&self) -> Origin {
        match self {
            Self::Letter(letter) => letter.origin,
            Self::Purge { origin, .. } => *origin,
        }
    }

    /// The entry as bytes. A reason beyond 4 GiB is cut.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(LETTER_BYTES);
        out.extend_from_slice(&MAGIC);
        let kind = match self {
            Self::Letter(_) => KIND_LETTER,
            Self::Purge { .. } => KIND_PURGE,
        };
        out.extend_from_slice(&[VERSION, kind, 0, 0]);
        out.extend_from_slice(&[0; 4]);
        let origin = self.origin();
        out.extend_from_slice(&origin.queue.0.to_le_bytes());
        out.extend_from_slice(&origin.partition.0.to_le_bytes());
        out.extend_from_slice(&origin.offset.0.to_le_bytes());
        match self {
            Self::Letter(letter) => {
                let reason = letter.reason.as_bytes();
                let len = u32::try_from(reason.len()).unwrap_or(u32::MAX);
                out.extend_from_slice(&letter.appended_at.0.to_le_bytes());
                out.extend_from_slice(&letter.kept_at.0.to_le_bytes());
                out.extend_from_slice(&len.to_le_bytes());
                out.extend_from_slice(&reason[..len as usize]);
                out.extend_from_slice(&letter.payload);
            }
            Self::Purge { at, .. } => out.extend_from_slice(&at.0.to_le_bytes()),
        }
        let crc = checksum(&out);
        out[CHECKED_HEAD..CHECKED_HEAD + 4].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads an entry. A letter's bytes share the memory of `entry`.
    ///
    /// # Errors
    ///
    /// See [`LetterError`].
    pub fn decode(entry: &Bytes) -> Result<Self, LetterError> {
        let short = LetterError::Length { bytes: entry.len() };
        if entry.len() < PURGE_BYTES {
            return Err(if entry.starts_with(&MAGIC) {
                short
            } else {
                LetterError::Foreign
            });
        }
        if entry[..5] != [b'M', b'R', b'D', b'L', VERSION] || entry[6..8] != [0, 0] {
            return Err(LetterError::Foreign);
        }
        let (got, stored) = (checksum(entry), word32(entry, CHECKED_HEAD));
        if got != stored {
            return Err(LetterError::Checksum { got, stored });
        }
        let origin = Origin {
            queue: QueueId(u128::from(word64(entry, 12)) | u128::from(word64(entry, 20)) << 64),
            partition: PartitionId(word32(entry, 28)),
            offset: Offset(word64(entry, 32)),
        };
        let time = |at| TimestampMs(word64(entry, at).cast_signed());
        match entry[5] {
            KIND_PURGE if entry.len() == PURGE_BYTES => Ok(Self::Purge {
                origin,
                at: time(40),
            }),
            KIND_PURGE => Err(short),
            KIND_LETTER if entry.len() < LETTER_BYTES => Err(short),
            KIND_LETTER => {
                let end = LETTER_BYTES.checked_add(word32(entry, 56) as usize);
                let end = end.filter(|end| *end <= entry.len()).ok_or(short)?;
                let reason = std::str::from_utf8(&entry[LETTER_BYTES..end]);
                Ok(Self::Letter(DeadLetter {
                    origin,
                    appended_at: time(40),
                    kept_at: time(48),
                    reason: reason.map_err(|_| LetterError::Reason)?.to_owned(),
                    payload: entry.slice(end..),
                }))
            }
            _ => Err(LetterError::Foreign),
        }
    }
}

/// Over everything but itself.
fn checksum(entry: &[u8]) -> u32 {
    let head = crc32c::crc32c(&entry[..CHECKED_HEAD]);
    crc32c::crc32c_append(head, &entry[CHECKED_HEAD + 4..])
}

fn word32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes of a head"))
}

fn word64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes of a head"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin() -> Origin {
        Origin {
            queue: QueueId(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
            partition: PartitionId(2),
            offset: Offset(41),
        }
    }

    fn letter() -> LetterEntry {
        LetterEntry::Letter(DeadLetter {
            origin: origin(),
            appended_at: TimestampMs(1_795_233_600_000),
            kept_at: TimestampMs(1_795_233_601_000),
            reason: "not a batch".to_owned(),
            payload: Bytes::from_static(b"no batch"),
        })
    }

    fn purge() -> LetterEntry {
        LetterEntry::Purge {
            origin: origin(),
            at: TimestampMs(1_795_233_602_000),
        }
    }

    fn golden() -> [(LetterEntry, &'static [u8]); 2] {
        [
            (letter(), include_bytes!("../../testdata/letter-v1")),
            (purge(), include_bytes!("../../testdata/letter-purge-v1")),
        ]
    }

    #[test]
    fn golden_entries_are_reproduced_read_and_shown() {
        let page = include_str!("../../../docs/formats/dead-letters.md");
        for (entry, stored) in golden() {
            assert_eq!(entry.encode(), stored, "format changed: take a new version");
            assert_eq!(
                LetterEntry::decode(&Bytes::from_static(stored)),
                Ok(entry.clone())
            );
            for row in stored.chunks(16) {
                let hex: Vec<_> = row.iter().map(|byte| format!("{byte:02x}")).collect();
                let hex = hex.join(" ");
                assert!(page.contains(&hex), "the page lacks the line {hex}");
            }
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_an_error() {
        for (_, stored) in golden() {
            for bit in 0..stored.len() * 8 {
                let mut bytes = stored.to_vec();
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert!(LetterEntry::decode(&bytes.into()).is_err(), "bit {bit}");
            }
            for len in 0..stored.len() {
                let cut = Bytes::copy_from_slice(&stored[..len]);
                assert!(LetterEntry::decode(&cut).is_err(), "{len} bytes");
            }
        }
    }

    #[test]
    fn what_others_wrote_is_foreign() {
        for bytes in [&b""[..], b"hello", &[0; 200]] {
            let read = LetterEntry::decode(&Bytes::copy_from_slice(bytes));
            assert_eq!(read, Err(LetterError::Foreign), "{bytes:?}");
        }
    }
}
