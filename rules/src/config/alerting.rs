//! What of Prometheus's configuration file rules and alerts need: `global`, `rule_files`, `alerting`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use millrace_model::TenantId;
use millrace_relabel::{RuleConfig, Rules};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::rule_file::PromDuration;
use super::{Files, from_yaml};
use crate::RulesError;

/// What holds for every group that says nothing else.
#[derive(Clone, Debug)]
pub struct GlobalConfig {
    /// Whose data groups read and write.
    pub tenant: TenantId,
    /// Time between two evaluations.
    pub evaluation_interval: Duration,
    /// How far before its evaluation a rule looks.
    pub query_offset: Duration,
    /// Labels that alerts get when they leave, and that templates see.
    pub external_labels: Vec<(String, String)>,
}

impl Default for GlobalConfig {
    fn default() -> Self {
        Self {
            tenant: TenantId::anonymous(),
            evaluation_interval: Duration::from_secs(60),
            query_offset: Duration::ZERO,
            external_labels: Vec::new(),
        }
    }
}

/// Where alerts are sent.
#[derive(Clone, Debug, Default)]
pub struct AlertingConfig {
    pub(crate) relabel: Rules,
    pub(crate) groups: Vec<AlertmanagerGroup>,
}

/// One item of `alertmanagers`.
#[derive(Clone, Debug)]
pub(crate) struct AlertmanagerGroup {
    pub(crate) scheme: String,
    pub(crate) path_prefix: String,
    pub(crate) timeout: Duration,
    pub(crate) headers: Vec<Header>,
    pub(crate) relabel: Rules,
    pub(crate) alert_relabel: Rules,
    pub(crate) discoveries: Vec<Discovery>,
}

/// What proves who we are.
#[derive(Clone, Debug)]
pub(crate) enum Header {
    Basic { username: String, password: Secret },
    Token { kind: String, credentials: Secret },
}

/// A secret, or the file that has it, read each time.
#[derive(Clone)]
pub(crate) enum Secret {
    Text(String),
    File(PathBuf),
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(_) => f.write_str("<secret>"),
            Self::File(path) => write!(f, "{path:?}"),
        }
    }
}

/// One way in which Alertmanagers are found.
#[derive(Clone, Debug)]
pub(crate) enum Discovery {
    Static(Vec<TargetGroup>),
    /// Paths and patterns of files with groups.
    Files(Vec<PathBuf>, Duration),
}

