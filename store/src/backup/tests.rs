//! Backups of one shard on the simulated file system, their list, and their damages.

use std::sync::Arc;

use millrace_log::fs::publish;
use millrace_log::fs::sim::SimFs;
use millrace_log::planted::{Bug, with};
use millrace_model::Clock;

use super::*;
use crate::planted::*;
use crate::shard::Shard;
use crate::testing::*;

const BACKUP: &str = "backups/one";
const TENANTS: [&str; 2] = ["one", "two"];

/// A snapshot of one shard, as of a store with one partition.
pub(crate) fn snapshot(shard: &mut Shard, with_wal: bool) -> Result<StoreSnapshot, StoreError> {
    Ok(StoreSnapshot {
        identity: identity(),
        shards: vec![shard.snapshot(with_wal)?],
    })
}

/// Saves a shard in `dir`.
pub(crate) fn save(fs: &dyn Fs, shard: &mut Shard, dir: &Path) -> Result<Backup, StoreError> {
    let snapshot = snapshot(shard, true)?;
    let at = TimestampMs(1_795_233_600_000);
    write(fs, &store_dir(), dir, &snapshot, None, at, &mut |_| ())
}

/// The shard in a restored directory.
pub(crate) fn open_restored(fs: &SimFs, dir: &Path) -> Result<Shard, StoreError> {
    let context = context(Arc::new(fs.clone()), options());
    Shard::open(context, &dir.join("store"), PartitionId(0))
}

/// A shard with blocks, a WAL and a dead letter.
fn shard(fs: &SimFs) -> (Shard, VecQueue) {
    let mut queue = VecQueue::default();
    for i in 0..30i64 {
        let row = |series: &str, at| (series.to_owned(), at, i as u64);
        let rows = vec![row("a", i * 1_000), row("b", (i * 7) % 5 * 1_000)];
        queue.push_rows(TENANTS[(i % 3 == 0) as usize], rows);
        if i == 7 {
            queue.push_payload(b"no batch".as_slice().into(), 2);
        }
    }
    let mut shard = open(Arc::new(fs.clone()), options()).unwrap();
    shard.apply(&queue.records[..10]).unwrap();
    shard.seal().unwrap();
    shard.apply(&queue.records[10..16]).unwrap();
    shard.seal().unwrap();
    shard.apply(&queue.records[16..25]).unwrap();
    (shard, queue)
}

#[test]
fn a_restored_shard_stands_where_the_backup_was_taken_and_goes_on_from_there() {
    let fs = SimFs::new();
    let (mut shard, queue) = shard(&fs);
    let saved = save(&fs, &mut shard, BACKUP.as_ref()).unwrap();
    // The store goes on, seals, merges and forgets files that the backup has.
    shard.apply(queue.from(shard.applied())).unwrap();
    shard.seal().unwrap();
    upkeep(&mut shard).unwrap();
    restore(&fs, BACKUP.as_ref(), "new/data".as_ref(), &mut |_| ()).unwrap();
    let mut restored = open_restored(&fs, "new/data".as_ref()).unwrap();
    let at = saved.shards[0].applied;
    assert_eq!(restored.applied(), at);
    assert_eq!(at, queue.records[25].offset);
    assert_eq!(dump(&restored, &TENANTS).unwrap(), queue.fold(at));
    assert_eq!(restored.dead_letters().len(), 1);
    restored.apply(queue.from(restored.applied())).unwrap();
    assert_eq!(dump(&restored, &TENANTS).unwrap(), queue.fold(queue.end()));
}

#[test]
fn without_the_wal_a_backup_stands_where_the_shard_is_sealed() {
    let fs = SimFs::new();
    let (mut shard, queue) = shard(&fs);
    let taken = snapshot(&mut shard, false).unwrap();
    let at = TimestampMs(1);
    let dir = Path::new(BACKUP);
    write(&fs, &store_dir(), dir, &taken, None, at, &mut |_| ()).unwrap();
    restore(&fs, dir, "data".as_ref(), &mut |_| ()).unwrap();
    let restored = open_restored(&fs, "data".as_ref()).unwrap();
    assert_eq!(restored.applied(), shard.sealed());
    assert_eq!(
        dump(&restored, &TENANTS).unwrap(),
        queue.fold(shard.sealed())
    );
}

