//! `millrace queue …`: looking after the queue from the command line.

#[cfg(feature = "kafka")]
mod create;
mod lag;
mod table;

use clap::{Args, Subcommand};

use crate::commands::tail::{self, RecordArgs, TailArgs};
use crate::config::Config;
use crate::failure::Failure;

/// What to do with the queue.
#[derive(Debug, Args)]
pub struct QueueArgs {
    /// Which command.
    #[command(subcommand)]
    pub command: QueueCommand,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum QueueCommand {
    /// Create the topic as millrace wants it, or check that it is so
    ///
    /// A topic that is there already and is as asked is left as it is; one that differs is not
    /// changed, and the differences are told.
    Create(CreateArgs),
    /// Show where each partition ends and how far stores and the consumer group are behind
    Lag(LagArgs),
    /// Print records as JSON lines, the newest ones or from some point on
    Tail(TailArgs),
    /// Print one record whole
    Inspect(RecordArgs),
}

/// How the topic should be.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Partitions, and with them shards of the store; fixed for the topic's life
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub partitions: u32,
    /// Copies of each partition; from 3 on, an acknowledged append is on two machines at least
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=32))]
    pub replication: u32,
    /// How long records are kept: longer than any outage of a store
    #[arg(long, default_value = "7d", value_parser = crate::cli::duration)]
    pub retention: std::time::Duration,
}

/// What to show.
#[derive(Debug, Args)]
pub struct LagArgs {
    /// A running store to ask what it has applied; may be given several times. On an embedded queue
    /// the server itself, which is asked at the configured address if nothing is given
    #[arg(long = "store", value_name = "URL")]
    pub stores: Vec<String>,
    /// JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
///
/// # Errors
///
/// What keeps it from its end.
pub fn run(args: &QueueArgs, config: &Config) -> Result<(), Failure> {
    match &args.command {
        #[cfg(feature = "kafka")]
        QueueCommand::Create(args) => create::run(args, config),
        #[cfg(not(feature = "kafka"))]
        QueueCommand::Create(_) => Err(Failure::Client(
            "this millrace was built without Kafka, and an embedded queue is created by the first \
             start"
                .to_owned(),
        )),
        QueueCommand::Lag(args) => lag::run(args, config),
        QueueCommand::Tail(args) => tail::tail(config, args),
        QueueCommand::Inspect(args) => tail::inspect(config, args),
    }
}
