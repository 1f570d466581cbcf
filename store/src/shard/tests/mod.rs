mod compact;
mod crash;
mod deletes;
mod flips;
mod model;
mod planted;
mod recovery;
mod views;

use std::sync::Arc;
use std::time::Duration;

use millrace_log::fs::Fs;
use millrace_log::fs::sim::SimFs;
use millrace_model::{ManualClock, MetricMetadata, MetricType, STALE_NAN_BITS, TimestampMs};

use super::*;
use crate::testing::*;

fn sim() -> Arc<dyn Fs> {
    Arc::new(SimFs::new())
}

fn rows(of: &[(&str, i64, u64)]) -> Rows {
    of.iter().map(|&(s, t, v)| (s.to_owned(), t, v)).collect()
}

/// Applies what the shard has not seen.
fn feed(shard: &mut Shard, queue: &VecQueue) {
    shard.apply(queue.from(shard.applied())).unwrap();
}

#[test]
fn what_is_applied_can_be_read_bit_for_bit() {
    let mut queue = VecQueue::default();
    let bits = [
        STALE_NAN_BITS,
        0x7ff8_dead_beef_0001,
        (-0.0f64).to_bits(),
        1,
        u64::MAX,
    ];
    for (i, bits) in bits.into_iter().enumerate() {
        queue.push_rows("acme", rows(&[("a", i as i64 * 1_000, bits)]));
    }
    let mut shard = open(sim(), options()).unwrap();
    feed(&mut shard, &queue);
    assert_eq!(shard.applied(), queue.end());
    assert_eq!(dump(&shard, &["acme"]).unwrap(), queue.fold(queue.end()));
    shard.seal().unwrap();
    assert_eq!(dump(&shard, &["acme"]).unwrap(), queue.fold(queue.end()));
}

#[test]
fn redelivered_records_are_dropped_and_counted() {
    let mut queue = VecQueue::default();
    queue.push_rows("t", rows(&[("a", 1, 1)]));
    queue.push_rows("t", rows(&[("a", 1, 2)]));
    let mut shard = open(sim(), options()).unwrap();
    feed(&mut shard, &queue);
    shard.apply(&queue.records[..1]).unwrap();
    assert_eq!(dump(&shard, &["t"]).unwrap(), queue.fold(queue.end()));
    assert_eq!(shard.shared.metrics.redelivered_records.get(), 1);
    assert_eq!(shard.shared.metrics.batches.get(), 2);
}

#[test]
fn a_gap_in_the_offsets_is_legal() {
    let mut queue = VecQueue::default();
    queue.push_rows("t", rows(&[("a", 1, 1)]));
    queue.push_payload(batch("t", &rows(&[("a", 2, 2)])), 40);
    let mut shard = open(sim(), options()).unwrap();
    feed(&mut shard, &queue);
    assert_eq!(shard.applied(), Offset(42));
    assert_eq!(dump(&shard, &["t"]).unwrap().len(), 2);
}

#[test]
fn a_batch_is_applied_whole_or_becomes_a_dead_letter() {
    let mut queue = VecQueue::default();
    queue.push_rows("t", rows(&[("a", 1, 1)]));
    let mut bad = batch("t", &rows(&[("a", 2, 2), ("b", 2, 2)])).to_vec();
    let last = bad.len() - 1;
    bad[last] ^= 1;
    queue.push_payload(bad.clone().into(), 0);
    queue.push_rows("t", rows(&[("b", 3, 3)]));
    let fs = sim();
    let mut shard = open(Arc::clone(&fs), options()).unwrap();
    feed(&mut shard, &queue);
    assert_eq!(dump(&shard, &["t"]).unwrap(), queue.fold(queue.end()));
    for _ in 0..2 {
        let letters = shard.dead_letters().read_all().unwrap();
        let [letter] = &letters[..] else {
            panic!("{letters:?}")
        };
        assert_eq!(
            (letter.origin.offset, &letter.payload[..]),
            (Offset(1), &bad[..])
        );
        assert!(letter.reason.contains("checksum") || letter.reason.contains("crc32c"));
        // Replayed from the WAL, it is not written again.
        drop(shard);
        shard = open(Arc::clone(&fs), options()).unwrap();
    }
}

