//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::commands::backup::BackupArgs;
use crate::commands::diff::DiffArgs;
use crate::commands::dlq::DlqArgs;
use crate::commands::export::ExportArgs;
use crate::commands::import::ImportArgs;
use crate::commands::inspect::InspectArgs;
use crate::commands::queue::QueueArgs;
use crate::commands::replay::ReplayArgs;
use crate::commands::restore::RestoreArgs;
use crate::commands::token::TokenArgs;
use crate::commands::verify::VerifyArgs;
use crate::config::kind::{Kind, Raw};
use crate::config::{ConfigError, Layers};

/// The program.
#[derive(Debug, Parser)]
#[command(
    name = "millrace",
    version,
    about = "A time-series ingestion pipeline and database in one binary",
    long_about = "A time-series ingestion pipeline and database in one binary.\n\n\
        Without a command it starts everything: an HTTP endpoint that devices and agents push to, \
        a durable queue, the store, and the Prometheus API that Grafana reads.",
    after_help = "Examples:\n  \
        millrace                                     start on 127.0.0.1:9009, data in ./data\n  \
        millrace --listen 127.0.0.1:0 --data-dir d   another port (0: any), another directory\n  \
        millrace --set ingest.max_age=none           any setting, without a file\n  \
        millrace config                              all settings, and where each value came from\n  \
        millrace demo                                push a simulated fleet into a running server",
    args_conflicts_with_subcommands = false
)]
pub struct Cli {
    /// What to do; `run` if nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Where the configuration comes from.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// How running servers are asked.
    #[command(flatten)]
    pub access: AccessArgs,
}

/// What commands show to a running server, and whom they believe.
#[derive(Debug, Default, Args)]
pub struct AccessArgs {
    /// File with the token that commands show to a running server; without one, the token in the variable
    /// MILLRACE_TOKEN
    #[arg(long, global = true, value_name = "FILE", env = "MILLRACE_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// Certificates (PEM) of those who may vouch for the server that a command asks; without, the system's
    #[arg(long, global = true, value_name = "FILE", env = "MILLRACE_CA_FILE")]
    pub ca_file: Option<PathBuf>,
    /// Certificate (PEM) that commands show to a server that asks for one
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "MILLRACE_CERT_FILE",
        requires = "key"
    )]
    pub cert: Option<PathBuf>,
    /// Key (PEM) of that certificate
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "MILLRACE_KEY_FILE",
        requires = "cert"
    )]
    pub key: Option<PathBuf>,
    /// Name that the server's certificate must be for, if it is not the one in its URL
    #[arg(long, global = true, value_name = "NAME", env = "MILLRACE_SERVER_NAME")]
    pub server_name: Option<String>,
}

/// Flags that mean nothing to a server, which has settings for that: each, and the setting.
pub const ACCESS_FLAGS: [(&str, &str); 4] = [
    ("token_file", "fleet.token_file"),
    ("ca_file", "server.tls.client_ca_file"),
    ("cert", "server.tls.certificate_file"),
    ("key", "server.tls.key_file"),
];

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start the server (this is what no command does, too)
    Run,
    /// Print the effective configuration and where each value came from
    ///
    /// The output is TOML: `millrace config > millrace.toml` makes a config file.
    Config {
        /// Print the reference page of all settings instead (docs/configuration.md)
        #[arg(long)]
        reference: bool,
        /// Print the page of all routes instead, and what each asks of a token (docs/routes.md)
        #[arg(long, conflicts_with = "reference")]
        routes: bool,
    },
    /// Push a simulated fleet of devices into a running server, to have something to look at
    ///
    /// Backfills the last hour first, so that graphs are not empty.
    Demo(DemoArgs),
    /// Look after the queue: create the topic, see the lag, look at records
    Queue(QueueArgs),
    /// Look after dead letters: records of the queue that could not be applied
    Dlq(DlqArgs),
    /// Read records of the queue again: into a store of their own, or into the live one where it lacks some
    Replay(ReplayArgs),
    /// Compare the stores of two data directories, sample by sample
    Diff(DiffArgs),
    /// Show what a block, a log or a data directory holds, and how many bytes each part takes
    Inspect(InspectArgs),
    /// Read a whole data directory, check every checksum, and name what is damaged
    Verify(VerifyArgs),
    /// Take a backup of a data directory, while a server runs on it or not; or verify one
    Backup(BackupArgs),
    /// Make a data directory from a backup
    Restore(RestoreArgs),
    /// Write series as JSON lines or CSV, from a running server or from a data directory
    Export(ExportArgs),
    /// Send what was exported to a running server
    Import(ImportArgs),
    /// Ask a running server a PromQL question and print the answer as a table
    Query(QueryArgs),
    /// Say what retention of a running server would let go now, or let it go
    Retention(RetentionArgs),
    /// Make, list, revoke and rotate tokens (docs/security.md)
    Token(TokenArgs),
    /// Check rule files, as `promtool check` does
    Check(CheckArgs),
    /// Print the version
    Version,
}

