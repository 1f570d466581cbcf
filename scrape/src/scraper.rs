//! All pools, and what changes them.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use millrace_ingest::Ingest;
use millrace_log::fs::Fs;
use millrace_model::{Clock, TenantId};
use millrace_relabel::{LabelSet, Step};
use parking_lot::Mutex;
use prometheus::Registry;

use crate::config::{Config, Discovery, HttpConfig, Job};
use crate::http::Client;
use crate::metrics::Metrics;
use crate::pool::Pool;
use crate::scrape_loop::{Elsewhere, Order, Shared};
use crate::target::{Target, seed_of, with_job_labels};
use crate::{DroppedTarget, ScrapeError, TargetStatus};

/// What a scraper works with.
#[derive(Clone, Debug)]
pub struct ScraperOptions {
    /// The file with the configuration.
    pub config_file: PathBuf,
    /// The tenant that scraped series are of.
    pub tenant: TenantId,
    /// A name that differs from machine to machine: two scrapers of the same targets ask at
    /// different moments.
    pub machine: String,
}

/// The scraper. Cloning gives another handle.
#[derive(Clone)]
pub struct Scraper {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Shared,
    fs: Arc<dyn Fs>,
    config_file: PathBuf,
    pools: Mutex<Pools>,
    /// One reload at a time.
    reloading: Mutex<()>,
}

#[derive(Default)]
struct Pools {
    running: BTreeMap<String, Arc<Pool>>,
    /// Of jobs that are no more, until their markers are written.
    ending: Vec<Arc<Pool>>,
}

/// With so few targets all of them are asked whether they have a series by now; otherwise only those
/// with the same labels, since each knows a thousand.
const FEW_TARGETS: usize = 50;

/// How long loops may take to note what they have submitted when the process ends.
const LEAVE: Duration = Duration::from_secs(5);

impl fmt::Debug for Scraper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scraper")
            .field("config_file", &self.inner.config_file)
            .finish_non_exhaustive()
    }
}

impl Scraper {
    /// Reads the configuration and begins to scrape. Must be called within a runtime; reads files.
    ///
    /// # Errors
    ///
    /// A configuration with an error, or a registry that has the metrics of another scraper.
    pub fn start(
        options: ScraperOptions,
        ingest: Ingest,
        clock: Arc<dyn Clock>,
        fs: Arc<dyn Fs>,
        registry: &Registry,
    ) -> Result<Self, ScrapeError> {
        let metrics = Metrics::new(registry)?;
        let inner = Inner {
            shared: Shared {
                ingest,
                clock,
                metrics,
                seed: seed_of(&options.machine),
                tenant: options.tenant,
            },
            fs,
            config_file: options.config_file,
            pools: Mutex::default(),
            reloading: Mutex::default(),
        };
        let scraper = Self {
            inner: Arc::new(inner),
        };
        scraper.reload()?;
        Ok(scraper)
    }

    /// Reads the configuration again. Jobs that it does not change go on as they are. Must be called
    /// within a runtime; reads files.
    ///
    /// # Errors
    ///
    /// A configuration with an error. The one before goes on.
    pub fn reload(&self) -> Result<(), ScrapeError> {
        let _one_at_a_time = self.inner.reloading.lock();
        let applied = self
            .inner
            .read()
            .map(|(config, clients)| self.apply(&config, clients));
        let metrics = &self.inner.shared.metrics;
        metrics.reload_successful.set(i64::from(applied.is_ok()));
        if applied.is_ok() {
            let seconds = self.inner.shared.clock.now().0 / 1000;
            metrics.reload_success_timestamp.set(seconds);
        }
        applied
    }

    /// The file with the configuration.
    #[must_use]
    pub fn config_file(&self) -> &Path {
        &self.inner.config_file
    }

    fn apply(&self, config: &Config, clients: Vec<Client>) {
        for section in &config.ignored {
            tracing::warn!(
                section,
                "the scraper makes no use of this section of its configuration"
            );
        }
        let mut pools = self.inner.pools.lock();
        let mut before = std::mem::take(&mut pools.running);
        let (mut changed, mut new) = (0, 0);
        for (job, client) in config.jobs.iter().zip(clients) {
            let name = job.name().to_owned();
            let pool = match before.remove(&name) {
                Some(pool) => {
                    if !pool.is_as(job, &client) {
                        changed += 1;
                        pool.reconfigure(job.clone(), client);
                    }
                    pool
                }
                None => {
                    new += 1;
                    let (shared, fs) = (self.inner.shared.clone(), self.inner.fs.clone());
                    let pool = Pool::new(job.clone(), client, shared, fs, self.elsewhere());
                    pool.begin();
                    pool
                }
            };
            pools.running.insert(name, pool);
        }
        let gone = before.len();
        for pool in before.into_values() {
            pool.close(Order::End);
            pools.ending.push(pool);
        }
        pools.ending.retain(|pool| !pool.is_over());
        drop(pools);
        tracing::info!(
            jobs = config.jobs.len(),
            new,
            changed,
            gone,
            "the scrape configuration is in use"
        );
    }

