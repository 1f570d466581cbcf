use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{
    Delete, DeleteEntry, DeleteId, Labels, MatchOp, Matcher, MetricMetadata, MetricType, Sample,
    SeriesHasher, SeriesId, TenantId, TimeRange, TimestampMs,
};

type Entry = (Labels, Vec<(i64, u64)>);

fn encode(tenant: &TenantId, original: Option<OriginalPosition>, parts: &[Vec<Entry>]) -> Vec<u8> {
    let hasher = SeriesHasher::new(tenant);
    let mut sections = Vec::new();
    let mut writer = FloatSectionWriter::new();
    for part in parts {
        for (labels, samples) in part {
            let samples: Vec<_> = samples
                .iter()
                .map(|&(t, v)| Sample::new(t, f64::from_bits(v)))
                .collect();
            writer.push(hasher.id(labels), labels.canonical(), &samples);
        }
        sections.extend(writer.finish());
    }
    encode_batch(tenant, original, &sections)
}

/// Decodes everything; asks for labels only where `ask` says so, and checks the identity there.
fn decode(bytes: &[u8], mut ask: impl FnMut(usize) -> bool) -> Result<Vec<Entry>, BatchError> {
    let batch = Batch::decode(bytes)?;
    let hasher = SeriesHasher::new(batch.tenant());
    let mut entries = Vec::new();
    for section in batch.sections() {
        let SectionContent::Float(mut series) = section?.content()? else {
            continue;
        };
        let mut samples = Vec::new();
        while let Some(id) = series.next_series(&mut samples)? {
            let labels = if ask(entries.len()) {
                series.labels()?
            } else {
                Labels::empty()
            };
            if !labels.is_empty() {
                assert_eq!(hasher.id(&labels), id);
            }
            let bits = samples
                .drain(..)
                .map(|s| (s.timestamp.0, s.value.to_bits()))
                .collect();
            entries.push((labels, bits));
        }
    }
    Ok(entries)
}

fn arb_entries() -> impl Strategy<Value = Vec<Vec<Entry>>> {
    let labels = proptest::collection::btree_map("[a-c]{1,3}", "[x-z]{1,20}", 0..5).prop_map(
        |m: BTreeMap<String, String>| {
            Labels::from_pairs(m.iter().map(|(n, v)| (n.as_str(), v.as_str()))).unwrap()
        },
    );
    let samples = proptest::collection::vec(any::<(i64, u64)>(), 1..4);
    proptest::collection::vec(proptest::collection::vec((labels, samples), 0..6), 0..4)
}

proptest! {
    #[test]
    fn every_bit_survives(parts in arb_entries(), asked: u64) {
        let tenant: TenantId = "t".parse().unwrap();
        let bytes = encode(&tenant, None, &parts);
        let expect: Vec<Entry> = parts.into_iter().flatten().collect();
        let batch = Batch::decode(&bytes).unwrap();
        prop_assert_eq!(batch.series() as usize, expect.len());
        prop_assert_eq!(batch.samples() as usize, expect.iter().map(|e| e.1.len()).sum::<usize>());
        let ask = |i: usize| asked >> (i % 64) & 1 == 1;
        for (i, (got, want)) in decode(&bytes, ask).unwrap().iter().zip(&expect).enumerate() {
            prop_assert_eq!(&got.1, &want.1);
            prop_assert_eq!(&got.0, &if ask(i) { want.0.clone() } else { Labels::empty() });
        }
    }

    /// Both checksums right around arbitrary content: decoding still neither panics nor loops.
    #[test]
    fn arbitrary_bodies_are_errors_and_no_panics(body in proptest::collection::vec(any::<u8>(), 0..200), kind in 0u8..7) {
        let mut full = vec![1, b't', kind, 0];
        crate::write_varint(&mut full, body.len() as u64);
        full.extend_from_slice(&body);
        let bytes = reseal(&full);
        let _outcome = decode(&bytes, |_| true);
    }
}

