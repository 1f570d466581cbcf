//! The records of the control topic as bytes. Decoders are total.

use std::time::Duration;

use millrace_model::{PARTITIONING, QueueId, ShardKey, TimestampMs};
use serde::{Deserialize, Serialize};

use crate::address::is_address;
use crate::traits::QueueIdentity;

/// Version of the records.
const VERSION: u32 = 1;
const CLAIM: &str = "claim/";
const STORE: &str = "store/";
/// Bounds of an announcement's time of life, whatever it says.
const LIFE: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(600);

/// Where a store is, and what it says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// `host:port` of its HTTP server.
    pub address: String,
    /// Its name for people.
    pub name: String,
    /// Which node it is: it has the partitions `p` with `p % nodes == ordinal`.
    pub ordinal: u32,
    /// Of how many.
    pub nodes: u32,
    /// The queue that it reads.
    pub queue: QueueId,
    /// The program's version.
    pub program: String,
    /// When the process started, by its own clock.
    pub started: TimestampMs,
    /// For how long this holds if it is not repeated.
    pub life: Duration,
}

#[derive(Serialize, Deserialize)]
struct StoreRecord {
    version: u32,
    name: String,
    ordinal: u32,
    nodes: u32,
    queue: String,
    program: String,
    started_ms: i64,
    life_ms: u64,
}

/// What a claim says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claimed {
    pub(super) identity: QueueIdentity,
    /// How series are divided, see [`PARTITIONING`].
    pub(super) partitioning: u32,
}

