//! From what was written to what can be scraped.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use millrace_ingest::ScrapeLimits;
use millrace_relabel::{RuleConfig, Rules};
use url::Url;

use super::duration::PromDuration;
use super::http::HttpConfig;
use super::yaml::{DnsSd, FileSd, Global, HttpSd, JobYaml, Protocol, RecordType, StaticGroup};
use crate::{ScrapeError, files};

/// A job that has been checked, with everything that `global` decides for it.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// As it was written, for comparing and showing.
    pub(crate) yaml: JobYaml,
    pub(crate) interval: PromDuration,
    pub(crate) timeout: PromDuration,
    pub(crate) protocols: Vec<Protocol>,
    pub(crate) limits: ScrapeLimits,
    pub(crate) target_limit: usize,
    pub(crate) keep_dropped: usize,
    pub(crate) extra_metrics: bool,
    pub(crate) http: HttpConfig,
    pub(crate) relabel: Rules,
    pub(crate) metric_relabel: Arc<Rules>,
    pub(crate) discoveries: Vec<Discovery>,
}

/// One way in which a job finds its targets.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Discovery {
    Static(Vec<StaticGroup>),
    File(FileSd),
    Http(Box<HttpSd>, Box<HttpConfig>),
    Dns(DnsSd),
}

impl Job {
    pub(crate) fn name(&self) -> &str {
        &self.yaml.job_name
    }

    /// Whether both are scraped in the same way.
    pub(crate) fn same(&self, other: &Self) -> bool {
        self.yaml == other.yaml
            && self.interval == other.interval
            && self.timeout == other.timeout
            && self.protocols == other.protocols
            && self.limits == other.limits
            && self.target_limit == other.target_limit
            && self.keep_dropped == other.keep_dropped
            && self.extra_metrics == other.extra_metrics
            && self.discoveries == other.discoveries
            && self.http == other.http
    }
}

/// What `scrape_protocols` is where it is not given.
const PROTOCOLS: [Protocol; 4] = [
    Protocol::OpenMetricsText100,
    Protocol::OpenMetricsText001,
    Protocol::PrometheusText100,
    Protocol::PrometheusText004,
];

/// What `scrape_interval` is where it is not given.
const INTERVAL: PromDuration = PromDuration::from_secs(60);
/// What `scrape_timeout` is where it is not given, unless the interval is shorter.
const TIMEOUT: PromDuration = PromDuration::from_secs(10);

/// Checks the jobs of all files.
pub(super) fn jobs(
    mut global: Global,
    found: &[(PathBuf, Vec<JobYaml>)],
) -> Result<Vec<Arc<Job>>, ScrapeError> {
    let (main, _) = &found[0];
    global.scrape_interval = or_global(Some(global.scrape_interval), INTERVAL);
    if global.scrape_timeout > global.scrape_interval {
        let what = "global scrape timeout greater than scrape interval";
        return Err(invalid(main, "global", what));
    }
    let default = TIMEOUT.min(global.scrape_interval);
    global.scrape_timeout = or_global(Some(global.scrape_timeout), default);
    let mut names: HashMap<&str, &Path> = HashMap::new();
    let mut jobs = Vec::new();
    for (path, yaml) in found {
        for (job, number) in yaml.iter().zip(1..) {
            if job.job_name.is_empty() {
                let place = format!("scrape_configs, job {number}");
                return Err(invalid(path, &place, "job_name is empty"));
            }
            let place = format!("job {:?}", job.job_name);
            if names.insert(&job.job_name, path).is_some() {
                let what = "there are several scrape configs of this job name";
                return Err(invalid(path, &place, what));
            }
            let checked = check(&global, job, files::parent(path));
            let job = checked
                .map_err(|(field, what)| invalid(path, &format!("{place}, {field}"), &what))?;
            jobs.push(Arc::new(job));
        }
    }
    jobs.sort_by(|a, b| a.name().cmp(b.name()));
    Ok(jobs)
}

fn invalid(path: &Path, place: &str, what: &str) -> ScrapeError {
    ScrapeError::Invalid {
        path: path.to_owned(),
        place: place.to_owned(),
        what: what.to_owned(),
    }
}

/// A field, and what is wrong with it.
type Wrong = (String, String);

