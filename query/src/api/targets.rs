//! `targets`, `targets/metadata`, `targets/relabel_steps`, `scrape_pools`: what is scraped, in
//! Prometheus's shapes.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use millrace_model::Labels;
use serde_json::{Value, json};

use super::App;
use super::companions::{ActiveTarget, Health};
use super::error::ApiError;
use super::params::Params;
use super::status::{rfc3339, success};

/// Go's moment before all others, for "never".
const NEVER: &str = "0001-01-01T00:00:00Z";

pub(super) async fn scrape_pools(State(app): State<Arc<App>>) -> Response {
    success(&json!({ "scrapePools": app.api.companions.targets.pools() }))
}

pub(super) async fn pool_config(
    State(app): State<Arc<App>>,
    params: Params,
) -> Result<Response, ApiError> {
    let pool = params
        .get("scrapePool")
        .ok_or_else(|| ApiError::bad_data("no scrapePool parameter provided"))?;
    let yaml = app.api.companions.targets.pool_config(pool);
    let yaml = yaml.ok_or_else(|| ApiError::bad_data(unknown(pool)))?;
    Ok(success(&json!({ "yaml": yaml })))
}

fn unknown(pool: &str) -> String {
    format!("error retrieving scrape config: scrape pool {pool:?} not found")
}

pub(super) async fn targets(State(app): State<Arc<App>>, params: Params) -> Response {
    let targets = &app.api.companions.targets;
    let pool = params.get("scrapePool");
    let state = params.get("state").unwrap_or("any").to_lowercase();
    let of_pool = |name: &str| pool.is_none_or(|pool| pool == name);
    let shows = |wanted: &str| state == "any" || state == wanted;
    let active: Vec<_> = match shows("active") {
        true => targets.active(),
        false => Vec::new(),
    };
    let active: Vec<_> = active
        .iter()
        .filter(|target| of_pool(&target.pool))
        .map(describe)
        .collect();
    let (dropped, counts) = match shows("dropped") {
        true => (targets.dropped(), targets.dropped_counts()),
        false => (Vec::new(), BTreeMap::new()),
    };
    let dropped: Vec<_> = dropped
        .iter()
        .filter(|target| of_pool(&target.pool))
        .map(|target| json!({ "discoveredLabels": target.discovered, "scrapePool": target.pool }))
        .collect();
    success(&json!({
        "activeTargets": active,
        "droppedTargets": dropped,
        "droppedTargetCounts": counts,
    }))
}

fn describe(target: &ActiveTarget) -> Value {
    let health = match target.health {
        Health::Unknown => "unknown",
        Health::Good => "up",
        Health::Bad => "down",
    };
    json!({
        "discoveredLabels": target.discovered,
        "labels": labels(&target.labels),
        "scrapePool": target.pool,
        "scrapeUrl": target.url,
        "globalUrl": target.global_url,
        "lastError": target.last_error,
        "lastScrape": target.last_scrape.map_or_else(|| json!(NEVER), rfc3339),
        "lastScrapeDuration": target.last_scrape_duration.as_secs_f64(),
        "health": health,
        "scrapeInterval": target.interval,
        "scrapeTimeout": target.timeout,
    })
}

fn labels(labels: &Labels) -> BTreeMap<&str, &str> {
    labels.iter().collect()
}

pub(super) async fn metadata(
    State(app): State<Arc<App>>,
    params: Params,
) -> Result<Response, ApiError> {
    let limit = params
        .get("limit")
        .map(|text| text.parse::<i64>())
        .transpose()
        .map_err(|_| ApiError::bad_data("limit must be a number"))?
        .and_then(|limit| usize::try_from(limit).ok());
    let matchers = params
        .get("match_target")
        .map(|text| app.api.engine.selector(text))
        .transpose()
        .map_err(|error| ApiError::invalid("match_target", error))?
        .unwrap_or_default();
    let metric = params.get("metric");
    let mut shown = Vec::new();
    for target in app.api.companions.targets.active() {
        if limit.is_some_and(|limit| shown.len() >= limit) {
            break;
        }
        if !matchers.iter().all(|m| m.matches_labels(&target.labels)) {
            continue;
        }
        for entry in &target.metadata {
            if metric.is_some_and(|metric| metric != entry.metric) {
                continue;
            }
            let mut line = json!({
                "target": labels(&target.labels),
                "type": entry.metric_type.as_str(),
                "help": entry.help,
                "unit": entry.unit,
            });
            if metric.is_none() {
                line["metric"] = json!(entry.metric);
            }
            shown.push(line);
        }
    }
    Ok(success(&json!(shown)))
}

pub(super) async fn relabel_steps(
    State(app): State<Arc<App>>,
    params: Params,
) -> Result<Response, ApiError> {
    let given = |name: &str| {
        params
            .get(name)
            .ok_or_else(|| ApiError::bad_data(format!("no {name} parameter provided")))
    };
    let pool = given("scrapePool")?;
    let labels: BTreeMap<String, String> = serde_json::from_str(given("labels")?)
        .map_err(|error| ApiError::bad_data(format!("error parsing labels: {error}")))?;
    let steps = app.api.companions.targets.relabel_steps(pool, &labels);
    let steps = steps.ok_or_else(|| ApiError::bad_data(unknown(pool)))?;
    Ok(success(&json!({ "steps": steps })))
}
