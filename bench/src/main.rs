//! Load for any server that takes remote write, line protocol or JSON, and a comparison of millrace
//! with Prometheus and VictoriaMetrics side by side.
//!
//! **Invariants:**
//! - Everything that is sent is encoded before the clock starts; the generator's own cost per
//!   sample is a copy into a socket.
//! - Nothing leaves this machine: servers are started on loopback ports, in temporary directories,
//!   and stopped by the process that started them.
//! - It depends on no other crate of this workspace, so that a mistake there cannot hide here.
#![expect(
    clippy::disallowed_methods,
    reason = "a measuring tool: it needs the real time, real waiting and real files, and no crash \
              test runs over it"
)]

mod client;
mod compaction;
mod compare;
mod encode;
mod fleet;
mod footprint;
mod kafka;
mod load;
mod pressure;
mod process;
mod queries;
mod scrape;
mod values;
mod wire;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Load generator and side-by-side benchmark for time-series servers.
#[derive(Debug, Parser)]
#[command(name = "millrace-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Push pre-encoded samples to a running server and report rate and latency
    Load(load::LoadArgs),
    /// Run millrace, Prometheus and VictoriaMetrics in turn under the same load
    Compare(compare::CompareArgs),
    /// Ask millrace, Prometheus and VictoriaMetrics the same queries on equal data
    Queries(queries::QueriesArgs),
    /// Measure millrace on Kafka beside its embedded queue, and how fast a store catches up
    Kafka(kafka::KafkaArgs),
    /// Ask millrace for more than a query may have, while it takes samples
    Pressure(pressure::PressureArgs),
    /// Measure what merging blocks costs
    Compaction(compaction::CompactionArgs),
    /// Measure what scraping costs
    Scrape(scrape::ScrapeArgs),
    /// Measure what memory queries over many series take of millrace
    Footprint(footprint::FootprintArgs),
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Load(args) => load::main(&args),
        Command::Compare(args) => compare::main(&args),
        Command::Queries(args) => queries::main(&args),
        Command::Kafka(args) => kafka::main(&args),
        Command::Pressure(args) => pressure::main(&args),
        Command::Compaction(args) => compaction::main(&args),
        Command::Scrape(args) => scrape::main(&args),
        Command::Footprint(args) => footprint::main(&args),
    }
}
