//! The writing side of a log.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;

use crate::format::{ALIGN, FrameHeader, Place, SEGMENT_HEADER_BYTES, frame_bytes};
use crate::fs::{Fs, create_dir_durable};
use crate::index::SegmentIndex;
use crate::planted::{self, Bug};
use crate::recovery::{Recovered, recover};
use crate::segment::{self, Active, Segment, SegmentList, Shared};
use crate::{LogError, LogReader, Lsn, NewRecord, Recovery, SegmentInfo};

/// Sizes of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// A segment is closed before an append that would make it longer. A longer append gets a
    /// segment of its own. The default bounds what recovery carries and what retention frees at
    /// once.
    pub segment_bytes: u64,
    /// Distance of the entries of the index in memory (24 bytes each). A read that begins anywhere
    /// passes over at most so many bytes.
    pub index_interval_bytes: u64,
    /// Longest payload of one record.
    pub max_record_bytes: u32,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            index_interval_bytes: 64 << 10,
            max_record_bytes: 64 << 20,
        }
    }
}

/// What the buffer of an append may keep of its memory until the next one.
const BUFFER_KEPT_BYTES: usize = 4 << 20;

/// A log, open for writing. One at a time: whoever owns the directory sees to that.
///
/// [`append`](Self::append) writes, [`sync`](Self::sync) makes everything that was written durable
/// and visible to readers. Group commit is to append for many and sync once. Dropping a log makes
/// nothing durable.
///
/// After a failed write, sync or removal the log is **poisoned**: every later call that would
/// change it returns that error again, and nothing is retried, since a failed sync leaves unknown
/// what the disk holds. Open it anew, from the disk.
#[derive(Debug)]
pub struct Log {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    options: LogOptions,
    shared: Arc<Shared>,
    /// None until something is appended, if recovery made no new segment.
    active: Option<Active>,
    next: Lsn,
    buffer: Vec<u8>,
    poison: Option<LogError>,
    syncs: u64,
}

impl Log {
    /// Opens the log in `dir`, or creates it (and the directory) with `first` as its first record.
    /// For a log that has segments `first` means nothing. Everything that is found is read and
    /// verified, and is durable and visible when this returns.
    ///
    /// # Errors
    ///
    /// - [`LogError::Corrupt`], [`LogError::Missing`]: what was durable once is not what was
    ///   written. Nothing was changed but leftovers removed.
    /// - [`LogError::Version`]: written by a version that this one does not know.
    /// - [`LogError::Io`]: of the file system.
    pub fn open(
        fs: Arc<dyn Fs>,
        dir: &Path,
        options: LogOptions,
        first: Lsn,
    ) -> Result<(Self, Recovery), LogError> {
        create_dir_durable(&*fs, dir).map_err(LogError::io("create directory", dir))?;
        let Recovered {
            segments,
            active,
            next,
            report,
        } = recover(&*fs, dir, &options, first)?;
        let synced = next;
        let log = Self {
            fs,
            dir: dir.to_path_buf(),
            options,
            shared: Arc::new(Shared(RwLock::new(SegmentList { segments, synced }))),
            active,
            next,
            buffer: Vec::new(),
            poison: None,
            syncs: 0,
        };
        Ok((log, report))
    }

