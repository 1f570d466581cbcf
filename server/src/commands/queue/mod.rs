//! `millrace queue …`: looking after the queue from the command line.

#[cfg(feature = "kafka")]
mod adopt;
#[cfg(feature = "kafka")]
mod create;
mod lag;
#[cfg(feature = "kafka")]
mod migrate;
mod resume;
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
    /// Create the topic and its control topic as millrace wants them, or check that they are so
    ///
    /// A topic that is there already and is as asked is left as it is; one that differs is not
    /// changed, and the differences are told.
    Create(CreateArgs),
    /// Take a topic that was deleted and made again as the queue, so that ingest writes to it
    ///
    /// `<topic>.control` says which topic the queue is, and ingest refuses another one. This writes
    /// the topic that is there now in its place. What the stores have of the old one stays.
    Adopt,
    /// Show where each partition ends and how far stores and the consumer group are behind
    Lag(LagArgs),
    /// Move from the embedded queue to Kafka, without loss or repeat
    ///
    /// First with --url, while the server runs: that copies most of it. Then stop the server and run
    /// it again without: that copies the rest, and lets the store go on in the topic. Whatever
    /// interrupts it, running it again goes on. The topic is that of queue.kafka.*, made by `millrace
    /// queue create` with as many partitions as the embedded queue has.
    Migrate(MigrateArgs),
    /// Print records as JSON lines, the newest ones or from some point on
    Tail(TailArgs),
    /// Print one record whole
    Inspect(RecordArgs),
    /// Let a stopped shard go on where you say, while its server is stopped
    ///
    /// `/api/v1/status/pipeline` says which shard has stopped and why; docs/kafka.md says what each
    /// reason means. The change is written into the shard's manifest and stays on record.
    Resume(resume::ResumeArgs),
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

/// What to move.
#[derive(Debug, Args)]
pub struct MigrateArgs {
    /// The running server whose queue is copied; without it, the data directory's, and the store is
    /// moved as well
    #[arg(long)]
    pub url: Option<String>,
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
        #[cfg(feature = "kafka")]
        QueueCommand::Adopt => adopt::run(config),
        #[cfg(not(feature = "kafka"))]
        QueueCommand::Adopt => Err(Failure::Client(
            "this millrace was built without Kafka, and an embedded queue is never another one"
                .to_owned(),
        )),
        #[cfg(feature = "kafka")]
        QueueCommand::Migrate(args) => migrate::run(args, config),
        #[cfg(not(feature = "kafka"))]
        QueueCommand::Migrate(_) => Err(Failure::Client(
            "this millrace was built without Kafka, so there is nowhere to migrate to".to_owned(),
        )),
        QueueCommand::Lag(args) => lag::run(args, config),
        QueueCommand::Tail(args) => tail::tail(config, args),
        QueueCommand::Inspect(args) => tail::inspect(config, args),
        QueueCommand::Resume(args) => resume::run(args, config),
    }
}
