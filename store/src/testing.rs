//! What the tests of this crate share.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use millrace_log::fs::{Fs, create_dir_durable};
use millrace_model::batch::{
    EncodedSection, FloatSectionWriter, OriginalPosition, encode_batch, encode_delete_section,
    encode_metadata_section, requeue,
};
use millrace_model::{
    DELTA, Delete, DeleteEntry, DeleteId, Labels, ManualClock, MatchOp, Matcher, MetricMetadata,
    Offset, PartitionId, QueueId, Sample, SeriesHasher, ShardKey, TEMPORALITY, TenantId, TimeRange,
    TimestampMs,
};
use millrace_queue::{QueueIdentity, Record};
use prometheus::Registry;

use crate::block::PageCache;
use crate::compact::{CompactJob, Keep};
use crate::error::{IoContext, StoreError};
use crate::metrics::StoreMetrics;
use crate::options::{StoreOptions, WalSync};
use crate::retain::{RetentionItem, RetentionOptions, RetentionPart, Unexpired, decide};
use crate::shard::{Change, CleanStep, Shard, ShardContext};
use crate::views::Views;

/// All samples by tenant, series and timestamp: the oracle.
pub(crate) type Model = BTreeMap<Key, u64>;

/// Tenant, series and timestamp.
pub(crate) type Key = (String, String, i64);

pub(crate) fn tenant(name: &str) -> TenantId {
    name.parse().unwrap()
}

/// Those of a series; one whose name begins with `delta` is of deltas.
pub(crate) fn labels(name: &str) -> Labels {
    let temporality = if name.starts_with("delta") { DELTA } else { "" };
    let pairs = [
        ("__name__", "m"),
        (TEMPORALITY, temporality),
        ("series", name),
    ];
    Labels::from_pairs(pairs).unwrap()
}

/// (series, timestamp, bits) of one batch.
pub(crate) type Rows = Vec<(String, i64, u64)>;

pub(crate) fn batch(tenant_name: &str, rows: &[(String, i64, u64)]) -> Bytes {
    let tenant = tenant(tenant_name);
    let mut writer = FloatSectionWriter::new();
    for (name, timestamp, bits) in rows {
        let labels = labels(name);
        let id = SeriesHasher::new(&tenant).id(&labels);
        let sample = Sample::new(*timestamp, f64::from_bits(*bits));
        writer.push(id, labels.canonical(), &[sample]);
    }
    let sections: Vec<EncodedSection> = writer.finish().into_iter().collect();
    encode_batch(&tenant, None, &sections).into()
}

pub(crate) fn metadata_batch(tenant_name: &str, entries: &[MetricMetadata]) -> Bytes {
    let sections: Vec<_> = encode_metadata_section(entries).into_iter().collect();
    encode_batch(&tenant(tenant_name), None, &sections).into()
}

/// A batch of one delete or revocation.
pub(crate) fn delete_batch(tenant_name: &str, entry: DeleteEntry) -> Bytes {
    let sections: Vec<_> = encode_delete_section(&[entry]).into_iter().collect();
    encode_batch(&tenant(tenant_name), None, &sections).into()
}

/// The delete of the series `series` (a regular expression) in `[start, end]`, which can be revoked for
/// `undo_ms` behind the time of its record.
pub(crate) fn delete(id: u128, series: &str, (start, end): (i64, i64), undo_until: i64) -> Delete {
    let matcher = Matcher::new("series", MatchOp::Regex, series).unwrap();
    Delete {
        id: DeleteId(id),
        requested_at: TimestampMs(0),
        undo_until: TimestampMs(undo_until),
        range: TimeRange::new(start, end),
        selectors: vec![vec![matcher]],
    }
}

/// What a record does to the model.
#[derive(Clone, Debug)]
enum Effect {
    Samples(Vec<(Key, u64)>),
    /// Of a record that was queued again.
    Requeued(Vec<(Key, u64)>),
    Delete(String, Delete),
    Revoke(DeleteId),
}

/// A queue that keeps everything: what was appended is durable.
#[derive(Clone, Debug, Default)]
pub(crate) struct VecQueue {
    pub(crate) records: Vec<Record>,
    /// Effect of each record; no samples of a dead letter.
    effects: Vec<Effect>,
}

