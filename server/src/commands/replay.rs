//! `millrace replay`: records of the queue, read once more.
//!
//! With `--into` they are applied to a store in a fresh directory. That does what every store does: it
//! drops what it has applied already, by position. So a replay that was interrupted goes on where it
//! ended, and one that is repeated changes nothing. With `--live` a running store restores what of them
//! it lacks (`live.rs`).

mod live;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgGroup, Args};
use millrace_model::{Offset, PartitionId, QueueId, TimestampMs};
use millrace_queue::{ConsumeError, Consumer, Record, RecordSource};
use millrace_store::Store;
use millrace_store::shard::ShardState;

use super::offline::{Offline, all, data};
use super::progress::Progress;
use super::records;
use super::tail::{failed, moment, partitions};
use crate::config::Config;
use crate::failure::Failure;
use crate::options;

/// Between two looks at how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Which records, and where to.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("target").required(true).args(["into", "live"]))]
pub struct ReplayArgs {
    /// The directory that takes the samples: a new one, or that of the same replay interrupted
    #[arg(long, value_name = "DIR")]
    pub into: Option<PathBuf>,
    /// Let a running store, whose setting server.admin_api must be on, restore what it lacks of the
    /// records; what can be read stays as it is
    #[arg(long)]
    pub live: bool,
    /// A running server; without it, the queue of the configuration is opened, and with --live the
    /// server at the configured address is asked
    #[arg(long)]
    pub url: Option<String>,
    /// Only these partitions
    #[arg(long, value_delimiter = ',')]
    pub partition: Vec<u32>,
    /// First offset, of each partition
    #[arg(long, conflicts_with = "since")]
    pub from: Option<u64>,
    /// Behind the last offset, of each partition
    #[arg(long, conflicts_with = "until")]
    pub to: Option<u64>,
    /// What the queue took from this moment on: RFC 3339, Unix seconds, or how long ago (1h)
    #[arg(long, value_parser = moment)]
    pub since: Option<TimestampMs>,
    /// And before this moment
    #[arg(long, value_parser = moment)]
    pub until: Option<TimestampMs>,
}

/// Replays, and says how much.
///
/// # Errors
///
/// Queue or store cannot be opened or read; offsets that the queue has not.
pub fn run(config: &Config, args: &ReplayArgs) -> Result<(), Failure> {
    match &args.into {
        Some(dir) => into(config, args, dir),
        None => live::run(config, args),
    }
}

fn into(config: &Config, args: &ReplayArgs, dir: &Path) -> Result<(), Failure> {
    let opened = records::open(config, args.url.as_deref())?;
    let queue = &*opened.queue;
    let wanted = partitions(queue, &args.partition)?;
    let mut ranges = BTreeMap::new();
    for partition in wanted {
        ranges.insert(partition, range(queue, partition, args)?);
    }

    let offline = Offline::open_dir(dir)?;
    let identity = queue.identity();
    let store = offline.open_store(options::store(config), identity, &all(identity))?;
    let mut consumers: Vec<Box<dyn Consumer>> = Vec::new();
    let mut total = 0;
    for (partition, applied) in store.resume_offsets() {
        let range = ranges.get(&partition).cloned();
        let left = range.map_or(applied..applied, |range| {
            range.start.max(applied)..range.end
        });
        total += left.end.0.saturating_sub(left.start.0);
        consumers.push(Box::new(Limited::new(queue, partition, left)?));
    }
    store.start(consumers).map_err(data)?;
    let replayed = follow(&store, &ranges, total);
    let closed = store.close().map_err(data);
    replayed.and(closed)?;
    let samples: u64 = store.status().iter().map(|s| s.memtable_samples).sum();
    tracing::debug!(samples, "samples in memory at the end");
    eprintln!("replayed into {}", dir.display());
    Ok(())
}

/// The offsets of a partition that are meant.
fn range(
    queue: &dyn RecordSource,
    partition: PartitionId,
    args: &ReplayArgs,
) -> Result<Range<Offset>, Failure> {
    let bounds = queue.bounds(partition).map_err(failed)?;
    let start = match (args.from, args.since) {
        (Some(offset), _) => Offset(offset),
        (None, Some(time)) => queue.offset_at(partition, time).map_err(failed)?,
        (None, None) => bounds.start,
    };
    let end = match (args.to, args.until) {
        (Some(offset), _) => Offset(offset).min(bounds.end),
        (None, Some(time)) => queue.offset_at(partition, time).map_err(failed)?,
        (None, None) => bounds.end,
    };
    if start < bounds.start {
        return Err(failed(ConsumeError::TooOld {
            partition,
            wanted: start,
            first: bounds.start,
        }));
    }
    Ok(start..end)
}