impl Claimed {
    /// What this program claims.
    pub(super) fn ours(identity: &QueueIdentity) -> Self {
        Self {
            identity: identity.clone(),
            partitioning: PARTITIONING,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct ClaimRecord {
    version: u32,
    queue: String,
    partitions: u32,
    shard_key: Vec<String>,
    partitioning: u32,
}

/// Read before the rest, which another version may have otherwise.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// What a record is about, by its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// What the queue is, as one process claimed it.
    Claim,
    /// The store at this address.
    Store(String),
}

impl Subject {
    pub(super) fn of(key: &[u8]) -> Option<Self> {
        let key = std::str::from_utf8(key).ok()?;
        if key.starts_with(CLAIM) {
            return Some(Self::Claim);
        }
        let address = key.strip_prefix(STORE)?;
        is_address(address).then(|| Self::Store(address.to_owned()))
    }
}

/// The key of the claim of a process that drew this number.
pub(super) fn claim_key(claimant: u128) -> String {
    format!("{CLAIM}{claimant:032x}")
}

pub(super) fn store_key(address: &str) -> String {
    format!("{STORE}{address}")
}

pub(super) fn encode_claim(claimed: &Claimed) -> String {
    let Claimed {
        identity,
        partitioning,
    } = claimed;
    to_json(&ClaimRecord {
        version: VERSION,
        queue: identity.id.to_string(),
        partitions: identity.partitions,
        shard_key: identity.shard_key.names().to_vec(),
        partitioning: *partitioning,
    })
}

pub(super) fn encode_announcement(announcement: &Announcement) -> String {
    to_json(&StoreRecord {
        version: VERSION,
        name: announcement.name.clone(),
        ordinal: announcement.ordinal,
        nodes: announcement.nodes,
        queue: announcement.queue.to_string(),
        program: announcement.program.clone(),
        started_ms: announcement.started.0,
        life_ms: u64::try_from(announcement.life.as_millis()).unwrap_or(u64::MAX),
    })
}

fn to_json(record: &impl Serialize) -> String {
    serde_json::to_string(record).expect("texts and numbers are JSON")
}

/// A claim.
///
/// # Errors
///
/// In words, why it cannot be read.
pub(super) fn decode_claim(payload: &[u8]) -> Result<Claimed, String> {
    let record: ClaimRecord = versioned(payload)?;
    let id = record.queue.parse::<QueueId>();
    Ok(Claimed {
        identity: QueueIdentity {
            id: id.map_err(|_| format!("{:?} is no id of a queue", record.queue))?,
            partitions: record.partitions,
            shard_key: ShardKey::new(record.shard_key),
        },
        partitioning: record.partitioning,
    })
}

/// An announcement.
///
/// # Errors
///
/// In words, why it cannot be read.
pub(super) fn decode_announcement(address: &str, payload: &[u8]) -> Result<Announcement, String> {
    let record: StoreRecord = versioned(payload)?;
    let id = record.queue.parse::<QueueId>();
    let life = Duration::from_millis(record.life_ms);
    Ok(Announcement {
        address: address.to_owned(),
        name: record.name,
        ordinal: record.ordinal,
        nodes: record.nodes,
        queue: id.map_err(|_| format!("{:?} is no id of a queue", record.queue))?,
        program: record.program,
        started: TimestampMs(record.started_ms),
        life: life.clamp(*LIFE.start(), *LIFE.end()),
    })
}

fn versioned<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Result<T, String> {
    let words = |error: serde_json::Error| error.to_string();
    let Versioned { version } = serde_json::from_slice(payload).map_err(words)?;
    if version != VERSION {
        return Err(format!(
            "it is of version {version}, this program knows {VERSION}"
        ));
    }
    serde_json::from_slice(payload).map_err(words)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn announcement(address: &str) -> Announcement {
        Announcement {
            address: address.to_owned(),
            name: "store-0a".to_owned(),
            ordinal: 0,
            nodes: 2,
            queue: QueueId(0x0123_4567_89ab_cdef_0011_2233_4455_6677),
            program: "0.1.0".to_owned(),
            started: TimestampMs(1_795_233_600_000),
            life: Duration::from_secs(35),
        }
    }

    pub(in super::super) fn claimed() -> Claimed {
        Claimed::ours(&QueueIdentity {
            id: QueueId(0x0123_4567_89ab_cdef_0011_2233_4455_6677),
            partitions: 4,
            shard_key: ShardKey::default(),
        })
    }

    /// A line per record: key, a tab, value.
    const GOLDEN: &str = include_str!("../../../testdata/control-v1");

    #[test]
    fn golden_records_are_reproduced_byte_for_byte_and_read() {
        let (claim, store) = (claimed(), announcement("10.0.0.7:9009"));
        let lines = [
            (claim_key(0x00ab_cdef_0123_4567), encode_claim(&claim)),
            (store_key(&store.address), encode_announcement(&store)),
        ];
        let text: String = lines
            .map(|(key, value)| format!("{key}\t{value}\n"))
            .concat();
        assert_eq!(text, GOLDEN);
        let values: Vec<_> = GOLDEN
            .lines()
            .map(|line| line.split_once('\t').unwrap())
            .collect();
        assert_eq!(Subject::of(values[0].0.as_bytes()), Some(Subject::Claim));
        assert_eq!(decode_claim(values[0].1.as_bytes()), Ok(claim));
        let subject = Subject::of(values[1].0.as_bytes());
        assert_eq!(subject, Some(Subject::Store(store.address.clone())));
        let found = decode_announcement(&store.address, values[1].1.as_bytes());
        assert_eq!(found, Ok(store));
    }

    #[test]
    fn the_format_page_shows_the_golden_records() {
        let page = include_str!("../../../../docs/formats/control.md");
        for line in GOLDEN.lines() {
            let (key, value) = line.split_once('\t').unwrap();
            assert!(page.contains(key) && page.contains(value), "{line}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_an_error_in_words() {
        let bad = |payload: &str| decode_claim(payload.as_bytes()).unwrap_err();
        assert!(bad("{").contains("EOF"));
        assert!(bad("{\"version\":1}").contains("missing field"));
        assert!(bad("{\"version\":2}").contains("version 2"));
        let id = encode_claim(&claimed()).replace("0123456789", "no");
        assert!(bad(&id).contains("is no id"), "{}", bad(&id));
        for key in ["x", "store/", "store/a", "store/a/b:1", "Claim/1"] {
            assert_eq!(Subject::of(key.as_bytes()), None, "{key}");
        }
        assert_eq!(Subject::of(&[0xff]), None);
    }

    #[test]
    fn lives_are_bounded_whatever_is_announced() {
        let mut long = announcement("a:1");
        long.life = Duration::from_secs(1 << 40);
        let found = decode_announcement("a:1", encode_announcement(&long).as_bytes());
        assert_eq!(found.unwrap().life, *LIFE.end());
    }
}
