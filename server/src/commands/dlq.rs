//! `millrace dlq …`: looking after the records that could not be applied. Works on a data directory
//! that no server has open.

use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, Subcommand};
use millrace_model::PartitionId;
use millrace_model::batch::{OriginalPosition, requeue};
use millrace_queue::{DeadLetter, Origin, Producer, Record};
use millrace_store::DeadLetterBox;
use serde_json::json;

use super::offline::Offline;
use super::records::show::{self, Depth};
use crate::config::Config;
use crate::failure::Failure;
use crate::print;

/// How long an append may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// What to do with dead letters.
#[derive(Debug, Args)]
pub struct DlqArgs {
    /// Which command.
    #[command(subcommand)]
    pub command: DlqCommand,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum DlqCommand {
    /// List them, oldest first
    List(ListArgs),
    /// Show one: what of it can be decoded, and its bytes
    Show {
        /// Its name, as `list` shows it: QUEUE/PARTITION/OFFSET
        name: Origin,
    },
    /// Append them to the queue again, with their original position
    ///
    /// A record that was queued again fills gaps, and overrides nothing that an ordinary record wrote.
    Requeue(ChosenArgs),
    /// Remove them for good
    Purge(ChosenArgs),
}

/// Which letters.
#[derive(Debug, Args)]
pub struct Filter {
    /// Only of this partition
    #[arg(long)]
    pub partition: Option<u32>,
    /// Only those with this text in their reason
    #[arg(long)]
    pub reason: Option<String>,
    /// Only those of records that the queue took this long ago or later, such as 1d
    #[arg(long, value_parser = crate::cli::duration)]
    pub since: Option<Duration>,
    /// Only these, by name: QUEUE/PARTITION/OFFSET
    pub names: Vec<Origin>,
}

/// What to list.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Which.
    #[command(flatten)]
    pub filter: Filter,
    /// JSON lines
    #[arg(long)]
    pub json: bool,
}

/// What to requeue or purge.
#[derive(Debug, Args)]
pub struct ChosenArgs {
    /// Which.
    #[command(flatten)]
    pub filter: Filter,
    /// Do it; without, it is only said what would be done
    #[arg(long)]
    pub yes: bool,
}

impl Filter {
    fn passes(&self, letter: &DeadLetter) -> bool {
        let since = self.since.map(|since| Offline::now().saturating_sub(since));
        let reason = self.reason.as_deref();
        (self.names.is_empty() || self.names.contains(&letter.origin))
            && reason.is_none_or(|text| letter.reason.contains(text))
            && since.is_none_or(|since| letter.appended_at >= since)
    }
}

/// Runs the command.
///
/// # Errors
///
/// A server has the data directory; letters that cannot be read; a queue that cannot be written to.
pub fn run(args: &DlqArgs, config: &Config) -> Result<(), Failure> {
    let offline = Offline::open(config)?;
    match &args.command {
        DlqCommand::List(args) => {
            for (_, letter) in chosen(&offline, &args.filter)? {
                print(&line(&letter, args.json))?;
            }
            Ok(())
        }
        DlqCommand::Show { name } => show(&offline, *name),
        DlqCommand::Requeue(args) => requeue_chosen(&offline, config, args),
        DlqCommand::Purge(args) => purge(&offline, args),
    }
}

fn data(error: &dyn std::fmt::Display) -> Failure {
    Failure::Data(error.to_string())
}

fn boxes(offline: &Offline, only: Option<u32>) -> Result<Vec<DeadLetterBox>, Failure> {
    let partitions = offline.partitions()?.into_iter();
    let wanted = partitions.filter(|partition| only.is_none_or(|only| only == partition.0));
    let open = |partition: PartitionId| {
        DeadLetterBox::open(&offline.fs, &offline.store, partition).map_err(|error| data(&error))
    };
    wanted.map(open).collect()
}

/// The letters that pass, each with the box that it is in.
fn chosen(offline: &Offline, filter: &Filter) -> Result<Vec<(DeadLetterBox, DeadLetter)>, Failure> {
    let mut found = Vec::new();
    for letters in boxes(offline, filter.partition)? {
        let all = letters.read_all().map_err(|error| data(&error))?;
        let passing = all.into_iter().filter(|letter| filter.passes(letter));
        found.extend(passing.map(|letter| (letters.clone(), letter)));
    }
    Ok(found)
}

