//! The names of all files and directories of a store, built and parsed here and nowhere else.
//!
//! ```text
//! <store>/<partition>/wal/                         segments of the WAL
//! <store>/<partition>/wal.quarantine-<n>/          a damaged WAL, kept for repair
//! <store>/<partition>/dlq/                         dead letters
//! <store>/<partition>/blocks/<sequence>-<n>.block  sealed blocks
//! <store>/<partition>/manifest-<generation>        two generations
//! <store>/<partition>/views/<view>.cover           what of a view is derived
//! <store>/<partition>/views/<view>-<cell>-<generation>.sheet   rows of a view
//! <store>/views.list                               the views
//! ```

use std::fmt;
use std::path::{Path, PathBuf};

use millrace_log::fs::TEMPORARY_SUFFIX;
use millrace_model::PartitionId;
use millrace_views::ViewId;

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
const COVER_SUFFIX: &str = ".cover";
const SHEET_SUFFIX: &str = ".sheet";
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

    pub(crate) fn views(&self) -> PathBuf {
        self.root.join("views")
    }

    pub(crate) fn cover(&self, view: ViewId) -> PathBuf {
        self.views().join(format!("{view}{COVER_SUFFIX}"))
    }

    /// Where a cover goes that cannot be believed.
    pub(crate) fn damaged_cover(&self, view: ViewId) -> PathBuf {
        self.views().join(format!("{view}{COVER_SUFFIX}.damaged"))
    }

    pub(crate) fn sheet(&self, view: ViewId, cell: i64, generation: u64) -> PathBuf {
        // The cell's bits: a name without a sign.
        let cell = cell.cast_unsigned();
        self.views().join(format!(
            "{view}-{cell:016x}-{generation:016x}{SHEET_SUFFIX}"
        ))
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

/// The list of the views, in the directory of a store.
pub(crate) fn view_list(store: &Path) -> PathBuf {
    store.join("views.list")
}

/// The view whose cover a file name stands for.
pub(crate) fn parse_cover(name: &str) -> Option<ViewId> {
    hex(name.strip_suffix(COVER_SUFFIX)?).map(ViewId)
}

/// View, cell and generation of the sheet that a file name stands for.
pub(crate) fn parse_sheet(name: &str) -> Option<(ViewId, i64, u64)> {
    let (view, rest) = name.strip_suffix(SHEET_SUFFIX)?.split_once('-')?;
    let (cell, generation) = rest.split_once('-')?;
    Some((
        ViewId(hex(view)?),
        hex(cell)?.cast_signed(),
        hex(generation)?,
    ))
}

/// Sixteen digits.
fn hex(text: &str) -> Option<u64> {
    (text.len() == 16).then_some(())?;
    u64::from_str_radix(text, 16).ok()
}

/// The generation that a file name stands for.
pub(crate) fn parse_manifest(name: &str) -> Option<u64> {
    hex(name.strip_prefix(MANIFEST_PREFIX)?)
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
        let view = ViewId(0xabc);
        assert_eq!(parse_cover(&name(dir.cover(view))), Some(view));
        assert_eq!(parse_cover(&name(dir.damaged_cover(view))), None);
        let sheet = name(dir.sheet(view, -86_400_000, 3));
        assert_eq!(parse_sheet(&sheet), Some((view, -86_400_000, 3)));
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
