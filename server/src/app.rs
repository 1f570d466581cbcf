//! What the process is doing, shared by everything that reports on it.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use millrace_model::Clock;
use millrace_store::Store;
use parking_lot::Mutex;
use prometheus::Registry;
use serde::Serialize;

use crate::config::kind::Roles;
use crate::http::HttpMetrics;
use crate::lag::LagWatch;
use crate::queue::{DurabilityMetrics, Queue};
use crate::reload::Reloader;

/// The stages of the process's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The queue is being opened: torn tails are cut, segments are checked.
    OpeningQueue,
    /// The store is being opened: manifest, blocks, WAL.
    RecoveringStore,
    /// The store reads again what the queue has and its WAL lacks.
    CatchingUp,
    /// Requests are served.
    Ready,
    /// The queue cannot be read or appended to. It is tried again and again; requests are served
    /// with what there is.
    Hindered,
    /// A shard has stopped by an error. Nothing repairs that but a restart.
    Failed,
    /// Requests in flight are answered, then the process ends.
    Stopping,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OpeningQueue => "opening the queue",
            Self::RecoveringStore => "recovering the store",
            Self::CatchingUp => "catching up with the queue",
            Self::Ready => "ready",
            Self::Hindered => "cut off from its queue",
            Self::Failed => "out of order",
            Self::Stopping => "stopping",
        })
    }
}

#[derive(Debug)]
struct Standing {
    stage: Stage,
    detail: String,
    since: Duration,
}

/// The parts of a started server.
pub struct Parts {
    /// What the roles serve.
    pub router: Router,
    /// The store, where there is one.
    pub store: Option<Arc<Store>>,
    /// The queue, where a part reads or writes it.
    pub queue: Option<Arc<dyn Queue>>,
    /// How far the store is behind it.
    pub lag: LagWatch,
    /// What its durability is made of, as metrics.
    pub durability: Option<DurabilityMetrics>,
    /// Which parts run.
    pub roles: Roles,
    /// What can be read again, where there is something.
    pub reloader: Option<Reloader>,
}

/// Shared by the routes and the life cycle.
pub struct App {
    standing: Mutex<Standing>,
    parts: OnceLock<Parts>,
    /// All figures of the process.
    pub registry: Registry,
    /// Figures of the HTTP server.
    pub http: HttpMetrics,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

impl App {
    /// An app that has only begun.
    #[must_use]
    pub fn new(registry: Registry, http: HttpMetrics, clock: Arc<dyn Clock>) -> Self {
        Self {
            standing: Mutex::new(Standing {
                stage: Stage::OpeningQueue,
                detail: String::new(),
                since: clock.monotonic(),
            }),
            parts: OnceLock::new(),
            registry,
            http,
            clock,
        }
    }

    /// Where the process stands, and a detail for people.
    #[must_use]
    pub fn stage(&self) -> (Stage, String) {
        let standing = self.standing.lock();
        (standing.stage, standing.detail.clone())
    }

    /// How long the process has been in its stage.
    #[must_use]
    pub fn in_stage_for(&self) -> Duration {
        let since = self.standing.lock().since;
        self.clock.monotonic().saturating_sub(since)
    }

    /// Notes where the process stands.
    pub fn enter(&self, stage: Stage, detail: impl Into<String>) {
        let mut standing = self.standing.lock();
        if standing.stage != stage {
            standing.since = self.clock.monotonic();
        }
        standing.stage = stage;
        standing.detail = detail.into();
    }

    /// Hands over the opened parts. Requests are routed to them from now on.
    ///
    /// # Panics
    ///
    /// If it is called twice.
    pub fn install(&self, parts: Parts) {
        assert!(self.parts.set(parts).is_ok(), "the parts are opened once");
    }

    /// Which parts run; all, as long as they are not opened.
    #[must_use]
    pub fn roles(&self) -> Roles {
        self.parts().map_or(Roles::ALL, |parts| parts.roles)
    }

    /// The parts, as soon as they are opened.
    #[must_use]
    pub fn parts(&self) -> Option<&Parts> {
        self.parts.get()
    }
}
