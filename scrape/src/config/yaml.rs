//! What may stand in the file, field by field, with Prometheus's names and defaults.

use std::collections::BTreeMap;
use std::path::PathBuf;

use millrace_relabel::RuleConfig;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer, Serialize};

use super::duration::PromDuration;
use super::http::{Authorization, BasicAuth, HeaderValues, HttpConfig, TlsConfig};
use super::secret::Secret;
use super::size::Size;

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct File {
    #[serde(deserialize_with = "or_default")]
    pub(crate) global: Global,
    #[serde(deserialize_with = "or_default")]
    pub(crate) scrape_config_files: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) scrape_configs: Vec<JobYaml>,
    rule_files: Ignored,
    alerting: Ignored,
    remote_write: Ignored,
    remote_read: Ignored,
    storage: Ignored,
    tracing: Ignored,
    otlp: Ignored,
    runtime: Ignored,
}

impl File {
    /// Sections that are there and mean nothing to the scraper.
    pub(crate) fn ignored(&self) -> Vec<&'static str> {
        let sections = [
            ("rule_files", &self.rule_files),
            ("alerting", &self.alerting),
            ("remote_write", &self.remote_write),
            ("remote_read", &self.remote_read),
            ("storage", &self.storage),
            ("tracing", &self.tracing),
            ("otlp", &self.otlp),
            ("runtime", &self.runtime),
            ("global.external_labels", &self.global.external_labels),
            ("global.query_log_file", &self.global.query_log_file),
        ];
        let there = sections.into_iter().filter(|(_, section)| section.0);
        there.map(|(name, _)| name).collect()
    }
}

/// A file of `scrape_config_files`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct MoreFile {
    #[serde(deserialize_with = "or_default")]
    pub(crate) scrape_configs: Vec<JobYaml>,
}

/// Something that is there and is not looked at.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ignored(bool);

impl<'de> Deserialize<'de> for Ignored {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self(true))
    }
}

/// What holds for every job that says nothing else. Zero stands for what is not given.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Global {
    pub(crate) scrape_interval: PromDuration,
    pub(crate) scrape_timeout: PromDuration,
    pub(crate) scrape_protocols: Option<Vec<Protocol>>,
    pub(crate) body_size_limit: Size,
    pub(crate) sample_limit: u64,
    pub(crate) label_limit: usize,
    pub(crate) label_name_length_limit: usize,
    pub(crate) label_value_length_limit: usize,
    pub(crate) target_limit: usize,
    pub(crate) keep_dropped_targets: usize,
    pub(crate) extra_scrape_metrics: bool,
    external_labels: Ignored,
    query_log_file: Ignored,
    evaluation_interval: Ignored,
    rule_query_offset: Ignored,
    metric_name_validation_scheme: Ignored,
    metric_name_escaping_scheme: Ignored,
    scrape_native_histograms: Ignored,
    convert_classic_histograms_to_nhcb: Ignored,
    always_scrape_classic_histograms: Ignored,
}

/// A way in which a target may write what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Protocol {
    /// Never asked for: this scraper reads text.
    PrometheusProto,
    #[serde(rename = "PrometheusText0.0.4")]
    PrometheusText004,
    #[serde(rename = "PrometheusText1.0.0")]
    PrometheusText100,
    #[serde(rename = "OpenMetricsText0.0.1")]
    OpenMetricsText001,
    #[serde(rename = "OpenMetricsText1.0.0")]
    OpenMetricsText100,
}

