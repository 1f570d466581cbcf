//! Looking at a store's directory without opening it: nothing is cut, written or removed, every
//! checksum is verified, the parts are compared with each other, and one damage does not hide the
//! next. For tools, while no process has the store open.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use millrace_log::fs::{Fs, read_all};
use millrace_log::{Examined, LogError, examine as examine_log};
use millrace_model::batch::Batch;
use millrace_model::{Offset, PartitionId, QueueId};

use crate::block::{BlockReader, BlockSummary};
use crate::error::{IoContext, StoreError};
use crate::manifest::{self, BlockEntry, ManifestState};
use crate::paths::{
    BlockId, ShardDir, is_temporary, parse_block, parse_cover, parse_sheet, view_list,
};
use crate::{dead_letters, views, wal};

/// Something that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file or directory.
    pub path: PathBuf,
    /// What is wrong with it.
    pub what: String,
}

impl Finding {
    fn new(path: &Path, what: impl ToString) -> Self {
        Self {
            path: path.to_owned(),
            what: what.to_string(),
        }
    }
}

/// One shard as it lies on the disk.
#[derive(Clone, Debug)]
pub struct ExaminedShard {
    /// Which.
    pub partition: PartitionId,
    /// Its directory.
    pub dir: PathBuf,
    /// What the newest readable manifest says; `None` if there is none.
    pub manifest: Option<ExaminedManifest>,
    /// The blocks that the manifest lists and that can be opened, by sequence.
    pub blocks: Vec<ExaminedBlock>,
    /// Bytes of the WAL's segments.
    pub wal_bytes: u64,
    /// Records in the WAL, and those of them that are not in blocks yet.
    pub wal_records: (u64, u64),
    /// Samples of those that are not in blocks yet, duplicates counted.
    pub wal_samples: u64,
    /// Dead letters.
    pub dead_letters: u64,
    /// What is wrong.
    pub damages: Vec<Finding>,
    /// What the next open puts in order by itself: leftovers of a process that was killed.
    pub leftovers: Vec<Finding>,
}

/// What the manifest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExaminedManifest {
    /// The file.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// The queue that feeds the shard, and the number of its partitions.
    pub queue: QueueId,
    /// See `queue`.
    pub partitions: u32,
    /// Everything below this offset of the queue is in blocks.
    pub sealed: Offset,
    /// Blocks that it lists.
    pub blocks: u64,
}

/// One block.
#[derive(Clone, Debug)]
pub struct ExaminedBlock {
    /// Its name.
    pub id: BlockId,
    /// The file.
    pub path: PathBuf,
    /// What it says of itself.
    pub summary: BlockSummary,
}

/// How much is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Manifest, WAL, and the footers of blocks.
    Outline,
    /// Every byte.
    Whole,
}

/// Examines all shards under the directory of a store, in order of their partitions. `progress` is
/// called with the bytes of each file that was read.
///
/// # Errors
///
/// Of the file system; damages are in the answer.
pub fn examine(
    fs: &dyn Fs,
    dir: &Path,
    depth: Depth,
    progress: &mut dyn FnMut(u64),
) -> Result<Vec<ExaminedShard>, StoreError> {
    let mut partitions: Vec<PartitionId> = fs
        .list(dir)
        .context("list", dir)?
        .iter()
        .filter_map(|entry| entry.name.parse().ok().map(PartitionId))
        .collect();
    partitions.sort_unstable();
    let shards = partitions.into_iter();
    let mut shards = shards
        .map(|partition| Examiner::new(fs, dir, partition, depth).run(progress))
        .collect::<Result<Vec<_>, _>>()?;
    let list = view_list(dir);
    if fs.exists(&list).context("look for", &list)? {
        let bytes = read_all(fs, &list, manifest::MAX_FILE_BYTES).context("read", &list)?;
        progress(bytes.len() as u64);
        // It belongs to all of them; the first one tells.
        if let (Err(what), Some(first)) = (views::decode_list(&bytes), shards.first_mut()) {
            first.damages.push(Finding::new(&list, what));
        }
    }
    Ok(shards)
}

struct Examiner<'a> {
    fs: &'a dyn Fs,
    dir: ShardDir,
    depth: Depth,
    shard: ExaminedShard,
}

impl<'a> Examiner<'a> {
    fn new(fs: &'a dyn Fs, store: &Path, partition: PartitionId, depth: Depth) -> Self {
        let dir = ShardDir::new(store, partition);
        Self {
            fs,
            depth,
            shard: ExaminedShard {
                partition,
                dir: dir.root().to_owned(),
                manifest: None,
                blocks: Vec::new(),
                wal_bytes: 0,
                wal_records: (0, 0),
                wal_samples: 0,
                dead_letters: 0,
                damages: Vec::new(),
                leftovers: Vec::new(),
            },
            dir,
        }
    }