    /// Writes `records` at the end, in one write, and returns their positions. They are neither
    /// durable nor visible before the next [`sync`](Self::sync).
    ///
    /// # Errors
    ///
    /// - [`LogError::RecordTooLarge`], [`LogError::Exhausted`]: nothing was written.
    /// - [`LogError::Io`]: the log is poisoned; the records may or may not be found on open.
    pub fn append(&mut self, records: &[NewRecord<'_>]) -> Result<Range<Lsn>, LogError> {
        self.refuse_if_poisoned()?;
        if records.is_empty() {
            return Ok(self.next..self.next);
        }
        let mut bytes = 0;
        for record in records {
            let (payload, max) = (record.payload_bytes(), self.options.max_record_bytes);
            if payload > max as usize {
                return Err(LogError::RecordTooLarge {
                    bytes: payload,
                    max,
                });
            }
            bytes += frame_bytes(payload);
        }
        let (next, count) = (self.next, records.len() as u64);
        let exhausted = LogError::Exhausted {
            next,
            records: count,
        };
        let behind = next.checked_add(count).ok_or(exhausted)?;
        let result = self.write(records, bytes);
        self.noting_failure(result)?;
        self.next = behind;
        Ok(next..behind)
    }

    /// Makes everything that was appended durable and visible to readers; everything below the
    /// returned position is then both.
    ///
    /// # Errors
    ///
    /// [`LogError::Io`]: the log is poisoned. Whether the records are durable is unknown.
    pub fn sync(&mut self) -> Result<Lsn, LogError> {
        self.refuse_if_poisoned()?;
        let result = self.sync_active();
        self.noting_failure(result)?;
        Ok(self.next)
    }

    /// Closes the current segment, if it has records, so that the next append starts a new one and
    /// [`remove_below`](Self::remove_below) can remove it. Syncs.
    ///
    /// # Errors
    ///
    /// [`LogError::Io`]: the log is poisoned.
    pub fn roll(&mut self) -> Result<(), LogError> {
        self.refuse_if_poisoned()?;
        let newest = self
            .shared
            .0
            .read()
            .segments
            .last()
            .map(|segment| segment.file.first);
        if newest.is_none_or(|first| first == self.next) {
            return Ok(());
        }
        let result = self.begin_segment();
        self.noting_failure(result)
    }

    /// Removes the segments whose records are all below `lsn`, the oldest first, and returns how
    /// many. The newest segment stays, since it says where the log goes on: [`roll`](Self::roll)
    /// before, to be rid of all records.
    ///
    /// # Errors
    ///
    /// [`LogError::Io`]: the log is poisoned; some of the segments may be gone.
    pub fn remove_below(&mut self, lsn: Lsn) -> Result<u64, LogError> {
        self.refuse_if_poisoned()?;
        let result = self.remove_segments(lsn);
        self.noting_failure(result)
    }

    /// The oldest record, or where it will be.
    #[must_use]
    pub fn first_lsn(&self) -> Lsn {
        self.shared.0.read().first()
    }

    /// The position of the next record.
    #[must_use]
    pub fn next_lsn(&self) -> Lsn {
        self.next
    }

    /// Everything below is durable.
    #[must_use]
    pub fn synced_lsn(&self) -> Lsn {
        self.shared.0.read().synced
    }

    /// A reader of what is synced. It stays good while the log is written, and after it is dropped.
    #[must_use]
    pub fn reader(&self) -> LogReader {
        LogReader::new(Arc::clone(&self.fs), Arc::clone(&self.shared))
    }

    /// The segments, oldest first, with what of them is synced.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentInfo> {
        self.shared.0.read().infos()
    }

    pub(crate) fn fs(&self) -> &dyn Fs {
        &*self.fs
    }

    /// The segments with their files, oldest first.
    pub(crate) fn files(&self) -> Vec<(PathBuf, SegmentInfo)> {
        let list = self.shared.0.read();
        let paths = list.segments.iter().map(|s| s.file.path.clone());
        paths.zip(list.infos()).collect()
    }

