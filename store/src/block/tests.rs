mod damage;
mod golden;
mod model;
mod rollups;
mod sharing;

use std::collections::BTreeMap;
use std::path::Path;

use millrace_log::fs::Fs;
use millrace_log::fs::sim::SimFs;
use millrace_model::{Labels, Matcher, Offset, PartitionId, TenantId, TimeRange, TimestampMs};

use super::rollup::stored_resolutions;
use super::*;

/// What a block is to hold: by tenant and labels, the bits of each sample by its timestamp.
type Model = BTreeMap<(TenantId, Labels), BTreeMap<i64, u64>>;

/// One answer to everything that can be asked with one selection.
#[derive(Debug, PartialEq)]
struct Answer {
    series: Vec<(Labels, Vec<(i64, u64)>)>,
    names: Vec<String>,
    values: Vec<(String, Vec<String>)>,
    /// The buckets of each series in each resolution, in words that tell every bit.
    rollups: Vec<String>,
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
    write_with(fs, model, window, &BlockOptions::default())
}

fn write_with(
    fs: &dyn Fs,
    model: &Model,
    window: TimeRange,
    options: &BlockOptions,
) -> BlockSummary {
    let mut writer = BlockWriter::with_options(fs, Path::new(PATH), options);
    for ((tenant, labels), samples) in model {
        let timestamps: Vec<_> = samples.keys().copied().collect();
        let values: Vec<_> = samples.values().map(|&bits| f64::from_bits(bits)).collect();
        writer.push(tenant, labels, &timestamps, &values).unwrap();
    }
    let summary = writer.finish(meta(window)).unwrap();
    fs.sync_dir(Path::new("")).unwrap();
    summary
}

/// The resolutions that are asked for: those that are stored, and some of their multiples.
fn asked_resolutions(stored: &[i64]) -> impl Iterator<Item = i64> + '_ {
    stored.iter().flat_map(|r| [*r, r * 3, r * 4])
}

fn tell(rollups: &RollupColumns) -> String {
    let bits = |column: &[f64]| column.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    format!(
        "{:?} {:?} {:?} {:?} {:x?} {:x?} {:x?} {:x?} {:x?} {:x?} {}",
        rollups.starts,
        rollups.counts,
        rollups.first_times,
        rollups.last_times,
        bits(&rollups.firsts),
        bits(&rollups.lasts),
        bits(&rollups.mins),
        bits(&rollups.maxs),
        bits(&rollups.sums),
        bits(&rollups.resets),
        rollups.no_counter && !rollups.is_empty(),
    )
}

/// Asks a block.
fn answer(
    block: &BlockReader,
    tenant: &TenantId,
    matchers: &[Matcher],
    range: TimeRange,
) -> Result<Answer, BlockError> {
    let (mut series, mut rollups) = (Vec::new(), Vec::new());
    let mut numbered = Vec::new();
    block.find(tenant, matchers, range, |mut found| {
        let labels = found.labels()?.clone();
        numbered.push((found.number, found.id, labels, found.range));
        Ok::<_, BlockError>(())
    })?;
    let mut numbered = numbered.into_iter();
    for found in block.select(tenant, matchers, range)? {
        let (mut timestamps, mut values) = (Vec::new(), Vec::new());
        block.read(&found.place, range, &mut timestamps, &mut values)?;
        assert_eq!(timestamps.len(), values.len());
        let (number, id, labels, time) = numbered.next().expect("both ways find as many");
        assert_eq!((number, id), (found.place.at, found.id));
        assert_eq!((&labels, time), (&found.labels, found.place.range()));
        let (mut again, mut bits) = (Vec::new(), Vec::new());
        block.read_number(number, Left::Last, range, &mut again, &mut bits)?;
        assert_eq!(again, timestamps);
        let same = |(a, b): (&f64, &f64)| a.to_bits() == b.to_bits();
        assert!(bits.len() == values.len() && bits.iter().zip(&values).all(same));
        // A chunk may overlap the range and have nothing in it.
        if timestamps.is_empty() {
            continue;
        }
        let values = values.into_iter().map(f64::to_bits);
        series.push((found.labels, timestamps.into_iter().zip(values).collect()));
        for resolution in asked_resolutions(block.footer.resolutions()) {
            let mut columns = RollupColumns::default();
            block.read_rollup(&found.place, resolution, range, &mut columns)?;
            rollups.push(tell(&columns));
        }
    }
    assert!(numbered.next().is_none(), "both ways find as many");
    let sets = [matchers.to_vec()];
    let names = block.label_names(tenant, &sets)?;
    let mut values = Vec::new();
    for name in &names {
        values.push((name.clone(), block.label_values(tenant, name, &sets, &[])?));
    }
    Ok(Answer {
        series,
        names,
        values,
        rollups,
    })
}

/// What a block must answer that stores these resolutions.
fn expected(
    model: &Model,
    tenant: &TenantId,
    matchers: &[Matcher],
    range: TimeRange,
    stored: &[i64],
) -> Answer {
    let mut rollups = Vec::new();
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
            let timestamps: Vec<_> = samples.keys().copied().collect();
            let values: Vec<_> = samples.values().map(|&b| f64::from_bits(b)).collect();
            for resolution in asked_resolutions(stored) {
                let base = stored.iter().rfind(|r| resolution % **r == 0).unwrap();
                let (mut fine, mut all) = (RollupColumns::default(), RollupColumns::default());
                fine.push_samples(&timestamps, &values, *base);
                fine.fold(resolution, &mut all);
                let mut wanted = RollupColumns::default();
                wanted.push_range(&all, resolution, (range.start.0, range.end.0));
                rollups.push(tell(&wanted));
            }
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
        rollups,
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
