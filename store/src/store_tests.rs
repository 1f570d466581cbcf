//! The whole store with its threads, fed by the embedded queue.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::time::Instant;

use bytes::Bytes;
use millrace_log::SystemClock;
use millrace_log::fs::OsFs;
use millrace_log::fs::sim::SimFs;
use millrace_model::{STALE_NAN_BITS, ShardKey};
use millrace_queue::{ConsumeError, EmbeddedOptions, EmbeddedQueue, Record};

use super::*;
use crate::options::WalSync;
use crate::shard::ShardState;
use crate::testing::{batch, labels, tenant};

const PATIENCE: Duration = Duration::from_secs(30);

fn queue_on(fs: Arc<dyn Fs>, dir: &Path, partitions: u32) -> EmbeddedQueue {
    let options = EmbeddedOptions {
        partitions,
        ..EmbeddedOptions::default()
    };
    let clock = Arc::new(SystemClock);
    EmbeddedQueue::open(fs, clock, &dir.join("queue"), options, &Registry::new()).unwrap()
}

fn append(queue: &EmbeddedQueue, partition: u32, batches: Vec<Bytes>) -> Offset {
    let (done, end) = mpsc::channel();
    let done = Box::new(move |result| done.send(result).unwrap());
    let partition = PartitionId(partition);
    queue.producer().append(partition, batches, done);
    end.recv().unwrap().unwrap().end
}

fn open_on(fs: Arc<dyn Fs>, dir: &Path, queue: &EmbeddedQueue, options: StoreOptions) -> Store {
    let clock = Arc::new(SystemClock);
    let identity = queue.identity();
    let dir = dir.join("store");
    Store::open(fs, clock, &dir, options, identity, &Registry::new()).unwrap()
}

fn start(store: &Store, queue: &EmbeddedQueue) {
    let resume = store.resume_offsets().into_iter();
    let consumers = resume.map(|(p, from)| queue.consumer(p, from).unwrap());
    store.start(consumers.collect()).unwrap();
}

fn position(queue: &EmbeddedQueue, ends: &[(u32, Offset)]) -> Position {
    let mut position = Position::new(queue.identity().id);
    for (partition, end) in ends {
        position.advance(PartitionId(*partition), *end);
    }
    position
}

fn read(store: &Store) -> BTreeMap<(String, i64), u64> {
    let range = TimeRange::ALL;
    let mut all = BTreeMap::new();
    for series in store.select(&tenant("t"), &[], range).unwrap() {
        let (mut timestamps, mut values) = (Vec::new(), Vec::new());
        series.read(&mut timestamps, &mut values).unwrap();
        let name = series.labels().get("series").unwrap();
        for (timestamp, value) in timestamps.into_iter().zip(values) {
            all.insert((name.to_owned(), timestamp), value.to_bits());
        }
    }
    all
}

#[test]
fn acknowledged_samples_are_read_after_their_position_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let fs: Arc<dyn Fs> = Arc::new(OsFs);
    let queue = queue_on(Arc::clone(&fs), dir.path(), 3);
    let options = || StoreOptions {
        // Each few records are sealed.
        memtable_bytes: 30_000,
        wal_sync: WalSync::Interval(Duration::from_millis(1)),
        poll_bytes: 512,
        ..StoreOptions::default()
    };
    let store = open_on(Arc::clone(&fs), dir.path(), &queue, options());
    start(&store, &queue);
    let mut expect = BTreeMap::new();
    let mut ends = Vec::new();
    for partition in 0..3u32 {
        let mut end = Offset::ZERO;
        for i in 0..300i64 {
            let bits = match i % 7 {
                0 => STALE_NAN_BITS,
                1 => 0x8000_0000_0000_0000,
                _ => (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15),
            };
            let name = format!("p{partition}-{}", i % 13);
            let timestamp = i * 1_000 - (i % 5) * 7_000;
            let rows = [(name.clone(), timestamp, bits)];
            expect.insert((name, timestamp), bits);
            end = append(&queue, partition, vec![batch("t", &rows)]);
        }
        ends.push((partition, end));
    }
    let position = position(&queue, &ends);
    store.wait_applied(&position, PATIENCE).unwrap();
    assert_eq!(read(&store), expect);
    assert_eq!(store.applied(), position);
    let status = store.status();
    assert!(
        status.iter().all(|s| s.state == ShardState::Running),
        "{status:?}"
    );
    assert!(status.iter().all(|s| s.blocks > 0), "{status:?}");
    store.close().unwrap();
    assert_eq!(read(&store), expect, "a closed store still reads");
    drop(store);

    let store = open_on(Arc::clone(&fs), dir.path(), &queue, options());
    assert_eq!(
        store.applied(),
        position,
        "nothing is read from the queue again"
    );
    assert_eq!(read(&store), expect);
    start(&store, &queue);
    store.wait_applied(&position, PATIENCE).unwrap();
    store.close().unwrap();
    queue.close();
}

