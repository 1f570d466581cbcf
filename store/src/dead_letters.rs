//! Records of the queue that could not be decoded, kept with reason and origin. Format:
//! `docs/formats/wal.md`, section "Dead letters".
//!
//! Invariants:
//! - A letter is durable before the applied offset moves past its record.
//! - Letters stand in order of their offsets, each once: the WAL is replayed after a crash, and a
//!   record at or below the last letter's offset is already here.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use millrace_log::fs::Fs;
use millrace_log::planted::active;
use millrace_log::{Log, LogError, LogOptions, LogReader, Lsn, NewRecord};
use millrace_model::{Offset, TimestampMs, read_varint, write_varint};
use millrace_queue::Record;

use crate::error::StoreError;
use crate::planted::{DEAD_LETTER_TWICE, DEAD_LETTER_UNSYNCED};
use crate::wal::max_record_bytes;

const KIND_LETTER: u8 = 1;
const FIXED_BYTES: usize = 17;
/// Letters are rare and may be large; one segment holds a handful of the largest.
const SEGMENT_BYTES: u64 = 64 << 20;

/// A record that was not applied, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Where it stands in the queue.
    pub origin: Offset,
    /// When the queue took it.
    pub appended_at: TimestampMs,
    /// What is wrong with it.
    pub reason: String,
    /// Its bytes.
    pub payload: Bytes,
}

/// The dead letters of one shard.
#[derive(Debug)]
pub(crate) struct DeadLetters {
    log: Log,
    /// Behind the last letter's record.
    next: Offset,
}

impl DeadLetters {
    pub(crate) fn open(fs: &Arc<dyn Fs>, dir: PathBuf) -> Result<Self, StoreError> {
        let options = LogOptions {
            segment_bytes: SEGMENT_BYTES,
            max_record_bytes: max_record_bytes(),
            ..LogOptions::default()
        };
        let (log, _) = Log::open(Arc::clone(fs), &dir, options, Lsn(0)).map_err(log_error)?;
        let next = match log.next_lsn().0.checked_sub(1) {
            Some(last) if last >= log.first_lsn().0 => {
                let mut records = Vec::new();
                let reader = log.reader();
                reader.read(Lsn(last), 1, &mut records).map_err(log_error)?;
                let letter = records
                    .first()
                    .map(|r| decode(r.lsn.0, &r.payload))
                    .transpose()?;
                letter.map_or(Offset::ZERO, |letter| letter.origin.advanced(1))
            }
            _ => Offset::ZERO,
        };
        Ok(Self { log, next })
    }

    /// Keeps `record`, durably. Whether it was new.
    pub(crate) fn keep(&mut self, record: &Record, reason: &str) -> Result<bool, StoreError> {
        if record.offset < self.next && !active(DEAD_LETTER_TWICE) {
            return Ok(false);
        }
        let head = encode_head(record, reason);
        let letter = NewRecord {
            time: record.appended_at,
            parts: &[&head, &record.payload],
        };
        self.log.append(&[letter]).map_err(log_error)?;
        if !active(DEAD_LETTER_UNSYNCED) {
            // IMPORTANT: once W has passed the record, this is the only place that has it.
            self.log.sync().map_err(log_error)?;
        }
        self.next = record.offset.advanced(1);
        Ok(true)
    }

    pub(crate) fn reader(&self) -> DeadLetterReader {
        DeadLetterReader {
            reader: self.log.reader(),
        }
    }
}

/// Reads dead letters, while the shard runs.
#[derive(Clone, Debug)]
pub struct DeadLetterReader {
    reader: LogReader,
}

impl DeadLetterReader {
    /// All letters there are, oldest first.
    ///
    /// # Errors
    ///
    /// Letters that are damaged, or cannot be read.
    pub fn read_all(&self) -> Result<Vec<DeadLetter>, StoreError> {
        let mut letters = Vec::new();
        let mut next = self.reader.first_lsn();
        while next < self.reader.synced_lsn() {
            let mut records = Vec::new();
            next = self
                .reader
                .read(next, 4 << 20, &mut records)
                .map_err(log_error)?;
            for record in records {
                letters.push(decode(record.lsn.0, &record.payload)?);
            }
        }
        Ok(letters)
    }
}

pub(crate) fn encode_head(record: &Record, reason: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(FIXED_BYTES + 10 + reason.len());
    out.push(KIND_LETTER);
    out.extend_from_slice(&record.offset.0.to_le_bytes());
    out.extend_from_slice(&record.appended_at.0.to_le_bytes());
    write_varint(&mut out, reason.len() as u64);
    out.extend_from_slice(reason.as_bytes());
    out
}

pub(crate) fn decode(lsn: u64, payload: &Bytes) -> Result<DeadLetter, StoreError> {
    let parse = || -> Option<DeadLetter> {
        let fixed = payload.get(..FIXED_BYTES)?;
        (fixed[0] == KIND_LETTER).then_some(())?;
        let mut pos = FIXED_BYTES;
        let len = usize::try_from(read_varint(payload, &mut pos)?).ok()?;
        let end = pos.checked_add(len)?;
        let reason = std::str::from_utf8(payload.get(pos..end)?).ok()?;
        Some(DeadLetter {
            origin: Offset(u64::from_le_bytes(fixed[1..9].try_into().ok()?)),
            appended_at: TimestampMs(i64::from_le_bytes(fixed[9..17].try_into().ok()?)),
            reason: reason.to_owned(),
            payload: payload.slice(end..),
        })
    };
    parse().ok_or(StoreError::Frame {
        log: "dead letters",
        lsn,
        bytes: payload.len(),
        kind: payload.first().copied().unwrap_or(0),
    })
}

fn log_error(source: LogError) -> StoreError {
    StoreError::Log {
        what: "dead letters",
        source,
    }
}

#[cfg(test)]
mod tests {
    use millrace_log::fs::sim::SimFs;

    use super::*;

    fn record() -> Record {
        Record {
            offset: Offset(41),
            appended_at: TimestampMs(1_795_233_600_000),
            payload: Bytes::from_static(b"no batch"),
        }
    }

    #[test]
    fn a_letter_is_kept_once() {
        let fs: Arc<dyn Fs> = Arc::new(SimFs::new());
        let open = || DeadLetters::open(&fs, "dlq".into()).unwrap();
        assert!(open().keep(&record(), "why").unwrap());
        assert!(!open().keep(&record(), "why").unwrap());
        let letters = open().reader().read_all().unwrap();
        let expect = DeadLetter {
            origin: Offset(41),
            appended_at: TimestampMs(1_795_233_600_000),
            reason: "why".into(),
            payload: record().payload,
        };
        assert_eq!(letters, [expect]);
    }

    #[test]
    fn golden_letter_is_reproduced_read_and_shown() {
        let stored = include_bytes!("../testdata/dead-letter-v1.bin");
        let golden = [&encode_head(&record(), "not a batch")[..], b"no batch"].concat();
        assert_eq!(golden, stored, "format changed: take a new kind");
        let letter = decode(0, &Bytes::from_static(stored)).unwrap();
        assert_eq!(letter.reason, "not a batch");
        crate::testing::check_page(include_str!("../../docs/formats/wal.md"), stored);
    }

    #[test]
    fn foreign_letters_are_refused() {
        let good = [&encode_head(&record(), "not a batch")[..], b"no batch"].concat();
        for cut in 0..FIXED_BYTES + 12 {
            assert!(
                decode(0, &Bytes::copy_from_slice(&good[..cut])).is_err(),
                "{cut}"
            );
        }
    }
}
