//! What the store lacks of records that it has applied, or that it passed over: for a replay into the
//! live store.
//!
//! Invariants:
//! - A sample that can be read is not missing, whatever its value is; so where nothing is lost, nothing
//!   is restored.
//! - A sample that a delete behind its record hides is not missing either.
//! - Of several records that have a missing sample, the one later in the queue restores it.
//!
//! What is found goes through the queue, as batches that were queued again: they fill gaps and override
//! nothing. So the store's data has one way in, and replicas of a shard get the same.

use std::collections::BTreeMap;

use bytes::Bytes;
use hashbrown::{HashMap, HashSet};
use millrace_model::batch::{
    Batch, BatchError, FloatSectionWriter, OriginalPosition, SectionContent, encode_batch,
};
use millrace_model::{
    Labels, Offset, PartitionId, QueueId, Sample, SeriesHasher, SeriesId, TenantId, TimeRange,
};
use millrace_queue::Record;

use crate::error::StoreError;
use crate::shard::View;
use crate::store::Store;
use crate::tombstone::Masks;

/// What is missing of some records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// Batches that restore it, to be appended to the partition in this order.
    pub batches: Vec<Bytes>,
    /// How many samples they have.
    pub samples: u64,
    /// How many samples the records have, deleted ones left out.
    pub looked_at: u64,
    /// Records that were not looked at, since they are of the other kind.
    pub left_out: Vec<Offset>,
    /// Records that cannot be decoded: dead letters.
    pub undecodable: u64,
}

/// Which records are looked at. What an ordinary record has goes before what one has that was queued
/// again, so those come second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// Those that came from a client.
    Ordinary,
    /// Those that carry an original position.
    Requeued,
}

/// What is wanted of one tenant.
struct TenantWanted {
    range: TimeRange,
    /// Of each series, each sample's time, and its number among all samples of the records.
    series: HashMap<SeriesId, Vec<(i64, u64)>>,
}

/// A record that decodes, and the number of its first sample.
struct Readable<'a> {
    batch: Batch<'a>,
    original: OriginalPosition,
    first: u64,
}

impl Store {
    /// Looks for the samples of `records`, which are of one partition and in their order, each below
    /// the applied offset.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotOwned`] for a partition of another store; a block that is damaged or cannot be
    /// read.
    pub fn missing(
        &self,
        partition: PartitionId,
        records: &[Record],
        kind: RecordKind,
    ) -> Result<Missing, StoreError> {
        let not_owned = || StoreError::NotOwned {
            partition,
            owned: self.owned(),
        };
        let shared = self.shard(partition).ok_or_else(not_owned)?;
        find(&shared.view(), (shared.queue(), partition), records, kind)
    }
}

/// The same in one shard's view.
fn find(
    view: &View,
    (queue, partition): (QueueId, PartitionId),
    records: &[Record],
    kind: RecordKind,
) -> Result<Missing, StoreError> {
    let mut search = Search {
        view,
        queue,
        partition,
        found: Missing::default(),
        wanted: BTreeMap::new(),
        next: 0,
    };
    let mut readable = Vec::new();
    for record in records {
        readable.extend(search.want(record, kind));
    }
    let missing = search.look()?;
    let mut found = search.found;
    found.samples = missing.len() as u64;
    for record in &readable {
        found.batches.extend(restoring(record, &missing));
    }
    Ok(found)
}

struct Search<'a> {
    view: &'a View,
    queue: QueueId,
    partition: PartitionId,
    found: Missing,
    wanted: BTreeMap<TenantId, TenantWanted>,
    next: u64,
}

