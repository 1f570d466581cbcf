//! Compaction of a shard.

use super::*;
use crate::block::Section;

const HOUR: i64 = 3_600_000;

/// Sections that hold data: all but those that record where and when.
fn content(shard: &Shard) -> Vec<(i64, i64, Vec<Vec<u8>>)> {
    let view = shard.shared.view();
    let blocks = view.blocks.iter().map(|block| {
        let summary = block.reader.summary();
        let fs = &shard.context.fs;
        let path = shard.dir.block(block.entry.id);
        let bytes = millrace_log::fs::read_all(&**fs, &path, 1 << 30).unwrap();
        let mut at = 0;
        let mut sections = Vec::new();
        for (section, len) in Section::ALL.into_iter().zip(summary.section_bytes) {
            let len = usize::try_from(len).unwrap();
            if !matches!(section, Section::Footer | Section::Tail) {
                sections.push(bytes[at..at + len].to_vec());
            }
            at += len;
        }
        assert_eq!(at, bytes.len());
        (block.entry.min_time, block.entry.max_time, sections)
    });
    blocks.collect()
}

/// A day of four series, one value of some samples sent before another.
fn day() -> Vec<(String, i64, u64)> {
    let of = |i: i64| (format!("s{}", i % 4), i * 60_000, (i * 31 % 97) as u64);
    (0..24 * 60).map(of).collect()
}

fn shard_of(samples: &[(String, i64, u64)], per_seal: usize) -> (Shard, VecQueue) {
    let mut queue = VecQueue::default();
    let mut shard = open(sim(), options()).unwrap();
    for part in samples.chunks(per_seal) {
        for rows in part.chunks(50) {
            queue.push_rows("t", rows.to_vec());
        }
        feed(&mut shard, &queue);
        shard.seal().unwrap();
    }
    (shard, queue)
}

/// The buckets of all series, of 5 minutes and of an hour, bit for bit.
fn rollups(shard: &Shard) -> Vec<(String, String)> {
    let all = millrace_model::TimeRange::ALL;
    let mut found = Vec::new();
    for block in &shard.shared.view().blocks {
        for series in block.reader.select(&tenant("t"), &[], all).unwrap() {
            for resolution in [300_000, 3_600_000] {
                let mut buckets = crate::block::RollupColumns::default();
                let reader = &block.reader;
                reader
                    .read_rollup(&series.place, resolution, all, &mut buckets)
                    .unwrap();
                found.push((series.labels.to_string(), format!("{buckets:?}")));
            }
        }
    }
    found.sort();
    found
}

/// Must-show 3 of the store: order of arrival leaves no trace.
#[test]
fn a_shuffled_day_and_the_sorted_day_give_equal_answers_equal_rollups_and_equal_blocks() {
    let sorted = day();
    let mut shuffled = sorted.clone();
    // A fixed shuffle.
    let mut state = 0x2545_f491_4f6c_dd1du64;
    for i in (1..shuffled.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        shuffled.swap(i, (state % (i as u64 + 1)) as usize);
    }
    let (mut a, queue) = shard_of(&sorted, 120);
    let (mut b, _) = shard_of(&shuffled, 333);
    assert_ne!(content(&a), content(&b));
    let answers = |shard: &Shard, start, end| {
        let range = millrace_model::TimeRange::new(start, end);
        dump_range(shard, &["t"], range).unwrap()
    };
    for (start, end) in [(i64::MIN, i64::MAX), (0, HOUR), (5 * HOUR + 1, 17 * HOUR)] {
        assert_eq!(answers(&a, start, end), answers(&b, start, end));
    }
    for shard in [&mut a, &mut b] {
        assert!(upkeep(shard).unwrap() > 0);
        assert_eq!(dump(shard, &["t"]).unwrap(), queue.fold(queue.end()));
    }
    assert_eq!(content(&a).len(), 1, "one block for the day");
    assert_eq!(rollups(&a).len(), 2 * 4);
    assert_eq!(rollups(&a), rollups(&b));
    assert_eq!(content(&a), content(&b));
}

