//! millrace, Prometheus and VictoriaMetrics under the same load, in turn.
//!
//! Every round starts each server anew, in an empty directory, and gives it the same bytes. CPU
//! time is taken from the start of the load until the server has come to rest, so that work put
//! off is counted too.

pub mod binaries;
pub mod compacted;
pub mod round;
pub mod server;
mod table;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::encode::Protocol;
use crate::load::{LoadSpec, Plan, now_ms};
use binaries::Binaries;
use round::Round;

/// A server that can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum System {
    /// This project
    Millrace,
    /// Prometheus with its remote write receiver
    Prometheus,
    /// VictoriaMetrics, single node
    VictoriaMetrics,
}

impl System {
    /// As it is written in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Millrace => "millrace",
            Self::Prometheus => "Prometheus",
            Self::VictoriaMetrics => "VictoriaMetrics",
        }
    }

    fn takes(self, protocol: Protocol) -> bool {
        match self {
            Self::Millrace => true,
            Self::Prometheus => protocol == Protocol::RemoteWrite,
            Self::VictoriaMetrics => protocol != Protocol::Json,
        }
    }
}

/// Run the systems in turn under the same load.
#[derive(Debug, Args)]
pub struct CompareArgs {
    #[command(flatten)]
    binaries: Binaries,
    /// Further arguments for millrace, such as --set=key=value
    #[arg(long = "millrace-arg", allow_hyphen_values = true)]
    millrace_args: Vec<String>,
    /// How often each system is run
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Where the servers' directories are made, and removed; on a real disk
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    work_dir: PathBuf,
    /// Print all figures of all rounds as JSON instead of the table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    spec: LoadSpec,
}

/// All rounds of one system.
#[derive(Debug, Serialize)]
pub struct Measured {
    /// Which.
    pub system: System,
    /// What it says about its version, if anything.
    pub version: Option<String>,
    /// In order.
    pub rounds: Vec<Round>,
}

/// Runs the command.
pub fn main(args: &CompareArgs) -> Result<()> {
    let mut measured = systems(args)?;
    let plan = Plan::build(&args.spec, now_ms());
    eprintln!("{plan}");
    for number in 0..args.rounds as usize {
        // Another one first each time, so that none always follows the same neighbour.
        measured.rotate_left(usize::from(number > 0));
        for entry in &mut measured {
            eprintln!("round {}: {}", number + 1, entry.system.name());
            let round = one_round(args, entry.system, &plan)
                .with_context(|| format!("round {}, {}", number + 1, entry.system.name()))?;
            eprintln!("  {}", round.summary());
            entry.rounds.push(round);
        }
    }
    measured.sort_by_key(|entry| entry.system as u8);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&measured)?);
    } else {
        let command: Vec<_> = std::env::args().skip(1).collect();
        println!("`millrace-bench {}`", command.join(" "));
        println!("{plan}\n");
        print!("{}", table::render(&measured));
    }
    Ok(())
}

/// The systems that are there and take the protocol.
fn systems(args: &CompareArgs) -> Result<Vec<Measured>> {
    let mut found = Vec::new();
    for system in args.binaries.wanted() {
        let binary = args.binaries.of(system);
        if !system.takes(args.spec.protocol) {
            eprintln!("{} does not take this protocol", system.name());
        } else if let Some(version) = server::version(binary) {
            found.push(Measured {
                system,
                version: Some(version).filter(|text| !text.is_empty()),
                rounds: Vec::new(),
            });
        } else if args.binaries.names(system) || system == System::Millrace {
            bail!("{} is not at {}", system.name(), binary.display());
        } else {
            eprintln!("{} is not installed", system.name());
        }
    }
    Ok(found)
}

fn one_round(args: &CompareArgs, system: System, plan: &Plan) -> Result<Round> {
    let dir = tempfile::Builder::new()
        .prefix("millrace-bench-")
        .tempdir_in(&args.work_dir)
        .with_context(|| format!("{}", args.work_dir.display()))?;
    let more = match system {
        System::Millrace => args.millrace_args.as_slice(),
        System::Prometheus | System::VictoriaMetrics => &[],
    };
    let server = server::Server::start(system, args.binaries.of(system), more, dir.path())?;
    let deadline = Duration::from_secs(args.spec.max_seconds);
    let round = round::run(server, plan, deadline, more)?;
    dir.close().context("remove the server's directory")?;
    Ok(round)
}
