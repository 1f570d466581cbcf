//! Timestamps that several series share.

use millrace_log::planted::with;

use super::*;
use crate::planted::{TIMES_CACHE_BY_PLACE, TIMES_OF_ANOTHER};

/// Some targets with a jitter of their own, of which each has the same metrics.
fn fleet(metrics: i64, targets: i64, samples: i64) -> Model {
    let mut model = Model::new();
    for metric in 0..metrics {
        for target in 0..targets {
            let (name, host) = (format!("m{metric}"), format!("h{target}"));
            let labels = labels(&[("__name__", &name), ("host", &host)]);
            // Series of one target begin together and end apart.
            let count = samples - metric % 2;
            let at = |i: i64| i * 10_000 + (i * i * (target * 31 + 7)) % 97;
            let samples = (0..count).map(|i| (at(i), (metric * 1_000 + i) as u64));
            model.insert((TenantId::anonymous(), labels), samples.collect());
        }
    }
    model
}

const WINDOW: TimeRange = TimeRange {
    start: TimestampMs(0),
    end: TimestampMs(100_000_000),
};

fn answers_right(model: &Model) -> BlockSummary {
    let fs = fs();
    let written = write(&fs, model, WINDOW);
    let block = BlockReader::open(&fs, Path::new(PATH)).unwrap();
    block.verify().unwrap();
    let tenant = TenantId::anonymous();
    for range in [
        TimeRange::ALL,
        TimeRange::new(95_000, 1_234_567),
        TimeRange::new(10_007, 10_050),
    ] {
        for _again_from_memory in 0..2 {
            let got = answer(&block, &tenant, &[], range).unwrap();
            let want = expected(model, &tenant, &[], range, &[300_000]);
            assert!(got == want, "in {range:?}");
        }
    }
    written
}

#[test]
fn timestamps_of_a_target_are_written_once() {
    let one = answers_right(&fleet(2, 9, 700));
    let many = answers_right(&fleet(20, 9, 700));
    let bytes = |s: &BlockSummary| s.section_bytes[Section::Chunks as usize];
    // All values are tiny: what grows is less than a tenth of what it would be with timestamps.
    let added = (bytes(&many) - bytes(&one)) as f64 / (many.samples - one.samples) as f64;
    assert!(added < 0.35, "{added} bytes a sample");
    assert_eq!(many.chunks, 180);
}

#[test]
fn timestamps_are_shared_over_pages_and_chunks() {
    answers_right(&fleet(40, 3, 2_500));
}

#[test]
fn referring_to_equally_long_timestamps_is_killed() {
    let outcome = with(TIMES_OF_ANOTHER, || {
        std::panic::catch_unwind(|| answers_right(&fleet(4, 9, 300)))
    });
    assert!(outcome.is_err(), "the bug survived");
}

/// A reader that has remembered timestamps takes them for a chunk of another length.
#[test]
fn remembering_timestamps_by_place_alone_is_killed() {
    let cache = times::TimesCache::default();
    cache.put(12, vec![0, 10, 20].into());
    assert!(cache.get(12, 2).is_none() && cache.get(13, 3).is_none());
    assert!(cache.get(12, 3).is_some());
    let wrong = with(TIMES_CACHE_BY_PLACE, || cache.get(12, 2).is_some());
    assert!(wrong, "the bug is not planted");
}
