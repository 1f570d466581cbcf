//! Counts and times of the API.

use std::time::Duration;

use http::StatusCode;
use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};

/// Metrics of the API. Cloning shares them.
#[derive(Clone, Debug)]
pub struct ApiMetrics {
    requests: IntCounterVec,
    duration: HistogramVec,
    in_flight: IntGauge,
    waiting: IntGauge,
    refused: IntCounterVec,
    cancelled: IntCounter,
    stalled: IntCounter,
    listed: IntGauge,
    stopped: IntCounter,
    slow: IntCounter,
}

impl ApiMetrics {
    /// Registers the metrics.
    ///
    /// # Errors
    ///
    /// When one of the names is taken already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            requests: IntCounterVec::new(
                Opts::new(
                    "millrace_query_requests_total",
                    "API requests by endpoint and status code.",
                ),
                &["endpoint", "status"],
            )?,
            duration: HistogramVec::new(
                HistogramOpts::new(
                    "millrace_query_request_duration_seconds",
                    "Time from a request's head to the first byte of its answer.",
                )
                // From a label lookup to the ordinary query timeout, in steps of about 2.5.
                .buckets(vec![
                    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
                    30.0,
                ]),
                &["endpoint"],
            )?,
            in_flight: IntGauge::new(
                "millrace_query_requests_in_flight",
                "API requests that are being answered.",
            )?,
            waiting: IntGauge::new(
                "millrace_query_waiting",
                "Queries that wait for a query thread.",
            )?,
            refused: IntCounterVec::new(
                Opts::new(
                    "millrace_query_refused_total",
                    "Queries refused because all query threads were busy.",
                ),
                &["reason"],
            )?,
            cancelled: IntCounter::new(
                "millrace_query_cancelled_total",
                "Queries whose client left before the answer was ready.",
            )?,
            listed: IntGauge::new("millrace_query_running", "Queries that wait or run.")?,
            stopped: IntCounter::new(
                "millrace_query_stopped_total",
                "Queries that were asked to stop by their number.",
            )?,
            slow: IntCounter::new(
                "millrace_query_slow_total",
                "Queries that took longer than the threshold of the slow-query log.",
            )?,
            stalled: IntCounter::new(
                "millrace_query_stalled_total",
                "Answers cut off because their client stopped reading.",
            )?,
        };
        registry.register(Box::new(metrics.requests.clone()))?;
        registry.register(Box::new(metrics.duration.clone()))?;
        registry.register(Box::new(metrics.in_flight.clone()))?;
        registry.register(Box::new(metrics.waiting.clone()))?;
        registry.register(Box::new(metrics.refused.clone()))?;
        registry.register(Box::new(metrics.cancelled.clone()))?;
        registry.register(Box::new(metrics.stalled.clone()))?;
        registry.register(Box::new(metrics.listed.clone()))?;
        registry.register(Box::new(metrics.stopped.clone()))?;
        registry.register(Box::new(metrics.slow.clone()))?;
        Ok(metrics)
    }

    pub(super) fn enter(&self) -> CountGuard {
        CountGuard::new(&self.in_flight)
    }

    pub(super) fn wait(&self) -> CountGuard {
        CountGuard::new(&self.waiting)
    }

    pub(super) fn answered(&self, endpoint: &str, status: StatusCode, elapsed: Duration) {
        self.requests
            .with_label_values(&[endpoint, status.as_str()])
            .inc();
        self.duration
            .with_label_values(&[endpoint])
            .observe(elapsed.as_secs_f64());
    }

    pub(super) fn refused(&self, reason: &str) {
        self.refused.with_label_values(&[reason]).inc();
    }

    pub(super) fn stalled(&self) {
        self.stalled.inc();
    }

    /// So many more queries, or fewer, are in hand.
    pub(super) fn listed(&self, change: i64) {
        self.listed.add(change);
    }

    pub(super) fn stopped(&self) {
        self.stopped.inc();
    }

    pub(super) fn slow(&self) {
        self.slow.inc();
    }

    pub(super) fn cancelled(&self) {
        self.cancelled.inc();
    }
}

/// Counts its own life in a gauge.
pub(super) struct CountGuard(IntGauge);

impl CountGuard {
    fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for CountGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}
