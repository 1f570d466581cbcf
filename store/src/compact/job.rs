//! Doing it: k blocks are read side by side, series by series, and written as one block for each
//! window.

use std::cmp::Ordering;
use std::sync::Arc;

use millrace_log::fs::Fs;
use millrace_log::planted::active;
use millrace_model::{Labels, Offset, PartitionId, TenantId, TimeRange, TimestampMs};

use crate::block::{
    BlockIter, BlockMeta, BlockOptions, BlockSeries, BlockWriter, PageCache, RollupColumns,
};
use crate::error::{IoContext, StoreError};
use crate::manifest::BlockEntry;
use crate::merge::Merger;
use crate::paths::{BlockId, ShardDir};
use crate::planted::{BLOCK_DIR_UNSYNCED, COMPACTION_OLDER_WINS};
use crate::shard::{Change, LiveBlock};
use crate::tombstone::{Masks, Tombstone};

/// Blocks of one job at the most.
const OUTPUTS_MAX: i128 = 64;

/// Which series stay.
pub(crate) trait Keep: Send + Sync + std::fmt::Debug {
    /// Whether the raw samples of this series stay.
    fn keeps(&self, tenant: &TenantId, labels: &Labels) -> bool;
}

/// A merge. Runs on any thread; nothing but its inputs and its own files are touched.
#[derive(Debug)]
pub(crate) struct CompactJob {
    pub(crate) fs: Arc<dyn Fs>,
    pub(crate) dir: ShardDir,
    pub(crate) pages: Arc<PageCache>,
    pub(crate) partition: PartitionId,
    pub(crate) now: TimestampMs,
    /// In the order of their sequences. One that has only rollups comes alone.
    pub(crate) inputs: Vec<Arc<LiveBlock>>,
    /// Deletes that take effect for good. Others go on hiding.
    pub(crate) deletes: Vec<Arc<Tombstone>>,
    /// Which series stay, if not all.
    pub(crate) keep: Option<Arc<dyn Keep>>,
    /// How the outputs are written.
    pub(crate) options: BlockOptions,
    /// The number of the outputs' files.
    pub(crate) sequence: u64,
    /// Width of the outputs' windows; 0 leaves what the inputs span in one.
    pub(crate) width_ms: i64,
    pub(crate) level: u8,
    pub(crate) rewrites: u8,
}

/// Blocks that are written and durable, and not live yet.
#[derive(Debug)]
pub(crate) struct Compacted {
    pub(crate) inputs: Vec<BlockId>,
    pub(crate) outputs: Vec<LiveBlock>,
    pub(crate) read_bytes: u64,
    pub(crate) written_bytes: u64,
}

impl Compacted {
    /// The edit that puts the outputs in the place of the inputs.
    pub(crate) fn into_change(self) -> Change {
        Change {
            removed: self.inputs,
            added: self.outputs,
            ..Change::default()
        }
    }
}

impl CompactJob {
    /// Writes the outputs.
    ///
    /// # Errors
    ///
    /// Damage in an input, or of the file system. What was written is an orphan.
    pub(crate) fn run(&self) -> Result<Compacted, StoreError> {
        let mut outputs = Vec::new();
        for (ordinal, window) in self.windows().into_iter().enumerate() {
            let id = BlockId {
                sequence: self.sequence,
                ordinal: u32::try_from(ordinal).expect("blocks of a job are bounded"),
            };
            outputs.extend(self.write_block(id, window)?);
        }
        let dir = self.dir.blocks();
        if !outputs.is_empty() && !active(BLOCK_DIR_UNSYNCED) {
            // IMPORTANT: the names before the manifest lists them.
            self.fs.sync_dir(&dir).context("sync", &dir)?;
        }
        Ok(Compacted {
            inputs: self.inputs.iter().map(|b| b.entry.id).collect(),
            read_bytes: self.inputs.iter().map(|b| b.entry.bytes).sum(),
            written_bytes: outputs.iter().map(|b| b.entry.bytes).sum(),
            outputs,
        })
    }

    /// Removes what a run that failed has left.
    pub(crate) fn discard(&self) {
        for ordinal in 0..self.windows().len() {
            let id = BlockId {
                sequence: self.sequence,
                ordinal: u32::try_from(ordinal).expect("blocks of a job are bounded"),
            };
            let path = self.dir.block(id);
            let mut temporary = path.clone().into_os_string();
            temporary.push(millrace_log::fs::TEMPORARY_SUFFIX);
            for path in [path, temporary.into()] {
                let removed = match self.fs.exists(&path) {
                    Ok(true) => self.fs.unlink(&path),
                    Ok(false) => Ok(()),
                    Err(error) => Err(error),
                };
                if let Err(error) = removed {
                    // An orphan, which the next open removes.
                    tracing::warn!(?path, %error, "leftover of a failed compaction not removed");
                }
            }
        }
    }

