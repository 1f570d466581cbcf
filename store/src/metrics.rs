//! What a store tells about itself. Updated per batch, never per sample.

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};

use millrace_model::PartitionId;

/// The metrics of all shards, labelled by `partition`.
#[derive(Clone, Debug)]
pub struct StoreMetrics {
    batches: IntCounterVec,
    samples: IntCounterVec,
    late_samples: IntCounterVec,
    duplicate_samples: IntCounterVec,
    redelivered_records: IntCounterVec,
    dead_letters: IntCounterVec,
    view_samples: IntCounterVec,
    deletes: IntCounterVec,
    revoked_deletes: IntCounterVec,
    late_revokes: IntCounterVec,
    compaction_read_bytes: IntCounterVec,
    compaction_written_bytes: IntCounterVec,
    sealed_bytes: IntCounterVec,
    compactions: IntCounterVec,
    compaction_failures: IntCounterVec,
    retention_removed_bytes: IntCounterVec,
    retention_waiting_bytes: IntGaugeVec,
    applied_offset: IntGaugeVec,
    sealed_offset: IntGaugeVec,
    lag_records: IntGaugeVec,
    memtable_bytes: IntGaugeVec,
    memtable_series: IntGaugeVec,
    memtable_samples: IntGaugeVec,
    wal_bytes: IntGaugeVec,
    wal_sync_seconds: HistogramVec,
    seal_seconds: HistogramVec,
    seals: IntCounterVec,
    blocks: IntGaugeVec,
    block_bytes: IntGaugeVec,
    recovery_seconds: GaugeVec,
    replay_records: IntGaugeVec,
    replay_left: IntGaugeVec,
    stopped: IntGaugeVec,
}

impl StoreMetrics {
    /// Registers the metrics.
    ///
    /// # Errors
    ///
    /// If the registry has metrics of these names already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| {
            let vec = IntCounterVec::new(Opts::new(name, help), &["partition"])?;
            registry.register(Box::new(vec.clone()))?;
            Ok::<_, prometheus::Error>(vec)
        };
        let gauge = |name: &str, help: &str| {
            let vec = IntGaugeVec::new(Opts::new(name, help), &["partition"])?;
            registry.register(Box::new(vec.clone()))?;
            Ok::<_, prometheus::Error>(vec)
        };
        let histogram = |name: &str, help: &str, buckets: Vec<f64>| {
            let options = HistogramOpts::new(name, help).buckets(buckets);
            let vec = HistogramVec::new(options, &["partition"])?;
            registry.register(Box::new(vec.clone()))?;
            Ok::<_, prometheus::Error>(vec)
        };
        let sync_buckets = prometheus::exponential_buckets(50e-6, 2.0, 15)?;
        let seal_buckets = prometheus::exponential_buckets(1e-3, 2.0, 18)?;
        let recovery = GaugeVec::new(
            Opts::new(
                "millrace_store_recovery_seconds",
                "How long the last open took",
            ),
            &["partition"],
        )?;
        registry.register(Box::new(recovery.clone()))?;
        Ok(Self {
            batches: counter("millrace_store_applied_batches_total", "Batches applied")?,
            samples: counter("millrace_store_applied_samples_total", "Samples applied")?,
            late_samples: counter(
                "millrace_store_late_samples_total",
                "Samples not newer than the newest one of their series",
            )?,
            duplicate_samples: counter(
                "millrace_store_duplicate_samples_total",
                "Samples equal to the newest one of their series, dropped",
            )?,
            redelivered_records: counter(
                "millrace_store_redelivered_records_total",
                "Records below the applied offset, dropped",
            )?,
            dead_letters: counter(
                "millrace_store_dead_letters_total",
                "Records that could not be decoded, kept as dead letters",
            )?,
            view_samples: counter(
                "millrace_store_view_samples_total",
                "Samples that were read to derive views",
            )?,
            deletes: counter("millrace_store_deletes_total", "Deletes applied")?,
            revoked_deletes: counter(
                "millrace_store_revoked_deletes_total",
                "Deletes that were revoked",
            )?,
            late_revokes: counter(
                "millrace_store_late_revokes_total",
                "Revocations that came too late or of deletes that are not known",
            )?,
            compaction_read_bytes: counter(
                "millrace_store_compaction_read_bytes_total",
                "Bytes of blocks that compaction read",
            )?,
            compaction_written_bytes: counter(
                "millrace_store_compaction_written_bytes_total",
                "Bytes of blocks that compaction wrote; over the sealed bytes it is the write amplification",
            )?,
            sealed_bytes: counter(
                "millrace_store_sealed_bytes_total",
                "Bytes of blocks that seals wrote",
            )?,
            compactions: counter("millrace_store_compactions_total", "Compactions done")?,
            compaction_failures: counter(
                "millrace_store_compaction_failures_total",
                "Compactions that failed and will be tried again",
            )?,
            retention_removed_bytes: counter(
                "millrace_store_retention_removed_bytes_total",
                "Bytes of blocks that retention let go",
            )?,
            applied_offset: gauge(
                "millrace_store_applied_offset",
                "Everything below this offset of the queue can be read",
            )?,
            sealed_offset: gauge(
                "millrace_store_sealed_offset",
                "Everything below this offset of the queue is in blocks",
            )?,
            lag_records: gauge(
                "millrace_store_lag_records",
                "Records in the queue that are not applied yet",
            )?,
            memtable_bytes: gauge(
                "millrace_store_memtable_bytes",
                "Memory of the memtables, those being sealed and their index included",
            )?,
            retention_waiting_bytes: gauge(
                "millrace_store_retention_waiting_bytes",
                "Bytes of blocks that have had their time, and wait since they are more than may go in an hour",
            )?,
            memtable_series: gauge("millrace_store_memtable_series", "Series in the memtables")?,
            memtable_samples: gauge(
                "millrace_store_memtable_samples",
                "Samples in the memtables",
            )?,
            wal_bytes: gauge("millrace_store_wal_bytes", "Size of the WAL")?,
            wal_sync_seconds: histogram(
                "millrace_store_wal_sync_seconds",
                "Duration of a sync of the WAL",
                sync_buckets,
            )?,
            seal_seconds: histogram(
                "millrace_store_seal_seconds",
                "Duration of a seal, from the frozen memtable to the manifest edit",
                seal_buckets,
            )?,
            seals: counter("millrace_store_seals_total", "Seals done")?,
            blocks: gauge("millrace_store_blocks", "Live blocks")?,
            block_bytes: gauge("millrace_store_block_bytes", "Size of the live blocks")?,
            recovery_seconds: recovery,
            replay_records: gauge(
                "millrace_store_replay_records",
                "Records of the WAL that the start had to read",
            )?,
            replay_left: gauge(
                "millrace_store_replay_records_left",
                "WAL records that the open has still to replay",
            )?,
            stopped: gauge(
                "millrace_store_stopped",
                "1 while the shard is stopped by an error",
            )?,
        })
    }

    /// The metrics of one shard, looked up once.
    pub(crate) fn shard(&self, partition: PartitionId) -> ShardMetrics {
        let name = partition.to_string();
        let labels = [name.as_str()];
        ShardMetrics {
            batches: self.batches.with_label_values(&labels),
            samples: self.samples.with_label_values(&labels),
            late_samples: self.late_samples.with_label_values(&labels),
            duplicate_samples: self.duplicate_samples.with_label_values(&labels),
            redelivered_records: self.redelivered_records.with_label_values(&labels),
            dead_letters: self.dead_letters.with_label_values(&labels),
            view_samples: self.view_samples.with_label_values(&labels),
            deletes: self.deletes.with_label_values(&labels),
            revoked_deletes: self.revoked_deletes.with_label_values(&labels),
            late_revokes: self.late_revokes.with_label_values(&labels),
            compaction_read_bytes: self.compaction_read_bytes.with_label_values(&labels),
            compaction_written_bytes: self.compaction_written_bytes.with_label_values(&labels),
            sealed_bytes: self.sealed_bytes.with_label_values(&labels),
            compactions: self.compactions.with_label_values(&labels),
            compaction_failures: self.compaction_failures.with_label_values(&labels),
            retention_removed_bytes: self.retention_removed_bytes.with_label_values(&labels),
            retention_waiting_bytes: self.retention_waiting_bytes.with_label_values(&labels),
            applied_offset: self.applied_offset.with_label_values(&labels),
            sealed_offset: self.sealed_offset.with_label_values(&labels),
            lag_records: self.lag_records.with_label_values(&labels),
            memtable_bytes: self.memtable_bytes.with_label_values(&labels),
            memtable_series: self.memtable_series.with_label_values(&labels),
            memtable_samples: self.memtable_samples.with_label_values(&labels),
            wal_bytes: self.wal_bytes.with_label_values(&labels),
            wal_sync_seconds: self.wal_sync_seconds.with_label_values(&labels),
            seal_seconds: self.seal_seconds.with_label_values(&labels),
            seals: self.seals.with_label_values(&labels),
            blocks: self.blocks.with_label_values(&labels),
            block_bytes: self.block_bytes.with_label_values(&labels),
            recovery_seconds: self.recovery_seconds.with_label_values(&labels),
            replay_records: self.replay_records.with_label_values(&labels),
            replay_left: self.replay_left.with_label_values(&labels),
            stopped: self.stopped.with_label_values(&labels),
        }
    }
}