/// Settings by file and flags.
#[derive(Debug, Default, Args)]
pub struct ConfigArgs {
    /// Config file (TOML)
    #[arg(long, global = true, value_name = "FILE", env = "MILLRACE_CONFIG")]
    pub config: Option<PathBuf>,
    /// Address and port to listen on; the setting `listen`
    #[arg(long, global = true, value_name = "ADDRESS:PORT")]
    pub listen: Option<String>,
    /// Directory of queue and store; the setting `data_dir`
    #[arg(long, global = true, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// Parts that this process runs: ingest, store, query or all, comma-separated; the setting `roles`
    #[arg(long = "role", global = true, value_name = "ROLES")]
    pub roles: Option<String>,
    /// Any setting, such as ingest.max_age=7d; may be given several times
    #[arg(long = "set", global = true, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl ConfigArgs {
    /// The layers of the configuration, with this environment.
    ///
    /// # Errors
    ///
    /// A `--set` without `=`.
    pub fn layers(&self, environment: Vec<(String, String)>) -> Result<Layers, ConfigError> {
        let mut flags = Vec::new();
        for text in &self.set {
            let (key, value) = text
                .split_once('=')
                .ok_or_else(|| ConfigError::Assignment { text: text.clone() })?;
            flags.push(("--set", key.trim().to_owned(), value.to_owned()));
        }
        // The flag that names one setting is more deliberate than `--set`, so it comes last.
        if let Some(listen) = &self.listen {
            flags.push(("--listen", "listen".to_owned(), listen.clone()));
        }
        if let Some(dir) = &self.data_dir {
            flags.push(("--data-dir", "data_dir".to_owned(), dir.clone()));
        }
        if let Some(roles) = &self.roles {
            flags.push(("--role", "roles".to_owned(), roles.clone()));
        }
        Ok(Layers {
            file: self.config.clone(),
            environment,
            flags,
        })
    }
}

/// What the simulated fleet does.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// The server
    #[arg(long, default_value = "http://127.0.0.1:9009")]
    pub url: String,
    /// Number of devices
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub devices: u32,
    /// Time between two readings of a device
    #[arg(long, default_value = "1s", value_parser = duration)]
    pub interval: Duration,
    /// How long to go on; without it, until Ctrl-C
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    pub run_for: Option<Duration>,
    /// How far back the backfill reaches
    #[arg(long, default_value = "1h", value_parser = duration)]
    pub backfill: Duration,
}

/// What to look at.
#[derive(Debug, Args)]
pub struct RetentionArgs {
    /// Only say what would go; the server itself does it by its settings `store.retention.*`
    #[arg(long, required_unless_present = "now", conflicts_with = "now")]
    pub dry_run: bool,
    /// Let it go at once, also what is more than `store.retention.hourly_percent`
    #[arg(long)]
    pub now: bool,
    /// The server, whose setting `server.admin_api` must be on
    #[arg(long, default_value = "http://127.0.0.1:9009")]
    pub url: String,
}

/// What to check.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// What kind of files
    #[command(subcommand)]
    pub what: CheckCommand,
}

/// Kinds of files that can be checked.
#[derive(Debug, Subcommand)]
pub enum CheckCommand {
    /// Files of recording and alerting rules
    Rules {
        /// The files
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
}

/// What to ask.
#[derive(Debug, Args)]
pub struct QueryArgs {
    /// The PromQL expression
    pub expression: String,
    /// The server
    #[arg(long, default_value = "http://127.0.0.1:9009")]
    pub url: String,
    /// The moment, as Unix seconds or RFC 3339; now if not given
    #[arg(long)]
    pub time: Option<String>,
}

/// A duration on the command line, such as `10m`.
///
/// # Errors
///
/// Text that is none.
pub fn duration(text: &str) -> Result<Duration, String> {
    Duration::read(&Raw::Text(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_stand_before_or_after_the_command() {
        for line in [
            ["millrace", "--set", "a=b=c", "config"],
            ["millrace", "config", "--set", "a=b=c"],
        ] {
            let cli = Cli::parse_from(line);
            let layers = cli.config.layers(Vec::new()).unwrap();
            assert_eq!(layers.flags, [("--set", "a".to_owned(), "b=c".to_owned())]);
        }
        let cli = Cli::parse_from(["millrace", "--set", "x"]);
        assert!(cli.config.layers(Vec::new()).is_err());
    }
}
