//! `/api/v1/status/fleet`: which stores there are, and what they say.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use millrace_model::PartitionId;
use serde::Serialize;
use serde_json::json;

use crate::client::millis;
use crate::fleet::Fleet;
use crate::replicas::{Reach, Replica};
use crate::wire::messages::QueueInfo;

/// The path of the status.
pub const FLEET_STATUS_PATH: &str = "/api/v1/status/fleet";

/// The fleet in figures.
#[derive(Clone, Debug, Serialize)]
pub struct FleetStatus {
    /// The queue that the stores read, once it is known.
    pub queue: Option<QueueInfo>,
    /// Its partitions.
    pub shards: Vec<ShardStatus>,
    /// The stores.
    pub stores: Vec<FleetStore>,
}

/// One partition with its replicas.
#[derive(Clone, Debug, Serialize)]
pub struct ShardStatus {
    /// Which partition.
    pub partition: u32,
    /// Whether a store can be asked for it.
    pub available: bool,
    /// The store that reads ask.
    pub asked: Option<String>,
    /// Who has it.
    pub replicas: Vec<ShardReplica>,
}

/// One copy of a partition.
#[derive(Clone, Debug, Serialize)]
pub struct ShardReplica {
    /// Address of the store.
    pub store: String,
    /// Whether the store can be reached.
    pub reachable: bool,
    /// What the partition is doing there, as the store said last.
    pub state: String,
    /// Everything below this offset can be read there, as the store said last.
    pub applied_offset: u64,
    /// Records that another reachable replica has and this one lacks.
    pub behind_records: u64,
}

/// One store.
#[derive(Clone, Debug, Serialize)]
pub struct FleetStore {
    /// Its address.
    pub address: String,
    /// `reachable`, `unreachable`, `foreign` or `unknown`.
    pub state: &'static str,
    /// Why it is not asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Its name, as it said last.
    pub name: Option<String>,
    /// Its ordinal, and among how many, as it said last.
    pub ordinal: Option<(u32, u32)>,
    /// Milliseconds since it was last heard of.
    pub seen_ms_ago: Option<u64>,
    /// Milliseconds that its last status took.
    pub latency_ms: u64,
}

impl Fleet {
    /// What is known of all stores.
    #[must_use]
    pub fn status(&self) -> FleetStatus {
        let identity = self.identity();
        let replicas = self.replicas.lock();
        let count = identity.as_ref().map_or(0, |identity| identity.partitions);
        let shards = (0..count).map(|number| {
            let partition = PartitionId(number);
            let freshest = replicas.freshest(partition);
            let of_store = |(address, replica): (&String, &Replica)| {
                if matches!(replica.reach, Reach::Foreign { .. }) {
                    return None;
                }
                let entries = &replica.status.as_ref()?.partitions;
                let entry = entries.iter().find(|entry| entry.partition == number)?;
                let best = freshest.map_or(entry.applied, |best| best.0);
                Some(ShardReplica {
                    store: address.clone(),
                    reachable: replica.is_good(),
                    state: entry.state.clone(),
                    applied_offset: entry.applied,
                    behind_records: best.saturating_sub(entry.applied),
                })
            };
            ShardStatus {
                partition: number,
                available: freshest.is_some(),
                asked: replicas.chosen(partition).map(str::to_owned),
                replicas: replicas.iter().filter_map(of_store).collect(),
            }
        });
        FleetStatus {
            shards: shards.collect(),
            stores: replicas.iter().map(store).collect(),
            queue: identity.as_ref().map(QueueInfo::from),
        }
    }
}

fn store((address, replica): (&String, &Replica)) -> FleetStore {
    let (state, reason) = match &replica.reach {
        Reach::Unknown => ("unknown", None),
        Reach::Good => ("reachable", None),
        Reach::Failed { reason } => ("unreachable", Some(reason.clone())),
        Reach::Foreign { reason } => ("foreign", Some(reason.clone())),
    };
    let status = replica.status.as_ref();
    FleetStore {
        address: address.clone(),
        state,
        reason,
        name: status.map(|status| status.store.clone()),
        ordinal: status.map(|status| (status.ordinal, status.nodes)),
        seen_ms_ago: replica
            .seen
            .map(|seen| millis(Instant::now().saturating_duration_since(seen))),
        latency_ms: millis(replica.latency),
    }
}

/// The route of the status, in the shape of the API's other answers.
pub fn status_router(fleet: Arc<Fleet>) -> Router {
    async fn answer(State(fleet): State<Arc<Fleet>>) -> Response {
        Json(json!({"status": "success", "data": fleet.status()})).into_response()
    }
    Router::new()
        .route(FLEET_STATUS_PATH, get(answer))
        .with_state(fleet)
}
