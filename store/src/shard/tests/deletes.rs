//! Deletes: what they hide, when, and what becomes of it.

use millrace_model::DeleteId;

use super::*;
use crate::tombstone::TombstoneState;

const FAR: i64 = i64::MAX;

fn hold(shard: &Shard, queue: &VecQueue) {
    assert_eq!(dump(shard, &["t", "u"]).unwrap(), queue.fold(queue.end()));
}

/// The shard after a kill.
fn again(shard: Shard, fs: &SimFs) -> Shard {
    drop(shard);
    fs.kill();
    open(Arc::new(fs.clone()), options()).unwrap()
}

fn begin() -> (SimFs, VecQueue, Shard) {
    let fs = SimFs::new();
    let mut queue = VecQueue::default();
    queue.push_rows(
        "t",
        rows(&[("a", 10, 1), ("a", 20, 2), ("a", 5, 3), ("b", 10, 4)]),
    );
    queue.push_rows("u", rows(&[("a", 10, 5)]));
    let shard = open(Arc::new(fs.clone()), options()).unwrap();
    (fs, queue, shard)
}

#[test]
fn a_delete_hides_what_was_before_it_and_nothing_behind_it() {
    for (seal_before, seal_behind, reopen) in (0..8).map(|i| (i & 1 != 0, i & 2 != 0, i & 4 != 0)) {
        let (fs, mut queue, mut shard) = begin();
        feed(&mut shard, &queue);
        if seal_before {
            shard.seal().unwrap();
        }
        queue.push_delete("t", delete(1, "a", (6, 20), FAR));
        feed(&mut shard, &queue);
        hold(&shard, &queue);
        queue.push_rows("t", rows(&[("a", 10, 9), ("a", 7, 8)]));
        feed(&mut shard, &queue);
        hold(&shard, &queue);
        if seal_behind {
            shard.seal().unwrap();
            hold(&shard, &queue);
        }
        if reopen {
            shard.sync_wal().unwrap();
            shard = again(shard, &fs);
        }
        hold(&shard, &queue);
        // Compaction while it can be revoked changes nothing that is read.
        shard.seal().unwrap();
        upkeep(&mut shard).unwrap();
        hold(&shard, &queue);
        let left = dump(&shard, &["t"]).unwrap();
        assert_eq!(left.len(), 4, "a: 5, 7, 10 and b: 10; not {left:?}");
    }
}

#[test]
fn a_delete_and_samples_of_one_record_do_not_meet() {
    use millrace_model::batch::{FloatSectionWriter, encode_batch, encode_delete_section};
    use millrace_model::{DeleteEntry, Sample, SeriesHasher};
    let (_, mut queue, mut shard) = begin();
    feed(&mut shard, &queue);
    let (t, labels) = (tenant("t"), labels("a"));
    let mut writer = FloatSectionWriter::new();
    let id = SeriesHasher::new(&t).id(&labels);
    writer.push(
        id,
        labels.canonical(),
        &[Sample::new(10, 7.0), Sample::new(11, 8.0)],
    );
    let entry = DeleteEntry::Delete(delete(1, ".*", (i64::MIN, FAR), FAR));
    let sections: Vec<_> = writer
        .finish()
        .into_iter()
        .chain(encode_delete_section(&[entry]))
        .collect();
    queue.push_payload(encode_batch(&t, None, &sections).into(), 0);
    feed(&mut shard, &queue);
    let left: Vec<_> = dump(&shard, &["t"])
        .unwrap()
        .into_iter()
        .map(|(k, v)| (k.2, v))
        .collect();
    assert_eq!(left, [(10, 7.0f64.to_bits()), (11, 8.0f64.to_bits())]);
}

#[test]
fn a_revoked_delete_hides_nothing_any_more() {
    for sealed in [false, true] {
        let (fs, mut queue, mut shard) = begin();
        queue.push_delete("t", delete(1, "a", (0, 100), FAR));
        feed(&mut shard, &queue);
        if sealed {
            shard.seal().unwrap();
            upkeep(&mut shard).unwrap();
        }
        queue.push_revoke("t", DeleteId(1));
        feed(&mut shard, &queue);
        hold(&shard, &queue);
        assert_eq!(dump(&shard, &["t"]).unwrap().len(), 4);
        shard.seal().unwrap();
        shard = again(shard, &fs);
        hold(&shard, &queue);
        assert_eq!(shard.status().tombstones, 0);
    }
}

