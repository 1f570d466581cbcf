mod damage;
mod golden;
mod model;

use std::collections::BTreeMap;
use std::path::Path;

use millrace_log::fs::Fs;
use millrace_log::fs::sim::SimFs;
use millrace_model::{Labels, Matcher, Offset, PartitionId, TenantId, TimeRange, TimestampMs};

use super::*;

/// What a block is to hold: by tenant and labels, the bits of each sample by its timestamp.
type Model = BTreeMap<(TenantId, Labels), BTreeMap<i64, u64>>;

/// One answer to everything that can be asked with one selection.
#[derive(Debug, PartialEq)]
struct Answer {
    series: Vec<(Labels, Vec<(i64, u64)>)>,
    names: Vec<String>,
    values: Vec<(String, Vec<String>)>,
}

const PATH: &str = "b.block";

fn fs() -> SimFs {
    SimFs::new()
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied()).unwrap()
}

fn meta(window: TimeRange) -> BlockMeta {
    BlockMeta {
        partition: PartitionId(3),
        window,
        offsets: (Offset(17), Offset(42)),
        created_at: TimestampMs(1_795_233_600_000),
    }
}

fn write(fs: &dyn Fs, model: &Model, window: TimeRange) -> BlockSummary {
    let mut writer = BlockWriter::new(fs, Path::new(PATH));
    for ((tenant, labels), samples) in model {
        let timestamps: Vec<_> = samples.keys().copied().collect();
        let values: Vec<_> = samples.values().map(|&bits| f64::from_bits(bits)).collect();
        writer.push(tenant, labels, &timestamps, &values).unwrap();
    }
    let summary = writer.finish(meta(window)).unwrap();
    fs.sync_dir(Path::new("")).unwrap();
    summary
}

/// Asks a block.
fn answer(
    block: &BlockReader,
    tenant: &TenantId,
    matchers: &[Matcher],
    range: TimeRange,
) -> Result<Answer, BlockError> {
    let mut series = Vec::new();
    for found in block.select(tenant, matchers, range)? {
        let (mut timestamps, mut values) = (Vec::new(), Vec::new());
        block.read(&found.place, range, &mut timestamps, &mut values)?;
        assert_eq!(timestamps.len(), values.len());
        let values = values.into_iter().map(f64::to_bits);
        series.push((found.labels, timestamps.into_iter().zip(values).collect()));
    }
    // A chunk may overlap the range and have nothing in it.
    series.retain(|(_, samples): &(_, Vec<_>)| !samples.is_empty());
    let sets = [matchers.to_vec()];
    let names = block.label_names(tenant, &sets)?;
    let mut values = Vec::new();
    for name in &names {
        values.push((name.clone(), block.label_values(tenant, name, &sets)?));
    }
    Ok(Answer {
        series,
        names,
        values,
    })
}

/// What a block must answer.
fn expected(model: &Model, tenant: &TenantId, matchers: &[Matcher], range: TimeRange) -> Answer {
    let passes = |labels: &Labels| matchers.iter().all(|m| m.matches_labels(labels));
    let (mut series, mut values) = (Vec::new(), BTreeMap::<String, Vec<String>>::new());
    for ((of, labels), samples) in model {
        if of != tenant || !passes(labels) {
            continue;
        }
        for (name, value) in labels {
            values
                .entry(name.to_owned())
                .or_default()
                .push(value.to_owned());
        }
        let inside = samples.iter().filter(|s| range.contains(TimestampMs(*s.0)));
        let inside: Vec<_> = inside.map(|(&t, &bits)| (t, bits)).collect();
        if !inside.is_empty() {
            series.push((labels.clone(), inside));
        }
    }
    for values in values.values_mut() {
        values.sort();
        values.dedup();
    }
    Answer {
        series,
        names: values.keys().cloned().collect(),
        values: values.into_iter().collect(),
    }
}

#[test]
#[should_panic(expected = "a{b=\"1\"} behind a{b=\"2\"}")]
fn series_out_of_order_are_refused() {
    let fs = fs();
    let mut writer = BlockWriter::new(&fs, Path::new(PATH));
    let tenant = TenantId::anonymous();
    for value in ["2", "1"] {
        let labels = labels(&[("__name__", "a"), ("b", value)]);
        writer.push(&tenant, &labels, &[1], &[1.0]).unwrap();
    }
}

#[test]
#[should_panic(expected = "samples of a")]
fn samples_out_of_order_are_refused() {
    let fs = fs();
    let mut writer = BlockWriter::new(&fs, Path::new(PATH));
    let labels = labels(&[("__name__", "a")]);
    let pushed = writer.push(&TenantId::anonymous(), &labels, &[2, 2], &[1.0, 1.0]);
    assert!(pushed.is_ok(), "unreachable");
}

#[test]
fn an_abandoned_writer_leaves_nothing() {
    let fs = fs();
    let mut writer = BlockWriter::new(&fs, Path::new(PATH));
    assert!(writer.is_empty());
    writer
        .push(&TenantId::anonymous(), &Labels::empty(), &[1], &[1.0])
        .unwrap();
    assert!(!writer.is_empty());
    drop(writer);
    assert_eq!(fs.list(Path::new("")).unwrap(), []);
}

#[test]
fn a_leftover_temporary_file_is_replaced() {
    let fs = fs();
    let left = fs.create_new(Path::new("b.block.tmp")).unwrap();
    left.write_all_at(&[7; 10_000], 0).unwrap();
    let key = (TenantId::anonymous(), labels(&[("__name__", "a")]));
    let model = Model::from([(key, BTreeMap::from([(5, 1)]))]);
    write(&fs, &model, TimeRange::new(0, 9));
    assert!(
        BlockReader::open(&fs, Path::new(PATH))
            .unwrap()
            .verify()
            .is_ok()
    );
    assert!(!fs.exists(Path::new("b.block.tmp")).unwrap());
}

/// A finished and settled block survives a power cut whole.
#[test]
fn a_settled_block_survives_a_power_cut() {
    let fs = fs();
    let key = (TenantId::anonymous(), labels(&[("__name__", "a")]));
    let model = Model::from([(key, BTreeMap::from([(5, 1), (6, 2)]))]);
    write(&fs, &model, TimeRange::new(0, 9));
    let after = fs.power_cut();
    assert!(
        BlockReader::open(&after, Path::new(PATH))
            .unwrap()
            .verify()
            .is_ok()
    );
}
