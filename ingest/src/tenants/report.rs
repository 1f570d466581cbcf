//! What each tenant uses of its limits, for whoever asks.

use std::sync::atomic::Ordering;
use std::time::Duration;

use millrace_model::TenantId;
use serde::Serialize;

use super::{Tenant, Tenants, epoch_at};

/// The use of limits in this process.
#[derive(Clone, Debug, Serialize)]
pub struct LimitsReport {
    /// Series of all tenants that are kept count of.
    pub tracked_series: u64,
    /// As many are kept count of at most (`ingest.tenants.tracked_series`).
    pub tracked_series_limit: u64,
    /// The tenants, by name.
    pub tenants: Vec<TenantReport>,
}

/// What one tenant uses.
#[derive(Clone, Debug, Serialize)]
pub struct TenantReport {
    /// Who.
    pub tenant: String,
    /// Series that a sample was accepted for within the last 60 to 65 minutes.
    pub active_series: u64,
    /// Its limit; absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active_series_limit: Option<u64>,
    /// Series that became active within the last 60 to 65 minutes.
    pub new_series: u64,
    /// Its limit; absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_series_per_hour_limit: Option<u64>,
    /// Samples a second that are taken; absent where there is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub samples_per_second_limit: Option<u64>,
    /// Samples of new series refused since the process began.
    pub refused_new_series: u64,
    /// Requests refused for their rate since the process began.
    pub rate_limited_requests: u64,
    /// Bytes of bodies in hand.
    pub decoding_bytes: usize,
    /// Bytes that wait to become durable.
    pub pending_bytes: usize,
    /// Metrics with the most active series, about.
    pub top_metrics: Vec<Offender>,
    /// Labels with the most values, about.
    pub top_labels: Vec<Offender>,
}

/// Something that there is much of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Offender {
    /// Of a metric or label.
    pub name: String,
    /// How many series or values, about.
    pub count: u64,
}

impl Tenants {
    /// The use of one tenant, or of all, with so many of the worst metrics and labels.
    pub(crate) fn report(&self, of: Option<&TenantId>, top: usize, now: Duration) -> LimitsReport {
        let by_id = self.by_id.read();
        let chosen = by_id.values().filter(|t| of.is_none_or(|id| *id == t.id));
        let mut tenants: Vec<TenantReport> = chosen
            .map(|tenant| {
                tenant.active.advance(epoch_at(now), &self.tracked);
                tenant.report(top, now)
            })
            .collect();
        tenants.sort_by(|a, b| a.tenant.cmp(&b.tenant));
        LimitsReport {
            tracked_series: self.tracked.series(),
            tracked_series_limit: self.tracked.max(),
            tenants,
        }
    }
}

impl Tenant {
    fn report(&self, top: usize, now: Duration) -> TenantReport {
        let limits = self.limits();
        let top = self.offenders.lock().top(epoch_at(now), top);
        let offenders = |list: Vec<(String, u64)>| {
            let one = |(name, count)| Offender { name, count };
            list.into_iter().map(one).collect()
        };
        TenantReport {
            tenant: self.id.to_string(),
            active_series: self.active.series(),
            active_series_limit: limits.per_process(limits.active_series),
            new_series: self.active.new_series(),
            new_series_per_hour_limit: limits.per_process(limits.new_series_per_hour),
            samples_per_second_limit: limits.per_process(limits.samples_per_second),
            refused_new_series: self.refused_series.load(Ordering::Relaxed),
            rate_limited_requests: self.refused_requests.load(Ordering::Relaxed),
            decoding_bytes: self.decoding.bytes(),
            pending_bytes: self.pending.bytes(),
            top_metrics: offenders(top.metrics),
            top_labels: offenders(top.labels),
        }
    }
}