fn reseal(body: &[u8]) -> Vec<u8> {
    let mut bytes = encode_batch(&"t".parse().unwrap(), None, &[]);
    bytes.truncate(HEADER_BYTES);
    bytes[8..12].copy_from_slice(&(body.len() as u32).to_le_bytes());
    bytes[20..24].copy_from_slice(&crc32c::crc32c(body).to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..24]);
    bytes[24..28].copy_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// The batch that `docs/formats/batch.md` shows byte by byte.
fn golden() -> Vec<u8> {
    let tenant: TenantId = "acme".parse().unwrap();
    let of = |name, device| {
        Labels::from_pairs([("__name__", name), ("device", device), ("site", "north")]).unwrap()
    };
    let original = OriginalPosition {
        queue: QueueId(7),
        partition: PartitionId(3),
        offset: Offset(41),
    };
    let part = vec![
        (
            of("temperature", "pump-7"),
            vec![(1_795_233_600_000, 21.5f64.to_bits())],
        ),
        (
            of("running", "pump-7"),
            vec![
                (1_795_233_600_000, 1f64.to_bits()),
                (1_795_233_601_000, crate::STALE_NAN_BITS),
            ],
        ),
    ];
    let hasher = SeriesHasher::new(&tenant);
    let mut writer = FloatSectionWriter::new();
    for (labels, samples) in &part {
        let samples: Vec<_> = samples
            .iter()
            .map(|&(t, v)| Sample::new(t, f64::from_bits(v)))
            .collect();
        writer.push(hasher.id(labels), labels.canonical(), &samples);
    }
    let metadata = encode_metadata_section(&[MetricMetadata {
        metric: "temperature".into(),
        metric_type: MetricType::Gauge,
        help: "Medium.".into(),
        unit: "celsius".into(),
    }]);
    let sections: Vec<_> = writer.finish().into_iter().chain(metadata).collect();
    encode_batch(&tenant, Some(original), &sections)
}

#[test]
fn golden_file_is_reproduced_and_read() {
    let stored = include_bytes!("../../testdata/batch-v1.bin");
    assert_eq!(
        golden(),
        stored,
        "format changed: raise the version, keep the old file"
    );
    let batch = Batch::decode(stored).unwrap();
    assert_eq!(batch.original_position().unwrap().offset, Offset(41));
    assert_eq!(decode(stored, |_| true).unwrap().len(), 2);
    let kinds: Vec<_> = batch
        .sections()
        .map(|s| s.unwrap().content().unwrap())
        .collect();
    let SectionContent::Metadata(metadata) = &kinds[1] else {
        panic!("{kinds:?}")
    };
    assert_eq!(metadata[0].unit, "celsius");
}

/// The page shows the golden file as a hex dump; so the page cannot drift from the code.
#[test]
fn format_page_shows_the_golden_file() {
    let page = include_str!("../../../docs/formats/batch.md");
    let stored = include_bytes!("../../testdata/batch-v1.bin");
    for (i, line) in stored.chunks(16).enumerate() {
        let hex: Vec<_> = line.iter().map(|b| format!("{b:02x}")).collect();
        let line = format!("{:04x}  {}", i * 16, hex.join(" "));
        assert!(
            page.contains(&line),
            "docs/formats/batch.md lacks the line\n{line}"
        );
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    let good = golden();
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(Batch::decode(&bad).is_err(), "bit {bit}");
    }
    for len in 0..good.len() {
        assert!(Batch::decode(&good[..len]).is_err(), "cut at {len}");
    }
}

#[test]
fn versions_and_features_from_the_future_are_named() {
    let set = |at: usize, value: u8| {
        let mut bytes = golden();
        bytes[at] = value;
        let crc = crc32c::crc32c(&bytes[..24]);
        bytes[24..28].copy_from_slice(&crc.to_le_bytes());
        Batch::decode(&bytes).unwrap_err().to_string()
    };
    assert_eq!(
        set(4, 2),
        "batch has version 2, which this version does not read"
    );
    assert_eq!(
        set(5, 2),
        "batch has flags 2, which this version does not read"
    );
    assert_eq!(
        set(6, 1),
        "batch has compression 1, which this version does not read"
    );
    let histogram = decode(&reseal(&[1, b't', 3, 0, 0]), |_| true)
        .unwrap_err()
        .to_string();
    assert_eq!(
        histogram,
        "batch has value kind 3, which this version does not read"
    );
}