#[test]
fn labels_and_series_are_merged_over_shards_blocks_and_memtables() {
    let fs: Arc<dyn Fs> = Arc::new(SimFs::new());
    let dir = Path::new("data");
    let queue = queue_on(Arc::clone(&fs), dir, 2);
    let store = open_on(fs, dir, &queue, StoreOptions::default());
    start(&store, &queue);
    let mut ends = Vec::new();
    for partition in 0..2u32 {
        let rows = [(format!("s{partition}"), 5, 1), ("s9".to_owned(), 7, 1)];
        ends.push((
            partition,
            append(&queue, partition, vec![batch("t", &rows)]),
        ));
    }
    store
        .wait_applied(&position(&queue, &ends), PATIENCE)
        .unwrap();
    let (t, all) = (tenant("t"), TimeRange::ALL);
    assert_eq!(
        store.label_names(&t, &[], all).unwrap(),
        ["__name__", "series"]
    );
    assert_eq!(
        store.label_values(&t, "series", &[], all).unwrap(),
        ["s0", "s1", "s9"]
    );
    let sets = [
        vec![Matcher::equal("series", "s1")],
        vec![Matcher::equal("series", "no")],
    ];
    assert_eq!(
        store.label_values(&t, "series", &sets, all).unwrap(),
        ["s1"]
    );
    assert!(
        store
            .label_names(&tenant("other"), &[], all)
            .unwrap()
            .is_empty()
    );
    let found = store.series(&t, &sets[0], all).unwrap();
    assert_eq!(found, [labels("s1")]);
    let late = TimeRange::new(100_000_000, 200_000_000);
    assert!(store.series(&t, &[], late).unwrap().is_empty());
    store.close().unwrap();
}

#[test]
fn positions_of_another_queue_and_unreached_ones_are_refused() {
    let fs: Arc<dyn Fs> = Arc::new(SimFs::new());
    let queue = queue_on(Arc::clone(&fs), Path::new("d"), 1);
    let store = open_on(fs, Path::new("d"), &queue, StoreOptions::default());
    start(&store, &queue);
    let other = Position::new(millrace_model::QueueId(1));
    let error = store.wait_applied(&other, PATIENCE).unwrap_err();
    assert!(
        matches!(error, StoreError::ForeignPosition { .. }),
        "{error}"
    );
    let unreached = position(&queue, &[(0, Offset(9))]);
    let error = store
        .wait_applied(&unreached, Duration::from_millis(5))
        .unwrap_err();
    assert!(matches!(error, StoreError::WaitTimeout { .. }), "{error}");
    store.close().unwrap();
    let error = store.wait_applied(&unreached, PATIENCE).unwrap_err();
    assert!(matches!(error, StoreError::Stopped { .. }), "{error}");
}

/// A consumer that yields what a script says.
#[derive(Debug)]
struct Scripted {
    partition: PartitionId,
    script: Vec<Result<Vec<Record>, ConsumeError>>,
    sought: mpsc::Sender<Offset>,
}

impl Consumer for Scripted {
    fn partition(&self) -> PartitionId {
        self.partition
    }

