//! A log as it stands at one moment, held open while it goes on: what a backup is made of.

use std::path::PathBuf;

use crate::fs::FsFile;
use crate::log::Log;
use crate::{LogError, Lsn};

/// One segment of a [`Log`], open for reading: retention may take its name away, not its bytes.
#[derive(Debug)]
pub struct HeldSegment {
    /// The file's name, as long as it has one.
    pub path: PathBuf,
    /// The file.
    pub file: Box<dyn FsFile>,
    /// Its bytes that are durable: a whole number of records. What is behind them is not part of
    /// what is held.
    pub bytes: u64,
    /// Its first record.
    pub first: Lsn,
    /// Behind its last durable record.
    pub next: Lsn,
    /// Whether it is complete: neither this process nor a later one writes to the file or cuts it.
    pub closed: bool,
}

impl Log {
    /// All that is durable now, oldest first. The log may go on being written.
    ///
    /// # Errors
    ///
    /// [`LogError::Io`] if a segment cannot be opened. The log is none the worse for it.
    pub fn hold(&self) -> Result<Vec<HeldSegment>, LogError> {
        let found = self.files();
        let newest = found.len().saturating_sub(1);
        let segments = found.into_iter().enumerate();
        segments
            .map(|(at, (path, info))| {
                let file = self.fs().open(&path).map_err(LogError::io("open", &path))?;
                Ok(HeldSegment {
                    path,
                    file,
                    bytes: info.bytes,
                    first: info.first_lsn,
                    next: info.next_lsn,
                    closed: at < newest,
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use millrace_model::TimestampMs;

    use super::*;
    use crate::fs::{Fs as _, OsFs};
    use crate::{LogOptions, NewRecord};

    fn append(log: &mut Log, payload: &[u8]) {
        let record = NewRecord {
            time: TimestampMs(1),
            parts: &[payload],
        };
        log.append(&[record]).unwrap();
    }

    #[test]
    fn what_is_held_is_what_was_durable_and_outlives_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let open = |of: &Path| {
            let fs = Arc::new(OsFs);
            Log::open(fs, of, LogOptions::default(), Lsn(0)).unwrap().0
        };
        let mut log = open(&dir.path().join("log"));
        append(&mut log, b"one");
        log.roll().unwrap();
        append(&mut log, b"two");
        log.sync().unwrap();
        append(&mut log, b"not synced");
        let held = log.hold().unwrap();
        let closed: Vec<_> = held
            .iter()
            .map(|s| (s.first.0, s.next.0, s.closed))
            .collect();
        assert_eq!(closed, [(0, 1, true), (1, 2, false)]);
        log.remove_below(Lsn(1)).unwrap();
        let copy = dir.path().join("copy");
        std::fs::create_dir(&copy).unwrap();
        for segment in &held {
            let mut bytes = vec![0; usize::try_from(segment.bytes).unwrap()];
            segment.file.read_exact_at(&mut bytes, 0).unwrap();
            let name = segment.path.file_name().unwrap();
            let file = OsFs.create_new(&copy.join(name)).unwrap();
            file.write_all_at(&bytes, 0).unwrap();
        }
        let copied = open(&copy);
        let mut found = Vec::new();
        copied.reader().read(Lsn(0), 1 << 20, &mut found).unwrap();
        copied.reader().read(Lsn(1), 1 << 20, &mut found).unwrap();
        let payloads: Vec<_> = found.iter().map(|r| &r.payload[..]).collect();
        assert_eq!(payloads, [&b"one"[..], b"two"]);
    }
}
