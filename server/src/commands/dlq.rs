//! `millrace dlq …`: looking after the records that could not be applied. In the topic beside the
//! queue's, if that is one; or else in a data directory that no server has open, or with `--url` in that
//! of a running server.

mod remote;

use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use millrace_model::PartitionId;
use millrace_queue::{Origin, Producer};
use millrace_store::DeadLetterBox;
use parking_lot::Mutex;
use serde_json::Value;

use super::offline::{self, Offline, data};
use crate::config::Config;
use crate::config::kind::QueueBackend;
use crate::failure::Failure;
use crate::letters::{self, Action, Filter, Letters, LocalLetters, Open, Outcome, act};
use crate::print;
use remote::Remote;

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
    Show(ShowArgs),
    /// Append them to the queue again, with their original position
    ///
    /// A record that was queued again fills gaps, and overrides nothing that an ordinary record wrote.
    Requeue(ChosenArgs),
    /// Remove them for good
    Purge(ChosenArgs),
}

/// Where they are.
#[derive(Debug, Args)]
pub struct Place {
    /// A running server, whose setting server.admin_api must be on; without it, the topic of the
    /// configuration, or the data directory of a server that is stopped
    #[arg(long)]
    pub url: Option<String>,
}

/// Which letters.
#[derive(Debug, Args)]
pub struct FilterArgs {
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
    /// Where.
    #[command(flatten)]
    pub place: Place,
    /// Which.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// JSON lines
    #[arg(long)]
    pub json: bool,
}

/// What to show.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Where.
    #[command(flatten)]
    pub place: Place,
    /// Its name, as `list` shows it: QUEUE/PARTITION/OFFSET
    pub name: Origin,
    /// JSON alone, the bytes in hexadecimal digits
    #[arg(long)]
    pub json: bool,
}

/// What to requeue or purge.
#[derive(Debug, Args)]
pub struct ChosenArgs {
    /// Where.
    #[command(flatten)]
    pub place: Place,
    /// Which.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// Do it; without, it is only said what would be done
    #[arg(long)]
    pub yes: bool,
}

impl FilterArgs {
    fn filter(&self) -> Filter {
        Filter {
            partition: self.partition.map(PartitionId),
            reason: self.reason.clone(),
            since: self.since.map(|since| Offline::now().saturating_sub(since)),
            names: self.names.clone(),
        }
    }
}

/// Runs the command.
///
/// # Errors
///
/// A server has the data directory, or does not answer; letters that cannot be read; a queue that cannot
/// be written to; letters that were chosen to be queued again and are no batches.
pub fn run(args: &DlqArgs, config: &Config) -> Result<(), Failure> {
    match &args.command {
        DlqCommand::List(args) => {
            let desk = Desk::open(config, &args.place)?;
            for letter in desk.list(&args.filter.filter())? {
                print(&line(&letter, args.json))?;
            }
            Ok(())
        }
        DlqCommand::Show(args) => {
            let letter = Desk::open(config, &args.place)?.show(args.name)?;
            print(&text(&letter, args.json)?)
        }
        DlqCommand::Requeue(args) => change(config, Action::Requeue, args),
        DlqCommand::Purge(args) => change(config, Action::Purge, args),
    }
}

/// Where the letters are looked after. Letters are JSON here, as a server tells them.
enum Desk<'a> {
    /// By this process.
    Here {
        letters: Box<dyn Letters>,
        config: &'a Config,
        /// Opened when something is queued again.
        producer: Mutex<Option<Arc<dyn Producer>>>,
        _offline: Option<Offline>,
    },
    /// By a server.
    There(Remote),
}

impl<'a> Desk<'a> {
    fn open(config: &'a Config, place: &Place) -> Result<Self, Failure> {
        if let Some(url) = &place.url {
            return Ok(Self::There(Remote::new(url)?));
        }
        let (letters, offline) = match config.queue.backend {
            QueueBackend::Embedded => {
                let offline = Offline::open(config)?;
                (local(config, &offline)?, Some(offline))
            }
            QueueBackend::Kafka => (topic(config)?, None),
        };
        Ok(Self::Here {
            letters,
            config,
            producer: Mutex::new(None),
            _offline: offline,
        })
    }

    fn list(&self, filter: &Filter) -> Result<Vec<Value>, Failure> {
        match self {
            Self::Here { letters, .. } => {
                let chosen = filter.choose(&**letters).map_err(data)?;
                Ok(chosen.iter().map(letters::head_json).collect())
            }
            Self::There(remote) => remote.list(filter),
        }
    }