    fn queue(&self) -> Result<millrace_model::QueueId, ConsumeError> {
        Ok(millrace_model::QueueId(3))
    }

    fn range(&self) -> Result<std::ops::Range<Offset>, ConsumeError> {
        Ok(Offset::ZERO..Offset(10))
    }

    fn record_at(&mut self, _: Offset, _: Duration) -> Result<Option<Record>, ConsumeError> {
        Ok(None)
    }

    fn commit(&mut self, _applied: Offset) -> Result<(), ConsumeError> {
        Ok(())
    }

    fn poll(
        &mut self,
        _max_bytes: usize,
        _wait: Duration,
        out: &mut Vec<Record>,
    ) -> Result<(), ConsumeError> {
        match self.script.pop() {
            Some(result) => result.map(|records| out.extend(records)),
            None => {
                std::thread::yield_now();
                Ok(())
            }
        }
    }

    fn seek(&mut self, next: Offset) {
        self.sought.send(next).unwrap();
    }

    fn end(&self) -> Result<Offset, ConsumeError> {
        Ok(Offset(10))
    }

    fn release(&mut self, _sealed: Offset) -> Result<(), ConsumeError> {
        Ok(())
    }
}

#[test]
fn a_queue_that_has_lost_records_stops_its_shard_and_no_other() {
    let fs: Arc<dyn Fs> = Arc::new(SimFs::new());
    let identity = QueueIdentity {
        id: millrace_model::QueueId(3),
        partitions: 2,
        shard_key: ShardKey::default(),
    };
    let clock = Arc::new(SystemClock);
    let (options, registry) = (StoreOptions::default(), Registry::new());
    let store = Store::open(fs, clock, Path::new("s"), options, &identity, &registry).unwrap();
    let record = |offset: u64| Record {
        offset: Offset(offset),
        appended_at: millrace_model::TimestampMs(0),
        payload: batch("t", &[(format!("s{offset}"), 1, 1)]),
    };
    let (sought, seeks) = mpsc::channel();
    let lost = ConsumeError::TooOld {
        partition: PartitionId(0),
        wanted: Offset(1),
        first: Offset(5),
    };
    let away = ConsumeError::Unavailable {
        partition: PartitionId(1),
        reason: "gone fishing".into(),
    };
    let scripted = |partition, mut script: Vec<_>| -> Box<dyn Consumer> {
        script.reverse();
        Box::new(Scripted {
            partition: PartitionId(partition),
            script,
            sought: sought.clone(),
        })
    };
    let consumers = vec![
        scripted(1, vec![Err(away), Ok(vec![record(0)]), Ok(vec![record(1)])]),
        scripted(0, vec![Ok(vec![record(0)]), Err(lost)]),
    ];
    store.start(consumers).unwrap();
    let mut position = Position::new(identity.id);
    position.advance(PartitionId(1), Offset(2));
    store.wait_applied(&position, PATIENCE).unwrap();
    position.advance(PartitionId(0), Offset(2));
    let error = store.wait_applied(&position, PATIENCE).unwrap_err();
    assert!(
        matches!(
            error,
            StoreError::Stopped {
                partition: PartitionId(0),
                ..
            }
        ),
        "{error}"
    );
    let status = store.status();
    let ShardState::Stopped {
        code: crate::shard::StopCode::RetentionOvertook,
        reason,
    } = &status[0].state
    else {
        panic!("{status:?}")
    };
    assert!(reason.contains("begins at 5"), "{reason}");
    assert_eq!(status[1].state, ShardState::Running);
    // The lag is measured now and then.
    let deadline = std::time::Instant::now() + PATIENCE;
    while store.status()[1].lag_records != 8 {
        assert!(std::time::Instant::now() < deadline, "{:?}", store.status());
        std::thread::yield_now();
    }
    // What the stopped shard has can still be read.
    assert_eq!(read(&store).len(), 2);
    let sought: Vec<_> = seeks.iter().take(2).collect();
    assert_eq!(sought, [Offset(0), Offset(0)]);
    assert!(store.close().is_err());
}

