//! Rollups in blocks: those of the samples, with and without them.

use std::io;
use std::sync::Arc;

use millrace_log::fs::read_all;
use millrace_log::planted::{Bug, with};
use parking_lot::Mutex;

use super::*;
use crate::planted::{
    CHUNK_UNVERIFIED, LABEL_PAGE_MISSED, ROLLUP_BUCKET_TRUNCATES, ROLLUP_COUNTS_STALE,
    ROLLUP_FORGETS_BOUNDARY,
};

/// A counter with resets, a gauge, a constant, one that goes stale, one that begins late; from
/// before the epoch on.
fn model() -> Model {
    let value = |kind: i64, i: i64| match kind {
        0 => (i % 150 * 7) as f64,
        1 => ((i * i) % 101) as f64 / 10.0,
        2 => 4.0,
        _ if i % 50 == 49 => millrace_model::stale_nan(),
        _ => i as f64 / 8.0,
    };
    let mut model = Model::new();
    for kind in 0..80 {
        let name = format!("m{kind:02}");
        let labels = labels(&[("__name__", &name)]);
        let from = if kind % 5 == 4 { 200 } else { 0 };
        let samples =
            (from..400).map(|i| (i * 15_000 - 3_000_000 + i % 3, value(kind % 5, i).to_bits()));
        model.insert((TenantId::anonymous(), labels), samples.collect());
    }
    model
}

const WINDOW: TimeRange = TimeRange {
    start: TimestampMs(-3_600_000),
    end: TimestampMs(7_199_999),
};

fn all_rollups(block: &BlockReader, resolution: i64) -> Vec<(Labels, String)> {
    let all = block.iter().map(|found| {
        let (_, series) = found.unwrap();
        let mut columns = RollupColumns::default();
        block
            .read_rollup(&series.place, resolution, TimeRange::ALL, &mut columns)
            .unwrap();
        (series.labels, tell(&columns))
    });
    all.collect()
}

fn options(resolutions: &[i64], without_samples: bool) -> BlockOptions {
    BlockOptions {
        resolutions: resolutions.to_vec(),
        without_samples,
    }
}

#[test]
fn without_samples_the_rollups_stay_as_they_were() {
    let (with, without) = (fs(), fs());
    let full = write(&with, &model(), WINDOW);
    let bare = write_with(
        &without,
        &model(),
        WINDOW,
        &options(&[300_000, 3_600_000], true),
    );
    assert!(bare.without_samples && !full.without_samples);
    assert_eq!(
        (bare.samples, bare.series, bare.chunks),
        (full.samples, 80, 0)
    );
    assert_eq!(bare.samples_range, full.samples_range);
    assert!(bare.bytes < full.bytes, "{} of {}", bare.bytes, full.bytes);
    let full = BlockReader::open(&with, Path::new(PATH)).unwrap();
    let bare = BlockReader::open(&without, Path::new(PATH)).unwrap();
    bare.verify().unwrap();
    for resolution in [300_000, 600_000, 3_600_000, 86_400_000] {
        assert_eq!(
            all_rollups(&bare, resolution),
            all_rollups(&full, resolution)
        );
    }
    for series in &bare {
        let place = series.unwrap().1.place;
        let (mut timestamps, mut values) = (Vec::new(), Vec::new());
        bare.read(&place, TimeRange::ALL, &mut timestamps, &mut values)
            .unwrap();
        assert!(timestamps.is_empty() && place.samples() > 0);
    }
    // Series are found by time as before.
    let tenant = TenantId::anonymous();
    let early = TimeRange::new(-3_000_000, -2_000_000);
    assert_eq!(bare.select(&tenant, &[], early).unwrap().len(), 64);
}

/// Fine rollups go, coarse ones stay, and say what they said.
#[test]
fn a_fine_resolution_can_be_dropped() {
    let (from, to) = (fs(), fs());
    write_with(
        &from,
        &model(),
        WINDOW,
        &options(&[300_000, 3_600_000], true),
    );
    let fine = BlockReader::open(&from, Path::new(PATH)).unwrap();
    let mut writer = BlockWriter::with_options(&to, Path::new(PATH), &options(&[3_600_000], true));
    assert_eq!(writer.resolutions(), [3_600_000]);
    for series in &fine {
        let (tenant, series) = series.unwrap();
        let mut columns = RollupColumns::default();
        fine.read_rollup(&series.place, 3_600_000, TimeRange::ALL, &mut columns)
            .unwrap();
        let (range, samples) = (series.place.range(), series.place.samples());
        writer
            .push_rollups(&tenant, &series.labels, range, samples, &[columns])
            .unwrap();
    }
    writer.finish(meta(WINDOW)).unwrap();
    let coarse = BlockReader::open(&to, Path::new(PATH)).unwrap();
    coarse.verify().unwrap();
    assert_eq!(
        all_rollups(&coarse, 3_600_000),
        all_rollups(&fine, 3_600_000)
    );
    assert!(!coarse.has_rollup(300_000) && coarse.has_rollup(7_200_000));
    let place = coarse.iter().next().unwrap().unwrap().1.place;
    let error = coarse
        .read_rollup(
            &place,
            300_000,
            TimeRange::ALL,
            &mut RollupColumns::default(),
        )
        .unwrap_err();
    assert!(
        !error.is_damage() && error.to_string().contains("300000"),
        "{error}"
    );
}