/// Declares a struct that has Prometheus's HTTP client fields beside its own.
macro_rules! with_http_fields {
    ($(#[$attribute:meta])* $name:ident { $($(#[$of_field:meta])* $field:ident: $type:ty = $default:expr,)* }) => {
        $(#[$attribute])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub(crate) struct $name {
            $($(#[$of_field])* pub(crate) $field: $type,)*
            #[serde(skip_serializing_if = "Option::is_none")]
            pub(crate) basic_auth: Option<BasicAuth>,
            #[serde(skip_serializing_if = "Option::is_none")]
            pub(crate) authorization: Option<Authorization>,
            #[serde(skip_serializing_if = "Option::is_none")]
            pub(crate) bearer_token: Option<Secret>,
            #[serde(skip_serializing_if = "Option::is_none")]
            pub(crate) bearer_token_file: Option<PathBuf>,
            #[serde(skip_serializing_if = "is_default")]
            #[serde(deserialize_with = "or_default")]
            pub(crate) tls_config: TlsConfig,
            #[serde(skip_serializing_if = "BTreeMap::is_empty")]
            #[serde(deserialize_with = "or_default")]
            pub(crate) http_headers: BTreeMap<String, HeaderValues>,
            pub(crate) follow_redirects: bool,
            pub(crate) enable_http2: bool,
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    $($field: $default,)*
                    basic_auth: None,
                    authorization: None,
                    bearer_token: None,
                    bearer_token_file: None,
                    tls_config: TlsConfig::default(),
                    http_headers: BTreeMap::new(),
                    follow_redirects: true,
                    enable_http2: true,
                }
            }
        }

        impl $name {
            /// The fields about HTTP.
            pub(crate) fn http(&self) -> Result<HttpConfig, (&'static str, String)> {
                let token = self.bearer_token.is_some() || self.bearer_token_file.is_some();
                if token && self.authorization.is_some() {
                    let what = "at most one of bearer_token and authorization can be set";
                    return Err(("bearer_token", what.to_owned()));
                }
                let bearer = || Authorization {
                    credentials: self.bearer_token.clone(),
                    credentials_file: self.bearer_token_file.clone(),
                    ..Authorization::default()
                };
                let http = HttpConfig {
                    basic_auth: self.basic_auth.clone(),
                    authorization: self.authorization.clone().or_else(|| token.then(bearer)),
                    tls: self.tls_config.clone(),
                    headers: self.http_headers.clone(),
                    follow_redirects: self.follow_redirects,
                };
                http.check().map(|()| http)
            }
        }
    };
}

pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

with_http_fields! {
    /// A job of `scrape_configs`.
    JobYaml {
        job_name: String = String::new(),
        #[serde(skip_serializing_if = "Option::is_none")]
        scrape_interval: Option<PromDuration> = None,
        #[serde(skip_serializing_if = "Option::is_none")]
        scrape_timeout: Option<PromDuration> = None,
        #[serde(skip_serializing_if = "Option::is_none")]
        scrape_protocols: Option<Vec<Protocol>> = None,
        #[serde(skip_serializing_if = "Option::is_none")]
        fallback_scrape_protocol: Option<Protocol> = None,
        honor_labels: bool = false,
        honor_timestamps: bool = true,
        track_timestamps_staleness: bool = false,
        metrics_path: String = "/metrics".to_owned(),
        scheme: String = "http".to_owned(),
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        #[serde(deserialize_with = "or_default")]
        params: BTreeMap<String, Vec<String>> = BTreeMap::new(),
        enable_compression: bool = true,
        #[serde(skip_serializing_if = "Option::is_none")]
        body_size_limit: Option<Size> = None,
        #[serde(skip_serializing_if = "Option::is_none")]
        sample_limit: Option<u64> = None,
        #[serde(skip_serializing_if = "Option::is_none")]
        label_limit: Option<usize> = None,
        #[serde(skip_serializing_if = "Option::is_none")]
        label_name_length_limit: Option<usize> = None,
        #[serde(skip_serializing_if = "Option::is_none")]
        label_value_length_limit: Option<usize> = None,
        #[serde(skip_serializing_if = "Option::is_none")]
        target_limit: Option<usize> = None,
        #[serde(skip_serializing_if = "Option::is_none")]
        keep_dropped_targets: Option<usize> = None,
        #[serde(skip_serializing_if = "Option::is_none")]
        extra_scrape_metrics: Option<bool> = None,
        #[serde(skip_serializing)]
        scrape_classic_histograms: Ignored = Ignored(false),
        #[serde(skip_serializing)]
        always_scrape_classic_histograms: Ignored = Ignored(false),
        #[serde(skip_serializing)]
        scrape_native_histograms: Ignored = Ignored(false),
        #[serde(skip_serializing)]
        convert_classic_histograms_to_nhcb: Ignored = Ignored(false),
        #[serde(skip_serializing)]
        native_histogram_bucket_limit: Ignored = Ignored(false),
        #[serde(skip_serializing)]
        native_histogram_min_bucket_factor: Ignored = Ignored(false),
        #[serde(skip_serializing)]
        metric_name_validation_scheme: Ignored = Ignored(false),
        #[serde(skip_serializing)]
        metric_name_escaping_scheme: Ignored = Ignored(false),
        #[serde(skip_serializing_if = "Vec::is_empty")]
        #[serde(deserialize_with = "or_default")]
        static_configs: Vec<StaticGroup> = Vec::new(),
        #[serde(skip_serializing_if = "Vec::is_empty")]
        #[serde(deserialize_with = "or_default")]
        file_sd_configs: Vec<FileSd> = Vec::new(),
        #[serde(skip_serializing_if = "Vec::is_empty")]
        #[serde(deserialize_with = "or_default")]
        http_sd_configs: Vec<HttpSd> = Vec::new(),
        #[serde(skip_serializing_if = "Vec::is_empty")]
        #[serde(deserialize_with = "or_default")]
        dns_sd_configs: Vec<DnsSd> = Vec::new(),
        #[serde(skip_serializing_if = "Vec::is_empty")]
        #[serde(deserialize_with = "or_default")]
        relabel_configs: Vec<RuleConfig> = Vec::new(),
        #[serde(skip_serializing_if = "Vec::is_empty")]
        #[serde(deserialize_with = "or_default")]
        metric_relabel_configs: Vec<RuleConfig> = Vec::new(),
    }
}

/// Two jobs that differ only in what is not looked at are the same.
impl PartialEq for Ignored {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Serialize for Ignored {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

/// Targets that share labels: in `static_configs`, in a file, in an answer of `http_sd_configs`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct StaticGroup {
    #[serde(deserialize_with = "or_default")]
    pub(crate) targets: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[serde(deserialize_with = "or_default")]
    pub(crate) labels: BTreeMap<String, String>,
}

/// Groups in files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct FileSd {
    #[serde(deserialize_with = "or_default")]
    pub(crate) files: Vec<PathBuf>,
    pub(crate) refresh_interval: PromDuration,
}

impl Default for FileSd {
    fn default() -> Self {
        Self {
            files: Vec::new(),
            refresh_interval: PromDuration::from_secs(300),
        }
    }
}

with_http_fields! {
    /// Groups that a URL answers with.
    HttpSd {
        url: String = String::new(),
        refresh_interval: PromDuration = PromDuration::from_secs(60),
    }
}

/// Targets that names resolve to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct DnsSd {
    #[serde(deserialize_with = "or_default")]
    pub(crate) names: Vec<String>,
    pub(crate) refresh_interval: PromDuration,
    #[serde(rename = "type")]
    pub(crate) record: RecordType,
    pub(crate) port: u16,
}

