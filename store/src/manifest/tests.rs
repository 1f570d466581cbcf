use std::path::Path;

use millrace_log::fs::sim::SimFs;
use millrace_model::{Delete, Matcher, MetricType, ShardKey, TimeRange, TimestampMs};

use super::*;
use crate::tombstone::TombstoneState;

fn identity() -> QueueIdentity {
    QueueIdentity {
        id: QueueId(7),
        partitions: 4,
        shard_key: ShardKey::default(),
    }
}

fn dir(fs: &dyn Fs) -> ShardDir {
    let dir = ShardDir::new(Path::new("store"), PartitionId(2));
    millrace_log::fs::create_dir_durable(fs, dir.root()).unwrap();
    dir
}

fn open_with(fs: &Arc<dyn Fs>, max: u64) -> Result<Manifest, StoreError> {
    Manifest::open(Arc::clone(fs), dir(&**fs), &identity(), PartitionId(2), max)
}

fn open(fs: &Arc<dyn Fs>) -> Manifest {
    open_with(fs, 1 << 20).unwrap()
}

fn block(sequence: u64) -> BlockEntry {
    BlockEntry {
        id: BlockId {
            sequence,
            ordinal: 0,
        },
        bytes: 4096,
        footer_crc: 0xE306_9283,
        min_time: -1,
        max_time: 1_795_233_600_000,
        offsets: (Offset(sequence * 10), Offset(sequence * 10 + 10)),
        series: 3,
        samples: 12,
        sequences: (sequence, sequence),
        level: 1,
        rewrites: 2,
    }
}

fn edit(sequence: u64) -> Edit {
    Edit {
        sealed: Offset(sequence * 10 + 10),
        sealed_last: Some(Fingerprint(0x1111 * sequence)),
        wal_lsn: sequence * 9,
        next_sequence: sequence + 1,
        removed: Vec::new(),
        added: vec![block(sequence)],
        metadata: vec![(
            "acme".parse().unwrap(),
            MetricMetadata {
                metric: format!("m{sequence}"),
                metric_type: MetricType::Gauge,
                help: "Medium.".into(),
                unit: "celsius".into(),
            },
        )],
        tombstones: vec![tombstone(sequence)],
        forgotten: Vec::new(),
        high_water: 1_795_233_600_000,
    }
}

fn tombstone(sequence: u64) -> Arc<Tombstone> {
    Arc::new(Tombstone {
        tenant: "acme".parse().unwrap(),
        offset: Offset(sequence * 10 + 5),
        before: sequence + 1,
        state: TombstoneState::Final,
        delete: Delete {
            id: DeleteId(u128::from(sequence)),
            requested_at: TimestampMs(1_795_233_600_000),
            undo_until: TimestampMs(1_795_320_000_000),
            range: TimeRange::new(-1, 1_795_233_600_000),
            selectors: vec![vec![Matcher::equal("__name__", "m1")]],
        },
    })
}

fn gap() -> Gap {
    Gap {
        from: (QueueId(7), Offset(30)),
        to: (QueueId(8), Offset(4)),
        at: TimestampMs(1_795_233_600_000),
        cause: GapCause::Operator,
    }
}

fn sim() -> Arc<dyn Fs> {
    Arc::new(SimFs::new())
}

#[test]
fn edits_survive_a_reopen_and_the_epoch_grows() {
    let fs = sim();
    let mut manifest = open(&fs);
    assert_eq!(manifest.state().epoch, 1);
    manifest.commit(edit(1)).unwrap();
    manifest.commit(edit(2)).unwrap();
    let before = manifest.state().clone();
    drop(manifest);
    let mut after = open(&fs).state().clone();
    assert_eq!(after.epoch, 2);
    after.epoch = 1;
    assert_eq!(after, before);
    assert_eq!(after.blocks.len(), 2);
}

#[test]
fn a_gap_moves_to_the_other_queue_and_stays_on_record() {
    let fs = sim();
    let mut manifest = open(&fs);
    manifest.commit(edit(1)).unwrap();
    manifest.commit_gap(gap(), 11).unwrap();
    // Read back from the edit, and then from the snapshot of the next generation.
    for _ in 0..2 {
        drop(manifest);
        manifest = open(&fs);
        let state = manifest.state();
        assert_eq!((state.queue, state.sealed), gap().to);
        assert_eq!((state.sealed_last, &state.gaps[..]), (None, &[gap()][..]));
        assert_eq!((state.blocks.len(), state.wal_lsn), (1, 11));
    }
}

#[test]
fn a_removed_block_is_gone() {
    let fs = sim();
    let mut manifest = open(&fs);
    manifest.commit(edit(1)).unwrap();
    let removed = vec![block(1).id];
    manifest.commit(Edit { removed, ..edit(2) }).unwrap();
    let live: Vec<_> = open(&fs).state().blocks.keys().copied().collect();
    assert_eq!(live, [block(2).id]);
}

#[test]
fn rotation_keeps_two_generations_and_the_state() {
    let fs = sim();
    let mut manifest = open_with(&fs, 300).unwrap();
    for sequence in 1..20 {
        manifest.commit(edit(sequence)).unwrap();
    }
    let found = generations(&*fs, &dir(&*fs)).unwrap();
    assert!(found.len() == 2 && found[1] > 5, "{found:?}");
    assert_eq!(open(&fs).state().blocks.len(), 19);
}

