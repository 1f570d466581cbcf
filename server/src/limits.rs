//! Limits of single tenants: the file of overrides (`ingest.tenants.overrides_file`), read again while
//! the server runs, and `/api/v1/status/limits`, which tells what of its limits a tenant uses.
//!
//! Invariants:
//! - A file that cannot be used changes nothing: what was in force stays so, the log and a metric say
//!   why. At the start it is an error.
//! - A tenant is told about itself alone; about all, only where the admin endpoints answer.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::Method;
use millrace_ingest::{Ingest, PushContext, TenantLimits};
use millrace_log::fs::{Fs, read_all};
use millrace_model::TenantId;
use prometheus::{IntCounter, IntGauge, Registry};
use serde::Deserialize;
use serde_json::json;
use tokio::time::MissedTickBehavior;
use tracing::{error, info, warn};

use crate::admin::{Refusal, allow};
use crate::config::kind::{Bytes, Kind, RateLimitedSetting, Raw};
use crate::config::one_request_fits;
use crate::options::rate_limited_status;

/// A file of limits is read whole; beyond this it is not one.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// How often it is looked whether the file has changed.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

// A change holds within seconds (docs/ingest.md).
const _: () = assert!(LOOK_INTERVAL.as_secs() <= 2);

/// Limits by tenant.
pub type Overrides = BTreeMap<TenantId, TenantLimits>;

/// A file of overrides.
#[derive(Clone, Debug)]
pub struct OverridesFile {
    fs: Arc<dyn Fs>,
    path: PathBuf,
    defaults: TenantLimits,
    decode_memory: Bytes,
}

impl OverridesFile {
    /// One whose tenants have `defaults` but for what it says, where decoding has so much memory.
    #[must_use]
    pub fn new(
        fs: Arc<dyn Fs>,
        path: PathBuf,
        defaults: TenantLimits,
        decode_memory: Bytes,
    ) -> Self {
        Self {
            fs,
            path,
            defaults,
            decode_memory,
        }
    }

    /// Its text and what that says.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, or that makes no sense; named, with the place.
    pub fn read(&self) -> Result<(String, Overrides), String> {
        let text = self.text()?;
        let overrides = self.parse(&text)?;
        Ok((text, overrides))
    }

    fn text(&self) -> Result<String, String> {
        let bytes = read_all(&*self.fs, &self.path, MAX_FILE_BYTES);
        let bytes = bytes.map_err(|error| self.named(&error.to_string()))?;
        String::from_utf8(bytes).map_err(|error| self.named(&error.to_string()))
    }

    fn parse(&self, text: &str) -> Result<Overrides, String> {
        parse(text, &self.defaults, self.decode_memory).map_err(|error| self.named(&error))
    }

