use bytes::Bytes;
use millrace_log::fs::sim::SimFs;
use millrace_model::{Offset, QueueId};

use super::*;

const NOW: TimestampMs = TimestampMs(1_795_233_601_000);

fn record(offset: u64) -> Record {
    Record {
        offset: Offset(offset),
        appended_at: TimestampMs(1_795_233_600_000),
        payload: Bytes::from_static(b"no batch"),
    }
}

fn origin(queue: u128, offset: u64) -> Origin {
    Origin {
        queue: QueueId(queue),
        partition: PartitionId(2),
        offset: Offset(offset),
    }
}

fn open(fs: &Arc<dyn Fs>) -> DeadLetterBox {
    DeadLetterBox::open_in(fs, "dlq".into(), PartitionId(2)).unwrap()
}

fn sim() -> Arc<dyn Fs> {
    Arc::new(SimFs::new())
}

fn keep(letters: &DeadLetterBox, queue: u128, offset: u64, now: TimestampMs) -> Kept {
    keep_in(letters, queue, offset, now, false)
}

fn keep_in(
    letters: &DeadLetterBox,
    queue: u128,
    offset: u64,
    now: TimestampMs,
    replaying: bool,
) -> Kept {
    let terms = Terms {
        now,
        max: 3,
        replaying,
    };
    let origin = origin(queue, offset);
    letters.keep(origin, &record(offset), "why", terms).unwrap()
}

fn offsets(letters: &DeadLetterBox) -> Vec<u64> {
    let all = letters.read_all().unwrap();
    all.iter().map(|l| l.origin.offset.0).collect()
}

#[test]
fn a_letter_is_kept_once_whoever_delivers_its_record_again() {
    let fs = sim();
    assert_eq!(keep(&open(&fs), 7, 41, NOW), Kept::New);
    let letters = open(&fs);
    assert_eq!(keep(&letters, 7, 41, NOW), Kept::Before);
    let expect = DeadLetter {
        origin: origin(7, 41),
        appended_at: TimestampMs(1_795_233_600_000),
        kept_at: NOW,
        reason: "why".into(),
        payload: record(41).payload,
    };
    assert_eq!(letters.read_all().unwrap(), std::slice::from_ref(&expect));
    assert_eq!(letters.read(origin(7, 41)).unwrap(), Some(expect));
    assert_eq!(letters.read(origin(8, 41)).unwrap(), None);
    // The same offset of another queue is another record.
    assert_eq!(keep(&letters, 8, 41, NOW), Kept::New);
    assert_eq!(letters.len(), 2);
}

#[test]
fn purged_letters_are_gone_and_a_replay_does_not_bring_them_back() {
    let fs = sim();
    let letters = open(&fs);
    for offset in [3, 5, 9] {
        assert_eq!(keep(&letters, 7, offset, NOW), Kept::New);
    }
    let both = [origin(7, 3), origin(7, 9), origin(7, 4)];
    assert_eq!(letters.purge(&both, NOW).unwrap(), 2);
    assert_eq!(letters.purge(&both, NOW).unwrap(), 0);
    let mut letters = letters;
    for _ in 0..2 {
        assert_eq!(offsets(&letters), [5]);
        for replayed in [3, 5, 9] {
            assert_eq!(keep_in(&letters, 7, replayed, NOW, true), Kept::Before);
        }
        drop(letters);
        letters = open(&fs);
    }
    assert_eq!(letters.purge(&[origin(7, 5)], NOW).unwrap(), 1);
    drop(letters);
    let letters = open(&fs);
    assert!(letters.is_empty());
    assert_eq!(keep_in(&letters, 7, 9, NOW, true), Kept::Before);
    // Delivered by the queue again, on purpose, it is a letter again.
    let later = NOW.saturating_add(DEAD_LETTER_WINDOW * 2);
    assert_eq!(keep(&letters, 7, 9, later), Kept::New);
}

