//! What the query API reports of the rest of the server: cardinality and blocks of the store,
//! configuration, process.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use millrace_model::{TimeRange, TimestampMs};
use millrace_query::api::{BlockFacts, Cardinality, Companions, Count, ServerInfo, Statistics};
use millrace_query::{ReadScope, SourceError};
use millrace_rules::RuleManager;
use millrace_scrape::Scraper;
use millrace_store::Store;
use prometheus::Registry;
use prometheus::proto::MetricFamily;
use serde_json::{Value, json};

use crate::config::{Config, yaml};
use crate::source::source_error;
use crate::targets::Scraped;

/// Those of a server that answers from `store`, or from the stores of other processes, whose
/// cardinality each of them tells itself.
#[must_use]
pub fn of(
    store: Option<&Arc<Store>>,
    config: &Config,
    registry: &Registry,
    scraper: Option<&Scraper>,
    rules: Option<&RuleManager>,
) -> Companions {
    let mut companions = Companions {
        server: Arc::new(Process {
            store: store.cloned(),
            config_yaml: yaml(config),
            registry: registry.clone(),
        }),
        ..Companions::default()
    };
    if let Some(store) = store {
        companions.statistics = Arc::new(StoreStatistics(store.clone()));
    }
    if let Some(scraper) = scraper {
        companions.targets = Arc::new(Scraped(scraper.clone()));
    }
    if let Some(rules) = rules {
        companions.rules = Arc::new(rules.clone());
    }
    companions
}

struct StoreStatistics(Arc<Store>);

impl fmt::Debug for StoreStatistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreStatistics")
    }
}

/// How many series have a value of a label, by value.
type Values<'a> = HashMap<&'a str, u64>;

impl Statistics for StoreStatistics {
    /// Counted over the label sets of all series, which are held for as long as that takes: some
    /// hundred bytes for each.
    fn cardinality(&self, scope: &ReadScope, limit: usize) -> Result<Cardinality, SourceError> {
        let series = self
            .0
            .series(&scope.tenant, &scope.matchers(), TimeRange::ALL)
            .map_err(source_error)?;
        let mut labels: HashMap<&str, Values<'_>> = HashMap::new();
        let mut bytes: HashMap<&str, u64> = HashMap::new();
        for (name, value) in series.iter().flatten() {
            *labels.entry(name).or_default().entry(value).or_default() += 1;
            *bytes.entry(name).or_default() += value.len() as u64;
        }
        let by_metric = labels
            .get(millrace_model::METRIC_NAME)
            .into_iter()
            .flatten();
        let pairs = labels.iter().flat_map(|(name, values)| {
            let pair = move |(value, count): (&&str, &u64)| (format!("{name}={value}"), *count);
            values.iter().map(pair)
        });
        let status = self.0.status();
        Ok(Cardinality {
            series: series.len() as u64,
            label_pairs: labels.values().map(|values| values.len() as u64).sum(),
            chunks: status.iter().map(|shard| shard.memtable_series).sum(),
            time: self.0.time_range().map(|range| (range.start, range.end)),
            series_by_metric: most(by_metric.map(|(name, n)| ((*name).to_owned(), *n)), limit),
            values_by_label: most(
                labels
                    .iter()
                    .map(|(name, values)| ((*name).to_owned(), values.len() as u64)),
                limit,
            ),
            bytes_by_label: most(
                bytes.iter().map(|(name, n)| ((*name).to_owned(), *n)),
                limit,
            ),
            series_by_pair: most(pairs, limit),
        })
    }

    fn blocks(&self) -> Vec<BlockFacts> {
        let facts = self
            .0
            .blocks()
            .into_iter()
            .map(|(id, level, summary)| BlockFacts {
                id,
                min: summary.samples_range.start,
                end: TimestampMs(summary.samples_range.end.0.saturating_add(1)),
                series: u64::from(summary.series),
                samples: summary.samples,
                chunks: summary.chunks,
                bytes: summary.bytes,
                level: u32::from(level),
            });
        let mut blocks: Vec<_> = facts.collect();
        blocks.sort_by(|a, b| (a.min, &a.id).cmp(&(b.min, &b.id)));
        blocks
    }
}

/// The largest counts; names decide where they are equal.
fn most(counts: impl Iterator<Item = Count>, limit: usize) -> Vec<Count> {
    let mut counts: Vec<_> = counts.collect();
    counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    counts.truncate(limit);
    counts
}

struct Process {
    store: Option<Arc<Store>>,
    config_yaml: String,
    registry: Registry,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Process")
    }
}

impl ServerInfo for Process {
    fn config_yaml(&self) -> String {
        self.config_yaml.clone()
    }

    fn runtime(&self) -> BTreeMap<String, Value> {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let directory = std::env::current_dir()
            .map(|dir| dir.display().to_string())
            .unwrap_or_default();
        BTreeMap::from([
            ("CWD".to_owned(), json!(directory)),
            ("GOMAXPROCS".to_owned(), json!(processors)),
        ])
    }

    /// Nobody is answered before recovery has ended, so all is read that had to be.
    fn replay(&self) -> (u64, u64) {
        let shards = self.store.as_ref().map(|store| store.status());
        let all = shards
            .iter()
            .flatten()
            .map(|shard| shard.replayed_records)
            .sum();
        (all, all)
    }

    fn metrics(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }
}