#[test]
fn too_many_dead_letters_stop_the_shard_until_they_are_accepted() {
    let mut queue = VecQueue::default();
    queue.push_rows("t", rows(&[("a", 1, 1)]));
    for _ in 0..4 {
        queue.push_payload(b"no batch".as_slice().into(), 0);
    }
    queue.push_rows("t", rows(&[("a", 2, 2)]));
    let fs = sim();
    let options = || StoreOptions {
        dead_letters_max: 3,
        ..options()
    };
    let mut shard = open(Arc::clone(&fs), options()).unwrap();
    let error = shard.apply(&queue.records).unwrap_err();
    assert!(
        matches!(error, StoreError::TooManyDeadLetters { max: 3, .. }),
        "{error}"
    );
    let stopped_by = |shard: &Shard| match shard.status().state {
        ShardState::Stopped { code, .. } => Some(code),
        ShardState::Running | ShardState::Closed => None,
    };
    // A restart changes nothing: the record is met again, in the WAL or in the queue.
    for _ in 0..2 {
        assert_eq!(stopped_by(&shard), Some(StopCode::DeadLetters));
        assert_eq!(shard.applied(), Offset(4), "the one too many is not passed");
        assert_eq!(shard.dead_letters().len(), 3);
        assert_eq!(dump(&shard, &["t"]).unwrap(), queue.fold(Offset(4)));
        drop(shard);
        shard = open(Arc::clone(&fs), options()).unwrap();
        if stopped_by(&shard).is_none() {
            let _stopped = shard.apply(queue.from(shard.applied())).unwrap_err();
        }
    }
    let letters = shard.dead_letters();
    drop(shard);
    letters.accept(TimestampMs(1_795_233_600_000)).unwrap();
    drop(letters);
    let mut shard = open(fs, options()).unwrap();
    feed(&mut shard, &queue);
    assert_eq!((shard.applied(), stopped_by(&shard)), (queue.end(), None));
    assert_eq!(shard.dead_letters().len(), 4);
    assert_eq!(dump(&shard, &["t"]).unwrap(), queue.fold(queue.end()));
}

#[test]
fn a_series_with_another_identity_is_refused() {
    use millrace_model::SeriesId;
    use millrace_model::batch::{FloatSectionWriter, encode_batch};
    let mut writer = FloatSectionWriter::new();
    let sample = millrace_model::Sample::new(1, 1.0);
    writer.push(SeriesId(42), labels("a").canonical(), &[sample]);
    let section = writer.finish();
    let mut queue = VecQueue::default();
    queue.push_payload(encode_batch(&tenant("t"), None, &section).into(), 0);
    let mut shard = open(sim(), options()).unwrap();
    feed(&mut shard, &queue);
    assert!(dump(&shard, &["t"]).unwrap().is_empty());
    let letters = shard.dead_letters().read_all().unwrap();
    assert!(letters[0].reason.contains("identity"), "{letters:?}");
}

#[test]
fn the_later_value_wins_wherever_the_two_are() {
    for (seal_between, reopen) in [(false, false), (true, false), (false, true), (true, true)] {
        let fs = sim();
        let mut queue = VecQueue::default();
        queue.push_rows(
            "t",
            rows(&[("a", 10, 1), ("a", 20, 1), ("a", 10, 2), ("a", 5, 1)]),
        );
        let mut shard = open(Arc::clone(&fs), options()).unwrap();
        feed(&mut shard, &queue);
        if seal_between {
            shard.seal().unwrap();
        }
        queue.push_rows(
            "t",
            rows(&[("a", 20, 9), ("a", 5, 7), ("a", 30, 1), ("a", 20, 8)]),
        );
        feed(&mut shard, &queue);
        if reopen {
            shard.sync_wal().unwrap();
            drop(shard);
            shard = open(fs, options()).unwrap();
        }
        assert_eq!(dump(&shard, &["t"]).unwrap(), queue.fold(queue.end()));
        shard.seal().unwrap();
        assert_eq!(dump(&shard, &["t"]).unwrap(), queue.fold(queue.end()));
    }
}

