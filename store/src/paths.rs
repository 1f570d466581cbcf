//! The names of all files and directories of a store, built and parsed here and nowhere else.
//!
//! ```text
//! <store>/<partition>/wal/                         segments of the WAL
//! <store>/<partition>/wal.quarantine-<n>/          a damaged WAL, kept for repair
//! <store>/<partition>/dlq/                         dead letters
//! <store>/<partition>/blocks/<sequence>-<n>.block  sealed blocks
//! <store>/<partition>/manifest-<generation>        two generations
//! ```

use std::fmt;
use std::path::{Path, PathBuf};

use millrace_log::fs::TEMPORARY_SUFFIX;
use millrace_model::PartitionId;

/// The name of one block: which seal of the shard wrote it, and which of that seal's blocks it is.
/// Of two blocks with one sample, the one with the higher sequence is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId {
    /// The seal, counted from 1 for each shard.
    pub sequence: u64,
    /// The block among those of the seal, by time.
    pub ordinal: u32,
}

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:04x}", self.sequence, self.ordinal)
    }
}

const BLOCK_SUFFIX: &str = ".block";
const MANIFEST_PREFIX: &str = "manifest-";
const QUARANTINE_PREFIX: &str = "wal.quarantine-";

/// The directory of one shard.
#[derive(Clone, Debug)]
pub(crate) struct ShardDir {
    root: PathBuf,
}

impl ShardDir {
    pub(crate) fn new(store: &Path, partition: PartitionId) -> Self {
        Self {
            root: store.join(partition.to_string()),
        }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn wal(&self) -> PathBuf {
        self.root.join("wal")
    }

    pub(crate) fn quarantine(&self, number: u64) -> PathBuf {
        self.root.join(format!("{QUARANTINE_PREFIX}{number}"))
    }

    pub(crate) fn dead_letters(&self) -> PathBuf {
        self.root.join("dlq")
    }

    pub(crate) fn blocks(&self) -> PathBuf {
        self.root.join("blocks")
    }

    pub(crate) fn block(&self, id: BlockId) -> PathBuf {
        self.blocks().join(format!("{id}{BLOCK_SUFFIX}"))
    }

    pub(crate) fn manifest(&self, generation: u64) -> PathBuf {
        self.root
            .join(format!("{MANIFEST_PREFIX}{generation:016x}"))
    }
}

/// The block that a file name stands for.
pub(crate) fn parse_block(name: &str) -> Option<BlockId> {
    let (sequence, ordinal) = name.strip_suffix(BLOCK_SUFFIX)?.split_once('-')?;
    if sequence.len() != 16 || ordinal.len() < 4 {
        return None;
    }
    Some(BlockId {
        sequence: u64::from_str_radix(sequence, 16).ok()?,
        ordinal: u32::from_str_radix(ordinal, 16).ok()?,
    })
}

/// The generation that a file name stands for.
pub(crate) fn parse_manifest(name: &str) -> Option<u64> {
    let generation = name.strip_prefix(MANIFEST_PREFIX)?;
    (generation.len() == 16).then_some(())?;
    u64::from_str_radix(generation, 16).ok()
}

/// The number in the name of a quarantined WAL.
pub(crate) fn parse_quarantine(name: &str) -> Option<u64> {
    name.strip_prefix(QUARANTINE_PREFIX)?.parse().ok()
}

/// Whether the file is the leftover of an unfinished write.
pub(crate) fn is_temporary(name: &str) -> bool {
    name.ends_with(TEMPORARY_SUFFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed_back() {
        let dir = ShardDir::new(Path::new("s"), PartitionId(3));
        let id = BlockId {
            sequence: 0x1f,
            ordinal: 0x1_0002,
        };
        let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        assert_eq!(name(dir.block(id)), "000000000000001f-10002.block");
        assert_eq!(parse_block(&name(dir.block(id))), Some(id));
        assert_eq!(parse_manifest(&name(dir.manifest(10))), Some(10));
        assert_eq!(parse_quarantine(&name(dir.quarantine(7))), Some(7));
        for foreign in [
            "x.block",
            "1-2.block",
            "manifest-",
            "manifest-1",
            "manifest-0000000000000001.tmp",
        ] {
            assert_eq!(
                (parse_block(foreign), parse_manifest(foreign)),
                (None, None),
                "{foreign}"
            );
        }
        assert!(is_temporary("manifest-0000000000000001.tmp"));
    }
}
