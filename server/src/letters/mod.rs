//! Dead letters, wherever they are: in the directory of a store that reads an embedded queue and in that of what
//! ingest refused, or in the topic beside the queue's. The commands and the HTTP endpoints work on the same trait.
//!
//! Invariant: a letter that is queued again is purged only after its record is durable in the queue, so a
//! crash in between queues it twice, which changes nothing.

#[cfg(feature = "kafka")]
mod forward;
pub mod http;
pub mod rejected;
#[cfg(feature = "kafka")]
mod topic;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use millrace_model::batch::{OriginalPosition, requeue};
use millrace_model::{PartitionId, TimestampMs};
use millrace_queue::{DeadLetter, LetterHead, Origin, Producer, Record};
use millrace_store::DeadLetterBox;
use serde_json::{Value, json};

use crate::append::append;
use crate::commands::records::show::{self, Depth};

#[cfg(feature = "kafka")]
pub use forward::{ForwardMetrics, Forwarder};
#[cfg(feature = "kafka")]
pub use topic::TopicLetters;

/// Where dead letters are. Calls may block on disk or network.
pub trait Letters: Send + Sync + fmt::Debug {
    /// All of them, in the order in which they were kept.
    ///
    /// # Errors
    ///
    /// In words, why they cannot be read.
    fn list(&self) -> Result<Vec<LetterHead>, String>;

    /// One of them, if it is there.
    ///
    /// # Errors
    ///
    /// In words, why it cannot be read.
    fn read(&self, origin: Origin) -> Result<Option<DeadLetter>, String>;

    /// Removes it for good, durably.
    ///
    /// # Errors
    ///
    /// In words, why it may still be there.
    fn purge(&self, origin: Origin, now: TimestampMs) -> Result<(), String>;
}

/// The letters in a store's own directory.
#[derive(Debug)]
pub struct LocalLetters(pub Vec<DeadLetterBox>);

impl Letters for LocalLetters {
    fn list(&self) -> Result<Vec<LetterHead>, String> {
        let mut heads = Vec::new();
        for letters in &self.0 {
            let all = letters.read_all().map_err(|error| error.to_string())?;
            heads.extend(all.iter().map(DeadLetter::head));
        }
        heads.sort_by_key(|head| (head.kept_at, head.origin));
        Ok(heads)
    }

