//! Many threads submit at once, on a real disk.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use millrace_log::SystemClock;
use millrace_log::fs::OsFs;
use millrace_model::batch::{Batch, EncodedSection, FloatSectionWriter, SectionContent};
use millrace_model::{
    Labels, Offset, PartitionId, Sample, SeriesHasher, SeriesId, TenantId, TimestampMs,
};
use millrace_queue::{
    Appender, AppenderOptions, EmbeddedOptions, EmbeddedQueue, Position, SubmitError,
};
use prometheus::Registry;

const THREADS: u64 = 8;
const SUBMISSIONS: u64 = 150;
const PARTITIONS: u32 = 3;

/// A section of one series with a few samples, all of which carry `value`.
fn section(tenant: &TenantId, value: u64) -> EncodedSection {
    let labels = Labels::from_pairs([("v", value.to_string().as_str())]).unwrap();
    let samples: Vec<_> = (0..1 + value % 3)
        .map(|i| Sample {
            timestamp: TimestampMs(i as i64),
            value: value as f64,
        })
        .collect();
    let mut writer = FloatSectionWriter::new();
    let id = SeriesHasher::new(tenant).id(&labels);
    writer.push(id, labels.canonical(), &samples);
    writer.finish().unwrap()
}

/// Submits thread by thread and returns for each submission its values and its position.
fn submit_all(appender: &Appender) -> Vec<(u64, Position)> {
    let submitter = |thread: u64| {
        let appender = appender.clone();
        move || {
            let tenant: TenantId = format!("tenant-{}", thread % 2).parse().unwrap();
            let mut pending = Vec::new();
            for i in 0..SUBMISSIONS {
                let value = thread * SUBMISSIONS + i;
                let parts: Vec<_> = (0..PARTITIONS)
                    .filter(|p| value.is_multiple_of(u64::from(*p) + 1))
                    .map(|p| (PartitionId(p), section(&tenant, value)))
                    .collect();
                let accepted = loop {
                    match appender.submit(&tenant, parts.clone()) {
                        Ok(accepted) => break accepted,
                        Err(SubmitError::Overloaded { .. }) => std::thread::yield_now(),
                        Err(other) => panic!("{other}"),
                    }
                };
                pending.push((value, accepted));
            }
            let wait = |(value, pending): (u64, millrace_queue::PendingAppend)| {
                (value, pending.wait().unwrap())
            };
            pending.into_iter().map(wait).collect::<Vec<_>>()
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| scope.spawn(submitter(thread)))
            .collect();
        let joined = threads.into_iter().flat_map(|t| t.join().unwrap());
        joined.collect()
    })
}

/// All (tenant, value, samples) of a partition with their offsets, in order.
fn consume(queue: &EmbeddedQueue, partition: PartitionId) -> Vec<(Offset, String, u64, u64)> {
    let mut consumer = queue.consumer(partition, Offset::ZERO).unwrap();
    let mut records = Vec::new();
    while records
        .last()
        .is_none_or(|r: &millrace_queue::Record| r.offset.advanced(1) < consumer.end().unwrap())
    {
        consumer
            .poll(4096, Duration::from_secs(60), &mut records)
            .unwrap();
    }
    let mut found = Vec::new();
    for record in &records {
        let batch = Batch::decode(&record.payload).unwrap();
        let mut samples = Vec::new();
        for section in batch.sections() {
            let SectionContent::Float(mut series) = section.unwrap().content().unwrap() else {
                panic!("only floats were submitted");
            };
            while let Some(SeriesId(_)) = series.next_series(&mut samples).unwrap() {
                let value = samples[0].value as u64;
                let tenant = batch.tenant().to_string();
                found.push((record.offset, tenant, value, samples.len() as u64));
                samples.clear();
            }
        }
    }
    found
}

#[test]
fn every_section_of_many_threads_is_in_exactly_one_batch_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::new();
    let queue = EmbeddedQueue::open(
        Arc::new(OsFs),
        Arc::new(SystemClock),
        &dir.path().join("queue"),
        EmbeddedOptions {
            partitions: PARTITIONS,
            ..EmbeddedOptions::default()
        },
        &registry,
    )
    .unwrap();
    let options = AppenderOptions {
        // Small enough that batches are split and overload happens.
        max_batch_bytes: 600,
        max_pending_bytes: 20_000,
        ..AppenderOptions::default()
    };
    let appender = Appender::new(queue.producer(), options, &registry);
    let positions: HashMap<u64, Position> = submit_all(&appender).into_iter().collect();
    assert_eq!(positions.len() as u64, THREADS * SUBMISSIONS);

    for partition in (0..PARTITIONS).map(PartitionId) {
        let found = consume(&queue, partition);
        let mut newest: BTreeMap<u64, u64> = BTreeMap::new();
        let mut count = 0;
        for (offset, tenant, value, samples) in &found {
            let thread = value / SUBMISSIONS;
            assert_eq!(*tenant, format!("tenant-{}", thread % 2));
            assert_eq!(*samples, 1 + value % 3);
            // Strictly ascending per thread: in order, and none twice.
            if let Some(before) = newest.insert(thread, *value) {
                assert!(before < *value, "{value} behind {before}");
            }
            let told = positions[value].next[&partition];
            assert!(*offset < told, "{value} is at {offset}, told was {told}");
            count += 1;
        }
        let expected = (0..THREADS * SUBMISSIONS)
            .filter(|value| value.is_multiple_of(u64::from(partition.0) + 1))
            .count();
        assert_eq!(count, expected, "partition {partition}");
    }

    let metric = |name: &str| {
        let families = registry.gather();
        let family = families.iter().find(|f| f.name() == name);
        let metrics = family.expect("it is registered").get_metric();
        metrics
            .iter()
            .map(|m| m.get_counter().get_value() + m.get_gauge().get_value())
            .sum::<f64>()
    };
    let samples: u64 = (0..PARTITIONS)
        .flat_map(|p| consume(&queue, PartitionId(p)))
        .map(|(_, _, _, samples)| samples)
        .sum();
    assert_eq!(
        metric("millrace_queue_appended_samples_total"),
        samples as f64
    );
    assert_eq!(metric("millrace_queue_pending_bytes"), 0.0);
    assert_eq!(
        metric("millrace_queue_appends_total"),
        metric("millrace_queue_syncs_total"),
        "one sync per append"
    );
    appender.close();
    queue.close();
}
