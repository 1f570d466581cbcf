//! Retention by a store with its threads.

use super::*;
use crate::{CompactionOptions, RetentionOptions, RetentionPart};

/// A store that seals each record, merges nothing, and retains so.
fn started(
    fs: Arc<dyn Fs>,
    dir: &Path,
    queue: &EmbeddedQueue,
    retention: RetentionOptions,
) -> Store {
    let options = StoreOptions {
        memtable_bytes: 1,
        compaction: CompactionOptions {
            enabled: false,
            ..CompactionOptions::default()
        },
        retention,
        ..StoreOptions::default()
    };
    let store = open_on(fs, dir, queue, options);
    start(&store, queue);
    store
}

fn apply(store: &Store, queue: &EmbeddedQueue, rows: &[(String, i64, u64)]) {
    let end = append(queue, 0, vec![batch("t", rows)]);
    let at = position(queue, &[(0, end)]);
    store.wait_applied(&at, PATIENCE).unwrap();
}

fn until_sealed(store: &Store, samples: u64) {
    let sealed = || store.blocks().iter().map(|b| b.2.samples).sum::<u64>();
    let deadline = Instant::now() + PATIENCE;
    while sealed() < samples {
        assert!(Instant::now() < deadline, "{:?}", store.status());
        std::thread::yield_now();
    }
}

#[test]
fn samples_expire_before_their_rollups_and_both_go_at_last() {
    let fs: Arc<dyn Fs> = Arc::new(SimFs::new());
    let dir = Path::new("data");
    let queue = queue_on(Arc::clone(&fs), dir, 1);
    let hour = 3_600_000;
    let store = started(
        fs,
        dir,
        &queue,
        RetentionOptions {
            samples_age: Some(Duration::from_secs(10 * 3600)),
            age: Some(Duration::from_secs(20 * 3600)),
            ..RetentionOptions::default()
        },
    );
    let apply = |rows: &[(String, i64, u64)]| apply(&store, &queue, rows);
    let old: Vec<_> = (0..60)
        .map(|i| ("a".to_owned(), i * 10_000, i as u64))
        .collect();
    apply(&old);
    apply(&[("a".to_owned(), 11 * hour, 77)]);
    until_sealed(&store, 61);
    let report = store.retention_dry_run().unwrap();
    let parts: Vec<_> = report.items.iter().map(|i| (i.what, i.samples)).collect();
    assert_eq!(parts, [(RetentionPart::Samples, 60)]);
    assert_eq!(read(&store).len(), 61, "nothing went");
    store.retain().unwrap();
    let left: Vec<_> = read(&store).into_iter().collect();
    let expect = [(290_000, 29), (590_000, 59), (11 * hour, 77)];
    assert_eq!(left, expect.map(|(at, bits)| (("a".to_owned(), at), bits)));
    assert_eq!(store.retention_dry_run().unwrap().items, []);
    apply(&[("a".to_owned(), 25 * hour, 78)]);
    store.retain().unwrap();
    let left: Vec<_> = read(&store).into_values().collect();
    assert_eq!(left, [77, 78]);
    store.close().unwrap();
    queue.close();
}

#[test]
fn a_mistaken_age_takes_a_tenth_in_an_hour_and_all_when_it_is_confirmed() {
    let fs: Arc<dyn Fs> = Arc::new(SimFs::new());
    let dir = Path::new("data");
    let queue = queue_on(Arc::clone(&fs), dir, 1);
    let hour = 3_600_000;
    let store = started(Arc::clone(&fs), dir, &queue, RetentionOptions::default());
    let blocks = 40;
    for at in 0..blocks {
        apply(&store, &queue, &[("a".to_owned(), at * 2 * hour, 7)]);
    }
    until_sealed(&store, 40);
    store.close().unwrap();
    let mistaken = RetentionOptions {
        age: Some(Duration::from_secs(3600)),
        ..RetentionOptions::default()
    };
    let store = started(fs, dir, &queue, mistaken);
    for _ in 0..3 {
        store.retain_within_bound().unwrap();
        let left: Vec<_> = read(&store).into_keys().map(|(_, at)| at).collect();
        let oldest_went: Vec<_> = (4..blocks).map(|at| at * 2 * hour).collect();
        assert_eq!(left, oldest_went);
    }
    store.retain().unwrap();
    assert_eq!(read(&store).len(), 1, "the newest is not old");
    store.close().unwrap();
    queue.close();
}
