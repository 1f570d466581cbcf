//! A shard's live blocks: written by a seal, opened by the next start, read by queries.

use std::collections::BTreeSet;
use std::sync::Arc;

use millrace_log::fs::Fs;
use millrace_model::{DeleteId, TimeRange};
use parking_lot::Mutex;

use super::seal::{FrozenTable, SealJob};
use crate::block::{BlockMeta, BlockReader, BlockWriter, PageCache};
use crate::error::StoreError;
use crate::manifest::BlockEntry;
use crate::memtable::{SeriesRef, SeriesSnapshot};
use crate::paths::{BlockId, ShardDir};

/// A live block.
#[derive(Debug)]
pub(crate) struct LiveBlock {
    pub(crate) entry: BlockEntry,
    pub(crate) reader: BlockReader,
    /// Deletes that hide nothing in it.
    pub(crate) unaffected: Mutex<BTreeSet<DeleteId>>,
    /// How many ages of the retention rules it had passed when all of its series were found to stay.
    pub(crate) kept_after: Mutex<Option<usize>>,
}

impl LiveBlock {
    /// Opens the block that the manifest lists, and compares the two.
    pub(crate) fn open(
        fs: &dyn Fs,
        dir: &ShardDir,
        pages: &Arc<PageCache>,
        entry: BlockEntry,
    ) -> Result<Self, StoreError> {
        let path = dir.block(entry.id);
        let reader = BlockReader::open(fs, &path)?.with_pages(Arc::clone(pages));
        let summary = reader.summary();
        let found = (summary.bytes, summary.footer_crc);
        let listed = (entry.bytes, entry.footer_crc);
        if listed != found {
            return Err(StoreError::BlockMismatch {
                path,
                listed,
                found,
            });
        }
        Ok(Self {
            entry,
            reader,
            unaffected: Mutex::default(),
            kept_after: Mutex::default(),
        })
    }

    /// The time between its first and its last sample.
    pub(crate) fn range(&self) -> TimeRange {
        TimeRange::new(self.entry.min_time, self.entry.max_time)
    }
}

impl SealJob {
    /// Writes what the memtable has in one window. `None` if that is nothing.
    pub(super) fn write_block(
        &self,
        frozen: &FrozenTable,
        id: BlockId,
        window: (i64, i64),
        order: &[SeriesRef],
    ) -> Result<Option<LiveBlock>, StoreError> {
        let fs = &*self.context.fs;
        let options = self.context.options.block_options();
        let mut writer = BlockWriter::with_options(fs, &self.dir.block(id), &options);
        let mut snapshot = SeriesSnapshot::default();
        let (mut timestamps, mut values) = (Vec::new(), Vec::new());
        // Nobody writes to it any more.
        let table = frozen.table.rows();
        for &at in order {
            timestamps.clear();
            values.clear();
            table.snapshot(at, window, &mut snapshot);
            let (tenant, labels) = table.describe(at);
            let decoded = snapshot.decode(&mut timestamps, &mut values);
            decoded.map_err(|source| StoreError::Chunk {
                series: labels.to_string(),
                source,
            })?;
            if !timestamps.is_empty() {
                writer.push(tenant, labels, &timestamps, &values)?;
            }
        }
        drop(table);
        if writer.is_empty() {
            return Ok(None);
        }
        let summary = writer.finish(BlockMeta {
            partition: self.partition,
            window: TimeRange::new(window.0, window.1),
            offsets: frozen.offsets,
            created_at: self.context.clock.now(),
        })?;
        let entry = BlockEntry {
            id,
            layer: frozen.table.layer(),
            bytes: summary.bytes,
            footer_crc: summary.footer_crc,
            min_time: summary.samples_range.start.0,
            max_time: summary.samples_range.end.0,
            offsets: frozen.offsets,
            series: u64::from(summary.series),
            samples: summary.samples,
            sequences: (frozen.sequence, frozen.sequence),
            level: 0,
            rewrites: 0,
        };
        LiveBlock::open(fs, &self.dir, &self.context.pages, entry).map(Some)
    }
}
