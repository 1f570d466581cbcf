//! The configuration, in Prometheus's YAML.
//!
//! [`yaml`] is what may be written, [`check`] turns it into what the scraper works with. An error
//! names file, job, field and rule.

mod check;
mod duration;
mod http;
mod secret;
mod size;
mod yaml;

use std::path::Path;
use std::sync::Arc;

use millrace_log::fs::Fs;
use millrace_relabel::{RuleConfig, Rules};
use serde::Deserialize;

use crate::ScrapeError;
use crate::files;
pub(crate) use check::{Discovery, Job, check_group};
pub(crate) use duration::PromDuration;
pub(crate) use http::{Authorization, BasicAuth, HttpConfig, TlsConfig};
pub(crate) use yaml::{DnsSd, FileSd, HttpSd, Protocol, RecordType, StaticGroup};

/// Checked jobs, ready to be scraped.
#[derive(Clone, Debug, Default)]
pub struct Config {
    pub(crate) jobs: Vec<Arc<Job>>,
    /// Sections of the file that mean nothing here.
    pub(crate) ignored: Vec<&'static str>,
}

impl Config {
    /// Reads and checks a file, and those that its `scrape_config_files` name.
    ///
    /// # Errors
    ///
    /// [`ScrapeError`], with file, job, field and rule.
    pub fn read(fs: &dyn Fs, path: &Path) -> Result<Self, ScrapeError> {
        let text = files::read_text(fs, path)?;
        let file: yaml::File = parse(path, &text)?;
        let ignored = file.ignored();
        let mut found = Vec::new();
        let dir = files::parent(path);
        for pattern in &file.scrape_config_files {
            for path in files::matching(fs, &dir.join(pattern))? {
                let text = files::read_text(fs, &path)?;
                let more: yaml::MoreFile = parse(&path, &text)?;
                found.push((path, more.scrape_configs));
            }
        }
        found.insert(0, (path.to_owned(), file.scrape_configs));
        let jobs = check::jobs(file.global, &found)?;
        Ok(Self { jobs, ignored })
    }

    /// Number of jobs.
    #[must_use]
    pub fn jobs(&self) -> usize {
        self.jobs.len()
    }
}

/// The rules for pushed series: a YAML file with a list of rules, or with one under
/// `relabel_configs`.
#[derive(Debug)]
pub struct PushRelabel;

impl PushRelabel {
    /// Reads and checks the rules.
    ///
    /// # Errors
    ///
    /// [`ScrapeError`], with file, field and rule.
    pub fn read(fs: &dyn Fs, path: &Path) -> Result<Rules, ScrapeError> {
        #[derive(Default, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Wrapped {
            #[serde(deserialize_with = "yaml::or_default")]
            relabel_configs: Vec<RuleConfig>,
        }
        let text = files::read_text(fs, path)?;
        let wrapped = text
            .lines()
            .any(|line| line.trim_end().starts_with("relabel_configs:"));
        let rules: Vec<RuleConfig> = match wrapped {
            true => parse::<Wrapped>(path, &text)?.relabel_configs,
            false => parse(path, &text)?,
        };
        Rules::new(&rules).map_err(|error| ScrapeError::Invalid {
            path: path.to_owned(),
            place: format!("rule {}", error.number),
            what: error.error.to_string(),
        })
    }
}

pub(crate) fn parse<T: serde::de::DeserializeOwned + Default>(
    path: &Path,
    text: &str,
) -> Result<T, ScrapeError> {
    yaml::from_str(text).map_err(|what| ScrapeError::Yaml {
        path: path.to_owned(),
        what,
    })
}

#[cfg(test)]
mod tests;
