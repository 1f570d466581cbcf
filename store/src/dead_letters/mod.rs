//! Records of the queue that could not be applied, kept with reason and origin. Format:
//! `docs/formats/wal.md`, section "Dead letters".
//!
//! Invariants:
//! - A letter is durable before the applied offset moves past its record.
//! - Each record makes one letter, however often it is delivered: letters are known by their origin,
//!   and while the WAL is replayed everything below the newest letter was dealt with before.
//! - A letter goes only when it is purged, which is durable before anybody is told.

mod codec;

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use millrace_log::fs::Fs;
use millrace_log::planted::active;
use millrace_log::{HeldSegment, Log, LogError, LogOptions, LogReader, Lsn, NewRecord};
use millrace_model::{Offset, PartitionId, QueueId, TimestampMs};
use millrace_queue::{DeadLetter, Origin, Record};
use parking_lot::Mutex;

use crate::error::StoreError;
use crate::paths::ShardDir;
use crate::planted::{DEAD_LETTER_TWICE, DEAD_LETTER_UNSYNCED};
use crate::wal::max_record_bytes;
use codec::{Frame, Purge};

/// Letters are rare and may be large; one segment holds a handful of the largest.
const SEGMENT_BYTES: u64 = 64 << 20;
/// The stretch of time in which letters are counted against the limit.
pub const DEAD_LETTER_WINDOW: Duration = Duration::from_secs(600);
const READ_BYTES: usize = 4 << 20;

/// What became of a record that could not be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    New,
    /// There is a letter of it, or there was one.
    Before,
    /// There were too many in a short time. It is not kept.
    TooMany,
}

/// How a record that cannot be applied is to be dealt with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) now: TimestampMs,
    /// Letters in [`DEAD_LETTER_WINDOW`] at most.
    pub(crate) max: u64,
    /// Whether the WAL is being replayed.
    pub(crate) replaying: bool,
}

/// The dead letters of one shard. The shard adds to it; others read and purge meanwhile.
#[derive(Clone, Debug)]
pub struct DeadLetterBox {
    partition: PartitionId,
    reader: LogReader,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    log: Log,
    letters: BTreeMap<Origin, Lsn>,
    /// The newest letter that was ever kept.
    newest: Option<Origin>,
    /// When letters were kept, those that count.
    recent: VecDeque<TimestampMs>,
}

impl DeadLetterBox {
    /// Opens the dead letters of a shard that no process has open.
    ///
    /// # Errors
    ///
    /// Letters that are damaged, or of a later version; of the file system.
    pub fn open(
        fs: &Arc<dyn Fs>,
        store: &Path,
        partition: PartitionId,
    ) -> Result<Self, StoreError> {
        let dir = ShardDir::new(store, partition).dead_letters();
        Self::open_in(fs, dir, partition)
    }