    fn run(mut self, progress: &mut dyn FnMut(u64)) -> Result<ExaminedShard, StoreError> {
        let root = self.dir.root().to_owned();
        for entry in self.fs.list(&root).context("list", &root)? {
            if is_temporary(&entry.name) {
                self.leftover(&root.join(&entry.name), "a file that was not finished");
            }
        }
        let state = self.manifest()?;
        let sealed = state.as_ref().map(|state| (state.sealed, state.wal_lsn));
        self.wal(sealed, progress)?;
        self.dead_letters(progress)?;
        self.blocks(state.as_ref(), progress)?;
        self.views(progress)?;
        Ok(self.shard)
    }

    fn damage(&mut self, path: &Path, what: impl ToString) {
        self.shard.damages.push(Finding::new(path, what));
    }

    fn leftover(&mut self, path: &Path, what: impl ToString) {
        self.shard.leftovers.push(Finding::new(path, what));
    }

    /// Reads both generations: the older one is what is left if the newer one is lost.
    fn manifest(&mut self) -> Result<Option<ManifestState>, StoreError> {
        let mut newest = None;
        let generations = manifest::generations(self.fs, &self.dir)?;
        for generation in generations {
            let path = self.dir.manifest(generation);
            let bytes =
                read_all(self.fs, &path, manifest::MAX_FILE_BYTES).context("read", &path)?;
            match manifest::decode(&path, generation, &bytes) {
                Ok((state, torn)) => {
                    if torn > 0 {
                        let what = format!("{torn} bytes of an edit that was not finished");
                        self.leftover(&path, what);
                    }
                    self.shard.manifest = Some(ExaminedManifest {
                        bytes: bytes.len() as u64,
                        queue: state.queue,
                        partitions: state.partitions,
                        sealed: state.sealed,
                        blocks: state.blocks.len() as u64,
                        path,
                    });
                    newest = Some(state);
                }
                Err(error) => self.damage(&path, bare(&error)),
            }
        }
        if newest.is_none() && self.shard.damages.is_empty() {
            let path = self.dir.root().to_owned();
            self.damage(&path, "there is no manifest");
        }
        Ok(newest)
    }

    fn wal(
        &mut self,
        sealed: Option<(Offset, u64)>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), StoreError> {
        let dir = self.dir.wal();
        if !self.fs.exists(&dir).context("look for", &dir)? {
            // A shard that was killed while it was created.
            return Ok(());
        }
        let (mut records, mut unsealed, mut samples) = (0, 0, 0);
        let mut bad = Vec::new();
        let mut next = Offset::ZERO;
        let below = sealed.map_or(Offset::ZERO, |(offset, _)| offset);
        let examined = examine_log(self.fs, &dir, &mut |record| {
            records += 1;
            match wal::decode(record.lsn.0, &record.payload) {
                Ok(record) if record.offset < next => bad.push(format!(
                    "record {} stands behind record {}",
                    record.offset,
                    next.0 - 1
                )),
                Ok(record) => {
                    next = record.offset.advanced(1);
                    if record.offset >= below {
                        unsealed += 1;
                        // What cannot be decoded is a dead letter, which is no damage.
                        samples += Batch::decode(&record.payload).map_or(0, |b| b.samples().into());
                    }
                }
                Err(error) => bad.push(error.to_string()),
            }
        })
        .map_err(|source| StoreError::Log {
            what: "WAL",
            source,
        })?;
        self.log(&dir, &examined, progress);
        bad.iter().for_each(|what| self.damage(&dir, what));
        if let Some((_, wal_lsn)) = sealed {
            let ends = (examined.segments.first(), examined.segments.last());
            if let (Some(first), Some(last)) = ends {
                if first.first.0 > wal_lsn {
                    let what = format!(
                        "begins at record {}, but the manifest needs those from {wal_lsn} on: the \
                         manifest has lost an edit",
                        first.first
                    );
                    self.damage(&dir, what);
                }
                if last.next.0 < wal_lsn && examined.damages.is_empty() {
                    let what = format!(
                        "ends at record {}, but everything below {wal_lsn} was synced",
                        last.next
                    );
                    self.damage(&dir, what);
                }
            }
        }
        self.shard.wal_bytes = examined.segments.iter().map(|s| s.bytes).sum();
        self.shard.wal_records = (records, unsealed);
        self.shard.wal_samples = samples;
        Ok(())
    }

    fn dead_letters(&mut self, progress: &mut dyn FnMut(u64)) -> Result<(), StoreError> {
        let dir = self.dir.dead_letters();
        if !self.fs.exists(&dir).context("look for", &dir)? {
            return Ok(());
        }
        let mut bad = Vec::new();
        let mut letters = 0;
        let examined = examine_log(self.fs, &dir, &mut |record| {
            letters += 1;
            if let Err(error) = dead_letters::decode(record.lsn, &record.payload) {
                bad.push(error.to_string());
            }
        })
        .map_err(|source| StoreError::Log {
            what: "dead letters",
            source,
        })?;
        self.log(&dir, &examined, progress);
        bad.iter().for_each(|what| self.damage(&dir, what));
        self.shard.dead_letters = letters;
        Ok(())
    }