fn line(letter: &DeadLetter, as_json: bool) -> String {
    if as_json {
        let line = json!({
            "name": letter.origin.to_string(),
            "queue": letter.origin.queue.to_string(),
            "partition": letter.origin.partition.0,
            "offset": letter.origin.offset.0,
            "appended_at_ms": letter.appended_at.0,
            "kept_at_ms": letter.kept_at.0,
            "bytes": letter.payload.len(),
            "reason": letter.reason,
        });
        return format!("{line}\n");
    }
    let (name, bytes) = (letter.origin, letter.payload.len());
    format!("{name}  {bytes} bytes  {}\n", letter.reason)
}

fn show(offline: &Offline, name: Origin) -> Result<(), Failure> {
    let boxes = boxes(offline, Some(name.partition.0))?;
    let found = boxes
        .iter()
        .find_map(|letters| letters.read(name).transpose());
    let letter = found.transpose().map_err(|error| data(&error))?;
    let letter = letter.ok_or_else(|| Failure::Data(format!("there is no dead letter {name}")))?;
    print(&line(&letter, false))?;
    let record = Record {
        offset: letter.origin.offset,
        appended_at: letter.appended_at,
        payload: letter.payload.clone(),
    };
    let shown = show::record(name.partition, &record, Depth::Whole);
    print(&format!("{shown:#}\n{}", hex_dump(&letter.payload)))
}

fn hex_dump(bytes: &[u8]) -> String {
    let row = |(at, row): (usize, &[u8])| {
        let hex: Vec<String> = row.iter().map(|byte| format!("{byte:02x}")).collect();
        let text = row.iter().map(|&byte| match byte {
            0x20..=0x7e => char::from(byte),
            _ => '.',
        });
        let text: String = text.collect();
        format!("{:08x}  {:<47}  {text}\n", at * 16, hex.join(" "))
    };
    bytes.chunks(16).enumerate().map(row).collect()
}

fn requeue_chosen(offline: &Offline, config: &Config, args: &ChosenArgs) -> Result<(), Failure> {
    let chosen = chosen(offline, &args.filter)?;
    let mut producer = None;
    for (letters, letter) in chosen {
        let origin = letter.origin;
        let original = OriginalPosition {
            queue: origin.queue,
            partition: origin.partition,
            offset: origin.offset,
        };
        let batch = match requeue(&letter.payload, original) {
            Ok(batch) => batch,
            Err(error) => {
                print(&format!(
                    "{origin}: left as it is, it is no batch: {error}\n"
                ))?;
                continue;
            }
        };
        if !args.yes {
            print(&format!(
                "{origin}: would be queued again (--yes does it)\n"
            ))?;
            continue;
        }
        if producer.is_none() {
            producer = Some(offline.queue(config)?.producer);
        }
        if let Some(producer) = &producer {
            append(&**producer, origin.partition, batch.into())?;
        }
        // Only now: after a crash in between it is queued twice, which changes nothing.
        let purged = letters.purge(&[origin], Offline::now());
        purged.map_err(|error| data(&error))?;
        print(&format!("{origin}: queued again\n"))?;
    }
    Ok(())
}

fn append(producer: &dyn Producer, partition: PartitionId, batch: Bytes) -> Result<(), Failure> {
    let (done, outcome) = mpsc::channel();
    let tell = move |result| {
        // Whoever asked may have lost its patience.
        if done.send(result).is_err() {
            tracing::debug!("an append ended after its patience");
        }
    };
    producer.append(partition, vec![batch], Box::new(tell));
    match outcome.recv_timeout(PATIENCE) {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(Failure::Client(error.to_string())),
        Err(_) => Err(Failure::Client(
            "the queue does not acknowledge the record".to_owned(),
        )),
    }
}

fn purge(offline: &Offline, args: &ChosenArgs) -> Result<(), Failure> {
    for (letters, letter) in chosen(offline, &args.filter)? {
        if !args.yes {
            print(&format!(
                "{}: would be removed (--yes does it)\n",
                letter.origin
            ))?;
            continue;
        }
        let purged = letters.purge(&[letter.origin], Offline::now());
        purged.map_err(|error| data(&error))?;
        print(&format!("{}: removed\n", letter.origin))?;
    }
    Ok(())
}
