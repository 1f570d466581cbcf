//! The identity file: `docs/formats/queue.md`.
//!
//! It is published last when a queue is created, so that it stands for "everything is there":
//! without it and with empty partition directories the creation was interrupted and is done again;
//! without it and with records it was lost, which is an error; with it every partition directory
//! must exist.

use std::path::{Path, PathBuf};

use millrace_log::fs::{self, Fs, TEMPORARY_SUFFIX};
use millrace_log::planted as log_planted;
use millrace_model::{PartitionId, QueueId, ShardKey};

use crate::planted;
use crate::{IdentityDamage, QueueError, QueueIdentity};

/// The only version there is.
pub(super) const VERSION: u32 = 1;
const FIRST_LINE: &str = "millrace queue identity, version ";
/// A shard key of a thousand long label names fits; nothing larger was written by us.
const MAX_BYTES: u64 = 1 << 20;

/// The identity file of the queue in `dir`.
pub(super) fn identity_path(dir: &Path) -> PathBuf {
    dir.join("identity")
}

/// The directory of a partition of the queue in `dir`.
pub(super) fn partition_path(dir: &Path, partition: PartitionId) -> PathBuf {
    dir.join(partition.to_string())
}

/// The bytes of an identity file.
pub(super) fn encode(identity: &QueueIdentity) -> String {
    let names = serde_json::to_string(identity.shard_key.names())
        .expect("a list of strings can be written as JSON");
    let mut text = format!(
        "{FIRST_LINE}{VERSION}\nid = {}\npartitions = {}\nshard_key = {names}\n",
        identity.id, identity.partitions,
    );
    let crc = crc32c::crc32c(text.as_bytes());
    text.push_str(&format!("crc32c = {crc:08x}\n"));
    text
}

/// Reads what [`encode`] wrote. `path` is for the error.
pub(super) fn decode(path: &Path, bytes: &[u8]) -> Result<QueueIdentity, QueueError> {
    let damaged = |damage| QueueError::IdentityDamaged {
        path: path.to_path_buf(),
        damage,
    };
    let line = |line, expected| damaged(IdentityDamage::Line { line, expected });
    // The version first: what follows may look different in another one.
    let text = std::str::from_utf8(bytes).map_err(|_| line(1, "UTF-8"))?;
    let found: u32 = text
        .strip_prefix(FIRST_LINE)
        .and_then(|rest| rest.split('\n').next())
        .and_then(|version| version.parse().ok())
        .ok_or_else(|| line(1, "`millrace queue identity, version <number>`"))?;
    let (covered, stored) = text
        .strip_suffix('\n')
        .and_then(|text| text.rsplit_once("\ncrc32c = "))
        .and_then(|(covered, crc)| Some((covered, parse_crc(crc)?)))
        .ok_or_else(|| line(5, "`crc32c = <8 hexadecimal digits>`"))?;
    let got = crc32c::crc32c(&text.as_bytes()[..covered.len() + 1]);
    if got != stored {
        return Err(damaged(IdentityDamage::Checksum { got, stored }));
    }
    if found != VERSION {
        return Err(QueueError::IdentityVersion {
            path: path.to_path_buf(),
            found,
            supported: VERSION,
        });
    }
    let mut lines = covered.split('\n').skip(1);
    let mut field = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(" = ");
    let id = field("id")
        .and_then(|id| id.parse::<QueueId>().ok())
        .ok_or_else(|| line(2, "`id = <32 hexadecimal digits>`"))?;
    let partitions = field("partitions")
        .and_then(|count| count.parse::<u32>().ok())
        .filter(|count| (1..=super::MAX_PARTITIONS).contains(count))
        .ok_or_else(|| line(3, "`partitions = <number>`"))?;
    let shard_key = field("shard_key")
        .and_then(|names| serde_json::from_str::<Vec<String>>(names).ok())
        .map(ShardKey::new)
        .ok_or_else(|| line(4, "`shard_key = [\"<label>\", ...]`"))?;
    let identity = QueueIdentity {
        id,
        partitions,
        shard_key,
    };
    // One identity has one spelling: nothing else stands in the file.
    if encode(&identity).as_bytes() == bytes {
        Ok(identity)
    } else {
        Err(line(5, "the last of five lines"))
    }
}

fn parse_crc(text: &str) -> Option<u32> {
    (text.len() == 8).then_some(())?;
    u32::from_str_radix(text, 16).ok()
}

/// Reads the identity of the queue in `dir`, if there is one.
pub(super) fn load(fs: &dyn Fs, dir: &Path) -> Result<Option<QueueIdentity>, QueueError> {
    let path = identity_path(dir);
    if !exists(fs, &path)? {
        return Ok(None);
    }
    let bytes = fs::read_all(fs, &path, MAX_BYTES).map_err(QueueError::io("read", &path))?;
    decode(&path, &bytes).map(Some)
}

