//! The API's bounds and the facts that only the server knows.

use std::collections::BTreeMap;
use std::time::Duration;

use super::cors::CorsOrigin;

/// Bounds of the API. `Default` gives what each field names as its default.
#[derive(Clone, Debug)]
pub struct ApiOptions {
    /// Queries that run at once, each on a thread of its own. Default: twice the processors.
    pub max_running: usize,
    /// How nice these threads are to others, 0 to 19 (`nice(2)`; on Linux). Default 10.
    pub nice: i32,
    /// Queries that may wait for a thread; one more is refused with 503. Default 64.
    pub max_waiting: usize,
    /// How long a query may wait for a thread before it is refused with 503. Default 10 s.
    pub max_wait: Duration,
    /// How long a client may take for a piece of 64 KiB of its answer before it is cut off.
    /// Default 60 s: about 1 KiB/s.
    pub max_stall: Duration,
    /// How long `Millrace-Read-After` waits for its position before 503. Default 5 s.
    pub read_after_timeout: Duration,
    /// Requests that wait for a position at once, each on a small thread. Default 16.
    pub read_after_waiters: usize,
    /// Longest form body in bytes; more is 413. Default 1 MiB: room for thousands of selectors.
    pub max_form_bytes: usize,
    /// Most steps of a range query beyond its first, as in Prometheus. Default 11,000.
    pub max_steps: i64,
    /// Whose scripts may read answers in a browser. Default `None`: nobody's. (Prometheus allows
    /// everybody; a server without authentication that listens on loopback would then be open to
    /// every page that its user visits.)
    pub cors_origin: Option<CorsOrigin>,
    /// A query that takes so long is logged and kept on record; `None` for no such record.
    /// Default 10 s.
    pub slow_threshold: Option<Duration>,
    /// Slow queries that are kept on record at most. Default 128.
    pub slow_entries: usize,
    /// How far `/federate` looks back for a sample; the engine's own lookback belongs here.
    /// Default 5 m.
    pub lookback: Duration,
    /// A series without a sample for longer is stale to `latest`, where a request says nothing else.
    /// Default 5 m.
    pub stale_after: Duration,
    /// Samples of a remote read that is not streamed at most: its answer is one message, held in
    /// memory, at some 11 bytes a sample. Default 5 million.
    pub remote_read_samples: u64,
    /// Length beyond which a frame of a streamed remote read is closed. Default 1 MiB, as in
    /// Prometheus.
    pub remote_read_frame_bytes: usize,
    /// Answer of `status/buildinfo`.
    pub build: BuildInfo,
    /// Answer of `status/flags`: settings and their values, secrets struck out. Default empty.
    pub flags: BTreeMap<String, String>,
}

impl Default for ApiOptions {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            max_running: 2 * cores,
            nice: 10,
            max_waiting: 64,
            max_wait: Duration::from_secs(10),
            max_stall: Duration::from_secs(60),
            read_after_timeout: Duration::from_secs(5),
            read_after_waiters: 16,
            max_form_bytes: 1 << 20,
            max_steps: 11_000,
            cors_origin: None,
            slow_threshold: Some(Duration::from_secs(10)),
            slow_entries: 128,
            lookback: Duration::from_secs(300),
            stale_after: Duration::from_secs(300),
            remote_read_samples: 5_000_000,
            remote_read_frame_bytes: 1 << 20,
            build: BuildInfo::default(),
            flags: BTreeMap::new(),
        }
    }
}

/// What `status/buildinfo` says of this build.
#[derive(Clone, Debug)]
pub struct BuildInfo {
    /// The version of *Prometheus's API* that we speak. Grafana, Thanos and others decide by it
    /// which calls they may make, so our own version does not belong here: with `0.1.0` Grafana
    /// would take us for a Prometheus too old for `match[]` on labels.
    pub api_version: String,
    /// Our own version.
    pub version: String,
    /// The commit, or empty where it is not known.
    pub revision: String,
    /// The branch, or empty.
    pub branch: String,
    /// When it was built, or empty.
    pub build_date: String,
}

impl Default for BuildInfo {
    fn default() -> Self {
        Self {
            api_version: "3.0.0".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: String::new(),
            branch: String::new(),
            build_date: String::new(),
        }
    }
}
