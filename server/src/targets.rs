//! What the query API tells of the scraper's targets.

use std::collections::BTreeMap;

use millrace_model::Labels;
use millrace_query::api::{ActiveTarget, DroppedTarget, Health, Targets};
use millrace_scrape::{Health as Answers, Scraper, TargetStatus};
use serde_json::{Value, json};

/// The targets of a scraper.
#[derive(Debug)]
pub struct Scraped(pub Scraper);

impl Targets for Scraped {
    fn pools(&self) -> Vec<String> {
        self.0.pools()
    }

    fn active(&self) -> Vec<ActiveTarget> {
        self.0.active().into_iter().map(active).collect()
    }

    fn dropped(&self) -> Vec<DroppedTarget> {
        let dropped = self.0.dropped().into_iter();
        let dropped = dropped.map(|target| DroppedTarget {
            pool: target.pool,
            discovered: target.discovered,
        });
        dropped.collect()
    }

    fn dropped_counts(&self) -> BTreeMap<String, u64> {
        self.0.dropped_counts()
    }

    fn relabel_steps(&self, pool: &str, labels: &BTreeMap<String, String>) -> Option<Vec<Value>> {
        let steps = self.0.relabel_steps(pool, labels)?.into_iter();
        let steps = steps.map(|step| {
            let output: BTreeMap<_, _> = step.output.iter().collect();
            json!({ "rule": step.rule, "output": output, "keep": step.keep })
        });
        Some(steps.collect())
    }

    fn pool_config(&self, pool: &str) -> Option<String> {
        self.0.pool_config(pool)
    }
}

fn active(target: TargetStatus) -> ActiveTarget {
    let pairs = target
        .labels
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    ActiveTarget {
        labels: Labels::from_pairs(pairs).expect("a target's labels have names, each its own"),
        pool: target.pool,
        discovered: target.discovered,
        global_url: target.url.clone(),
        url: target.url,
        last_error: target.last_error,
        last_scrape: target.last_scrape,
        last_scrape_duration: target.last_scrape_duration,
        health: match target.health {
            Answers::Unknown => Health::Unknown,
            Answers::Up => Health::Good,
            Answers::Down => Health::Bad,
        },
        interval: target.interval,
        timeout: target.timeout,
        metadata: target.metadata,
    }
}
