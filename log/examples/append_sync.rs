//! What an append and a sync cost on the real file system.
//!
//! `cargo run --release -p millrace-log --example append_sync -- [dir] [record bytes] [records]`

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use millrace_log::fs::OsFs;
use millrace_log::{Log, LogError, LogOptions, Lsn, NewRecord};
use millrace_model::TimestampMs;

fn main() -> Result<(), LogError> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let number =
        |arg: Option<String>, default| arg.map_or(default, |a| a.parse().unwrap_or(default));
    let bytes = number(args.next(), 40 << 10);
    let records = number(args.next(), 10_000);
    for records_per_sync in [1, 4, 16] {
        run(&dir, bytes, records, records_per_sync)?;
    }
    Ok(())
}

fn run(
    dir: &std::path::Path,
    bytes: usize,
    records: usize,
    per_sync: usize,
) -> Result<(), LogError> {
    let dir = dir.join(format!("millrace-append-{}-{per_sync}", std::process::id()));
    let payload: Vec<u8> = (0..bytes).map(|i| (i * 31 % 251) as u8).collect();
    let (mut log, _) = Log::open(Arc::new(OsFs), &dir, LogOptions::default(), Lsn::ZERO)?;
    let (mut appending, mut syncing) = (0, 0);
    for _ in 0..records / per_sync {
        let start = Instant::now();
        for _ in 0..per_sync {
            let (head, body) = payload.split_at(28);
            log.append(&[NewRecord {
                time: TimestampMs(0),
                parts: &[head, body],
            }])?;
        }
        let appended = Instant::now();
        log.sync()?;
        appending += (appended - start).as_nanos();
        syncing += appended.elapsed().as_nanos();
    }
    let reader = log.reader();
    let (mut next, mut out) = (Lsn::ZERO, Vec::new());
    let start = Instant::now();
    while next < reader.synced_lsn() {
        out.clear();
        next = reader.read(next, 1 << 20, &mut out)?;
    }
    let reading = start.elapsed().as_nanos();
    drop(log);
    let start = Instant::now();
    let (mut log, _) = Log::open(Arc::new(OsFs), &dir, LogOptions::default(), Lsn::ZERO)?;
    let opening = start.elapsed().as_nanos();
    let each = |nanos: u128| nanos / records as u128;
    println!(
        "{records} records of {bytes} bytes, {per_sync} a sync: append {} ns, sync {} ns, read {} ns, \
         open {} ns, each per record",
        each(appending),
        each(syncing),
        each(reading),
        each(opening),
    );
    log.roll()?;
    log.remove_below(log.next_lsn())?;
    drop(log);
    // The last, empty segment.
    let emptied = std::fs::remove_dir_all(&dir);
    emptied.map_err(|error| LogError::Io {
        action: "remove",
        path: dir,
        source: Arc::new(error),
    })
}