/// Targets that share labels.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TargetGroup {
    pub(crate) targets: Vec<String>,
    pub(crate) labels: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct FileYaml {
    global: GlobalYaml,
    rule_files: Vec<String>,
    alerting: AlertingYaml,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct GlobalYaml {
    evaluation_interval: Option<PromDuration>,
    rule_query_offset: Option<PromDuration>,
    external_labels: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct AlertingYaml {
    alert_relabel_configs: Vec<RuleConfig>,
    alertmanagers: Vec<AlertmanagerYaml>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct AlertmanagerYaml {
    scheme: String,
    path_prefix: String,
    timeout: PromDuration,
    api_version: String,
    basic_auth: Option<BasicYaml>,
    authorization: Option<AuthorizationYaml>,
    relabel_configs: Vec<RuleConfig>,
    alert_relabel_configs: Vec<RuleConfig>,
    static_configs: Vec<TargetGroup>,
    file_sd_configs: Vec<FileSdYaml>,
    follow_redirects: Option<IgnoredAny>,
    enable_http2: Option<IgnoredAny>,
}

impl Default for AlertmanagerYaml {
    fn default() -> Self {
        Self {
            scheme: "http".to_owned(),
            path_prefix: String::new(),
            timeout: PromDuration(Duration::from_secs(10)),
            api_version: "v2".to_owned(),
            basic_auth: None,
            authorization: None,
            relabel_configs: Vec::new(),
            alert_relabel_configs: Vec::new(),
            static_configs: Vec::new(),
            file_sd_configs: Vec::new(),
            follow_redirects: None,
            enable_http2: None,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BasicYaml {
    #[serde(default)]
    username: String,
    password: Option<String>,
    password_file: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AuthorizationYaml {
    #[serde(rename = "type", default)]
    kind: String,
    credentials: Option<String>,
    credentials_file: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileSdYaml {
    files: Vec<PathBuf>,
    refresh_interval: Option<PromDuration>,
}

pub(super) struct Found {
    pub(super) global: GlobalConfig,
    pub(super) rule_files: Vec<String>,
    pub(super) alerting: AlertingConfig,
}

pub(super) fn read(
    files: &dyn Files,
    path: &Path,
    defaults: &GlobalConfig,
) -> Result<Found, RulesError> {
    let unreadable = |what| RulesError::Read {
        path: path.to_owned(),
        what,
    };
    let texts = files.matching(path).map_err(unreadable)?;
    let text = texts
        .into_iter()
        .next()
        .map_or(String::new(), |(_, text)| text);
    let yaml: FileYaml = from_yaml(&text).map_err(unreadable)?;
    let global = GlobalConfig {
        tenant: defaults.tenant.clone(),
        evaluation_interval: yaml
            .global
            .evaluation_interval
            .map(|interval| interval.0)
            .filter(|interval| !interval.is_zero())
            .unwrap_or(defaults.evaluation_interval),
        query_offset: yaml
            .global
            .rule_query_offset
            .map_or(defaults.query_offset, |offset| offset.0),
        external_labels: yaml.global.external_labels.into_iter().collect(),
    };
    let dir = path.parent().unwrap_or_else(|| Path::new(""));
    let wrong = |(place, what): (String, String)| RulesError::Alerting {
        path: path.to_owned(),
        place,
        what,
    };
    let relabel = rules(
        "alerting, alert_relabel_configs",
        &yaml.alerting.alert_relabel_configs,
    );
    let groups = yaml.alerting.alertmanagers.iter().zip(1..);
    let groups = groups.map(|(yaml, number)| alertmanagers(yaml, dir, number));
    let alerting = AlertingConfig {
        relabel: relabel.map_err(wrong)?,
        groups: groups.collect::<Result<_, _>>().map_err(wrong)?,
    };
    Ok(Found {
        global,
        rule_files: yaml.rule_files,
        alerting,
    })
}

type Wrong = (String, String);

fn rules(place: &str, configs: &[RuleConfig]) -> Result<Rules, Wrong> {
    Rules::new(configs).map_err(|error| {
        (
            format!("{place}, rule {}", error.number),
            error.error.to_string(),
        )
    })
}

fn alertmanagers(
    yaml: &AlertmanagerYaml,
    dir: &Path,
    number: usize,
) -> Result<AlertmanagerGroup, Wrong> {
    let place = |field: &str| format!("alerting, alertmanagers, item {number}, {field}");
    let wrong = |field: &str, what: &str| Err((place(field), what.to_owned()));
    if yaml.scheme != "http" && yaml.scheme != "https" {
        return wrong(
            "scheme",
            &format!("{:?} is neither http nor https", yaml.scheme),
        );
    }
    if yaml.api_version != "v2" {
        let what = format!(
            "expected Alertmanager api version to be v2 but got {}",
            yaml.api_version
        );
        return wrong("api_version", &what);
    }
    if yaml.basic_auth.is_some() && yaml.authorization.is_some() {
        return wrong(
            "authorization",
            "at most one of basic_auth and authorization can be set",
        );
    }
    let secret = |text: &Option<String>, file: &Option<PathBuf>| match (text, file) {
        (Some(text), _) => Secret::Text(text.clone()),
        (None, Some(file)) => Secret::File(dir.join(file)),
        (None, None) => Secret::Text(String::new()),
    };
    let basic = yaml.basic_auth.as_ref().map(|basic| Header::Basic {
        username: basic.username.clone(),
        password: secret(&basic.password, &basic.password_file),
    });
    let token = yaml.authorization.as_ref().map(|given| Header::Token {
        kind: match given.kind.trim() {
            "" => "Bearer".to_owned(),
            kind => kind.to_owned(),
        },
        credentials: secret(&given.credentials, &given.credentials_file),
    });
    let mut discoveries = Vec::new();
    if !yaml.static_configs.is_empty() {
        discoveries.push(Discovery::Static(yaml.static_configs.clone()));
    }
    for sd in &yaml.file_sd_configs {
        let every = sd
            .refresh_interval
            .map_or(Duration::from_secs(300), |every| every.0);
        let files = sd.files.iter().map(|file| dir.join(file)).collect();
        discoveries.push(Discovery::Files(files, every));
    }
    Ok(AlertmanagerGroup {
        scheme: yaml.scheme.clone(),
        path_prefix: yaml.path_prefix.clone(),
        timeout: yaml.timeout.0,
        headers: basic.into_iter().chain(token).collect(),
        relabel: rules(&place("relabel_configs"), &yaml.relabel_configs)?,
        alert_relabel: rules(&place("alert_relabel_configs"), &yaml.alert_relabel_configs)?,
        discoveries,
    })
}
