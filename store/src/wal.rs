//! The WAL of a shard: the records of the queue as they came, each with its offset in the same
//! checksummed frame. Format: `docs/formats/wal.md`.
//!
//! Invariants:
//! - LSNs count the WAL's own frames and have nothing to do with offsets; the manifest says from
//!   which LSN on the WAL is needed.
//! - The newest segment is never removed, and its header says at which LSN it begins. So a manifest
//!   that has lost the edit for which older segments were removed is found out: the WAL begins
//!   behind what the manifest says is sealed.
//! - What the WAL loses the queue still has, since the queue keeps everything that is not sealed.

use std::sync::Arc;

use bytes::Bytes;
use millrace_log::fs::Fs;
use millrace_log::{HeldSegment, Log, LogError, LogOptions, LogReader, Lsn, NewRecord, planted};
use millrace_model::batch::MAX_BODY_BYTES;
use millrace_model::{Offset, TimestampMs};
use millrace_queue::Record;

use crate::error::{IoContext, StoreError};
use crate::options::StoreOptions;
use crate::paths::{ShardDir, parse_quarantine};
use crate::planted::WAL_OFFSET_TOO_FAR;

/// Bytes of a frame before the batch.
pub(crate) const HEADER_BYTES: usize = 17;
const KIND_BATCH: u8 = 1;
/// How much is read at once on replay.
const REPLAY_BYTES: usize = 4 << 20;

/// A record of the queue, whole, and a little more.
pub(crate) fn max_record_bytes() -> u32 {
    u32::try_from(MAX_BODY_BYTES + (64 << 10)).expect("a batch is far below 4 GiB")
}

/// The open WAL.
#[derive(Debug)]
pub(crate) struct Wal {
    log: Log,
}

impl Wal {
    /// Opens the WAL, which starts at `first` if it is new. A WAL that is damaged, or that ends
    /// before `first` although everything below was synced, is put aside and begun anew: the queue
    /// still has what is not sealed.
    ///
    /// # Errors
    ///
    /// Of the file system.
    pub(crate) fn open(
        fs: &Arc<dyn Fs>,
        dir: &ShardDir,
        options: &StoreOptions,
        first: u64,
    ) -> Result<Self, StoreError> {
        let open = || {
            let options = LogOptions {
                segment_bytes: options.wal_segment_bytes,
                max_record_bytes: max_record_bytes(),
                ..LogOptions::default()
            };
            Log::open(Arc::clone(fs), &dir.wal(), options, Lsn(first))
        };
        let reason = match open() {
            Ok((log, _)) if log.next_lsn().0 >= first => return Ok(Self { log }),
            Ok((log, _)) => format!(
                "ends at LSN {}, and everything below {first} was synced",
                log.next_lsn().0
            ),
            Err(error) if is_damage(&error) => error.to_string(),
            Err(source) => {
                return Err(StoreError::Log {
                    what: "WAL",
                    source,
                });
            }
        };
        tracing::error!(dir = ?dir.wal(), %reason, "WAL damaged: put aside, read again from the queue");
        quarantine(&**fs, dir)?;
        let opened = open().map_err(|source| StoreError::Log {
            what: "WAL",
            source,
        });
        Ok(Self { log: opened?.0 })
    }

    /// Writes records behind one another, in one write. Not synced.
    ///
    /// # Errors
    ///
    /// Of the log, which is then closed for good.
    pub(crate) fn append(&mut self, records: &[&Record]) -> Result<(), StoreError> {
        let headers: Vec<_> = records.iter().map(|r| header(r)).collect();
        let parts: Vec<[&[u8]; 2]> = headers
            .iter()
            .zip(records)
            .map(|(header, record)| [&header[..], &record.payload[..]])
            .collect();
        let frames: Vec<_> = parts
            .iter()
            .zip(records)
            .map(|(parts, record)| NewRecord {
                time: record.appended_at,
                parts,
            })
            .collect();
        self.log.append(&frames).map_err(wal_error).map(drop)
    }

    /// Makes everything written durable.
    ///
    /// # Errors
    ///
    /// Of the log, which is then closed for good.
    pub(crate) fn sync(&mut self) -> Result<(), StoreError> {
        self.log.sync().map_err(wal_error).map(drop)
    }

    /// Whether there is anything to sync.
    pub(crate) fn is_synced(&self) -> bool {
        self.log.synced_lsn() == self.log.next_lsn()
    }