    fn elsewhere(&self) -> Elsewhere {
        let inner: Weak<Inner> = Arc::downgrade(&self.inner);
        Arc::new(move |target: &Target| {
            let mut found = HashSet::new();
            if let Some(inner) = inner.upgrade() {
                let pools: Vec<_> = inner.pools.lock().running.values().cloned().collect();
                let targets: usize = pools.iter().map(|pool| pool.counts().0).sum();
                for pool in pools {
                    pool.add_series(target, targets <= FEW_TARGETS, &mut found);
                }
            }
            found
        })
    }

    /// Ends all loops, without markers. Returns when everything that they submitted is noted.
    pub async fn stop(&self) {
        let pools = {
            let mut pools = self.inner.pools.lock();
            let running = std::mem::take(&mut pools.running);
            let ending = std::mem::take(&mut pools.ending);
            running.into_values().chain(ending).collect::<Vec<_>>()
        };
        for pool in &pools {
            pool.close(Order::Stop);
        }
        let over = async {
            let mut ticks = tokio::time::interval(Duration::from_millis(5));
            while !pools.iter().all(|pool| pool.is_over()) {
                ticks.tick().await;
            }
        };
        if tokio::time::timeout(LEAVE, over).await.is_err() {
            tracing::warn!("scrapes were still being stored when the process had to end");
        }
    }

    /// Names of the jobs, sorted.
    #[must_use]
    pub fn pools(&self) -> Vec<String> {
        self.inner.pools.lock().running.keys().cloned().collect()
    }

    /// The targets that are scraped, in order of their jobs.
    #[must_use]
    pub fn active(&self) -> Vec<TargetStatus> {
        self.all().iter().flat_map(|pool| pool.active()).collect()
    }

    /// The targets that relabelling drops, as far as they are kept, in order of their jobs.
    #[must_use]
    pub fn dropped(&self) -> Vec<DroppedTarget> {
        self.all().iter().flat_map(|pool| pool.dropped()).collect()
    }

    /// How many targets each job drops.
    #[must_use]
    pub fn dropped_counts(&self) -> BTreeMap<String, u64> {
        let count = |pool: &Arc<Pool>| (pool.job().name().to_owned(), pool.counts().1 as u64);
        self.all().iter().map(count).collect()
    }

    /// What the rules of a job make of labels that discovery found, step by step; `None` if there
    /// is no such job.
    #[must_use]
    pub fn relabel_steps(
        &self,
        pool: &str,
        labels: &BTreeMap<String, String>,
    ) -> Option<Vec<Step>> {
        let job = self.job(pool)?;
        let found: LabelSet = labels
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()))
            .collect();
        Some(job.relabel.steps(with_job_labels(&found, &job)))
    }

    /// The configuration of a job as YAML, secrets struck out; `None` if there is no such job.
    #[must_use]
    pub fn pool_config(&self, pool: &str) -> Option<String> {
        let job = self.job(pool)?;
        serde_saphyr::to_string(&job.yaml).ok()
    }

    fn job(&self, pool: &str) -> Option<Arc<Job>> {
        let pools = self.inner.pools.lock();
        pools.running.get(pool).map(|pool| pool.job())
    }

    fn all(&self) -> Vec<Arc<Pool>> {
        self.inner.pools.lock().running.values().cloned().collect()
    }
}

impl Inner {
    /// The configuration, and a client for each of its jobs: what cannot be used must show before
    /// anything is changed.
    fn read(&self) -> Result<(Config, Vec<Client>), ScrapeError> {
        let config = Config::read(&*self.fs, &self.config_file)?;
        let client = |job: &Arc<Job>| {
            let client = |http: &HttpConfig| Client::new(http.clone(), self.fs.clone());
            for discovery in &job.discoveries {
                if let Discovery::Http(_, http) = discovery {
                    client(http).map_err(|what| format!("http_sd_configs: {what}"))?;
                }
            }
            client(&job.http)
        };
        let client = |job: &Arc<Job>| {
            client(job).map_err(|what| ScrapeError::Invalid {
                path: self.config_file.clone(),
                place: format!("job {:?}", job.name()),
                what,
            })
        };
        let clients = config.jobs.iter().map(client).collect::<Result<_, _>>()?;
        Ok((config, clients))
    }
}
