//! The reading side of a log.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use millrace_model::TimestampMs;
use parking_lot::Mutex;

use crate::format::{FRAME_HEADER_BYTES, FrameHeader, Place, verify_body};
use crate::fs::{Fs, FsFile};
use crate::planted::{self, Bug};
use crate::scan::{Scanner, Step};
use crate::segment::{SegmentFile, SegmentList, Shared};
use crate::{Damage, LogError, LogRecord, Lsn};

/// Reads what is synced of a log, beside its writer. Every checksum is verified on every read.
///
/// A reader remembers where its last read ended, so that one that goes on from there costs one
/// system call. Clones share nothing but the log.
#[derive(Debug)]
pub struct LogReader {
    fs: Arc<dyn Fs>,
    shared: Arc<Shared>,
    cursor: Mutex<Option<Cursor>>,
}

/// Where a read ended.
#[derive(Debug)]
struct Cursor {
    segment: Arc<SegmentFile>,
    file: Box<dyn FsFile>,
    next: Lsn,
    position: u64,
}

/// What the list of segments says about the place of a record.
struct Located {
    segment: Arc<SegmentFile>,
    /// A place at or before the record.
    lsn: Lsn,
    position: u64,
    /// The end of what is synced in the segment.
    end: u64,
}

impl Clone for LogReader {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.fs), Arc::clone(&self.shared))
    }
}

impl LogReader {
    pub(crate) fn new(fs: Arc<dyn Fs>, shared: Arc<Shared>) -> Self {
        Self {
            fs,
            shared,
            cursor: Mutex::new(None),
        }
    }

    /// Appends records from `from` on to `out` and returns the position behind the last: about
    /// `max_bytes` of them, at least one if there is one, none if `from` is the synced end. One
    /// call reads of one segment.
    ///
    /// # Errors
    ///
    /// - [`LogError::Removed`]: `from` is older than the log.
    /// - [`LogError::BeyondEnd`]: `from` is behind the synced end.
    /// - [`LogError::Corrupt`]: the records before the damage are in `out`, if there are any; then
    ///   the error comes from the read that begins at it.
    /// - [`LogError::Io`]: of the file system.
    pub fn read(
        &self,
        from: Lsn,
        max_bytes: usize,
        out: &mut Vec<LogRecord>,
    ) -> Result<Lsn, LogError> {
        let Some(located) = self.locate(from)? else {
            return Ok(from);
        };
        let remembered = self.cursor.lock().take();
        let mut cursor = match remembered {
            Some(cursor) if Arc::ptr_eq(&cursor.segment, &located.segment) => cursor,
            _ => self.open(&located, from)?,
        };
        if cursor.next != from {
            (cursor.next, cursor.position) = (located.lsn, located.position);
            cursor.skip_to(from, located.end)?;
        }
        cursor.read(located.end, max_bytes, out)?;
        let next = cursor.next;
        *self.cursor.lock() = Some(cursor);
        Ok(next)
    }

    /// The first record whose time is `time` or later; the synced end if there is none. Times need
    /// not ascend.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn seek_time(&self, time: TimestampMs) -> Result<Lsn, LogError> {
        let reaching = |list: &SegmentList| {
            let found = list.segments.iter().find_map(|segment| {
                let (lsn, position) = segment.index.reaching(time)?;
                let (segment, end) = (Arc::clone(&segment.file), segment.index.end());
                Some(Located {
                    segment,
                    lsn,
                    position,
                    end,
                })
            });
            found.ok_or(list.synced)
        };
        let located = match reaching(&self.shared.0.read()) {
            Ok(located) => located,
            Err(end) => return Ok(end),
        };
        let Cursor { segment, file, .. } = self.open(&located, located.lsn)?;
        let mut scanner = Scanner::new(
            &*file,
            segment.file_id,
            located.position,
            located.lsn,
            located.end,
        );
        loop {
            match scanner
                .next()
                .map_err(LogError::io("read", &segment.path))?
            {
                Step::Frame { header, .. } if header.time >= time => return Ok(header.lsn),
                Step::Frame { .. } => {}
                Step::Damaged { offset, damage } => return Err(corrupt(&segment, offset, damage)),
                Step::End => {
                    let (need, have) = (located.end, scanner.position());
                    return Err(corrupt(&segment, have, Damage::CutShort { need, have }));
                }
            }
        }
    }

    /// The oldest record, or where it will be.
    #[must_use]
    pub fn first_lsn(&self) -> Lsn {
        self.shared.0.read().first()
    }

    /// Everything below can be read.
    #[must_use]
    pub fn synced_lsn(&self) -> Lsn {
        self.shared.0.read().synced
    }

    /// None if `from` is the synced end.
    fn locate(&self, from: Lsn) -> Result<Option<Located>, LogError> {
        let list = self.shared.0.read();
        let (first, end) = (list.first(), list.synced);
        if from < first {
            return Err(LogError::Removed {
                wanted: from,
                first,
            });
        }
        if from >= end {
            let beyond = LogError::BeyondEnd { wanted: from, end };
            return if from == end { Ok(None) } else { Err(beyond) };
        }
        let behind = list
            .segments
            .partition_point(|segment| segment.file.first <= from);
        let segment = &list.segments[behind - 1];
        let (lsn, position) = segment
            .index
            .before(from)
            .expect("the record is below the end");
        let (segment, end) = (Arc::clone(&segment.file), segment.index.end());
        Ok(Some(Located {
            segment,
            lsn,
            position,
            end,
        }))
    }

    fn open(&self, located: &Located, wanted: Lsn) -> Result<Cursor, LogError> {
        let segment = Arc::clone(&located.segment);
        match self.fs.open(&segment.path) {
            Ok(file) => {
                let (next, position) = (located.lsn, located.position);
                Ok(Cursor {
                    segment,
                    file,
                    next,
                    position,
                })
            }
            Err(error) => {
                let first = self.first_lsn();
                if error.kind() == io::ErrorKind::NotFound && wanted < first {
                    return Err(LogError::Removed { wanted, first });
                }
                Err(LogError::io("open", &segment.path)(error))
            }
        }
    }
}

