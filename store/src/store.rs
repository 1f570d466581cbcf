//! All shards of one queue, as one store.

mod upkeep;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use millrace_log::fs::{Fs, create_dir_durable};
use millrace_model::{
    Clock, Labels, Matcher, MetricMetadata, Offset, PartitionId, QueueId, TenantId, TimeRange,
};
use millrace_queue::{Consumer, Position, QueueIdentity, ResumePoint};
use parking_lot::Mutex;
use prometheus::Registry;

use crate::block::{BlockSummary, PageCache};
use crate::compact::Pace;
use crate::dead_letters::DeadLetterBox;
use crate::error::{IoContext, StoreError};
use crate::manifest::{Gap, GapCause};
use crate::metrics::StoreMetrics;
use crate::options::StoreOptions;
use crate::part::StorePart;
use crate::read::StoreSeries;
use crate::retain::RetentionClock;
use crate::runtime::Runtime;
use crate::shard::{Shard, ShardContext, ShardStatus, Shared, View};
use crate::views::Views;

/// The store of one queue: a shard for each of its partitions, or for those of them that this store
/// owns while others own the rest.
///
/// Reads are answered from the moment it is open; [`start`](Self::start) lets it consume.
#[derive(Debug)]
pub struct Store {
    identity: QueueIdentity,
    options: StoreOptions,
    /// In order of their partitions.
    shared: Vec<Arc<Shared>>,
    dead_letters: Vec<DeadLetterBox>,
    runtime: Mutex<Stage>,
    pace: Arc<Pace>,
    clock: Arc<dyn Clock>,
    retention_clock: Arc<Mutex<RetentionClock>>,
    views: Arc<Views>,
}

/// The shards belong to the store until their threads take them.
#[derive(Debug)]
enum Stage {
    Open(Vec<Shard>),
    Running(Runtime),
    Closed,
}

impl Store {
    /// Opens the shards of all partitions under `dir`, each on a thread of its own, and recovers
    /// them.
    ///
    /// # Errors
    ///
    /// See [`StoreError`]; of several shards that fail, the first one's.
    pub fn open(
        fs: Arc<dyn Fs>,
        clock: Arc<dyn Clock>,
        dir: &Path,
        options: StoreOptions,
        identity: &QueueIdentity,
        registry: &Registry,
    ) -> Result<Self, StoreError> {
        let all: Vec<_> = (0..identity.partitions).map(PartitionId).collect();
        Self::open_partitions(fs, clock, dir, options, identity, &all, registry)
    }

    /// Opens the shards of the partitions `owned` alone, in any order, each named once. What `dir`
    /// holds of other partitions is left as it is. Together they get the memory of the options.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open); and [`StoreError::Consumers`] for a partition that the queue has
    /// not, or that is named twice.
    pub fn open_partitions(
        fs: Arc<dyn Fs>,
        clock: Arc<dyn Clock>,
        dir: &Path,
        options: StoreOptions,
        identity: &QueueIdentity,
        owned: &[PartitionId],
        registry: &Registry,
    ) -> Result<Self, StoreError> {
        let owned = check_owned(owned, identity)?;
        if let Some(what) = options.check() {
            return Err(StoreError::Options { what });
        }
        // Before the list of views is looked for.
        create_dir_durable(&*fs, dir).context("create", dir)?;
        let views = Arc::new(Views::open(Arc::clone(&fs), dir)?);
        let context = ShardContext {
            fs,
            clock,
            options: StoreOptions {
                memtable_bytes: share_of_all(options.memtable_bytes, &owned, identity),
                ..options.clone()
            },
            identity: identity.clone(),
            metrics: StoreMetrics::register(registry)?,
            pages: Arc::new(PageCache::new(options.index_cache_bytes)),
            views: Arc::clone(&views),
        };
        let shards = open_shards(&context, dir, &owned)?;
        Ok(Self {
            identity: identity.clone(),
            shared: shards.iter().map(|s| Arc::clone(s.shared())).collect(),
            dead_letters: shards.iter().map(Shard::dead_letters).collect(),
            retention_clock: Arc::new(Mutex::new(RetentionClock::new(
                shards.iter().filter_map(Shard::high_water).max(),
                context.clock.monotonic(),
            ))),
            clock: Arc::clone(&context.clock),
            runtime: Mutex::new(Stage::Open(shards)),
            views,
            pace: Arc::new(Pace::new(options.compaction.bytes_per_second)),
            options,
        })
    }

