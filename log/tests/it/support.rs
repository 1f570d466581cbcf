//! A small log on a simulated disk, and the oracle.

use std::path::Path;
use std::sync::Arc;

use millrace_log::fs::sim::{Ledger, SimFs};
use millrace_log::{Log, LogError, LogOptions, LogRecord, Lsn, NewRecord, Recovery};
use millrace_model::TimestampMs;

pub const DIR: &str = "/data/log";
pub const FIRST: Lsn = Lsn(100);

pub fn dir() -> &'static Path {
    Path::new(DIR)
}

/// Small, so that a few records fill a segment.
pub fn options() -> LogOptions {
    LogOptions {
        segment_bytes: 1500,
        index_interval_bytes: 200,
        max_record_bytes: 4000,
    }
}

pub fn open(fs: &SimFs) -> Result<(Log, Recovery), LogError> {
    Log::open(Arc::new(fs.clone()), dir(), options(), FIRST)
}

/// What record `lsn` of a test holds: a time that sometimes goes back, and bytes that are found
/// nowhere else. `salt` tells apart the contents that one number may have had.
pub fn content(lsn: u64, salt: u64) -> (TimestampMs, Vec<u8>) {
    let len = usize::try_from(lsn * 37 % 150 + (lsn % 11 / 10) * 700).unwrap();
    let bytes = (0..len as u64)
        .map(|i| (i * 7 + lsn * 13 + salt * 31) as u8)
        .collect();
    (
        TimestampMs((lsn * 10).cast_signed() - (lsn % 3).cast_signed() * 15),
        bytes,
    )
}

pub fn append(log: &mut Log, count: u64, salt: u64) -> Result<std::ops::Range<Lsn>, LogError> {
    let next = log.next_lsn().0;
    let contents: Vec<_> = (next..next + count).map(|lsn| content(lsn, salt)).collect();
    // In two pieces, as callers have a header and a body.
    let parts: Vec<[&[u8]; 2]> = contents
        .iter()
        .map(|(_, bytes)| bytes.split_at(bytes.len() / 3).into())
        .collect();
    let records: Vec<_> = contents
        .iter()
        .zip(&parts)
        .map(|((time, _), parts)| NewRecord { time: *time, parts })
        .collect();
    log.append(&records)
}

pub fn read_all(log: &Log) -> Result<Vec<LogRecord>, LogError> {
    let reader = log.reader();
    let mut records = Vec::new();
    let mut next = reader.first_lsn();
    while next < reader.synced_lsn() {
        next = reader.read(next, 300, &mut records)?;
    }
    Ok(records)
}

/// What a workload did, as far as it matters to what must be found later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Records were handed to `append`, from this one on.
    Attempt { first: Lsn, count: u64, salt: u64 },
    /// Everything below was said to be durable, by a sync or by opening.
    Durable(Lsn),
    /// The log was opened and ends here: what had been attempted behind is gone.
    Opened(Lsn),
    /// Records below may be gone.
    Removing(Lsn),
    /// The log said that it begins here.
    Removed(Lsn),
}

/// What must be found, following from events.
#[derive(Debug, Default)]
pub struct Expected {
    /// For each record from `FIRST` on the salts that it was attempted with since the log was
    /// opened without it: several, if a failed append is tried again.
    salts: Vec<Vec<u64>>,
    durable: u64,
    removing: u64,
    removed: u64,
}

impl Expected {
    pub fn from<'a>(events: impl Iterator<Item = &'a Event>) -> Self {
        let (durable, removing, removed) = (FIRST.0, FIRST.0, FIRST.0);
        let mut this = Self {
            salts: Vec::new(),
            durable,
            removing,
            removed,
        };
        for event in events {
            match *event {
                Event::Attempt { first, count, salt } => {
                    let at = usize::try_from(first.0 - FIRST.0).unwrap();
                    let behind = at + usize::try_from(count).unwrap();
                    this.salts.resize(this.salts.len().max(behind), Vec::new());
                    this.salts[at..behind]
                        .iter_mut()
                        .for_each(|salts| salts.push(salt));
                }
                Event::Durable(next) => this.durable = this.durable.max(next.0),
                Event::Opened(next) => {
                    this.salts
                        .truncate(usize::try_from(next.0 - FIRST.0).unwrap());
                    this.durable = this.durable.max(next.0);
                }
                Event::Removing(below) => this.removing = this.removing.max(below.0),
                Event::Removed(first) => this.removed = this.removed.max(first.0),
            }
        }
        this
    }

    /// Compares what a log holds with what it may and must hold.
    pub fn check(&self, log: &Log) -> Result<Vec<LogRecord>, String> {
        let (first, next) = (log.first_lsn().0, log.next_lsn().0);
        if log.synced_lsn().0 != next {
            return Err(format!("opened with {} synced of {next}", log.synced_lsn()));
        }
        if next < self.durable {
            return Err(format!("ends at {next}, {} was durable", self.durable));
        }
        let attempted = FIRST.0 + self.salts.len() as u64;
        if next > attempted {
            return Err(format!("ends at {next}, only {attempted} was attempted"));
        }
        if first > self.removing || first < self.removed {
            return Err(format!(
                "begins at {first}, not in {}..={}",
                self.removed, self.removing
            ));
        }
        let records = read_all(log).map_err(|e| format!("reading: {e}"))?;
        let numbers: Vec<_> = records.iter().map(|record| record.lsn.0).collect();
        if numbers != (first..next).collect::<Vec<_>>() {
            return Err(format!("records {numbers:?} instead of {first}..{next}"));
        }
        for record in &records {
            let salts = &self.salts[usize::try_from(record.lsn.0 - FIRST.0).unwrap()];
            let found = (record.time, record.payload.to_vec());
            if !salts
                .iter()
                .any(|salt| content(record.lsn.0, *salt) == found)
            {
                return Err(format!("record {} is not what was appended", record.lsn));
            }
        }
        Ok(records)
    }
}

