//! Options of the engine.

use std::time::Duration;

/// How the engine evaluates, and what a query may take.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// How far an instant selector looks back for a sample. Default 5 m.
    pub lookback: Duration,
    /// Longest time that a query may take. Default 30 s.
    pub timeout: Duration,
    /// Most samples that a query may hold at once. Default 50 million.
    pub max_samples: u64,
    /// Most steps of a range query. Default 11 000.
    pub max_points_per_series: u64,
    /// Most memory that a query's samples and series may take, in bytes; an account, not a
    /// measurement. Default 512 MiB.
    pub max_memory_bytes: u64,
    /// Longest text of a query, in bytes. Default 16 KiB.
    pub max_query_bytes: usize,
    /// Most tokens of a query. Default 2 000.
    pub max_tokens: usize,
    /// Deepest nesting of a query. Default 64.
    pub max_depth: usize,
    /// Most regular expressions of a query, in selectors. Each may compile to
    /// [`Matcher::MAX_PROGRAM_BYTES`](millrace_model::Matcher::MAX_PROGRAM_BYTES). Default 100.
    pub max_patterns: usize,
    /// Whether the metric's name is removed at the end of a query rather than by each operation,
    /// so that `label_replace` can still see it. Default off, as in Prometheus.
    pub delayed_name_removal: bool,
    /// The step of subqueries that name none. Default 1 m.
    pub default_subquery_step: Duration,
    /// Threads that read series for all queries, beside those that ask. Default: as many as there are cores.
    pub threads: usize,
    /// How nice these threads are to others, 0 to 19 (`nice(2)`; on Linux). Default 10.
    pub nice: i32,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            lookback: Duration::from_secs(300),
            timeout: Duration::from_secs(30),
            max_samples: 50_000_000,
            max_points_per_series: 11_000,
            max_memory_bytes: 512 << 20,
            max_query_bytes: 16 << 10,
            max_tokens: 2_000,
            max_depth: 64,
            max_patterns: 100,
            delayed_name_removal: false,
            default_subquery_step: Duration::from_secs(60),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            nice: 10,
        }
    }
}
