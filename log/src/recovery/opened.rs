//! One segment as it is found: its header, how far its frames are whole, and what proves that they
//! were synced.

use std::path::Path;
use std::sync::Arc;

use crate::format::{HeaderError, SEGMENT_HEADER_BYTES, SegmentHeader, VERSION};
use crate::fs::{Fs, FsFile};
use crate::index::SegmentIndex;
use crate::planted::{self, Bug};
use crate::scan::{Scanner, Step, find_proof};
use crate::segment::SegmentFile;
use crate::{Damage, LogError, LogOptions, Lsn, paths};

/// A segment with a good header.
pub(crate) struct OpenSegment {
    pub(crate) meta: Arc<SegmentFile>,
    pub(crate) file: Box<dyn FsFile>,
    pub(crate) header: SegmentHeader,
    pub(crate) file_bytes: u64,
}

/// How far a segment's frames are whole.
pub(super) struct Scanned {
    pub(super) index: SegmentIndex,
    /// Everything below was synced once, as far as this segment can tell.
    pub(super) proven: Lsn,
    /// Why the scan ended, unless it reached the end of the file or the record it was to reach.
    pub(super) damage: Option<(u64, Damage)>,
}

impl OpenSegment {
    pub(crate) fn open(fs: &dyn Fs, dir: &Path, first: Lsn) -> Result<Self, LogError> {
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
    pub(super) fn scan(
        &self,
        options: &LogOptions,
        upto: Option<Lsn>,
    ) -> Result<Scanned, LogError> {
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

    pub(crate) fn corrupt(&self, offset: u64, damage: Damage) -> LogError {
        LogError::Corrupt {
            path: self.meta.path.clone(),
            offset,
            damage,
        }
    }

    /// Whether what is not whole at the end of the newest segment had been synced.
    pub(super) fn refuse_corruption(
        &self,
        index: &SegmentIndex,
        damage: Option<(u64, Damage)>,
    ) -> Result<(), LogError> {
        if planted::active(Bug::DAMAGE_CUT) {
            return Ok(());
        }
        at_end(self, index.end(), index.next(), damage)
    }
}

/// Whether what follows record `next`, at byte `end` of the newest segment, is a tail that was never
/// acknowledged; an error if it is damage.
pub(crate) fn at_end(
    segment: &OpenSegment,
    end: u64,
    next: Lsn,
    damage: Option<(u64, Damage)>,
) -> Result<(), LogError> {
    let (need, have) = (segment.header.synced_bytes, segment.file_bytes);
    debug_assert!(damage.is_none_or(|(offset, _)| offset == end));
    let Some((offset, damage)) = damage else {
        return if have < need {
            Err(segment.corrupt(have, Damage::CutShort { need, have }))
        } else {
            Ok(())
        };
    };
    let proof = offset < need
        || find_proof(&*segment.file, segment.meta.file_id, offset, have, next)
            .map_err(LogError::io("read", &segment.meta.path))?
            .is_some();
    if proof {
        Err(segment.corrupt(offset, damage))
    } else {
        Ok(())
    }
}
