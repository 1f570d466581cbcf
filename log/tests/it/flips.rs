//! Every flipped bit.

use millrace_log::fs::sim::SimFs;
use millrace_log::{Examined, LogError, LogRecord, examine};

use crate::support::{append, dir, open, read_all};

/// Three segments; of the newest the last record is not proven to be synced.
fn disk() -> (SimFs, Vec<LogRecord>) {
    let fs = SimFs::new();
    let (mut log, _) = open(&fs).unwrap();
    for salt in 0..3 {
        append(&mut log, 3, salt).unwrap();
        log.sync().unwrap();
        log.roll().unwrap();
    }
    append(&mut log, 2, 7).unwrap();
    log.sync().unwrap();
    append(&mut log, 1, 8).unwrap();
    log.sync().unwrap();
    let records = read_all(&log).unwrap();
    drop(log);
    fs.kill();
    (fs, records)
}

#[test]
fn every_flipped_bit_is_an_error_that_names_the_file_or_cuts_the_unproven_tail() {
    let (fs, records) = disk();
    let proven = records.len() - 1;
    let (mut refused, mut cut) = (0, 0);
    for (path, bytes) in fs.files() {
        for bit in 0..bytes.len() * 8 {
            let fs = fs.fork();
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            fs.damage(&path, &bad).unwrap();
            let (seen, examined) = examined(&fs);
            match open(&fs) {
                Err(
                    LogError::Corrupt { path: named, .. } | LogError::Version { path: named, .. },
                ) => {
                    assert_eq!(named, path, "bit {bit}");
                    assert_eq!(examined.damages.len(), 1, "{path:?} bit {bit}");
                    assert!(
                        examined.damages[0]
                            .to_string()
                            .contains(path.to_str().unwrap())
                    );
                    refused += 1;
                }
                Err(other) => panic!("{path:?} bit {bit}: {other}"),
                Ok((log, report)) => {
                    let read = read_all(&log).unwrap();
                    assert!(
                        read == records[..proven],
                        "{path:?} bit {bit}: other records"
                    );
                    assert!(report.torn_bytes > 0, "{path:?} bit {bit}: not counted");
                    assert!(examined.damages.is_empty(), "{path:?} bit {bit}");
                    assert_eq!((examined.torn_bytes, seen), (report.torn_bytes, read));
                    cut += 1;
                }
            }
        }
    }
    println!("{refused} flips refused, {cut} cut");
    assert!(refused > 10 * cut && cut > 0);
}

/// What looking at the log says, and that it changes nothing.
fn examined(fs: &SimFs) -> (Vec<LogRecord>, Examined) {
    let before = fs.files();
    let mut seen = Vec::new();
    let examined = examine(fs, dir(), &mut |record| seen.push(record)).unwrap();
    assert!(fs.files() == before, "examining changed the log");
    (seen, examined)
}

#[test]
fn examining_a_sound_log_shows_its_records_and_several_damages_at_once() {
    let (fs, records) = disk();
    let (seen, examined) = examined(&fs);
    assert_eq!((seen, examined.damages.len()), (records, 0));
    assert_eq!(examined.segments.len(), 4);
    let files = fs.files();
    for (path, bytes) in &files[..2] {
        let mut bad = bytes.clone();
        *bad.last_mut().unwrap() ^= 1;
        bad.truncate(bytes.len() - 1);
        fs.damage(path, &bad).unwrap();
    }
    let (_, examined) = self::examined(&fs);
    assert_eq!(examined.damages.len(), 2, "{:?}", examined.damages);
}

#[test]
fn a_reader_notices_every_bit_that_flips_under_it() {
    let (fs, records) = disk();
    let (log, _) = open(&fs).unwrap();
    let (path, bytes) = fs.files().swap_remove(1);
    for bit in 40 * 8..bytes.len() * 8 {
        let mut bad = bytes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        fs.damage(&path, &bad).unwrap();
        match read_all(&log) {
            Err(LogError::Corrupt { path: named, .. }) => assert_eq!(named, path),
            other => panic!("bit {bit}: {other:?}"),
        }
    }
    fs.damage(&path, &bytes).unwrap();
    assert_eq!(read_all(&log).unwrap(), records);
}
