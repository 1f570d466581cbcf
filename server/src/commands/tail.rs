//! `millrace queue tail` and `millrace queue inspect`: records as JSON lines.

use std::io::Write as _;
use std::time::Duration;

use clap::Args;
use millrace_model::{Clock as _, Offset, PartitionId, TimestampMs};
use millrace_queue::{ConsumeError, Consumer, RecordSource};

use super::records;
use super::records::show::{self, Depth};
use crate::config::Config;
use crate::failure::Failure;

/// Bytes of records asked for at once.
const POLL_BYTES: usize = 1 << 20;
/// How long one poll of a followed partition waits before the next one gets its turn.
const POLL_WAIT: Duration = Duration::from_millis(200);
/// Polls without a record, where there must be some, until the command gives up: 20 s.
const PATIENCE_POLLS: u32 = 100;

/// Which records.
#[derive(Debug, Args)]
pub struct TailArgs {
    /// A running server; without it, the queue of the configuration is opened
    #[arg(long)]
    pub url: Option<String>,
    /// Only this partition
    #[arg(long)]
    pub partition: Option<u32>,
    /// Begin at this offset (of each partition shown)
    #[arg(long, conflicts_with = "since")]
    pub from: Option<u64>,
    /// Begin with what the queue took this long ago, such as 10m
    #[arg(long, value_parser = crate::cli::duration)]
    pub since: Option<Duration>,
    /// Records of each partition at most; without --from and --since, the newest ones
    #[arg(short = 'n', long = "lines", default_value_t = 10)]
    pub lines: u64,
    /// Go on with records as they arrive
    #[arg(short, long)]
    pub follow: bool,
    /// Show series and samples, too
    #[arg(long)]
    pub data: bool,
}

/// Which record.
#[derive(Debug, Args)]
pub struct RecordArgs {
    /// A running server; without it, the queue of the configuration is opened
    #[arg(long)]
    pub url: Option<String>,
    /// Its partition
    #[arg(long)]
    pub partition: u32,
    /// Its offset
    #[arg(long)]
    pub offset: u64,
}

/// Prints records, oldest first within a partition.
///
/// # Errors
///
/// The queue cannot be opened or read; a partition or offset that it has not.
pub fn tail(config: &Config, args: &TailArgs) -> Result<(), Failure> {
    let opened = records::open(config, args.url.as_deref())?;
    let queue = &*opened.queue;
    let partitions = partitions(queue, args.partition.as_slice())?;
    let depth = if args.data {
        Depth::Whole
    } else {
        Depth::Header
    };
    let mut open = Vec::new();
    for partition in partitions {
        let bounds = queue.bounds(partition).map_err(failed)?;
        let from = match (args.from, args.since) {
            (Some(offset), _) => Offset(offset),
            (None, Some(since)) => {
                let time = millrace_log::SystemClock.now().saturating_sub(since);
                queue.offset_at(partition, time).map_err(failed)?
            }
            (None, None) => Offset(bounds.end.0.saturating_sub(args.lines)).max(bounds.start),
        };
        let mut consumer = queue.read_from(partition, from).map_err(failed)?;
        print_until(&mut *consumer, from, bounds.end, args.lines, depth)?;
        open.push(consumer);
    }
    if !args.follow {
        return Ok(());
    }
    loop {
        for consumer in &mut open {
            let mut found = Vec::new();
            consumer
                .poll(POLL_BYTES, POLL_WAIT, &mut found)
                .map_err(failed)?;
            for record in &found {
                line(&show::record(consumer.partition(), record, depth))?;
            }
        }
    }
}

