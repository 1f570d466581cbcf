//! The bugs that can be planted into this crate, so that its tests prove that they would notice
//! (see [`millrace_log::planted`]; never active in a product).

use millrace_log::planted::Bug;

/// The WAL frame names the offset behind the record's.
pub(crate) const WAL_OFFSET_TOO_FAR: Bug = Bug("store: WAL frame with an offset one too far");
/// A record at the applied offset itself is taken for redelivered.
pub(crate) const REDELIVERY_OFF_BY_ONE: Bug = Bug("store: record at W dropped as redelivered");
/// A redelivered record is applied again.
pub(crate) const REDELIVERY_APPLIED: Bug = Bug("store: record below W applied again");
/// A seal claims one record more than the memtable holds.
pub(crate) const W_BEFORE_DATA: Bug = Bug("store: W advanced before the data");
/// Replay passes over the first record behind the sealed offset.
pub(crate) const REPLAY_SKIPS_FIRST: Bug = Bug("store: replay skips the first record");
/// A block gets its name, and the manifest lists it, before its bytes are synced.
pub(crate) const BLOCK_UNSYNCED: Bug = Bug("store: block renamed before its sync");
/// The directory of the blocks is not synced before the manifest edit.
pub(crate) const BLOCK_DIR_UNSYNCED: Bug = Bug("store: block directory not synced");
/// The manifest's edit is not synced before it is acted upon.
pub(crate) const EDIT_UNSYNCED: Bug = Bug("store: manifest edit not synced");
/// WAL segments go before the edit that makes them superfluous.
pub(crate) const WAL_REMOVED_EARLY: Bug = Bug("store: WAL removed before the manifest edit");
/// The queue is told to forget what only the memtable holds.
pub(crate) const RELEASE_BEFORE_SEAL: Bug = Bug("store: queue released up to the applied offset");
/// Of two values of one sample the earlier one is sealed.
pub(crate) const SEAL_KEEPS_FIRST: Bug = Bug("store: first value wins at the seal");
/// Blocks that the manifest does not list are left lying about.
pub(crate) const ORPHAN_KEPT: Bug = Bug("store: orphan blocks kept");
/// Of two blocks with one sample the older one is read.
pub(crate) const OLDER_BLOCK_WINS: Bug = Bug("store: older block wins on read");
/// The queue moves past a dead letter that is not durable yet.
pub(crate) const DEAD_LETTER_UNSYNCED: Bug = Bug("store: dead letter not synced");
/// Dead letters are written again when the WAL is replayed.
pub(crate) const DEAD_LETTER_TWICE: Bug = Bug("store: dead letter written again on replay");
/// The late samples of a series are left out of its block.
pub(crate) const SEAL_LOSES_LATE: Bug = Bug("store: late samples lost at the seal");
/// The newest sample is looked for where was written last: late data take the place of newer ones.
pub(crate) const NEWEST_OF_LAST_PLACE: Bug = Bug("store: newest sample of one place alone");
/// A delete hides what was applied after it, too.
pub(crate) const DELETE_HIDES_LATER: Bug = Bug("store: delete hides later samples");
/// A delete hides all samples of its series, whatever its time.
pub(crate) const MASK_IGNORES_RANGE: Bug = Bug("store: delete ignores its time range");
/// A delete does not hide what is in memtables.
pub(crate) const DELETE_MISSES_MEMTABLE: Bug = Bug("store: delete does not mask the memtable");
/// A seal forgets the deletes whose WAL it lets go.
pub(crate) const SEAL_FORGETS_DELETES: Bug = Bug("store: tombstones not in the seal's edit");
/// A delete is revoked in memory only.
pub(crate) const REVOKE_NOT_KEPT: Bug = Bug("store: revoke not in the seal's edit");
/// Of two values of one sample compaction keeps the older one.
pub(crate) const COMPACTION_OLDER_WINS: Bug = Bug("store: older value wins in compaction");
/// Compaction removes its inputs before the manifest says so.
pub(crate) const OBSOLETE_REMOVED_EARLY: Bug =
    Bug("store: inputs removed before the manifest edit");
