use std::sync::Arc;

use bytes::Bytes;
use millrace_log::fs::sim::SimFs;
use millrace_model::batch::requeue;
use millrace_model::{DeleteEntry, TimestampMs};

use super::*;
use crate::shard::Shard;
use crate::testing::{batch, delete, delete_batch, dump, identity, open, options};

type Rows = [(&'static str, i64, u64)];

fn record(offset: u64, payload: Bytes) -> Record {
    Record {
        offset: Offset(offset),
        appended_at: TimestampMs(1_795_233_600_000),
        payload,
    }
}

fn rows(offset: u64, rows: &Rows) -> Record {
    let rows: Vec<_> = rows
        .iter()
        .map(|(s, t, v)| ((*s).to_owned(), *t, *v))
        .collect();
    record(offset, batch("t", &rows))
}

fn shard() -> Shard {
    open(Arc::new(SimFs::new()), options()).unwrap()
}

fn look(shard: &Shard, records: &[Record], kind: RecordKind) -> Missing {
    let of = (identity().id, PartitionId(0));
    find(&shard.shared().view(), of, records, kind).unwrap()
}

fn ordinary(shard: &Shard, records: &[Record]) -> Missing {
    look(shard, records, RecordKind::Ordinary)
}

fn values(shard: &Shard) -> Vec<(String, i64, u64)> {
    let all = dump(shard, &["t"]).unwrap().into_iter();
    all.map(|((_, series, time), bits)| (series, time, bits))
        .collect()
}

fn own(rows: &Rows) -> Vec<(String, i64, u64)> {
    rows.iter()
        .map(|(s, t, v)| ((*s).to_owned(), *t, *v))
        .collect()
}

/// Appends what was found behind `next`, as the queue would.
fn restore(shard: &mut Shard, next: u64, found: &Missing) {
    let batches = found.batches.iter().cloned().zip(next..);
    let records: Vec<_> = batches
        .map(|(batch, offset)| record(offset, batch))
        .collect();
    shard.apply(&records).unwrap();
}

#[test]
fn of_what_is_there_nothing_is_missing_whatever_its_value_is() {
    let mut shard = shard();
    let records = [
        rows(0, &[("a", 10, 1), ("b", 10, 2)]),
        rows(1, &[("a", 10, 3), ("a", 20, 4)]),
    ];
    shard.apply(&records).unwrap();
    let found = ordinary(&shard, &records);
    assert_eq!((found.samples, found.looked_at), (0, 4));
    assert!(found.batches.is_empty());
}

#[test]
fn a_gap_is_filled_with_the_newest_value_and_overrides_nothing() {
    let mut shard = shard();
    let records = [
        rows(0, &[("a", 10, 1)]),
        rows(1, &[("a", 20, 2), ("b", 20, 2), ("a", 30, 2)]),
        rows(2, &[("a", 20, 3), ("c", 5, 3)]),
        rows(3, &[("a", 30, 4)]),
    ];
    // Records 1 and 2 never arrived.
    shard
        .apply(&[records[0].clone(), records[3].clone()])
        .unwrap();
    let found = ordinary(&shard, &records);
    assert_eq!(
        (found.samples, found.looked_at, found.batches.len()),
        (3, 7, 2)
    );
    restore(&mut shard, 4, &found);
    let expect = [
        ("a", 10, 1),
        ("a", 20, 3),
        ("a", 30, 4),
        ("b", 20, 2),
        ("c", 5, 3),
    ];
    assert_eq!(values(&shard), own(&expect));
    assert_eq!(ordinary(&shard, &records).samples, 0);
}

#[test]
fn what_was_deleted_later_is_not_missing() {
    let mut shard = shard();
    let lost = rows(1, &[("a", 10, 1), ("a", 99, 1)]);
    let gone = DeleteEntry::Delete(delete(1, "a", (0, 50), i64::MAX));
    let deleted = record(2, delete_batch("t", gone));
    let newer = rows(3, &[("a", 20, 3)]);
    shard
        .apply(&[rows(0, &[("b", 1, 1)]), deleted.clone(), newer.clone()])
        .unwrap();
    let found = ordinary(&shard, &[lost, deleted, newer]);
    assert_eq!((found.samples, found.looked_at), (1, 2));
    restore(&mut shard, 4, &found);
    assert_eq!(
        values(&shard),
        own(&[("a", 20, 3), ("a", 99, 1), ("b", 1, 1)])
    );
}

#[test]
fn records_that_were_queued_again_are_looked_at_by_themselves() {
    let mut shard = shard();
    let original = OriginalPosition {
        queue: QueueId(6),
        partition: PartitionId(0),
        offset: Offset(3),
    };
    let again = requeue(&rows(0, &[("a", 10, 9), ("a", 20, 9)]).payload, original).unwrap();
    let again = record(1, again.into());
    let first = rows(0, &[("a", 10, 1)]);
    let poison = record(2, Bytes::from_static(b"no batch"));
    let all = [first, again, poison];
    let found = ordinary(&shard, &all);
    assert_eq!(
        (found.samples, found.left_out.as_slice(), found.undecodable),
        (1, &[Offset(1)][..], 1)
    );
    restore(&mut shard, 3, &found);
    let found = look(&shard, &all, RecordKind::Requeued);
    assert_eq!(
        (found.samples, found.left_out.as_slice()),
        (1, &[Offset(0)][..])
    );
    restore(&mut shard, 4, &found);
    assert_eq!(values(&shard), own(&[("a", 10, 1), ("a", 20, 9)]));
    assert_eq!(look(&shard, &all, RecordKind::Requeued).samples, 0);
}
