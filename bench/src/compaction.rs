//! What merging costs: how often each byte is written again, and what requests notice of it.
//!
//! The same load goes at an even pace to a millrace that merges its blocks and to one that does not,
//! in turn. Memtables are small and the samples span days, so that blocks are written and merged all
//! the time. Afterwards both are left alone until nothing is left to do.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;

use crate::client::Client;
use crate::compare::System;
use crate::compare::compacted::{self, metric};
use crate::compare::round::wait_for_rest;
use crate::compare::server::Server;
use crate::encode::Protocol;
use crate::fleet::Profile;
use crate::load::{LoadSpec, Plan, now_ms};
use crate::pressure::{percentiles, push};
use crate::process;

/// Measure what merging blocks costs
#[derive(Debug, Args)]
pub struct CompactionArgs {
    /// The millrace binary
    #[arg(long, default_value = "target/release/millrace")]
    millrace: PathBuf,
    /// Hosts of TSBS's kind: 10 series each
    #[arg(long, default_value_t = 100)]
    hosts: u32,
    /// Requests of the load in a second, of 2 000 samples each
    #[arg(long, default_value_t = 200)]
    requests_per_second: u32,
    /// Seconds of the load
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Memory for samples: what is sealed each time is half of it
    #[arg(long, default_value = "8MiB")]
    memtable: String,
    /// Where the servers' directories are made, and removed; on a real disk
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    work_dir: PathBuf,
}

const SAMPLES_PER_REQUEST: usize = 2000;

/// Runs the command.
pub fn main(args: &CompactionArgs) -> Result<()> {
    let requests = args.requests_per_second * args.seconds;
    let plan = Plan::build(
        &LoadSpec {
            protocol: Protocol::RemoteWrite,
            profile: Profile::TsbsCpu,
            hosts: args.hosts,
            samples: u64::from(requests) * SAMPLES_PER_REQUEST as u64,
            samples_per_request: SAMPLES_PER_REQUEST,
            connections: 1,
            seed: 1,
            max_seconds: u64::from(args.seconds * 2),
        },
        now_ms(),
    );
    eprintln!("{plan}");
    let command: Vec<_> = std::env::args().skip(1).collect();
    println!("`millrace-bench {}`\n", command.join(" "));
    println!("{plan}\n");
    println!(
        "| merging | p50, ms | p99, ms | slowest, ms | blocks sealed, MB | written again, MB | times | merges | blocks at the end | bytes in blocks, a sample | CPU s |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    );
    for merging in [false, true] {
        println!("{}", one(args, &plan, merging)?);
    }
    Ok(())
}

fn one(args: &CompactionArgs, plan: &Plan, merging: bool) -> Result<String> {
    let dir = tempfile::Builder::new()
        .prefix("millrace-bench-")
        .tempdir_in(&args.work_dir)?;
    let more = [
        format!("--set=store.memtable_bytes={}", args.memtable),
        format!("--set=store.compaction={merging}"),
    ];
    let mut server = Server::start(System::Millrace, &args.millrace, &more, dir.path())?;
    let bodies: Vec<&[u8]> = plan.bodies[0].iter().map(|b| &b.bytes[..]).collect();
    let gap = Duration::from_secs(1) / args.requests_per_second;
    let mut client = Client::new(&server.url())?;
    let mut latencies = push(&mut client, &bodies, gap)?;
    latencies.sort();
    wait_for_rest(server.pid())?;
    let (mut sealed, mut again, mut merges) = (0.0, 0.0, 0.0);
    let mut count = |server: &Server| -> Result<()> {
        let mut client = Client::new(&server.url())?;
        sealed += metric(&mut client, "millrace_store_sealed_bytes_total")?;
        again += metric(&mut client, "millrace_store_compaction_written_bytes_total")?;
        merges += metric(&mut client, "millrace_store_compactions_total")?;
        Ok(())
    };
    count(&server)?;
    let cpu = process::cpu_seconds(server.pid())?;
    // What is in memory yet is sealed and merged too, by a process whose counters begin anew.
    compacted::seal(&mut server, &more)?;
    wait_for_rest(server.pid())?;
    count(&server)?;
    let row = format!(
        "| {} | {} | {:.1} | {:.1} | {:.2} | {merges} | {} | {:.3} | {cpu:.1} |",
        if merging { "on" } else { "off" },
        percentiles(&latencies),
        sealed / 1e6,
        again / 1e6,
        again / sealed,
        metric(&mut Client::new(&server.url())?, "millrace_store_blocks")?,
        metric(
            &mut Client::new(&server.url())?,
            "millrace_store_block_bytes"
        )? / plan.samples() as f64,
    );
    drop(server);
    dir.close().context("remove the server's directory")?;
    Ok(row)
}
