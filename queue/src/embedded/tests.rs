use std::sync::mpsc;

use millrace_log::SystemClock;
use millrace_log::fs::OsFs;
use millrace_log::fs::sim::SimFs;
use millrace_log::planted as log_planted;
use millrace_model::ManualClock;

use super::*;
use crate::planted;
use crate::traits::{AppendError, Record};

const DIR: &str = "/queue";

fn options() -> EmbeddedOptions {
    EmbeddedOptions {
        partitions: 2,
        segment_bytes: 1024,
        ..EmbeddedOptions::default()
    }
}

fn open_on(fs: &SimFs, options: EmbeddedOptions) -> Result<EmbeddedQueue, QueueError> {
    let clock = Arc::new(ManualClock::new(TimestampMs(1_000)));
    EmbeddedQueue::open(
        Arc::new(fs.clone()),
        clock,
        Path::new(DIR),
        options,
        &Registry::new(),
    )
}

fn append(queue: &EmbeddedQueue, partition: u32, payloads: &[&[u8]]) -> Result<u64, AppendError> {
    let (told, outcome) = mpsc::channel();
    let batches = payloads.iter().map(|p| Bytes::copy_from_slice(p)).collect();
    let done = Box::new(move |outcome| told.send(outcome).unwrap());
    queue
        .producer()
        .append(PartitionId(partition), batches, done);
    outcome.recv().unwrap().map(|range| range.end.0)
}

fn poll(consumer: &mut dyn Consumer) -> Vec<Record> {
    let mut out = Vec::new();
    consumer.poll(1 << 20, Duration::ZERO, &mut out).unwrap();
    out
}

fn consumer(queue: &EmbeddedQueue, from: u64) -> Result<Box<dyn Consumer>, ConsumeError> {
    queue.consumer(PartitionId(0), Offset(from))
}

#[test]
fn what_was_acknowledged_is_consumed_in_order_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        EmbeddedQueue::open(
            Arc::new(OsFs),
            Arc::new(SystemClock),
            &dir.path().join("queue"),
            options(),
            &Registry::new(),
        )
        .unwrap()
    };
    let queue = open();
    let identity = queue.identity().clone();
    assert_eq!(append(&queue, 0, &[b"a", b"b"]).unwrap(), 2);
    assert_eq!(append(&queue, 1, &[b"other"]).unwrap(), 1);
    assert_eq!(append(&queue, 0, &[b"c"]).unwrap(), 3);
    let check = |queue: &EmbeddedQueue| {
        let mut consumer = consumer(queue, 1).unwrap();
        let read: Vec<_> = poll(&mut *consumer)
            .into_iter()
            .map(|record| (record.offset.0, record.payload))
            .collect();
        assert_eq!(
            read,
            [(1, Bytes::from_static(b"b")), (2, Bytes::from_static(b"c"))]
        );
        assert_eq!(consumer.end().unwrap(), Offset(3));
        assert!(poll(&mut *consumer).is_empty());
    };
    check(&queue);
    queue.close();
    let queue = open();
    assert_eq!(queue.identity(), &identity);
    check(&queue);
    assert_eq!(append(&queue, 0, &[b"d"]).unwrap(), 4);
}

