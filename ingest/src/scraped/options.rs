//! What a scraper says of its targets.

use std::sync::Arc;
use std::time::Duration;

use millrace_model::TenantId;
use millrace_relabel::Rules;

/// How the lines of a target become series.
#[derive(Clone, Debug)]
pub struct TargetOptions {
    /// Whose series they are.
    pub tenant: TenantId,
    /// The target's own labels, none of which begins with `__`.
    pub labels: Vec<(String, String)>,
    /// Whether labels of the exposition stand against those of the target; otherwise they become
    /// `exported_…`.
    pub honor_labels: bool,
    /// Whether timestamps of the exposition are taken.
    pub honor_timestamps: bool,
    /// Whether series with timestamps of their own get staleness markers.
    pub track_timestamps_staleness: bool,
    /// The rules for each series.
    pub metric_relabel: Arc<Rules>,
    /// What a scrape may bring.
    pub limits: ScrapeLimits,
    /// The further report series, if they are wanted.
    pub extras: Option<ReportExtras>,
}

/// Bounds of a scrape in Prometheus's words; 0 is no bound. A breach fails the whole scrape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrapeLimits {
    /// Bytes of the body, decompressed.
    pub body_size: usize,
    /// Samples that are left after relabelling.
    pub samples: u64,
    /// Labels of a series.
    pub labels: usize,
    /// Bytes of a label's name.
    pub label_name_length: usize,
    /// Bytes of a label's value.
    pub label_value_length: usize,
}

/// What the further report series say.
#[derive(Clone, Copy, Debug)]
pub struct ReportExtras {
    /// `scrape_timeout_seconds`
    pub timeout: Duration,
}