/// Compaction joins blocks that others in between overlap.
pub(crate) const COMPACTION_INTERLEAVES: Bug = Bug("store: compaction passes over a block between");
/// Compaction joins blocks from before and behind a delete that can still be revoked.
pub(crate) const COMPACTION_JOINS_OVER_DELETE: Bug =
    Bug("store: compaction across a pending delete");
/// What is derived of a view is kept when blocks come that it does not know.
pub(crate) const VIEW_KEEPS_STALE: Bug = Bug("store: late samples not derived again");
/// What is derived of a view is kept when deletes come.
pub(crate) const VIEW_MISSES_DELETE: Bug = Bug("store: views pass over deletes");
/// What is derived of a view is not frozen before its samples expire.
pub(crate) const VIEW_NOT_FROZEN: Bug = Bug("store: views not frozen before retention");
/// What a delete hides is removed while it can still be revoked.
pub(crate) const REMOVED_WHILE_PENDING: Bug =
    Bug("store: deleted samples removed in the undo window");
/// Retention does not write down the time that it believed.
pub(crate) const HIGH_WATER_LOST: Bug = Bug("store: high-water mark of the clock not kept");
/// A bucket before the epoch begins where division that cuts off puts it.
pub(crate) const ROLLUP_BUCKET_TRUNCATES: Bug = Bug("block: bucket by truncating division");
/// A rollup counts staleness markers.
pub(crate) const ROLLUP_COUNTS_STALE: Bug = Bug("block: staleness marker counted in a rollup");
/// A reset between two buckets is lost when they are folded.
pub(crate) const ROLLUP_FORGETS_BOUNDARY: Bug = Bug("block: reset between two buckets forgotten");
/// A chunk refers to timestamps that are only equally many.
pub(crate) const TIMES_OF_ANOTHER: Bug = Bug("block: timestamps of another series referred to");
/// Remembered timestamps are not asked how many they are.
pub(crate) const TIMES_CACHE_BY_PLACE: Bug = Bug("block: remembered timestamps by place alone");
/// The chunk checksum is not looked at.
pub(crate) const CHUNK_UNVERIFIED: Bug = Bug("block: chunk checksum not verified");
/// A value is looked for in one page too few.
pub(crate) const LABEL_PAGE_MISSED: Bug = Bug("block: last label page of a prefix not read");
/// The queue's tools are told of a position that a power cut would undo.
pub(crate) const COMMIT_BEFORE_SYNC: Bug = Bug("store: group offset committed before the sync");
/// A record that was queued again is applied like any other.
pub(crate) const REQUEUED_OVERRIDES: Bug = Bug("store: requeued record overrides");
/// Retention looks at the first sample of a block instead of the last.
pub(crate) const RETENTION_BY_FIRST: Bug = Bug("store: retention by a block's first sample");
/// A backup takes of the WAL what was synced before, not what is applied.
pub(crate) const BACKUP_WAL_UNSYNCED: Bug = Bug("backup: no WAL cut");
/// A backup takes the blocks and not the WAL, and says that it has all.
pub(crate) const BACKUP_WITHOUT_WAL: Bug = Bug("backup: WAL left out");
/// A backup's list is published before what it lists.
pub(crate) const BACKUP_LIST_FIRST: Bug = Bug("backup: list before files");
/// A segment that is still written is linked instead of copied.
pub(crate) const BACKUP_OPEN_SEGMENT_LINKED: Bug = Bug("backup: open segment linked");
/// A restore fills the directory under its own name.
pub(crate) const RESTORE_IN_PLACE: Bug = Bug("restore: in place");
/// A restore does not look at checksums.
pub(crate) const RESTORE_UNCHECKED: Bug = Bug("restore: nothing verified");
/// Retention believes any clock.
pub(crate) const CLOCK_JUMP_BELIEVED: Bug = Bug("store: retention believes a clock that jumped");