    fn named(&self, error: &str) -> String {
        format!("{}: {error}", Path::display(&self.path))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    tenant: BTreeMap<String, BTreeMap<String, toml::Value>>,
}

fn parse(text: &str, defaults: &TenantLimits, decode_memory: Bytes) -> Result<Overrides, String> {
    let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
    let mut overrides = Overrides::new();
    for (name, entries) in &file.tenant {
        let id = name.parse().map_err(|error| format!("{error}"))?;
        let mut limits = defaults.clone();
        for (key, value) in entries {
            let of_tenant = |error| format!("tenant {name}: {key} {error}");
            let raw = match value {
                toml::Value::String(text) => Raw::Text(text.clone()),
                toml::Value::Integer(int) => Raw::Int(*int),
                toml::Value::Float(_)
                | toml::Value::Boolean(_)
                | toml::Value::Datetime(_)
                | toml::Value::Array(_)
                | toml::Value::Table(_) => {
                    return Err(of_tenant("must be a text or a whole number".to_owned()));
                }
            };
            set(&mut limits, key, &raw).map_err(of_tenant)?;
        }
        let bytes = |bytes: usize| Bytes(bytes as u64);
        let (body, decoded) = (limits.request.body_bytes, limits.request.decoded_bytes);
        one_request_fits(bytes(body), bytes(decoded), decode_memory)
            .map_err(|(key, reason)| format!("tenant {name}: {key} {reason}"))?;
        overrides.insert(id, limits);
    }
    Ok(overrides)
}

/// Sets one limit, by the name that its setting has behind the last dot.
fn set(limits: &mut TenantLimits, key: &str, raw: &Raw) -> Result<(), String> {
    fn at_least_one(count: usize) -> Result<usize, String> {
        if count == 0 {
            return Err("must be more than zero".to_owned());
        }
        Ok(count)
    }
    let count = || usize::read(raw).and_then(at_least_one);
    let bytes = || at_least_one(Bytes::read(raw)?.as_usize());
    let request = &mut limits.request;
    match key {
        "body_bytes" => request.body_bytes = bytes()?,
        "decoded_bytes" => request.decoded_bytes = bytes()?,
        "samples" => request.samples = count()?,
        "series" => request.series = count()?,
        "labels" => request.labels = count()?,
        "label_name_bytes" => request.label_name_bytes = bytes()?,
        "label_value_bytes" => request.label_value_bytes = bytes()?,
        "labels_bytes" => request.labels_bytes = bytes()?,
        "max_age" => limits.max_age = Kind::read(raw)?,
        "max_ahead" => limits.max_ahead = Kind::read(raw)?,
        "active_series" => limits.active_series = Kind::read(raw)?,
        "new_series_per_hour" => limits.new_series_per_hour = Kind::read(raw)?,
        "samples_per_second" => limits.samples_per_second = Kind::read(raw)?,
        "samples_burst" => limits.samples_burst = Kind::read(raw)?,
        "rate_limited_status" => {
            limits.rate_limited_status = rate_limited_status(RateLimitedSetting::read(raw)?);
        }
        _ => return Err("is no limit of a tenant".to_owned()),
    }
    Ok(())
}

/// Reads the file again when it has changed.
#[derive(Debug)]
pub struct Watch {
    file: OverridesFile,
    /// The text that was looked at last, good or bad.
    seen: Option<String>,
    ingest: Ingest,
    failures: IntCounter,
    bad: IntGauge,
}

impl Watch {
    /// Puts the file in force.
    ///
    /// # Errors
    ///
    /// A file that cannot be used, or figures that are registered already.
    pub fn start(file: OverridesFile, ingest: Ingest, registry: &Registry) -> Result<Self, String> {
        let failures = IntCounter::new(
            "millrace_ingest_limit_overrides_failures_total",
            "Times that the file of overrides had changed and could not be used",
        );
        let bad = IntGauge::new(
            "millrace_ingest_limit_overrides_bad",
            "1 while the file of overrides cannot be used, and an earlier one is in force",
        );
        let words = |error: prometheus::Error| error.to_string();
        let (failures, bad) = (failures.map_err(words)?, bad.map_err(words)?);
        registry
            .register(Box::new(failures.clone()))
            .map_err(words)?;
        registry.register(Box::new(bad.clone())).map_err(words)?;
        let (text, overrides) = file.read()?;
        info!(
            tenants = overrides.len(),
            "limits of single tenants are in force"
        );
        ingest.set_overrides(overrides);
        Ok(Self {
            file,
            seen: Some(text),
            ingest,
            failures,
            bad,
        })
    }

    /// Looks whether the file has changed. Blocks on the disk.
    pub fn look(&mut self) {
        let text = match self.file.text() {
            Ok(text) => text,
            Err(reason) => {
                if self.seen.take().is_some() {
                    self.keep_old(&reason);
                }
                return;
            }
        };
        if self.seen.as_ref() == Some(&text) {
            return;
        }
        match self.file.parse(&text) {
            Ok(overrides) => {
                info!(
                    tenants = overrides.len(),
                    "limits of single tenants have changed"
                );
                self.bad.set(0);
                self.ingest.set_overrides(overrides);
            }
            Err(reason) => self.keep_old(&reason),
        }
        self.seen = Some(text);
    }

    fn keep_old(&self, reason: &str) {
        warn!(reason, "the limits of single tenants stay as they were");
        self.failures.inc();
        self.bad.set(1);
    }

    /// Looks again and again. Ends only with its task.
    pub async fn run(self) {
        let mut watch = self;
        let mut ticks = tokio::time::interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let looking = tokio::task::spawn_blocking(move || {
                watch.look();
                watch
            });
            watch = match looking.await {
                Ok(watch) => watch,
                Err(error) => {
                    error!(%error, "reading the limits of single tenants panicked; they stay as they are");
                    return;
                }
            };
        }
    }
}

