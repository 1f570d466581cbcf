//! Which stores there are, what they said last, and which one to ask.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use millrace_model::{Offset, PartitionId};
use millrace_queue::QueueIdentity;

use crate::wire::messages::StoreStatus;

/// What is known of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Nothing yet.
    Unknown,
    /// Its last poll was answered, and no read has failed since.
    Good,
    /// It was not.
    Failed { reason: String },
    /// It answers, and is none of ours.
    Foreign { reason: String },
}

/// One store.
#[derive(Clone, Debug)]
pub(crate) struct Replica {
    pub(crate) reach: Reach,
    /// As it said last, however long ago.
    pub(crate) status: Option<StoreStatus>,
    pub(crate) seen: Option<Instant>,
    /// How long its last status took.
    pub(crate) latency: Duration,
    /// A read has failed: until then others are asked first, even if it answers polls.
    avoid_until: Option<Instant>,
}

/// How long a store is avoided whose read has failed.
const AVOID: Duration = Duration::from_secs(5);

impl Replica {
    fn new() -> Self {
        Self {
            reach: Reach::Unknown,
            status: None,
            seen: None,
            latency: Duration::ZERO,
            avoid_until: None,
        }
    }

    fn is_avoided(&self, now: Instant) -> bool {
        self.avoid_until.is_some_and(|until| now < until)
    }

    pub(crate) fn applied(&self, partition: PartitionId) -> Option<Offset> {
        let status = self.status.as_ref()?;
        let entries = &status.partitions;
        let entry = entries.iter().find(|entry| entry.partition == partition.0);
        entry.map(|entry| Offset(entry.applied))
    }

    pub(crate) fn is_good(&self) -> bool {
        self.reach == Reach::Good
    }
}

/// All stores, by their addresses, and what reads of each partition ask.
#[derive(Debug, Default)]
pub(crate) struct Replicas {
    by_address: BTreeMap<String, Replica>,
    /// So that reads do not go to and fro between replicas that are equally fresh.
    chosen: HashMap<PartitionId, String>,
}

/// Whom to ask for what.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// By address, and whether the store has not yet applied what is needed. Those partitions are
    /// asked for on their own: if it does not get there in time, it refuses them alone.
    pub(crate) groups: BTreeMap<(String, bool), Vec<PartitionId>>,
    /// Nobody has them.
    pub(crate) missing: Vec<PartitionId>,
}

impl Replicas {
    /// Takes the addresses that there are now. Returns those that are gone.
    pub(crate) fn set_addresses(&mut self, addresses: &BTreeSet<String>) -> Vec<String> {
        for address in addresses {
            let entry = self.by_address.entry(address.clone());
            entry.or_insert_with(Replica::new);
        }
        let known = self.by_address.keys();
        let gone: Vec<_> = known.filter(|a| !addresses.contains(*a)).cloned().collect();
        for address in &gone {
            self.by_address.remove(address);
        }
        gone
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&String, &Replica)> {
        self.by_address.iter()
    }

    pub(crate) fn chosen(&self, partition: PartitionId) -> Option<&str> {
        self.chosen.get(&partition).map(String::as_str)
    }

    /// A store has told its state.
    pub(crate) fn told(
        &mut self,
        address: &str,
        status: StoreStatus,
        identity: &QueueIdentity,
        latency: Duration,
    ) {
        let Some(replica) = self.by_address.get_mut(address) else {
            return;
        };
        let reach = match foreign(&status, identity) {
            None => Reach::Good,
            Some(reason) => Reach::Foreign { reason },
        };
        if replica.reach != reach {
            match &reach {
                Reach::Foreign { reason } => {
                    tracing::error!(store = address, reason, "a store of the list is refused");
                }
                _ => tracing::info!(store = address, name = status.store, "a store answers"),
            }
        }
        replica.reach = reach;
        replica.status = Some(status);
        replica.seen = Some(Instant::now());
        replica.latency = latency;
    }

    /// A poll or a read of a store has failed.
    pub(crate) fn failed(&mut self, address: &str, reason: String) {
        let Some(replica) = self.by_address.get_mut(address) else {
            return;
        };
        if replica.is_good() {
            tracing::warn!(store = address, reason, "a store fails");
        }
        replica.reach = Reach::Failed { reason };
    }