/// Reads the identity of the queue in `dir` and compares it with what is wanted; creates the queue,
/// or completes its creation, if it is not there.
pub(super) fn load_or_create(
    fs: &dyn Fs,
    dir: &Path,
    partitions: u32,
    shard_key: &ShardKey,
) -> Result<QueueIdentity, QueueError> {
    fs::create_dir_durable(fs, dir).map_err(QueueError::io("create the directory", dir))?;
    let path = identity_path(dir);
    if let Some(stored) = load(fs, dir)? {
        check(&path, &stored, partitions, shard_key)?;
        for partition in (0..stored.partitions).map(PartitionId) {
            let path = partition_path(dir, partition);
            if !exists(fs, &path)? {
                return Err(QueueError::PartitionMissing { partition, path });
            }
        }
        remove_leftover(fs, dir, &path)?;
        return Ok(stored);
    }
    refuse_records_without_identity(fs, dir, &path)?;
    for partition in (0..partitions).map(PartitionId) {
        let path = partition_path(dir, partition);
        fs::create_dir_durable(fs, &path).map_err(QueueError::io("create the directory", &path))?;
    }
    let identity = QueueIdentity {
        id: QueueId(
            fs.unique_id()
                .map_err(QueueError::io("draw an id", &path))?,
        ),
        partitions,
        shard_key: shard_key.clone(),
    };
    let bytes = encode(&identity);
    if log_planted::active(planted::IDENTITY_NOT_SYNCED) {
        let written = fs
            .create_new(&path)
            .and_then(|file| file.write_all_at(bytes.as_bytes(), 0));
        written.map_err(QueueError::io("write", &path))?;
        return Ok(identity);
    }
    // IMPORTANT: the name of each directory was settled above, so a queue that has its identity
    // has all of its partitions.
    fs::publish(fs, &path, bytes.as_bytes()).map_err(QueueError::io("publish", &path))?;
    Ok(identity)
}

fn exists(fs: &dyn Fs, path: &Path) -> Result<bool, QueueError> {
    fs.exists(path).map_err(QueueError::io("look for", path))
}

fn check(
    path: &Path,
    stored: &QueueIdentity,
    partitions: u32,
    shard_key: &ShardKey,
) -> Result<(), QueueError> {
    if stored.partitions != partitions {
        return Err(QueueError::PartitionsDiffer {
            path: path.to_path_buf(),
            stored: stored.partitions,
            wanted: partitions,
        });
    }
    if stored.shard_key != *shard_key {
        return Err(QueueError::ShardKeyDiffers {
            path: path.to_path_buf(),
            stored: stored.shard_key.clone(),
            wanted: shard_key.clone(),
        });
    }
    Ok(())
}

fn refuse_records_without_identity(
    fs: &dyn Fs,
    dir: &Path,
    identity: &Path,
) -> Result<(), QueueError> {
    if log_planted::active(planted::IDENTITY_MADE_UP) {
        return Ok(());
    }
    let list = |dir: &Path| fs.list(dir).map_err(QueueError::io("list", dir));
    for entry in list(dir)? {
        let partition = dir.join(&entry.name);
        if entry.is_dir && !list(&partition)?.is_empty() {
            return Err(QueueError::IdentityMissing {
                path: identity.to_path_buf(),
                partition,
            });
        }
    }
    Ok(())
}

/// A start that was interrupted after the identity was published leaves nothing; one before it may
/// leave the temporary file, which the next creation replaces. Both at once come from outside.
fn remove_leftover(fs: &dyn Fs, dir: &Path, identity: &Path) -> Result<(), QueueError> {
    let mut temporary = identity.as_os_str().to_owned();
    temporary.push(TEMPORARY_SUFFIX);
    let temporary = PathBuf::from(temporary);
    if exists(fs, &temporary)? {
        let removed = fs.unlink(&temporary).and_then(|()| fs.sync_dir(dir));
        removed.map_err(QueueError::io("remove", &temporary))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn golden() -> QueueIdentity {
        QueueIdentity {
            id: QueueId(0x0123_4567_89ab_cdef_0011_2233_4455_6677),
            partitions: 4,
            shard_key: ShardKey::default(),
        }
    }

    const GOLDEN: &str = include_str!("../../testdata/identity-v1");

    #[test]
    fn golden_identity_is_reproduced_and_read() {
        assert_eq!(encode(&golden()), GOLDEN);
        let read = decode(Path::new("identity"), GOLDEN.as_bytes()).unwrap();
        assert_eq!(read, golden());
    }

    #[test]
    fn the_format_page_shows_the_golden_identity() {
        let page = include_str!("../../../docs/formats/queue.md");
        assert!(
            page.contains(GOLDEN),
            "docs/formats/queue.md is not the code's"
        );
    }

    #[test]
    fn awkward_label_names_survive() {
        let identity = QueueIdentity {
            shard_key: ShardKey::new(["a\nb\"".to_owned(), "ä]".to_owned(), String::new()]),
            ..golden()
        };
        let text = encode(&identity);
        assert_eq!(text.lines().count(), 5);
        assert_eq!(decode(Path::new("i"), text.as_bytes()).unwrap(), identity);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_refused() {
        let good = encode(&golden()).into_bytes();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(Path::new("i"), &bad).is_err(), "bit {bit}");
        }
        for len in 0..good.len() {
            assert!(decode(Path::new("i"), &good[..len]).is_err(), "{len} bytes");
        }
        let longer = [good.as_slice(), b"\n"].concat();
        assert!(decode(Path::new("i"), &longer).is_err());
    }

    #[test]
    fn another_version_is_named() {
        let mut text = encode(&golden()).replace("version 1", "version 7");
        text.truncate(text.find("crc32c").unwrap());
        let crc = crc32c::crc32c(text.as_bytes());
        text.push_str(&format!("crc32c = {crc:08x}\n"));
        let error = decode(Path::new("i"), text.as_bytes()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "\"i\": identity version 7, this program reads 1"
        );
    }
}