/// A consumer with a bug.
#[derive(Debug)]
struct Broken;

impl Consumer for Broken {
    fn partition(&self) -> PartitionId {
        PartitionId(0)
    }

    fn queue(&self) -> Result<millrace_model::QueueId, ConsumeError> {
        panic!("a bug of the test's consumer");
    }

    fn range(&self) -> Result<std::ops::Range<Offset>, ConsumeError> {
        Ok(Offset::ZERO..Offset::ZERO)
    }

    fn record_at(&mut self, _: Offset, _: Duration) -> Result<Option<Record>, ConsumeError> {
        Ok(None)
    }

    fn commit(&mut self, _: Offset) -> Result<(), ConsumeError> {
        Ok(())
    }

    fn poll(&mut self, _: usize, _: Duration, _: &mut Vec<Record>) -> Result<(), ConsumeError> {
        panic!("a bug of the test's consumer");
    }

    fn seek(&mut self, _: Offset) {}

    fn end(&self) -> Result<Offset, ConsumeError> {
        Ok(Offset::ZERO)
    }

    fn release(&mut self, _: Offset) -> Result<(), ConsumeError> {
        Ok(())
    }
}

#[test]
fn a_shard_whose_thread_panicked_is_stopped() {
    let fs: Arc<dyn Fs> = Arc::new(SimFs::new());
    let queue = queue_on(Arc::clone(&fs), Path::new("d"), 1);
    let store = open_on(fs, Path::new("d"), &queue, StoreOptions::default());
    store.start(vec![Box::new(Broken)]).unwrap();
    let unreached = position(&queue, &[(0, Offset(9))]);
    let error = store.wait_applied(&unreached, PATIENCE).unwrap_err();
    assert!(error.to_string().contains("panicked"), "{error}");
    assert!(matches!(store.close(), Err(StoreError::Panicked)));
}

#[test]
fn consumers_must_fit_the_shards() {
    let fs: Arc<dyn Fs> = Arc::new(SimFs::new());
    let queue = queue_on(Arc::clone(&fs), Path::new("d"), 2);
    let store = open_on(fs, Path::new("d"), &queue, StoreOptions::default());
    let of = |partition| {
        queue
            .consumer(PartitionId(partition), Offset::ZERO)
            .unwrap()
    };
    assert!(store.start(vec![of(0)]).is_err());
    assert!(store.start(vec![of(0), of(0)]).is_err());
    store.start(vec![of(1), of(0)]).unwrap();
    assert!(store.start(vec![of(1), of(0)]).is_err());
    store.close().unwrap();
    store.close().unwrap();
}

#[test]
fn a_part_of_the_store_reads_its_partitions_and_no_others() {
    let fs: Arc<dyn Fs> = Arc::new(SimFs::new());
    let queue = queue_on(Arc::clone(&fs), Path::new("d"), 3);
    let store = open_on(fs, Path::new("d"), &queue, StoreOptions::default());
    start(&store, &queue);
    let ends: Vec<_> = (0..3)
        .map(|p| {
            let rows = [(format!("s{p}"), 1, 2.0f64.to_bits())];
            (p, append(&queue, p, vec![batch("t", &rows)]))
        })
        .collect();
    store
        .wait_applied(&position(&queue, &ends), PATIENCE)
        .unwrap();
    let found = |partitions: &[u32]| -> Option<Vec<String>> {
        let partitions: Vec<_> = partitions.iter().copied().map(PartitionId).collect();
        let part = store.part(&partitions)?;
        let series = part.series(&tenant("t"), &[], TimeRange::ALL).unwrap();
        let values = part
            .label_values(&tenant("t"), "series", &[], TimeRange::ALL)
            .unwrap();
        assert_eq!(series.len(), values.len());
        Some(values)
    };
    assert_eq!(found(&[2, 0]), Some(vec!["s0".into(), "s2".into()]));
    assert_eq!(found(&[1, 1]), Some(vec!["s1".into()]));
    assert_eq!(found(&[]), Some(Vec::new()));
    assert_eq!(found(&[0, 3]), None);
    assert_eq!(
        store
            .all()
            .series(&tenant("t"), &[], TimeRange::ALL)
            .unwrap()
            .len(),
        3
    );
    store.close().unwrap();
}

