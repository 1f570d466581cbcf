//! The parts of a server that the API reports on and that are not its own: scraping, rules,
//! cardinality, configuration. Each is a small trait whose methods have the answer of a server
//! without such a part.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use millrace_model::{Labels, MetricMetadata, TimestampMs};
use prometheus::proto::MetricFamily;
use serde_json::Value;

use crate::{ReadScope, SourceError};

/// Everything that the API asks beside engine and source.
#[derive(Clone, Debug)]
pub struct Companions {
    /// What is scraped.
    pub targets: Arc<dyn Targets>,
    /// What is recorded and alerted on.
    pub rules: Arc<dyn Rules>,
    /// How many series there are of what.
    pub statistics: Arc<dyn Statistics>,
    /// Configuration and process.
    pub server: Arc<dyn ServerInfo>,
}

impl Default for Companions {
    /// Of a server that scrapes nothing, has no rules and tells nothing of itself.
    fn default() -> Self {
        Self {
            targets: Arc::new(Absent),
            rules: Arc::new(Absent),
            statistics: Arc::new(Absent),
            server: Arc::new(Absent),
        }
    }
}

/// Has none of it.
#[derive(Clone, Copy, Debug)]
struct Absent;

impl Targets for Absent {}
impl Rules for Absent {}
impl ServerInfo for Absent {}

impl Statistics for Absent {
    fn cardinality(&self, _: &ReadScope, _: usize) -> Result<Cardinality, SourceError> {
        Ok(Cardinality::default())
    }
}

/// What is scraped.
pub trait Targets: Send + Sync + fmt::Debug {
    /// Names of the scrape pools, sorted.
    fn pools(&self) -> Vec<String> {
        Vec::new()
    }

    /// Targets that are scraped, in order of their pools.
    fn active(&self) -> Vec<ActiveTarget> {
        Vec::new()
    }

    /// Targets that relabelling has dropped, as far as they are kept, in order of their pools.
    fn dropped(&self) -> Vec<DroppedTarget> {
        Vec::new()
    }

    /// How many targets each pool has dropped.
    fn dropped_counts(&self) -> BTreeMap<String, u64> {
        BTreeMap::new()
    }

    /// The relabelling of `labels` in a pool, step by step; `None` if there is no such pool.
    fn relabel_steps(&self, pool: &str, labels: &BTreeMap<String, String>) -> Option<Vec<Value>> {
        let _ = (pool, labels);
        None
    }

    /// The configuration of a pool as YAML, secrets struck out; `None` if there is no such pool.
    fn pool_config(&self, pool: &str) -> Option<String> {
        let _ = pool;
        None
    }
}

/// A target that is scraped.
#[derive(Clone, Debug)]
pub struct ActiveTarget {
    /// Its scrape pool.
    pub pool: String,
    /// As discovery found it.
    pub discovered: BTreeMap<String, String>,
    /// As relabelling left it.
    pub labels: Labels,
    /// Where it is scraped.
    pub url: String,
    /// The same as others can reach it.
    pub global_url: String,
    /// Why the last scrape failed; empty if it did not.
    pub last_error: String,
    /// When it was scraped last.
    pub last_scrape: Option<TimestampMs>,
    /// How long that took.
    pub last_scrape_duration: Duration,
    /// Whether it answers.
    pub health: Health,
    /// `15s`
    pub interval: String,
    /// `10s`
    pub timeout: String,
    /// What it says of its metrics.
    pub metadata: Vec<MetricMetadata>,
}

/// A target that relabelling has dropped.
#[derive(Clone, Debug)]
pub struct DroppedTarget {
    /// Its scrape pool.
    pub pool: String,
    /// As discovery found it.
    pub discovered: BTreeMap<String, String>,
}

/// Whether something works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It has not been tried.
    Unknown,
    /// A target that answers; a rule that can be evaluated.
    Good,
    /// Otherwise.
    Bad,
}

/// What is recorded and alerted on.
pub trait Rules: Send + Sync + fmt::Debug {
    /// The groups that a request may see, in order of file and name.
    fn groups(&self, scope: &ReadScope) -> Vec<RuleGroup> {
        let _ = scope;
        Vec::new()
    }

    /// URLs of the Alertmanagers that are sent to, and of those that were dropped.
    fn alertmanagers(&self) -> (Vec<String>, Vec<String>) {
        (Vec::new(), Vec::new())
    }
}

