//! Backups of the running process: `POST /api/v1/admin/tsdb/snapshot`, in Prometheus's shape.
//!
//! Invariants:
//! - They go to `<data_dir>/snapshots/<name>` and nowhere else: no request names a path.
//! - The shards are taken first and the queue behind them, so that a restored store finds there what
//!   comes behind its position.
//! - It is refused unless `server.admin_api` is set.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::{Query, Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use axum::{Json, Router};
use chrono::DateTime;
use millrace_log::fs::{Fs, remove_tree};
use millrace_model::Clock;
use millrace_store::backup::{self, Backup};
use millrace_store::{Store, StoreError};
use serde::Deserialize;
use serde_json::json;
use tracing::{info, warn};

use crate::admin::{Refusal, allow};
use crate::queue::Queue;

/// What the endpoint needs.
pub struct Snapshots {
    /// Whether it answers at all.
    pub enabled: bool,
    /// The store of this process.
    pub store: Arc<Store>,
    /// The queue that feeds it.
    pub queue: Arc<dyn Queue>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where the files are.
    pub fs: Arc<dyn Fs>,
    /// The data directory.
    pub data_dir: PathBuf,
}

/// The route.
pub fn router(snapshots: Snapshots) -> Router {
    Router::new()
        .route("/api/v1/admin/tsdb/snapshot", any(snapshot))
        .with_state(Arc::new(snapshots))
}

#[derive(Deserialize)]
struct Wanted {
    /// Leave out what is not in blocks yet; the restored store reads it from the queue again.
    #[serde(default)]
    skip_head: bool,
}

async fn snapshot(
    State(snapshots): State<Arc<Snapshots>>,
    request: Request,
) -> Result<Response, Refusal> {
    allow(snapshots.enabled, request.method())?;
    let wanted = Query::<Wanted>::try_from_uri(request.uri());
    let Query(wanted) = wanted.map_err(|error| Refusal::bad_data(error.to_string()))?;
    let taken = tokio::task::spawn_blocking(move || snapshots.take(!wanted.skip_head)).await;
    let (name, path, backup) =
        taken.map_err(|error| Refusal::unavailable(format!("it was cut off: {error}")))??;
    let data = json!({
        "name": name,
        "path": path,
        "files": backup.files.len(),
        "bytes": backup.bytes(),
        "position": position(&backup),
    });
    Ok(Json(json!({"status": "success", "data": data})).into_response())
}

/// Up to where each shard is in it.
fn position(backup: &Backup) -> Vec<serde_json::Value> {
    let shards = backup.shards.iter().map(|shard| {
        json!({
            "partition": shard.partition.0,
            "queue": shard.queue.to_string(),
            "applied_offset": shard.applied.0,
        })
    });
    shards.collect()
}

impl Snapshots {
    fn take(&self, with_wal: bool) -> Result<(String, PathBuf, Backup), Refusal> {
        let number = self.fs.unique_id();
        let number = number.map_err(|error| Refusal::unavailable(error.to_string()))?;
        let now = self.clock.now();
        let time = DateTime::from_timestamp_millis(now.0).map_or_else(
            || now.0.to_string(),
            |t| t.format("%Y%m%dT%H%M%SZ").to_string(),
        );
        // Half of the random digits are plenty.
        let name = format!("{time}-{:016x}", number >> 64);
        let dir = self.data_dir.join("snapshots").join(&name);
        let begun = self.clock.monotonic();
        let taken = self.take_to(&dir, with_wal).inspect_err(|_| {
            if let Err(error) = remove_tree(&*self.fs, &dir) {
                warn!(%error, ?dir, "an unfinished snapshot could not be removed");
            }
        });
        let backup = taken?;
        let seconds = self.clock.monotonic().saturating_sub(begun).as_secs_f64();
        info!(name, bytes = backup.bytes(), seconds, "snapshot taken");
        Ok((name, dir, backup))
    }

    fn take_to(&self, dir: &Path, with_wal: bool) -> Result<Backup, Refusal> {
        let mut taken = None;
        let mut first = || taken = Some(self.store.snapshot(with_wal));
        let queue = self.queue.hold_behind(&mut first);
        let queue = queue.map_err(Refusal::unavailable)?;
        let snapshot = taken.unwrap_or(Err(StoreError::NotRunning));
        let snapshot = snapshot.map_err(|error| Refusal::unavailable(error.to_string()))?;
        let written = backup::write(
            &*self.fs,
            &self.data_dir.join("store"),
            dir,
            &snapshot,
            queue.as_ref(),
            self.clock.now(),
            &mut |_| (),
        );
        written.map_err(|error| Refusal::internal(&error))
    }
}
