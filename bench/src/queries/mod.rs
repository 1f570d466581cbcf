//! millrace, Prometheus and VictoriaMetrics under the same questions, on equal data.
//!
//! The servers run at the same time, hold the same samples, and are asked in turn: the same list of
//! requests to each, one class after the other, another server first each time. Only one of them
//! works at any moment. Answers are compared before anything is measured.

mod classes;
pub mod feed;
pub mod measure;
pub mod report;
mod same;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::compare::System;
use crate::compare::binaries::Binaries;
use crate::compare::server::{self, Server};
use crate::fleet::Profile;
use crate::load::now_ms;
use feed::Load;
use measure::Measured;

/// Ask the systems the same queries on equal data.
#[derive(Debug, Args)]
pub struct QueriesArgs {
    #[command(flatten)]
    binaries: Binaries,
    /// Which fleets are asked about
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "tsbs-cpu,node,iot,services"
    )]
    mix: Vec<Profile>,
    /// Where millrace has the samples
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "memory,sealed"
    )]
    state: Vec<State>,
    /// Only classes whose name has this in it
    #[arg(long)]
    class: Option<String>,
    /// Hosts of TSBS's kind: 10 series each, every 10 s
    #[arg(long, default_value_t = 100)]
    hosts: usize,
    /// Hours of their data
    #[arg(long, default_value_t = 12)]
    host_hours: u64,
    /// Targets of node_exporter's kind: about 420 series each, every 15 s
    #[arg(long, default_value_t = 20)]
    nodes: usize,
    /// Hours of their data
    #[arg(long, default_value_t = 2)]
    node_hours: u64,
    /// Devices: 6 series each, about every 5 s
    #[arg(long, default_value_t = 500)]
    devices: usize,
    /// Hours of their data
    #[arg(long, default_value_t = 1)]
    device_hours: u64,
    /// Pods of services: 117 series each, every 15 s; 8 550 make a million series
    #[arg(long, default_value_t = 1000)]
    pods: usize,
    /// Minutes of their data
    #[arg(long, default_value_t = 10)]
    pod_minutes: u64,
    /// How often each class is asked of each system in turn
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Milliseconds for which a class is asked in a turn, about, of the slowest system
    #[arg(long, default_value_t = 200)]
    turn_ms: u64,
    /// Seed of data and of questions
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the servers' directories are made, and removed; on a real disk
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    work_dir: PathBuf,
    /// Further arguments for millrace, such as --set=key=value
    #[arg(long = "millrace-arg", allow_hyphen_values = true)]
    millrace_args: Vec<String>,
    /// Print all figures as JSON instead of tables
    #[arg(long)]
    json: bool,
}

/// Where millrace has the samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// In memtables, as they came
    Memory,
    /// In blocks
    Sealed,
}

/// One mix of data, asked in one state.
#[derive(Debug, Serialize)]
pub struct Part {
    /// The fleet.
    pub mix: String,
    /// Number of series.
    pub series: usize,
    /// Number of samples.
    pub samples: u64,
    /// Where millrace had them.
    pub state: State,
    /// By class, in order.
    pub classes: Vec<Measured>,
}

/// A system and its server.
#[derive(Debug)]
pub struct Peer {
    system: System,
    server: Server,
}

/// Runs the command.
pub fn main(args: &QueriesArgs) -> Result<()> {
    let mut parts = Vec::new();
    for mix in &args.mix {
        let name = mix
            .to_possible_value()
            .map_or_else(String::new, |v| v.get_name().to_owned());
        one_mix(args, *mix, &name, &mut parts).with_context(|| format!("mix {name}"))?;
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&parts)?);
    } else {
        let command: Vec<_> = std::env::args().skip(1).collect();
        println!("`millrace-bench {}`\n", command.join(" "));
        print!("{}", report::render(&parts));
    }
    Ok(())
}

fn one_mix(args: &QueriesArgs, mix: Profile, name: &str, parts: &mut Vec<Part>) -> Result<()> {
    let load = load(args, mix);
    let dirs = tempfile::Builder::new()
        .prefix("millrace-bench-")
        .tempdir_in(&args.work_dir)
        .with_context(|| format!("{}", args.work_dir.display()))?;
    let mut peers = start(args, &dirs)?;
    let urls: Vec<_> = peers.iter().map(|peer| peer.server.url()).collect();
    let fed = feed::feed(&load, now_ms() - 60_000, &urls)?;
    eprintln!("{name}: {} samples of {} series", fed.samples, fed.series);
    for peer in &peers {
        measure::settle(peer, &fed)?;
        eprintln!("  {} has them", peer.system.name());
    }
    let mut classes = classes::classes(mix);
    if let Some(part) = &args.class {
        classes.retain(|class| class.name.contains(part.as_str()));
    }
    let ask = measure::Ask {
        classes: &classes,
        fed: &fed,
        targets: load.targets,
        seed: args.seed,
        rounds: args.rounds,
        turn_ms: args.turn_ms,
    };
    for state in &args.state {
        if *state == State::Sealed {
            let millrace = peers
                .iter_mut()
                .find(|peer| peer.system == System::Millrace);
            if let Some(peer) = millrace {
                measure::seal(&mut peer.server, &args.millrace_args)?;
            }
        }
        eprintln!("  {state:?}");
        parts.push(Part {
            mix: name.to_owned(),
            series: fed.series,
            samples: fed.samples,
            state: *state,
            classes: measure::run(&ask, &mut peers)?,
        });
    }
    drop(peers);
    dirs.close().context("remove the servers' directories")
}

fn load(args: &QueriesArgs, profile: Profile) -> Load {
    let (targets, steps) = match profile {
        Profile::TsbsCpu => (args.hosts, args.host_hours * 360),
        Profile::Node => (args.nodes, args.node_hours * 240),
        Profile::Iot => (args.devices, args.device_hours * 720),
        Profile::Services => (args.pods, args.pod_minutes * 4),
    };
    Load {
        profile,
        targets: targets.max(1),
        steps: steps.max(12),
        seed: args.seed,
        interval_ms: None,
    }
}

fn start(args: &QueriesArgs, dirs: &tempfile::TempDir) -> Result<Vec<Peer>> {
    let mut peers = Vec::new();
    for system in args.binaries.wanted() {
        let binary = args.binaries.of(system);
        let more = match system {
            System::Millrace => args.millrace_args.clone(),
            System::Prometheus => Vec::new(),
            // Answers out of a cache would be compared with answers out of data.
            System::VictoriaMetrics => [
                "-search.disableCache",
                "-search.maxSeries=2000000",
                "-search.maxUniqueTimeseries=2000000",
            ]
            .map(str::to_owned)
            .to_vec(),
        };
        if server::version(binary).is_none() {
            anyhow::ensure!(
                system != System::Millrace,
                "millrace is not at {}",
                binary.display()
            );
            eprintln!("{} is not installed", system.name());
            continue;
        }
        let dir = dirs.path().join(system.name());
        std::fs::create_dir(&dir)?;
        peers.push(Peer {
            system,
            server: Server::start(system, binary, &more, &dir)?,
        });
    }
    Ok(peers)
}
