//! Segments, and the list of them that a writer shares with its readers.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use millrace_model::TimestampMs;
use parking_lot::RwLock;

use crate::format::SegmentHeader;
use crate::fs::{Fs, FsFile, publish_with};
use crate::index::SegmentIndex;
use crate::{LogError, Lsn, paths};

/// What is known about one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its first record.
    pub first_lsn: Lsn,
    /// The record behind its last synced one.
    pub next_lsn: Lsn,
    /// Bytes of the file that are synced.
    pub bytes: u64,
    /// Earliest time of its records; none if it has none.
    pub first_time: Option<TimestampMs>,
    /// Latest time of its records.
    pub last_time: Option<TimestampMs>,
}

/// What does not change about a segment.
#[derive(Debug)]
pub(crate) struct SegmentFile {
    pub(crate) path: PathBuf,
    pub(crate) file_id: u64,
    pub(crate) first: Lsn,
}

/// A segment as readers see it.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) file: Arc<SegmentFile>,
    /// Of what is synced.
    pub(crate) index: SegmentIndex,
}

/// The segment that is appended to.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) meta: Arc<SegmentFile>,
    pub(crate) file: Box<dyn FsFile>,
    /// Of what is written.
    pub(crate) index: SegmentIndex,
    /// Whether something was written since the last sync.
    pub(crate) dirty: bool,
}

/// All segments, shared by a writer and its readers.
#[derive(Debug)]
pub(crate) struct Shared(pub(crate) RwLock<SegmentList>);

/// **Invariants:** segments join without a gap; every record below `synced`, and none behind it, is
/// in their indexes.
#[derive(Debug)]
pub(crate) struct SegmentList {
    pub(crate) segments: Vec<Segment>,
    pub(crate) synced: Lsn,
}

impl SegmentList {
    /// The oldest record, or where it will be.
    pub(crate) fn first(&self) -> Lsn {
        self.segments
            .first()
            .map_or(self.synced, |segment| segment.file.first)
    }

    pub(crate) fn infos(&self) -> Vec<SegmentInfo> {
        let info = |segment: &Segment| SegmentInfo {
            first_lsn: segment.file.first,
            next_lsn: segment.index.next(),
            bytes: segment.index.end(),
            first_time: segment.index.times().map(|times| times.0),
            last_time: segment.index.times().map(|times| times.1),
        };
        self.segments.iter().map(info).collect()
    }
}

/// Makes a new segment durable under its name, with `synced_bytes` bytes of which `fill` writes
/// those behind the header. An older file of that name is replaced.
///
/// Since the header is settled before the name is given, a segment with a bad header was damaged
/// later: it is no torn write.
pub(crate) fn create(
    fs: &dyn Fs,
    dir: &Path,
    first: Lsn,
    synced_bytes: u64,
    fill: impl FnOnce(&dyn FsFile, u64) -> io::Result<()>,
) -> Result<(Arc<SegmentFile>, Box<dyn FsFile>), LogError> {
    let path = paths::segment(dir, first);
    let failed = LogError::io("create segment", &path);
    // Half of the random bits are plenty to tell the files of one directory apart.
    let file_id = match fs.unique_id() {
        Ok(id) => (id >> 64) as u64,
        Err(error) => return Err(failed(error)),
    };
    let header = SegmentHeader {
        file_id,
        first,
        synced_bytes,
    };
    let file = publish_with(fs, &path, |file| {
        file.write_all_at(&header.encode(), 0)?;
        fill(file, file_id)
    })
    .map_err(failed)?;
    Ok((
        Arc::new(SegmentFile {
            path,
            file_id,
            first,
        }),
        file,
    ))
}