    fn log(&mut self, dir: &Path, examined: &Examined, progress: &mut dyn FnMut(u64)) {
        for error in &examined.damages {
            let path = match error {
                LogError::Corrupt { path, .. }
                | LogError::Missing { path, .. }
                | LogError::Version { path, .. }
                | LogError::Io { path, .. } => path.clone(),
                LogError::Removed { .. }
                | LogError::BeyondEnd { .. }
                | LogError::RecordTooLarge { .. }
                | LogError::Exhausted { .. } => dir.to_owned(),
            };
            let text = error.to_string();
            let what = text.strip_prefix(&format!("{path:?}: ")).unwrap_or(&text);
            self.damage(&path, what);
        }
        if examined.torn_bytes > 0 {
            let what = format!(
                "{} bytes of an append that was not finished",
                examined.torn_bytes
            );
            self.leftover(dir, what);
        }
        for path in &examined.temporary {
            self.leftover(path, "a file that was not finished");
        }
        examined.segments.iter().for_each(|s| progress(s.bytes));
    }

    fn blocks(
        &mut self,
        state: Option<&ManifestState>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), StoreError> {
        let dir = self.dir.blocks();
        if !self.fs.exists(&dir).context("look for", &dir)? {
            return Ok(());
        }
        let names = self.fs.list(&dir).context("list", &dir)?;
        let there: BTreeSet<BlockId> = names.iter().filter_map(|e| parse_block(&e.name)).collect();
        for entry in &names {
            if is_temporary(&entry.name) {
                self.leftover(&dir.join(&entry.name), "a block that was not finished");
            }
        }
        let Some(state) = state else {
            // Which of them count only the manifest knows.
            return Ok(());
        };
        for id in &there {
            if !state.blocks.contains_key(id) {
                let path = self.dir.block(*id);
                self.leftover(&path, "a block that the manifest does not list");
            }
        }
        for (id, entry) in &state.blocks {
            let path = self.dir.block(*id);
            if !there.contains(id) {
                self.damage(&path, "the manifest lists it, and it is not there");
                continue;
            }
            self.block(path, entry);
            progress(entry.bytes);
        }
        Ok(())
    }

    fn views(&mut self, progress: &mut dyn FnMut(u64)) -> Result<(), StoreError> {
        let dir = self.dir.views();
        if !self.fs.exists(&dir).context("look for", &dir)? {
            return Ok(());
        }
        let names = self.fs.list(&dir).context("list", &dir)?;
        let mut named = BTreeSet::new();
        for view in names.iter().filter_map(|entry| parse_cover(&entry.name)) {
            let path = self.dir.cover(view);
            let bytes =
                read_all(self.fs, &path, manifest::MAX_FILE_BYTES).context("read", &path)?;
            progress(bytes.len() as u64);
            let cover = match views::decode_cover(&bytes) {
                Ok(cover) => cover,
                Err(what) => {
                    self.damage(&path, what);
                    continue;
                }
            };
            for (cell, entry) in &cover.sheets {
                named.insert((view, *cell, entry.generation));
                let path = self.dir.sheet(view, *cell, entry.generation);
                if !self.fs.exists(&path).context("look for", &path)? {
                    self.damage(&path, "the cover of its view names it, and it is not there");
                } else if self.depth == Depth::Whole {
                    match views::verify_sheet(self.fs, &path, view, *cell, entry) {
                        Ok(()) => progress(entry.bytes),
                        Err(error) => self.damage(&path, bare(&error)),
                    }
                }
            }
        }
        for entry in &names {
            let orphan = parse_sheet(&entry.name).is_some_and(|sheet| !named.contains(&sheet));
            if orphan || is_temporary(&entry.name) {
                self.leftover(
                    &dir.join(&entry.name),
                    "a file of a view that nothing names",
                );
            }
        }
        Ok(())
    }

    fn block(&mut self, path: PathBuf, entry: &BlockEntry) {
        let reader = match BlockReader::open(self.fs, &path) {
            Ok(reader) => reader,
            Err(error) => return self.damage(&path, error),
        };
        let summary = reader.summary();
        let (found, listed) = (
            (summary.bytes, summary.footer_crc),
            (entry.bytes, entry.footer_crc),
        );
        if found != listed {
            let what = format!(
                "is another block than the manifest lists: {} bytes with footer {:08x}, listed are \
                 {} bytes with footer {:08x}",
                found.0, found.1, listed.0, listed.1
            );
            return self.damage(&path, what);
        }
        if self.depth == Depth::Whole
            && let Err(error) = reader.verify()
        {
            self.damage(&path, error);
        }
        self.shard.blocks.push(ExaminedBlock {
            id: entry.id,
            path,
            summary,
        });
    }
}

/// A manifest's error without the path, which the finding has.
fn bare(error: &StoreError) -> String {
    let text = error.to_string();
    text.split_once(": ")
        .map_or(text.clone(), |(_, rest)| rest.to_owned())
}
