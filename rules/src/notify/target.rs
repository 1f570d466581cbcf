//! Which Alertmanagers there are.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use millrace_relabel::{LabelSet, Rules};

use crate::config::{AlertmanagerGroup, Discovery, Files, Header, Secret, TargetGroup, from_yaml};

/// The path of the API behind an Alertmanager's prefix.
const PATH: &str = "/api/v2/alerts";

/// The groups of the configuration, with what they were found to be.
#[derive(Debug, Default)]
pub(crate) struct Alertmanagers {
    groups: Vec<(AlertmanagerGroup, Arc<Rules>)>,
    active: Vec<Endpoint>,
    dropped: Vec<String>,
    /// When it was looked last, by the monotonic clock.
    looked: Option<Duration>,
}

/// One Alertmanager.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) url: String,
    pub(crate) timeout: Duration,
    pub(crate) alert_relabel: Arc<Rules>,
    headers: Vec<Header>,
}

impl Alertmanagers {
    pub(crate) fn new(groups: Vec<AlertmanagerGroup>) -> Self {
        let shared = |group: AlertmanagerGroup| {
            let rules = Arc::new(group.alert_relabel.clone());
            (group, rules)
        };
        Self {
            groups: groups.into_iter().map(shared).collect(),
            ..Self::default()
        }
    }

    pub(crate) fn active(&self) -> &[Endpoint] {
        &self.active
    }

    pub(crate) fn dropped(&self) -> &[String] {
        &self.dropped
    }

    /// Looks again which there are, if files say so and it is time.
    pub(crate) fn look(&mut self, files: &dyn Files, now: Duration) {
        let intervals = self.groups.iter().flat_map(|(group, _)| &group.discoveries);
        let refresh = intervals.filter_map(|discovery| match discovery {
            Discovery::Static(_) => None,
            Discovery::Files(_, every) => Some(*every),
        });
        let due = match (self.looked, refresh.min()) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(looked), Some(every)) => now.saturating_sub(looked) >= every,
        };
        if !due {
            return;
        }
        self.looked = Some(now);
        let (mut active, mut dropped): (Vec<Endpoint>, Vec<String>) = (Vec::new(), Vec::new());
        for (group, alert_relabel) in &self.groups {
            for targets in groups_of(group, files) {
                for address in &targets.targets {
                    let (labels, keep) = labels_of(group, &targets, address);
                    let url = url_of(&labels);
                    if !keep {
                        dropped.push(url);
                    } else if active.iter().all(|known| known.url != url) {
                        active.push(Endpoint {
                            url,
                            timeout: group.timeout,
                            alert_relabel: alert_relabel.clone(),
                            headers: group.headers.clone(),
                        });
                    }
                }
            }
        }
        (self.active, self.dropped) = (active, dropped);
    }
}

fn groups_of(group: &AlertmanagerGroup, files: &dyn Files) -> Vec<TargetGroup> {
    let mut found = Vec::new();
    for discovery in &group.discoveries {
        match discovery {
            Discovery::Static(groups) => found.extend(groups.iter().cloned()),
            Discovery::Files(patterns, _) => {
                for pattern in patterns {
                    match read_groups(pattern, files) {
                        Ok(groups) => found.extend(groups),
                        Err(error) => {
                            tracing::warn!(?pattern, error, "Alertmanagers cannot be looked for");
                        }
                    }
                }
            }
        }
    }
    found
}

fn read_groups(pattern: &Path, files: &dyn Files) -> Result<Vec<TargetGroup>, String> {
    let mut found = Vec::new();
    for (path, text) in files.matching(pattern)? {
        // JSON is YAML.
        let groups: Vec<TargetGroup> = match text.trim().is_empty() {
            true => Vec::new(),
            false => from_yaml(&text).map_err(|error| format!("{}: {error}", path.display()))?,
        };
        found.extend(groups);
    }
    Ok(found)
}

fn labels_of(group: &AlertmanagerGroup, targets: &TargetGroup, address: &str) -> (LabelSet, bool) {
    let mut labels = LabelSet::new();
    let path = format!("/{}{PATH}", group.path_prefix.trim_matches('/'));
    let path = path.replace("//", "/");
    labels.set("__scheme__", &group.scheme);
    labels.set("__alerts_path__", &path);
    labels.set("__address__", address);
    for (name, value) in &targets.labels {
        labels.set(name, value);
    }
    let keep = group.relabel.apply(&mut labels);
    (labels, keep)
}

/// Without a port it is that of the scheme.
fn url_of(labels: &LabelSet) -> String {
    let (scheme, address) = (labels.get("__scheme__"), labels.get("__address__"));
    format!("{scheme}://{address}{}", labels.get("__alerts_path__"))
}

impl Endpoint {
    /// What proves who we are.
    pub(crate) fn authorization(&self, files: &dyn Files) -> Result<Option<String>, String> {
        let secret = |secret: &Secret| match secret {
            Secret::Text(text) => Ok(text.clone()),
            Secret::File(path) => {
                let texts = files.matching(path)?;
                Ok::<_, String>(texts.first().map_or("", |(_, text)| text.trim()).to_owned())
            }
        };
        self.headers
            .first()
            .map(|header| match header {
                Header::Basic { username, password } => {
                    let pair = format!("{username}:{}", secret(password)?);
                    Ok(format!("Basic {}", base64(pair.as_bytes())))
                }
                Header::Token { kind, credentials } => {
                    Ok(format!("{kind} {}", secret(credentials)?))
                }
            })
            .transpose()
    }
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
