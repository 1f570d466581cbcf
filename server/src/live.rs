//! The live feed of this process's store.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use millrace_live::{Applied, Live, LiveMetrics};
use millrace_model::{Offset, PartitionId};
use millrace_query::Engine;
use millrace_queue::Position;
use millrace_store::Store;

use crate::app::App;
use crate::config::Config;
use crate::failure::Failure;
use crate::queue::Queue;
use crate::source::PartSource;
use crate::{options, process};

/// What the store has applied.
struct StoreApplied(Arc<Store>);

impl fmt::Debug for StoreApplied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreApplied")
    }
}

impl Applied for StoreApplied {
    fn position(&self) -> Position {
        self.0.applied()
    }

    fn wait(&self, partition: PartitionId, wanted: Offset, timeout: Duration) -> Option<Offset> {
        let mut position = Position::new(self.0.identity().id);
        position.advance(partition, wanted);
        if let Err(error) = self.0.wait_applied(&position, timeout) {
            // In time or not, how far it is says the rest.
            tracing::trace!(%error, %partition, "nothing more was applied");
        }
        self.0.applied().next.get(&partition).copied()
    }
}

/// The feed and its route.
///
/// # Errors
///
/// Metrics that are there already.
pub fn open(
    app: &App,
    config: &Config,
    store: &Arc<Store>,
    queue: &dyn Queue,
) -> Result<(Live, Router), Failure> {
    let metrics = LiveMetrics::register(&app.registry)
        .map_err(|error| Failure::Data(format!("metrics: {error}")))?;
    let connections = process::connections_that_fit(config.server.max_connections);
    let live = Live::new(
        options::live(config, connections),
        queue.records(),
        Arc::new(StoreApplied(store.clone())),
        metrics,
    );
    // It reads selectors and evaluates nothing.
    let source = Arc::new(PartSource(store.all()));
    let engine = Arc::new(Engine::new(source, options::engine(config)));
    let router = millrace_live::router(live.clone(), engine);
    Ok((live, router))
}