impl VecQueue {
    pub(crate) fn push_rows(&mut self, tenant: &str, rows: Rows) {
        let payload = batch(tenant, &rows);
        self.push_batch(payload, tenant, rows, false);
    }

    /// Appends a record that was queued before.
    pub(crate) fn push_requeued(&mut self, tenant: &str, rows: Rows) {
        let original = OriginalPosition {
            queue: QueueId(6),
            partition: PartitionId(0),
            offset: Offset(3),
        };
        let payload = requeue(&batch(tenant, &rows), original).unwrap();
        self.push_batch(payload.into(), tenant, rows, true);
    }

    fn push_batch(&mut self, payload: Bytes, tenant: &str, rows: Rows, requeued: bool) {
        let effects = rows
            .into_iter()
            .map(|(series, timestamp, bits)| ((tenant.to_owned(), series, timestamp), bits));
        let effects = effects.collect();
        self.push_payload(payload, 0);
        *self.effects.last_mut().unwrap() = if requeued {
            Effect::Requeued(effects)
        } else {
            Effect::Samples(effects)
        };
    }

    pub(crate) fn push_delete(&mut self, tenant: &str, delete: Delete) {
        self.push_payload(delete_batch(tenant, DeleteEntry::Delete(delete.clone())), 0);
        *self.effects.last_mut().unwrap() = Effect::Delete(tenant.to_owned(), delete);
    }

    pub(crate) fn push_revoke(&mut self, tenant: &str, id: DeleteId) {
        let requested_at = TimestampMs(0);
        self.push_payload(
            delete_batch(tenant, DeleteEntry::Revoke { id, requested_at }),
            0,
        );
        *self.effects.last_mut().unwrap() = Effect::Revoke(id);
    }

    /// Whether there is a record that is no batch.
    pub(crate) fn has_dead_letters(&self) -> bool {
        self.records.iter().any(|r| !r.payload.starts_with(b"MRBT"))
    }

    /// When the queue will take the next record.
    pub(crate) fn now(&self) -> i64 {
        1_000 + self.end().0 as i64
    }

    /// Appends anything, leaving `gap` offsets free before it.
    pub(crate) fn push_payload(&mut self, payload: Bytes, gap: u64) {
        let offset = Offset(self.end().0 + gap);
        self.records.push(Record {
            offset,
            appended_at: TimestampMs(1_000 + offset.0 as i64),
            payload,
        });
        self.effects.push(Effect::Samples(Vec::new()));
    }

    pub(crate) fn end(&self) -> Offset {
        let last = self.records.last();
        last.map_or(Offset::ZERO, |r| r.offset.advanced(1))
    }

    pub(crate) fn from(&self, offset: Offset) -> &[Record] {
        let at = self.records.partition_point(|r| r.offset < offset);
        &self.records[at..]
    }

    /// The fold of all records below `offset`: those that were queued again first, since they never
    /// override.
    pub(crate) fn fold(&self, offset: Offset) -> Model {
        let mut model = Model::new();
        let mut again = Model::new();
        for (at, (record, effect)) in self.records.iter().zip(&self.effects).enumerate() {
            if record.offset >= offset {
                break;
            }
            match effect {
                Effect::Samples(samples) => model.extend(samples.iter().cloned()),
                Effect::Requeued(samples) => {
                    let stays = samples.iter().filter(|(key, _)| !self.hidden_at(at, key));
                    again.extend(stays.cloned());
                }
                Effect::Delete(tenant, delete) => {
                    if !self.is_revoked(at, delete, offset) {
                        model.retain(|key, _| !hides(tenant, delete, key));
                        again.retain(|key, _| !hides(tenant, delete, key));
                    }
                }
                Effect::Revoke(_) => {}
            }
        }
        again.extend(model);
        again
    }

    /// Every value that a sample had, and that no delete has hidden since: what may be seen of a
    /// sample that retention is free to let go, since it takes blocks and not single samples.
    pub(crate) fn possible(&self, offset: Offset) -> BTreeSet<(Key, u64)> {
        let mut possible = BTreeSet::new();
        for (at, (record, effect)) in self.records.iter().zip(&self.effects).enumerate() {
            if record.offset >= offset {
                break;
            }
            match effect {
                Effect::Samples(samples) | Effect::Requeued(samples) => {
                    possible.extend(samples.iter().cloned());
                }
                Effect::Delete(tenant, delete) => {
                    if !self.is_revoked(at, delete, offset) {
                        possible.retain(|(key, _)| !hides(tenant, delete, key));
                    }
                }
                Effect::Revoke(_) => {}
            }
        }
        possible
    }