/// Prints one record whole.
///
/// # Errors
///
/// The queue cannot be opened or read, or has no such record.
pub fn inspect(config: &Config, args: &RecordArgs) -> Result<(), Failure> {
    let opened = records::open(config, args.url.as_deref())?;
    let queue = &*opened.queue;
    let partition = partitions(queue, &[args.partition])?[0];
    let bounds = queue.bounds(partition).map_err(failed)?;
    let wanted = Offset(args.offset);
    if !bounds.contains(&wanted) {
        return Err(Failure::Data(format!(
            "partition {partition} has the offsets {} to {}, not {wanted}",
            bounds.start, bounds.end
        )));
    }
    let mut consumer = queue.read_from(partition, wanted).map_err(failed)?;
    let mut found = Vec::new();
    while found.is_empty() {
        consumer.poll(1, POLL_WAIT, &mut found).map_err(failed)?;
    }
    // Kafka's offsets have holes, where its own markers stand.
    if found[0].offset != wanted {
        return Err(Failure::Data(format!(
            "partition {partition} has no record at offset {wanted}; the next one is {}",
            found[0].offset
        )));
    }
    let shown = show::record(partition, &found[0], Depth::Whole);
    crate::print(&format!("{shown:#}\n"))
}

/// The partitions that are meant: all of them if none is named.
///
/// # Errors
///
/// One that the queue has not.
pub fn partitions(queue: &dyn RecordSource, named: &[u32]) -> Result<Vec<PartitionId>, Failure> {
    let there = queue.identity().partitions;
    if named.is_empty() {
        return Ok((0..there).map(PartitionId).collect());
    }
    match named.iter().find(|partition| **partition >= there) {
        Some(partition) => Err(Failure::Data(format!(
            "there is no partition {partition}: the queue has {there}, from 0 on"
        ))),
        None => Ok(named.iter().copied().map(PartitionId).collect()),
    }
}

/// A queue's error as the command's.
pub fn failed(error: ConsumeError) -> Failure {
    match error {
        ConsumeError::TooOld { .. }
        | ConsumeError::BeyondEnd { .. }
        | ConsumeError::AnotherQueue { .. }
        | ConsumeError::Diverged { .. }
        | ConsumeError::Damaged { .. } => Failure::Data(error.to_string()),
        ConsumeError::Unavailable { .. } | ConsumeError::Closed => {
            Failure::Client(error.to_string())
        }
    }
}

/// Prints records from `from` to `end`, at most `lines` of them, and leaves the consumer behind the
/// last one printed.
fn print_until(
    consumer: &mut dyn Consumer,
    from: Offset,
    end: Offset,
    lines: u64,
    depth: Depth,
) -> Result<(), Failure> {
    let (mut printed, mut next) = (0, from);
    let mut patience = PATIENCE_POLLS;
    while printed < lines && next < end {
        let mut found = Vec::new();
        consumer
            .poll(POLL_BYTES, POLL_WAIT, &mut found)
            .map_err(failed)?;
        if found.is_empty() {
            patience -= 1;
            if patience == 0 {
                return Err(Failure::Client(format!(
                    "partition {}: the records from {next} to {end} do not come",
                    consumer.partition()
                )));
            }
        }
        for record in found.iter().take_while(|record| record.offset < end) {
            if printed == lines {
                break;
            }
            line(&show::record(consumer.partition(), record, depth))?;
            printed += 1;
            next = record.offset.advanced(1);
        }
    }
    consumer.seek(next);
    Ok(())
}

/// Prints a line. Whoever read them has left (`| head`): then there is nothing left to do.
fn line(shown: &serde_json::Value) -> Result<(), Failure> {
    match writeln!(std::io::stdout().lock(), "{shown}") {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(source) => Err(Failure::System {
            what: "standard output cannot be written",
            source,
        }),
    }
}

/// A moment on the command line: RFC 3339, Unix seconds, or how long ago.
///
/// # Errors
///
/// Text that is none of these.
pub fn moment(text: &str) -> Result<TimestampMs, String> {
    if let Ok(time) = chrono::DateTime::parse_from_rfc3339(text) {
        return Ok(TimestampMs(time.timestamp_millis()));
    }
    if let Ok(seconds) = text.parse::<f64>()
        && seconds.is_finite()
    {
        return Ok(TimestampMs((seconds * 1000.0) as i64));
    }
    crate::cli::duration(text)
        .map(|ago| millrace_log::SystemClock.now().saturating_sub(ago))
        .map_err(|_| {
            format!("{text:?} is no moment: give RFC 3339, Unix seconds, or how long ago (2h)")
        })
}