    /// Begins a new segment, so that everything before can be removed. Returns where it begins.
    ///
    /// # Errors
    ///
    /// Of the log, which is then closed for good.
    pub(crate) fn cut(&mut self) -> Result<u64, StoreError> {
        // Syncs: the manifest will say that everything below was there.
        self.log.roll().map_err(wal_error)?;
        Ok(self.log.next_lsn().0)
    }

    /// Removes segments below `lsn`.
    pub(crate) fn remove_below(&mut self, lsn: u64) -> Result<(), StoreError> {
        self.log.remove_below(Lsn(lsn)).map_err(wal_error).map(drop)
    }

    /// What is synced now.
    ///
    /// # Errors
    ///
    /// A segment that cannot be opened.
    pub(crate) fn hold(&self) -> Result<Vec<HeldSegment>, StoreError> {
        self.log.hold().map_err(wal_error)
    }

    pub(crate) fn first_lsn(&self) -> u64 {
        self.log.first_lsn().0
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.log.segments().iter().map(|s| s.bytes).sum()
    }

    /// The frames that are there, from LSN `from` on.
    pub(crate) fn replay(&self, from: u64) -> Replay {
        Replay {
            reader: self.log.reader(),
            next: Lsn(from.max(self.log.first_lsn().0)),
            end: self.log.synced_lsn(),
        }
    }
}

/// Reads a WAL from its beginning to where it ended when it was opened.
#[derive(Debug)]
pub(crate) struct Replay {
    reader: LogReader,
    next: Lsn,
    end: Lsn,
}

impl Replay {
    /// The next records with their LSNs, some megabytes of them; none at the end.
    ///
    /// # Errors
    ///
    /// Of the log; or a frame that breaks the format.
    pub(crate) fn next_records(&mut self, out: &mut Vec<(u64, Record)>) -> Result<(), StoreError> {
        out.clear();
        if self.next >= self.end {
            return Ok(());
        }
        let mut records = Vec::new();
        let read = self.reader.read(self.next, REPLAY_BYTES, &mut records);
        self.next = read.map_err(wal_error)?;
        for record in records {
            out.push((record.lsn.0, decode(record.lsn.0, &record.payload)?));
        }
        Ok(())
    }

    /// How much is behind and how much there is, in frames.
    pub(crate) fn remaining(&self) -> u64 {
        self.end.0.saturating_sub(self.next.0)
    }
}

/// Damage, as opposed to a file system that refuses: to be repaired from the queue.
fn is_damage(error: &LogError) -> bool {
    match error {
        LogError::Corrupt { .. } | LogError::Missing { .. } => true,
        LogError::Io { .. }
        | LogError::Version { .. }
        | LogError::Removed { .. }
        | LogError::BeyondEnd { .. }
        | LogError::RecordTooLarge { .. }
        | LogError::Exhausted { .. } => false,
    }
}

fn wal_error(source: LogError) -> StoreError {
    StoreError::Log {
        what: "WAL",
        source,
    }
}

/// What stands before the batch.
pub(crate) fn header(record: &Record) -> [u8; HEADER_BYTES] {
    let mut offset = record.offset.0;
    if planted::active(WAL_OFFSET_TOO_FAR) {
        offset += 1;
    }
    let mut out = [0; HEADER_BYTES];
    out[0] = KIND_BATCH;
    out[1..9].copy_from_slice(&offset.to_le_bytes());
    out[9..17].copy_from_slice(&record.appended_at.0.to_le_bytes());
    out
}

/// Reads a frame.
///
/// # Errors
///
/// The log's checksum was right around something that is no frame: a later version wrote it.
pub(crate) fn decode(lsn: u64, payload: &Bytes) -> Result<Record, StoreError> {
    let malformed = || StoreError::Frame {
        log: "WAL",
        lsn,
        bytes: payload.len(),
        kind: payload.first().copied().unwrap_or(0),
    };
    let header = payload.get(..HEADER_BYTES).ok_or_else(malformed)?;
    let word = |at: usize| {
        u64::from_le_bytes(
            header[at..at + 8]
                .try_into()
                .expect("eight bytes of a header"),
        )
    };
    if header[0] != KIND_BATCH {
        return Err(malformed());
    }
    Ok(Record {
        offset: Offset(word(1)),
        appended_at: TimestampMs(word(9).cast_signed()),
        payload: payload.slice(HEADER_BYTES..),
    })
}