    /// The windows that the inputs' samples may be in, aligned to the epoch.
    fn windows(&self) -> Vec<(i64, i64)> {
        let min = self.inputs.iter().map(|b| b.entry.min_time).min();
        let max = self.inputs.iter().map(|b| b.entry.max_time).max();
        let (Some(min), Some(max)) = (min, max) else {
            return Vec::new();
        };
        if self.width_ms == 0 {
            return vec![(min, max)];
        }
        let (min, max) = (i128::from(min), i128::from(max));
        let mut width = i128::from(self.width_ms);
        while max.div_euclid(width) - min.div_euclid(width) >= OUTPUTS_MAX {
            width *= 2;
        }
        let clamp = |moment: i128| {
            let moment = moment.clamp(i128::from(i64::MIN), i128::from(i64::MAX));
            i64::try_from(moment).expect("clamped to the range of i64")
        };
        (min.div_euclid(width)..=max.div_euclid(width))
            .map(|number| (clamp(number * width), clamp((number + 1) * width - 1)))
            .collect()
    }

    /// What the inputs have in one window, as a block; `None` if that is nothing.
    fn write_block(
        &self,
        id: BlockId,
        window: (i64, i64),
    ) -> Result<Option<LiveBlock>, StoreError> {
        let range = TimeRange::new(window.0, window.1);
        if let [bare] = &self.inputs[..]
            && bare.reader.without_samples()
        {
            return self.write_bare(id, bare, range);
        }
        let mut sources = self
            .inputs
            .iter()
            .filter(|block| block.range().overlaps(range))
            .map(|block| Cursor::open(block))
            .collect::<Result<Vec<_>, _>>()?;
        if active(COMPACTION_OLDER_WINS) {
            sources.reverse();
        }
        let mut writer = BlockWriter::with_options(&*self.fs, &self.dir.block(id), &self.options);
        let mut columns = Columns::default();
        while let Some((tenant, labels)) = smallest(&sources) {
            columns.clear();
            let kept = self.keep.as_ref().is_none_or(|k| k.keeps(&tenant, &labels));
            let mut merger = Merger::default();
            for source in &mut sources {
                if let Some(series) = source.take(&tenant, &labels)?
                    && kept
                {
                    self.read(source.block, &tenant, &series, range, &mut columns)?;
                    merger.push(&columns.timestamps, &columns.values);
                    columns.clear();
                }
            }
            merger.take(&mut columns.timestamps, &mut columns.values);
            if !columns.timestamps.is_empty() {
                writer.push(&tenant, &labels, &columns.timestamps, &columns.values)?;
            }
        }
        self.finish(writer, id, range)
    }

    /// What is left of a block that has only rollups, again as such a block.
    fn write_bare(
        &self,
        id: BlockId,
        block: &LiveBlock,
        range: TimeRange,
    ) -> Result<Option<LiveBlock>, StoreError> {
        assert!(self.options.without_samples, "samples that are gone");
        let mut writer = BlockWriter::with_options(&*self.fs, &self.dir.block(id), &self.options);
        let resolutions = writer.resolutions().to_vec();
        for series in &block.reader {
            let (tenant, BlockSeries { labels, place, .. }) = series?;
            if self
                .keep
                .as_ref()
                .is_some_and(|k| !k.keeps(&tenant, &labels))
            {
                continue;
            }
            let masks = Masks::new(&self.deletes, &tenant, block.entry.sequences.1, range);
            let hidden = masks.of(&labels);
            if hidden.covers(place.range()) {
                continue;
            }
            let mut rollups = Vec::with_capacity(resolutions.len());
            let mut left = None;
            for &resolution in &resolutions {
                let mut columns = RollupColumns::default();
                let reader = &block.reader;
                reader.read_rollup(&place, resolution, TimeRange::ALL, &mut columns)?;
                // What is deleted of a bucket cannot be told from the rest of it.
                if columns.retain(|first, last| !hidden.overlaps(TimeRange::new(first, last))) {
                    left = left.max(Some(columns.counts.iter().sum()));
                }
                rollups.push(columns);
            }
            let (range, samples) = match left {
                None => (place.range(), place.samples()),
                Some(0) => continue,
                Some(samples) => (span(&rollups, place.range()), samples),
            };
            writer.push_rollups(&tenant, &labels, range, samples, &rollups)?;
        }
        self.finish(writer, id, range)
    }