    /// The samples that records from `offset` on have.
    pub(crate) fn sent_from(&self, offset: Offset) -> BTreeSet<Key> {
        let effects = self.records.iter().zip(&self.effects);
        let effects = effects.filter(|(record, _)| record.offset >= offset);
        let samples = effects.flat_map(|(_, effect)| match effect {
            Effect::Samples(samples) | Effect::Requeued(samples) => samples.as_slice(),
            Effect::Delete(..) | Effect::Revoke(_) => &[],
        });
        samples.map(|(key, _)| key.clone()).collect()
    }

    /// Whether a delete hides the sample when record `at` is applied.
    fn hidden_at(&self, at: usize, key: &Key) -> bool {
        let bound = self.records[at].offset;
        let before = self.effects.iter().enumerate().take(at);
        before
            .filter_map(|(of, effect)| match effect {
                Effect::Delete(tenant, delete) => Some((of, tenant, delete)),
                Effect::Samples(_) | Effect::Requeued(_) | Effect::Revoke(_) => None,
            })
            .any(|(of, tenant, delete)| {
                !self.is_revoked(of, delete, bound) && hides(tenant, delete, key)
            })
    }

    /// Whether the delete of record `at` was taken back in time by a record below `offset`.
    fn is_revoked(&self, at: usize, delete: &Delete, offset: Offset) -> bool {
        let behind = self.records.iter().zip(&self.effects).skip(at + 1);
        let mut behind = behind.take_while(|(record, _)| record.offset < offset);
        behind.any(|(record, effect)| {
            let revokes = matches!(effect, Effect::Revoke(id) if *id == delete.id);
            revokes && record.appended_at <= delete.undo_until
        })
    }
}

fn hides(tenant: &str, delete: &Delete, (of, series, timestamp): &Key) -> bool {
    of == tenant
        && delete.range.contains(TimestampMs(*timestamp))
        && delete.selects(&labels(series))
}

pub(crate) fn identity() -> QueueIdentity {
    QueueIdentity {
        id: QueueId(7),
        partitions: 1,
        shard_key: ShardKey::default(),
    }
}

pub(crate) fn options() -> StoreOptions {
    StoreOptions {
        wal_sync: WalSync::None,
        wal_segment_bytes: 4 << 10,
        ..StoreOptions::default()
    }
}

pub(crate) fn context(fs: Arc<dyn Fs>, options: StoreOptions) -> ShardContext {
    try_context(fs, options).unwrap()
}

pub(crate) fn try_context(
    fs: Arc<dyn Fs>,
    options: StoreOptions,
) -> Result<ShardContext, StoreError> {
    create_dir_durable(&*fs, &store_dir()).context("create", &store_dir())?;
    let views = Arc::new(Views::open(Arc::clone(&fs), &store_dir())?);
    Ok(ShardContext {
        fs,
        clock: Arc::new(ManualClock::new(TimestampMs(1_795_233_600_000))),
        options,
        identity: identity(),
        metrics: StoreMetrics::register(&Registry::new()).unwrap(),
        // Small enough that pages come and go.
        pages: Arc::new(PageCache::new(64 << 10)),
        views,
    })
}

pub(crate) fn store_dir() -> PathBuf {
    PathBuf::from("store")
}

pub(crate) fn open(fs: Arc<dyn Fs>, options: StoreOptions) -> Result<Shard, StoreError> {
    Shard::open(try_context(fs, options)?, &store_dir(), PartitionId(0))
}

/// Merges all that can be merged, and brings deletes to their end. Returns how many jobs that took.
pub(crate) fn upkeep(shard: &mut Shard) -> Result<usize, StoreError> {
    let upkeep = shard.upkeep();
    let (mut jobs, mut steps) = (0, 0);
    loop {
        match upkeep.next_clean(&upkeep.context.fs)? {
            CleanStep::Rewrite(job) => {
                run_job(shard, *job)?;
                jobs += 1;
            }
            CleanStep::Note(change) => {
                shard.commit_change(change)?;
                steps += 1;
                assert!(steps < 1_000, "deletes come to no end");
            }
            CleanStep::Done => break,
        }
        upkeep.remove_obsolete()?;
    }
    while let Some(job) = upkeep.next_merge(&upkeep.context.fs, true) {
        run_job(shard, job)?;
        upkeep.remove_obsolete()?;
        jobs += 1;
        assert!(jobs < 1_000, "merging comes to no end");
    }
    Ok(jobs)
}