#[test]
fn blocks_and_closed_segments_are_links_and_what_is_written_is_a_copy() {
    let fs = SimFs::new();
    let (mut shard, _) = shard(&fs);
    fs.record();
    save(&fs, &mut shard, BACKUP.as_ref()).unwrap();
    use millrace_log::fs::sim::Op;
    let trace = fs.trace();
    let linked = |suffix: &str| {
        let links = trace.iter().filter(|e| matches!(e.what, Op::Link(_)));
        links
            .filter(|e| e.path.to_str().unwrap().ends_with(suffix))
            .count()
    };
    assert_eq!(linked(".block"), 2);
    let newest = shard.hold_wal().unwrap().pop().unwrap();
    assert!(!newest.closed);
    assert_eq!(linked(newest.path.to_str().unwrap()), 0);
}

#[test]
fn a_backup_verifies_itself_by_a_restore() {
    let fs = SimFs::new();
    let (mut shard, _) = shard(&fs);
    save(&fs, &mut shard, BACKUP.as_ref()).unwrap();
    let context = context(Arc::new(fs.clone()), options());
    let clock: Arc<dyn Clock> = Arc::clone(&context.clock);
    let (_, found) = verify(
        &context.fs,
        clock,
        BACKUP.as_ref(),
        "scratch".as_ref(),
        options(),
        &mut |_| (),
    )
    .unwrap();
    assert_eq!(found, []);
    assert!(!fs.exists("scratch".as_ref()).unwrap());
}

#[test]
fn a_directory_with_something_in_it_is_refused() {
    let fs = SimFs::new();
    let (mut shard, _) = shard(&fs);
    let not_empty = |result: Result<Backup, StoreError>| match result.unwrap_err() {
        StoreError::Backup { problem, .. } => assert_eq!(problem, BackupProblem::NotEmpty),
        other => panic!("{other}"),
    };
    not_empty(save(&fs, &mut shard, &store_dir()));
    save(&fs, &mut shard, BACKUP.as_ref()).unwrap();
    not_empty(save(&fs, &mut shard, BACKUP.as_ref()));
    not_empty(restore(&fs, BACKUP.as_ref(), &store_dir(), &mut |_| ()));
}

/// Everything of `fs` below `dir` with one file changed.
fn damaged(fs: &SimFs, path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> SimFs {
    let copy = fs.fork();
    let mut bytes = read_all(&copy, path, 1 << 20).unwrap();
    change(&mut bytes);
    copy.damage(path, &bytes).unwrap();
    copy
}

fn check_every_flip(step: usize) -> Result<(), String> {
    let fs = SimFs::new();
    let (mut shard, _) = shard(&fs);
    let saved = save(&fs, &mut shard, BACKUP.as_ref()).unwrap();
    let list = Path::new(BACKUP).join(LIST_FILE);
    let files = saved
        .files
        .iter()
        .map(|f| saved_path(BACKUP.as_ref(), &f.name));
    let mut bit = 0;
    for path in files.chain([list]) {
        let len = read_all(&fs, &path, 1 << 20).unwrap().len();
        while bit < len * 8 {
            let bad = damaged(&fs, &path, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
            let text = path.to_str().unwrap();
            match restore(&bad, BACKUP.as_ref(), "data".as_ref(), &mut |_| ()) {
                Ok(_) => return Err(format!("{text}, bit {bit}: restored")),
                // A list that says another version says so, and is named by that.
                Err(error) if !error.to_string().contains(text) => {
                    return Err(format!("{text}, bit {bit}: {error}"));
                }
                Err(_) => {}
            }
            if bad.exists("data/store".as_ref()).unwrap() {
                return Err(format!("{text}, bit {bit}: a data directory is left"));
            }
            bit += step;
        }
        bit -= len * 8;
    }
    Ok(())
}

#[test]
fn a_flipped_bit_anywhere_in_a_backup_is_named_and_nothing_is_restored() {
    // A prime, so that all places in a byte come up; the list and small files lose none.
    check_every_flip(11).unwrap();
}

#[test]
fn an_unchecked_restore_is_killed() {
    with(RESTORE_UNCHECKED, || check_every_flip(101)).unwrap_err();
}

#[test]
fn a_missing_a_cut_and_a_foreign_file_are_found() {
    let fs = SimFs::new();
    let (mut shard, _) = shard(&fs);
    let saved = save(&fs, &mut shard, BACKUP.as_ref()).unwrap();
    for file in &saved.files {
        let path = saved_path(BACKUP.as_ref(), &file.name);
        let cut = damaged(&fs, &path, |bytes| bytes.truncate(bytes.len() - 1));
        let found = check(&cut, BACKUP.as_ref(), &mut |_| ()).unwrap().damages;
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].path, path);
        let gone = fs.fork();
        gone.unlink(&path).unwrap();
        let found = check(&gone, BACKUP.as_ref(), &mut |_| ()).unwrap().damages;
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].what, BackupProblem::Missing.to_string());
    }
    let stranger = saved_path(BACKUP.as_ref(), "store/0/x");
    publish(&fs, &stranger, b"?").unwrap();
    let checked = check(&fs, BACKUP.as_ref(), &mut |_| ()).unwrap();
    assert_eq!(checked.damages, []);
    assert_eq!(checked.strangers.len(), 1);
}

