//! Damage by place: what the open makes of it.

use std::path::PathBuf;

use super::*;

/// A shard with a block and a WAL behind it, on a disk of its own.
fn sealed_shard() -> (SimFs, VecQueue) {
    let fs = SimFs::new();
    let mut queue = VecQueue::default();
    for i in 0..6 {
        queue.push_rows("t", rows(&[("a", i * 1_000, i as u64)]));
    }
    let mut shard = open(Arc::new(fs.clone()), options()).unwrap();
    shard.apply(&queue.records[..2]).unwrap();
    shard.seal().unwrap();
    shard.apply(&queue.records[2..4]).unwrap();
    shard.seal().unwrap();
    // The second record's frame says that the first was synced.
    for record in &queue.records[4..] {
        shard.apply(std::slice::from_ref(record)).unwrap();
        shard.sync_wal().unwrap();
    }
    drop(shard);
    fs.kill();
    (fs, queue)
}

fn file(fs: &SimFs, wanted: impl Fn(&str) -> bool) -> (PathBuf, Vec<u8>) {
    let mut files = fs.files();
    files.retain(|(path, _)| wanted(path.to_str().unwrap()));
    files.pop().expect("a file of that kind")
}

fn reopen(fs: &SimFs) -> Result<Shard, StoreError> {
    open(Arc::new(fs.clone()), options())
}

#[test]
fn a_missing_block_is_named() {
    let (fs, _) = sealed_shard();
    let (path, _) = file(&fs, |p| p.ends_with(".block"));
    Fs::unlink(&fs, &path).unwrap();
    let error = reopen(&fs).unwrap_err().to_string();
    assert!(
        error.contains(path.file_name().unwrap().to_str().unwrap()),
        "{error}"
    );
}

#[test]
fn a_block_cut_short_is_named() {
    let (fs, _) = sealed_shard();
    let (path, bytes) = file(&fs, |p| p.ends_with(".block"));
    fs.damage(&path, &bytes[..bytes.len() / 2]).unwrap();
    let error = reopen(&fs).unwrap_err().to_string();
    assert!(
        error.contains(path.file_name().unwrap().to_str().unwrap()),
        "{error}"
    );
}

#[test]
fn a_damaged_wal_is_put_aside_and_read_again_from_the_queue() {
    let (fs, queue) = sealed_shard();
    let (path, mut bytes) = file(&fs, |p| p.contains("/wal/"));
    // In the first of two records: below a synced mark, so this is damage and no torn tail.
    bytes[150] ^= 1;
    fs.damage(&path, &bytes).unwrap();
    let mut shard = reopen(&fs).unwrap();
    assert_eq!(shard.applied(), Offset(4), "the sealed part");
    feed(&mut shard, &queue);
    assert_eq!(dump(&shard, &["t"]).unwrap(), queue.fold(queue.end()));
    let aside = fs
        .files()
        .iter()
        .any(|(p, _)| p.to_str().unwrap().contains("wal.quarantine-0"));
    assert!(aside, "{:?}", fs.files());
}

#[test]
fn a_lost_wal_is_read_again_from_the_queue() {
    let (fs, queue) = sealed_shard();
    for (path, _) in fs.files() {
        if path.to_str().unwrap().contains("/wal/") {
            Fs::unlink(&fs, &path).unwrap();
        }
    }
    let mut shard = reopen(&fs).unwrap();
    assert_eq!(shard.applied(), Offset(4));
    feed(&mut shard, &queue);
    shard.seal().unwrap();
    assert_eq!(dump(&shard, &["t"]).unwrap(), queue.fold(queue.end()));
}

/// The last edit of the manifest fails its checksum, which looks like a torn tail; but the WAL was
/// trimmed for it.
#[test]
fn a_lost_edit_is_found_out_by_the_wal() {
    let (fs, _) = sealed_shard();
    let (path, bytes) = file(&fs, |p| p.contains("/manifest-"));
    fs.damage(&path, &bytes[..bytes.len() - 1]).unwrap();
    let before = fs.files();
    let error = reopen(&fs).unwrap_err();
    assert!(
        matches!(error, StoreError::ManifestBehindWal { .. }),
        "{error}"
    );
    // Nothing was removed: the blocks of the lost edit above all.
    for (path, _) in before {
        assert!(Fs::exists(&fs, &path).unwrap(), "{path:?} is gone");
    }
}

#[test]
fn a_lost_edit_whose_wal_is_there_is_made_good() {
    let fs = SimFs::new();
    let mut queue = VecQueue::default();
    queue.push_rows("t", rows(&[("a", 1, 1)]));
    let mut shard = open(Arc::new(fs.clone()), options()).unwrap();
    feed(&mut shard, &queue);
    shard.sync_wal().unwrap();
    let wal = file(&fs, |p| p.contains("/wal/"));
    shard.seal().unwrap();
    drop(shard);
    fs.kill();
    // As if the machine had stopped between the edit and the removal.
    for (path, _) in fs.files() {
        if path.to_str().unwrap().contains("/wal/") {
            Fs::unlink(&fs, &path).unwrap();
        }
    }
    fs.damage(&wal.0, &wal.1).unwrap();
    let (path, bytes) = file(&fs, |p| p.contains("/manifest-"));
    fs.damage(&path, &bytes[..bytes.len() - 1]).unwrap();
    let shard = reopen(&fs).unwrap();
    assert_eq!(shard.sealed(), Offset::ZERO);
    assert_eq!(dump(&shard, &["t"]).unwrap(), queue.fold(queue.end()));
}

#[test]
fn a_damaged_snapshot_of_the_manifest_stops_the_open() {
    let (fs, _) = sealed_shard();
    let (path, mut bytes) = file(&fs, |p| p.contains("/manifest-"));
    bytes[70] ^= 4;
    fs.damage(&path, &bytes).unwrap();
    let error = reopen(&fs).unwrap_err();
    assert!(
        matches!(error, StoreError::ManifestDamaged { .. }),
        "{error}"
    );
}

#[test]
fn replay_stays_within_the_memory_of_operation() {
    let fs = SimFs::new();
    let mut queue = VecQueue::default();
    for i in 0..2_000i64 {
        let name = format!("s{}", i % 50);
        queue.push_rows(
            "t",
            vec![(
                name,
                i * 1_000,
                (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15),
            )],
        );
    }
    let mut shard = open(Arc::new(fs.clone()), options()).unwrap();
    feed(&mut shard, &queue);
    shard.sync_wal().unwrap();
    let whole = shard.status().memtable_bytes;
    drop(shard);
    let tight = StoreOptions {
        memtable_bytes: whole / 2,
        ..options()
    };
    let shard = open(Arc::new(fs.clone()), tight).unwrap();
    let status = shard.status();
    assert!(
        status.memtable_bytes <= whole / 4 + 2_048,
        "{status:?} of {whole}"
    );
    assert!(status.blocks >= 3, "{status:?}");
    assert_eq!(shard.applied(), queue.end());
    assert_eq!(dump(&shard, &["t"]).unwrap(), queue.fold(queue.end()));
}