#[test]
fn a_store_of_some_partitions_applies_and_tells_those_alone() {
    let fs: Arc<dyn Fs> = Arc::new(SimFs::new());
    let dir = Path::new("data");
    let queue = queue_on(Arc::clone(&fs), dir, 5);
    let open = |name: &str, owned: &[u32], fs: Arc<dyn Fs>| {
        let owned: Vec<_> = owned.iter().copied().map(PartitionId).collect();
        Store::open_partitions(
            fs,
            Arc::new(SystemClock),
            &dir.join(name),
            StoreOptions::default(),
            queue.identity(),
            &owned,
            &Registry::new(),
        )
    };
    let even = open("even", &[4, 0, 2], Arc::clone(&fs)).unwrap();
    let odd = open("odd", &[1, 3], Arc::clone(&fs)).unwrap();
    let resume: Vec<_> = even.resume_offsets().iter().map(|(p, _)| p.0).collect();
    assert_eq!(resume, [0, 2, 4]);
    assert_eq!(odd.owned(), [PartitionId(1), PartitionId(3)]);
    start(&even, &queue);
    start(&odd, &queue);
    let mut ends = Vec::new();
    for partition in 0..5u32 {
        let rows = [(format!("s{partition}"), 5, 1)];
        ends.push((
            partition,
            append(&queue, partition, vec![batch("t", &rows)]),
        ));
    }
    let part = |of: &[u32]| -> Vec<_> {
        let ends = ends.iter().filter(|(p, _)| of.contains(p));
        ends.copied().collect()
    };
    let wait =
        |store: &Store, of: &[u32]| store.wait_applied(&position(&queue, &part(of)), PATIENCE);
    wait(&even, &[0, 2, 4]).unwrap();
    wait(&odd, &[1, 3]).unwrap();
    assert_eq!(even.applied(), position(&queue, &part(&[0, 2, 4])));
    let names = |store: &Store| -> Vec<_> { read(store).into_keys().map(|(s, _)| s).collect() };
    assert_eq!(names(&even), ["s0", "s2", "s4"]);
    assert_eq!(names(&odd), ["s1", "s3"]);
    let partitions: Vec<_> = even.status().iter().map(|s| s.partition.0).collect();
    assert_eq!(partitions, [0, 2, 4]);
    assert!(
        even.status()
            .iter()
            .all(|s| s.applied_samples == 1 && s.applied_appended_at.is_some())
    );

    let error = wait(&even, &[0, 3]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "partition 3 belongs to another store, this one owns [0, 2, 4]"
    );
    let error = even
        .wait_applied(&position(&queue, &[(5, Offset(1))]), PATIENCE)
        .unwrap_err();
    assert!(
        matches!(error, StoreError::ForeignPosition { .. }),
        "{error}"
    );
    even.close().unwrap();
    odd.close().unwrap();
    queue.close();

    for (owned, expect) in [
        (&[1, 1][..], "to own a partition twice (partition 1)"),
        (
            &[0, 5],
            "to own a partition that the queue has not (partition 5)",
        ),
    ] {
        let error = open("none", owned, Arc::clone(&fs)).unwrap_err();
        assert_eq!(error.to_string(), expect);
    }
}

#[test]
fn the_memory_is_shared_by_the_partitions_that_are_owned() {
    let identity = QueueIdentity {
        id: millrace_model::QueueId(1),
        partitions: 8,
        shard_key: ShardKey::default(),
    };
    let owned: Vec<_> = (0..2).map(PartitionId).collect();
    // Each shard then takes an eighth of it: half of the memory.
    assert_eq!(share_of_all(1000, &owned, &identity), 4000);
}

#[path = "store_tests/retention.rs"]
mod retention;
