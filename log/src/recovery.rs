//! Opening a log: what is left of it after the process or the machine stopped anywhere.
//!
//! The table of damages and outcomes is in `docs/formats/log.md`; each row has a test. In short:
//! - what is proven to have been synced must be whole, or opening fails and names file and byte;
//! - what is not proven is a tail: read as far as it is whole, and cut there;
//! - of the tail, what was read is *written again* to a new segment before it counts. It may stand
//!   in the page cache alone, and a sync that failed unseen in the process before would let a later
//!   one succeed without having written anything;
//! - no byte is appended to a file that was there.
//!
//! Proofs that the log was synced up to some record: the mark in a frame; the header of the segment
//! (of what it held when it got its name); the existence of a later segment (of all before it).

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::format::{
    FrameHeader, HeaderError, Place, SEGMENT_HEADER_BYTES, SegmentHeader, VERSION,
};
use crate::fs::{Fs, FsFile};
use crate::index::SegmentIndex;
use crate::paths::Name;
use crate::planted::{self, Bug};
use crate::scan::{Scanner, Step, find_proof};
use crate::segment::{self, Active, Segment, SegmentFile};
use crate::{Damage, LogError, LogOptions, Lsn, paths};

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
    let mut report = Recovery::default();
    let found = list(fs, dir, &mut report)?;
    let mut segments = Vec::with_capacity(found.len());
    let mut active = None;
    for (i, &lsn) in found.iter().enumerate() {
        let opened = OpenSegment::open(fs, dir, lsn)?;
        match found.get(i + 1) {
            Some(&upto) => segments.push(opened.closed(fs, dir, options, upto, &mut report)?),
            None => active = opened.newest(fs, dir, options, &mut segments, &mut report)?,
        }
    }
    let next = segments
        .last()
        .map_or(first, |segment: &Segment| segment.index.next());
    report.segments = segments.len();
    report.records = next.0
        - segments
            .first()
            .map_or(next, |segment| segment.file.first)
            .0;
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

