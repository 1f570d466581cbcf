//! What the scraper tells about itself.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use crate::ScrapeError;

/// The metrics, registered once per process.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    pub(crate) targets: IntGaugeVec,
    pub(crate) up: IntCounter,
    pub(crate) down: IntCounter,
    lost: IntCounterVec,
    exceeded: IntCounterVec,
    pub(crate) skipped: IntCounter,
    pub(crate) markers: IntCounter,
    pub(crate) duplicates: IntCounter,
    pub(crate) bad_targets: IntCounter,
    discovery_failures: IntCounterVec,
    pub(crate) reload_successful: IntGauge,
    pub(crate) reload_success_timestamp: IntGauge,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self, ScrapeError> {
        let counter = |name: &str, help: &str| -> Result<IntCounter, ScrapeError> {
            let made = IntCounter::new(name, help)?;
            registry.register(Box::new(made.clone()))?;
            Ok(made)
        };
        let gauge = |name: &str, help: &str| -> Result<IntGauge, ScrapeError> {
            let made = IntGauge::new(name, help)?;
            registry.register(Box::new(made.clone()))?;
            Ok(made)
        };
        let counters =
            |name: &str, help: &str, label: &str| -> Result<IntCounterVec, ScrapeError> {
                let made = IntCounterVec::new(Opts::new(name, help), &[label])?;
                registry.register(Box::new(made.clone()))?;
                Ok(made)
            };
        let targets = Opts::new(
            "millrace_scrape_targets",
            "Targets that are scraped (active), and that relabelling drops (dropped)",
        );
        let targets = IntGaugeVec::new(targets, &["state"])?;
        registry.register(Box::new(targets.clone()))?;
        let scrapes = counters(
            "millrace_scrape_scrapes_total",
            "Scrapes that are durable in the queue, by what became of the target",
            "target",
        )?;
        Ok(Self {
            targets,
            up: scrapes.with_label_values(&["up"]),
            down: scrapes.with_label_values(&["down"]),
            lost: counters(
                "millrace_scrape_lost_total",
                "Scrapes of which nothing was stored, not even up, by reason",
                "reason",
            )?,
            exceeded: counters(
                "millrace_scrape_exceeded_limit_total",
                "Scrapes that failed for a limit of their job or their tenant, by limit",
                "limit",
            )?,
            skipped: counter(
                "millrace_scrape_skipped_total",
                "Scrapes that were not begun because the one before still went on",
            )?,
            markers: counter(
                "millrace_scrape_stale_markers_total",
                "Staleness markers written",
            )?,
            duplicates: counter(
                "millrace_scrape_duplicate_samples_total",
                "Samples that came twice for one series and moment; the first is stored",
            )?,
            bad_targets: counter(
                "millrace_scrape_bad_targets_total",
                "Discovered targets of which relabelling made nothing that can be asked",
            )?,
            discovery_failures: counters(
                "millrace_scrape_discovery_failures_total",
                "Looks for targets that failed; those known before stay",
                "mechanism",
            )?,
            reload_successful: gauge(
                "millrace_scrape_config_last_reload_successful",
                "Whether the last attempt to read the scrape configuration succeeded",
            )?,
            reload_success_timestamp: gauge(
                "millrace_scrape_config_last_reload_success_timestamp_seconds",
                "When the scrape configuration was last read with success",
            )?,
        })
    }

    pub(crate) fn lost(&self, reason: &str) {
        self.lost.with_label_values(&[reason]).inc();
    }

    pub(crate) fn exceeded(&self, limit: &str) {
        self.exceeded.with_label_values(&[limit]).inc();
    }

    pub(crate) fn discovery_failed(&self, mechanism: &str) {
        self.discovery_failures
            .with_label_values(&[mechanism])
            .inc();
    }
}