#[test]
fn a_block_may_have_no_rollups() {
    let fs = fs();
    let written = write_with(&fs, &model(), WINDOW, &options(&[], false));
    assert_eq!(written.section_bytes[Section::Rollups as usize], 0);
    let block = BlockReader::open(&fs, Path::new(PATH)).unwrap();
    assert_eq!(block.verify().unwrap().series, 80);
}

/// Bytes that are handed out by ranges, and what was asked for.
#[derive(Debug)]
struct Counted {
    bytes: Vec<u8>,
    read: Arc<Mutex<Vec<(u64, usize)>>>,
}

impl ReadRanges for Counted {
    fn total_bytes(&self) -> io::Result<u64> {
        Ok(self.bytes.len() as u64)
    }

    fn read_range(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.read.lock().push((offset, buffer.len()));
        let at = offset as usize;
        let bytes = self.bytes.get(at..at + buffer.len());
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

#[test]
fn rollups_are_read_by_ranges_without_the_samples() {
    let fs = fs();
    write(&fs, &model(), WINDOW);
    let bytes = read_all(&fs, Path::new(PATH), 1 << 20).unwrap();
    let read = Arc::default();
    let source = Counted {
        bytes,
        read: Arc::clone(&read),
    };
    let block = BlockReader::open_ranges(Box::new(source), Path::new("object")).unwrap();
    let rollups = all_rollups(&block, 300_000);
    assert_eq!(rollups.len(), 80);
    let mut samples = 0;
    for series in &block {
        for chunk in &series.unwrap().1.place.chunks {
            let own = chunk.offset..chunk.offset + u64::from(chunk.bytes);
            let touched = read.lock().iter().any(|r| own.contains(&r.0));
            assert!(!touched, "a chunk was read for its rollups");
            samples += chunk.samples;
        }
    }
    assert!(samples > 20_000);
}

/// The answers of a block that was written with a bug, or read with it, differ from the right
/// ones, or verification fails.
fn killed(bug: Bug) {
    let outcome = with(bug, || {
        std::panic::catch_unwind(|| {
            let fs = fs();
            write(&fs, &model(), WINDOW);
            let block = BlockReader::open(&fs, Path::new(PATH)).unwrap();
            let tenant = TenantId::anonymous();
            (answer(&block, &tenant, &[], TimeRange::ALL).unwrap(), fs)
        })
    });
    let Ok((got, fs)) = outcome else {
        return;
    };
    let block = BlockReader::open(&fs, Path::new(PATH)).unwrap();
    let tenant = TenantId::anonymous();
    let right = got == expected(&model(), &tenant, &[], TimeRange::ALL, &[300_000]);
    assert!(!right || block.verify().is_err(), "{bug:?} survived");
}

#[test]
fn buckets_by_truncating_division_are_killed() {
    killed(ROLLUP_BUCKET_TRUNCATES);
}

#[test]
fn counting_staleness_markers_is_killed() {
    killed(ROLLUP_COUNTS_STALE);
}

#[test]
fn forgetting_a_reset_between_buckets_is_killed() {
    killed(ROLLUP_FORGETS_BOUNDARY);
}

#[test]
fn not_verifying_a_chunk_is_killed() {
    let fs = fs();
    write(&fs, &model(), WINDOW);
    let mut bytes = read_all(&fs, Path::new(PATH), 1 << 20).unwrap();
    // In the packed values of the second series: any bits decode.
    let block = BlockReader::open(&fs, Path::new(PATH)).unwrap();
    let chunk = block.iter().nth(1).unwrap().unwrap().1.place.chunks[0];
    bytes[(chunk.offset + u64::from(chunk.bytes) / 2) as usize] ^= 1;
    let ask = || {
        let source = Counted {
            bytes: bytes.clone(),
            read: Arc::default(),
        };
        let block = BlockReader::open_ranges(Box::new(source), Path::new(PATH)).unwrap();
        answer(&block, &TenantId::anonymous(), &[], TimeRange::ALL)
    };
    assert!(ask().unwrap_err().is_damage());
    let found = with(CHUNK_UNVERIFIED, ask);
    assert!(!found.is_err_and(|e| matches!(e, BlockError::Checksum { .. })));
}

#[test]
fn missing_a_label_page_is_killed() {
    let mut model = Model::new();
    for host in 0..2_000 {
        let host = format!("host-with-a-long-name-{host:04}");
        let labels = labels(&[("__name__", "m"), ("host", &host)]);
        model.insert((TenantId::anonymous(), labels), BTreeMap::from([(1, 1)]));
    }
    let fs = fs();
    write(&fs, &model, TimeRange::new(0, 10));
    let block = BlockReader::open(&fs, Path::new(PATH)).unwrap();
    let pattern = Matcher::new("host", millrace_model::MatchOp::Regex, "host-with.*").unwrap();
    let ask = || {
        let found = block.select(
            &TenantId::anonymous(),
            std::slice::from_ref(&pattern),
            TimeRange::ALL,
        );
        found.unwrap().len()
    };
    assert_eq!(ask(), 2_000);
    assert!(with(LABEL_PAGE_MISSED, ask) < 2_000);
}
