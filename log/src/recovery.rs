//! Opening a log: what is left of it after the process or the machine stopped anywhere.
//!
//! The table of damages and outcomes is in `docs/formats/log.md`; each row has a test. In short:
//! - what is proven to have been synced must be whole, or opening fails and names file and byte;
//! - what is not proven is a tail: read as far as it is whole, and cut there;
//! - of the tail, what was read is *written again* to a new segment before it counts. It may stand
//!   in the page cache alone, and a sync that failed unseen in the process before would let a later
//!   one succeed without having written anything;
//! - no byte is appended to a file that was there;
//! - nothing is cut before everything was found in order.
//!
//! Proofs that the log was synced up to some record: the mark in a frame; the header of the segment
//! (of what it held when it got its name); the existence of a later segment (of all before it).

mod opened;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) use self::opened::{OpenSegment, at_end};

use self::opened::Scanned;
use crate::format::{FrameHeader, Place, SEGMENT_HEADER_BYTES};
use crate::fs::Fs;
use crate::index::SegmentIndex;
use crate::paths::Name;
use crate::planted::{self, Bug};
use crate::scan::{Scanner, Step};
use crate::segment::{self, Active, Segment};
use crate::{LogError, LogOptions, Lsn, paths};

/// What opening a log found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Segments that there are now.
    pub segments: usize,
    /// Records that there are now.
    pub records: u64,
    /// Bytes of an unfinished append that were cut.
    pub torn_bytes: u64,
    /// Records that were written again to a new segment: the unproven tail, or a small segment.
    pub carried_records: u64,
    /// Bytes that an interrupted recovery had already carried over, and that were cut now.
    pub leftover_bytes: u64,
    /// Files that never became segments and were removed.
    pub removed_files: u64,
}

/// A log as it was found.
pub(crate) struct Recovered {
    pub(crate) segments: Vec<Segment>,
    pub(crate) active: Option<Active>,
    pub(crate) next: Lsn,
    pub(crate) report: Recovery,
}

/// A newest segment below this is carried over whole, so that many restarts leave few files. As
/// long to write as one large append.
const CARRIED_BYTES_MAX: u64 = 1 << 20;

pub(crate) fn recover(
    fs: &dyn Fs,
    dir: &Path,
    options: &LogOptions,
    first: Lsn,
) -> Result<Recovered, LogError> {
    let mut recoverer = Recoverer {
        fs,
        dir,
        options,
        segments: Vec::new(),
        leftovers: Vec::new(),
        report: Recovery::default(),
    };
    let found = recoverer.list()?;
    let mut active = None;
    for (i, &lsn) in found.iter().enumerate() {
        let opened = OpenSegment::open(fs, dir, lsn)?;
        match found.get(i + 1) {
            Some(&upto) => recoverer.closed(opened, upto)?,
            None => active = recoverer.newest(opened)?,
        }
    }
    let Recoverer {
        segments,
        mut report,
        ..
    } = recoverer;
    let next = segments
        .last()
        .map_or(first, |segment| segment.index.next());
    let oldest = segments.first().map_or(next, |segment| segment.file.first);
    report.segments = segments.len();
    report.records = next.0 - oldest.0;
    if report.torn_bytes > 0 {
        tracing::warn!(?dir, bytes = report.torn_bytes, %next, "cut a torn tail off the log");
    }
    Ok(Recovered {
        segments,
        active,
        next,
        report,
    })
}

struct Recoverer<'a> {
    fs: &'a dyn Fs,
    dir: &'a Path,
    options: &'a LogOptions,
    segments: Vec<Segment>,
    /// Older segments, and what is to be left of them.
    leftovers: Vec<(PathBuf, u64)>,
    report: Recovery,
}

