//! What samples take on the disk once a server has put them into its lasting form.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::System;
use super::round::wait_for_rest;
use super::server::Server;
use crate::client::Client;
use crate::process;

/// Longest wait for millrace to seal everything.
const SEAL_TIMEOUT: Duration = Duration::from_secs(600);

/// Has the server do what it otherwise does with time, and gives the bytes that its samples and their index
/// then take. `args` are what millrace was started with.
///
/// Of millrace everything but the queue counts, which keeps its records for a time of its own. Of Prometheus a
/// snapshot counts: its head is written as a block for it, as otherwise after two hours.
pub fn bytes(server: &mut Server, args: &[String]) -> Result<u64> {
    let dir = server.data_dir();
    match server.system() {
        System::Millrace => {
            seal(server, args)?;
            wait_for_rest(server.pid())?;
            Ok(process::disk_bytes(&dir) - process::disk_bytes(&dir.join("queue")))
        }
        System::Prometheus => {
            post(server, "/api/v1/admin/tsdb/snapshot")?;
            Ok(process::disk_bytes(&dir.join("snapshots")))
        }
        System::VictoriaMetrics => {
            // What is in memory is written when it ends.
            server.restart(&[])?;
            post(server, "/internal/force_merge")?;
            wait_for_rest(server.pid())?;
            Ok(process::disk_bytes(Path::new(&dir)))
        }
    }
}

fn post(server: &Server, path: &str) -> Result<()> {
    let answer = Client::new(&server.url())?.post(path, "", b"")?;
    ensure!(
        (200..300).contains(&answer.status),
        "{path}: {} {}",
        answer.status,
        answer.excerpt()
    );
    Ok(())
}

/// Lets millrace move all samples from memory into blocks.
pub fn seal(server: &mut Server, args: &[String]) -> Result<()> {
    let mut args = args.to_vec();
    args.push("--set=store.memtable_max_age=1s".to_owned());
    server.restart(&args)?;
    let deadline = Instant::now() + SEAL_TIMEOUT;
    let mut client = Client::new(&server.url())?;
    while metric(&mut client, "millrace_store_memtable_samples")? > 0.0 {
        if Instant::now() >= deadline {
            bail!("samples are still in memory");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// The sum of all series of a metric that a millrace shows of itself.
pub fn metric(client: &mut Client, name: &str) -> Result<f64> {
    let answer = client.get("/metrics")?;
    let text = String::from_utf8_lossy(&answer.body);
    let mut values = text
        .lines()
        .filter(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(['{', ' ']))
        })
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .peekable();
    ensure!(values.peek().is_some(), "no {name} in /metrics");
    Ok(values.sum())
}
