//! Into the live store: stretch by stretch, from the newest record to the oldest, a running store is
//! asked to restore what it lacks.
//!
//! **Why backwards:** a missing sample is restored with the value of the newest record that has it, and
//! once it is there, older records find it there. Records that were queued again come last, since what
//! they have gives way to what ordinary ones have. So a replay that is begun again, after whatever
//! interruption, does the rest, and one that is repeated does nothing.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::time::{Duration, Instant};

use millrace_model::PartitionId;
use serde_json::Value;

use super::{ReplayArgs, range};
use crate::commands::api::{Api, ApiError};
use crate::commands::progress::Progress;
use crate::commands::records;
use crate::commands::tail::partitions;
use crate::config::Config;
use crate::failure::Failure;
use crate::print;
use crate::replay::TOO_LARGE;

/// A stretch is read, looked up and restored.
const TIMEOUT: Duration = Duration::from_secs(300);
/// Records of one stretch at first, and at most.
const STRETCH: u64 = 512;
/// How long a server may be away, or busy, before the command gives up.
const PATIENCE: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct Tally {
    records: u64,
    samples: u64,
    restored: u64,
    undecodable: u64,
}

/// Drives the replay and says what it restored.
pub(super) fn run(config: &Config, args: &ReplayArgs) -> Result<(), Failure> {
    let url = match &args.url {
        Some(url) => url.clone(),
        None => format!("http://{}", reachable(config.top.listen)),
    };
    let api = Api::new(&url, TIMEOUT)?;
    let opened = records::running(&url)?;
    let queue = &*opened.queue;
    let applied = applied(&api)?;
    let mut plan = Vec::new();
    for partition in partitions(queue, &args.partition)? {
        let Some(applied) = applied.get(&partition) else {
            if args.partition.is_empty() {
                // Another store has it.
                continue;
            }
            return Err(Failure::Data(format!(
                "partition {partition} is in another store than that of {url}"
            )));
        };
        let range = range(queue, partition, args)?;
        plan.push((partition, range.start.0..range.end.0.min(*applied)));
    }
    if plan.is_empty() {
        return Err(Failure::Data(format!(
            "{url} has no store: ask one that has the role"
        )));
    }
    let total = plan.iter().map(|(_, range)| length(range)).sum();
    let mut replay = Replay {
        api,
        tally: Tally::default(),
        progress: Progress::new("replay", "records", total),
    };
    for (partition, range) in plan {
        replay.partition(partition, range).map_err(|error| {
            Failure::Client(format!(
                "{error}; what was restored is there, and the same command does the rest"
            ))
        })?;
    }
    let Replay {
        tally, progress, ..
    } = replay;
    progress.finish();
    let dead = match tally.undecodable {
        0 => String::new(),
        records => format!("; {records} records cannot be decoded (millrace dlq list)"),
    };
    let restored = match tally.restored {
        0 => "nothing was missing".to_owned(),
        samples => format!("{samples} were missing and are restored"),
    };
    print(&format!(
        "{} samples in {} records looked up: {restored}{dead}\n",
        tally.samples, tally.records
    ))
}

fn length(range: &Range<u64>) -> u64 {
    range.end.saturating_sub(range.start)
}

/// An address that stands for all of this machine's is asked at one of them.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// What the server's store has applied, by partition.
fn applied(api: &Api) -> Result<BTreeMap<PartitionId, u64>, Failure> {
    let status = api.get("/api/v1/status/pipeline", &[])?;
    let partitions = status["partitions"].as_array();
    let of = |entry: &Value| {
        let partition = u32::try_from(entry["partition"].as_u64()?).ok()?;
        Some((PartitionId(partition), entry["applied_offset"].as_u64()?))
    };
    Ok(partitions.into_iter().flatten().filter_map(of).collect())
}

struct Replay {
    api: Api,
    tally: Tally,
    progress: Progress,
}

impl Replay {
    fn partition(&mut self, partition: PartitionId, range: Range<u64>) -> Result<(), ApiError> {
        let mut requeued: Vec<u64> = Vec::new();
        let (mut end, mut step) = (range.end, STRETCH);
        while end > range.start {
            let start = range.start.max(end.saturating_sub(step));
            match self.ask(partition, start..end, "ordinary") {
                Ok(data) => {
                    let left_out = data["left_out"].as_array();
                    let left_out = left_out.into_iter().flatten().filter_map(Value::as_u64);
                    requeued.extend(left_out);
                    self.tally.records += end - start;
                    self.progress.set(self.tally.records);
                    end = start;
                }
                Err(ApiError::Refused(kind, _)) if kind == TOO_LARGE && step > 1 => step /= 2,
                Err(error) => return Err(error),
            }
        }
        requeued.sort_unstable();
        for offset in requeued.into_iter().rev() {
            self.ask(partition, offset..offset + 1, "requeued")?;
        }
        Ok(())
    }

    /// Asks for one stretch; a server that is away or busy for a while is asked again.
    fn ask(
        &mut self,
        partition: PartitionId,
        stretch: Range<u64>,
        records: &str,
    ) -> Result<Value, ApiError> {
        let pairs = [
            ("partition", partition.to_string()),
            ("from", stretch.start.to_string()),
            ("to", stretch.end.to_string()),
            ("records", records.to_owned()),
        ];
        let begun = Instant::now();
        let data = loop {
            match self.api.post("/api/v1/queue/replay", &pairs) {
                Ok(data) => break data,
                Err(error) if !passes(&error) || begun.elapsed() >= PATIENCE => return Err(error),
                Err(error) => {
                    tracing::debug!(%error, "asked again");
                    std::thread::park_timeout(RETRY);
                }
            }
        };
        let count = |field: &str| data[field].as_u64().unwrap_or(0);
        self.tally.samples += count("samples");
        self.tally.restored += count("restored");
        self.tally.undecodable += count("undecodable");
        Ok(data)
    }
}

/// Whether another try may help.
fn passes(error: &ApiError) -> bool {
    match error {
        ApiError::Away(_) => true,
        ApiError::Refused(kind, text) => kind == "unavailable" && !text.contains("admin_api"),
    }
}