/// Opens what a crash or a fault left, compares, opens again, and goes on.
pub fn recover_and_check(
    fs: &SimFs,
    expected: &Expected,
    recovery_done: impl FnOnce(Event),
) -> Result<(), String> {
    let opened = |what: &str| open(fs).map_err(|e| format!("{what}: {e}"));
    let (log, _) = opened("first open")?;
    // What opening found, it called durable.
    recovery_done(Event::Opened(log.next_lsn()));
    let records = expected.check(&log)?;
    let segments = log.segments();
    let files = fs.files();
    if files.len() != segments.len() {
        return Err(format!(
            "{} segments in {} files",
            segments.len(),
            files.len()
        ));
    }
    drop(log);
    fs.kill();
    let (mut log, again) = opened("second open")?;
    if expected.check(&log)? != records {
        return Err("the second open found other records".into());
    }
    if (again.torn_bytes, again.leftover_bytes, again.removed_files) != (0, 0, 0) {
        return Err(format!("the first open left work to the second: {again:?}"));
    }
    let next = log.next_lsn();
    let going_on = |log: &mut Log| {
        append(log, 3, 99)?;
        log.sync()?;
        append(log, 1, 99)?;
        log.sync()
    };
    going_on(&mut log).map_err(|e| format!("going on: {e}"))?;
    fs.acknowledge(&[dir()]).map_err(|e| e.to_string())?;
    drop(log);
    fs.kill();
    let (log, _) = opened("third open")?;
    let all = read_all(&log).map_err(|e| format!("reading after going on: {e}"))?;
    if all[..records.len()] != records[..] || all.len() != records.len() + 4 {
        return Err(format!(
            "after going on {} records of {} + 4",
            all.len(),
            records.len()
        ));
    }
    for record in &all[records.len()..] {
        if content(record.lsn.0, 99) != (record.time, record.payload.to_vec()) {
            return Err(format!(
                "record {} is not what was appended after {next}",
                record.lsn
            ));
        }
    }
    Ok(())
}

/// The ordering lint's verdict.
pub fn lint(fs: &SimFs) -> Result<(), String> {
    match fs.violations().first() {
        None => Ok(()),
        Some(violation) => Err(violation.to_string()),
    }
}

/// A workload of `steps` steps, each followed by a call that tells how it went; ends early if
/// `step` says so.
pub fn workload(
    fs: &SimFs,
    ledger: &mut Ledger<Event>,
    seed: u64,
    steps: u64,
    mut step: impl FnMut(Result<(), LogError>) -> Result<(), String>,
) -> Result<(), String> {
    let mut log: Option<Log> = None;
    let mut state = seed;
    let mut roll = |n: u64| {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 33) % n
    };
    for number in 0..steps {
        let Some(open_log) = &mut log else {
            match open(fs) {
                Ok((opened, _)) => {
                    ledger.note(Event::Opened(opened.next_lsn()));
                    log = Some(opened);
                    step(Ok(()))?;
                }
                Err(error) => {
                    step(Err(error))?;
                    fs.kill();
                }
            }
            continue;
        };
        let outcome = match roll(20) {
            0..=8 => {
                let (first, count, salt) = (open_log.next_lsn(), 1 + roll(3), number);
                ledger.note(Event::Attempt { first, count, salt });
                append(open_log, count, salt).map(drop)
            }
            9..=15 => open_log.sync().map(|next| {
                fs.acknowledge(&[dir()]).expect("the directory is there");
                ledger.note(Event::Durable(next));
            }),
            16 => open_log.roll(),
            17 => {
                let (first, next) = (open_log.first_lsn().0, open_log.synced_lsn().0);
                let below = Lsn(first + roll(next - first + 1));
                ledger.note(Event::Removing(below));
                open_log.remove_below(below).map(|_| {
                    ledger.note(Event::Removed(open_log.first_lsn()));
                })
            }
            _ => {
                log = None;
                fs.kill();
                continue;
            }
        };
        step(outcome)?;
    }
    Ok(())
}