/// Waits until the store has applied all ranges.
fn follow(
    store: &Store,
    ranges: &BTreeMap<PartitionId, Range<Offset>>,
    total: u64,
) -> Result<(), Failure> {
    let mut progress = Progress::new("replay", "records", total);
    loop {
        let mut left = 0;
        for shard in store.status() {
            if let ShardState::Stopped { reason, .. } = &shard.state {
                return Err(Failure::Data(format!(
                    "partition {}: {reason}",
                    shard.partition
                )));
            }
            let range = ranges.get(&shard.partition).filter(|r| !r.is_empty());
            left += range.map_or(0, |range| {
                range.end.0.saturating_sub(shard.applied.max(range.start).0)
            });
        }
        progress.set(total.saturating_sub(left));
        if left == 0 {
            progress.finish();
            return Ok(());
        }
        std::thread::park_timeout(LOOK_EVERY);
    }
}

/// A consumer that sees a range of the partition, and then waits as if there were no more.
#[derive(Debug)]
struct Limited {
    queue: QueueId,
    partition: PartitionId,
    inner: Option<Box<dyn Consumer>>,
    range: Range<Offset>,
    next: Offset,
}

impl Limited {
    fn new(
        queue: &dyn RecordSource,
        partition: PartitionId,
        range: Range<Offset>,
    ) -> Result<Self, Failure> {
        let inner = if range.is_empty() {
            None
        } else {
            Some(queue.read_from(partition, range.start).map_err(failed)?)
        };
        Ok(Self {
            queue: queue.identity().id,
            partition,
            inner,
            next: range.start,
            range,
        })
    }
}

impl Consumer for Limited {
    fn partition(&self) -> PartitionId {
        self.partition
    }

    fn queue(&self) -> Result<QueueId, ConsumeError> {
        match &self.inner {
            Some(inner) => inner.queue(),
            None => Ok(self.queue),
        }
    }

    fn range(&self) -> Result<Range<Offset>, ConsumeError> {
        match &self.inner {
            Some(inner) => Ok(inner.range()?.start..self.range.end),
            // There is nothing to read, so there is nothing that could have changed.
            None => Ok(self.next..Offset(u64::MAX)),
        }
    }

    fn record_at(
        &mut self,
        offset: Offset,
        patience: Duration,
    ) -> Result<Option<Record>, ConsumeError> {
        match &mut self.inner {
            Some(inner) => inner.record_at(offset, patience),
            None => Ok(None),
        }
    }

    fn poll(
        &mut self,
        max_bytes: usize,
        wait: Duration,
        out: &mut Vec<Record>,
    ) -> Result<(), ConsumeError> {
        let ended = self.next >= self.range.end;
        let Some(inner) = self.inner.as_mut().filter(|_| !ended) else {
            std::thread::park_timeout(wait);
            return Ok(());
        };
        let before = out.len();
        inner.poll(max_bytes, wait, out)?;
        let end = self.range.end;
        let kept = out[before..].iter().take_while(|r| r.offset < end).count();
        if before + kept < out.len() {
            // Kafka's offsets have holes: the last one of the range may not be there.
            self.next = end;
            out.truncate(before + kept);
        } else if let Some(last) = out.get(before..).and_then(<[Record]>::last) {
            self.next = last.offset.advanced(1);
        }
        Ok(())
    }

    fn seek(&mut self, next: Offset) {
        // The store says where it is; it may lie before the range, which it then begins with.
        self.next = next.max(self.range.start);
        if let Some(inner) = &mut self.inner {
            inner.seek(self.next);
        }
    }

    fn end(&self) -> Result<Offset, ConsumeError> {
        Ok(self.range.end)
    }

    fn commit(&mut self, _: Offset) -> Result<(), ConsumeError> {
        // Nor do its tools follow a replay.
        Ok(())
    }

    fn release(&mut self, _: Offset) -> Result<(), ConsumeError> {
        // The queue belongs to somebody else.
        Ok(())
    }
}