/// Rules that are evaluated one after the other.
#[derive(Clone, Debug)]
pub struct RuleGroup {
    /// Its name, unique in its file.
    pub name: String,
    /// Where it is written.
    pub file: String,
    /// In order of evaluation.
    pub rules: Vec<Rule>,
    /// Time between two evaluations.
    pub interval: Duration,
    /// Most series or alerts that a rule may make; 0 for no limit.
    pub limit: u64,
    /// How long the last evaluation took.
    pub evaluation_time: Duration,
    /// When that was.
    pub last_evaluation: Option<TimestampMs>,
}

/// One rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The metric, or the alert.
    pub name: String,
    /// The expression.
    pub query: String,
    /// Labels that it adds.
    pub labels: BTreeMap<String, String>,
    /// Whether it can be evaluated.
    pub health: Health,
    /// Why not; empty if it can.
    pub last_error: String,
    /// How long the last evaluation took.
    pub evaluation_time: Duration,
    /// When that was.
    pub last_evaluation: Option<TimestampMs>,
    /// What makes it an alert; `None` for a recording rule.
    pub alerting: Option<Alerting>,
}

/// What an alerting rule has beyond a recording one.
#[derive(Clone, Debug)]
pub struct Alerting {
    /// How long the condition must hold.
    pub hold: Duration,
    /// How long it keeps firing without its condition.
    pub keep_firing: Duration,
    /// Annotations, not expanded.
    pub annotations: BTreeMap<String, String>,
    /// Alerts that are pending or firing.
    pub alerts: Vec<Alert>,
}

/// One alert.
#[derive(Clone, Debug)]
pub struct Alert {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations, expanded.
    pub annotations: BTreeMap<String, String>,
    /// Whether its condition has held long enough.
    pub firing: bool,
    /// Since when the condition holds.
    pub active_at: TimestampMs,
    /// Since when it fires without its condition.
    pub keep_firing_since: Option<TimestampMs>,
    /// The value of the expression.
    pub value: f64,
}

/// How many series there are of what.
pub trait Statistics: Send + Sync + fmt::Debug {
    /// Counts over the series that a request may see, at most `limit` entries in each list.
    ///
    /// # Errors
    ///
    /// See [`SourceError`].
    fn cardinality(&self, scope: &ReadScope, limit: usize) -> Result<Cardinality, SourceError>;

    /// The blocks of the store, oldest first.
    fn blocks(&self) -> Vec<BlockFacts> {
        Vec::new()
    }
}

/// A name and how much there is of it.
pub type Count = (String, u64);

/// Counts over the series of a tenant. Lists are in falling order of their counts.
#[derive(Clone, Debug, Default)]
pub struct Cardinality {
    /// Series.
    pub series: u64,
    /// Distinct pairs of a label's name and value.
    pub label_pairs: u64,
    /// Pieces of samples in memory.
    pub chunks: u64,
    /// The oldest and the newest timestamp; `None` without samples.
    pub time: Option<(TimestampMs, TimestampMs)>,
    /// Series by metric.
    pub series_by_metric: Vec<Count>,
    /// Distinct values by label name.
    pub values_by_label: Vec<Count>,
    /// Bytes of a label's values, each once for every series that has it, by label name.
    pub bytes_by_label: Vec<Count>,
    /// Series by `name=value`.
    pub series_by_pair: Vec<Count>,
}

/// One block.
#[derive(Clone, Debug)]
pub struct BlockFacts {
    /// Its identity.
    pub id: String,
    /// First timestamp.
    pub min: TimestampMs,
    /// The first timestamp behind it.
    pub end: TimestampMs,
    /// Series in it.
    pub series: u64,
    /// Samples in it.
    pub samples: u64,
    /// Chunks in it.
    pub chunks: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// How often what is in it was compacted.
    pub level: u32,
}

/// Configuration and process.
pub trait ServerInfo: Send + Sync + fmt::Debug {
    /// The configuration as YAML, secrets struck out.
    fn config_yaml(&self) -> String {
        String::new()
    }

    /// What `status/runtimeinfo` says beside start and time, under Prometheus's names.
    fn runtime(&self) -> BTreeMap<String, Value> {
        BTreeMap::new()
    }

    /// How many records recovery had to read again, and how many of them it has.
    fn replay(&self) -> (u64, u64) {
        (0, 0)
    }

    /// The figures of the process.
    fn metrics(&self) -> Vec<MetricFamily> {
        Vec::new()
    }
}
