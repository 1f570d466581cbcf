//! What a query took: `stats` in Prometheus's own shape, and `explain` in ours.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use millrace_model::{Offset, PartitionId};
use serde_json::{Value, json};

use super::json;
use crate::{QueryStats, ReadContext};

/// `data.stats`.
#[derive(Debug)]
pub(super) struct Stats {
    /// For a thread.
    pub(super) waited: Duration,
    /// In the engine.
    pub(super) engine: QueryStats,
}

impl Stats {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let engine = &self.engine;
        let inner = engine
            .elapsed
            .saturating_sub(engine.prepared + engine.sorted);
        json::put(
            out,
            format_args!(
                ",\"stats\":{{\"timings\":{{\"evalTotalTime\":{},\"resultSortTime\":{},\
                 \"queryPreparationTime\":{},\"innerEvalTime\":{},\"execQueueTime\":{},\
                 \"execTotalTime\":{}}},\"samples\":{{",
                seconds(engine.elapsed),
                seconds(engine.sorted),
                seconds(engine.prepared),
                seconds(inner),
                seconds(self.waited),
                seconds(engine.elapsed + self.waited),
            ),
        );
        if let Some(counts) = &engine.counts {
            steps(out, "totalQueryableSamplesPerStep", &counts.seen_per_step);
            json::put(
                out,
                format_args!("\"totalQueryableSamples\":{},", counts.seen),
            );
            steps(out, "samplesReadPerStep", &counts.read_per_step);
            json::put(out, format_args!("\"samplesRead\":{},", counts.read));
        }
        json::put(
            out,
            format_args!(
                "\"peakSamples\":{}}},\"millrace\":{{\"series\":{},\"samplesRead\":{}}}}}",
                engine.peak_samples, engine.series, engine.samples_read
            ),
        );
    }
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

fn steps(out: &mut Vec<u8>, name: &str, counts: &[(i64, u64)]) {
    if counts.is_empty() {
        return;
    }
    json::put(out, format_args!("\"{name}\":["));
    for (i, (time, count)) in counts.iter().enumerate() {
        out.extend_from_slice(if i > 0 { b",[" } else { b"[" });
        json::seconds(out, *time);
        json::put(out, format_args!(",{count}]"));
    }
    out.extend_from_slice(b"],");
}

/// Of how many series buckets of which width stood for samples.
fn rollups(reads: &Arc<ReadContext>) -> Vec<Value> {
    let rollups = reads.stats.rollups.lock();
    let told = |(width, series): (&i64, &u64)| json!({"bucketMs": width, "series": series});
    rollups.iter().map(told).collect()
}

/// `explain`, beside `data`.
#[derive(Debug)]
pub(super) struct Explain {
    waited: Duration,
    engine: QueryStats,
    reads: Option<Arc<ReadContext>>,
    /// How far the data were when the query began.
    partitions: BTreeMap<PartitionId, Offset>,
    encoded: Duration,
}

impl Explain {
    pub(super) fn new(
        waited: Duration,
        engine: QueryStats,
        reads: Option<&Arc<ReadContext>>,
        partitions: BTreeMap<PartitionId, Offset>,
    ) -> Self {
        Self {
            waited,
            engine,
            reads: reads.cloned(),
            partitions,
            encoded: Duration::ZERO,
        }
    }

    /// So much more time went into writing the answer.
    pub(super) fn encoding(&mut self, took: Duration) {
        self.encoded += took;
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        json::put(out, format_args!(",\"explain\":{}", self.describe()));
    }

    fn describe(&self) -> Value {
        let count = |of: fn(&crate::ReadStats) -> &AtomicU64| {
            self.reads
                .as_ref()
                .map_or(0, |reads| of(&reads.stats).load(Ordering::Relaxed))
        };
        let time = |of| seconds(Duration::from_nanos(count(of)));
        let engine = &self.engine;
        // What the reads say they included is closer than what was there before them.
        let included = self.reads.as_ref().map(|reads| reads.point.included());
        let partitions = included.filter(|included| !included.is_empty());
        let partitions = partitions.as_ref().unwrap_or(&self.partitions);
        let freshness: Vec<_> = partitions
            .iter()
            .map(|(partition, next)| json!({ "partition": partition.0, "nextOffset": next.0 }))
            .collect();
        let rollups: Vec<_> = self.reads.iter().flat_map(rollups).collect();
        json!({
            "blocks": count(|stats| &stats.blocks),
            "memtables": count(|stats| &stats.memtables),
            "rollups": rollups,
            "views": [],
            "series": engine.series,
            "samplesRead": engine.samples_read,
            "bytesRead": count(|stats| &stats.bytes),
            "remoteCalls": count(|stats| &stats.remote_calls),
            "peakSamples": engine.peak_samples,
            "seconds": {
                "queueWait": seconds(self.waited),
                "parse": seconds(engine.prepared),
                "evaluate": seconds(engine.elapsed.saturating_sub(engine.prepared)),
                "select": time(|stats| &stats.select_nanos),
                "read": time(|stats| &stats.read_nanos),
                "sort": seconds(engine.sorted),
                "encode": seconds(self.encoded),
            },
            "freshness": freshness,
        })
    }
}
