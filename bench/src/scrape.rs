//! What scraping costs: the same targets, scraped by each system in turn by the same configuration.
//!
//! The targets are paths of one server in this process; their bodies are made before the clock starts,
//! in a few versions that are given in turn, so that values move and series stay.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::client::{Client, percent_encode};
use crate::compare::System;
use crate::compare::binaries::Binaries;
use crate::compare::server::{Server, version};
use crate::process;

/// Measure what scraping costs
#[derive(Debug, Args)]
pub struct ScrapeArgs {
    #[command(flatten)]
    binaries: Binaries,
    /// Targets
    #[arg(long, default_value_t = 500)]
    targets: usize,
    /// Series of each
    #[arg(long, default_value_t = 1000)]
    series: usize,
    /// Seconds between two scrapes of a target
    #[arg(long, default_value_t = 15)]
    interval_seconds: u64,
    /// Intervals that are measured; two more go before them
    #[arg(long, default_value_t = 4)]
    intervals: u64,
    /// Where the servers' directories are made, and removed; on a real disk
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    work_dir: PathBuf,
}

/// Versions of a body.
const VERSIONS: usize = 4;

/// Runs the command.
pub fn main(args: &ScrapeArgs) -> Result<()> {
    let bodies: Arc<Vec<String>> = Arc::new((0..VERSIONS).map(|v| body(args.series, v)).collect());
    let scrapes = Arc::new(AtomicU64::new(0));
    let port = serve(bodies.clone(), scrapes.clone(), args.targets as u64)?;
    let command: Vec<_> = std::env::args().skip(1).collect();
    println!("`millrace-bench {}`\n", command.join(" "));
    println!(
        "{} targets of {} series, {} bytes each, every {} s.\n\n\
         | system | cores | scrapes a second | samples stored of a series, in the time measured | ns a sample | peak memory, MB |\n\
         |---|--:|--:|--:|--:|--:|",
        args.targets,
        args.series,
        bodies[0].len(),
        args.interval_seconds
    );
    for system in args.binaries.wanted() {
        let binary = args.binaries.of(system);
        if version(binary).is_none() {
            eprintln!("{} is not installed", system.name());
            continue;
        }
        println!("{}", one(args, system, binary, port, &scrapes)?);
    }
    Ok(())
}

fn one(
    args: &ScrapeArgs,
    system: System,
    binary: &Path,
    port: u16,
    scrapes: &AtomicU64,
) -> Result<String> {
    let dir = tempfile::Builder::new()
        .prefix("millrace-bench-")
        .tempdir_in(&args.work_dir)?;
    let file = dir.path().join("prometheus.yml");
    fs::write(&file, configuration(args, port))?;
    let more = match system {
        System::Millrace => vec![format!("--set=scrape.config_file={}", file.display())],
        System::Prometheus => Vec::new(),
        System::VictoriaMetrics => vec![format!("-promscrape.config={}", file.display())],
    };
    let server = Server::start(system, binary, &more, dir.path())?;
    let interval = Duration::from_secs(args.interval_seconds);
    // All series are there by then.
    std::thread::sleep(2 * interval);
    let (cpu, before) = (
        process::cpu_seconds(server.pid())?,
        scrapes.load(Ordering::Relaxed),
    );
    let started = Instant::now();
    std::thread::sleep(interval * u32::try_from(args.intervals)?);
    let seconds = started.elapsed().as_secs_f64();
    let cpu = process::cpu_seconds(server.pid())? - cpu;
    let done = scrapes.load(Ordering::Relaxed) - before;
    let stored = stored(&server, args)?;
    let row = format!(
        "| {} | {:.3} | {:.1} | {stored:.2} | {:.0} | {:.0} |",
        system.name(),
        cpu / seconds,
        done as f64 / seconds,
        cpu * 1e9 / (done as f64 * args.series as f64),
        process::peak_memory_bytes(server.pid())? as f64 / 1e6
    );
    drop(server);
    dir.close().context("remove the server's directory")?;
    Ok(row)
}