    fn finish(
        &self,
        writer: BlockWriter<'_>,
        id: BlockId,
        range: TimeRange,
    ) -> Result<Option<LiveBlock>, StoreError> {
        if writer.is_empty() {
            return Ok(None);
        }
        let offsets = self.offsets();
        let summary = writer.finish(BlockMeta {
            partition: self.partition,
            window: range,
            offsets,
            created_at: self.now,
        })?;
        let layer = self.inputs.first().map(|block| block.entry.layer);
        let entry = BlockEntry {
            id,
            layer: layer.expect("a job has an input"),
            bytes: summary.bytes,
            footer_crc: summary.footer_crc,
            min_time: summary.samples_range.start.0,
            max_time: summary.samples_range.end.0,
            offsets,
            series: u64::from(summary.series),
            samples: summary.samples,
            sequences: self.sequences(),
            level: self.level,
            rewrites: self.rewrites,
        };
        LiveBlock::open(&*self.fs, &self.dir, &self.pages, entry).map(Some)
    }

    /// Reads what one input has of a series, without what deletes hide.
    fn read(
        &self,
        block: &LiveBlock,
        tenant: &TenantId,
        series: &BlockSeries,
        range: TimeRange,
        columns: &mut Columns,
    ) -> Result<(), StoreError> {
        let Columns { timestamps, values } = columns;
        block
            .reader
            .read(&series.place, range, timestamps, values)?;
        let masks = Masks::new(&self.deletes, tenant, block.entry.sequences.1, range);
        masks.of(&series.labels).remove(0, timestamps, values);
        Ok(())
    }

    fn offsets(&self) -> (Offset, Offset) {
        let offsets = || self.inputs.iter().map(|b| b.entry.offsets);
        let from = offsets().map(|o| o.0).min().unwrap_or(Offset::ZERO);
        (from, offsets().map(|o| o.1).max().unwrap_or(from))
    }

    fn sequences(&self) -> (u64, u64) {
        let sequences = || self.inputs.iter().map(|b| b.entry.sequences);
        let first = sequences().map(|s| s.0).min().unwrap_or(0);
        (first, sequences().map(|s| s.1).max().unwrap_or(first))
    }
}

/// The time that all buckets' samples span; that of the series, if there is no bucket.
fn span(rollups: &[RollupColumns], of_series: TimeRange) -> TimeRange {
    let first = rollups.iter().filter_map(|r| r.first_times.first()).min();
    let last = rollups.iter().filter_map(|r| r.last_times.last()).max();
    match (first, last) {
        (Some(&first), Some(&last)) => TimeRange::new(first, last),
        _ => of_series,
    }
}

#[derive(Debug, Default)]
struct Columns {
    timestamps: Vec<i64>,
    values: Vec<f64>,
}

impl Columns {
    fn clear(&mut self) {
        self.timestamps.clear();
        self.values.clear();
    }
}

/// Goes through the series of one input.
struct Cursor<'a> {
    block: &'a LiveBlock,
    rest: BlockIter<'a>,
    /// The next series.
    head: Option<(TenantId, BlockSeries)>,
}

impl<'a> Cursor<'a> {
    fn open(block: &'a LiveBlock) -> Result<Self, StoreError> {
        let mut rest = block.reader.iter();
        let head = rest.next().transpose()?;
        Ok(Self { block, rest, head })
    }

    /// The next series, if it is this one.
    fn take(
        &mut self,
        tenant: &TenantId,
        labels: &Labels,
    ) -> Result<Option<BlockSeries>, StoreError> {
        let same = |head: &(TenantId, BlockSeries)| head.0 == *tenant && head.1.labels == *labels;
        if !self.head.as_ref().is_some_and(same) {
            return Ok(None);
        }
        let taken = std::mem::replace(&mut self.head, self.rest.next().transpose()?);
        Ok(taken.map(|(_, series)| series))
    }
}

/// The series that comes first in the order of a block.
fn smallest(sources: &[Cursor<'_>]) -> Option<(TenantId, Labels)> {
    let mut least: Option<(&TenantId, &Labels)> = None;
    for source in sources {
        let Some((tenant, series)) = &source.head else {
            continue;
        };
        let next = (tenant, &series.labels);
        let before = least.is_none_or(|least| compare(next, least) == Ordering::Less);
        if before {
            least = Some(next);
        }
    }
    least.map(|(tenant, labels)| (tenant.clone(), labels.clone()))
}

fn compare(a: (&TenantId, &Labels), b: (&TenantId, &Labels)) -> Ordering {
    a.0.cmp(b.0).then_with(|| a.1.cmp(b.1))
}