#[test]
fn counts_that_lie_are_refused_before_memory_is_reserved() {
    let mut body = vec![1, b't', 1, 0];
    let mut content = 0i64.to_le_bytes().to_vec();
    crate::write_varint(&mut content, u64::MAX >> 1);
    crate::write_varint(&mut body, content.len() as u64);
    body.extend_from_slice(&content);
    let error = decode(&reseal(&body), |_| true).unwrap_err();
    assert_eq!(
        error,
        BatchError::Malformed {
            at: 8,
            what: "number of series"
        }
    );
}

#[test]
fn a_series_without_samples_is_not_written() {
    let mut writer = FloatSectionWriter::new();
    writer.push(SeriesId(1), &[], &[]);
    assert_eq!(writer.finish(), None);
}

fn deletes() -> Vec<DeleteEntry> {
    let delete = Delete {
        id: DeleteId(0x0102_0304_0506_0708),
        requested_at: TimestampMs(1_795_233_600_000),
        undo_until: TimestampMs(1_795_320_000_000),
        range: TimeRange::new(1_795_230_000_000, 1_795_233_599_999),
        selectors: vec![
            vec![
                Matcher::equal("__name__", "temperature"),
                Matcher::new("device", MatchOp::Regex, "pump-[0-9]+").unwrap(),
            ],
            vec![Matcher::new("site", MatchOp::NotEqual, "north").unwrap()],
        ],
    };
    vec![
        DeleteEntry::Delete(delete),
        DeleteEntry::Revoke {
            id: DeleteId(9),
            requested_at: TimestampMs(-1),
        },
    ]
}

fn delete_batch() -> Vec<u8> {
    encode_batch(
        &"acme".parse().unwrap(),
        None,
        &encode_delete_section(&deletes()),
    )
}

#[test]
fn golden_deletes_are_reproduced_and_read() {
    let stored = include_bytes!("../../testdata/batch-deletes-v1.bin");
    assert_eq!(delete_batch(), stored, "format changed: take a new kind");
    let batch = Batch::decode(stored).unwrap();
    let section = batch.sections().next().unwrap().unwrap();
    let SectionContent::Deletes(entries) = section.content().unwrap() else {
        panic!("{section:?}")
    };
    assert_eq!(entries, deletes());
}

#[test]
fn format_page_shows_the_golden_deletes() {
    let page = include_str!("../../../docs/formats/batch.md");
    for (i, line) in delete_batch().chunks(16).enumerate() {
        let hex: Vec<_> = line.iter().map(|b| format!("{b:02x}")).collect();
        let line = format!("{:04x}  {}", i * 16, hex.join(" "));
        assert!(
            page.contains(&line),
            "docs/formats/batch.md lacks the line\n{line}"
        );
    }
}

#[test]
fn a_delete_of_everything_by_mistake_is_refused() {
    let mut everything = deletes();
    let DeleteEntry::Delete(delete) = &mut everything[0] else {
        panic!("{everything:?}")
    };
    delete.selectors.push(Vec::new());
    // A matcher takes three bytes, so an empty set at the very end has no room for its count.
    delete.selectors.push(vec![Matcher::equal("a", "b")]);
    let section = encode_delete_section(&everything);
    let bytes = encode_batch(&"t".parse().unwrap(), None, &section);
    let batch = Batch::decode(&bytes).unwrap();
    let error = batch.sections().next().unwrap().unwrap().content();
    assert!(
        matches!(
            error,
            Err(BatchError::Malformed {
                what: "a selector without matchers",
                ..
            })
        ),
        "{error:?}"
    );
}

#[test]
fn a_pattern_that_does_not_compile_is_refused() {
    let mut bytes = delete_batch();
    let at = bytes.windows(4).position(|w| w == b"pump").unwrap();
    bytes[at] = b'(';
    let body = bytes[HEADER_BYTES..].to_vec();
    let bytes = reseal(&body);
    let batch = Batch::decode(&bytes).unwrap();
    let error = batch.sections().next().unwrap().unwrap().content();
    assert!(
        matches!(error, Err(BatchError::Malformed { .. })),
        "{error:?}"
    );
}