/// Samples that a series of the fleet has over the time measured, on average. VictoriaMetrics hides the newest ones
/// for a while.
fn stored(server: &Server, args: &ScrapeArgs) -> Result<f64> {
    let window = args.interval_seconds * args.intervals;
    let query = format!(
        "sum(count_over_time(bench_value{{series=\"0\"}}[{window}s])) / {}",
        args.targets
    );
    let path = format!("/api/v1/query?query={}", percent_encode(&query));
    let answer = Client::new(&server.url())?.get(&path)?;
    let json: serde_json::Value = serde_json::from_slice(&answer.body)?;
    let value = json["data"]["result"][0]["value"][1].as_str();
    match value.and_then(|text| text.parse().ok()) {
        Some(value) => Ok(value),
        None => bail!("{query}: {}", answer.excerpt()),
    }
}

/// In Prometheus's form. JSON is YAML too.
fn configuration(args: &ScrapeArgs, port: u16) -> String {
    let targets: Vec<_> = (0..args.targets)
        .map(|target| {
            serde_json::json!({
                "targets": [format!("127.0.0.1:{port}")],
                "labels": {"__metrics_path__": format!("/{target}"), "instance": format!("target-{target}")},
            })
        })
        .collect();
    serde_json::json!({
        "global": {"scrape_interval": format!("{}s", args.interval_seconds)},
        "scrape_configs": [{"job_name": "bench", "static_configs": targets}],
    })
    .to_string()
}

/// Counters, as exporters show them.
fn body(series: usize, version: usize) -> String {
    let mut text =
        String::from("# HELP bench_value Something that grows.\n# TYPE bench_value counter\n");
    for at in 0..series {
        let value = at * 31 + version * (at % 7);
        writeln!(
            text,
            "bench_value{{device=\"disk{}\",mode=\"m{}\",series=\"{at}\"}} {value}.25",
            at % 40,
            at % 8
        )
        .expect("text takes everything");
    }
    text
}

/// Answers every request, with the next version of the body after every `round` of them. The port that it listens on.
fn serve(bodies: Arc<Vec<String>>, scrapes: Arc<AtomicU64>, round: u64) -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (bodies, scrapes) = (bodies.clone(), scrapes.clone());
            // Ends with its connection; a scraper that leaves is no error.
            let connection = std::thread::Builder::new().stack_size(128 << 10);
            let run = move || answer_all(&stream, &bodies, &scrapes, round).unwrap_or_default();
            connection.spawn(run).expect("a thread for each connection");
        }
    });
    Ok(port)
}

fn answer_all(
    stream: &TcpStream,
    bodies: &[String],
    scrapes: &AtomicU64,
    round: u64,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut lines = BufReader::new(stream);
    let mut writer = stream;
    let mut line = String::new();
    loop {
        // The head of a request ends with an empty line; a GET has no body.
        loop {
            line.clear();
            if lines.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let number = scrapes.fetch_add(1, Ordering::Relaxed);
        let body = &bodies[usize::try_from(number / round).unwrap_or(0) % bodies.len()];
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        writer.write_all(head.as_bytes())?;
        writer.write_all(body.as_bytes())?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_answer_on_a_connection_that_is_kept() {
        let scrapes = Arc::new(AtomicU64::new(0));
        let bodies = Arc::new(vec![body(3, 0), body(3, 1)]);
        let port = serve(bodies.clone(), scrapes.clone(), 1).unwrap();
        let mut client = Client::new(&format!("http://127.0.0.1:{port}")).unwrap();
        for body in [&bodies[0], &bodies[1]] {
            assert_eq!(client.get("/7").unwrap().body, body.as_bytes());
        }
        assert_eq!(scrapes.load(Ordering::Relaxed), 2);
        assert!(
            bodies[1].contains("bench_value{device=\"disk2\",mode=\"m2\",series=\"2\"} 64.25\n")
        );
    }
}
