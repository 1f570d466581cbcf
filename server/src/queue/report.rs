//! What an acknowledged append survives, in words and figures: `GET /api/v1/status/durability`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use prometheus::{Gauge, GaugeVec, IntGauge, Opts, Registry};
use serde::Serialize;
use serde_json::json;

use crate::app::App;

/// What an acknowledged append survives, and what that is made of.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DurabilityReport {
    /// `embedded` or `kafka`.
    pub backend: &'static str,
    /// The queue's identity, as positions carry it. Of a topic: its id.
    pub queue: String,
    /// Number of partitions.
    pub partitions: u32,
    /// `process`, `disk` or `replicated`.
    pub level: &'static str,
    /// The least that the configuration accepts.
    pub minimum: &'static str,
    /// The topic, if the queue is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<TopicFacts>,
    /// Where its dead letters go, if the queue is a topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dead_letters: Option<LettersFacts>,
    /// What keeps the queue from giving more.
    pub short: Vec<Short>,
}

/// The topic of the dead letters.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LettersFacts {
    /// Its name.
    pub topic: String,
    /// Why it takes none; they then wait in the stores' directories.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// A topic as it was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TopicFacts {
    /// Its name.
    pub name: String,
    /// The cluster's id.
    pub cluster_id: String,
    /// The fewest copies that a partition has.
    pub replication: u32,
    /// `min.insync.replicas`
    pub min_insync_replicas: u32,
    /// `unclean.leader.election.enable`
    pub unclean_leader_election: bool,
    /// `retention.ms` in seconds; none: for ever.
    pub retention_seconds: Option<f64>,
    /// `max.message.bytes`
    pub max_message_bytes: u64,
    /// `cleanup.policy`
    pub cleanup_policy: String,
    /// `flush.messages`
    pub flush_messages: u64,
}

/// A setting that is short of a level.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Short {
    /// The level that it is short of.
    pub of: &'static str,
    /// The setting.
    pub setting: String,
    /// What it is.
    pub found: String,
    /// What it must be.
    pub needed: String,
}

/// Answers the request.
pub async fn status(State(app): State<Arc<App>>) -> Response {
    let Some(parts) = app.parts() else {
        return crate::routes::not_open_yet(&app);
    };
    match parts.queue.as_ref().map(|queue| queue.durability()) {
        Some(report) => Json(json!({"status": "success", "data": report})).into_response(),
        None => crate::routes::no_queue(),
    }
}

/// The same as metrics.
#[derive(Clone, Debug)]
pub struct DurabilityMetrics {
    level: IntGauge,
    minimum: IntGauge,
    replication: Option<IntGauge>,
    min_insync: Option<IntGauge>,
    unclean: Option<IntGauge>,
    max_message: Option<IntGauge>,
    retention: Option<Gauge>,
}

/// The level as a number, so that an alert can compare: 1, 2, 3.
fn rank(level: &str) -> i64 {
    match level {
        "process" => 1,
        "disk" => 2,
        _ => 3,
    }
}

impl DurabilityMetrics {
    /// Registers the metrics of such a queue.
    ///
    /// # Errors
    ///
    /// If the registry has metrics of these names already.
    pub fn register(
        registry: &Registry,
        report: &DurabilityReport,
    ) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let info = GaugeVec::new(
            Opts::new("millrace_queue_info", "1, with what the queue is."),
            &["backend", "queue", "cluster", "topic"],
        )?;
        registry.register(Box::new(info.clone()))?;
        let (cluster, topic) = report
            .topic
            .as_ref()
            .map_or(("", ""), |topic| (&topic.cluster_id, &topic.name));
        info.with_label_values(&[report.backend, &report.queue, cluster, topic])
            .set(1.0);
        gauge("millrace_queue_partitions", "Partitions of the queue.")?
            .set(i64::from(report.partitions));
        let mut metrics = Self {
            level: gauge(
                "millrace_queue_durability_level",
                "What an acknowledged append survives: 1 a process's death, 2 power loss, 3 the \
                 loss of a machine.",
            )?,
            minimum: gauge(
                "millrace_queue_durability_minimum",
                "The least that the configuration accepts, in the same numbers.",
            )?,
            replication: None,
            min_insync: None,
            unclean: None,
            max_message: None,
            retention: None,
        };
        if report.topic.is_some() {
            let retention = Gauge::new(
                "millrace_queue_retention_seconds",
                "How long the topic keeps a record: a store that is further behind loses some. \
                 +Inf: for ever.",
            )?;
            registry.register(Box::new(retention.clone()))?;
            metrics.retention = Some(retention);
            metrics.replication = Some(gauge(
                "millrace_queue_replication",
                "The fewest copies that a partition of the topic has.",
            )?);
            metrics.min_insync = Some(gauge(
                "millrace_queue_min_insync_replicas",
                "Replicas that must have a record before it is acknowledged.",
            )?);
            metrics.unclean = Some(gauge(
                "millrace_queue_unclean_leader_election",
                "1 if a replica that lacks acknowledged records may become leader.",
            )?);
            metrics.max_message = Some(gauge(
                "millrace_queue_max_message_bytes",
                "Longest record that the topic takes.",
            )?);
        }
        metrics.note(report);
        Ok(metrics)
    }

    /// Takes what a report says.
    pub fn note(&self, report: &DurabilityReport) {
        self.level.set(rank(report.level));
        self.minimum.set(rank(report.minimum));
        let Some(topic) = &report.topic else { return };
        let set = |gauge: &Option<IntGauge>, value: i64| {
            if let Some(gauge) = gauge {
                gauge.set(value);
            }
        };
        set(&self.replication, i64::from(topic.replication));
        set(&self.min_insync, i64::from(topic.min_insync_replicas));
        set(&self.unclean, i64::from(topic.unclean_leader_election));
        let bytes = i64::try_from(topic.max_message_bytes).unwrap_or(i64::MAX);
        set(&self.max_message, bytes);
        if let Some(retention) = &self.retention {
            retention.set(topic.retention_seconds.unwrap_or(f64::INFINITY));
        }
    }
}
