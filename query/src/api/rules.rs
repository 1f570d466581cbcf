//! `rules`, `alerts`, `alertmanagers`: what is recorded and alerted on, in Prometheus's shapes.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use millrace_model::{Labels, Matcher, TimestampMs};
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_128;

use super::App;
use super::companions::{Alert, Alerting, Health, Rule, RuleGroup};
use super::error::ApiError;
use super::params::Params;
use super::selector::matcher_sets;
use super::status::{rfc3339, success};
use crate::ReadScope;

pub(super) async fn alertmanagers(State(app): State<Arc<App>>) -> Response {
    let (active, dropped) = app.api.companions.rules.alertmanagers();
    let list = |urls: Vec<String>| -> Value {
        let one = |url: String| json!({ "url": url });
        urls.into_iter().map(one).collect()
    };
    success(&json!({
        "activeAlertmanagers": list(active),
        "droppedAlertmanagers": list(dropped),
    }))
}

pub(super) async fn alerts(State(app): State<Arc<App>>, scope: ReadScope) -> Response {
    let groups = app.api.companions.rules.groups(&scope);
    let rules = groups.iter().flat_map(|group| &group.rules);
    let alerting = rules.filter_map(|rule| rule.alerting.as_ref());
    let shown: Vec<_> = alerting
        .flat_map(|alerting| alerting.alerts.iter().map(alert))
        .collect();
    success(&json!({ "alerts": shown }))
}

/// What of the rules is asked for.
struct Wanted {
    names: BTreeSet<String>,
    groups: BTreeSet<String>,
    files: BTreeSet<String>,
    matchers: Vec<Vec<Matcher>>,
    alerting: bool,
    recording: bool,
    alerts: bool,
    /// Groups of one page.
    page: Option<usize>,
    /// The group that the page begins with.
    token: Option<String>,
}

impl Wanted {
    fn read(app: &App, params: &Params) -> Result<Self, ApiError> {
        let set = |name| params.all(name).map(str::to_owned).collect();
        let kind = params.get("type").unwrap_or_default().to_lowercase();
        if !["", "alert", "record"].contains(&kind.as_str()) {
            let reason = format!("not supported value {kind:?}");
            return Err(ApiError::invalid("type", reason));
        }
        let token = params.get("group_next_token").map(str::to_owned);
        let page = params
            .get("group_limit")
            .map(|text| {
                let invalid = |reason| ApiError::invalid("group_limit", reason);
                let limit: i32 = text
                    .parse()
                    .map_err(|_| invalid("group_limit needs to be a valid number"))?;
                usize::try_from(limit)
                    .ok()
                    .filter(|limit| *limit > 0)
                    .ok_or_else(|| invalid("group_limit needs to be greater than 0"))
            })
            .transpose()?;
        if token.is_some() && page.is_none() {
            return Err(ApiError::invalid(
                "group_next_token",
                "group_limit needs to be present in order to paginate over the groups",
            ));
        }
        Ok(Self {
            names: set("rule_name[]"),
            groups: set("rule_group[]"),
            files: set("file[]"),
            matchers: matcher_sets(app.api.engine.as_ref(), params)?,
            alerting: kind != "record",
            recording: kind != "alert",
            alerts: !params.flag("exclude_alerts")?,
            page,
            token,
        })
    }

    fn wants(&self, rule: &Rule) -> bool {
        let named = |set: &BTreeSet<String>, name: &str| set.is_empty() || set.contains(name);
        let kind = match rule.alerting {
            Some(_) => self.alerting,
            None => self.recording,
        };
        let labels = Labels::from_pairs(
            rule.labels
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str())),
        );
        let matched = self.matchers.is_empty()
            || labels.is_ok_and(|labels| {
                let all = |set: &Vec<Matcher>| set.iter().all(|m| m.matches_labels(&labels));
                self.matchers.iter().any(all)
            });
        kind && matched && named(&self.names, &rule.name)
    }
}