    /// The partitions that this store owns, in their order.
    #[must_use]
    pub fn owned(&self) -> Vec<PartitionId> {
        self.shared.iter().map(|s| s.partition).collect()
    }

    /// The queue that it is fed from.
    #[must_use]
    pub fn identity(&self) -> &QueueIdentity {
        &self.identity
    }

    /// The views that are derived.
    #[must_use]
    pub fn views(&self) -> &Arc<Views> {
        &self.views
    }

    pub(crate) fn shared(&self) -> &[Arc<Shared>] {
        &self.shared
    }

    pub(crate) fn shard(&self, partition: PartitionId) -> Option<&Arc<Shared>> {
        let at = self
            .shared
            .binary_search_by_key(&partition, |s| s.partition);
        at.ok().map(|at| &self.shared[at])
    }

    /// Where the consumers of [`start`](Self::start) must begin.
    #[must_use]
    pub fn resume_offsets(&self) -> Vec<(PartitionId, Offset)> {
        let offsets = self.shared.iter().map(|s| (s.partition, s.applied()));
        offsets.collect()
    }

    /// Starts a thread for each shard that applies what its consumer yields. One consumer for each
    /// partition, in any order.
    ///
    /// # Errors
    ///
    /// Consumers that do not fit the shards, a store that was started before, or no more threads.
    pub fn start(&self, consumers: Vec<Box<dyn Consumer>>) -> Result<(), StoreError> {
        let consumers = self.match_consumers(consumers)?;
        let mut stage = self.runtime.lock();
        match std::mem::replace(&mut *stage, Stage::Closed) {
            Stage::Open(shards) => {
                let lanes = shards.into_iter().zip(consumers).collect();
                *stage = Stage::Running(Runtime::start(
                    lanes,
                    &self.options,
                    Arc::clone(&self.pace),
                    Arc::clone(&self.retention_clock),
                    Arc::clone(&self.views),
                )?);
                Ok(())
            }
            other => {
                *stage = other;
                Err(StoreError::Consumers {
                    what: "the store was started or closed before",
                    partition: PartitionId(0),
                })
            }
        }
    }

    /// One consumer for each shard, in the shards' order.
    fn match_consumers(
        &self,
        consumers: Vec<Box<dyn Consumer>>,
    ) -> Result<Vec<Box<dyn Consumer>>, StoreError> {
        let refuse = |what, partition| Err(StoreError::Consumers { what, partition });
        let mut by_partition = BTreeMap::new();
        for consumer in consumers {
            let partition = consumer.partition();
            if self.shard(partition).is_none() {
                return refuse(
                    "a consumer of a partition that the store does not own",
                    partition,
                );
            }
            if by_partition.insert(partition, consumer).is_some() {
                return refuse("two consumers of one partition", partition);
            }
        }
        let missing = self
            .shared
            .iter()
            .find(|s| !by_partition.contains_key(&s.partition));
        if let Some(missing) = missing {
            return refuse("no consumer", missing.partition);
        }
        Ok(by_partition.into_values().collect())
    }

    /// The shards of some partitions, for reads; `None` if one of them is not here.
    #[must_use]
    pub fn part(&self, partitions: &[PartitionId]) -> Option<StorePart> {
        self.all().only(partitions)
    }

    /// All shards that are here, for reads.
    #[must_use]
    pub fn all(&self) -> StorePart {
        StorePart::new(self.shared.clone())
    }