    fn read(&self, origin: Origin) -> Result<Option<DeadLetter>, String> {
        for letters in &self.0 {
            if let Some(found) = letters.read(origin).map_err(|error| error.to_string())? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn purge(&self, origin: Origin, now: TimestampMs) -> Result<(), String> {
        for letters in &self.0 {
            letters
                .purge(&[origin], now)
                .map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}

/// The letters of a queue that keeps them beside itself, and those of what this process has refused.
#[derive(Debug)]
pub struct WithRejected {
    /// Those of the queue.
    pub queue: Arc<dyn Letters>,
    /// Those of refused samples.
    pub rejected: LocalLetters,
}

impl WithRejected {
    fn of(&self, origin: Origin) -> &dyn Letters {
        match origin.is_rejected() {
            true => &self.rejected,
            false => &*self.queue,
        }
    }
}

impl Letters for WithRejected {
    fn list(&self) -> Result<Vec<LetterHead>, String> {
        let mut heads = self.queue.list()?;
        heads.extend(self.rejected.list()?);
        heads.sort_by_key(|head| (head.kept_at, head.origin));
        Ok(heads)
    }

    fn read(&self, origin: Origin) -> Result<Option<DeadLetter>, String> {
        self.of(origin).read(origin)
    }

    fn purge(&self, origin: Origin, now: TimestampMs) -> Result<(), String> {
        self.of(origin).purge(origin, now)
    }
}

/// How far the letters of a store's directory are on their way to where they belong.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// Letters that are not there yet, by partition; none is not listed.
    pub unsent: BTreeMap<PartitionId, u64>,
    /// Why they are not taken.
    pub problem: Option<String>,
}

/// Which letters.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only of this partition.
    pub partition: Option<PartitionId>,
    /// Only those with this text in their reason.
    pub reason: Option<String>,
    /// Only those of records that the queue took then or later.
    pub since: Option<TimestampMs>,
    /// Only these; all, if none is named.
    pub names: Vec<Origin>,
}

impl Filter {
    /// Whether it lets everything through.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.partition.is_none()
            && self.reason.is_none()
            && self.since.is_none()
            && self.names.is_empty()
    }

    fn passes(&self, letter: &LetterHead) -> bool {
        let reason = self.reason.as_deref();
        let partition = self.partition;
        (self.names.is_empty() || self.names.contains(&letter.origin))
            && partition.is_none_or(|partition| letter.origin.partition == partition)
            && reason.is_none_or(|text| letter.reason.contains(text))
            && self.since.is_none_or(|since| letter.appended_at >= since)
    }

    /// The letters that pass.
    ///
    /// # Errors
    ///
    /// In words, why they cannot be read.
    pub fn choose(&self, letters: &dyn Letters) -> Result<Vec<LetterHead>, String> {
        let mut all = letters.list()?;
        all.retain(|letter| self.passes(letter));
        Ok(all)
    }
}

/// A letter of a list as JSON.
#[must_use]
pub fn head_json(letter: &LetterHead) -> Value {
    json!({
        "name": letter.origin.to_string(),
        "queue": letter.origin.queue.to_string(),
        "partition": letter.origin.partition.0,
        "offset": letter.origin.offset.0,
        "appended_at_ms": letter.appended_at.0,
        "kept_at_ms": letter.kept_at.0,
        "bytes": letter.bytes,
        "reason": letter.reason,
    })
}

/// A letter whole: what of it can be decoded, and its bytes in hexadecimal digits.
#[must_use]
pub fn letter_json(letter: &DeadLetter) -> Value {
    let record = Record {
        offset: letter.origin.offset,
        appended_at: letter.appended_at,
        payload: letter.payload.clone(),
    };
    let mut shown = head_json(&letter.head());
    shown["record"] = show::record(letter.origin.partition, &record, Depth::Whole);
    let hex: Vec<String> = letter.payload.iter().map(|b| format!("{b:02x}")).collect();
    shown["hex"] = hex.concat().into();
    shown
}

/// What is done with letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Append the record to the queue again, with its original position; then remove the letter.
    Requeue,
    /// Remove the letter.
    Purge,
}

/// What became of one letter, or would.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done, or would be.
    Done,
    /// It was left as it is.
    Refused(String),
}

/// The way into the queue, for whoever needs it.
pub type Open<'a> = &'a dyn Fn() -> Result<Arc<dyn Producer>, String>;

/// Does it with one letter; without a way into the queue it is only said what would be done.
///
/// # Errors
///
/// In words, why letters or queue cannot be used: the letter is then still there.
pub fn act(
    letters: &dyn Letters,
    action: Action,
    origin: Origin,
    open: Option<Open<'_>>,
    now: TimestampMs,
) -> Result<Outcome, String> {
    if action == Action::Requeue {
        let batch = match again(letters, origin)? {
            Ok(batch) => batch,
            Err(reason) => return Ok(Outcome::Refused(reason)),
        };
        let Some(open) = open else {
            return Ok(Outcome::Done);
        };
        let producer = open()?;
        let partitions = producer.identity().partitions;
        if origin.partition.0 >= partitions {
            return Ok(Outcome::Refused(format!(
                "the queue has {partitions} partitions, from 0 on"
            )));
        }
        append(&*producer, origin.partition, vec![batch])?;
    }
    if open.is_some() {
        letters.purge(origin, now)?;
    }
    Ok(Outcome::Done)
}

/// The batch that is queued again, or why there is none.
fn again(letters: &dyn Letters, origin: Origin) -> Result<Result<Bytes, String>, String> {
    let Some(letter) = letters.read(origin)? else {
        return Ok(Err("there is no such letter any more".to_owned()));
    };
    let original = OriginalPosition {
        queue: origin.queue,
        partition: origin.partition,
        offset: origin.offset,
    };
    let batch = requeue(&letter.payload, original);
    Ok(batch.map(Bytes::from).map_err(|error| {
        format!("it is no batch, so it would not be applied this time either: {error}")
    }))
}