    /// A read has failed in a way that makes the store itself suspect.
    pub(crate) fn failed_read(&mut self, address: &str, reason: String) {
        if let Some(replica) = self.by_address.get_mut(address) {
            replica.avoid_until = Instant::now().checked_add(AVOID);
        }
        self.failed(address, reason);
    }

    /// Picks for each partition the freshest store that can be reached and is not `refused`. One
    /// that has not yet applied what `least` says is picked only if nobody has.
    pub(crate) fn plan(
        &mut self,
        partitions: impl IntoIterator<Item = PartitionId>,
        least: &BTreeMap<PartitionId, Offset>,
        switch_records: u64,
        refused: impl Fn(&str) -> bool,
    ) -> Plan {
        let mut plan = Plan::default();
        for partition in partitions {
            let least = least.get(&partition).copied().unwrap_or(Offset::ZERO);
            let chosen = self.pick(partition, least, switch_records, &refused);
            match chosen {
                Some((address, late)) => {
                    self.chosen.insert(partition, address.clone());
                    let group = plan.groups.entry((address, late));
                    group.or_default().push(partition);
                }
                None => plan.missing.push(partition),
            }
        }
        plan
    }

    fn pick(
        &self,
        partition: PartitionId,
        least: Offset,
        switch_records: u64,
        refused: &impl Fn(&str) -> bool,
    ) -> Option<(String, bool)> {
        let now = Instant::now();
        let holds = |avoided: bool| {
            let reachable = self.by_address.iter().filter(|(_, r)| r.is_good());
            let allowed =
                reachable.filter(move |(a, r)| !refused(a) && r.is_avoided(now) == avoided);
            allowed.filter_map(move |(address, r)| Some((address, r.applied(partition)?)))
        };
        let avoided = holds(false).next().is_none();
        let candidates = || holds(avoided);
        let (freshest, best) = candidates().max_by_key(|(_, applied)| *applied)?;
        let current = self.chosen.get(&partition);
        let current = candidates().find(|(address, _)| Some(*address) == current);
        let stays = current.filter(|(_, applied)| {
            let enough = *applied >= least || best < least;
            enough && best.0 - applied.0 <= switch_records
        });
        let address = stays.map_or(freshest, |(address, _)| address);
        Some((address.clone(), best < least))
    }

    /// Where the freshest reachable replica of the partition is.
    pub(crate) fn freshest(&self, partition: PartitionId) -> Option<Offset> {
        let good = self.by_address.values().filter(|r| r.is_good());
        good.filter_map(|r| r.applied(partition)).max()
    }

    /// Addresses of reachable stores that have the partition.
    pub(crate) fn holders(&self, partition: PartitionId) -> Vec<String> {
        let good = self.by_address.iter().filter(|(_, r)| r.is_good());
        good.filter(|(_, r)| r.applied(partition).is_some())
            .map(|(address, _)| address.clone())
            .collect()
    }

    /// Records that the store lacks and another one of its partitions' replicas has.
    pub(crate) fn behind(&self, replica: &Replica) -> u64 {
        let partitions = replica.status.iter().flat_map(|s| &s.partitions);
        let behind = partitions.map(|entry| {
            let best = self.freshest(PartitionId(entry.partition));
            best.map_or(0, |best| best.0.saturating_sub(entry.applied))
        });
        behind.sum()
    }

    /// In words, why nobody answers for the partition.
    pub(crate) fn why_missing(&self, partition: PartitionId) -> Vec<String> {
        let mut reasons = Vec::new();
        for (address, replica) in &self.by_address {
            let has = replica.status.is_none() || replica.applied(partition).is_some();
            match &replica.reach {
                Reach::Failed { reason } if has => reasons.push(format!("{address}: {reason}")),
                Reach::Foreign { reason } => reasons.push(format!("{address}: {reason}")),
                Reach::Unknown => reasons.push(format!("{address}: not heard of yet")),
                Reach::Failed { .. } | Reach::Good => {}
            }
        }
        reasons
    }
}