    fn refuse_if_poisoned(&self) -> Result<(), LogError> {
        match &self.poison {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    fn noting_failure<T>(&mut self, result: Result<T, LogError>) -> Result<T, LogError> {
        if let Err(error) = &result {
            tracing::error!(%error, dir = ?self.dir, "the log takes no more records");
            if !planted::active(Bug::POISON_IGNORED) {
                self.poison = Some(error.clone());
            }
        }
        result
    }

    /// Writes the frames of `records`, `bytes` in all, into one segment.
    fn write(&mut self, records: &[NewRecord<'_>], bytes: usize) -> Result<(), LogError> {
        let full = |active: &Active| {
            active.index.next() > active.meta.first
                && active.index.end() + bytes as u64 > self.options.segment_bytes
        };
        if self.active.as_ref().is_none_or(full) {
            self.begin_segment()?;
        }
        let synced = self.shared.0.read().synced;
        let active = self.active.as_mut().expect("a segment was begun");
        self.buffer.clear();
        self.buffer.reserve(bytes);
        let start = active.index.end();
        for record in records {
            encode(record, active, synced, &mut self.buffer);
        }
        debug_assert_eq!(self.buffer.len(), bytes);
        let failed = LogError::io("write", &active.meta.path);
        active.dirty = true;
        if planted::active(Bug::SYNC_BEFORE_WRITE) {
            active
                .file
                .sync_data()
                .map_err(LogError::io("sync", &active.meta.path))?;
            active.dirty = false;
        }
        if planted::active(Bug::SHORT_WRITE_IGNORED) {
            active.file.write_at(&self.buffer, start).map_err(failed)?;
        } else {
            active
                .file
                .write_all_at(&self.buffer, start)
                .map_err(failed)?;
        }
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_KEPT_BYTES);
        Ok(())
    }

    fn sync_active(&mut self) -> Result<(), LogError> {
        let Some(active) = self.active.as_mut().filter(|active| active.dirty) else {
            // With a planted bug there may be something to publish all the same.
            self.publish();
            return Ok(());
        };
        self.syncs += 1;
        let left_out = planted::active(Bug::SYNC_LEFT_OUT)
            || (planted::active(Bug::SEVENTH_SYNC_LEFT_OUT) && self.syncs.is_multiple_of(7));
        if !left_out {
            // IMPORTANT: every acknowledgement hangs on this line. A failure is final: the kernel
            // may have dropped the pages, and would report the next sync as a success.
            let mut synced = active.file.sync_data();
            if planted::active(Bug::FAILED_SYNC_RETRIED) && synced.is_err() {
                synced = active.file.sync_data();
            }
            synced.map_err(LogError::io("sync", &active.meta.path))?;
        }
        active.dirty = false;
        self.publish();
        Ok(())
    }

    /// Shows readers what was appended.
    fn publish(&self) {
        let Some(active) = &self.active else { return };
        let mut list = self.shared.0.write();
        if list.synced == self.next {
            return;
        }
        let newest = list
            .segments
            .last_mut()
            .expect("the active segment is listed");
        newest.index.catch_up(&active.index);
        list.synced = self.next;
    }

    /// Begins the segment that starts with the next record. What is before it is synced first: a
    /// segment's existence proves it.
    fn begin_segment(&mut self) -> Result<(), LogError> {
        if planted::active(Bug::ROLL_WITHOUT_SYNC) {
            self.publish();
        } else {
            self.sync_active()?;
        }
        let header = SEGMENT_HEADER_BYTES as u64;
        let (meta, file) = segment::create(&*self.fs, &self.dir, self.next, header, |_, _| Ok(()))?;
        let index = SegmentIndex::new(self.next, self.options.index_interval_bytes);
        let segment = Segment {
            file: Arc::clone(&meta),
            index: index.clone(),
        };
        let mut list = self.shared.0.write();
        // An empty segment that was there has been replaced under its own name.
        list.segments
            .retain(|segment| segment.file.first != self.next);
        list.segments.push(segment);
        self.active = Some(Active {
            meta,
            file,
            index,
            dirty: false,
        });
        Ok(())
    }

    fn remove_segments(&mut self, lsn: Lsn) -> Result<u64, LogError> {
        let below = {
            let list = self.shared.0.read();
            let behind = list.segments.iter().skip(1);
            behind
                .take_while(|segment| segment.file.first <= lsn)
                .count()
        };
        for removed in 0..below {
            let at = if planted::active(Bug::REMOVED_NEWEST_FIRST) {
                below - 1 - removed
            } else {
                0
            };
            // From the list first, so that a reader that finds no file can tell why.
            let segment = self.shared.0.write().segments.remove(at);
            let path = &segment.file.path;
            self.fs.unlink(path).map_err(LogError::io("remove", path))?;
            // IMPORTANT: one by one. Of several removals a crash may undo any, and a hole in the
            // middle is not told from a lost file.
            self.fs
                .sync_dir(&self.dir)
                .map_err(LogError::io("sync directory", &self.dir))?;
        }
        Ok(below as u64)
    }
}

/// Appends a record's frame to `buffer`, which is written to the end of `active`.
fn encode(record: &NewRecord<'_>, active: &mut Active, synced: Lsn, buffer: &mut Vec<u8>) {
    let payload_bytes = record.payload_bytes();
    let place = Place {
        file_id: active.meta.file_id,
        position: active.index.end(),
    };
    let lsn = active.index.next();
    let header = FrameHeader {
        payload_bytes: u32::try_from(payload_bytes).expect("compared with the limit, a u32"),
        lsn,
        time: record.time,
        synced: if planted::active(Bug::MARK_AHEAD) {
            lsn
        } else {
            synced
        },
        payload_crc: record
            .parts
            .iter()
            .fold(0, |crc, part| crc32c::crc32c_append(crc, part)),
    };
    buffer.extend_from_slice(&header.encode(place));
    for part in record.parts {
        buffer.extend_from_slice(part);
    }
    buffer.resize(buffer.len().next_multiple_of(ALIGN), 0);
    active.index.push(record.time, header.frame_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::OsFs;
    use millrace_model::TimestampMs;

    #[test]
    fn records_are_read_after_the_sync_and_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let open = || {
            Log::open(
                Arc::new(OsFs),
                &dir.path().join("log"),
                LogOptions::default(),
                Lsn(5),
            )
            .unwrap()
        };
        let (mut log, report) = open();
        assert_eq!(report, Recovery::default());
        let reader = log.reader();
        let new = [
            NewRecord {
                time: TimestampMs(1),
                parts: &[b"he", b"llo"],
            },
            NewRecord {
                time: TimestampMs(2),
                parts: &[],
            },
        ];
        assert_eq!(log.append(&new).unwrap(), Lsn(5)..Lsn(7));
        let mut out = Vec::new();
        assert_eq!(
            reader.read(Lsn(5), 1000, &mut out).unwrap(),
            Lsn(5),
            "not synced yet"
        );
        assert_eq!(log.sync().unwrap(), Lsn(7));
        assert_eq!(reader.read(Lsn(5), 1000, &mut out).unwrap(), Lsn(7));
        assert_eq!(
            (&out[0].payload[..], out[1].time),
            (&b"hello"[..], TimestampMs(2))
        );
        drop(log);
        let (log, report) = open();
        assert_eq!(
            (report.records, report.segments, log.next_lsn()),
            (2, 1, Lsn(7))
        );
        let mut again = Vec::new();
        log.reader().read(Lsn(5), 1, &mut again).unwrap();
        log.reader().read(Lsn(6), 1, &mut again).unwrap();
        assert_eq!(again, out);
    }
}