/// Renames the WAL's directory to the next free quarantine name.
fn quarantine(fs: &dyn Fs, dir: &ShardDir) -> Result<(), StoreError> {
    let entries = fs.list(dir.root()).context("list", dir.root())?;
    let last = entries
        .iter()
        .filter_map(|e| parse_quarantine(&e.name))
        .max();
    let aside = dir.quarantine(last.map_or(0, |n| n + 1));
    fs.rename(&dir.wal(), &aside).context("rename", &aside)?;
    fs.sync_dir(dir.root()).context("sync", dir.root())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use millrace_log::fs::sim::SimFs;
    use millrace_model::PartitionId;

    use super::*;

    fn record(offset: u64) -> Record {
        Record {
            offset: Offset(offset),
            appended_at: TimestampMs(1_795_233_600_000 - offset as i64),
            payload: Bytes::from(format!("batch {offset}")),
        }
    }

    fn open(fs: &SimFs, first: u64) -> Wal {
        let fs: Arc<dyn Fs> = Arc::new(fs.clone());
        let dir = ShardDir::new(Path::new("store"), PartitionId(0));
        Wal::open(&fs, &dir, &StoreOptions::default(), first).unwrap()
    }

    fn content(wal: &Wal, from: u64) -> Vec<(u64, u64)> {
        let mut replay = wal.replay(from);
        let (mut records, mut all) = (Vec::new(), Vec::new());
        loop {
            replay.next_records(&mut records).unwrap();
            if records.is_empty() {
                assert_eq!(replay.remaining(), 0);
                return all;
            }
            all.extend(records.drain(..).map(|(lsn, r)| (lsn, r.offset.0)));
        }
    }

    #[test]
    fn records_come_back_with_offset_time_and_bytes() {
        let fs = SimFs::new();
        let mut wal = open(&fs, 0);
        let records = [record(5), record(6), record(90)];
        wal.append(&records.iter().collect::<Vec<_>>()).unwrap();
        wal.sync().unwrap();
        drop(wal);
        let mut read = Vec::new();
        open(&fs, 0).replay(0).next_records(&mut read).unwrap();
        assert_eq!(read.len(), 3);
        for ((lsn, got), (i, sent)) in read.into_iter().zip(records.iter().enumerate()) {
            assert_eq!(lsn, i as u64);
            assert_eq!(got.offset, sent.offset);
            assert_eq!(got.appended_at, sent.appended_at);
            assert_eq!(got.payload, sent.payload);
        }
    }

    #[test]
    fn behind_a_cut_what_is_before_can_be_removed() {
        let fs = SimFs::new();
        let mut wal = open(&fs, 0);
        wal.append(&[&record(0), &record(1)]).unwrap();
        let cut = wal.cut().unwrap();
        assert!(wal.is_synced());
        wal.append(&[&record(2)]).unwrap();
        wal.remove_below(cut).unwrap();
        wal.sync().unwrap();
        assert_eq!((cut, wal.first_lsn()), (2, 2));
        assert_eq!(content(&open(&fs, 2), 2), [(2, 2)]);
    }

    #[test]
    fn a_wal_that_ends_before_what_was_synced_is_put_aside() {
        let fs = SimFs::new();
        let mut wal = open(&fs, 0);
        wal.append(&[&record(0)]).unwrap();
        wal.sync().unwrap();
        drop(wal);
        let wal = open(&fs, 7);
        assert_eq!((wal.first_lsn(), content(&wal, 0)), (7, Vec::new()));
        assert!(fs.exists(Path::new("store/0/wal.quarantine-0")).unwrap());
    }

    #[test]
    fn foreign_frames_are_refused() {
        for bytes in [&b""[..], &[1; 16], &[2; 40]] {
            let error = decode(3, &Bytes::copy_from_slice(bytes)).unwrap_err();
            assert!(matches!(error, StoreError::Frame { lsn: 3, .. }), "{error}");
        }
    }

    /// The payload that `docs/formats/wal.md` shows byte by byte.
    fn golden() -> Vec<u8> {
        let batch = include_bytes!("../../model/testdata/batch-v1.bin");
        let record = Record {
            payload: Bytes::from_static(batch),
            ..record(41)
        };
        [&header(&record)[..], batch].concat()
    }

    #[test]
    fn golden_frame_is_reproduced_and_read() {
        let stored = include_bytes!("../testdata/wal-frame-v1.bin");
        assert_eq!(golden(), stored, "format changed: take a new kind");
        let record = decode(0, &Bytes::from_static(stored)).unwrap();
        assert_eq!(record.offset, Offset(41));
        assert_eq!(record.appended_at, TimestampMs(1_795_233_599_959));
        assert!(millrace_model::batch::Batch::decode(&record.payload).is_ok());
    }

    #[test]
    fn format_page_shows_the_golden_frame() {
        crate::testing::check_page(
            include_str!("../../docs/formats/wal.md"),
            include_bytes!("../testdata/wal-frame-v1.bin"),
        );
    }
}