    /// The series of `tenant` that pass all matchers and may have samples in `range`; in no special
    /// order, each once.
    ///
    /// # Errors
    ///
    /// A block that is damaged or cannot be read.
    pub fn select(
        &self,
        tenant: &TenantId,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> Result<Vec<StoreSeries>, StoreError> {
        self.all().select(tenant, matchers, range)
    }

    /// The live blocks: each one's name, how often it was compacted, and what it holds.
    #[must_use]
    pub fn blocks(&self) -> Vec<(String, u8, BlockSummary)> {
        let mut found = Vec::new();
        for shared in &self.shared {
            let view = shared.view();
            let blocks = view.blocks.iter();
            found.extend(blocks.map(|block| {
                let name = format!("{}/{}", shared.partition, block.entry.id);
                (name, block.entry.level, block.reader.summary())
            }));
        }
        found
    }

    /// First and last timestamp of all samples, those of deleted ones among them; `None` without
    /// samples.
    #[must_use]
    pub fn time_range(&self) -> Option<TimeRange> {
        let mut ranges = Vec::new();
        for shared in &self.shared {
            let view = shared.view();
            ranges.extend(view.blocks.iter().map(|block| block.range()));
            let tables = view.tables.iter();
            ranges.extend(tables.filter_map(|of| of.table.rows().time_range()));
        }
        ranges.into_iter().reduce(|a, b| TimeRange {
            start: a.start.min(b.start),
            end: a.end.max(b.end),
        })
    }

    /// The label sets of such series, sorted.
    ///
    /// # Errors
    ///
    /// As [`select`](Self::select).
    pub fn series(
        &self,
        tenant: &TenantId,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> Result<Vec<Labels>, StoreError> {
        self.all().series(tenant, matchers, range)
    }

    /// The label names of the series that pass all matchers of one of the sets (all series, if
    /// there is no set) and may have samples in `range`; sorted.
    ///
    /// # Errors
    ///
    /// As [`select`](Self::select).
    pub fn label_names(
        &self,
        tenant: &TenantId,
        matcher_sets: &[Vec<Matcher>],
        range: TimeRange,
    ) -> Result<Vec<String>, StoreError> {
        self.all().label_names(tenant, matcher_sets, range)
    }

    /// The values of the label `name` of such series; sorted.
    ///
    /// # Errors
    ///
    /// As [`select`](Self::select).
    pub fn label_values(
        &self,
        tenant: &TenantId,
        name: &str,
        matcher_sets: &[Vec<Matcher>],
        range: TimeRange,
    ) -> Result<Vec<String>, StoreError> {
        self.all().label_values(tenant, name, matcher_sets, range)
    }

    /// The metadata of one metric, or of all, in order of the metric's name. Where shards differ,
    /// the lowest one's.
    #[must_use]
    pub fn metadata(&self, tenant: &TenantId, metric: Option<&str>) -> Vec<MetricMetadata> {
        self.all().metadata(tenant, metric)
    }

    /// Up to where the queue is applied, in all partitions that are owned.
    #[must_use]
    pub fn applied(&self) -> Position {
        let mut position = Position::new(self.identity.id);
        for shared in &self.shared {
            // A shard that has stopped because the queue was made again stands in the old one.
            if shared.queue() == self.identity.id {
                position.advance(shared.partition, shared.applied());
            }
        }
        position
    }

    /// Waits until everything before `position` can be read.
    ///
    /// # Errors
    ///
    /// A position of another queue; [`StoreError::NotOwned`] for a partition of another store;
    /// [`StoreError::WaitTimeout`]; [`StoreError::Stopped`] if one of the partitions will not get
    /// there.
    pub fn wait_applied(&self, position: &Position, timeout: Duration) -> Result<(), StoreError> {
        let foreign = |partition| StoreError::ForeignPosition {
            given: position.queue,
            partition,
            ours: self.identity.id,
        };
        if position.queue != self.identity.id {
            return Err(foreign(None));
        }
        let not_here = |partition: &PartitionId| {
            if partition.0 >= self.identity.partitions {
                return foreign(Some(*partition));
            }
            StoreError::NotOwned {
                partition: *partition,
                owned: self.owned(),
            }
        };
        let deadline = std::time::Instant::now() + timeout;
        for (partition, wanted) in &position.next {
            let shared = self.shard(*partition).ok_or_else(|| not_here(partition))?;
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            shared.wait_applied(position.queue, *wanted, left)?;
        }
        Ok(())
    }

    /// Sets where shards go on reading, while none of them runs. Those that are left out stay where
    /// they are. Each shard seals what it has, and the change stays on record in its manifest.
    ///
    /// # Errors
    ///
    /// A store that was started or closed; a shard that cannot seal or write.
    pub fn set_positions(
        &self,
        positions: &BTreeMap<PartitionId, (QueueId, Offset)>,
        cause: GapCause,
    ) -> Result<Vec<(PartitionId, Gap)>, StoreError> {
        let mut stage = self.runtime.lock();
        let Stage::Open(shards) = &mut *stage else {
            return Err(StoreError::Consumers {
                what: "the store was started or closed before",
                partition: PartitionId(0),
            });
        };
        let mut gaps = Vec::new();
        for shard in shards {
            if let Some(&to) = positions.get(&shard.partition()) {
                gaps.push((shard.partition(), shard.set_position(to, cause)?));
            }
        }
        Ok(gaps)
    }

    /// Which queue each shard reads, and where it goes on, while none of them runs.
    #[must_use]
    pub fn resume_points(&self) -> Vec<(PartitionId, ResumePoint)> {
        match &*self.runtime.lock() {
            Stage::Open(shards) => shards
                .iter()
                .map(|shard| (shard.partition(), shard.resume_point()))
                .collect(),
            Stage::Running(_) | Stage::Closed => Vec::new(),
        }
    }

    /// What each shard holds now.
    pub(crate) fn shard_views(&self) -> impl Iterator<Item = Arc<View>> {
        self.shared.iter().map(|shared| shared.view())
    }

    /// The shards in figures, in order of their partitions.
    #[must_use]
    pub fn status(&self) -> Vec<ShardStatus> {
        self.shared.iter().map(|s| s.status()).collect()
    }

    /// The dead letters of each partition.
    #[must_use]
    pub fn dead_letters(&self) -> Vec<(PartitionId, DeadLetterBox)> {
        let partitions = self.shared.iter().map(|s| s.partition);
        partitions.zip(self.dead_letters.iter().cloned()).collect()
    }

    /// Stops the threads and syncs the WALs. Seals nothing: the next open replays the WAL. Reads
    /// are still answered. A second call does nothing.
    ///
    /// # Errors
    ///
    /// The first of the shards that could not sync, or had stopped before.
    pub fn close(&self) -> Result<(), StoreError> {
        let stage = std::mem::replace(&mut *self.runtime.lock(), Stage::Closed);
        match stage {
            Stage::Open(shards) => first_error(shards.into_iter().map(Shard::close)),
            Stage::Running(runtime) => runtime.stop(),
            Stage::Closed => Ok(()),
        }
    }
}

/// All of them run; the first error is told.
pub(crate) fn first_error(
    results: impl Iterator<Item = Result<(), StoreError>>,
) -> Result<(), StoreError> {
    let errors: Vec<_> = results.filter_map(Result::err).collect();
    errors.into_iter().next().map_or(Ok(()), Err)
}

/// The partitions in their order, if the queue has them and each is named once.
fn check_owned(
    owned: &[PartitionId],
    identity: &QueueIdentity,
) -> Result<Vec<PartitionId>, StoreError> {
    let refuse = |what, partition| Err(StoreError::Consumers { what, partition });
    let mut sorted = owned.to_vec();
    sorted.sort_unstable();
    if let Some(beyond) = sorted.last().filter(|p| p.0 >= identity.partitions) {
        return refuse("to own a partition that the queue has not", *beyond);
    }
    if let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        return refuse("to own a partition twice", twice[0]);
    }
    Ok(sorted)
}

/// A shard takes its share of the memory as if there were one for each partition of the queue; where
/// others own some of them, the shares are made larger so that all of the memory is used.
fn share_of_all(bytes: u64, owned: &[PartitionId], identity: &QueueIdentity) -> u64 {
    let owned = u64::try_from(owned.len()).unwrap_or(u64::MAX).max(1);
    (bytes / owned).saturating_mul(u64::from(identity.partitions))
}

fn open_shards(
    context: &ShardContext,
    dir: &Path,
    owned: &[PartitionId],
) -> Result<Vec<Shard>, StoreError> {
    let partitions = owned.iter().copied();
    std::thread::scope(|scope| {
        let threads: Vec<_> = partitions
            .map(|partition| scope.spawn(move || Shard::open(context.clone(), dir, partition)))
            .collect();
        let opened: Vec<_> = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or(Err(StoreError::Panicked)))
            .collect();
        opened.into_iter().collect()
    })
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