#[test]
fn another_partition_count_or_shard_key_is_refused_with_both_values() {
    let fs = SimFs::new();
    drop(open_on(&fs, options()).unwrap());
    let refused = |options| open_on(&fs, options).unwrap_err().to_string();
    let partitions = refused(EmbeddedOptions {
        partitions: 8,
        ..options()
    });
    assert!(
        partitions.contains("created with 2 partitions"),
        "{partitions}"
    );
    assert!(partitions.contains("says 8"), "{partitions}");
    let key = refused(EmbeddedOptions {
        shard_key: ShardKey::new(["pump".to_owned()]),
        ..options()
    });
    assert!(key.contains(r#"shard key ["instance", "host""#), "{key}");
    assert!(key.contains(r#"says ["pump"]"#), "{key}");
    // And it opens as before.
    open_on(&fs, options()).unwrap();
}

#[test]
fn the_stored_identity_can_be_asked_for_before_opening() {
    let fs = SimFs::new();
    let stored = || EmbeddedQueue::stored_identity(&fs, Path::new(DIR)).unwrap();
    assert_eq!(stored(), None);
    let queue = open_on(&fs, options()).unwrap();
    assert_eq!(stored().as_ref(), Some(queue.identity()));
}

fn with_lost_identity() -> SimFs {
    let fs = SimFs::new();
    let queue = open_on(&fs, options()).unwrap();
    append(&queue, 1, &[b"kept"]).unwrap();
    fs.unlink(&identity::identity_path(Path::new(DIR))).unwrap();
    fs
}

#[test]
fn a_lost_identity_beside_records_is_refused() {
    let error = open_on(&with_lost_identity(), options()).unwrap_err();
    assert!(
        matches!(error, QueueError::IdentityMissing { .. }),
        "{error}"
    );
}

#[test]
fn planted_identity_made_up_is_noticed() {
    let fs = with_lost_identity();
    let opened = log_planted::with(planted::IDENTITY_MADE_UP, || open_on(&fs, options()));
    assert!(opened.is_ok(), "the check above would have failed");
}

#[test]
fn a_lost_partition_is_refused() {
    let fs = SimFs::new();
    drop(open_on(&fs, options()).unwrap());
    fs.rmdir(&Path::new(DIR).join("1")).unwrap();
    let error = open_on(&fs, options()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "\"/queue/1\" is missing: partition 1 of the queue was removed"
    );
}

#[test]
fn useless_options_are_refused() {
    for partitions in [0, MAX_PARTITIONS + 1] {
        let options = EmbeddedOptions {
            partitions,
            ..options()
        };
        let error = open_on(&SimFs::new(), options).unwrap_err();
        assert!(
            matches!(error, QueueError::PartitionCount { .. }),
            "{error}"
        );
    }
    for max_batch_bytes in [0, MIN_BATCH_BYTES - 1, batch::MAX_BODY_BYTES + 1] {
        let options = EmbeddedOptions {
            max_batch_bytes,
            ..options()
        };
        let error = open_on(&SimFs::new(), options).unwrap_err();
        assert!(matches!(error, QueueError::BatchBytes { .. }), "{error}");
    }
}

#[test]
fn positions_outside_the_queue_are_refused_by_name() {
    let queue = open_on(&SimFs::new(), options()).unwrap();
    append(&queue, 0, &[b"a"]).unwrap();
    assert_eq!(
        consumer(&queue, 2).unwrap_err().to_string(),
        "partition 0: offset 2 was asked for, the queue ends at 1"
    );
    let mut consumer = consumer(&queue, 1).unwrap();
    consumer.seek(Offset(9));
    let error = consumer.poll(100, Duration::ZERO, &mut Vec::new());
    assert!(matches!(error, Err(ConsumeError::BeyondEnd { .. })));
    let error = consumer.release(Offset(2));
    assert!(matches!(error, Err(ConsumeError::BeyondEnd { .. })));
    consumer.seek(Offset(0));
    assert_eq!(poll(&mut *consumer).len(), 1);
}

#[test]
fn a_waiting_consumer_wakes_for_a_record_and_for_the_end() {
    let queue = open_on(&SimFs::new(), options()).unwrap();
    let mut consumer = consumer(&queue, 0).unwrap();
    let (about_to_wait, waiting) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        about_to_wait.send(()).unwrap();
        let mut out = Vec::new();
        // Longer than any test runs: only a wake-up ends it.
        consumer.poll(1000, Duration::MAX, &mut out).unwrap();
        let end = consumer.poll(1000, Duration::MAX, &mut out);
        (out.len(), end)
    });
    waiting.recv().unwrap();
    append(&queue, 0, &[b"a"]).unwrap();
    queue.close();
    let (records, end) = thread.join().unwrap();
    assert_eq!(records, 1);
    assert!(matches!(end, Err(ConsumeError::Closed)));
}

#[test]
fn a_closed_queue_refuses_appends_and_gives_what_it_has() {
    let queue = open_on(&SimFs::new(), options()).unwrap();
    append(&queue, 0, &[b"a"]).unwrap();
    let mut consumer = consumer(&queue, 0).unwrap();
    queue.close();
    assert!(matches!(
        append(&queue, 0, &[b"b"]),
        Err(AppendError::Closed)
    ));
    assert_eq!(poll(&mut *consumer).len(), 1);
    let end = consumer.poll(100, Duration::ZERO, &mut Vec::new());
    assert!(matches!(end, Err(ConsumeError::Closed)));
}

#[test]
fn a_batch_that_is_too_long_fails_alone() {
    let queue = open_on(
        &SimFs::new(),
        EmbeddedOptions {
            max_batch_bytes: MIN_BATCH_BYTES,
            ..options()
        },
    )
    .unwrap();
    let long = vec![0; MIN_BATCH_BYTES + 1];
    assert!(append(&queue, 0, &[&long]).is_err());
    assert_eq!(append(&queue, 0, &[b"a"]).unwrap(), 1);
}

#[test]
fn an_empty_append_is_durable() {
    let queue = open_on(&SimFs::new(), options()).unwrap();
    assert_eq!(append(&queue, 0, &[]).unwrap(), 0);
}

#[test]
fn record_times_never_go_backwards() {
    let fs = SimFs::new();
    let clock = Arc::new(ManualClock::new(TimestampMs(5_000)));
    let open = || {
        let clock = Arc::clone(&clock) as Arc<dyn Clock>;
        let fs = Arc::new(fs.clone());
        EmbeddedQueue::open(fs, clock, Path::new(DIR), options(), &Registry::new()).unwrap()
    };
    let queue = open();
    append(&queue, 0, &[b"a"]).unwrap();
    clock.jump_to(TimestampMs(1_000));
    append(&queue, 0, &[b"b"]).unwrap();
    queue.close();
    let queue = open();
    append(&queue, 0, &[b"c"]).unwrap();
    clock.jump_to(TimestampMs(6_000));
    append(&queue, 0, &[b"d"]).unwrap();
    let records = poll(&mut *consumer(&queue, 0).unwrap());
    let times: Vec<_> = records.iter().map(|r| r.appended_at.0).collect();
    assert_eq!(times, [5_000, 5_000, 5_000, 6_000]);
}

#[test]
fn retention_removes_what_is_old_and_released_and_tells_what_is_held() {
    let registry = Registry::new();
    let clock = Arc::new(ManualClock::new(TimestampMs(0)));
    let queue = EmbeddedQueue::open(
        Arc::new(SimFs::new()),
        Arc::clone(&clock) as Arc<dyn Clock>,
        Path::new(DIR),
        EmbeddedOptions {
            retention_age: Some(Duration::from_secs(60)),
            retention_bytes: None,
            ..options()
        },
        &registry,
    )
    .unwrap();
    let gauge = |name: &str| {
        let families = registry.gather();
        let family = families.iter().find(|f| f.name() == name).unwrap();
        family.get_metric()[0].get_gauge().get_value()
    };
    let held = || gauge("millrace_queue_retention_held_bytes");
    let first = || gauge("millrace_queue_first_offset");
    // Two records fill a segment.
    for _ in 0..6 {
        append(&queue, 0, &[&[7; 400]]).unwrap();
        clock.advance(Duration::from_secs(10));
    }
    let mut consumer = consumer(&queue, 0).unwrap();
    clock.advance(Duration::from_secs(3000));
    queue.enforce_retention(clock.now()).unwrap();
    assert_eq!(first(), 0.0, "nothing was released");
    assert!(held() > 800.0, "{}", held());
    consumer.release(Offset(3)).unwrap();
    queue.enforce_retention(clock.now()).unwrap();
    assert_eq!(first(), 2.0, "the segment of offset 2 holds offset 3 too");
    consumer.release(Offset(6)).unwrap();
    queue.enforce_retention(clock.now()).unwrap();
    assert_eq!((first(), held()), (4.0, 0.0), "the newest segment stays");
    let too_old = consumer.poll(100, Duration::ZERO, &mut Vec::new());
    assert_eq!(
        too_old.unwrap_err().to_string(),
        "partition 0: offset 0 was asked for, the queue begins at 4"
    );
    assert!(matches!(
        super::tests::consumer(&queue, 3),
        Err(ConsumeError::TooOld { .. })
    ));
}

#[test]
fn an_append_runs_retention_when_a_segment_was_filled_or_it_is_time() {
    let clock = Arc::new(ManualClock::new(TimestampMs(0)));
    let queue = EmbeddedQueue::open(
        Arc::new(SimFs::new()),
        Arc::clone(&clock) as Arc<dyn Clock>,
        Path::new(DIR),
        EmbeddedOptions {
            retention_age: None,
            retention_bytes: Some(2500),
            ..options()
        },
        &Registry::new(),
    )
    .unwrap();
    let mut consumer = consumer(&queue, 0).unwrap();
    let first = |queue: &EmbeddedQueue| queue.shared.partitions[0].reader().first_lsn().0;
    for end in 1..=12 {
        append(&queue, 0, &[&[7; 400]]).unwrap();
        consumer.release(Offset(end)).unwrap();
    }
    let after_rolls = first(&queue);
    assert!((4..12).contains(&after_rolls), "{after_rolls}");
    // Nothing more than a small record, but a minute later.
    clock.advance(Duration::from_secs(61));
    append(&queue, 1, &[b"x"]).unwrap();
    assert!(first(&queue) >= after_rolls);
}

#[test]
fn a_failed_sync_stops_the_partition_and_readers_go_on() {
    use millrace_log::fs::sim::{Fault, FaultKind};
    let fs = SimFs::new();
    let queue = open_on(&fs, options()).unwrap();
    append(&queue, 0, &[b"good"]).unwrap();
    fs.inject(Some(Fault {
        call: fs.call_count() + 1,
        kind: FaultKind::SyncLost,
        for_ever: true,
    }));
    let error = append(&queue, 0, &[b"lost"]).unwrap_err().to_string();
    assert!(
        error.contains("partition 0") && error.contains("sync"),
        "{error}"
    );
    fs.inject(None);
    assert!(append(&queue, 0, &[b"later"]).is_err(), "it stays stopped");
    assert_eq!(queue.shared.partitions[0].failed_gauge(), 1);
    assert_eq!(append(&queue, 1, &[b"other"]).unwrap(), 1);
    let records = poll(&mut *consumer(&queue, 0).unwrap());
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].payload, "good");
}