#[test]
fn a_requeued_record_fills_gaps_and_overrides_nothing_wherever_the_two_are() {
    for seals in 0..8u32 {
        let fs = sim();
        let mut queue = VecQueue::default();
        let mut shard = open(Arc::clone(&fs), options()).unwrap();
        let step = |queue: &VecQueue, bit: u32, shard: &mut Shard| {
            feed(shard, queue);
            if seals & bit != 0 {
                shard.seal().unwrap();
            }
        };
        queue.push_rows("t", rows(&[("a", 10, 1), ("a", 20, 1)]));
        step(&queue, 1, &mut shard);
        queue.push_requeued(
            "t",
            rows(&[("a", 10, 7), ("a", 15, 7), ("a", 30, 7), ("b", 1, 7)]),
        );
        step(&queue, 2, &mut shard);
        queue.push_requeued("t", rows(&[("a", 15, 8), ("b", 2, 8)]));
        queue.push_rows("t", rows(&[("a", 30, 2), ("c", 1, 2)]));
        step(&queue, 4, &mut shard);
        shard.close().unwrap();
        let shard = open(fs, options()).unwrap();
        let got = dump(&shard, &["t"]).unwrap();
        let of = |series: &str, t: i64| got[&("t".to_owned(), series.to_owned(), t)];
        let a = [of("a", 10), of("a", 15), of("a", 20), of("a", 30)];
        assert_eq!(a, [1, 8, 1, 2], "seals {seals:03b}");
        assert_eq!([of("b", 1), of("b", 2), of("c", 1)], [7, 8, 2]);
        assert_eq!(got, queue.fold(queue.end()));
    }
}

#[test]
fn tenants_with_equal_labels_are_apart() {
    let mut queue = VecQueue::default();
    queue.push_rows("one", rows(&[("a", 1, 1)]));
    queue.push_rows("two", rows(&[("a", 1, 2)]));
    let mut shard = open(sim(), options()).unwrap();
    feed(&mut shard, &queue);
    for sealed in [false, true] {
        if sealed {
            shard.seal().unwrap();
        }
        let one = dump(&shard, &["one"]).unwrap();
        assert_eq!(one.into_values().collect::<Vec<_>>(), [1]);
        assert_eq!(
            dump(&shard, &["one", "two"]).unwrap(),
            queue.fold(queue.end())
        );
    }
}

#[test]
fn samples_decades_apart_make_few_blocks() {
    let mut queue = VecQueue::default();
    let spread: Vec<_> = (0..300)
        .map(|i| {
            (
                "a".to_owned(),
                i * 86_400_000 * 40 - 5_000_000_000_000,
                i as u64,
            )
        })
        .collect();
    queue.push_rows("t", spread);
    let mut shard = open(sim(), options()).unwrap();
    feed(&mut shard, &queue);
    shard.seal().unwrap();
    let blocks = shard.status().blocks;
    assert!((2..=64).contains(&blocks), "{blocks} blocks");
    assert_eq!(dump(&shard, &["t"]).unwrap(), queue.fold(queue.end()));
}