impl Recoverer<'_> {
    /// The first records of the segments, ascending, their names settled. Removes what never
    /// became one.
    fn list(&mut self) -> Result<Vec<Lsn>, LogError> {
        let (fs, dir) = (self.fs, self.dir);
        let mut found = Vec::new();
        for entry in fs.list(dir).map_err(LogError::io("list", dir))? {
            match paths::parse(&entry.name) {
                Name::Segment(first) => found.push(first),
                Name::Temporary => {
                    let path = dir.join(&entry.name);
                    fs.unlink(&path).map_err(LogError::io("remove", &path))?;
                    self.report.removed_files += 1;
                }
                Name::Foreign => {}
            }
        }
        // IMPORTANT: a process that ended between giving a name and settling it left a segment that is
        // there and may be gone after a power cut. What follows relies on it, and cuts what it replaced.
        fs.sync_dir(dir)
            .map_err(LogError::io("sync directory", dir))?;
        found.sort_unstable();
        Ok(found)
    }

    /// A segment with a later one, which was begun only after all of this one was synced.
    fn closed(&mut self, found: OpenSegment, upto: Lsn) -> Result<(), LogError> {
        let Scanned { index, damage, .. } = found.scan(self.options, Some(upto))?;
        if let Some((offset, damage)) = damage {
            return Err(found.corrupt(offset, damage));
        }
        if index.next() != upto {
            let (path, expected) = (paths::segment(self.dir, upto), index.next());
            return Err(LogError::Missing {
                path,
                expected,
                found: upto,
            });
        }
        let leftover = found.file_bytes - index.end();
        if leftover > 0 {
            self.report.leftover_bytes += leftover;
            self.leftovers.push((found.meta.path.clone(), index.end()));
        }
        self.segments.push(Segment {
            file: found.meta,
            index,
        });
        Ok(())
    }

    /// The newest segment: the only one that can have a tail.
    fn newest(&mut self, found: OpenSegment) -> Result<Option<Active>, LogError> {
        let Scanned {
            index,
            mut proven,
            damage,
        } = found.scan(self.options, None)?;
        found.refuse_corruption(&index, damage)?;
        // Only now: if this segment were damaged, they might be the only copy that is left.
        for (path, len) in std::mem::take(&mut self.leftovers) {
            self.cut(&path, len)?;
        }
        let (first, next, end) = (found.meta.first, index.next(), index.end());
        self.report.torn_bytes = found.file_bytes - end;
        let small = end <= CARRIED_BYTES_MAX.min(self.options.segment_bytes / 4);
        if planted::active(Bug::SEGMENT_REUSED) {
            return self.reuse(found, index).map(Some);
        }
        if planted::active(Bug::TAIL_TRUSTED) {
            proven = next;
        } else if small {
            proven = first;
        }
        let carry_from = proven;
        if carry_from == next {
            if self.report.torn_bytes > 0 {
                self.cut(&found.meta.path, end)?;
            }
            self.segments.push(Segment {
                file: found.meta,
                index,
            });
            return Ok(None);
        }
        let active = self.carry(&found, carry_from, &index)?;
        self.report.carried_records = next.0 - carry_from.0;
        if carry_from > first {
            let Scanned { index: kept, .. } = found.scan(self.options, Some(carry_from))?;
            self.cut(&found.meta.path, kept.end())?;
            self.segments.push(Segment {
                file: found.meta,
                index: kept,
            });
        }
        let file = Arc::clone(&active.meta);
        self.segments.push(Segment {
            file,
            index: active.index.clone(),
        });
        Ok(Some(active))
    }

    /// A planted bug.
    fn reuse(&mut self, found: OpenSegment, index: SegmentIndex) -> Result<Active, LogError> {
        let meta = found.meta;
        let file = self
            .fs
            .open_rw(&meta.path)
            .map_err(LogError::io("open", &meta.path))?;
        self.segments.push(Segment {
            file: Arc::clone(&meta),
            index: index.clone(),
        });
        Ok(Active {
            meta,
            file,
            index,
            dirty: false,
        })
    }

    /// Writes the records of `old` from `from` on to a new segment, which replaces it if it begins
    /// where that does.
    fn carry(
        &self,
        old: &OpenSegment,
        from: Lsn,
        index: &SegmentIndex,
    ) -> Result<Active, LogError> {
        let failed = LogError::io("read", &old.meta.path);
        let start = index.before(from).expect("there are records from here on");
        let (file, id) = (&*old.file, old.meta.file_id);
        let mut source = Scanner::new(file, id, start.1, start.0, index.end());
        while source.expected() < from {
            match source.next() {
                Ok(Step::Frame { .. }) => {}
                Ok(_) => return Err(failed(changed())),
                Err(error) => return Err(failed(error)),
            }
        }
        let bytes = SEGMENT_HEADER_BYTES as u64 + (index.end() - source.position());
        let mut carried = SegmentIndex::new(from, self.options.index_interval_bytes);
        let (meta, file) = segment::create(self.fs, self.dir, from, bytes, |file, file_id| {
            let mut buffer = Vec::new();
            let mut written = carried.end();
            loop {
                let step = source.next()?;
                let at_end = matches!(step, Step::End);
                match step {
                    Step::Frame {
                        header, payload, ..
                    } => {
                        let place = Place {
                            file_id,
                            position: carried.end(),
                        };
                        let header = FrameHeader {
                            synced: from,
                            ..header
                        };
                        buffer.extend_from_slice(&header.encode(place));
                        buffer.extend_from_slice(payload);
                        carried.push(header.time, header.frame_bytes());
                        let len = carried.end() - written;
                        buffer.resize(usize::try_from(len).expect("fits"), 0);
                    }
                    Step::End => {}
                    Step::Damaged { .. } => return Err(changed()),
                }
                if at_end || buffer.len() as u64 >= CARRIED_BYTES_MAX {
                    file.write_all_at(&buffer, written)?;
                    written = carried.end();
                    buffer.clear();
                }
                if at_end {
                    return Ok(());
                }
            }
        })?;
        debug_assert_eq!((carried.end(), carried.next()), (bytes, index.next()));
        Ok(Active {
            meta,
            file,
            index: carried,
            dirty: false,
        })
    }

    /// Cuts a file that nothing is appended to, durably.
    fn cut(&self, path: &Path, len: u64) -> Result<(), LogError> {
        let cut = || {
            let file = self.fs.open_rw(path)?;
            file.set_len(len)?;
            file.sync_data()
        };
        cut().map_err(LogError::io("cut", path))
    }
}

/// A file that was whole a moment ago is not any more.
fn changed() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "the file changed while it was read",
    )
}
