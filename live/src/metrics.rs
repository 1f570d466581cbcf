//! Figures of the feed.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// Figures of the feed.
#[derive(Clone, Debug)]
pub struct LiveMetrics {
    pub(crate) subscribers: IntGauge,
    pub(crate) subscriptions: IntCounter,
    pub(crate) refused: IntCounter,
    pub(crate) dropped: IntCounterVec,
    pub(crate) gaps: IntCounter,
    pub(crate) ring_bytes: IntGauge,
}

impl LiveMetrics {
    /// Registers them.
    ///
    /// # Errors
    ///
    /// If the registry has them already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            subscribers: IntGauge::new("millrace_live_subscribers", "Subscribers now.")?,
            subscriptions: IntCounter::new(
                "millrace_live_subscriptions_total",
                "Subscriptions that were taken.",
            )?,
            refused: IntCounter::new(
                "millrace_live_refused_total",
                "Subscriptions that were refused because there were as many as may be.",
            )?,
            dropped: IntCounterVec::new(
                Opts::new(
                    "millrace_live_dropped_total",
                    "Subscribers whose feed the server ended, by reason.",
                ),
                &["reason"],
            )?,
            gaps: IntCounter::new(
                "millrace_live_gaps_total",
                "Gaps that subscribers were told of.",
            )?,
            ring_bytes: IntGauge::new(
                "millrace_live_ring_bytes",
                "Bytes of what is kept for all subscribers.",
            )?,
        };
        registry.register(Box::new(metrics.subscribers.clone()))?;
        registry.register(Box::new(metrics.subscriptions.clone()))?;
        registry.register(Box::new(metrics.refused.clone()))?;
        registry.register(Box::new(metrics.dropped.clone()))?;
        registry.register(Box::new(metrics.gaps.clone()))?;
        registry.register(Box::new(metrics.ring_bytes.clone()))?;
        Ok(metrics)
    }
}