impl Cursor {
    /// Passes over records up to `from`.
    fn skip_to(&mut self, from: Lsn, end: u64) -> Result<(), LogError> {
        let Self {
            segment,
            file,
            next,
            position,
        } = self;
        let mut scanner = Scanner::new(&**file, segment.file_id, *position, *next, end);
        while scanner.expected() < from {
            match scanner
                .next()
                .map_err(LogError::io("read", &segment.path))?
            {
                Step::Frame { .. } => {}
                Step::Damaged { offset, damage } => return Err(corrupt(segment, offset, damage)),
                Step::End => {
                    let (need, have) = (end, scanner.position());
                    return Err(corrupt(segment, have, Damage::CutShort { need, have }));
                }
            }
        }
        (*next, *position) = (scanner.expected(), scanner.position());
        Ok(())
    }

    /// Reads at least one record, of which there is one.
    fn read(
        &mut self,
        end: u64,
        max_bytes: usize,
        out: &mut Vec<LogRecord>,
    ) -> Result<(), LogError> {
        let at_least = FRAME_HEADER_BYTES as u64;
        let mut want = (max_bytes as u64).max(at_least).min(end - self.position);
        loop {
            let len = usize::try_from(want).expect("no longer than a frame or what was asked for");
            let mut buffer = vec![0; len];
            self.file
                .read_exact_at(&mut buffer, self.position)
                .map_err(LogError::io("read", &self.segment.path))?;
            match self.take_frames(buffer.into(), end, out)? {
                None => return Ok(()),
                // The first frame is longer than the buffer.
                Some(frame_bytes) => want = frame_bytes,
            }
        }
    }

    /// Takes the whole frames of `buffer`, which was read at the position. If there is none,
    /// returns how long the first is.
    fn take_frames(
        &mut self,
        buffer: Bytes,
        end: u64,
        out: &mut Vec<LogRecord>,
    ) -> Result<Option<u64>, LogError> {
        let mut at = 0;
        while let Some(head) = buffer[at..].first_chunk() {
            let position = self.position;
            let header = match self.header(head, end) {
                Ok(header) => header,
                // The reader of the damaged record gets the error; it is told what was before.
                Err(_) if at > 0 => return Ok(None),
                Err(damage) => return Err(corrupt(&self.segment, position, damage)),
            };
            // Compared with what is left of the segment, which is far below 2^63.
            let frame_bytes = header.frame_bytes();
            let behind = at + usize::try_from(frame_bytes).expect("inside a segment");
            if behind > buffer.len() {
                return Ok((at == 0).then_some(frame_bytes));
            }
            let payload_at = at + FRAME_HEADER_BYTES;
            if let Err(damage) = verify_body(&header, &buffer[payload_at..behind])
                && !planted::active(Bug::READ_UNVERIFIED)
            {
                if at > 0 {
                    return Ok(None);
                }
                return Err(corrupt(&self.segment, position, damage));
            }
            out.push(LogRecord {
                lsn: header.lsn,
                time: header.time,
                payload: buffer.slice(payload_at..payload_at + header.payload_bytes as usize),
            });
            self.next = Lsn(self.next.0 + 1);
            self.position += frame_bytes;
            at = behind;
        }
        Ok(None)
    }

    /// The header of the next record.
    fn header(&self, head: &[u8; FRAME_HEADER_BYTES], end: u64) -> Result<FrameHeader, Damage> {
        let place = Place {
            file_id: self.segment.file_id,
            position: self.position,
        };
        let header = FrameHeader::decode(head, place)?;
        if header.lsn != self.next {
            return Err(Damage::Order {
                expected: self.next,
                found: header.lsn,
            });
        }
        let (need, have) = (header.frame_bytes(), end - self.position);
        if need > have {
            return Err(Damage::CutShort { need, have });
        }
        Ok(header)
    }
}

fn corrupt(segment: &SegmentFile, offset: u64, damage: Damage) -> LogError {
    LogError::Corrupt {
        path: segment.path.clone(),
        offset,
        damage,
    }
}

const _: () = {
    const fn shared<T: Clone + Send + Sync>() {}
    shared::<LogReader>();
    const fn moved<T: Send>() {}
    moved::<crate::Log>();
};
