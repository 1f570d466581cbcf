//! Counts of both sides.

use std::time::Duration;

use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use crate::wire::messages::RefusalKind;

/// Of the store's side.
#[derive(Clone, Debug)]
pub struct ServeMetrics {
    sent_bytes: IntCounter,
    refused: IntCounterVec,
}

impl ServeMetrics {
    /// Registers them.
    ///
    /// # Errors
    ///
    /// If they are registered already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let sent_bytes = IntCounter::new(
            "millrace_fleet_sent_bytes_total",
            "Bytes of answers to query processes.",
        )?;
        let refused = IntCounterVec::new(
            Opts::new(
                "millrace_fleet_refused_reads_total",
                "Reads of query processes that were refused.",
            ),
            &["reason"],
        )?;
        registry.register(Box::new(sent_bytes.clone()))?;
        registry.register(Box::new(refused.clone()))?;
        Ok(Self {
            sent_bytes,
            refused,
        })
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.sent_bytes.inc_by(bytes as u64);
    }

    pub(crate) fn refused(&self, kind: RefusalKind) {
        let reason = match kind {
            RefusalKind::BadRequest => "bad_request",
            RefusalKind::ForeignQueue => "foreign_queue",
            RefusalKind::NotHere => "not_here",
            RefusalKind::Behind => "behind",
            RefusalKind::Busy => "busy",
            RefusalKind::NotReady => "not_ready",
        };
        self.refused.with_label_values(&[reason]).inc();
    }
}

/// Of the query's side. Labels are the addresses of stores.
#[derive(Clone, Debug)]
pub struct FleetMetrics {
    call_seconds: HistogramVec,
    errors: IntCounterVec,
    received_bytes: IntCounterVec,
    failovers: IntCounter,
    reachable: IntGaugeVec,
    behind_records: IntGaugeVec,
    pub(crate) buffer_bytes: IntGauge,
    incomplete: IntCounter,
}

impl FleetMetrics {
    /// Registers them.
    ///
    /// # Errors
    ///
    /// If they are registered already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            call_seconds: HistogramVec::new(
                HistogramOpts::new(
                    "millrace_fleet_call_seconds",
                    "Time from a read of a store to the end of its answer.",
                )
                .buckets(vec![
                    0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0,
                ]),
                &["store"],
            )?,
            errors: IntCounterVec::new(
                Opts::new(
                    "millrace_fleet_call_errors_total",
                    "Reads of a store that failed.",
                ),
                &["store", "reason"],
            )?,
            received_bytes: IntCounterVec::new(
                Opts::new(
                    "millrace_fleet_received_bytes_total",
                    "Bytes of frames that came from a store.",
                ),
                &["store"],
            )?,
            failovers: IntCounter::new(
                "millrace_fleet_failovers_total",
                "Reads that were asked of another replica after one had failed.",
            )?,
            reachable: IntGaugeVec::new(
                Opts::new(
                    "millrace_fleet_store_reachable",
                    "Whether the store's last status was read.",
                ),
                &["store"],
            )?,
            behind_records: IntGaugeVec::new(
                Opts::new(
                    "millrace_fleet_replica_behind_records",
                    "Records that the store lacks and another replica has.",
                ),
                &["store"],
            )?,
            buffer_bytes: IntGauge::new(
                "millrace_fleet_buffer_bytes",
                "Memory of answers that queries have not read yet.",
            )?,
            incomplete: IntCounter::new(
                "millrace_fleet_incomplete_reads_total",
                "Reads without some partition, refused or answered in part.",
            )?,
        };
        registry.register(Box::new(metrics.call_seconds.clone()))?;
        registry.register(Box::new(metrics.errors.clone()))?;
        registry.register(Box::new(metrics.received_bytes.clone()))?;
        registry.register(Box::new(metrics.failovers.clone()))?;
        registry.register(Box::new(metrics.reachable.clone()))?;
        registry.register(Box::new(metrics.behind_records.clone()))?;
        registry.register(Box::new(metrics.buffer_bytes.clone()))?;
        registry.register(Box::new(metrics.incomplete.clone()))?;
        Ok(metrics)
    }

    pub(crate) fn called(&self, store: &str, took: Duration) {
        let seconds = self.call_seconds.with_label_values(&[store]);
        seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn failed(&self, store: &str, reason: &str) {
        self.errors.with_label_values(&[store, reason]).inc();
    }

    pub(crate) fn received(&self, store: &str, bytes: u64) {
        self.received_bytes
            .with_label_values(&[store])
            .inc_by(bytes);
    }

    pub(crate) fn failover(&self) {
        self.failovers.inc();
    }

    pub(crate) fn incomplete(&self) {
        self.incomplete.inc();
    }

    pub(crate) fn polled(&self, store: &str, reachable: bool, behind: u64) {
        let gauge = self.reachable.with_label_values(&[store]);
        gauge.set(i64::from(reachable));
        let gauge = self.behind_records.with_label_values(&[store]);
        gauge.set(i64::try_from(behind).unwrap_or(i64::MAX));
    }

    /// A store that is not in the directory any more.
    pub(crate) fn forget(&self, store: &str) {
        // Not there means that it was never polled.
        for gauge in [&self.reachable, &self.behind_records] {
            if let Err(error) = gauge.remove_label_values(&[store]) {
                tracing::debug!(store, %error, "no metric of that store");
            }
        }
    }
}
