//! `millrace queue resume`: lets a stopped shard go on where somebody says.

use std::collections::BTreeMap;
use std::str::FromStr;

use clap::Args;
use millrace_model::{Offset, PartitionId};
use millrace_store::{DeadLetterBox, GapCause, StoreOptions};

use crate::commands::offline::{Offline, data, queue};
use crate::commands::tail::failed;
use crate::config::Config;
use crate::failure::Failure;
use crate::{options, print};

/// Where to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// At this offset.
    Offset(u64),
    /// At the oldest record that the queue has.
    Oldest,
    /// Behind the newest.
    End,
}

impl FromStr for From {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "oldest" => Ok(Self::Oldest),
            "end" => Ok(Self::End),
            number => number
                .parse()
                .map(Self::Offset)
                .map_err(|_| "an offset, `oldest` or `end`".to_owned()),
        }
    }
}

/// What to resume, and how.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct ResumeArgs {
    /// The partition
    #[arg(long, required = true)]
    pub partition: u32,
    /// Where in the queue that there is now: an offset, `oldest` or `end`
    #[arg(long, requires = "accept_loss")]
    pub from: Option<From>,
    /// Yes, what lies between is not in the store, or is applied again
    #[arg(long, requires = "from")]
    pub accept_loss: bool,
    /// The dead letters so far are known: they do not count towards the limit any more
    #[arg(long)]
    pub accept_dead_letters: bool,
}

/// Changes the shard's position and writes the change into its manifest, where it stays on record.
///
/// # Errors
///
/// A server has the data directory; queue or shard cannot be opened; an offset that the queue has not.
pub fn run(args: &ResumeArgs, config: &Config) -> Result<(), Failure> {
    if args.from.is_none() && !args.accept_dead_letters {
        return Err(Failure::Data(
            "nothing to do: say --from with --accept-loss, or --accept-dead-letters".to_owned(),
        ));
    }
    let partition = PartitionId(args.partition);
    let offline = Offline::open(config)?;
    if !offline.partitions()?.contains(&partition) {
        return Err(Failure::Data(format!(
            "{:?} has no partition {partition}",
            offline.store
        )));
    }
    if args.accept_dead_letters {
        let letters = DeadLetterBox::open(&offline.fs, &offline.store, partition).map_err(data)?;
        letters.accept(Offline::now()).map_err(data)?;
        print(&format!(
            "partition {partition}: its dead letters so far are accepted, they do not count any more\n"
        ))?;
    }
    let Some(from) = args.from else {
        return Ok(());
    };
    let queue = queue(config)?.records;
    let held = queue.bounds(partition).map_err(failed)?;
    let next = match from {
        From::Oldest => held.start,
        From::End => held.end,
        From::Offset(offset) => Offset(offset),
    };
    if next < held.start || next > held.end {
        return Err(Failure::Data(format!(
            "the queue has the offsets {} to {} of partition {partition}, not {next}",
            held.start, held.end
        )));
    }
    let options = StoreOptions {
        // What the WAL still has is applied or kept, whatever the limit.
        dead_letters_max: u64::MAX,
        ..options::store(config)
    };
    let identity = queue.identity();
    let store = offline.open_store(options, identity, &[partition])?;
    let to = BTreeMap::from([(partition, (identity.id, next))]);
    let gaps = store.set_positions(&to, GapCause::Operator).map_err(data)?;
    store.close().map_err(data)?;
    for (partition, gap) in gaps {
        print(&format!(
            "partition {partition}: was at offset {} of queue {}, goes on at offset {} of queue {}; \
             written into the manifest\n",
            gap.from.1, gap.from.0, gap.to.1, gap.to.0
        ))?;
    }
    Ok(())
}
