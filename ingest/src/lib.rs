//! The push endpoint: from an HTTP request to durable samples in the queue.
//!
//! [`Ingest`] takes JSON of devices, Influx line protocol, Prometheus remote write, OTLP metrics, text
//! exposition formats, CSV and VictoriaMetrics' JSON lines, and answers 2xx only when everything that it counts as accepted is durable. Formats, limits, statuses and
//! reason ids are in `docs/ingest.md`.
//!
//! The way of a request: its body is read within bounds (`http`), decompressed within bounds
//! (`encoding`) and decoded (`core`, `decode`) on a decode thread (`pool`); each sample finds its series in
//! the cache of known series (`series`) and goes into a section of its partition; the sections go
//! to the queue's [`Appender`](millrace_queue::Appender); the answer waits for it (`service`).
//!
//! **Invariants:**
//! - Bad items of a request are refused by name and never take their neighbours down; a request
//!   that is over a limit as a whole leaves no trace.
//! - Everything that a stranger can make large is bounded before memory is spent on it.
//! - Limits of a tenant are decided before the answer; tenants take turns where they have to wait.
//! - Per sample of a known series nothing is allocated, locked or parsed besides its numbers.

mod base64;
mod computed;
mod context;
mod core;
mod decode;
mod encoding;
mod error;
mod http;
mod keep;
mod memory;
mod metadata;
mod metrics;
mod number;
mod options;
mod pool;
mod precision;
#[doc(hidden)]
pub mod probe;
mod report;
mod scraped;
mod series;
mod service;
mod tenants;
#[cfg(test)]
mod testing;

pub use computed::Computed;
pub use context::PushContext;
pub use error::IngestError;
pub use http::PushShape;
pub use keep::{KeepRejected, RejectedBatch};
pub use options::{
    DeltaTemporality, IngestOptions, Limits, OtlpOptions, RateLimitedStatus, StringFields,
    TenantLimits, TranslationStrategy,
};
pub use precision::Precision;
pub use report::{Place, Reason, Rejection, Report};
pub use scraped::{
    ReportExtras, Scrape, ScrapeBody, ScrapeFailure, ScrapeFormat, ScrapeLimits, ScrapeOutcome,
    TargetOptions, TargetSeries,
};
pub use service::Ingest;
pub use tenants::{LimitsReport, Offender, TenantReport};
