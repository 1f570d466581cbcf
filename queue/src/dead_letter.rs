//! Records that could not be applied, as those who deal with them see them.

mod wire;

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use millrace_model::{Offset, PartitionId, QueueId, TimestampMs};

pub use wire::{LetterEntry, LetterError};

/// Where a record stood when it could not be applied. Also the identity of its dead letter: a record
/// that is delivered twice makes one letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The queue.
    pub queue: QueueId,
    /// The partition.
    pub partition: PartitionId,
    /// The offset.
    pub offset: Offset,
}

impl Origin {
    /// Offsets from here on are no record's: they number what was refused before it came into the
    /// queue, and kept as a letter all the same.
    pub const REJECTED_FROM: Offset = Offset(1 << 63);

    /// Whether it is of something that never was in the queue.
    #[must_use]
    pub fn is_rejected(&self) -> bool {
        self.offset >= Self::REJECTED_FROM
    }
}

/// As `<queue>/<partition>/<offset>`, the queue in 32 hexadecimal digits: a letter's name.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.queue, self.partition, self.offset)
    }
}

/// Text that names no [`Origin`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the name of a dead letter, which is QUEUE/PARTITION/OFFSET: {text:?}")]
pub struct OriginError {
    /// The refused text, cut to a readable length.
    pub text: String,
}

impl FromStr for Origin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        let parse = || -> Option<Self> {
            let mut parts = text.split('/');
            let (queue, partition, offset) = (parts.next()?, parts.next()?, parts.next()?);
            parts.next().is_none().then_some(Self {
                queue: queue.parse().ok()?,
                partition: PartitionId(partition.parse().ok()?),
                offset: Offset(offset.parse().ok()?),
            })
        };
        parse().ok_or_else(|| OriginError {
            text: text.chars().take(80).collect(),
        })
    }
}

/// A record that was not applied, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Where it stands in the queue.
    pub origin: Origin,
    /// When the queue took it.
    pub appended_at: TimestampMs,
    /// When it could not be applied.
    pub kept_at: TimestampMs,
    /// What is wrong with it.
    pub reason: String,
    /// Its bytes.
    pub payload: Bytes,
}

impl DeadLetter {
    /// The letter without its bytes.
    #[must_use]
    pub fn head(&self) -> LetterHead {
        LetterHead {
            origin: self.origin,
            appended_at: self.appended_at,
            kept_at: self.kept_at,
            reason: self.reason.clone(),
            bytes: self.payload.len() as u64,
        }
    }
}

/// What a list of letters tells of each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LetterHead {
    /// Where the record stands in the queue.
    pub origin: Origin,
    /// When the queue took it.
    pub appended_at: TimestampMs,
    /// When it could not be applied.
    pub kept_at: TimestampMs,
    /// What is wrong with it.
    pub reason: String,
    /// Its length.
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_text() {
        let origin = Origin {
            queue: QueueId(42),
            partition: PartitionId(3),
            offset: Offset(17),
        };
        assert_eq!(origin.to_string(), format!("{:032x}/3/17", 42));
        assert_eq!(origin.to_string().parse(), Ok(origin));
        for bad in ["", "2a/3", "2a/3/x", "2a/3/4/5", "zz/3/4"] {
            assert!(bad.parse::<Origin>().is_err(), "{bad:?}");
        }
    }
}