    /// Opens letters of what ingest refused, which belong to no shard, in a directory of their own.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_rejected(fs: &Arc<dyn Fs>, dir: &Path) -> Result<Self, StoreError> {
        Self::open_in(fs, dir.to_owned(), PartitionId(0))
    }

    /// Keeps a batch that never was in the queue, durably; the next of its kind.
    ///
    /// # Errors
    ///
    /// Of the file system: it may be there after the next open.
    pub fn keep_rejected(
        &self,
        (queue, partition): (QueueId, PartitionId),
        payload: Bytes,
        reason: &str,
        now: TimestampMs,
    ) -> Result<Origin, StoreError> {
        // One lock from finding the next place to taking it.
        let mut inner = self.inner.lock();
        let offset = inner
            .newest
            .map_or(Origin::REJECTED_FROM.0, |newest| newest.offset.0 + 1);
        let origin = Origin {
            queue,
            partition,
            offset: Offset(offset),
        };
        let record = Record {
            offset: origin.offset,
            appended_at: now,
            payload,
        };
        inner.write(origin, &record, reason, now)?;
        Ok(origin)
    }

    pub(crate) fn open_in(
        fs: &Arc<dyn Fs>,
        dir: PathBuf,
        partition: PartitionId,
    ) -> Result<Self, StoreError> {
        let options = LogOptions {
            segment_bytes: SEGMENT_BYTES,
            max_record_bytes: max_record_bytes(),
            ..LogOptions::default()
        };
        let (log, _) = Log::open(Arc::clone(fs), &dir, options, Lsn(0)).map_err(log_error)?;
        let reader = log.reader();
        let mut inner = Inner {
            log,
            letters: BTreeMap::new(),
            newest: None,
            recent: VecDeque::new(),
        };
        frames(&reader, |lsn, frame| inner.note(lsn, frame))?;
        Ok(Self {
            partition,
            reader,
            inner: Arc::new(Mutex::new(inner)),
        })
    }

    /// Whose letters they are.
    #[must_use]
    pub fn partition(&self) -> PartitionId {
        self.partition
    }

    /// Number of letters.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.lock().letters.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the files of the letters take, in bytes. Purged letters count until their segment goes.
    #[must_use]
    pub fn bytes_on_disk(&self) -> u64 {
        let segments = self.inner.lock().log.segments();
        segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Whose letters there are, in no special order.
    #[must_use]
    pub fn origins(&self) -> Vec<Origin> {
        self.inner.lock().letters.keys().copied().collect()
    }

    /// Keeps `record`, durably.
    pub(crate) fn keep(
        &self,
        origin: Origin,
        record: &Record,
        reason: &str,
        terms: Terms,
    ) -> Result<Kept, StoreError> {
        let mut inner = self.inner.lock();
        if inner.kept_before(origin, terms.replaying) && !active(DEAD_LETTER_TWICE) {
            return Ok(Kept::Before);
        }
        if inner.count_recent(terms.now) >= terms.max {
            return Ok(Kept::TooMany);
        }
        inner.write(origin, record, reason, terms.now)?;
        Ok(Kept::New)
    }

    /// Removes the letters of these origins, durably. Returns how many there were.
    ///
    /// # Errors
    ///
    /// Of the file system: the letters are there until the next open, at least.
    pub fn purge(&self, origins: &[Origin], now: TimestampMs) -> Result<usize, StoreError> {
        let mut inner = self.inner.lock();
        let there = origins.iter().filter(|o| inner.letters.contains_key(o));
        let purge = Purge {
            kept_below: inner.newest,
            origins: there.copied().collect(),
        };
        if purge.origins.is_empty() {
            return Ok(0);
        }
        // A segment that holds nothing but what is purged can then go.
        inner.log.roll().map_err(log_error)?;
        let lsn = inner.append(now, &[&codec::encode_purge(&purge)])?;
        inner.log.sync().map_err(log_error)?;
        for origin in &purge.origins {
            inner.letters.remove(origin);
        }
        let oldest = inner.letters.values().min().copied();
        let below = oldest.unwrap_or(lsn);
        inner.log.remove_below(below).map_err(log_error)?;
        Ok(purge.origins.len())
    }

    /// Says, durably, that the letters kept until now are known to somebody: they do not count
    /// towards the limit any more.
    ///
    /// # Errors
    ///
    /// Of the file system.
    pub fn accept(&self, now: TimestampMs) -> Result<(), StoreError> {
        let mut inner = self.inner.lock();
        inner.append(now, &[&codec::encode_pardon(now)])?;
        inner.log.sync().map_err(log_error)?;
        inner.recent.clear();
        Ok(())
    }

    /// What is durable now.
    pub(crate) fn hold(&self) -> Result<Vec<HeldSegment>, StoreError> {
        self.inner.lock().log.hold().map_err(log_error)
    }

    /// All letters there are, oldest first.
    ///
    /// # Errors
    ///
    /// Letters that are damaged, or cannot be read.
    pub fn read_all(&self) -> Result<Vec<DeadLetter>, StoreError> {
        let mut letters = BTreeMap::new();
        let known = self.inner.lock().letters.clone();
        frames(&self.reader, |lsn, frame| {
            if let Frame::Letter(letter) = frame
                && known.get(&letter.origin) == Some(&lsn)
            {
                letters.insert(lsn, letter);
            }
        })?;
        Ok(letters.into_values().collect())
    }

    /// The letter of one record, if there is one.
    ///
    /// # Errors
    ///
    /// As [`read_all`](Self::read_all).
    pub fn read(&self, origin: Origin) -> Result<Option<DeadLetter>, StoreError> {
        let Some(lsn) = self.inner.lock().letters.get(&origin).copied() else {
            return Ok(None);
        };
        let mut records = Vec::new();
        self.reader.read(lsn, 1, &mut records).map_err(log_error)?;
        let record = records.into_iter().next();
        let frame = record.map(|r| decode(r.lsn, &r.payload)).transpose()?;
        Ok(match frame {
            Some(Frame::Letter(letter)) => Some(letter),
            Some(Frame::Purge(_) | Frame::Pardon(_)) | None => None,
        })
    }
}

