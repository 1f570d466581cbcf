//! Every flipped bit.

use millrace_log::fs::sim::SimFs;
use millrace_log::{LogError, LogRecord};

use crate::support::{append, open, read_all};

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
            match open(&fs) {
                Err(
                    LogError::Corrupt { path: named, .. } | LogError::Version { path: named, .. },
                ) => {
                    assert_eq!(named, path, "bit {bit}");
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
                    cut += 1;
                }
            }
        }
    }
    println!("{refused} flips refused, {cut} cut");
    assert!(refused > 10 * cut && cut > 0);
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
