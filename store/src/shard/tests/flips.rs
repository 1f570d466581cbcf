//! Every bit of a small data directory, flipped: the same answers, or an error that names the damage.

use std::path::Path;

use super::*;

/// In CI every so many bits are flipped (a prime, so that all places in a byte come up);
/// `MILLRACE_FLIP_EVERY=1` flips all.
const EVERY: usize = 13;

const TENANTS: [&str; 1] = ["t"];

/// Blocks, a WAL, two manifests, a dead letter, a delete.
fn directory() -> (SimFs, VecQueue) {
    let fs = SimFs::new();
    let mut queue = VecQueue::default();
    for i in 0..8i64 {
        let row = |series: &str, at| (series.to_owned(), at, 7 * i as u64);
        queue.push_rows("t", vec![row("a", i * 1_000), row("b", i * 3_000)]);
        match i {
            1 => queue.push_payload(b"no batch".as_slice().into(), 1),
            4 => queue.push_delete("t", delete(1, "b", (0, 4_000), i64::MAX)),
            _ => {}
        }
    }
    let mut shard = open(Arc::new(fs.clone()), options()).unwrap();
    shard.apply(&queue.records[..3]).unwrap();
    shard.seal().unwrap();
    shard.apply(&queue.records[3..7]).unwrap();
    shard.seal().unwrap();
    for record in &queue.records[7..] {
        shard.apply(std::slice::from_ref(record)).unwrap();
        shard.sync_wal().unwrap();
    }
    drop(shard);
    fs.kill();
    (fs, queue)
}

/// Opens, feeds and reads. `Ok` if the answers are right.
fn answers(fs: &SimFs, queue: &VecQueue) -> Result<(), String> {
    let text = |error: StoreError| error.to_string();
    let mut shard = open(Arc::new(fs.clone()), options()).map_err(text)?;
    shard.apply(queue.from(shard.applied())).map_err(text)?;
    let got = dump(&shard, &TENANTS).map_err(text)?;
    let letters = shard.dead_letters().read_all().map_err(text)?;
    assert_eq!(got, queue.fold(queue.end()), "other numbers");
    assert_eq!(letters.len(), 1, "a dead letter more or less");
    Ok(())
}

/// Whether the error names the file; of manifests, which go on from one another, any of the shard's.
fn names(error: &str, path: &Path) -> bool {
    let name = path.file_name().unwrap().to_str().unwrap();
    let name = if name.starts_with("manifest-") {
        "manifest-"
    } else {
        name
    };
    error.contains(name)
}

#[test]
fn a_flipped_bit_anywhere_in_a_data_directory_changes_no_number() {
    let every = std::env::var("MILLRACE_FLIP_EVERY").ok();
    let every = every.map_or(EVERY, |text| text.parse().expect("a number of bits"));
    let (fs, queue) = directory();
    answers(&fs.fork(), &queue).unwrap();
    let (mut flips, mut refused, mut at) = (0, 0, 0);
    for (path, bytes) in fs.files() {
        while at < bytes.len() * 8 {
            let damaged = fs.fork();
            let mut bad = bytes.clone();
            bad[at / 8] ^= 1 << (at % 8);
            damaged.damage(&path, &bad).unwrap();
            if let Err(error) = answers(&damaged, &queue) {
                assert!(names(&error, &path), "{path:?}, bit {at}: {error}");
                refused += 1;
            }
            flips += 1;
            at += every;
        }
        at -= bytes.len() * 8;
    }
    println!("store: {flips} flipped bits, {refused} of them refused by name");
    assert!(refused > 0 && refused < flips);
}