#[test]
fn a_tenant_cannot_revoke_the_delete_of_another() {
    let (_, mut queue, mut shard) = begin();
    queue.push_delete("t", delete(1, "a", (0, 100), FAR));
    queue.push_payload(
        delete_batch(
            "u",
            millrace_model::DeleteEntry::Revoke {
                id: DeleteId(1),
                requested_at: TimestampMs(0),
            },
        ),
        0,
    );
    feed(&mut shard, &queue);
    hold(&shard, &queue);
    assert_eq!(shard.shared.metrics.late_revokes.get(), 1);
}

#[test]
fn behind_the_undo_window_what_is_hidden_is_removed_and_cannot_come_back() {
    let (fs, mut queue, mut shard) = begin();
    let undo_until = queue.now();
    queue.push_delete("t", delete(1, "a", (6, 100), undo_until));
    feed(&mut shard, &queue);
    shard.seal().unwrap();
    let samples = |shard: &Shard| -> u64 {
        shard
            .shared
            .view()
            .blocks
            .iter()
            .map(|b| b.entry.samples)
            .sum()
    };
    upkeep(&mut shard).unwrap();
    assert_eq!(samples(&shard), 5, "it can still be revoked");
    // The queue's time goes on.
    queue.push_rows("t", rows(&[("c", 10, 1)]));
    feed(&mut shard, &queue);
    upkeep(&mut shard).unwrap();
    hold(&shard, &queue);
    assert_eq!(samples(&shard), 3, "a at 5, b, and the other tenant's");
    let state = |shard: &Shard| shard.shared.view().tombstones[0].state;
    assert_eq!(state(&shard), TombstoneState::Cleaned);
    queue.push_revoke("t", DeleteId(1));
    feed(&mut shard, &queue);
    hold(&shard, &queue);
    shard.sync_wal().unwrap();
    shard = again(shard, &fs);
    hold(&shard, &queue);
    assert_eq!(state(&shard), TombstoneState::Cleaned);
}

#[test]
fn a_delete_that_hides_everything_leaves_no_block() {
    let (fs, mut queue, mut shard) = begin();
    for name in ["t", "u"] {
        let id = u128::from(name == "t");
        queue.push_delete(name, delete(id, ".*", (i64::MIN, FAR), 0));
    }
    feed(&mut shard, &queue);
    shard.seal().unwrap();
    upkeep(&mut shard).unwrap();
    assert_eq!(shard.status().blocks, 0);
    let files = fs.files();
    assert!(
        !files
            .iter()
            .any(|(p, _)| p.extension().is_some_and(|e| e == "block"))
    );
}

#[test]
fn series_and_labels_that_are_deleted_are_not_listed() {
    for seal in [false, true] {
        let (_, mut queue, mut shard) = begin();
        queue.push_delete("t", delete(1, "a", (5, 20), FAR));
        feed(&mut shard, &queue);
        if seal {
            shard.seal().unwrap();
        }
        let view = shard.shared.view();
        let (t, all) = (tenant("t"), millrace_model::TimeRange::ALL);
        let mut sets = crate::read::LabelSets::new(&t, &[], all);
        sets.values(&view, "series").unwrap();
        assert_eq!(sets.finish(), ["b"]);
    }
}

#[test]
fn many_deletes_make_a_seal_due_and_no_seal_is_lost_between_them() {
    let (_, mut queue, mut shard) = begin();
    for i in 0..20u128 {
        queue.push_rows("t", rows(&[("a", i as i64, i as u64), ("b", i as i64, 1)]));
        queue.push_delete("t", delete(i, "a", (i as i64 - 2, i as i64), FAR));
    }
    feed(&mut shard, &queue);
    assert_eq!(shard.seal_due(), Some(SealReason::Deletes));
    hold(&shard, &queue);
    let job = shard.begin_seal().unwrap().unwrap();
    queue.push_rows("t", rows(&[("a", 3, 3)]));
    queue.push_delete("t", delete(99, "b", (0, 5), FAR));
    feed(&mut shard, &queue);
    hold(&shard, &queue);
    drop(shard.finish_seal(job.run()).unwrap());
    hold(&shard, &queue);
    shard.seal().unwrap();
    hold(&shard, &queue);
    upkeep(&mut shard).unwrap();
    hold(&shard, &queue);
}
