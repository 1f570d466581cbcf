//! Queries that are over the memory bound, while samples come in at an even pace.
//!
//! Two kinds of phases take turns: only the load, and the load with queries that ask for more than
//! they may have. What is compared is how long the same requests of the load take in both.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::client::{Client, percent_encode};
use crate::compare::System;
use crate::compare::server::Server;
use crate::encode::Protocol;
use crate::fleet::Profile;
use crate::load::{LoadSpec, Plan, now_ms};
use crate::process;

/// Ask millrace for more than a query may have, while it takes samples.
#[derive(Debug, Args)]
pub struct PressureArgs {
    /// The millrace binary
    #[arg(long, default_value = "target/release/millrace")]
    millrace: PathBuf,
    /// Most memory of a query, as millrace is told
    #[arg(long, default_value = "16MiB")]
    max_memory: String,
    /// Hosts of TSBS's kind: 10 series each
    #[arg(long, default_value_t = 2000)]
    hosts: u32,
    /// Requests of the load in a second, of 2 000 samples each
    #[arg(long, default_value_t = 50)]
    requests_per_second: u32,
    /// Seconds of a phase
    #[arg(long, default_value_t = 10)]
    phase_seconds: u32,
    /// Pairs of phases
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Queries that are asked at once
    #[arg(long, default_value_t = 1)]
    queries: usize,
    /// Of each of those, askings in a second; 0 asks again as soon as it is answered
    #[arg(long, default_value_t = 10)]
    queries_per_second: u32,
    /// Where the server's directory is made, and removed; on a real disk
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    work_dir: PathBuf,
}

const SAMPLES_PER_REQUEST: usize = 2000;

/// What the queries of a phase came to.
#[derive(Debug, Default)]
struct Asked {
    refused: u64,
    latencies: Vec<Duration>,
    reason: String,
}

/// Runs the command.
pub fn main(args: &PressureArgs) -> Result<()> {
    let dir = tempfile::Builder::new()
        .prefix("millrace-bench-")
        .tempdir_in(&args.work_dir)?;
    let more = [format!("--set=query.max_memory_bytes={}", args.max_memory)];
    let server = Server::start(System::Millrace, &args.millrace, &more, dir.path())?;
    let per_phase = args.requests_per_second * args.phase_seconds;
    let phases = 2 * args.rounds + 1;
    let plan = Plan::build(
        &LoadSpec {
            protocol: Protocol::RemoteWrite,
            profile: Profile::TsbsCpu,
            hosts: args.hosts,
            samples: u64::from(per_phase * phases) * SAMPLES_PER_REQUEST as u64,
            samples_per_request: SAMPLES_PER_REQUEST,
            connections: 1,
            seed: 1,
            max_seconds: u64::from(args.phase_seconds * phases * 2),
        },
        now_ms(),
    );
    eprintln!("{plan}");
    let bodies: Vec<&[u8]> = plan.bodies[0].iter().map(|b| &b.bytes[..]).collect();
    let mut phases = bodies.chunks_exact(per_phase as usize);
    let gap = Duration::from_secs(1) / args.requests_per_second;
    let mut client = Client::new(&server.url())?;
    // The first phase fills the memtables and is not counted.
    push(&mut client, phases.next().context("a phase")?, gap)?;
    let path = query_path(&plan);
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    let mut asked = Asked::default();
    let cpu = process::cpu_seconds(server.pid())?;
    for _ in 0..args.rounds {
        alone.extend(push(&mut client, phases.next().context("a phase")?, gap)?);
        let bodies = phases.next().context("a phase")?;
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| -> Result<()> {
            let askers: Vec<_> = (0..args.queries)
                .map(|_| scope.spawn(|| ask(&server.url(), &path, args.queries_per_second, &stop)))
                .collect();
            let pushed = push(&mut client, bodies, gap);
            stop.store(true, Ordering::Relaxed);
            for asker in askers {
                let one = asker.join().expect("asking does not panic")?;
                asked.refused += one.refused;
                asked.latencies.extend(one.latencies);
                asked.reason = one.reason;
            }
            beside.extend(pushed?);
            Ok(())
        })?;
    }
    let cpu = process::cpu_seconds(server.pid())? - cpu;
    ensure!(asked.refused > 0, "no query was asked");
    for latencies in [&mut alone, &mut beside, &mut asked.latencies] {
        latencies.sort();
    }
    let command: Vec<_> = std::env::args().skip(1).collect();
    println!("`millrace-bench {}`\n", command.join(" "));
    println!(
        "| requests of {SAMPLES_PER_REQUEST} samples, {} a second | p50, ms | p99, ms | slowest, ms |\n|---|--:|--:|--:|\n\
         | alone | {} |\n| beside {} queries, all refused | {} |\n| the refusals | {} |\n",
        args.requests_per_second,
        percentiles(&alone),
        asked.refused,
        percentiles(&beside),
        percentiles(&asked.latencies),
    );
    println!(
        "Refused with: {}\n\nPeak memory of the server {:.0} MB, {cpu:.1} s of CPU time.",
        asked.reason,
        process::peak_memory_bytes(server.pid())? as f64 / 1e6
    );
    drop(server);
    dir.close().context("remove the server's directory")
}

/// All series over the whole time, at every measurement.
fn query_path(plan: &Plan) -> String {
    let end = plan.end_ms / 1000;
    format!(
        "/api/v1/query_range?query={}&start={}&end={end}&step=10",
        percent_encode("{__name__=~\"cpu_.*\"}"),
        end - 3600
    )
}

/// Sends one body after the other, each at its time.
pub fn push(client: &mut Client, bodies: &[&[u8]], gap: Duration) -> Result<Vec<Duration>> {
    let protocol = Protocol::RemoteWrite;
    let mut latencies = Vec::with_capacity(bodies.len());
    let started = Instant::now();
    for (number, body) in (0..).zip(bodies) {
        let due = started + gap * number;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let sent = Instant::now();
        let answer = client.post(protocol.path(), protocol.headers(), body)?;
        ensure!(
            (200..300).contains(&answer.status),
            "{} {}",
            answer.status,
            answer.excerpt()
        );
        latencies.push(sent.elapsed());
    }
    Ok(latencies)
}

/// Asks until it is stopped, so many times a second, or without pause.
fn ask(url: &str, path: &str, per_second: u32, stop: &AtomicBool) -> Result<Asked> {
    let gap = Duration::from_secs(1)
        .checked_div(per_second)
        .unwrap_or_default();
    let mut client = Client::new(url)?;
    let mut asked = Asked::default();
    while !stop.load(Ordering::Relaxed) {
        let sent = Instant::now();
        let answer = client.get(path)?;
        if answer.status != 422 {
            bail!("answered {}: {}", answer.status, answer.excerpt());
        }
        asked.latencies.push(sent.elapsed());
        asked.refused += 1;
        asked.reason = answer.excerpt();
        std::thread::sleep(gap.saturating_sub(sent.elapsed()));
    }
    Ok(asked)
}

/// p50, p99 and the highest of latencies in order of size, in ms, as cells of a table.
pub fn percentiles(sorted: &[Duration]) -> String {
    let at = |percent: usize| {
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted
            .get(rank - 1)
            .map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e3)
    };
    format!("{:.2} | {:.2} | {:.2}", at(50), at(99), at(100))
}