#[test]
fn a_memtable_is_sealed_when_it_is_full_old_or_the_wal_is_long() {
    let clock = Arc::new(ManualClock::new(TimestampMs(0)));
    let open = |options| {
        let mut context = context(sim(), options);
        context.clock = Arc::clone(&clock) as Arc<dyn Clock>;
        Shard::open(context, &store_dir(), PartitionId(0)).unwrap()
    };
    let mut queue = VecQueue::default();
    queue.push_rows("t", rows(&[("a", 1, 1)]));

    let mut shard = open(options());
    feed(&mut shard, &queue);
    assert_eq!(shard.seal_due(), None);
    clock.advance(Duration::from_secs(2 * 3600));
    assert_eq!(shard.seal_due(), Some(SealReason::Old));
    shard.seal().unwrap();
    assert_eq!(shard.seal_due(), None);

    let mut shard = open(StoreOptions {
        memtable_bytes: 100,
        ..options()
    });
    feed(&mut shard, &queue);
    assert_eq!(shard.seal_due(), Some(SealReason::Full));

    let mut shard = open(StoreOptions {
        wal_bytes_max: 50,
        ..options()
    });
    feed(&mut shard, &queue);
    shard.sync_wal().unwrap();
    assert_eq!(shard.seal_due(), Some(SealReason::WalFull));
}

#[test]
fn ingest_and_reads_go_on_while_a_seal_runs() {
    let mut queue = VecQueue::default();
    queue.push_rows("t", rows(&[("a", 1, 1), ("a", 2, 2)]));
    let mut shard = open(sim(), options()).unwrap();
    feed(&mut shard, &queue);
    let job = shard.begin_seal().unwrap().unwrap();
    queue.push_rows("t", rows(&[("a", 2, 3), ("b", 1, 1)]));
    feed(&mut shard, &queue);
    assert!(shard.begin_seal().unwrap().is_none(), "one seal at a time");
    assert_eq!(dump(&shard, &["t"]).unwrap(), queue.fold(queue.end()));
    drop(shard.finish_seal(job.run()).unwrap());
    assert_eq!(shard.sealed(), Offset(1));
    assert_eq!(dump(&shard, &["t"]).unwrap(), queue.fold(queue.end()));
}

#[test]
fn a_reader_keeps_what_it_selected() {
    let mut queue = VecQueue::default();
    queue.push_rows("t", rows(&[("a", 1, 1)]));
    let mut shard = open(sim(), options()).unwrap();
    feed(&mut shard, &queue);
    let view = shard.shared.view();
    let mut found = Vec::new();
    let range = millrace_model::TimeRange::ALL;
    view.select(&tenant("t"), &[], range, &mut found).unwrap();
    shard.seal().unwrap();
    let (mut timestamps, mut values) = (Vec::new(), Vec::new());
    found[0].read(&mut timestamps, &mut values).unwrap();
    assert_eq!(timestamps, [1]);
}

#[test]
fn the_wal_shrinks_with_a_seal() {
    let mut queue = VecQueue::default();
    for i in 0..200 {
        queue.push_rows("t", rows(&[("a", i, 1), ("b", i, 1)]));
    }
    let mut shard = open(sim(), options()).unwrap();
    feed(&mut shard, &queue);
    shard.sync_wal().unwrap();
    let before = shard.wal.bytes();
    shard.seal().unwrap();
    assert!(
        shard.wal.bytes() < before / 20,
        "{} of {before}",
        shard.wal.bytes()
    );
}

#[test]
fn metadata_survives_in_wal_and_manifest_and_the_last_one_wins() {
    let entry = |help: &str| MetricMetadata {
        metric: "m".into(),
        metric_type: MetricType::Counter,
        help: help.into(),
        unit: String::new(),
    };
    let fs = sim();
    let mut queue = VecQueue::default();
    queue.push_payload(metadata_batch("t", &[entry("old")]), 0);
    let mut shard = open(Arc::clone(&fs), options()).unwrap();
    feed(&mut shard, &queue);
    shard.seal().unwrap();
    queue.push_payload(metadata_batch("t", &[entry("new")]), 0);
    for _ in 0..3 {
        feed(&mut shard, &queue);
        let all = shard.shared.metadata.read().clone();
        assert_eq!(all[&tenant("t")]["m"].help, "new");
        shard.sync_wal().unwrap();
        drop(shard);
        shard = open(Arc::clone(&fs), options()).unwrap();
        shard.seal().unwrap();
    }
}