#[cfg(test)]
impl DeadLetterBox {
    /// The origin of each letter that was ever written and not removed with its segment.
    pub(crate) fn written(&self) -> Result<Vec<Origin>, StoreError> {
        let mut written = Vec::new();
        frames(&self.reader, |_, frame| {
            if let Frame::Letter(letter) = frame {
                written.push(letter.origin);
            }
        })?;
        Ok(written)
    }
}

impl Inner {
    fn note(&mut self, lsn: Lsn, frame: Frame) {
        match frame {
            Frame::Letter(letter) => {
                self.letters.insert(letter.origin, lsn);
                self.newest = Some(letter.origin);
                self.recent.push_back(letter.kept_at);
            }
            Frame::Purge(purge) => {
                for origin in &purge.origins {
                    self.letters.remove(origin);
                }
                self.newest = purge.kept_below;
            }
            Frame::Pardon(_) => self.recent.clear(),
        }
    }

    /// Writes a letter, durably.
    fn write(
        &mut self,
        origin: Origin,
        record: &Record,
        reason: &str,
        now: TimestampMs,
    ) -> Result<(), StoreError> {
        let head = codec::encode_head(origin, (record.appended_at, now), reason);
        let lsn = self.append(now, &[&head, &record.payload])?;
        if !active(DEAD_LETTER_UNSYNCED) {
            // IMPORTANT: once W has passed the record, this is the only place that has it.
            self.log.sync().map_err(log_error)?;
        }
        self.letters.insert(origin, lsn);
        self.newest = Some(origin);
        self.let_go_of_old(now);
        self.recent.push_back(now);
        if !active(DEAD_LETTER_UNSYNCED) {
            self.prove(now)?;
        }
        Ok(())
    }

    fn kept_before(&self, origin: Origin, replaying: bool) -> bool {
        let replayed = self
            .newest
            .is_some_and(|n| n.queue == origin.queue && origin.offset <= n.offset);
        self.letters.contains_key(&origin) || (replaying && replayed)
    }

    /// How many letters count now.
    fn count_recent(&mut self, now: TimestampMs) -> u64 {
        self.let_go_of_old(now);
        self.recent.len() as u64
    }

    fn let_go_of_old(&mut self, now: TimestampMs) {
        let since = now.saturating_sub(DEAD_LETTER_WINDOW);
        while self.recent.front().is_some_and(|kept| *kept < since) {
            self.recent.pop_front();
        }
    }

    /// Proves that the newest letter was synced: a frame behind it says so. Without one, a letter
    /// that is damaged later would pass for a torn tail, and be cut without a word.
    fn prove(&mut self, now: TimestampMs) -> Result<(), StoreError> {
        let nothing = Purge {
            kept_below: self.newest,
            origins: Vec::new(),
        };
        self.append(now, &[&codec::encode_purge(&nothing)])?;
        self.log.sync().map_err(log_error).map(drop)
    }

    fn append(&mut self, time: TimestampMs, parts: &[&[u8]]) -> Result<Lsn, StoreError> {
        let record = NewRecord { time, parts };
        let range = self.log.append(&[record]).map_err(log_error)?;
        Ok(range.start)
    }
}

/// Calls `found` for all frames, oldest first.
fn frames(reader: &LogReader, mut found: impl FnMut(Lsn, Frame)) -> Result<(), StoreError> {
    let mut next = reader.first_lsn();
    while next < reader.synced_lsn() {
        let mut records = Vec::new();
        next = reader
            .read(next, READ_BYTES, &mut records)
            .map_err(log_error)?;
        for record in records {
            found(record.lsn, decode(record.lsn, &record.payload)?);
        }
    }
    Ok(())
}

/// Reads a frame.
///
/// # Errors
///
/// The log's checksum was right around something that is no frame: a later version wrote it.
pub(crate) fn decode(lsn: Lsn, payload: &bytes::Bytes) -> Result<Frame, StoreError> {
    codec::decode(payload).ok_or(StoreError::Frame {
        log: "dead letters",
        lsn: lsn.0,
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
mod tests;