/// Why a store cannot belong to us.
fn foreign(status: &StoreStatus, identity: &QueueIdentity) -> Option<String> {
    let Some(theirs) = status.queue.identity() else {
        return Some(format!("its queue {:?} is none", status.queue.id));
    };
    if theirs.id != identity.id {
        return Some(format!(
            "it reads queue {}, the others read {}",
            theirs.id, identity.id
        ));
    }
    if theirs != *identity {
        return Some(format!(
            "it divides queue {} into {} partitions by {:?}, the others into {} by {:?}",
            theirs.id,
            theirs.partitions,
            theirs.shard_key.names(),
            identity.partitions,
            identity.shard_key.names()
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::VERSION;
    use crate::wire::messages::{PartitionStatus, QueueInfo};
    use millrace_model::{QueueId, ShardKey};

    fn identity() -> QueueIdentity {
        QueueIdentity {
            id: QueueId(1),
            partitions: 2,
            shard_key: ShardKey::default(),
        }
    }

    fn tell(replicas: &mut Replicas, address: &str, identity: &QueueIdentity, applied: [u64; 2]) {
        let entry = |(partition, applied): (usize, &u64)| PartitionStatus {
            partition: partition as u32,
            state: "running".into(),
            applied: *applied,
            end: None,
        };
        let status = StoreStatus {
            protocol: VERSION,
            store: address.into(),
            ordinal: 0,
            nodes: 1,
            queue: QueueInfo::from(identity),
            partitions: applied.iter().enumerate().map(entry).collect(),
        };
        replicas.told(address, status, &super::tests::identity(), Duration::ZERO);
    }

    fn replicas() -> Replicas {
        let mut replicas = Replicas::default();
        let addresses = ["a", "b"].map(str::to_owned).into();
        assert!(replicas.set_addresses(&addresses).is_empty());
        replicas
    }

    fn asked(replicas: &mut Replicas, least: u64) -> String {
        let least = BTreeMap::from([(PartitionId(0), Offset(least))]);
        let plan = replicas.plan([PartitionId(0)], &least, 10, |_| false);
        plan.groups
            .into_keys()
            .map(|(address, _)| address)
            .collect()
    }

    #[test]
    fn reads_stay_where_they_are_until_another_is_clearly_fresher() {
        let mut replicas = replicas();
        tell(&mut replicas, "a", &identity(), [100, 0]);
        tell(&mut replicas, "b", &identity(), [99, 0]);
        assert_eq!(asked(&mut replicas, 0), "a");
        tell(&mut replicas, "b", &identity(), [110, 0]);
        assert_eq!(asked(&mut replicas, 0), "a");
        // What must be included counts more.
        assert_eq!(asked(&mut replicas, 105), "b");
        tell(&mut replicas, "a", &identity(), [120, 0]);
        assert_eq!(asked(&mut replicas, 0), "b");
        tell(&mut replicas, "a", &identity(), [121, 0]);
        assert_eq!(asked(&mut replicas, 0), "a");
        replicas.failed("a", "gone".into());
        assert_eq!(asked(&mut replicas, 0), "b");
        // Nobody has it yet: the one that is asked will wait.
        assert_eq!(asked(&mut replicas, 1000), "b");
    }

    #[test]
    fn nobody_is_asked_for_what_nobody_has() {
        let mut replicas = replicas();
        let none = BTreeMap::new();
        let both = [PartitionId(0), PartitionId(7)];
        let plan = replicas.plan(both, &none, 10, |_| false);
        assert_eq!(plan.missing, both);
        tell(&mut replicas, "a", &identity(), [1, 1]);
        let plan = replicas.plan(both, &none, 10, |_| false);
        assert_eq!(plan.missing, [PartitionId(7)]);
        let plan = replicas.plan([PartitionId(0)], &none, 10, |address| address == "a");
        assert_eq!(plan.missing, [PartitionId(0)]);
        assert_eq!(replicas.set_addresses(&["b".to_owned()].into()), ["a"]);
        assert_eq!(replicas.iter().count(), 1);
    }

    #[test]
    fn a_store_of_another_queue_is_refused_and_it_is_said_why() {
        let mut replicas = replicas();
        let mut other = identity();
        other.id = QueueId(2);
        tell(&mut replicas, "a", &other, [9, 9]);
        let mut other = identity();
        other.shard_key = ShardKey::new(["x".to_owned()]);
        tell(&mut replicas, "b", &other, [9, 9]);
        let plan = replicas.plan([PartitionId(0)], &BTreeMap::new(), 10, |_| false);
        assert_eq!(plan.missing, [PartitionId(0)]);
        let why = replicas.why_missing(PartitionId(0)).join("; ");
        assert!(
            why.contains("reads queue") && why.contains("[\"x\"]"),
            "{why}"
        );
    }
}
