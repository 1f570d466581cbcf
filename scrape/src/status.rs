//! What is told of targets.

use std::collections::BTreeMap;
use std::time::Duration;

use millrace_model::{MetricMetadata, TimestampMs};

/// Whether a target answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// It has not been asked.
    #[default]
    Unknown,
    /// It answers.
    Up,
    /// It does not, or not as it should.
    Down,
}

/// A target that is scraped.
#[derive(Clone, Debug)]
pub struct TargetStatus {
    /// Name of its job.
    pub pool: String,
    /// As discovery found it.
    pub discovered: BTreeMap<String, String>,
    /// As relabelling left it.
    pub labels: BTreeMap<String, String>,
    /// Where it is scraped.
    pub url: String,
    /// Why the last scrape failed or was lost, or what of a good one is not stored; empty otherwise.
    pub last_error: String,
    /// When it was scraped last.
    pub last_scrape: Option<TimestampMs>,
    /// How long that took.
    pub last_scrape_duration: Duration,
    /// Whether it answers.
    pub health: Health,
    /// Time between scrapes, as Prometheus writes it.
    pub interval: String,
    /// Time for a scrape, as Prometheus writes it.
    pub timeout: String,
    /// What it says of its metrics.
    pub metadata: Vec<MetricMetadata>,
}

/// A target that relabelling has dropped.
#[derive(Clone, Debug)]
pub struct DroppedTarget {
    /// Name of its job.
    pub pool: String,
    /// As discovery found it.
    pub discovered: BTreeMap<String, String>,
}

/// What a loop notes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Standing {
    pub(crate) last_error: String,
    pub(crate) last_scrape: Option<TimestampMs>,
    pub(crate) last_scrape_duration: Duration,
    pub(crate) health: Health,
}