/// The first records of the segments in `dir`, ascending, their names settled. Removes what never
/// became one.
fn list(fs: &dyn Fs, dir: &Path, report: &mut Recovery) -> Result<Vec<Lsn>, LogError> {
    let mut found = Vec::new();
    for entry in fs.list(dir).map_err(LogError::io("list", dir))? {
        match paths::parse(&entry.name) {
            Name::Segment(first) => found.push(first),
            Name::Temporary => {
                let path = dir.join(&entry.name);
                fs.unlink(&path).map_err(LogError::io("remove", &path))?;
                report.removed_files += 1;
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

/// A segment with a good header.
struct OpenSegment {
    meta: Arc<SegmentFile>,
    file: Box<dyn FsFile>,
    header: SegmentHeader,
    file_bytes: u64,
}

/// How far a segment's frames are whole.
struct Scanned {
    index: SegmentIndex,
    /// Everything below was synced once, as far as this segment can tell.
    proven: Lsn,
    /// Why the scan ended, unless it reached the end of the file or the record it was to reach.
    damage: Option<(u64, Damage)>,
}

impl OpenSegment {
    fn open(fs: &dyn Fs, dir: &Path, first: Lsn) -> Result<Self, LogError> {
        let path = paths::segment(dir, first);
        let corrupt = |damage| LogError::Corrupt {
            path: path.clone(),
            offset: 0,
            damage,
        };
        let file = fs.open(&path).map_err(LogError::io("open", &path))?;
        let file_bytes = file.len().map_err(LogError::io("length", &path))?;
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        if file_bytes < bytes.len() as u64 {
            let need = bytes.len() as u64;
            return Err(corrupt(Damage::CutShort {
                need,
                have: file_bytes,
            }));
        }
        file.read_exact_at(&mut bytes, 0)
            .map_err(LogError::io("read", &path))?;
        let header = SegmentHeader::decode(&bytes).map_err(|error| match error {
            HeaderError::Damage(damage) => corrupt(damage),
            HeaderError::Version(found) => {
                let (path, supported) = (path.clone(), VERSION);
                LogError::Version {
                    path,
                    found,
                    supported,
                }
            }
        })?;
        if header.first != first {
            // Under a name that it was not given.
            return Err(corrupt(Damage::Order {
                expected: first,
                found: header.first,
            }));
        }
        let meta = Arc::new(SegmentFile {
            path,
            file_id: header.file_id,
            first,
        });
        Ok(Self {
            meta,
            file,
            header,
            file_bytes,
        })
    }

    /// Reads frames up to record `upto`, or to the end of the file.
    fn scan(&self, options: &LogOptions, upto: Option<Lsn>) -> Result<Scanned, LogError> {
        let mut index = SegmentIndex::new(self.meta.first, options.index_interval_bytes);
        let (mut proven, mut damage) = (self.meta.first, None);
        let start = SEGMENT_HEADER_BYTES as u64;
        let (file, id) = (&*self.file, self.meta.file_id);
        let mut scanner = Scanner::new(file, id, start, self.meta.first, self.file_bytes);
        while Some(scanner.expected()) != upto {
            match scanner
                .next()
                .map_err(LogError::io("read", &self.meta.path))?
            {
                Step::Frame { header, .. } => {
                    index.push(header.time, header.frame_bytes());
                    proven = proven.max(header.synced);
                    if index.end() <= self.header.synced_bytes {
                        proven = index.next();
                    }
                }
                Step::End => break,
                Step::Damaged {
                    offset,
                    damage: what,
                } => {
                    damage = Some((offset, what));
                    break;
                }
            }
        }
        Ok(Scanned {
            index,
            proven,
            damage,
        })
    }

    fn corrupt(&self, offset: u64, damage: Damage) -> LogError {
        LogError::Corrupt {
            path: self.meta.path.clone(),
            offset,
            damage,
        }
    }

    /// A segment with a later one, which was begun only after all of this one was synced.
    fn closed(
        self,
        fs: &dyn Fs,
        dir: &Path,
        options: &LogOptions,
        upto: Lsn,
        report: &mut Recovery,
    ) -> Result<Segment, LogError> {
        let scanned = self.scan(options, Some(upto))?;
        if let Some((offset, damage)) = scanned.damage {
            return Err(self.corrupt(offset, damage));
        }
        if scanned.index.next() != upto {
            let (path, expected) = (paths::segment(dir, upto), scanned.index.next());
            return Err(LogError::Missing {
                path,
                expected,
                found: upto,
            });
        }
        let leftover = self.file_bytes - scanned.index.end();
        if leftover > 0 {
            // The next segment holds these records already, durably; or they were never whole.
            report.leftover_bytes += leftover;
            cut(fs, &self.meta.path, scanned.index.end())?;
        }
        Ok(Segment {
            file: self.meta,
            index: scanned.index,
        })
    }

    /// The newest segment: the only one that can have a tail.
    fn newest(
        self,
        fs: &dyn Fs,
        dir: &Path,
        options: &LogOptions,
        segments: &mut Vec<Segment>,
        report: &mut Recovery,
    ) -> Result<Option<Active>, LogError> {
        let Scanned {
            index,
            mut proven,
            damage,
        } = self.scan(options, None)?;
        self.refuse_corruption(&index, damage)?;
        let (first, next, end) = (self.meta.first, index.next(), index.end());
        report.torn_bytes = self.file_bytes - end;
        if planted::active(Bug::TAIL_TRUSTED) {
            proven = next;
        }
        let small = end <= CARRIED_BYTES_MAX.min(options.segment_bytes / 4);
        let carry_from = if small && !planted::active(Bug::TAIL_TRUSTED) {
            first
        } else {
            proven
        };
        if planted::active(Bug::SEGMENT_REUSED) {
            let path = self.meta.path.clone();
            let file = fs.open_rw(&path).map_err(LogError::io("open", &path))?;
            let meta = Arc::clone(&self.meta);
            segments.push(Segment {
                file: Arc::clone(&meta),
                index: index.clone(),
            });
            return Ok(Some(Active {
                meta,
                file,
                index,
                dirty: false,
            }));
        }
        if carry_from == next {
            if report.torn_bytes > 0 {
                cut(fs, &self.meta.path, end)?;
            }
            segments.push(Segment {
                file: self.meta,
                index,
            });
            return Ok(None);
        }
        let active = self.carry(fs, dir, options, carry_from, &index)?;
        report.carried_records = next.0 - carry_from.0;
        if carry_from > first {
            let Scanned { index: kept, .. } = self.scan(options, Some(carry_from))?;
            cut(fs, &self.meta.path, kept.end())?;
            segments.push(Segment {
                file: self.meta,
                index: kept,
            });
        }
        let file = Arc::clone(&active.meta);
        segments.push(Segment {
            file,
            index: active.index.clone(),
        });
        Ok(Some(active))
    }

    /// Whether what is not whole at the end of the newest segment had been synced.
    fn refuse_corruption(
        &self,
        index: &SegmentIndex,
        damage: Option<(u64, Damage)>,
    ) -> Result<(), LogError> {
        if planted::active(Bug::DAMAGE_CUT) {
            return Ok(());
        }
        let (need, have) = (self.header.synced_bytes, self.file_bytes);
        match damage {
            None if have < need => Err(self.corrupt(have, Damage::CutShort { need, have })),
            None => Ok(()),
            Some((offset, damage)) => {
                let proof = offset < need
                    || find_proof(&*self.file, self.meta.file_id, offset, have, index.next())
                        .map_err(LogError::io("read", &self.meta.path))?
                        .is_some();
                if proof {
                    Err(self.corrupt(offset, damage))
                } else {
                    Ok(())
                }
            }
        }
    }

    /// Writes the records from `from` on to a new segment, which replaces this one if it begins
    /// where this one does.
    fn carry(
        &self,
        fs: &dyn Fs,
        dir: &Path,
        options: &LogOptions,
        from: Lsn,
        index: &SegmentIndex,
    ) -> Result<Active, LogError> {
        let failed = LogError::io("read", &self.meta.path);
        let start = index.before(from).expect("there are records from here on");
        let (file, id) = (&*self.file, self.meta.file_id);
        let mut source = Scanner::new(file, id, start.1, start.0, index.end());
        while source.expected() < from {
            match source.next() {
                Ok(Step::Frame { .. }) => {}
                Ok(_) => return Err(failed(changed())),
                Err(error) => return Err(failed(error)),
            }
        }
        let bytes = SEGMENT_HEADER_BYTES as u64 + (index.end() - source.position());
        let mut carried = SegmentIndex::new(from, options.index_interval_bytes);
        let (meta, file) = segment::create(fs, dir, from, bytes, |file, file_id| {
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
}

/// A file that was whole a moment ago is not any more.
fn changed() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "the file changed while it was read",
    )
}

/// Cuts a closed file, durably.
fn cut(fs: &dyn Fs, path: &Path, len: u64) -> Result<(), LogError> {
    let cut = || {
        let file = fs.open_rw(path)?;
        file.set_len(len)?;
        file.sync_data()
    };
    cut().map_err(LogError::io("cut", path))
}