impl Search<'_> {
    /// Notes the samples of a record.
    fn want<'r>(&mut self, record: &'r Record, kind: RecordKind) -> Option<Readable<'r>> {
        let Ok(batch) = Batch::decode(&record.payload) else {
            self.found.undecodable += 1;
            return None;
        };
        let original = batch.original_position();
        let is = match original {
            None => RecordKind::Ordinary,
            Some(_) => RecordKind::Requeued,
        };
        if is != kind {
            self.found.left_out.push(record.offset);
            return None;
        }
        let original = original.unwrap_or(OriginalPosition {
            queue: self.queue,
            partition: self.partition,
            offset: record.offset,
        });
        let here = original.queue == self.queue;
        let deletes = Masks::behind(
            &self.view.tombstones,
            batch.tenant(),
            here.then_some(original.offset),
        );
        let Ok(series) = decode(&batch) else {
            self.found.undecodable += 1;
            return None;
        };
        let first = self.next;
        let tenant = self.wanted.entry(batch.tenant().clone());
        let tenant = tenant.or_insert_with(|| TenantWanted {
            range: TimeRange::new(i64::MAX, i64::MIN),
            series: HashMap::new(),
        });
        for (id, labels, samples) in series {
            let hidden = deletes.of(&labels);
            let wanted = tenant.series.entry(id).or_default();
            for sample in samples {
                let (time, number) = (sample.timestamp, self.next);
                self.next += 1;
                if hidden.hides(time.0) {
                    continue;
                }
                self.found.looked_at += 1;
                wanted.push((time.0, number));
                tenant.range.start = tenant.range.start.min(time);
                tenant.range.end = tenant.range.end.max(time);
            }
        }
        Some(Readable {
            batch,
            original,
            first,
        })
    }

    /// The numbers of the samples that the store has not, each moment of a series once.
    fn look(&mut self) -> Result<HashSet<u64>, StoreError> {
        let mut missing = HashSet::new();
        for (tenant, wanted) in &mut self.wanted {
            if wanted.range.start > wanted.range.end {
                continue;
            }
            let mut there = Vec::new();
            self.view.select(tenant, &[], wanted.range, &mut there)?;
            let hasher = SeriesHasher::new(tenant);
            let (mut times, mut values) = (Vec::new(), Vec::new());
            for series in there {
                let Some(wanted) = wanted.series.get_mut(&hasher.id(series.labels())) else {
                    continue;
                };
                times.clear();
                values.clear();
                series.read(&mut times, &mut values)?;
                wanted.retain(|(time, _)| times.binary_search(time).is_err());
            }
            for series in wanted.series.values_mut() {
                // The last of those with one time is right.
                series.sort_unstable_by(|a, b| b.cmp(a));
                series.dedup_by_key(|(time, _)| *time);
                missing.extend(series.iter().map(|(_, number)| *number));
            }
        }
        Ok(missing)
    }
}

type DecodedSeries = (SeriesId, Labels, Vec<Sample>);

/// The series of a batch, with their own identities.
fn decode(batch: &Batch<'_>) -> Result<Vec<DecodedSeries>, BatchError> {
    let hasher = SeriesHasher::new(batch.tenant());
    let mut found = Vec::new();
    for section in batch.sections() {
        let SectionContent::Float(mut series) = section?.content()? else {
            continue;
        };
        loop {
            let mut samples = Vec::new();
            let Some(id) = series.next_series(&mut samples)? else {
                break;
            };
            let labels = series.labels()?;
            if hasher.id(&labels) != id {
                // The store made a dead letter of it.
                return Err(BatchError::Malformed {
                    at: 0,
                    what: "series identity",
                });
            }
            found.push((id, labels, samples));
        }
    }
    Ok(found)
}

/// A batch with those samples of a record that are missing, if there are any.
fn restoring(record: &Readable<'_>, missing: &HashSet<u64>) -> Option<Bytes> {
    // It was decoded before.
    let series = decode(&record.batch).ok()?;
    let mut section = FloatSectionWriter::new();
    let mut number = record.first;
    for (id, labels, samples) in series {
        let mut kept = Vec::new();
        for sample in samples {
            if missing.contains(&number) {
                kept.push(sample);
            }
            number += 1;
        }
        section.push(id, labels.canonical(), &kept);
    }
    let section = section.finish()?;
    let batch = encode_batch(record.batch.tenant(), Some(record.original), [&section]);
    Some(batch.into())
}

#[cfg(test)]
mod tests;
