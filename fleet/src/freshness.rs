//! `Millrace-Read-After` across processes.
//!
//! It holds in two steps. [`Freshness::wait`] waits until for each partition *some* replica has
//! applied the position. The position then goes with the request's reads: they ask a replica that
//! has it, the replica checks that before it reads, and what it says of its answer is checked again
//! here. So it does not matter which replica `wait` has seen, or whether it is still there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::{FuturesUnordered, StreamExt as _};
use millrace_model::{Offset, PartitionId};
use millrace_query::ReadPoint;
use millrace_query::api::{Freshness, FreshnessError};
use millrace_queue::{Position, PositionError};

use crate::client::left;
use crate::fleet::Fleet;

/// Time between rounds in which nobody could be asked.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// How far the stores of a fleet are.
#[derive(Clone, Debug)]
pub struct FleetFreshness(Arc<Fleet>);

impl FleetFreshness {
    /// Looks at the stores of that fleet.
    #[must_use]
    pub fn new(fleet: Arc<Fleet>) -> Self {
        Self(fleet)
    }

    /// The position, if it is one of this queue.
    fn position(&self, text: &str) -> Result<Option<Position>, FreshnessError> {
        let malformed = |reason: String| FreshnessError::Malformed { reason };
        let position: Position = text
            .parse()
            .map_err(|error: PositionError| malformed(error.to_string()))?;
        let Some(identity) = self.0.identity() else {
            return Ok(None);
        };
        if position.queue != identity.id {
            return Err(malformed(format!(
                "it is of queue {}, the stores read queue {}",
                position.queue, identity.id
            )));
        }
        let beyond = position.next.keys().find(|p| p.0 >= identity.partitions);
        match beyond {
            Some(partition) => Err(malformed(format!(
                "partition {partition}, the queue has {}",
                identity.partitions
            ))),
            None => Ok(Some(position)),
        }
    }

    /// Those of the offsets that no reachable store has, with the farthest that one has.
    fn behind(&self, position: &Position) -> BTreeMap<PartitionId, Option<Offset>> {
        let replicas = self.0.replicas.lock();
        let freshest = position
            .next
            .iter()
            .map(|(partition, wanted)| (*partition, *wanted, replicas.freshest(*partition)));
        freshest
            .filter(|(_, wanted, has)| has.is_none_or(|has| has < *wanted))
            .map(|(partition, _, has)| (partition, has))
            .collect()
    }

    fn not_reached(&self, position: &Position, waited: Duration) -> FreshnessError {
        let behind = self.behind(position);
        let told = behind.iter().map(|(partition, has)| match has {
            Some(has) => format!("partition {partition} stands at {has}"),
            None => format!("no store answers for partition {partition}"),
        });
        FreshnessError::NotReached {
            waited,
            reason: told.collect::<Vec<_>>().join(", "),
        }
    }

    async fn wait_until(&self, position: &Position, deadline: Instant) {
        let mut ticks = tokio::time::interval(RETRY_INTERVAL);
        while !self.behind(position).is_empty() {
            ticks.tick().await;
            self.ask_all(position, deadline).await;
        }
    }

    /// Lets the stores tell when they have what is missing. Returns when nothing is missing, or
    /// nobody is left who would tell.
    async fn ask_all(&self, position: &Position, deadline: Instant) {
        let by_store = self.holders(position);
        if by_store.is_empty() {
            return self.0.poll().await;
        }
        let mut waits: FuturesUnordered<_> = by_store
            .into_iter()
            .map(|(store, position)| async move {
                let begun = Instant::now();
                let told = self.0.caller.wait(&store, &position, left(deadline)).await;
                (store, begun, told)
            })
            .collect();
        while let Some((store, begun, told)) = waits.next().await {
            match told {
                Ok(status) => self.0.told(&store, status, begun),
                // The polls find out what is the matter with it.
                Err(error) => tracing::debug!(store, %error, "a wait for a store failed"),
            }
            if self.behind(position).is_empty() {
                return;
            }
        }
    }

    /// Whom to ask for what is missing.
    fn holders(&self, position: &Position) -> BTreeMap<String, Position> {
        let missing = self.behind(position);
        let replicas = self.0.replicas.lock();
        let mut by_store: BTreeMap<String, Position> = BTreeMap::new();
        for partition in missing.into_keys() {
            for store in replicas.holders(partition) {
                let entry = by_store.entry(store);
                let of_store = entry.or_insert_with(|| Position::new(position.queue));
                of_store.advance(partition, position.next[&partition]);
            }
        }
        by_store
    }
}

impl Freshness for FleetFreshness {
    fn wait(&self, position: &str, timeout: Duration) -> Result<(), FreshnessError> {
        let unknown = || FreshnessError::NotReached {
            waited: timeout,
            reason: "no store has answered yet".to_owned(),
        };
        let deadline = Instant::now() + timeout;
        let mut parsed = self.position(position)?;
        if timeout.is_zero() {
            let position = parsed.ok_or_else(unknown)?;
            return match self.behind(&position).is_empty() {
                true => Ok(()),
                false => Err(self.not_reached(&position, timeout)),
            };
        }
        self.0.runtime.block_on(async {
            if parsed.is_none() {
                self.0.poll().await;
                parsed = self.position(position)?;
            }
            let position = parsed.ok_or_else(unknown)?;
            let waiting = self.wait_until(&position, deadline);
            match tokio::time::timeout_at(deadline.into(), waiting).await {
                Ok(()) => Ok(()),
                Err(_) => Err(self.not_reached(&position, timeout)),
            }
        })
    }

    /// What a read will include is known only when it is known who answers it.
    fn as_of(&self) -> Option<String> {
        None
    }

    fn included(&self, point: &ReadPoint) -> Option<String> {
        let included = point.included();
        if included.is_empty() {
            return None;
        }
        let mut position = Position::new(self.0.identity()?.id);
        for (partition, offset) in included {
            position.advance(partition, offset);
        }
        Some(position.to_string())
    }
}