#[test]
fn of_two_values_the_later_one_is_kept_and_files_go() {
    let fs = SimFs::new();
    let mut queue = VecQueue::default();
    let mut shard = open(Arc::new(fs.clone()), options()).unwrap();
    for round in 0..5u64 {
        queue.push_rows(
            "t",
            rows(&[
                ("a", 10, round),
                ("a", 20 + round as i64, 1),
                ("b", -5, 9 - round),
            ]),
        );
        feed(&mut shard, &queue);
        shard.seal().unwrap();
    }
    upkeep(&mut shard).unwrap();
    // The epoch parts two windows.
    assert_eq!(shard.status().blocks, 2);
    assert_eq!(dump(&shard, &["t"]).unwrap(), queue.fold(queue.end()));
    let files = fs.files();
    let blocks = files
        .iter()
        .filter(|(p, _)| p.extension().is_some_and(|e| e == "block"));
    assert_eq!(blocks.count(), 2);
    drop(shard);
    let shard = open(Arc::new(fs), options()).unwrap();
    assert_eq!(dump(&shard, &["t"]).unwrap(), queue.fold(queue.end()));
}

#[test]
fn a_reader_that_holds_blocks_reads_on_and_their_files_stay_until_it_is_gone() {
    let (mut shard, queue) = shard_of(&day()[..300], 100);
    let view = shard.shared.view();
    let mut found = Vec::new();
    let all = millrace_model::TimeRange::ALL;
    view.select(&tenant("t"), &[], all, &mut found).unwrap();
    drop(view);
    let before: Vec<_> = shard.manifest.state().blocks.keys().copied().collect();
    upkeep(&mut shard).unwrap();
    let exists = |shard: &Shard| {
        let there = |id| shard.context.fs.exists(&shard.dir.block(id)).unwrap();
        before.iter().filter(|id| there(**id)).count()
    };
    assert_eq!(exists(&shard), before.len(), "a reader holds them");
    let mut samples = 0;
    for series in &found {
        let (mut timestamps, mut values) = (Vec::new(), Vec::new());
        series.read(&mut timestamps, &mut values).unwrap();
        samples += timestamps.len();
    }
    assert_eq!(samples, queue.fold(queue.end()).len());
    drop(found);
    shard.upkeep().remove_obsolete().unwrap();
    assert_eq!(exists(&shard), 0);
}

#[test]
fn a_seal_during_a_compaction_stays_the_newer_one() {
    let (mut shard, mut queue) = shard_of(&day()[..200], 100);
    let upkeep = shard.upkeep();
    let job = upkeep.next_merge(&upkeep.context.fs, true).unwrap();
    queue.push_rows("t", rows(&[("s0", 0, 777), ("s1", 60_000, 778)]));
    feed(&mut shard, &queue);
    shard.seal().unwrap();
    shard
        .commit_change(job.run().unwrap().into_change())
        .unwrap();
    assert_eq!(dump(&shard, &["t"]).unwrap(), queue.fold(queue.end()));
    drop(job);
    super::upkeep(&mut shard).unwrap();
    assert_eq!(dump(&shard, &["t"]).unwrap(), queue.fold(queue.end()));
}

#[test]
fn a_merge_that_fails_leaves_the_shard_as_it_was() {
    let (shard, queue) = shard_of(&day()[..200], 100);
    let view = shard.shared.view();
    let victim = shard.dir.block(view.blocks[0].entry.id);
    let file = shard.context.fs.open_rw(&victim).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 40).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 40).unwrap();
    let upkeep = shard.upkeep();
    let job = upkeep.next_merge(&upkeep.context.fs, true).unwrap();
    let error = job.run().unwrap_err().to_string();
    assert!(
        error.contains(victim.file_name().unwrap().to_str().unwrap()),
        "{error}"
    );
    job.discard();
    file.write_all_at(&byte, 40).unwrap();
    assert_eq!(dump(&shard, &["t"]).unwrap(), queue.fold(queue.end()));
    let listed = shard.context.fs.list(&shard.dir.blocks()).unwrap();
    assert_eq!(listed.len(), view.blocks.len(), "{listed:?}");
}

#[test]
fn samples_far_apart_are_cut_into_windows() {
    let mut queue = VecQueue::default();
    let mut shard = open(sim(), options()).unwrap();
    for round in 0..3u64 {
        queue.push_rows(
            "t",
            rows(&[
                ("a", i64::MIN, round),
                ("a", 0, round),
                ("b", i64::MAX, 3),
                ("a", 30 * HOUR, 1),
            ]),
        );
        feed(&mut shard, &queue);
        shard.seal().unwrap();
    }
    upkeep(&mut shard).unwrap();
    assert_eq!(dump(&shard, &["t"]).unwrap(), queue.fold(queue.end()));
}
