//! The metrics of the queue, updated once per append.

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    core::Collector, exponential_buckets,
};

/// Registers a metric of this crate.
///
/// # Panics
///
/// If the registry has one of that name already: a second queue, or a second appender, on one
/// registry is a mistake of the wiring.
fn registered<C: Collector + Clone + 'static>(
    registry: &Registry,
    metric: prometheus::Result<C>,
) -> C {
    let metric = metric.expect("names and labels are constants and legal");
    registry
        .register(Box::new(metric.clone()))
        .expect("a registry holds the metrics of one queue and one appender");
    metric
}

fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    registered(registry, IntCounter::new(name, help))
}

fn counters(registry: &Registry, name: &str, help: &str) -> IntCounterVec {
    registered(
        registry,
        IntCounterVec::new(Opts::new(name, help), &["partition"]),
    )
}

fn gauges(registry: &Registry, name: &str, help: &str) -> IntGaugeVec {
    registered(
        registry,
        IntGaugeVec::new(Opts::new(name, help), &["partition"]),
    )
}

/// Sets a gauge to a number that may not fit, which no offset or size in practice does.
pub(crate) fn set(gauge: &IntGauge, value: u64) {
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
}

/// What the [`Appender`](crate::Appender) counts, whichever backend is behind it.
#[derive(Clone, Debug)]
pub(crate) struct AppenderMetrics {
    pub submissions: IntCounter,
    pub overloads: IntCounter,
    pub pending_bytes: IntGauge,
    pub appends: IntCounter,
    pub failures: IntCounter,
    pub append_seconds: Histogram,
    batches: IntCounterVec,
    bytes: IntCounterVec,
    samples: IntCounterVec,
}

/// The counters of one lane.
#[derive(Clone, Debug)]
pub(crate) struct LaneMetrics {
    pub batches: IntCounter,
    pub bytes: IntCounter,
    pub samples: IntCounter,
}

impl AppenderMetrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        // 50 µs (a fast device) to 26 s (a broker in trouble), each bucket twice the one before.
        let buckets = exponential_buckets(50e-6, 2.0, 20).expect("the arguments are legal");
        Self {
            submissions: counter(
                registry,
                "millrace_queue_submissions_total",
                "Requests that asked for an append.",
            ),
            overloads: counter(
                registry,
                "millrace_queue_overloads_total",
                "Requests that were refused because too many bytes were pending.",
            ),
            pending_bytes: registered(
                registry,
                IntGauge::new(
                    "millrace_queue_pending_bytes",
                    "Bytes that were submitted and are not durable yet.",
                ),
            ),
            appends: counter(
                registry,
                "millrace_queue_appends_total",
                "Appends that became durable; several requests share one.",
            ),
            failures: counter(
                registry,
                "millrace_queue_append_failures_total",
                "Appends that failed.",
            ),
            append_seconds: registered(
                registry,
                Histogram::with_opts(
                    HistogramOpts::new(
                        "millrace_queue_append_duration_seconds",
                        "Time from handing an append to the backend until it is durable.",
                    )
                    .buckets(buckets),
                ),
            ),
            batches: counters(
                registry,
                "millrace_queue_appended_batches_total",
                "Batches that became durable.",
            ),
            bytes: counters(
                registry,
                "millrace_queue_appended_bytes_total",
                "Bytes of the batches that became durable.",
            ),
            samples: counters(
                registry,
                "millrace_queue_appended_samples_total",
                "Samples in the batches that became durable.",
            ),
        }
    }

    pub(crate) fn lane(&self, partition: &str) -> LaneMetrics {
        LaneMetrics {
            batches: self.batches.with_label_values(&[partition]),
            bytes: self.bytes.with_label_values(&[partition]),
            samples: self.samples.with_label_values(&[partition]),
        }
    }
}

/// What the embedded backend counts.
#[derive(Clone, Debug)]
pub(crate) struct EmbeddedMetrics {
    syncs: IntCounterVec,
    failed: IntGaugeVec,
    first: IntGaugeVec,
    end: IntGaugeVec,
    released: IntGaugeVec,
    held_bytes: IntGaugeVec,
    removed_segments: IntCounterVec,
    pub retention_failures: IntCounter,
}

/// The metrics of one embedded partition.
#[derive(Clone, Debug)]
pub(crate) struct PartitionMetrics {
    pub syncs: IntCounter,
    pub failed: IntGauge,
    pub first: IntGauge,
    pub end: IntGauge,
    pub released: IntGauge,
    pub held_bytes: IntGauge,
    pub removed_segments: IntCounter,
}

impl EmbeddedMetrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        Self {
            syncs: counters(
                registry,
                "millrace_queue_syncs_total",
                "Times that a partition's log was synced to the device.",
            ),
            failed: gauges(
                registry,
                "millrace_queue_partition_failed",
                "1 if a write or sync failed and the partition takes no appends until a restart.",
            ),
            first: gauges(
                registry,
                "millrace_queue_first_offset",
                "Offset of the oldest record that is kept.",
            ),
            end: gauges(
                registry,
                "millrace_queue_end_offset",
                "Offset that the next durable record will have.",
            ),
            released: gauges(
                registry,
                "millrace_queue_released_offset",
                "Everything below is safe in the store's blocks.",
            ),
            held_bytes: gauges(
                registry,
                "millrace_queue_retention_held_bytes",
                "Bytes that retention would remove, but the store has not released.",
            ),
            removed_segments: counters(
                registry,
                "millrace_queue_retention_removed_segments_total",
                "Log segments that retention removed.",
            ),
            retention_failures: counter(
                registry,
                "millrace_queue_retention_failures_total",
                "Times that retention could not remove a segment.",
            ),
        }
    }

    pub(crate) fn partition(&self, partition: &str) -> PartitionMetrics {
        let label = &[partition];
        PartitionMetrics {
            syncs: self.syncs.with_label_values(label),
            failed: self.failed.with_label_values(label),
            first: self.first.with_label_values(label),
            end: self.end.with_label_values(label),
            released: self.released.with_label_values(label),
            held_bytes: self.held_bytes.with_label_values(label),
            removed_segments: self.removed_segments.with_label_values(label),
        }
    }
}