pub(super) async fn rules(
    State(app): State<Arc<App>>,
    scope: ReadScope,
    params: Params,
) -> Result<Response, ApiError> {
    let wanted = Wanted::read(&app, &params)?;
    let groups = app.api.companions.rules.groups(&scope);
    let begin = match &wanted.token {
        None => 0,
        Some(asked) => groups
            .iter()
            .position(|group| token(group) == *asked)
            .ok_or_else(|| {
                let text = format!("invalid group_next_token '{asked}'. were rule groups changed?");
                ApiError::invalid("group_next_token", text)
            })?,
    };
    let named = |set: &BTreeSet<String>, name: &String| set.is_empty() || set.contains(name);
    let mut shown = Vec::new();
    let mut next = None;
    for group in &groups[begin..] {
        if !named(&wanted.groups, &group.name) || !named(&wanted.files, &group.file) {
            continue;
        }
        let rules: Vec<_> = group
            .rules
            .iter()
            .filter(|rule| wanted.wants(rule))
            .map(|one| rule(one, wanted.alerts))
            .collect();
        if rules.is_empty() {
            continue;
        }
        if wanted.page.is_some_and(|page| shown.len() == page) {
            next = Some(token(group));
            break;
        }
        shown.push(json!({
            "name": group.name,
            "file": group.file,
            "rules": rules,
            "interval": group.interval.as_secs_f64(),
            "limit": group.limit,
            "evaluationTime": group.evaluation_time.as_secs_f64(),
            "lastEvaluation": moment(group.last_evaluation),
        }));
    }
    let mut data = json!({ "groups": shown });
    if let Some(next) = next {
        data["groupNextToken"] = json!(next);
    }
    Ok(success(&data))
}

/// Names a group towards clients. Opaque, and the same as long as file and name are.
fn token(group: &RuleGroup) -> String {
    format!(
        "{:032x}",
        xxh3_128(format!("{};{}", group.file, group.name).as_bytes())
    )
}

fn rule(rule: &Rule, with_alerts: bool) -> Value {
    let health = match rule.health {
        Health::Unknown => "unknown",
        Health::Good => "ok",
        Health::Bad => "err",
    };
    let mut out = json!({
        "name": rule.name,
        "query": rule.query,
        "labels": rule.labels,
        "health": health,
        "evaluationTime": rule.evaluation_time.as_secs_f64(),
        "lastEvaluation": moment(rule.last_evaluation),
        "type": "recording",
    });
    if !rule.last_error.is_empty() {
        out["lastError"] = json!(rule.last_error);
    }
    if let Some(alerting) = &rule.alerting {
        out["type"] = json!("alerting");
        out["state"] = json!(state(alerting));
        out["duration"] = json!(alerting.hold.as_secs_f64());
        out["keepFiringFor"] = json!(alerting.keep_firing.as_secs_f64());
        out["annotations"] = json!(alerting.annotations);
        out["alerts"] = match with_alerts {
            true => alerting.alerts.iter().map(alert).collect(),
            false => Value::Null,
        };
    }
    out
}

fn state(alerting: &Alerting) -> &'static str {
    if alerting.alerts.iter().any(|alert| alert.firing) {
        "firing"
    } else if alerting.alerts.is_empty() {
        "inactive"
    } else {
        "pending"
    }
}

fn alert(alert: &Alert) -> Value {
    let mut out = json!({
        "labels": alert.labels,
        "annotations": alert.annotations,
        "state": if alert.firing { "firing" } else { "pending" },
        "activeAt": rfc3339(alert.active_at),
        "value": exponential(alert.value),
    });
    if let Some(since) = alert.keep_firing_since {
        out["keepFiringSince"] = rfc3339(since);
    }
    out
}

/// `strconv.FormatFloat(v, 'e', -1, 64)`, which Prometheus uses for the values of alerts.
fn exponential(value: f64) -> String {
    let mut out = Vec::new();
    if value.is_finite() {
        super::json::scientific(&mut out, value);
    } else {
        super::json::number(&mut out, value);
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Go's moment before all others stands for "never".
fn moment(time: Option<TimestampMs>) -> Value {
    time.map_or_else(|| json!("0001-01-01T00:00:00Z"), rfc3339)
}