/// The metrics of one shard.
#[derive(Clone, Debug)]
pub(crate) struct ShardMetrics {
    pub(crate) batches: IntCounter,
    pub(crate) samples: IntCounter,
    pub(crate) late_samples: IntCounter,
    pub(crate) duplicate_samples: IntCounter,
    pub(crate) redelivered_records: IntCounter,
    pub(crate) dead_letters: IntCounter,
    pub(crate) view_samples: IntCounter,
    pub(crate) deletes: IntCounter,
    pub(crate) revoked_deletes: IntCounter,
    pub(crate) late_revokes: IntCounter,
    pub(crate) compaction_read_bytes: IntCounter,
    pub(crate) compaction_written_bytes: IntCounter,
    pub(crate) sealed_bytes: IntCounter,
    pub(crate) compactions: IntCounter,
    pub(crate) compaction_failures: IntCounter,
    pub(crate) retention_removed_bytes: IntCounter,
    pub(crate) retention_waiting_bytes: IntGauge,
    pub(crate) applied_offset: IntGauge,
    pub(crate) sealed_offset: IntGauge,
    pub(crate) lag_records: IntGauge,
    pub(crate) memtable_bytes: IntGauge,
    pub(crate) memtable_series: IntGauge,
    pub(crate) memtable_samples: IntGauge,
    pub(crate) wal_bytes: IntGauge,
    pub(crate) wal_sync_seconds: Histogram,
    pub(crate) seal_seconds: Histogram,
    pub(crate) seals: IntCounter,
    pub(crate) blocks: IntGauge,
    pub(crate) block_bytes: IntGauge,
    pub(crate) recovery_seconds: Gauge,
    pub(crate) replay_records: IntGauge,
    pub(crate) replay_left: IntGauge,
    pub(crate) stopped: IntGauge,
}

/// A count as a gauge's value; beyond `i64` it stays at the end of the scale.
pub(crate) fn as_gauge(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
