//! Whether the topic is the queue that the pipeline works with.

use millrace_model::QueueId;

use super::records::Claimed;

/// How a topic differs from the queue that was claimed first, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// The topic has another id.
    #[error(
        "it was deleted and made again: its id is {found}, and its control topic says that the queue \
         is {claimed}. What the stores have read is of that one, so nothing is written to this one; \
         `millrace queue adopt` takes it as the queue from now on (docs/kafka.md, recreated)"
    )]
    Recreated {
        /// The queue that was claimed.
        claimed: QueueId,
        /// The topic that is there.
        found: QueueId,
    },
    /// Partitions were added.
    #[error(
        "it has {found} partitions and had {claimed} when the first process used it: most series would \
         go to another partition than before, and be in two shards. Kafka takes no partitions away \
         again: make a new topic with `millrace queue create` and name it in queue.kafka.topic \
         (docs/kafka.md, more partitions)"
    )]
    Partitions {
        /// As was claimed.
        claimed: u32,
        /// As it is now.
        found: u32,
    },
    /// The configuration divides series by other labels.
    #[error(
        "queue.shard_key is {configured:?} here, and the queue was begun with {claimed:?}: series would \
         go to another partition than before, and be in two shards. Set queue.shard_key to what the \
         queue was begun with"
    )]
    ShardKey {
        /// As was claimed.
        claimed: Vec<String>,
        /// As this process is configured.
        configured: Vec<String>,
    },
    /// Another version of millrace divides series otherwise.
    #[error(
        "series are divided among its partitions by method {claimed}, and this program knows method \
         {known}: run the version of millrace that began it, or make a new topic"
    )]
    Partitioning {
        /// As was claimed.
        claimed: u32,
        /// What this program does.
        known: u32,
    },
    /// What the queue is was written by something else.
    #[error(
        "what its control topic says of the queue cannot be read: {reason}; run the version of \
         millrace that wrote it"
    )]
    Unreadable {
        /// What is wrong.
        reason: String,
    },
}

/// Compares what was claimed with what is there.
pub(super) fn compare(claimed: &Result<Claimed, String>, ours: &Claimed) -> Result<(), Mismatch> {
    let claimed = claimed.as_ref().map_err(|reason| Mismatch::Unreadable {
        reason: reason.clone(),
    })?;
    if claimed.partitioning != ours.partitioning {
        return Err(Mismatch::Partitioning {
            claimed: claimed.partitioning,
            known: ours.partitioning,
        });
    }
    let (claimed, ours) = (&claimed.identity, &ours.identity);
    if claimed.id != ours.id {
        return Err(Mismatch::Recreated {
            claimed: claimed.id,
            found: ours.id,
        });
    }
    if claimed.partitions != ours.partitions {
        return Err(Mismatch::Partitions {
            claimed: claimed.partitions,
            found: ours.partitions,
        });
    }
    if claimed.shard_key != ours.shard_key {
        return Err(Mismatch::ShardKey {
            claimed: claimed.shard_key.names().to_vec(),
            configured: ours.shard_key.names().to_vec(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use millrace_model::ShardKey;

    use super::super::records::tests::claimed;
    use super::*;

    fn refusal(change: impl FnOnce(&mut Claimed)) -> String {
        let mut ours = claimed();
        change(&mut ours);
        compare(&Ok(claimed()), &ours).map_or_else(|e| e.to_string(), |()| "same".to_owned())
    }

    #[test]
    fn each_difference_is_told_with_both_values_and_the_way_out() {
        assert_eq!(refusal(|_| {}), "same");
        type Change = fn(&mut Claimed);
        let table: [(Change, &[&str]); 4] = [
            (
                |ours| ours.identity.id = QueueId(9),
                &[
                    "deleted and made again",
                    "00000009",
                    "00112233",
                    "`millrace queue adopt`",
                ],
            ),
            (
                |ours| ours.identity.partitions = 8,
                &["has 8 partitions and had 4", "`millrace queue create`"],
            ),
            (
                |ours| ours.identity.shard_key = ShardKey::new(["x".to_owned()]),
                &["queue.shard_key is [\"x\"]", "begun with [\"instance\""],
            ),
            (
                |ours| ours.partitioning = 2,
                &["by method 1", "knows method 2"],
            ),
        ];
        for (change, expect) in table {
            let found = refusal(change);
            for part in expect {
                assert!(found.contains(part), "{found}");
            }
        }
        let unreadable = compare(&Err("it is of version 7".to_owned()), &claimed());
        assert!(unreadable.unwrap_err().to_string().contains("version 7"));
    }

    #[test]
    fn a_recreated_topic_is_told_as_such_whatever_else_differs() {
        let found = refusal(|ours| {
            ours.identity.id = QueueId(9);
            ours.identity.partitions = 8;
        });
        assert!(found.contains("deleted and made again"), "{found}");
    }
}
