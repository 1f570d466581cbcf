//! The load: bodies prepared before the clock starts, then pushed as fast as the server takes them.

mod plan;
mod push;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};
use clap::Args;
use serde::Serialize;

pub use plan::{Check, Plan};
pub use push::push;

use crate::encode::Protocol;
use crate::fleet::Profile;

/// What to send.
#[derive(Clone, Debug, Args)]
pub struct LoadSpec {
    /// How samples are sent
    #[arg(long, value_enum, default_value = "remote-write")]
    pub protocol: Protocol,
    /// What is measured
    #[arg(long, value_enum, default_value = "tsbs-cpu")]
    pub profile: Profile,
    /// Number of hosts, targets or devices
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub hosts: u32,
    /// Samples to send in all (rounded up to whole measurements of all hosts)
    #[arg(long, default_value_t = 3_000_000)]
    pub samples: u64,
    /// Samples in one request, about
    #[arg(long, default_value_t = 2000)]
    pub samples_per_request: usize,
    /// Connections, each with a thread, hosts and requests of its own
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub connections: u32,
    /// Seed of all values
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Stop after so many seconds, done or not
    #[arg(long, default_value_t = 300)]
    pub max_seconds: u64,
}

/// Push pre-encoded samples to a running server.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// The server
    #[arg(long, default_value = "http://127.0.0.1:9009")]
    url: String,
    /// Path of the endpoint, if it is not the protocol's usual one
    #[arg(long)]
    path: Option<String>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    spec: LoadSpec,
}

/// How it went.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Samples in requests that were acknowledged.
    pub samples: u64,
    /// Requests that were acknowledged.
    pub requests: u64,
    /// Bytes of their bodies.
    pub body_bytes: u64,
    /// From the first byte sent to the last answer.
    pub seconds: f64,
    /// Acknowledged per second.
    pub samples_per_second: f64,
    /// Half of the requests took at most so long, retries included.
    pub p50_ms: f64,
    /// 99 of 100 did.
    pub p99_ms: f64,
    /// The slowest one.
    pub max_ms: f64,
    /// Answers 429 and 503, after which the request was sent again.
    pub pushed_back: u64,
    /// Connections that broke, after which the request was sent again.
    pub broken: u64,
    /// Requests that were refused for good.
    pub refused: u64,
    /// What one of those answers, or broken connections, said.
    pub first_problem: Option<String>,
    /// Requests that the time did not suffice for.
    pub unsent: u64,
    /// CPU seconds of this program while it sent.
    pub generator_cpu_seconds: f64,
}

/// Runs the command.
pub fn main(args: &LoadArgs) -> Result<()> {
    let plan = Plan::build(&args.spec, now_ms());
    eprintln!("{plan}");
    let path = args.path.as_deref().unwrap_or(args.spec.protocol.path());
    let deadline = Duration::from_secs(args.spec.max_seconds);
    let report = push(&plan, &args.url, path, deadline)?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", report.text());
    }
    if report.refused > 0 {
        bail!("the server refused {} requests", report.refused);
    }
    Ok(())
}

/// Now, in milliseconds since the epoch.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as i64)
}

impl Report {
    fn text(&self) -> String {
        let mut text = format!(
            "{} samples in {} requests, {:.2} s: {:.0} samples/s\n\
             latency p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms\n\
             {:.1} bytes sent per sample; the generator took {:.2} CPU seconds\n",
            self.samples,
            self.requests,
            self.seconds,
            self.samples_per_second,
            self.p50_ms,
            self.p99_ms,
            self.max_ms,
            self.body_bytes as f64 / self.samples.max(1) as f64,
            self.generator_cpu_seconds,
        );
        for (count, what) in [
            (self.pushed_back, "answers 429 or 503, sent again"),
            (self.broken, "broken connections, sent again"),
            (self.refused, "requests refused"),
            (self.unsent, "requests not sent: time was up"),
        ] {
            if count > 0 {
                text.push_str(&format!("{count} {what}\n"));
            }
        }
        if let Some(problem) = &self.first_problem {
            text.push_str(&format!("one of them: {problem}\n"));
        }
        text
    }
}
