//! The `millrace` binary: command line, configuration, wiring and the life of the process.
//!
//! **Invariants:**
//! - only this crate reads the environment, parses flags and installs a logger;
//! - a start holds the data directory's lock before it opens anything in it, and listens before it
//!   recovers, so that `/-/ready` can tell how far it is;
//! - the end goes the way of a sample: requests, queue, store. What was acknowledged is durable
//!   before any of it.

mod admin;
#[cfg(feature = "kafka")]
mod announce;
mod app;
mod append;
mod banner;
mod cli;
mod commands;
mod companions;
mod config;
mod demo;
mod edge;
mod export;
mod failure;
mod fleet;
mod http;
mod lag;
mod letters;
mod limits;
mod live;
mod lock;
mod logging;
mod open;
mod options;
mod pipeline;
mod process;
mod query;
mod queue;
mod records;
mod reload;
mod replay;
mod retention;
mod routes;
mod rules;
mod run;
mod snapshot;
mod source;
mod targets;
mod views;
mod wal_replay;

use std::io::Write as _;
use std::process::ExitCode;

use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _};
use millrace_log::fs::OsFs;

use crate::cli::{Cli, Command};
use crate::commands::{diff, inspect, verify};
use crate::failure::Failure;

/// The system's allocator keeps what a burst took for ever; jemalloc gives it back, and is quicker
/// where many threads free what others allocated, as decoders and lanes do.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    millrace_auth::tls::install_provider();
    let matches = Cli::command().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match for_commands_only(&cli, &matches).and_then(|()| dispatch(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("millrace: {failure}");
            ExitCode::from(&failure)
        }
    }
}

/// A server that took `--cert` without a word would serve no TLS.
fn for_commands_only(cli: &Cli, matches: &ArgMatches) -> Result<(), Failure> {
    if !matches!(cli.command, None | Some(Command::Run)) {
        return Ok(());
    }
    let given = |id| matches.value_source(id) == Some(ValueSource::CommandLine);
    let given = cli::ACCESS_FLAGS.iter().find(|(id, _)| given(id));
    given.map_or(Ok(()), |(id, setting)| {
        let flag = id.replace('_', "-");
        Err(Failure::Refused(format!(
            "--{flag} is how commands ask a server; a server has the setting {setting} (--set {setting}=…)"
        )))
    })
}

fn dispatch(cli: Cli) -> Result<(), Failure> {
    commands::client::install(cli.access);
    match cli.command {
        None | Some(Command::Run) => run::run(&configuration(&cli.config)?),
        Some(Command::Config { routes: true, .. }) => print(&edge::routes_page()),
        Some(Command::Config {
            reference: true, ..
        }) => print(&config::reference()),
        Some(Command::Config {
            reference: false, ..
        }) => print(&config::effective(&configuration(&cli.config)?)),
        Some(Command::Demo(args)) => demo::run(&args),
        Some(Command::Queue(args)) => commands::queue::run(&args, &configuration(&cli.config)?),
        Some(Command::Dlq(args)) => commands::dlq::run(&args, &configuration(&cli.config)?),
        Some(Command::Replay(args)) => commands::replay::run(&configuration(&cli.config)?, &args),
        Some(Command::Inspect(args)) => inspect::run(&args),
        Some(Command::Verify(args)) => verify::run(&args),
        Some(Command::Diff(args)) => diff::run(&configuration(&cli.config)?, &args),
        Some(Command::Query(args)) => query::run(&args),
        Some(Command::Retention(args)) => commands::retention::run(&args),
        Some(Command::Backup(args)) => commands::backup::run(&configuration(&cli.config)?, &args),
        Some(Command::Restore(args)) => commands::restore::run(&args),
        Some(Command::Export(args)) => commands::export::run(&configuration(&cli.config)?, &args),
        Some(Command::Import(args)) => commands::import::run(&args),
        Some(Command::Token(args)) => commands::token::run(&configuration(&cli.config)?, &args),
        Some(Command::Check(args)) => commands::check::run(&args, &configuration(&cli.config)?),
        Some(Command::Version) => print(concat!("millrace ", env!("CARGO_PKG_VERSION"), "\n")),
    }
}

fn configuration(args: &cli::ConfigArgs) -> Result<config::Config, Failure> {
    // A variable that is not UTF-8 is none of ours.
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let layers = args.layers(environment)?;
    Ok(config::load(&OsFs, &layers)?)
}

/// Writes to standard output. A reader that has left (`| head`) is no failure.
fn print(text: &str) -> Result<(), Failure> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(source) if source.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::System {
            what: "standard output cannot be written",
            source,
        }),
        _ => Ok(()),
    }
}
