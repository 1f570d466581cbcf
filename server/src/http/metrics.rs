//! Figures of the HTTP server.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// Counted per connection and per request.
#[derive(Clone, Debug)]
pub struct HttpMetrics {
    /// `millrace_http_connections`
    pub connections: IntGauge,
    /// `millrace_http_connections_accepted_total`
    pub accepted: IntCounter,
    /// `millrace_http_connections_refused_total{reason}`
    pub refused: IntCounterVec,
    /// `millrace_http_connections_failed_total{reason}`
    pub failed: IntCounterVec,
    /// `millrace_http_requests_total{code}`
    pub requests: IntCounterVec,
    /// `millrace_http_panics_total`
    pub panics: IntCounter,
}

impl HttpMetrics {
    /// Registers them.
    ///
    /// # Errors
    ///
    /// If one of the names is taken.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            connections: IntGauge::new("millrace_http_connections", "Open connections.")?,
            accepted: IntCounter::new(
                "millrace_http_connections_accepted_total",
                "Connections that were accepted.",
            )?,
            refused: IntCounterVec::new(
                Opts::new(
                    "millrace_http_connections_refused_total",
                    "Connections that were closed at once.",
                ),
                &["reason"],
            )?,
            failed: IntCounterVec::new(
                Opts::new(
                    "millrace_http_connections_failed_total",
                    "Connections that ended by an error.",
                ),
                &["reason"],
            )?,
            requests: IntCounterVec::new(
                Opts::new(
                    "millrace_http_requests_total",
                    "Requests by the status of their answer.",
                ),
                &["code"],
            )?,
            panics: IntCounter::new(
                "millrace_http_panics_total",
                "Requests whose handler panicked: each is a bug.",
            )?,
        };
        registry.register(Box::new(metrics.connections.clone()))?;
        registry.register(Box::new(metrics.accepted.clone()))?;
        registry.register(Box::new(metrics.refused.clone()))?;
        registry.register(Box::new(metrics.failed.clone()))?;
        registry.register(Box::new(metrics.requests.clone()))?;
        registry.register(Box::new(metrics.panics.clone()))?;
        Ok(metrics)
    }
}