/// What the endpoints need.
#[derive(Clone, Debug)]
pub struct Status {
    /// Whether they tell of all tenants.
    pub admin: bool,
    /// Who counts.
    pub ingest: Ingest,
}

/// The routes.
pub fn router(status: Status) -> Router {
    Router::new()
        .route("/api/v1/status/limits", get(own))
        .route("/api/v1/admin/limits", get(all))
        .with_state(status)
}

#[derive(Deserialize)]
struct Wanted {
    /// Entries of each list.
    limit: Option<usize>,
}

impl Wanted {
    const DEFAULT: usize = 10;
    const MOST: usize = 64;

    fn of(request: &Request) -> Result<usize, Refusal> {
        let wanted = Query::<Self>::try_from_uri(request.uri());
        let Query(wanted) = wanted.map_err(|error| Refusal::bad_data(error.to_string()))?;
        Ok(wanted.limit.unwrap_or(Self::DEFAULT).min(Self::MOST))
    }
}

async fn own(State(status): State<Status>, request: Request) -> Result<Response, Refusal> {
    let context = request.extensions().get::<PushContext>();
    let tenant = context.map_or_else(TenantId::anonymous, |context| context.tenant.clone());
    let mut report = status
        .ingest
        .limits_report(Some(&tenant), Wanted::of(&request)?);
    // Whom labels bind shall not learn the names of what others of its tenant have.
    if context.is_some_and(|context| !context.forced_labels.is_empty()) {
        for tenant in &mut report.tenants {
            tenant.top_metrics.clear();
            tenant.top_labels.clear();
        }
    }
    Ok(Json(json!({"status": "success", "data": report})).into_response())
}

async fn all(State(status): State<Status>, request: Request) -> Result<Response, Refusal> {
    // It changes nothing, but it is for admins.
    allow(status.admin, &Method::POST)?;
    let report = status.ingest.limits_report(None, Wanted::of(&request)?);
    Ok(Json(json!({"status": "success", "data": report})).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_ingest::RateLimitedStatus;

    fn parsed(text: &str) -> Result<Overrides, String> {
        parse(text, &TenantLimits::default(), Bytes(256 << 20))
    }

    #[test]
    fn a_file_says_what_is_other_for_whom() {
        let overrides = parsed(
            "[tenant.acme]\nactive_series = 5\nsamples_per_second = 'none'\nmax_age = '7d'\n\
             labels = 60\nlabel_value_bytes = '8KiB'\nrate_limited_status = 503\n\n\
             [tenant.'b.c']\nnew_series_per_hour = '7'\n",
        )
        .unwrap();
        assert_eq!(overrides.len(), 2);
        let acme = &overrides[&"acme".parse().unwrap()];
        assert_eq!(acme.active_series, Some(5));
        assert_eq!(acme.max_age, Some(Duration::from_secs(7 * 24 * 3600)));
        assert_eq!(
            (acme.request.labels, acme.request.label_value_bytes),
            (60, 8 << 10)
        );
        assert_eq!(acme.rate_limited_status, RateLimitedStatus::Unavailable);
        let defaults = TenantLimits::default();
        assert_eq!(acme.request.samples, defaults.request.samples);
        let other = &overrides[&"b.c".parse().unwrap()];
        assert_eq!(other.new_series_per_hour, Some(7));
        assert_eq!(other.active_series, defaults.active_series);
        assert!(parsed("").unwrap().is_empty());
    }

    #[test]
    fn what_is_wrong_is_named_with_its_tenant() {
        for (text, says) in [
            ("[tenant.a]\nseires = 5\n", "tenant a: seires is no limit"),
            (
                "[tenant.a]\nseries = 0\n",
                "tenant a: series must be more than zero",
            ),
            ("[tenant.a]\nmax_age = 'soon'\n", "tenant a: max_age"),
            (
                "[tenant.a]\nbody_bytes = '1GiB'\n",
                "tenant a: ingest.limits.decoded_bytes must not be less",
            ),
            (
                "[tenant.a]\ndecoded_bytes = '255MiB'\n",
                "tenant a: ingest.decode_memory_bytes must not be less",
            ),
            ("[tenant.a]\nlabels = true\n", "tenant a: labels must be"),
            ("[tenant.'../x']\nlabels = 1\n", "tenant"),
            ("[tenants.a]\nlabels = 1\n", "tenants"),
            ("[tenant.a\n", "line 1"),
        ] {
            let error = parsed(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
