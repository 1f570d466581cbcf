//! From the labels that discovery found to a target that can be asked.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use millrace_ingest::{ReportExtras, TargetOptions};
use millrace_model::TenantId;
use millrace_relabel::LabelSet;
use url::Url;
use url::form_urlencoded::Serializer;

use crate::config::{Job, PromDuration};

const ADDRESS: &str = "__address__";
const SCHEME: &str = "__scheme__";
const METRICS_PATH: &str = "__metrics_path__";
const INTERVAL: &str = "__scrape_interval__";
const TIMEOUT: &str = "__scrape_timeout__";
const PARAM_PREFIX: &str = "__param_";
const META_PREFIX: &str = "__meta_";

/// A target, as relabelling left it.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// As discovery found it, with what the job adds.
    pub(crate) discovered: LabelSet,
    /// Its own labels: none begins with `__`.
    pub(crate) labels: LabelSet,
    pub(crate) url: Url,
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
    /// Tells it from others, and decides its moments. The same in every process.
    pub(crate) key: u64,
}

/// What became of discovered labels.
#[derive(Debug)]
pub(crate) enum Populated {
    Target(Box<Target>),
    /// The rules drop it.
    Dropped(LabelSet),
}

/// Adds what the job says of every target.
pub(crate) fn with_job_labels(found: &LabelSet, job: &Job) -> LabelSet {
    let mut labels = found.clone();
    let (interval, timeout) = (job.interval.to_string(), job.timeout.to_string());
    for (name, value) in [
        ("job", job.name()),
        (INTERVAL, &interval),
        (TIMEOUT, &timeout),
        (METRICS_PATH, &job.yaml.metrics_path),
        (SCHEME, &job.yaml.scheme),
    ] {
        if !labels.has(name) {
            labels.set(name, value);
        }
    }
    for (name, values) in &job.yaml.params {
        if let Some(first) = values.first() {
            labels.set(&format!("{PARAM_PREFIX}{name}"), first);
        }
    }
    labels
}

/// Makes a target of what discovery found.
///
/// # Errors
///
/// In words, if relabelling has left something that cannot be asked.
pub(crate) fn populate(found: &LabelSet, job: &Job) -> Result<Populated, String> {
    let discovered = with_job_labels(found, job);
    let mut labels = discovered.clone();
    if !job.relabel.apply(&mut labels) {
        return Ok(Populated::Dropped(discovered));
    }
    let address = labels.get(ADDRESS).to_owned();
    if address.is_empty() {
        return Err("no address".to_owned());
    }
    if address.contains('/') {
        return Err(format!("{address:?} is not a valid hostname"));
    }
    let interval = duration(&labels, INTERVAL, "scrape interval")?;
    let timeout = duration(&labels, TIMEOUT, "scrape timeout")?;
    if timeout > interval {
        return Err(format!(
            "scrape timeout cannot be greater than scrape interval ({:?} > {:?})",
            labels.get(TIMEOUT),
            labels.get(INTERVAL)
        ));
    }
    labels.retain(|name, _| !name.starts_with(META_PREFIX));
    if !labels.has("instance") {
        labels.set("instance", &address);
    }
    let url = url(&labels, &job.yaml.params)?;
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    for part in labels.iter().flat_map(|(name, value)| [name, value]) {
        hasher.update(part.as_bytes());
        hasher.update(&[0xff]);
    }
    hasher.update(url.as_str().as_bytes());
    labels.retain(|name, _| !name.starts_with("__"));
    Ok(Populated::Target(Box::new(Target {
        discovered,
        labels,
        url,
        interval,
        timeout,
        key: hasher.digest(),
    })))
}

fn duration(labels: &LabelSet, name: &str, what: &str) -> Result<Duration, String> {
    let parsed = labels.get(name).parse::<PromDuration>();
    let duration = parsed.map_err(|error| format!("error parsing {what}: {error}"))?;
    match duration.is_zero() {
        true => Err(format!("{what} cannot be 0")),
        false => Ok(duration.0),
    }
}

fn url(labels: &LabelSet, params: &BTreeMap<String, Vec<String>>) -> Result<Url, String> {
    let (scheme, address) = (labels.get(SCHEME), labels.get(ADDRESS));
    if scheme != "http" && scheme != "https" {
        return Err(format!("invalid scheme: {scheme:?}"));
    }
    let base = format!("{scheme}://{address}");
    let mut url = Url::parse(&base).map_err(|error| format!("{base:?} is no URL: {error}"))?;
    // Prometheus takes the label as a path only; `?` in it is escaped.
    url.set_path(labels.get(METRICS_PATH));
    let mut params = params.clone();
    for (name, value) in labels.iter() {
        let Some(name) = name.strip_prefix(PARAM_PREFIX) else {
            continue;
        };
        match params.get_mut(name).and_then(|values| values.first_mut()) {
            Some(first) => value.clone_into(first),
            None => drop(params.insert(name.to_owned(), vec![value.to_owned()])),
        }
    }
    let mut query = Serializer::new(String::new());
    for (name, values) in &params {
        for value in values {
            query.append_pair(name, value);
        }
    }
    let query = query.finish();
    url.set_query(Some(query.as_str()).filter(|query| !query.is_empty()));
    Ok(url)
}

impl Target {
    /// When within its interval it is asked: spread over all targets, and the same after a restart.
    /// Returns the time until the first scrape.
    pub(crate) fn first_after(&self, now_ms: i64, seed: u64) -> Duration {
        let interval = u64::try_from(self.interval.as_nanos())
            .unwrap_or(u64::MAX)
            .max(1);
        let now = u64::try_from(now_ms).unwrap_or(0).saturating_mul(1_000_000);
        let base = interval - now % interval;
        let next = base + (self.key ^ seed) % interval;
        Duration::from_nanos(if next > interval {
            next - interval
        } else {
            next
        })
    }

    /// What ingest has to know of it.
    pub(crate) fn options(&self, job: &Job, tenant: &TenantId) -> TargetOptions {
        let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        TargetOptions {
            tenant: tenant.clone(),
            labels: self.labels.iter().map(own).collect(),
            honor_labels: job.yaml.honor_labels,
            honor_timestamps: job.yaml.honor_timestamps,
            track_timestamps_staleness: job.yaml.track_timestamps_staleness,
            metric_relabel: job.metric_relabel.clone(),
            limits: job.limits,
            extras: job.extra_metrics.then_some(ReportExtras {
                timeout: self.timeout,
            }),
        }
    }
}

/// A seed that differs from machine to machine, so that two scrapers of the same targets do not ask
/// at the same moments.
pub(crate) fn seed_of(machine: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    machine.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests;
