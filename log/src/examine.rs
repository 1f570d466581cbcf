//! Looking at a log without opening it: nothing is cut, written or removed, and one damage does not
//! hide the next. For tools; the process that owns the log opens it.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use millrace_model::TimestampMs;

use crate::format::SEGMENT_HEADER_BYTES;
use crate::fs::Fs;
use crate::paths::Name;
use crate::recovery::{OpenSegment, at_end};
use crate::scan::{Scanner, Step};
use crate::{LogError, LogRecord, Lsn, paths};

/// What a log's directory holds.
#[derive(Debug, Default)]
pub struct Examined {
    /// Its segments, oldest first; those with a damaged header are missing here.
    pub segments: Vec<ExaminedSegment>,
    /// What is wrong, in order. Opening the log would fail with one of these.
    pub damages: Vec<LogError>,
    /// Bytes of an unfinished append at the end, which opening the log would cut: no damage.
    pub torn_bytes: u64,
    /// Files that never became segments, which opening the log would remove: no damage.
    pub temporary: Vec<PathBuf>,
}

/// One segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExaminedSegment {
    /// The file.
    pub path: PathBuf,
    /// Its length, in bytes.
    pub bytes: u64,
    /// Its first record.
    pub first: Lsn,
    /// Behind its last whole record.
    pub next: Lsn,
    /// Time of its first and of its last record.
    pub times: Option<(TimestampMs, TimestampMs)>,
}

/// Reads all of the log in `dir`, verifies every byte, and shows each whole record to `visit`.
///
/// # Errors
///
/// Of the file system alone; damages are in the answer.
pub fn examine(
    fs: &dyn Fs,
    dir: &Path,
    visit: &mut dyn FnMut(LogRecord),
) -> Result<Examined, LogError> {
    let mut examined = Examined::default();
    let mut found = Vec::new();
    for entry in fs.list(dir).map_err(LogError::io("list", dir))? {
        match paths::parse(&entry.name) {
            Name::Segment(first) => found.push(first),
            Name::Temporary => examined.temporary.push(dir.join(&entry.name)),
            Name::Foreign => {}
        }
    }
    found.sort_unstable();
    for (i, &first) in found.iter().enumerate() {
        let upto = found.get(i + 1).copied();
        match OpenSegment::open(fs, dir, first) {
            Ok(segment) => examined.segment(&segment, upto, visit)?,
            Err(error @ LogError::Io { .. }) => return Err(error),
            Err(error) => examined.damages.push(error),
        }
    }
    Ok(examined)
}

impl Examined {
    fn segment(
        &mut self,
        segment: &OpenSegment,
        upto: Option<Lsn>,
        visit: &mut dyn FnMut(LogRecord),
    ) -> Result<(), LogError> {
        let path = &segment.meta.path;
        let start = SEGMENT_HEADER_BYTES as u64;
        let (file, id) = (&*segment.file, segment.meta.file_id);
        let mut scanner = Scanner::new(file, id, start, segment.meta.first, segment.file_bytes);
        let mut times: Option<(TimestampMs, TimestampMs)> = None;
        let mut damage = None;
        // What a later segment has carried over stands here once more, and is not read.
        while Some(scanner.expected()) != upto {
            match scanner.next().map_err(LogError::io("read", path))? {
                Step::Frame { header, payload } => {
                    let first = times.map_or(header.time, |(first, _)| first);
                    times = Some((first, header.time));
                    visit(LogRecord {
                        lsn: header.lsn,
                        time: header.time,
                        payload: Bytes::copy_from_slice(payload),
                    });
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
        let (next, position) = (scanner.expected(), scanner.position());
        match (damage, upto) {
            (Some((offset, damage)), Some(_)) => {
                self.damages.push(segment.corrupt(offset, damage));
            }
            (None, Some(upto)) if next != upto => self.damages.push(LogError::Missing {
                path: paths::segment(path.parent().unwrap_or(path), upto),
                expected: next,
                found: upto,
            }),
            (None, Some(_)) => {}
            (damage, None) => match at_end(segment, position, next, damage) {
                Ok(()) => self.torn_bytes = segment.file_bytes - position,
                Err(error @ LogError::Io { .. }) => return Err(error),
                Err(error) => self.damages.push(error),
            },
        }
        self.segments.push(ExaminedSegment {
            path: path.clone(),
            bytes: segment.file_bytes,
            first: segment.meta.first,
            next,
            times,
        });
        Ok(())
    }
}