/// Does what retention decides; returns what that was.
pub(crate) fn retain(
    shard: &mut Shard,
    options: &RetentionOptions,
    now: i64,
) -> Result<Vec<RetentionItem>, StoreError> {
    let now = TimestampMs(now);
    let views = [(shard.partition(), shard.shared().view())];
    let upkeep = shard.upkeep();
    let decisions = decide(options, &views, now, Some(3_600_000))?;
    drop(views);
    let mut items = Vec::new();
    for decision in decisions {
        let keep = Unexpired::of(options, &decision.live, now);
        let by_series = decision.thinner.is_none() && decision.item.what != RetentionPart::Block;
        let keep = by_series.then_some(&keep as &dyn Keep);
        upkeep.freeze_views(&upkeep.context.fs, &decision.live, keep)?;
        if let Some(options) = decision.thinner {
            let fs = &upkeep.context.fs;
            let job = upkeep.rewrite_as(fs, &decision.live, None, options);
            items.push(decision.item);
            drop(decision.live);
            run_job(shard, job)?;
        } else if decision.item.what == RetentionPart::Block {
            let removed = vec![decision.item.block];
            items.push(decision.item);
            drop(decision.live);
            shard.commit_change(Change {
                removed,
                high_water: Some(now),
                ..Change::default()
            })?;
        } else {
            let keep = Arc::new(Unexpired::of(options, &decision.live, now));
            let job = upkeep.rewrite(&upkeep.context.fs, &decision.live, Some(keep));
            items.push(decision.item);
            drop(decision.live);
            run_job(shard, job)?;
        }
        upkeep.remove_obsolete()?;
    }
    Ok(items)
}

/// Runs a job and makes its outputs live.
pub(crate) fn run_job(shard: &mut Shard, job: CompactJob) -> Result<(), StoreError> {
    let change = job.run()?.into_change();
    // It holds its inputs.
    drop(job);
    shard.commit_change(change)
}

/// Everything that the shard holds, as it is read.
pub(crate) fn dump(shard: &Shard, tenants: &[&str]) -> Result<Model, StoreError> {
    dump_range(shard, tenants, TimeRange::ALL)
}

/// The same, of a range.
pub(crate) fn dump_range(
    shard: &Shard,
    tenants: &[&str],
    range: TimeRange,
) -> Result<Model, StoreError> {
    let any = Matcher::new("__name__", MatchOp::Regex, ".+").unwrap();
    let mut model = Model::new();
    for name in tenants {
        let mut found = Vec::new();
        let view = shard.shared().view();
        view.select(&tenant(name), std::slice::from_ref(&any), range, &mut found)?;
        for series in found {
            let (mut timestamps, mut values) = (Vec::new(), Vec::new());
            series.read(&mut timestamps, &mut values)?;
            assert!(timestamps.is_sorted_by(|a, b| a < b), "{timestamps:?}");
            let last = timestamps.last().zip(values.last().map(|v| v.to_bits()));
            let newest = series
                .newest()?
                .map(|(moment, value)| (moment, value.to_bits()));
            let last = last.map(|(moment, bits)| (*moment, bits));
            assert_eq!(newest, last, "newest of {}", series.labels());
            let series_name = series.labels().get("series").unwrap().to_owned();
            for (timestamp, value) in timestamps.into_iter().zip(values) {
                let key = ((*name).to_owned(), series_name.clone(), timestamp);
                assert!(
                    model.insert(key, value.to_bits()).is_none(),
                    "a series twice"
                );
            }
        }
    }
    Ok(model)
}

/// Compares a golden file with the hex dump on its page, line by line.
pub(crate) fn check_page(page: &str, stored: &[u8]) {
    for line in crate::golden::hex_dump(stored).lines() {
        assert!(page.contains(line), "the page lacks the line\n{line}");
    }
}
