//! `millrace queue resume`: lets a stopped shard go on where somebody says.

use std::str::FromStr;
use std::sync::Arc;

use clap::Args;
use millrace_log::SystemClock;
use millrace_model::{Offset, PartitionId};
use millrace_store::block::PageCache;
use millrace_store::shard::{Shard, ShardContext};
use millrace_store::{DeadLetterBox, GapCause, StoreMetrics, StoreOptions};
use prometheus::Registry;

use crate::commands::offline::Offline;
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
    let data = |error: &dyn std::fmt::Display| Failure::Data(error.to_string());
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
        let letters = DeadLetterBox::open(&offline.fs, &offline.store, partition)
            .map_err(|error| data(&error))?;
        letters
            .accept(Offline::now())
            .map_err(|error| data(&error))?;
        print(&format!(
            "partition {partition}: {} dead letters accepted\n",
            letters.len()
        ))?;
    }
    let Some(from) = args.from else {
        return Ok(());
    };
    let queue = offline.queue(config)?.records;
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
    let context = ShardContext {
        fs: Arc::clone(&offline.fs),
        clock: Arc::new(SystemClock),
        options: StoreOptions {
            // What the WAL still has is applied or kept, whatever the limit.
            dead_letters_max: u64::MAX,
            ..options::store(config)
        },
        identity: queue.identity().clone(),
        metrics: StoreMetrics::register(&Registry::new()).map_err(|error| data(&error))?,
        // Nothing is searched for here.
        pages: Arc::new(PageCache::new(0)),
    };
    let mut shard =
        Shard::open(context, &offline.store, partition).map_err(|error| data(&error))?;
    let gap = shard
        .set_position((queue.identity().id, next), GapCause::Operator)
        .map_err(|error| data(&error))?;
    shard.close().map_err(|error| data(&error))?;
    print(&format!(
        "partition {partition}: was at offset {} of queue {}, goes on at offset {} of queue {}; \
         written into the manifest\n",
        gap.from.1, gap.from.0, gap.to.1, gap.to.0
    ))
}