#[test]
fn a_second_opener_fences_the_first() {
    let fs = sim();
    let mut first = open(&fs);
    let _second = open(&fs);
    let error = first.commit(edit(1)).unwrap_err();
    assert!(
        matches!(
            error,
            StoreError::Fenced {
                ours: 1,
                found: 2,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn another_queue_is_refused_with_both_named() {
    let fs = sim();
    drop(open(&fs));
    let other = QueueIdentity {
        partitions: 8,
        ..identity()
    };
    let error =
        Manifest::open(Arc::clone(&fs), dir(&*fs), &other, PartitionId(2), 100).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("of 4") && text.contains("of 8"), "{text}");
}

#[test]
fn blocks_without_a_manifest_are_no_new_shard() {
    let fs = sim();
    let dir = dir(&*fs);
    millrace_log::fs::create_dir_durable(&*fs, &dir.blocks()).unwrap();
    open(&fs);
    millrace_log::fs::publish(&*fs, &dir.block(block(1).id), b"x").unwrap();
    for generation in generations(&*fs, &dir).unwrap() {
        fs.unlink(&dir.manifest(generation)).unwrap();
    }
    let error = open_with(&fs, 100).unwrap_err();
    assert!(
        matches!(error, StoreError::ManifestDamaged { .. }),
        "{error}"
    );
}

/// The bytes of a manifest with three edits, and where the edits begin.
fn three_edits() -> (Vec<u8>, Vec<usize>) {
    let state = ManifestState::fresh(&identity(), PartitionId(2));
    let (mut bytes, mut tail) = codec::encode_file(5, 0, &state);
    let mut starts = Vec::new();
    for sequence in 1..=3 {
        starts.push(bytes.len());
        let (frame, next) = codec::encode_edit(5, &tail, &edit(sequence));
        bytes.extend_from_slice(&frame);
        tail = next;
    }
    (bytes, starts)
}

#[test]
fn every_cut_ends_at_the_edit_before_it() {
    let (bytes, starts) = three_edits();
    let path = Path::new("manifest");
    for cut in 0..bytes.len() {
        let read = codec::decode_file(path, 5, &bytes[..cut]);
        if cut < starts[0] {
            assert!(read.is_err(), "cut at {cut}");
            continue;
        }
        let read = read.unwrap_or_else(|error| panic!("cut at {cut}: {error}"));
        let whole = starts[1..].iter().filter(|&&s| s <= cut).count();
        assert_eq!(read.state.blocks.len(), whole, "cut at {cut}");
    }
}

/// A flipped bit is an error, or it is in the last edit, which is then taken for torn: whether it
/// was is for the WAL to say (`lost_edit_is_found_out_by_the_wal`).
#[test]
fn every_flipped_bit_is_noticed() {
    let (bytes, starts) = three_edits();
    for bit in 0..bytes.len() * 8 {
        let mut bad = bytes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        match codec::decode_file(Path::new("manifest"), 5, &bad) {
            Err(_) => {}
            Ok(read) => {
                assert!(bit / 8 >= starts[2], "bit {bit}");
                assert_eq!(read.state.blocks.len(), 2, "bit {bit}");
                assert_eq!(read.torn_bytes, (bytes.len() - starts[2]) as u64);
            }
        }
    }
}

#[test]
fn a_frame_passes_only_in_its_own_file_and_place() {
    let (bytes, starts) = three_edits();
    let path = Path::new("manifest");
    assert!(codec::decode_file(path, 6, &bytes).is_err());
    let mut swapped = bytes[..starts[0]].to_vec();
    swapped.extend_from_slice(&bytes[starts[1]..starts[2]]);
    assert!(
        codec::decode_file(path, 5, &swapped)
            .unwrap()
            .state
            .blocks
            .is_empty()
    );
}

fn golden() -> Vec<u8> {
    let mut state = ManifestState::fresh(&identity(), PartitionId(2));
    state.epoch = 3;
    state.apply(edit(1));
    let (mut bytes, tail) = codec::encode_file(9, 0x0123_4567_89ab_cdef, &state);
    let last = Edit {
        removed: vec![block(1).id],
        metadata: Vec::new(),
        forgotten: vec![tombstone(1).id()],
        ..edit(2)
    };
    let (frame, tail) = codec::encode_edit(9, &tail, &last);
    bytes.extend_from_slice(&frame);
    bytes.extend_from_slice(&codec::encode_gap(9, &tail, &gap(), 20).0);
    bytes
}

#[test]
fn golden_file_is_reproduced_and_read() {
    let stored = include_bytes!("../../testdata/manifest-v1.bin");
    assert_eq!(
        golden(),
        stored,
        "format changed: raise the version, keep the old file"
    );
    let read = codec::decode_file(Path::new("manifest"), 9, stored).unwrap();
    assert_eq!(read.state.epoch, 3);
    assert_eq!((read.state.queue, read.state.sealed), gap().to);
    assert_eq!(
        read.state.blocks.keys().copied().collect::<Vec<_>>(),
        [block(2).id]
    );
    let left: Vec<_> = read.state.tombstones.values().cloned().collect();
    assert_eq!(left, [tombstone(2)]);
    assert_eq!(read.state.high_water, 1_795_233_600_000);
}

/// The page shows the golden file as a hex dump; so the page cannot drift from the code.
#[test]
fn format_page_shows_the_golden_file() {
    crate::testing::check_page(
        include_str!("../../../docs/formats/manifest.md"),
        include_bytes!("../../testdata/manifest-v1.bin"),
    );
}
