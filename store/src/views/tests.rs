//! The golden files of the formats, and the page that shows them.

use std::collections::BTreeMap;

use millrace_model::{DeleteId, Labels, Matcher, TenantId};
use millrace_views::{
    Aggregate, Comparison, Grouping, Origin, Partial, Parts, Span, Spans, ValueFilter,
    ViewDefinition, ViewId, runs,
};

use super::cover::{self, Cover, Segment, SheetEntry};
use super::list;
use super::sheet::{self, Rows, SheetOf};

fn definition() -> ViewDefinition {
    ViewDefinition {
        tenant: "acme".parse::<TenantId>().unwrap(),
        name: "load".to_owned(),
        selector: "load{job=\"node\"}".to_owned(),
        matchers: vec![
            Matcher::equal("__name__", "load"),
            Matcher::equal("job", "node"),
        ],
        grouping: Grouping::By(vec!["dc".to_owned()]),
        width_ms: 60_000,
        aggregates: vec![Aggregate::Sum, Aggregate::Quantile, Aggregate::Distinct],
        quantiles: vec![0.5, 0.99],
        distinct: Some("host".to_owned()),
        filter: Some(ValueFilter {
            comparison: Comparison::GreaterOrEqual,
            value: 0.25,
        }),
        retention_ms: Some(86_400_000),
        origin: Origin::Api,
    }
}

fn golden_list() -> Vec<u8> {
    list::encode(&[std::sync::Arc::new(definition())])
}

fn golden_cover() -> Vec<u8> {
    let segment = |span, frozen, deletes: &[u128]| Segment {
        span,
        sequence: 7,
        deletes: deletes.iter().map(|id| DeleteId(*id)).collect(),
        frozen,
    };
    let sheet = SheetEntry {
        generation: 3,
        bytes: 500,
        crc: 0xe306_9283,
    };
    Cover {
        view: ViewId(0x0123_4567_89ab_cdef),
        segments: vec![
            segment(Span::new(-120_000, 0), true, &[]),
            segment(Span::new(0, 86_400_000), false, &[5]),
        ],
        sheets: BTreeMap::from([
            (-86_400_000, sheet),
            (
                0,
                SheetEntry {
                    generation: 1,
                    ..sheet
                },
            ),
        ]),
        next_generation: 4,
    }
    .encode()
}

const SHEET: SheetOf = SheetOf {
    view: ViewId(0x0123_4567_89ab_cdef),
    cell: 0,
    parts: Parts::ENDS,
};

fn golden_rows() -> Rows {
    let partial = |samples: &[(i64, f64)]| {
        let (times, values): (Vec<i64>, Vec<f64>) = samples.iter().copied().unzip();
        let (mut found, mut partial) = (Vec::new(), Partial::default());
        let all = Spans::of(Span::new(0, 120_000));
        runs(&times, &values, 60_000, &all, false, &mut found);
        partial.add(&found[0], &values, SHEET.parts, None);
        (found[0].end, partial)
    };
    let group = |dc: &str| Labels::from_pairs([("dc", dc)]).unwrap();
    Rows::from([
        (
            group("a"),
            vec![
                partial(&[(1, 1.5), (60_000, 2.0)]),
                partial(&[(60_001, -1.0)]),
            ],
        ),
        (group("b"), vec![partial(&[(5, f64::INFINITY)])]),
    ])
}

fn golden_sheet() -> Vec<u8> {
    sheet::encode(SHEET, &golden_rows())
}

#[test]
fn golden_files_are_reproduced_and_read() {
    let changed = "format changed: raise the version, keep the old file";
    let stored = include_bytes!("../../testdata/views-list-v1.bin");
    assert_eq!(golden_list(), stored, "{changed}");
    assert_eq!(*list::decode(stored).unwrap()[0], definition());
    let stored = include_bytes!("../../testdata/view-cover-v1.bin");
    assert_eq!(golden_cover(), stored, "{changed}");
    let read = cover::decode(stored).unwrap();
    assert_eq!(
        (read.segments.len(), read.sheets.len(), read.last_sequence()),
        (2, 2, 7)
    );
    let stored = include_bytes!("../../testdata/view-sheet-v1.bin");
    assert_eq!(golden_sheet(), stored, "{changed}");
    let fs = millrace_log::fs::sim::SimFs::new();
    let path = std::path::Path::new("sheet");
    millrace_log::fs::publish(&fs, path, stored).unwrap();
    let mut rows = Rows::new();
    let second = Spans::of(Span::new(60_000, 120_000));
    sheet::read(&fs, path, SHEET, &second, &|_| true, &mut rows).unwrap();
    let mut expect = golden_rows();
    expect.retain(|_, buckets| {
        buckets.retain(|bucket| bucket.0 == 120_000);
        !buckets.is_empty()
    });
    assert_eq!(rows.len(), 1);
    let value = |rows: &Rows| {
        rows.values().next().unwrap()[0]
            .1
            .value(Aggregate::Last, 1, 0.0)
    };
    assert_eq!(value(&rows), value(&expect));
}

/// The page shows the golden files as hex dumps; so the page cannot drift from the code.
#[test]
fn format_page_shows_the_golden_files() {
    for stored in [
        &include_bytes!("../../testdata/views-list-v1.bin")[..],
        include_bytes!("../../testdata/view-cover-v1.bin"),
        include_bytes!("../../testdata/view-sheet-v1.bin"),
    ] {
        crate::testing::check_page(include_str!("../../../docs/formats/views.md"), stored);
    }
}

#[test]
fn every_flipped_bit_of_a_list_or_a_cover_is_noticed() {
    for bytes in [golden_list(), golden_cover()] {
        for at in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[at / 8] ^= 1 << (at % 8);
            let read = (
                list::decode(&flipped).is_ok(),
                cover::decode(&flipped).is_ok(),
            );
            assert_eq!(read, (false, false), "bit {at}");
        }
    }
}