fn check(global: &Global, yaml: &JobYaml, dir: &Path) -> Result<Job, Wrong> {
    let wrong = |field: &str, what: &str| Err((field.to_owned(), what.to_owned()));
    let interval = or_global(yaml.scrape_interval, global.scrape_interval);
    let timeout = or_global(yaml.scrape_timeout, global.scrape_timeout.min(interval));
    if timeout > interval {
        let what = format!("scrape timeout greater than scrape interval ({timeout} > {interval})");
        return wrong("scrape_timeout", &what);
    }
    if yaml.scheme != "http" && yaml.scheme != "https" {
        return wrong(
            "scheme",
            &format!("{:?} is neither http nor https", yaml.scheme),
        );
    }
    let protocols = yaml
        .scrape_protocols
        .as_ref()
        .or(global.scrape_protocols.as_ref());
    let protocols = protocols.map_or(&PROTOCOLS[..], Vec::as_slice);
    let readable = |protocol: &&Protocol| **protocol != Protocol::PrometheusProto;
    let protocols: Vec<_> = protocols.iter().filter(readable).copied().collect();
    if protocols.is_empty() {
        let what = "names none that is a text format; protobuf is not asked for";
        return wrong("scrape_protocols", what);
    }
    if yaml.fallback_scrape_protocol == Some(Protocol::PrometheusProto) {
        return wrong("fallback_scrape_protocol", "protobuf is not read");
    }
    let mut http = yaml
        .http()
        .map_err(|(field, what)| (field.to_owned(), what))?;
    http.relative_to(dir);
    Ok(Job {
        interval,
        timeout,
        protocols,
        limits: ScrapeLimits {
            body_size: or_global(yaml.body_size_limit, global.body_size_limit).as_usize(),
            samples: or_global(yaml.sample_limit, global.sample_limit),
            labels: or_global(yaml.label_limit, global.label_limit),
            label_name_length: or_global(
                yaml.label_name_length_limit,
                global.label_name_length_limit,
            ),
            label_value_length: or_global(
                yaml.label_value_length_limit,
                global.label_value_length_limit,
            ),
        },
        target_limit: or_global(yaml.target_limit, global.target_limit),
        keep_dropped: or_global(yaml.keep_dropped_targets, global.keep_dropped_targets),
        extra_metrics: yaml
            .extra_scrape_metrics
            .unwrap_or(global.extra_scrape_metrics),
        http,
        relabel: rules("relabel_configs", &yaml.relabel_configs)?,
        metric_relabel: Arc::new(rules(
            "metric_relabel_configs",
            &yaml.metric_relabel_configs,
        )?),
        discoveries: discoveries(yaml, dir)?,
        yaml: yaml.clone(),
    })
}

/// Zero is not given, as in Prometheus.
fn or_global<T: Copy + Default + PartialEq>(own: Option<T>, global: T) -> T {
    own.filter(|own| *own != T::default()).unwrap_or(global)
}

fn rules(field: &str, configs: &[RuleConfig]) -> Result<Rules, Wrong> {
    let named = |number: usize| format!("{field}, rule {number}");
    Rules::new(configs).map_err(|error| (named(error.number), error.error.to_string()))
}

fn discoveries(yaml: &JobYaml, dir: &Path) -> Result<Vec<Discovery>, Wrong> {
    let mut found = Vec::new();
    if !yaml.static_configs.is_empty() {
        for (group, number) in yaml.static_configs.iter().zip(1..) {
            let wrong = |what| (format!("static_configs, group {number}"), what);
            check_group(group).map_err(wrong)?;
            let bad = |target: &&String| target.contains('/');
            if let Some(target) = group.targets.iter().find(bad) {
                return Err(wrong(format!("{target:?} is not a valid hostname")));
            }
        }
        found.push(Discovery::Static(yaml.static_configs.clone()));
    }
    for sd in &yaml.file_sd_configs {
        let wrong = |what: String| Err(("file_sd_configs".to_owned(), what));
        if sd.files.is_empty() {
            return wrong("must have at least one path in files".to_owned());
        }
        let mut sd = sd.clone();
        for file in &mut sd.files {
            if !files::is_group_pattern(file) {
                let shown = file.display();
                return wrong(format!(
                    "path name {shown:?} is not valid for file discovery: it must end in .json, \
                     .yml or .yaml, and only its last part may have a *"
                ));
            }
            *file = dir.join(&*file);
        }
        positive("file_sd_configs", sd.refresh_interval.0)?;
        found.push(Discovery::File(sd));
    }
    for sd in &yaml.http_sd_configs {
        let wrong = |what: String| ("http_sd_configs".to_owned(), what);
        let url =
            Url::parse(&sd.url).map_err(|error| wrong(format!("url {:?}: {error}", sd.url)))?;
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err(wrong(format!(
                "url {:?} must be http or https with a host",
                sd.url
            )));
        }
        let mut http = sd
            .http()
            .map_err(|(field, what)| wrong(format!("{field}: {what}")))?;
        http.relative_to(dir);
        positive("http_sd_configs", sd.refresh_interval.0)?;
        found.push(Discovery::Http(Box::new(sd.clone()), Box::new(http)));
    }
    for sd in &yaml.dns_sd_configs {
        let wrong = |what: &str| Err(("dns_sd_configs".to_owned(), what.to_owned()));
        if sd.names.is_empty() {
            return wrong("must contain at least one name");
        }
        if sd.record != RecordType::Srv && sd.port == 0 {
            return wrong("a port is required for all record types except SRV");
        }
        positive("dns_sd_configs", sd.refresh_interval.0)?;
        found.push(Discovery::Dns(sd.clone()));
    }
    Ok(found)
}

fn positive(field: &str, interval: Duration) -> Result<(), Wrong> {
    match interval.is_zero() {
        true => Err((
            field.to_owned(),
            "refresh_interval must be more than zero".to_owned(),
        )),
        false => Ok(()),
    }
}

/// Whether a group can be one. Of discovered ones each address is looked at by itself, when a target is
/// made of it.
pub(crate) fn check_group(group: &StaticGroup) -> Result<(), String> {
    match group.labels.keys().any(String::is_empty) {
        true => Err("a label has no name".to_owned()),
        false => Ok(()),
    }
}
