//! The format page and the golden file.

use std::path::Path;
use std::sync::Arc;

use millrace_log::fs::sim::SimFs;
use millrace_log::{Log, LogOptions, LogRecord, Lsn, NewRecord};
use millrace_model::TimestampMs;

const GOLDEN: &[u8] = include_bytes!("../../testdata/log-v1.bin");
const NAME: &str = "00000000000000000041.log";

fn records() -> Vec<LogRecord> {
    let record = |lsn, time, payload: &'static [u8]| LogRecord {
        lsn: Lsn(lsn),
        time: TimestampMs(time),
        payload: payload.into(),
    };
    vec![
        record(41, 1_795_233_600_000, b"first"),
        record(42, 1_795_233_600_250, b""),
        record(43, -1, b"after a sync"),
    ]
}

fn open(fs: &SimFs) -> Log {
    let log = Log::open(
        Arc::new(fs.clone()),
        Path::new("/log"),
        LogOptions::default(),
        Lsn(41),
    );
    log.unwrap().0
}

#[test]
fn golden_file_is_reproduced() {
    let fs = SimFs::new();
    let mut log = open(&fs);
    let records = records();
    for batch in [&records[..2], &records[2..]] {
        let parts: Vec<[&[u8]; 1]> = batch.iter().map(|record| [&record.payload[..]]).collect();
        let new: Vec<_> = batch
            .iter()
            .zip(&parts)
            .map(|(r, parts)| NewRecord {
                time: r.time,
                parts,
            })
            .collect();
        log.append(&new).unwrap();
        log.sync().unwrap();
    }
    let files = fs.files();
    assert_eq!(
        (files.len(), files[0].0.as_path()),
        (1, &*Path::new("/log").join(NAME))
    );
    assert_eq!(
        files[0].1, GOLDEN,
        "format changed: raise the version, keep the old file"
    );
}

#[test]
fn golden_file_is_read() {
    let fs = SimFs::new();
    drop(open(&fs));
    fs.damage(&Path::new("/log").join(NAME), GOLDEN).unwrap();
    let mut read = Vec::new();
    let reader = open(&fs).reader();
    assert_eq!(reader.read(Lsn(41), 1000, &mut read).unwrap(), Lsn(44));
    assert_eq!(read, records());
}

/// The page shows the golden file as a hex dump; so the page cannot drift from the code.
#[test]
fn format_page_shows_the_golden_file() {
    let page = include_str!("../../../docs/formats/log.md");
    for (i, line) in GOLDEN.chunks(16).enumerate() {
        let hex: Vec<_> = line.iter().map(|b| format!("{b:02x}")).collect();
        let line = format!("{:04x}  {}", i * 16, hex.join(" "));
        assert!(
            page.contains(&line),
            "docs/formats/log.md lacks the line\n{line}"
        );
    }
}
