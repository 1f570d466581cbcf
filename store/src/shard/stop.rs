//! Why a shard has stopped, for machines and for people.

use millrace_model::PartitionId;
use millrace_queue::ConsumeError;

use crate::error::StoreError;

/// Why a shard has stopped. Each has a section in `docs/kafka.md` that says what it means and what
/// resolves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StopCode {
    /// The queue was deleted and made again: it is not the one that the shard has read.
    Recreated,
    /// The queue has removed records that the shard had not read.
    RetentionOvertook,
    /// The queue ends before the shard's position: it has lost records.
    Truncated,
    /// The record before the shard's position is not the one that it has read.
    Diverged,
    /// A record of the queue fails its checksum.
    QueueDamaged,
    /// Too many records could not be applied in a short time.
    DeadLetters,
    /// A file could not be read, written or synced, or is damaged.
    Storage,
    /// Another process has opened the shard's files.
    Fenced,
    /// A bug of millrace.
    Bug,
}

impl StopCode {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Recreated,
        Self::RetentionOvertook,
        Self::Truncated,
        Self::Diverged,
        Self::QueueDamaged,
        Self::DeadLetters,
        Self::Storage,
        Self::Fenced,
        Self::Bug,
    ];

    /// The word in statuses and metrics, and the name of the section in `docs/kafka.md`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Recreated => "recreated",
            Self::RetentionOvertook => "retention_overtook",
            Self::Truncated => "truncated",
            Self::Diverged => "diverged",
            Self::QueueDamaged => "queue_damaged",
            Self::DeadLetters => "dead_letters",
            Self::Storage => "storage",
            Self::Fenced => "fenced",
            Self::Bug => "bug",
        }
    }

    /// The commands that resolve it, to be run while the store is stopped; several are
    /// alternatives. None where nothing but a look at the cause helps.
    #[must_use]
    pub fn commands(self, partition: PartitionId) -> Vec<String> {
        let resume = |rest: &str| format!("millrace queue resume --partition {partition} {rest}");
        match self {
            Self::Recreated | Self::RetentionOvertook => {
                vec![
                    resume("--from oldest --accept-loss"),
                    resume("--from end --accept-loss"),
                ]
            }
            Self::Truncated => vec![
                resume("--from end --accept-loss"),
                resume("--from oldest --accept-loss"),
            ],
            Self::Diverged => vec![
                resume("--from oldest --accept-loss"),
                resume("--from OFFSET --accept-loss"),
            ],
            Self::QueueDamaged => vec![resume("--from OFFSET --accept-loss")],
            Self::DeadLetters => vec![
                format!("millrace dlq list --partition {partition}"),
                resume("--accept-dead-letters"),
            ],
            Self::Storage | Self::Fenced | Self::Bug => Vec::new(),
        }
    }
}

impl From<&StoreError> for StopCode {
    fn from(error: &StoreError) -> Self {
        match error {
            StoreError::Queue(error) => match error {
                ConsumeError::AnotherQueue { .. } => Self::Recreated,
                ConsumeError::TooOld { .. } => Self::RetentionOvertook,
                ConsumeError::BeyondEnd { .. } => Self::Truncated,
                ConsumeError::Diverged { .. } => Self::Diverged,
                ConsumeError::Damaged { .. } => Self::QueueDamaged,
                // Waited for, and the end of the queue is the end of the shard in order.
                ConsumeError::Unavailable { .. } | ConsumeError::Closed => Self::Bug,
            },
            StoreError::TooManyDeadLetters { .. } => Self::DeadLetters,
            StoreError::Fenced { .. } => Self::Fenced,
            StoreError::Panicked | StoreError::SealerGone => Self::Bug,
            _ => Self::Storage,
        }
    }
}
