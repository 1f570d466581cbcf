//! What a query over many series takes of the server's memory.
//!
//! The samples are sealed into blocks, the server is started anew, and its resident memory before
//! the query is held against the highest during it. What the query needs is to follow its answer
//! and one pass, not its input.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::client::{Client, percent_encode};
use crate::compare::System;
use crate::compare::server::Server;
use crate::fleet::Profile;
use crate::load::now_ms;
use crate::process;
use crate::queries::feed::{self, Fed, Load};
use crate::queries::measure;

/// Measure the memory of queries over many series.
#[derive(Debug, Args)]
pub struct FootprintArgs {
    /// The millrace binary
    #[arg(long, default_value = "target/release/millrace")]
    millrace: PathBuf,
    /// Hosts of TSBS's kind: 10 series each
    #[arg(long, default_value_t = 10_000)]
    hosts: usize,
    /// Hours of their data
    #[arg(long, default_value_t = 24)]
    hours: u64,
    /// Seconds between two samples of a series
    #[arg(long, default_value_t = 300)]
    interval_seconds: u32,
    /// Where the server's directory is made, and removed; on a real disk
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    work_dir: PathBuf,
    /// Further arguments for millrace, such as --set=key=value
    #[arg(long = "millrace-arg", allow_hyphen_values = true)]
    millrace_args: Vec<String>,
}

/// Everything that the fleet has.
const ALL: &str = "{__name__=~\"cpu_.*\"}";

/// Runs the command.
pub fn main(args: &FootprintArgs) -> Result<()> {
    let dir = tempfile::Builder::new()
        .prefix("millrace-bench-")
        .tempdir_in(&args.work_dir)?;
    let more = &args.millrace_args;
    let mut server = Server::start(System::Millrace, &args.millrace, more, dir.path())?;
    let interval = i64::from(args.interval_seconds.max(1));
    let load = Load {
        profile: Profile::TsbsCpu,
        targets: args.hosts.max(1),
        steps: (args.hours * 3600 / u64::from(args.interval_seconds.max(1))).max(2),
        seed: 1,
        interval_ms: Some(interval * 1000),
    };
    let fed = feed::feed(&load, now_ms() - 60_000, &[server.url()])?;
    eprintln!("{} samples of {} series", fed.samples, fed.series);
    fed.wait_until_visible(&server.url())?;
    measure::seal(&mut server, more)?;
    let command: Vec<_> = std::env::args().skip(1).collect();
    println!("`millrace-bench {}`\n", command.join(" "));
    println!(
        "{} samples of {} series in blocks.\n\n\
         | query | points of the answer | before, MiB | highest, MiB | growth, MiB | s | CPU s |\n\
         |---|--:|--:|--:|--:|--:|--:|",
        fed.samples, fed.series
    );
    let hours = args.hours;
    for query in [
        format!("sum({ALL})"),
        format!("sum by (region) ({ALL})"),
        // Keeps the names, by which the series differ.
        format!("sum(last_over_time({ALL}[1h]))"),
    ] {
        server.restart(more)?;
        fed.wait_until_visible(&server.url())?;
        println!("{}", row(&server, &fed, &query, hours)?);
    }
    drop(server);
    dir.close().context("remove the server's directory")
}

/// Asks over all of the time, a point for every five minutes.
fn row(server: &Server, fed: &Fed, query: &str, hours: u64) -> Result<String> {
    let pid = server.pid();
    let before = process::resident_bytes(pid)?;
    // 5: the highest so far is forgotten (proc(5)).
    fs::write(format!("/proc/{pid}/clear_refs"), "5")?;
    let cpu = process::cpu_seconds(pid)?;
    let started = Instant::now();
    let path = format!(
        "/api/v1/query_range?query={}&start={}&end={}&step=300",
        percent_encode(query),
        fed.start_ms / 1000,
        fed.end_ms / 1000
    );
    let answer = Client::new(&server.url())?.get(&path)?;
    let seconds = started.elapsed().as_secs_f64();
    ensure!(answer.status == 200, "{query}: {}", answer.excerpt());
    let json: serde_json::Value = serde_json::from_slice(&answer.body)?;
    let series = json["data"]["result"].as_array().context("no result")?;
    let points = series
        .iter()
        .filter_map(|one| one["values"].as_array())
        .map(Vec::len);
    let highest = process::peak_memory_bytes(pid)?;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    Ok(format!(
        "| `{query}` over {hours} h | {} | {:.0} | {:.0} | {:.0} | {seconds:.2} | {:.2} |",
        points.sum::<usize>(),
        mib(before),
        mib(highest),
        mib(highest.saturating_sub(before)),
        process::cpu_seconds(pid)? - cpu
    ))
}
