//! The binary on a real broker.

mod announced;
mod catch_up;
mod dead_letters;
mod failures;
mod fleet;
mod fleet_tls;
mod identity;
mod migrate;
mod queue_commands;
mod refusals;
mod replay;
mod resume;
mod roles;
mod secure;
mod torture;

use std::time::Duration;

use serde_json::Value;

use crate::support::{Client, eventually};

const PATIENCE: Duration = Duration::from_secs(60);

/// The partitions of `/api/v1/status/pipeline`.
fn partitions(client: &Client) -> Vec<Value> {
    let status = client.get("/api/v1/status/pipeline").json();
    status["data"]["partitions"]
        .as_array()
        .expect("an array")
        .clone()
}

/// Waits until nothing of the queue is left to apply.
fn wait_applied(client: &Client) {
    eventually("everything to be applied", PATIENCE, || {
        let partitions = partitions(client);
        let done = !partitions.is_empty() && partitions.iter().all(|p| p["lag_records"] == 0);
        done.then_some(()).ok_or_else(|| format!("{partitions:?}"))
    });
}

/// The value of a metric's line that begins so.
fn metric(client: &Client, begin: &str) -> Option<f64> {
    let metrics = client.get("/metrics").text;
    let line = metrics.lines().find(|line| line.starts_with(begin))?;
    line.rsplit(' ').next()?.parse().ok()
}