#[test]
fn too_many_in_a_short_time_are_not_kept_until_somebody_accepts_them() {
    let fs = sim();
    let letters = open(&fs);
    for offset in 0..3 {
        assert_eq!(keep(&letters, 7, offset, NOW), Kept::New);
    }
    assert_eq!(keep(&letters, 7, 3, NOW), Kept::TooMany);
    drop(letters);
    // A restart does not forget them, and known ones are no new ones.
    let letters = open(&fs);
    assert_eq!(keep(&letters, 7, 3, NOW), Kept::TooMany);
    assert_eq!(keep(&letters, 7, 2, NOW), Kept::Before);
    letters.accept(NOW).unwrap();
    drop(letters);
    let letters = open(&fs);
    assert_eq!(keep(&letters, 7, 3, NOW), Kept::New);
    // Time does it, too.
    let later = NOW.saturating_add(DEAD_LETTER_WINDOW * 2);
    for offset in 4..7 {
        assert_eq!(keep(&letters, 7, offset, later), Kept::New);
    }
    assert_eq!(keep(&letters, 7, 7, later), Kept::TooMany);
    assert_eq!(offsets(&letters), [0, 1, 2, 3, 4, 5, 6]);
}

#[test]
fn golden_frames_are_reproduced_read_and_shown() {
    let stored = include_bytes!("../../testdata/dead-letter-v1.bin");
    let times = (TimestampMs(1_795_233_600_000), NOW);
    let head = codec::encode_head(origin(7, 41), times, "not a batch");
    let golden = [&head[..], b"no batch"].concat();
    assert_eq!(golden, stored, "format changed: take a new kind");
    let Some(Frame::Letter(letter)) = codec::decode(&Bytes::from_static(stored)) else {
        panic!("no letter");
    };
    assert_eq!(
        (letter.reason.as_str(), letter.kept_at),
        ("not a batch", NOW)
    );
    crate::testing::check_page(include_str!("../../../docs/formats/wal.md"), stored);
}

#[test]
fn foreign_frames_are_refused() {
    let times = (NOW, NOW);
    let head = codec::encode_head(origin(7, 41), times, "not a batch");
    let good = [&head[..], b"no batch"].concat();
    for cut in 0..codec::FIXED_BYTES + 12 {
        let cut_short = Bytes::copy_from_slice(&good[..cut]);
        assert_eq!(codec::decode(&cut_short), None, "{cut}");
    }
    let purge = Purge {
        kept_below: Some(origin(7, 1)),
        origins: vec![origin(7, 1), origin(6, 0)],
    };
    let bytes = Bytes::from(codec::encode_purge(&purge));
    for cut in 0..bytes.len() {
        let decoded = codec::decode(&bytes.slice(..cut));
        assert_ne!(decoded, Some(Frame::Purge(purge.clone())), "{cut}");
    }
    assert_eq!(codec::decode(&bytes), Some(Frame::Purge(purge)));
    assert_eq!(codec::decode(&Bytes::from_static(&[9; 9])), None);
}

#[test]
fn what_is_refused_at_the_same_time_is_kept_all_of_it() {
    let letters = open(&sim());
    let keep = |thread: u8| {
        let one = |n: u8| {
            let payload = Bytes::from(vec![thread, n]);
            let of = (QueueId(1), PartitionId(0));
            letters.keep_rejected(of, payload, "why", NOW).unwrap()
        };
        (0..50).map(one).collect::<Vec<_>>()
    };
    let origins = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|n| scope.spawn(move || keep(n))).collect();
        let joined = threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap());
        joined.collect::<std::collections::BTreeSet<_>>()
    });
    assert_eq!(origins.len(), 200);
    let all = letters.read_all().unwrap();
    let payloads: std::collections::BTreeSet<_> = all.iter().map(|l| l.payload.clone()).collect();
    assert_eq!(payloads.len(), 200);
}