impl Default for DnsSd {
    fn default() -> Self {
        Self {
            names: Vec::new(),
            refresh_interval: PromDuration::from_secs(30),
            record: RecordType::Srv,
            port: 0,
        }
    }
}

/// What a name is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum RecordType {
    Srv,
    A,
    Aaaa,
}

impl<'de> Deserialize<'de> for RecordType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.to_uppercase().as_str() {
            "SRV" => Ok(Self::Srv),
            "A" => Ok(Self::A),
            "AAAA" => Ok(Self::Aaaa),
            _ => Err(serde::de::Error::custom(format!(
                "DNS-SD records of type {text:?} are not supported, one of SRV, A, AAAA"
            ))),
        }
    }
}

/// Fields of Prometheus that this scraper does not have yet.
const NOT_YET: [&str; 7] = [
    "oauth2",
    "proxy_url",
    "proxy_from_environment",
    "no_proxy",
    "proxy_connect_header",
    "scrape_failure_log_file",
    "sigv4",
];

/// Reads YAML. A text without anything in it, be it comments, is the default.
///
/// # Errors
///
/// In words, with the line.
pub(crate) fn from_str<T: DeserializeOwned + Default>(text: &str) -> Result<T, String> {
    let read: Result<Option<T>, _> = serde_saphyr::from_str(text);
    read.map(Option::unwrap_or_default)
        .map_err(|error| describe(&error))
}

/// A section whose entries are all commented out is there, and null.
pub(crate) fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

fn describe(error: &serde_saphyr::Error) -> String {
    let inner = error.without_snippet();
    let place = inner.location().map_or(String::new(), |at| {
        format!("line {}, column {}: ", at.line(), at.column())
    });
    let text = inner.to_string();
    let field = text
        .split_once("unknown field `")
        .and_then(|(_, rest)| rest.split_once('`'));
    let Some((field, _)) = field else {
        return format!("{place}{text}");
    };
    if NOT_YET.contains(&field) {
        return format!("{place}field {field} is not supported yet");
    }
    if field.ends_with("_sd_configs") {
        return format!(
            "{place}{field} is not supported yet; there are static_configs, file_sd_configs, \
             http_sd_configs and dns_sd_configs"
        );
    }
    format!("{place}field {field} not found: {text}")
}