/// What the first test finds with a bug planted.
fn is_killed(bug: Bug) {
    let test = a_restored_shard_stands_where_the_backup_was_taken_and_goes_on_from_there;
    let outcome = with(bug, || std::panic::catch_unwind(test));
    assert!(outcome.is_err(), "{bug:?} survived");
}

#[test]
fn a_backup_without_wal_cut_is_killed() {
    is_killed(BACKUP_WAL_UNSYNCED);
}

#[test]
fn a_backup_without_wal_is_killed() {
    is_killed(BACKUP_WITHOUT_WAL);
}

/// The backup that `docs/formats/backup.md` shows.
fn golden() -> Backup {
    let file = |name: &str, bytes, checksum| SavedFile {
        name: name.to_owned(),
        bytes,
        checksum,
    };
    Backup {
        id: 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef,
        taken_at: TimestampMs(1_795_233_600_000),
        queue: QueueId(7),
        partitions: 4,
        shards: vec![SavedShard {
            partition: PartitionId(2),
            queue: QueueId(7),
            applied: Offset(44),
            sealed: Offset(41),
            blocks: 1,
            samples: 12,
            wal_records: 3,
        }],
        records: vec![(PartitionId(2), Offset(20)..Offset(46))],
        files: vec![
            file(
                "queue/2/00000000000000000020.log",
                2_048,
                SavedChecksum::Content(0x0bad_f00d),
            ),
            file(
                "store/2/blocks/0000000000000001-0000.block",
                4_096,
                SavedChecksum::Footer(0xe306_9283),
            ),
        ],
    }
}

const GOLDEN: &[u8] = include_bytes!("../../testdata/backup-v1.txt");

#[test]
fn the_golden_list_is_written_and_read() {
    let text = String::from_utf8(codec::encode(&golden())).unwrap();
    assert_eq!(text.as_bytes(), GOLDEN, "format changed: {text}");
    assert_eq!(codec::decode(GOLDEN), Ok(golden()));
    let page = include_str!("../../../docs/formats/backup.md");
    assert!(page.contains(&text), "the page lacks the golden list");
}

#[test]
fn no_other_bytes_pass_for_the_golden_list() {
    for bit in 0..GOLDEN.len() * 8 {
        let mut bytes = GOLDEN.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(codec::decode(&bytes).is_err(), "bit {bit}");
    }
    for len in 0..GOLDEN.len() {
        assert!(codec::decode(&GOLDEN[..len]).is_err(), "{len} bytes");
    }
    let outside = |name: &str| {
        let mut backup = golden();
        backup.files[0].name = name.to_owned();
        codec::decode(&codec::encode(&backup))
    };
    for name in ["../x", "/x", "a//b", "a/./b", "a/..", ""] {
        assert!(outside(name).is_err(), "{name:?}");
    }
}