    fn show(&self, name: Origin) -> Result<Value, Failure> {
        match self {
            Self::Here { letters, .. } => {
                let letter = letters.read(name).map_err(data)?;
                let none = || data(format!("there is no dead letter {name}"));
                Ok(letters::letter_json(&letter.ok_or_else(none)?))
            }
            Self::There(remote) => remote.show(name),
        }
    }

    /// What becomes of one letter, or would.
    fn act(&self, action: Action, name: &str, really: bool) -> Result<Outcome, Failure> {
        match self {
            Self::Here {
                letters,
                config,
                producer,
                ..
            } => {
                let open = || {
                    let mut producer = producer.lock();
                    if let Some(open) = &*producer {
                        return Ok(Arc::clone(open));
                    }
                    let queue = offline::queue(config).map_err(|error| error.to_string())?;
                    Ok(Arc::clone(producer.insert(queue.producer)))
                };
                let open: Option<Open<'_>> = if really { Some(&open) } else { None };
                let origin: Origin = name.parse().map_err(data)?;
                act(&**letters, action, origin, open, Offline::now()).map_err(Failure::Client)
            }
            Self::There(remote) => remote.act(action, name, really),
        }
    }
}

fn local(config: &Config, offline: &Offline) -> Result<Box<dyn Letters>, Failure> {
    let open = |partition: PartitionId| {
        DeadLetterBox::open(&offline.fs, &offline.store, partition).map_err(data)
    };
    let boxes = offline.partitions()?.into_iter().map(open);
    let mut boxes = boxes.collect::<Result<Vec<_>, _>>()?;
    let rejected = letters::rejected::open_existing(&offline.fs, &config.top.data_dir);
    boxes.extend(rejected.map_err(data)?);
    Ok(Box::new(LocalLetters(boxes)))
}

#[cfg(feature = "kafka")]
fn topic(config: &Config) -> Result<Box<dyn Letters>, Failure> {
    let options = crate::queue::kafka::options(&millrace_log::fs::OsFs, config)?;
    Ok(Box::new(letters::TopicLetters::new(options)))
}

#[cfg(not(feature = "kafka"))]
fn topic(_: &Config) -> Result<Box<dyn Letters>, Failure> {
    Err(data("this millrace was built without Kafka"))
}

fn change(config: &Config, action: Action, args: &ChosenArgs) -> Result<(), Failure> {
    let desk = Desk::open(config, &args.place)?;
    let (mut chosen, mut refused) = (0u64, 0u64);
    for letter in desk.list(&args.filter.filter())? {
        let name = letter["name"].as_str().unwrap_or_default();
        chosen += 1;
        let said = match (desk.act(action, name, args.yes)?, action, args.yes) {
            (Outcome::Refused(reason), ..) => {
                refused += 1;
                format!("left as it is: {reason}")
            }
            (Outcome::Done, Action::Requeue, true) => "queued again".to_owned(),
            (Outcome::Done, Action::Requeue, false) => {
                "would be queued again (--yes does it)".to_owned()
            }
            (Outcome::Done, Action::Purge, true) => "removed".to_owned(),
            (Outcome::Done, Action::Purge, false) => "would be removed (--yes does it)".to_owned(),
        };
        print(&format!("{name}: {said}\n"))?;
    }
    if chosen == 0 && !args.filter.names.is_empty() {
        return Err(data("there are no dead letters of these names"));
    }
    if refused > 0 {
        return Err(data(format!(
            "{refused} of {chosen} letters were left as they are"
        )));
    }
    Ok(())
}

fn line(letter: &Value, as_json: bool) -> String {
    if as_json {
        return format!("{letter}\n");
    }
    let text = |field: &str| letter[field].as_str().unwrap_or_default();
    let (name, reason, bytes) = (text("name"), text("reason"), &letter["bytes"]);
    format!("{name}  {bytes} bytes  {reason}\n")
}

/// A letter for people: its line, what of it can be decoded, and its bytes.
fn text(letter: &Value, as_json: bool) -> Result<String, Failure> {
    if as_json {
        return Ok(format!("{letter:#}\n"));
    }
    let digits = letter["hex"].as_str().unwrap_or_default();
    let bytes = bytes(digits).ok_or_else(|| data("the server does not tell the record's bytes"))?;
    let head = line(letter, false);
    Ok(format!(
        "{head}{:#}\n{}",
        letter["record"],
        hex_dump(&bytes)
    ))
}

fn bytes(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    pairs.map(byte).collect()
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
