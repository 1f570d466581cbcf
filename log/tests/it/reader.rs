//! Readers beside a writer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use millrace_log::fs::OsFs;
use millrace_log::fs::sim::SimFs;
use millrace_log::{Log, LogError, LogOptions, LogReader, Lsn};
use millrace_model::TimestampMs;

use crate::support::{FIRST, append, content, dir, open, options, read_all};

fn read(reader: &LogReader, from: u64, max_bytes: usize) -> Result<Vec<u64>, LogError> {
    let mut out = Vec::new();
    let next = reader.read(Lsn(from), max_bytes, &mut out)?;
    assert_eq!(next.0, from + out.len() as u64);
    Ok(out.into_iter().map(|record| record.lsn.0).collect())
}

pub fn flipped_payload_is_noticed() -> Result<(), String> {
    let fs = SimFs::new();
    let (mut log, _) = open(&fs).map_err(|e| e.to_string())?;
    append(&mut log, 2, 0)
        .and_then(|_| log.sync())
        .map_err(|e| e.to_string())?;
    let (path, mut bytes) = fs.files().pop().unwrap();
    let second = 40 + (40 + content(FIRST.0, 0).1.len()).next_multiple_of(8);
    bytes[second + 40] ^= 1;
    fs.damage(&path, &bytes).unwrap();
    match read(&log.reader(), FIRST.0 + 1, 1) {
        Err(LogError::Corrupt {
            path: named,
            offset,
            ..
        }) if named == path && offset == second as u64 => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

#[test]
fn a_flipped_payload_is_noticed() {
    flipped_payload_is_noticed().unwrap();
}

#[test]
fn records_before_damage_are_read() {
    let fs = SimFs::new();
    let (mut log, _) = open(&fs).unwrap();
    append(&mut log, 3, 0).and_then(|_| log.sync()).unwrap();
    let (path, mut bytes) = fs.files().pop().unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs.damage(&path, &bytes).unwrap();
    let reader = log.reader();
    assert_eq!(read(&reader, 100, 10_000).unwrap(), [100, 101]);
    assert!(matches!(
        read(&reader, 102, 10_000),
        Err(LogError::Corrupt { .. })
    ));
}

#[test]
fn only_synced_records_are_seen_and_at_least_one_of_them() {
    let fs = SimFs::new();
    let (mut log, _) = open(&fs).unwrap();
    let reader = log.reader();
    assert_eq!(read(&reader, 100, 100).unwrap(), []);
    append(&mut log, 4, 0).unwrap();
    assert_eq!(read(&reader, 100, 100).unwrap(), []);
    assert!(matches!(
        read(&reader, 101, 100),
        Err(LogError::BeyondEnd {
            wanted: Lsn(101),
            end: Lsn(100)
        })
    ));
    assert_eq!(log.sync().unwrap(), Lsn(104));
    assert_eq!(read(&reader, 100, 0).unwrap(), [100]);
    assert_eq!(read(&reader, 100, 100_000).unwrap(), [100, 101, 102, 103]);
    assert_eq!(read(&reader, 103, 1).unwrap(), [103], "from the middle");
    assert_eq!(read(&reader, 101, 1).unwrap(), [101], "and back");
    assert_eq!(read(&reader, 104, 1).unwrap(), []);
}

#[test]
fn removed_records_are_told_from_damage() {
    let fs = SimFs::new();
    let (mut log, _) = open(&fs).unwrap();
    for _ in 0..3 {
        append(&mut log, 2, 0).unwrap();
        log.roll().unwrap();
    }
    let reader = log.reader();
    assert_eq!(read(&reader, 100, 1).unwrap(), [100]);
    assert_eq!(
        log.remove_below(Lsn(103)).unwrap(),
        1,
        "whole segments only"
    );
    assert_eq!(log.first_lsn(), Lsn(102));
    for stale in [reader.clone(), reader] {
        assert!(matches!(
            read(&stale, 101, 1),
            Err(LogError::Removed {
                wanted: Lsn(101),
                first: Lsn(102)
            })
        ));
        assert_eq!(read(&stale, 102, 1).unwrap(), [102]);
    }
    assert_eq!(log.remove_below(Lsn(106)).unwrap(), 2);
    assert_eq!((log.first_lsn(), log.next_lsn()), (Lsn(106), Lsn(106)));
    drop(log);
    fs.kill();
    let (log, report) = open(&fs).unwrap();
    assert_eq!(
        (log.next_lsn(), report.records),
        (Lsn(106), 0),
        "the end is remembered"
    );
}

#[test]
fn the_newest_segment_is_never_removed() {
    let (mut log, _) = open(&SimFs::new()).unwrap();
    append(&mut log, 2, 0).and_then(|_| log.sync()).unwrap();
    assert_eq!(log.remove_below(Lsn(102)).unwrap(), 0);
    assert_eq!(log.remove_below(Lsn(u64::MAX)).unwrap(), 0);
    log.roll().unwrap();
    log.roll().unwrap();
    assert_eq!(
        log.segments().len(),
        2,
        "rolling an empty segment does nothing"
    );
}

#[test]
fn times_are_found_as_by_looking_at_every_record() {
    let (mut log, _) = open(&SimFs::new()).unwrap();
    for salt in 0..40 {
        append(&mut log, 1 + salt % 3, salt).unwrap();
        log.sync().unwrap();
    }
    let records = read_all(&log).unwrap();
    assert!(log.segments().len() > 3);
    let reader = log.reader();
    for time in 950..1900 {
        let time = TimestampMs(time);
        let wanted = records.iter().find(|record| record.time >= time);
        let wanted = wanted.map_or(log.synced_lsn(), |record| record.lsn);
        assert_eq!(reader.seek_time(time).unwrap(), wanted, "{time}");
    }
}

#[test]
fn segments_tell_their_records_bytes_and_times() {
    let (mut log, _) = open(&SimFs::new()).unwrap();
    append(&mut log, 3, 0).unwrap();
    log.roll().unwrap();
    append(&mut log, 1, 0).unwrap();
    let segments = log.segments();
    let times: Vec<_> = (100..103).map(|lsn| content(lsn, 0).0).collect();
    assert_eq!(
        (segments[0].first_lsn, segments[0].next_lsn),
        (Lsn(100), Lsn(103))
    );
    assert_eq!(segments[0].first_time, times.iter().min().copied());
    assert_eq!(segments[0].last_time, times.iter().max().copied());
    assert_eq!(
        (segments[1].next_lsn, segments[1].bytes),
        (Lsn(103), 40),
        "not synced yet"
    );
    assert_eq!(segments[1].first_time, None);
}

#[test]
fn records_over_the_limit_are_refused_and_change_nothing() {
    let (mut log, _) = open(&SimFs::new()).unwrap();
    let max = options().max_record_bytes;
    let payload = vec![0; max as usize + 1];
    let parts: [&[u8]; 2] = [&payload[1..], &payload[..1]];
    let long = millrace_log::NewRecord {
        time: TimestampMs(0),
        parts: &parts,
    };
    assert!(matches!(
        log.append(&[long]),
        Err(LogError::RecordTooLarge {
            bytes: 4001,
            max: 4000
        })
    ));
    let fits = millrace_log::NewRecord {
        time: TimestampMs(0),
        parts: &parts[..1],
    };
    assert_eq!(
        log.append(&[fits, fits]).unwrap(),
        Lsn(100)..Lsn(102),
        "longer than a segment"
    );
    log.sync().unwrap();
    assert_eq!(read_all(&log).unwrap()[1].payload, payload[1..]);
    assert_eq!(log.append(&[]).unwrap(), Lsn(102)..Lsn(102));
}

#[test]
fn numbers_run_out_with_an_error() {
    let first = Lsn(u64::MAX - 2);
    let fs = Arc::new(SimFs::new());
    let (mut log, _) = Log::open(fs, dir(), options(), first).unwrap();
    let record = millrace_log::NewRecord {
        time: TimestampMs(0),
        parts: &[],
    };
    let refused = log.append(&[record; 3]);
    assert!(matches!(refused, Err(LogError::Exhausted { next, records: 3 }) if next == first));
    assert_eq!(log.append(&[record; 2]).unwrap(), first..Lsn(u64::MAX));
    assert_eq!(log.sync().unwrap(), Lsn(u64::MAX));
    assert_eq!(read_all(&log).unwrap().len(), 2);
    assert!(matches!(
        log.append(&[record]),
        Err(LogError::Exhausted { .. })
    ));
}

#[test]
fn many_restarts_leave_few_files() {
    let fs = SimFs::new();
    for _ in 0..50 {
        let (mut log, _) = open(&fs).unwrap();
        append(&mut log, 1, 0).and_then(|_| log.sync()).unwrap();
        drop(log);
        fs.kill();
        open(&fs).unwrap();
        fs.kill();
    }
    let (log, report) = open(&fs).unwrap();
    assert_eq!(report.records, 50);
    let bytes: u64 = log.segments().iter().map(|segment| segment.bytes).sum();
    let files = fs.files().len() as u64;
    assert!(
        files <= 2 + bytes / (options().segment_bytes / 4),
        "{files} files for {bytes} bytes"
    );
}

#[test]
fn a_reader_follows_a_writer_that_removes_what_it_wrote() {
    const RECORDS: u64 = 3_000;
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions {
        segment_bytes: 10_000,
        ..LogOptions::default()
    };
    let (mut log, _) = Log::open(Arc::new(OsFs), &dir.path().join("log"), options, FIRST).unwrap();
    let reader = log.reader();
    let applied = Arc::new(AtomicU64::new(FIRST.0));
    let consumer = std::thread::spawn({
        let applied = Arc::clone(&applied);
        move || {
            let (mut next, mut seen) = (FIRST, Vec::new());
            while next.0 < FIRST.0 + RECORDS {
                next = reader.read(next, 2_000, &mut seen).unwrap();
                applied.store(next.0, Ordering::SeqCst);
                std::thread::yield_now();
            }
            seen
        }
    });
    let mut removed = 0;
    while log.next_lsn().0 < FIRST.0 + RECORDS {
        append(&mut log, 10, 1).unwrap();
        log.sync().unwrap();
        removed += log
            .remove_below(Lsn(applied.load(Ordering::SeqCst)))
            .unwrap();
    }
    let seen = consumer.join().unwrap();
    assert_eq!(seen.len() as u64, RECORDS);
    for (lsn, record) in (FIRST.0..).zip(&seen) {
        assert_eq!(record.lsn.0, lsn);
        assert_eq!(content(lsn, 1), (record.time, record.payload.to_vec()));
    }
    removed += log.remove_below(log.next_lsn()).unwrap();
    assert!(removed > 5, "{removed} segments removed");
}