/// What a reader that has read one of two equally long queues is told by the other.
fn resume_on_another_past() -> Result<(), ConsumeError> {
    let (ours, theirs) = (SimFs::new(), SimFs::new());
    let queue = open_on(&ours, options()).unwrap();
    append(&queue, 0, &[b"one", b"two"]).unwrap();
    let read = poll(&mut *consumer(&queue, 0).unwrap());
    let other = open_on(&theirs, options()).unwrap();
    append(&other, 0, &[b"one", b"TWO", b"three"]).unwrap();
    let point = crate::ResumePoint {
        // As if it had been restored from a copy: the same queue by its name.
        queue: other.identity().id,
        next: Offset(2),
        last: read.last().map(crate::Fingerprint::of),
    };
    point.check(&mut *other.reader(PartitionId(0)), Duration::from_secs(5))
}

#[test]
fn a_queue_with_another_past_is_not_read_on() {
    let told = resume_on_another_past();
    assert!(
        matches!(told, Err(ConsumeError::Diverged { .. })),
        "{told:?}"
    );
}

#[test]
fn planted_fingerprint_unchecked_is_noticed() {
    let told = log_planted::with(planted::FINGERPRINT_UNCHECKED, resume_on_another_past);
    assert!(told.is_ok(), "the test would not notice: {told:?}");
}
